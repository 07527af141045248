/* Lists of numbers of one type, as an array: what maps mostly give and take. Measuring and writing
 * decide in the same way, so that what was measured is what is written.
 *
 *   tag, kind (1 byte), count (4 bytes), numbers
 */
#include "core.h"

/* A shorter one gains nothing. */
#define MIN_COUNT 8
#define HEADER 6

enum { KIND_INT32 = 4, KIND_INT64 = 8, KIND_DOUBLE = 9 };

static size_t width_of(int kind)
{
    return kind == KIND_INT32 ? 4 : 8;
}

/* The kind that holds them all, or 0. */
static int kind_of(PyObject *const *items, Py_ssize_t count)
{
    Py_ssize_t i = 0;
    if (PyFloat_CheckExact(items[0])) {
        while (i < count && PyFloat_CheckExact(items[i]))
            i++;
        return i == count ? KIND_DOUBLE : 0;
    }
    bool wide = false;
    for (; i < count && PyLong_CheckExact(items[i]); i++) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(items[i], &overflow);
        if (overflow)
            return 0;
        wide |= number != (int32_t)number;
    }
    return i < count ? 0 : wide ? KIND_INT64 : KIND_INT32;
}

Py_ssize_t array_measure(PyObject *const *items, Py_ssize_t count)
{
    int kind = count >= MIN_COUNT && count <= UINT32_MAX ? kind_of(items, count) : 0;
    return kind ? HEADER + count * (Py_ssize_t)width_of(kind) : 0;
}

/* How many could be written as int32_t. */
static Py_ssize_t write_narrow(uint8_t *out, PyObject *const *items, Py_ssize_t count)
{
    Py_ssize_t i;
    for (i = 0; i < count && PyLong_CheckExact(items[i]); i++) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(items[i], &overflow);
        int32_t narrow = (int32_t)number;
        if (overflow || narrow != number)
            break;
        memcpy(out + 4 * i, &narrow, 4);
    }
    return i;
}

/* The same as int64_t. */
static Py_ssize_t write_wide(uint8_t *out, PyObject *const *items, Py_ssize_t count)
{
    Py_ssize_t i;
    for (i = 0; i < count && PyLong_CheckExact(items[i]); i++) {
        int overflow;
        int64_t number = PyLong_AsLongLongAndOverflow(items[i], &overflow);
        if (overflow)
            break;
        memcpy(out + 8 * i, &number, 8);
    }
    return i;
}

static Py_ssize_t write_doubles(uint8_t *out, PyObject *const *items, Py_ssize_t count)
{
    Py_ssize_t i;
    for (i = 0; i < count && PyFloat_CheckExact(items[i]); i++)
        memcpy(out + 8 * i, &(double){PyFloat_AS_DOUBLE(items[i])}, 8);
    return i;
}

/* False: they are not of this kind, or there is no room. */
static bool write_kind(Writer *writer, int kind, PyObject *const *items, Py_ssize_t count)
{
    size_t size = HEADER + (size_t)count * width_of(kind);
    if (size > (size_t)(writer->end - writer->next))
        return false;
    uint8_t *out = writer->next;
    uint32_t number = (uint32_t)count;
    out[0] = TAG_ARRAY;
    out[1] = (uint8_t)kind;
    memcpy(out + 2, &number, sizeof number);
    Py_ssize_t written = kind == KIND_DOUBLE  ? write_doubles(out + HEADER, items, count)
                         : kind == KIND_INT32 ? write_narrow(out + HEADER, items, count)
                                              : write_wide(out + HEADER, items, count);
    if (written < count)
        return false;
    writer->next += size;
    return true;
}

bool array_write(Writer *writer, PyObject *const *items, Py_ssize_t count)
{
    if (count < MIN_COUNT || count > UINT32_MAX)
        return false;
    if (PyFloat_CheckExact(items[0]))
        return write_kind(writer, KIND_DOUBLE, items, count);
    /* Mostly the first that does not fit comes early. */
    return PyLong_CheckExact(items[0]) && (write_kind(writer, KIND_INT32, items, count) ||
                                           write_kind(writer, KIND_INT64, items, count));
}

static PyObject *read_number(const uint8_t *data, int kind)
{
    int32_t narrow;
    int64_t wide;
    double number;
    switch (kind) {
    case KIND_INT32:
        memcpy(&narrow, data, 4);
        return PyLong_FromLong(narrow);
    case KIND_INT64:
        memcpy(&wide, data, 8);
        return PyLong_FromLongLong(wide);
    default:
        memcpy(&number, data, 8);
        return PyFloat_FromDouble(number);
    }
}

PyObject *array_read(Reader *reader)
{
    const uint8_t *header = codec_take(reader, HEADER - 1);
    if (!header)
        return NULL;
    int kind = header[0];
    if (kind != KIND_INT32 && kind != KIND_INT64 && kind != KIND_DOUBLE) {
        PyErr_SetString(PyExc_ValueError, "the data of this job in shared memory are damaged");
        return NULL;
    }
    uint32_t count;
    memcpy(&count, header + 1, sizeof count);
    size_t width = width_of(kind);
    /* No memory is asked for on the strength of a count that is a lie. */
    const uint8_t *data = codec_take(reader, count * width);
    PyObject *list = data ? PyList_New(count) : NULL;
    for (uint32_t i = 0; list && i < count; i++) {
        PyObject *number = read_number(data + i * width, kind);
        if (number)
            PyList_SET_ITEM(list, i, number);
        else
            Py_CLEAR(list);
    }
    return list;
}
