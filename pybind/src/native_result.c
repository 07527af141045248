/* From the result of a native job to Python objects, and into the buffers that are out.
 *
 * As in codec.c, what is read was written by a process that may have gone astray. So the lengths of
 * buffers are the host's own, and each count is checked against what is left. */
#include "native_pack.h"

static PyObject *damaged(void)
{
    PyErr_SetString(PyExc_ValueError, "the data of this job in shared memory are damaged");
    return NULL;
}

static PyObject *value_from(enum native_type type, const uint8_t *at)
{
    union {
        int8_t int8;
        int16_t int16;
        int32_t int32;
        int64_t int64;
        uint64_t bits;
        float single;
        double number;
    } value = {.bits = 0};
    memcpy(&value, at, native_size(type));
    switch (type) {
    case NATIVE_VOID:
        Py_RETURN_NONE;
    case NATIVE_BOOL:
        return PyBool_FromLong(value.bits != 0);
    case NATIVE_CHAR:
        return PyBytes_FromStringAndSize((const char *)at, 1);
    case NATIVE_INT8:
        return PyLong_FromLong(value.int8);
    case NATIVE_INT16:
        return PyLong_FromLong(value.int16);
    case NATIVE_INT32:
        return PyLong_FromLong(value.int32);
    case NATIVE_INT64:
        return PyLong_FromLongLong(value.int64);
    case NATIVE_FLOAT:
        return PyFloat_FromDouble((double)value.single);
    case NATIVE_DOUBLE:
        return PyFloat_FromDouble(value.number);
    default:
        return PyLong_FromUnsignedLongLong(value.bits);
    }
}

/* Copies to the buffers that are out, `count` of them: what follows, or NULL with an exception. */
static const uint8_t *copy_out(PyObject *content, Py_ssize_t count, const uint8_t *next,
                               const uint8_t *end)
{
    for (Py_ssize_t i = 1; i <= count; i++) {
        PyObject *item = PyTuple_GET_ITEM(content, i);
        const Py_buffer *view = PyMemoryView_Check(item) ? PyMemoryView_GET_BUFFER(item) : NULL;
        if (!view)
            return (const uint8_t *)damaged();
        size_t size = (size_t)view->len;
        uintptr_t at = native_align((uintptr_t)next, native_alignment(size));
        if (at > (uintptr_t)end || size > (uintptr_t)end - at)
            return (const uint8_t *)damaged();
        next = (const uint8_t *)at + size;
        codec_copy(view->buf, (const uint8_t *)at, size, true);
    }
    uintptr_t at = native_align((uintptr_t)next, 8);
    return at <= (uintptr_t)end ? (const uint8_t *)at : (const uint8_t *)damaged();
}

static PyObject *values_from(const struct native_result *about, const uint8_t *data)
{
    if (about->form == NATIVE_VALUE)
        return about->count == 1 ? value_from(about->type, data) : damaged();
    PyObject *list = PyList_New(about->count);
    for (uint32_t i = 0; list && i < about->count; i++) {
        PyObject *value = value_from(about->type, data + i * native_size(about->type));
        if (value)
            PyList_SET_ITEM(list, i, value);
        else
            Py_CLEAR(list);
    }
    return list;
}

PyObject *native_decode(PyObject *content, const uint8_t *data, size_t size)
{
    struct native_result about;
    const uint8_t *end = data + size, *next = data + sizeof about;
    Py_ssize_t buffers = content && PyTuple_CheckExact(content) ? PyTuple_GET_SIZE(content) - 1 : 0;
    if (size < sizeof about)
        return damaged();
    memcpy(&about, data, sizeof about);
    if (about.type >= NATIVE_POINTER || about.form > NATIVE_ARRAY)
        return damaged();
    bool array = about.form == NATIVE_ARRAY && about.type != NATIVE_VOID;
    if (array && buffers != 1)
        return damaged();
    next = copy_out(content, array ? 0 : buffers, next, end);
    if (!next)
        return NULL;
    size_t length = native_size(about.type) * (size_t)about.count;
    if (length > (size_t)(end - next))
        return damaged();
    if (about.form != NATIVE_ARRAY)
        return values_from(&about, next);
    if (array) {
        PyObject *item = PyTuple_GET_ITEM(content, 1);
        const Py_buffer *view = PyMemoryView_Check(item) ? PyMemoryView_GET_BUFFER(item) : NULL;
        if (!view || (size_t)view->len != length)
            return damaged();
        codec_copy(view->buf, next, length, true);
    }
    Py_RETURN_NONE;
}
