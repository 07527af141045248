/* Values to bytes and back, for the types that need no pickle: None, bool, int of 64 bits, float,
 * str, bytes, bytearray, array.array, and small nests of tuple, list and dict of these.
 *
 * Exact types only: an instance of a subclass may have more to it, and goes to pickle. Numbers are
 * little-endian as the machine has them; both sides are the same program on the same machine.
 *
 * What is read was written by a process that may have gone astray. So the reader believes nothing:
 * it checks each length against what is left, and reads each length once. */
#include "core.h"

#include <sys/mman.h>

/* From here on new memory is asked for in large pages, as NumPy does it: the first touch of 4 KiB
 * at a time takes longer than the copy. */
#define MANY_BYTES (4u << 20)
#define LARGE_PAGE (2u << 20)

/* Inside of containers, longer ones are looked at: one that comes twice goes to pickle, which sends
 * it once. */
#define MAX_NESTED_TEXT 4096
/* A reader's limit, well above what the writer's MAX_CONTAINERS allows. */
#define MAX_DEPTH 16

static Py_ssize_t measure_int(PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow)
        return -1;
    if (number == (int8_t)number)
        return 2;
    if (number == (int16_t)number)
        return 3;
    return number == (int32_t)number ? 5 : 9;
}

/* Strings that are not ASCII get their UTF-8 form cached by Python, as when they are pickled. Lone
 * surrogates have none. */
static const char *utf8(PyObject *value, Py_ssize_t *length)
{
    if (PyUnicode_IS_COMPACT_ASCII(value)) {
        *length = PyUnicode_GET_LENGTH(value);
        return PyUnicode_DATA(value);
    }
    const char *text = PyUnicode_AsUTF8AndSize(value, length);
    if (!text)
        PyErr_Clear();
    return text;
}

/* Also true when there are too many to remember. */
static bool met_before(Met *met, PyObject *container)
{
    for (int i = 0; i < met->count; i++)
        if (met->containers[i] == container)
            return true;
    if (met->count == MAX_CONTAINERS)
        return true;
    met->containers[met->count++] = container;
    return false;
}

static Py_ssize_t measure_text(PyObject *value, Py_ssize_t length, Met *met, bool nested)
{
    if (nested && length > MAX_NESTED_TEXT && met_before(met, value))
        return -1;
    return length <= UINT8_MAX ? 2 + length : 9 + length;
}

static Py_ssize_t measure(PyObject *value, Met *met, bool nested);

static Py_ssize_t measure_items(PyObject *const *items, Py_ssize_t count, Met *met)
{
    if (count > UINT32_MAX)
        return -1;
    Py_ssize_t total = 5;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t size = measure(items[i], met, true);
        if (size < 0)
            return -1;
        total += size;
    }
    return total;
}

static Py_ssize_t measure_dict(PyObject *dict, Met *met)
{
    if (PyDict_Size(dict) > UINT32_MAX)
        return -1;
    Py_ssize_t total = 5, position = 0;
    PyObject *key, *value;
    while (PyDict_Next(dict, &position, &key, &value)) {
        Py_ssize_t key_size = measure(key, met, true);
        Py_ssize_t value_size = key_size < 0 ? -1 : measure(value, met, true);
        if (value_size < 0)
            return -1;
        total += key_size + value_size;
    }
    return total;
}

static Py_ssize_t measure(PyObject *value, Met *met, bool nested)
{
    PyTypeObject *type = Py_TYPE(value);
    Py_ssize_t length;
    if (type == &PyLong_Type)
        return measure_int(value);
    if (type == &PyUnicode_Type)
        return utf8(value, &length) ? measure_text(value, length, met, nested) : -1;
    if (type == &PyFloat_Type)
        return 9;
    if (value == Py_None || type == &PyBool_Type)
        return 1;
    if (type == &PyBytes_Type)
        return measure_text(value, PyBytes_GET_SIZE(value), met, nested);
    bool flat = flat_check(value);
    if (!flat && type != &PyTuple_Type && type != &PyList_Type && type != &PyDict_Type)
        return -1;
    if (met_before(met, value))
        return -1;
    if (flat)
        return flat_measure(value);
    if (type == &PyTuple_Type)
        return measure_items(((PyTupleObject *)value)->ob_item, PyTuple_GET_SIZE(value), met);
    if (type == &PyList_Type) {
        PyObject *const *items = ((PyListObject *)value)->ob_item;
        Py_ssize_t size = array_measure(items, PyList_GET_SIZE(value));
        return size ? size : measure_items(items, PyList_GET_SIZE(value), met);
    }
    return measure_dict(value, met);
}

Py_ssize_t codec_measure(PyObject *value, Met *met)
{
    return measure(value, met, false);
}

/* ---- Writing --------------------------------------------------------------------------------- */

void codec_copy(void *to, const void *from, size_t size, bool release)
{
    if (!release || size <= COPY_WITHOUT_GIL) {
        memcpy(to, from, size);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    copy_memory(to, from, size);
    Py_END_ALLOW_THREADS
}

void codec_fill(void *to, const void *from, size_t size)
{
    uintptr_t begin = ((uintptr_t)to + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    uintptr_t end = ((uintptr_t)to + size) / LARGE_PAGE * LARGE_PAGE;
    if (size >= MANY_BYTES)
        (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE); /* or not: it is advice */
    codec_copy(to, from, size, true);
}

/* A tag and `size` bytes. */
static int put(Writer *writer, int tag, const void *data, size_t size)
{
    if (size >= (size_t)(writer->end - writer->next))
        return CODEC_FULL;
    *writer->next++ = (uint8_t)tag;
    memcpy(writer->next, data, size);
    writer->next += size;
    return CODEC_DONE;
}

static int write_int(Writer *writer, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow)
        return CODEC_PICKLE;
    if (number == (int8_t)number)
        return put(writer, TAG_INT8, &(int8_t){(int8_t)number}, 1);
    if (number == (int16_t)number)
        return put(writer, TAG_INT16, &(int16_t){(int16_t)number}, 2);
    if (number == (int32_t)number)
        return put(writer, TAG_INT32, &(int32_t){(int32_t)number}, 4);
    return put(writer, TAG_INT64, &(int64_t){number}, 8);
}

static int write_text(Writer *writer, int short_tag, PyObject *value, const void *text,
                      Py_ssize_t length, bool nested)
{
    if (!text || (nested && length > MAX_NESTED_TEXT && met_before(&writer->met, value)))
        return CODEC_PICKLE;
    int full = length <= UINT8_MAX ? put(writer, short_tag, &(uint8_t){(uint8_t)length}, 1)
                                   : put(writer, short_tag + 1, &(uint64_t){(uint64_t)length}, 8);
    if (full || length > writer->end - writer->next)
        return CODEC_FULL;
    codec_copy(writer->next, text, (size_t)length, writer->release && !nested);
    writer->next += length;
    return CODEC_DONE;
}

static int write_value(Writer *writer, PyObject *value, bool nested);

static int write_items(Writer *writer, int tag, PyObject *const *items, Py_ssize_t count)
{
    if (count > UINT32_MAX)
        return CODEC_PICKLE;
    int stop = put(writer, tag, &(uint32_t){(uint32_t)count}, 4);
    for (Py_ssize_t i = 0; !stop && i < count; i++)
        stop = write_value(writer, items[i], true);
    return stop;
}

static int write_dict(Writer *writer, PyObject *dict)
{
    if (PyDict_Size(dict) > UINT32_MAX)
        return CODEC_PICKLE;
    Py_ssize_t position = 0;
    PyObject *key, *value;
    int stop = put(writer, TAG_DICT, &(uint32_t){(uint32_t)PyDict_Size(dict)}, 4);
    while (!stop && PyDict_Next(dict, &position, &key, &value)) {
        stop = write_value(writer, key, true);
        if (!stop)
            stop = write_value(writer, value, true);
    }
    return stop;
}

static int write_value(Writer *writer, PyObject *value, bool nested)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyLong_Type)
        return write_int(writer, value);
    if (type == &PyUnicode_Type) {
        Py_ssize_t length = 0;
        const char *text = utf8(value, &length);
        return write_text(writer, TAG_STR8, value, text, length, nested);
    }
    if (type == &PyFloat_Type)
        return put(writer, TAG_FLOAT, &(double){PyFloat_AS_DOUBLE(value)}, 8);
    if (value == Py_None)
        return put(writer, TAG_NONE, "", 0);
    if (type == &PyBool_Type)
        return put(writer, value == Py_True ? TAG_TRUE : TAG_FALSE, "", 0);
    if (type == &PyBytes_Type)
        return write_text(writer, TAG_BYTES8, value, PyBytes_AS_STRING(value),
                          PyBytes_GET_SIZE(value), nested);
    bool flat = flat_check(value);
    if (!flat && type != &PyTuple_Type && type != &PyList_Type && type != &PyDict_Type)
        return CODEC_PICKLE;
    if (met_before(&writer->met, value))
        return CODEC_PICKLE;
    if (flat)
        return flat_write(writer, value);
    if (type == &PyTuple_Type)
        return write_items(writer, TAG_TUPLE, ((PyTupleObject *)value)->ob_item,
                           PyTuple_GET_SIZE(value));
    if (type == &PyList_Type) {
        PyObject *const *items = ((PyListObject *)value)->ob_item;
        if (array_write(writer, items, PyList_GET_SIZE(value)))
            return CODEC_DONE;
        return write_items(writer, TAG_LIST, items, PyList_GET_SIZE(value));
    }
    return write_dict(writer, value);
}

int codec_write(Writer *writer, PyObject *value)
{
    return write_value(writer, value, false);
}

/* ---- Reading --------------------------------------------------------------------------------- */

static void *damaged(void)
{
    PyErr_SetString(PyExc_ValueError, "the data of this job in shared memory are damaged");
    return NULL;
}

const uint8_t *codec_take(Reader *reader, size_t size)
{
    if (size > (size_t)(reader->end - reader->next))
        return damaged();
    const uint8_t *data = reader->next;
    reader->next += size;
    return data;
}

int codec_read_byte(Reader *reader)
{
    const uint8_t *byte = codec_take(reader, 1);
    return byte ? *byte : -1;
}

int codec_read_size(Reader *reader, size_t *size)
{
    const uint8_t *data = codec_take(reader, 8);
    if (!data)
        return -1;
    uint64_t value;
    memcpy(&value, data, 8);
    *size = value;
    return 0;
}

static PyObject *read_text(Reader *reader, bool is_long, bool is_str)
{
    size_t length;
    if (is_long) {
        if (codec_read_size(reader, &length) < 0)
            return NULL;
    } else {
        int byte = codec_read_byte(reader);
        if (byte < 0)
            return NULL;
        length = (size_t)byte;
    }
    const uint8_t *data = codec_take(reader, length);
    if (!data)
        return NULL;
    if (is_str)
        return PyUnicode_DecodeUTF8((const char *)data, (Py_ssize_t)length, NULL);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (bytes)
        codec_fill(PyBytes_AS_STRING(bytes), data, length);
    return bytes;
}

static PyObject *read_int(Reader *reader, size_t size)
{
    const uint8_t *data = codec_take(reader, size);
    if (!data)
        return NULL;
    int16_t two;
    int32_t four;
    int64_t eight;
    switch (size) {
    case 1:
        return PyLong_FromLong((int8_t)*data);
    case 2:
        memcpy(&two, data, 2);
        return PyLong_FromLong(two);
    case 4:
        memcpy(&four, data, 4);
        return PyLong_FromLong(four);
    default:
        memcpy(&eight, data, 8);
        return PyLong_FromLongLong(eight);
    }
}

static PyObject *read_value(Reader *reader, int depth);

/* The count of a container: each item takes a byte or more, so a count above what is left is a lie,
 * and no memory is asked for on the strength of it. */
static int read_count(Reader *reader, uint32_t *count)
{
    const uint8_t *data = codec_take(reader, 4);
    if (!data)
        return -1;
    memcpy(count, data, 4);
    if (*count > (size_t)(reader->end - reader->next)) {
        damaged();
        return -1;
    }
    return 0;
}

static PyObject *read_items(Reader *reader, bool is_list, int depth)
{
    uint32_t count;
    if (read_count(reader, &count) < 0)
        return NULL;
    PyObject *items = is_list ? PyList_New(count) : PyTuple_New(count);
    if (!items)
        return NULL;
    for (uint32_t i = 0; i < count; i++) {
        PyObject *item = read_value(reader, depth + 1);
        if (!item) {
            Py_DECREF(items);
            return NULL;
        }
        if (is_list)
            PyList_SET_ITEM(items, i, item);
        else
            PyTuple_SET_ITEM(items, i, item);
    }
    return items;
}

static PyObject *read_dict(Reader *reader, int depth)
{
    uint32_t count;
    if (read_count(reader, &count) < 0)
        return NULL;
    PyObject *dict = PyDict_New();
    for (uint32_t i = 0; dict && i < count; i++) {
        PyObject *key = read_value(reader, depth + 1);
        PyObject *value = key ? read_value(reader, depth + 1) : NULL;
        if (!value || PyDict_SetItem(dict, key, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *read_range(Reader *reader)
{
    const uint8_t *data = codec_take(reader, 24);
    if (!data)
        return NULL;
    int64_t numbers[3];
    memcpy(numbers, data, sizeof numbers);
    return PyObject_CallFunction((PyObject *)&PyRange_Type, "LLL", (long long)numbers[0],
                                 (long long)numbers[1], (long long)numbers[2]);
}

static PyObject *read_value(Reader *reader, int depth)
{
    if (depth > MAX_DEPTH)
        return damaged();
    int tag = codec_read_byte(reader);
    if (tag < 0)
        return NULL;
    const uint8_t *data;
    double number;
    switch (tag) {
    case TAG_NONE:
        Py_RETURN_NONE;
    case TAG_FALSE:
        Py_RETURN_FALSE;
    case TAG_TRUE:
        Py_RETURN_TRUE;
    case TAG_INT8:
        return read_int(reader, 1);
    case TAG_INT16:
        return read_int(reader, 2);
    case TAG_INT32:
        return read_int(reader, 4);
    case TAG_INT64:
        return read_int(reader, 8);
    case TAG_FLOAT:
        if (!(data = codec_take(reader, 8)))
            return NULL;
        memcpy(&number, data, 8);
        return PyFloat_FromDouble(number);
    case TAG_STR8:
    case TAG_STR64:
        return read_text(reader, tag == TAG_STR64, true);
    case TAG_BYTES8:
    case TAG_BYTES64:
        return read_text(reader, tag == TAG_BYTES64, false);
    case TAG_TUPLE:
    case TAG_LIST:
        return read_items(reader, tag == TAG_LIST, depth);
    case TAG_DICT:
        return read_dict(reader, depth);
    case TAG_RANGE:
        return read_range(reader);
    case TAG_ARRAY:
        return array_read(reader);
    case TAG_BYTEARRAY:
    case TAG_NUMBERS:
        return flat_read(reader, tag == TAG_NUMBERS);
    default:
        return damaged();
    }
}

PyObject *codec_read(Reader *reader)
{
    return read_value(reader, 0);
}
