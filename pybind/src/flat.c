/* Objects that are numbers in one piece of memory: bytearray and array.array. Pickle would copy
 * them two or three times on each side. After the tag: the type code of an array, the length (8
 * bytes), the bytes. */
#include "core.h"

/* Without importing the module: nothing that is written in Python is immutable. */
static bool is_array(const PyTypeObject *type)
{
    return (type->tp_flags & Py_TPFLAGS_IMMUTABLETYPE) && !strcmp(type->tp_name, "array.array");
}

bool flat_check(PyObject *value)
{
    return Py_TYPE(value) == &PyByteArray_Type || is_array(Py_TYPE(value));
}

/* The type code, 0 of a bytearray, -1 where there is none. */
static int code_of(PyObject *value)
{
    if (Py_TYPE(value) == &PyByteArray_Type)
        return 0;
    PyObject *text = PyObject_GetAttrString(value, "typecode");
    bool sound = text && PyUnicode_Check(text) && PyUnicode_GET_LENGTH(text) == 1;
    Py_UCS4 code = sound ? PyUnicode_READ_CHAR(text, 0) : 0;
    Py_XDECREF(text);
    PyErr_Clear();
    return code > 0 && code < 128 ? (int)code : -1;
}

static size_t header_size(int code)
{
    return (code ? 2 : 1) + sizeof(uint64_t);
}

Py_ssize_t flat_measure(PyObject *value)
{
    Py_buffer view;
    int code = code_of(value);
    if (code < 0 || PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return -1;
    }
    Py_ssize_t size = (Py_ssize_t)header_size(code) + view.len;
    PyBuffer_Release(&view);
    return size;
}

int flat_write(Writer *writer, PyObject *value)
{
    Py_buffer view;
    int code = code_of(value);
    if (code < 0 || PyObject_GetBuffer(value, &view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return CODEC_PICKLE;
    }
    uint64_t length = (uint64_t)view.len;
    size_t room = (size_t)(writer->end - writer->next), header = header_size(code);
    bool fits = room >= header && room - header >= length;
    if (fits) {
        *writer->next++ = code ? TAG_NUMBERS : TAG_BYTEARRAY;
        if (code)
            *writer->next++ = (uint8_t)code;
        memcpy(writer->next, &length, sizeof length);
        memcpy(writer->next + sizeof length, view.buf, length);
        writer->next += sizeof length + length;
    }
    PyBuffer_Release(&view);
    return fits ? CODEC_DONE : CODEC_FULL;
}

static PyObject *read_numbers(Core *core, int code, const uint8_t *data, size_t length)
{
    PyObject *type = core_late(&core->array_type, "array", "array");
    PyObject *numbers = type ? PyObject_CallFunction(type, "C", code) : NULL;
    PyObject *memory =
        numbers ? PyMemoryView_FromMemory((char *)(uintptr_t)data, (Py_ssize_t)length, PyBUF_READ)
                : NULL;
    PyObject *done = memory ? PyObject_CallMethod(numbers, "frombytes", "O", memory) : NULL;
    if (!done)
        Py_CLEAR(numbers);
    Py_XDECREF(done);
    Py_XDECREF(memory);
    return numbers;
}

PyObject *flat_read(Reader *reader, bool numbers)
{
    size_t length;
    int code = numbers ? codec_read_byte(reader) : 0;
    if (code < 0 || codec_read_size(reader, &length) < 0)
        return NULL;
    const uint8_t *data = codec_take(reader, length);
    if (!data)
        return NULL;
    if (numbers)
        return read_numbers(reader->core, code, data, length);
    PyObject *bytes = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (bytes)
        codec_fill(PyByteArray_AS_STRING(bytes), data, length);
    return bytes;
}
