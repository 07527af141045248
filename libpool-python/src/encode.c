/* Results, from Python objects to shared memory. */
#include "interpreter.h"

#include <errno.h>
#include <string.h>

/* Encoding can run Python code (__index__, __buffer__), which may change what is encoded: so each
 * item is referred to while it is looked at, and what is copied later, until it has been. */
struct encoder {
    struct interpreter *interpreter;
    struct builder *builder;
    PyObject *kept;      /* list, or NULL */
    Py_buffer **buffers; /* exported */
    size_t buffer_count, buffer_room;
};

static int encode(struct encoder *encoder, PyObject *object);

/* Sets the exception for the builder's error. */
static int built(int error)
{
    if (error == -ENOMEM)
        PyErr_NoMemory();
    else if (error == -EOVERFLOW)
        PyErr_Format(PyExc_ValueError,
                     "a result with more than %d levels of lists, or a list "
                     "that contains itself, has no form in C",
                     POOL_PYTHON_MAX_DEPTH);
    else if (error == -E2BIG)
        PyErr_SetString(PyExc_ValueError, "a list of a result takes more than 32 GiB");
    else if (error)
        PyErr_Format(PyExc_SystemError, "encoding a result failed with error %d", error);
    return error ? -1 : 0;
}

static int keep(struct encoder *encoder, PyObject *object)
{
    if (!encoder->kept)
        encoder->kept = PyList_New(0);
    return encoder->kept ? PyList_Append(encoder->kept, object) : -1;
}

static int unsupported(PyObject *object)
{
    PyErr_Format(PyExc_TypeError,
                 "a result of type %s has no form in C; these have: None, bool, int, float, str, "
                 "bytes, list, tuple, dict, and arrays of numbers",
                 Py_TYPE(object)->tp_name);
    return -1;
}

/* ---- Plain values --------------------------------------------------------------------------- */

static int encode_int(struct encoder *encoder, PyObject *object)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);

    if (overflow) {
        PyErr_SetString(PyExc_OverflowError,
                        "an int of a result does not fit in 64 bits, and has no form in C");
        return -1;
    }
    if (value == -1 && PyErr_Occurred())
        return -1;
    return built(builder_put_int(encoder->builder, value));
}

static int encode_text(struct encoder *encoder, PyObject *owner, bool is_string, const char *data,
                       size_t size)
{
    struct builder *builder = encoder->builder;

    if (!data)
        return -1;
    if (size < FORMAT_APART_MIN)
        return built(builder_put_text(builder, is_string ? TAG_STRING : TAG_BYTES, data, size));
    if (keep(encoder, owner) < 0)
        return -1;
    return built(builder_put_apart(builder, is_string ? TAG_STRING_APART : TAG_BYTES_APART, data,
                                   size, NULL));
}

static int encode_string(struct encoder *encoder, PyObject *object)
{
    Py_ssize_t size = 0;
    const char *text = PyUnicode_AsUTF8AndSize(object, &size);

    return encode_text(encoder, object, true, text, (size_t)size);
}

/* ---- Containers ----------------------------------------------------------------------------- */

static int encode_list(struct encoder *encoder, PyObject *list)
{
    int error = built(builder_begin(encoder->builder, TAG_LIST));

    for (Py_ssize_t i = 0; !error && i < PyList_GET_SIZE(list); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(list, i));
        error = encode(encoder, item);
        Py_DECREF(item);
    }
    return error ? -1 : built(builder_end(encoder->builder));
}

static int encode_tuple(struct encoder *encoder, PyObject *tuple)
{
    int error = built(builder_begin(encoder->builder, TAG_TUPLE));

    for (Py_ssize_t i = 0; !error && i < PyTuple_GET_SIZE(tuple); i++)
        error = encode(encoder, PyTuple_GET_ITEM(tuple, i));
    return error ? -1 : built(builder_end(encoder->builder));
}

static int encode_dict(struct encoder *encoder, PyObject *dict)
{
    PyObject *items = PyDict_Items(dict);
    int error = items ? built(builder_begin(encoder->builder, TAG_DICT)) : -1;

    for (Py_ssize_t i = 0; !error && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = PyList_GET_ITEM(items, i);
        error = encode(encoder, PyTuple_GET_ITEM(item, 0));
        if (!error)
            error = encode(encoder, PyTuple_GET_ITEM(item, 1));
    }
    Py_XDECREF(items);
    return error ? -1 : built(builder_end(encoder->builder));
}

/* ---- Buffers -------------------------------------------------------------------------------- */

/* 0: none that has a form in C. */
static enum pool_python_type type_of(const Py_buffer *buffer)
{
    static const char signed_formats[] = "bhilqn", unsigned_formats[] = "BHILQNc";
    const char *format = buffer->format ? buffer->format : "B";
    const int one = 1;
    bool little = *(const char *)&one == 1, is_complex;

    if (*format == '@' || *format == '=' || *format == (little ? '<' : '>'))
        format++;
    is_complex = *format == 'Z';
    format += is_complex;
    if (!*format || format[1])
        return 0;
    size_t size = (size_t)buffer->itemsize;
    if (is_complex)
        return *format == 'f' && size == 8    ? POOL_PYTHON_COMPLEX64
               : *format == 'd' && size == 16 ? POOL_PYTHON_COMPLEX128
                                              : 0;
    if (*format == '?')
        return size == 1 ? POOL_PYTHON_BOOL : 0;
    if (strchr("efd", *format))
        return size == 2   ? POOL_PYTHON_FLOAT16
               : size == 4 ? POOL_PYTHON_FLOAT32
               : size == 8 ? POOL_PYTHON_FLOAT64
                           : 0;
    bool is_signed = strchr(signed_formats, *format);
    if (!is_signed && !strchr(unsigned_formats, *format))
        return 0;
    switch (size) {
    case 1:
        return is_signed ? POOL_PYTHON_INT8 : POOL_PYTHON_UINT8;
    case 2:
        return is_signed ? POOL_PYTHON_INT16 : POOL_PYTHON_UINT16;
    case 4:
        return is_signed ? POOL_PYTHON_INT32 : POOL_PYTHON_UINT32;
    case 8:
        return is_signed ? POOL_PYTHON_INT64 : POOL_PYTHON_UINT64;
    default:
        return 0;
    }
}

static void release(Py_buffer *buffer)
{
    PyBuffer_Release(buffer);
    PyMem_Free(buffer);
}

/* Not to be moved in memory: some point into themselves. NULL with an exception. */
static Py_buffer *export(PyObject *object)
{
    Py_buffer *buffer = PyMem_Calloc(1, sizeof *buffer);

    if (!buffer) {
        PyErr_NoMemory();
    } else if (PyObject_GetBuffer(object, buffer, PyBUF_FULL_RO) < 0) {
        PyMem_Free(buffer);
        buffer = NULL;
    }
    return buffer;
}

/* Leaves the buffer exported until it has been copied. Takes it over. */
static int keep_buffer(struct encoder *encoder, Py_buffer *buffer)
{
    if (encoder->buffer_count == encoder->buffer_room) {
        size_t room = encoder->buffer_room ? encoder->buffer_room * 2 : 4;
        Py_buffer **larger = PyMem_Realloc(encoder->buffers, room * sizeof(Py_buffer *));
        if (!larger) {
            release(buffer);
            PyErr_NoMemory();
            return -1;
        }
        encoder->buffers = larger;
        encoder->buffer_room = room;
    }
    encoder->buffers[encoder->buffer_count++] = buffer;
    return 0;
}

/* As bytes; of a bytearray. */
static int encode_bytearray(struct encoder *encoder, PyObject *object)
{
    Py_buffer *buffer = export(object);

    if (!buffer || keep_buffer(encoder, buffer) < 0)
        return -1;
    return encode_text(encoder, object, false, buffer->buf ? buffer->buf : "", (size_t)buffer->len);
}

/* 0; or -1 with an exception. */
static int describe(const Py_buffer *buffer, struct pool_python_array *array)
{
    array->type = type_of(buffer);
    if (!array->type) {
        PyErr_Format(PyExc_TypeError,
                     "an array of a result has elements of format '%s' and %zd bytes, which have "
                     "no form in C",
                     buffer->format ? buffer->format : "B", buffer->itemsize);
        return -1;
    }
    if (buffer->ndim > POOL_PYTHON_MAX_DIMENSIONS) {
        PyErr_Format(PyExc_TypeError,
                     "an array of a result has %d dimensions; those with more than %d have no form "
                     "in C",
                     buffer->ndim, POOL_PYTHON_MAX_DIMENSIONS);
        return -1;
    }
    array->dimensions = buffer->ndim;
    for (int i = 0; i < buffer->ndim; i++)
        array->shape[i] = (size_t)buffer->shape[i];
    return 0;
}

/* Takes over the buffer. */
static int encode_array(struct encoder *encoder, Py_buffer *buffer)
{
    struct pool_python_array array = {.size = sizeof array};
    bool contiguous = PyBuffer_IsContiguous(buffer, 'C');

    if (describe(buffer, &array) < 0) {
        release(buffer);
        return -1;
    }
    if (contiguous && buffer->len > 0)
        array.reference = memory_find(encoder->interpreter, buffer->buf, &array.offset);
    if (array.reference && array.offset % format_alignment(array.type) == 0) {
        array.readonly = buffer->readonly;
        release(buffer);
        return built(builder_put_array(encoder->builder, &array, NULL));
    }
    array.reference = 0;
    array.data = buffer->buf;
    array.readonly = true;
    if (keep_buffer(encoder, buffer) < 0)
        return -1;
    return built(builder_put_array(encoder->builder, &array, contiguous ? NULL : buffer));
}

/* NumPy has no format for a time, and exports a scalar of it as an array of 8 plain bytes. */
static bool is_disguised(PyObject *object, const Py_buffer *buffer)
{
    PyObject *dimensions = buffer->ndim > 0 ? PyObject_GetAttrString(object, "ndim") : NULL;
    bool disguised = dimensions && PyLong_Check(dimensions) && PyLong_AsLong(dimensions) == 0;

    PyErr_Clear(); /* bytes and the like have no such attribute */
    Py_XDECREF(dimensions);
    return disguised;
}

/* Scalars of NumPy and arrays without dimensions are encoded as what they contain. */
static int encode_buffer(struct encoder *encoder, PyObject *object)
{
    Py_buffer *buffer = export(object);

    if (!buffer)
        return -1;
    if (is_disguised(object, buffer)) {
        release(buffer);
        return unsupported(object);
    }
    if (buffer->ndim > 0 || !PyObject_HasAttrString(object, "item"))
        return encode_array(encoder, buffer);
    release(buffer);
    PyObject *item = PyObject_CallMethod(object, "item", NULL);
    int error = -1;
    if (item && PyObject_CheckBuffer(item) && !PyBytes_Check(item)) /* or it would go on for ever */
        unsupported(item);
    else if (item)
        error = encode(encoder, item);
    Py_XDECREF(item);
    return error;
}

static int encode_index(struct encoder *encoder, PyObject *object)
{
    PyObject *number = PyNumber_Index(object);
    int error = number ? encode_int(encoder, number) : -1;

    Py_XDECREF(number);
    return error;
}

/* ---- All of it ------------------------------------------------------------------------------ */

static int encode(struct encoder *encoder, PyObject *object)
{
    if (object == Py_None)
        return built(builder_put(encoder->builder, TAG_NONE, 0));
    if (PyBool_Check(object))
        return built(builder_put(encoder->builder, TAG_BOOL, object == Py_True));
    if (PyLong_Check(object))
        return encode_int(encoder, object);
    if (PyFloat_Check(object))
        return built(builder_put_double(encoder->builder, PyFloat_AS_DOUBLE(object)));
    if (PyUnicode_Check(object))
        return encode_string(encoder, object);
    if (PyBytes_Check(object))
        return encode_text(encoder, object, false, PyBytes_AS_STRING(object),
                           (size_t)PyBytes_GET_SIZE(object));
    if (PyByteArray_Check(object))
        return encode_bytearray(encoder, object);
    if (PyList_Check(object))
        return encode_list(encoder, object);
    if (PyTuple_Check(object))
        return encode_tuple(encoder, object);
    if (PyDict_Check(object))
        return encode_dict(encoder, object);
    if (PyObject_CheckBuffer(object))
        return encode_buffer(encoder, object);
    if (PyIndex_Check(object))
        return encode_index(encoder, object);
    return unsupported(object);
}

static void copy_strided(void *destination, const struct piece *piece)
{
    Py_buffer *buffer = piece->context;

    if (PyBuffer_ToContiguous(destination, buffer, buffer->len, 'C') < 0 && !PyErr_Occurred())
        PyErr_SetString(PyExc_BufferError, "an array of a result can't be copied");
}

static int write_result(const struct encoder *encoder, struct pool_job *job)
{
    struct preamble preamble = {.magic = FORMAT_RESULT};
    size_t size = builder_size(encoder->builder, sizeof preamble);
    unsigned char *memory = pool_job_reserve(job, size);

    if (!memory && errno == ENOMEM) {
        PyErr_Format(PyExc_MemoryError, "no shared memory left for a result of %zu bytes", size);
        return -1;
    }
    if (!memory) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    preamble.area = builder_write(encoder->builder, sizeof preamble, memory, copy_strided);
    memcpy(memory, &preamble, sizeof preamble);
    return PyErr_Occurred() ? -1 : 0;
}

int encode_result(struct interpreter *interpreter, struct pool_job *job, PyObject *result)
{
    struct builder builder;
    struct encoder encoder = {.interpreter = interpreter, .builder = &builder};

    builder_init(&builder);
    int error = encode(&encoder, result);
    if (!error)
        error = write_result(&encoder, job);
    while (encoder.buffer_count > 0)
        release(encoder.buffers[--encoder.buffer_count]);
    PyMem_Free(encoder.buffers);
    Py_XDECREF(encoder.kept);
    builder_destroy(&builder);
    return error;
}
