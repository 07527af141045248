/* The arguments of a call, from shared memory to Python objects. Items are read one after the
 * other, not by the tables, so that the work is bounded by the size of the message. */
#include "interpreter.h"

#include <errno.h>
#include <string.h>

struct decoder {
    struct interpreter *interpreter;
    struct pool_job *job;
    const struct view *view;
    int depth;
};

static PyObject *decode(struct decoder *decoder, size_t *at, size_t end);

static PyObject *corrupt(void)
{
    PyErr_SetString(PyExc_ValueError, "the arguments of the call have been overwritten");
    return NULL;
}

static PyObject *decode_list(struct decoder *decoder, const struct node *node)
{
    size_t at = node->items;
    bool is_list = node->tag == TAG_LIST;
    PyObject *list = is_list ? PyList_New((Py_ssize_t)node->extra) /* fits: it is checked */
                             : PyTuple_New((Py_ssize_t)node->extra);

    for (size_t i = 0; list && i < node->extra; i++) {
        PyObject *item = decode(decoder, &at, node->table);
        if (!item)
            Py_CLEAR(list);
        else if (is_list)
            PyList_SET_ITEM(list, (Py_ssize_t)i, item);
        else
            PyTuple_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *decode_dict(struct decoder *decoder, const struct node *node)
{
    size_t at = node->items;
    PyObject *dict = PyDict_New();

    for (size_t i = 0; dict && i < node->extra; i++) {
        PyObject *key = decode(decoder, &at, node->table);
        PyObject *item = key ? decode(decoder, &at, node->table) : NULL;
        if (!item || PyDict_SetItem(dict, key, item) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
        Py_XDECREF(item);
    }
    return dict;
}

static PyObject *decode_container(struct decoder *decoder, const struct node *node)
{
    PyObject *object;

    if (decoder->depth == POOL_PYTHON_MAX_DEPTH)
        return corrupt();
    decoder->depth++;
    object = node->tag == TAG_DICT ? decode_dict(decoder, node) : decode_list(decoder, node);
    decoder->depth--;
    return object;
}

static PyObject *decode_array(struct decoder *decoder, const struct node *node)
{
    struct pool_python_array array;
    size_t size;

    if (format_array(decoder->view, node, &array, &size) < 0)
        return corrupt();
    if (array.reference)
        return memory_from_block(decoder->interpreter, &array, size);
    return memory_from_argument(decoder->interpreter, decoder->job, &array, size);
}

static PyObject *decode_double(const struct node *node)
{
    double value;

    memcpy(&value, &node->number, sizeof value);
    return PyFloat_FromDouble(value);
}

/* The value at *at, which is moved behind it. */
static PyObject *decode(struct decoder *decoder, size_t *at, size_t end)
{
    struct node node;

    if (format_read(decoder->view, *at, end, &node) < 0)
        return corrupt();
    *at = node.next;
    switch (node.tag) {
    case TAG_NONE:
        Py_RETURN_NONE;
    case TAG_BOOL:
        return PyBool_FromLong(node.extra != 0);
    case TAG_SMALL:
    case TAG_INT:
        return PyLong_FromLongLong((long long)node.number);
    case TAG_DOUBLE:
        return decode_double(&node);
    case TAG_STRING:
    case TAG_STRING_APART:
        return PyUnicode_DecodeUTF8(node.data, (Py_ssize_t)node.size, NULL);
    case TAG_BYTES:
    case TAG_BYTES_APART:
        return PyBytes_FromStringAndSize(node.data, (Py_ssize_t)node.size);
    case TAG_LIST:
    case TAG_TUPLE:
    case TAG_DICT:
        return decode_container(decoder, &node);
    case TAG_ARRAY:
        return decode_array(decoder, &node);
    case TAG_KEYWORD:
    case TAG_CALL:
        break;
    }
    return corrupt();
}

/* A keyword argument; false: what comes next is none. */
static int decode_keyword(struct decoder *decoder, size_t *at, size_t end, PyObject **keywords)
{
    struct node node;
    int error = -1;

    if (format_read(decoder->view, *at, end, &node) < 0) {
        corrupt();
        return -1;
    }
    if (node.tag != TAG_KEYWORD)
        return 0;
    *at = node.next;
    PyObject *name = PyUnicode_DecodeUTF8(node.data, (Py_ssize_t)node.size, NULL);
    PyObject *value = name ? decode(decoder, at, end) : NULL;
    if (!*keywords)
        *keywords = PyDict_New();
    if (value && *keywords)
        error = PyDict_SetItem(*keywords, name, value);
    Py_XDECREF(name);
    Py_XDECREF(value);
    return error < 0 ? -1 : 1;
}

static int decode_arguments(struct decoder *decoder, const struct node *call, PyObject **positional,
                            PyObject **keywords)
{
    size_t at = call->items, end = call->table, count = 0;

    *positional = PyTuple_New((Py_ssize_t)call->extra);
    if (!*positional)
        return -1;
    while (at < end) {
        int found = decode_keyword(decoder, &at, end, keywords);
        if (found < 0)
            return -1;
        if (found)
            continue;
        PyObject *value = decode(decoder, &at, end);
        if (!value)
            return -1;
        if (count == call->extra) {
            Py_DECREF(value);
            corrupt();
            return -1;
        }
        PyTuple_SET_ITEM(*positional, (Py_ssize_t)count++, value);
    }
    if (count < call->extra) {
        corrupt();
        return -1;
    }
    return 0;
}

int decode_call(struct interpreter *interpreter, struct pool_job *job, const struct view *view,
                size_t root, PyObject **positional, PyObject **keywords)
{
    struct decoder decoder = {.interpreter = interpreter, .job = job, .view = view};
    struct node call;

    *positional = *keywords = NULL;
    if (format_read(view, root, view->size, &call) == 0 && call.tag == TAG_CALL) {
        if (decode_arguments(&decoder, &call, positional, keywords) == 0)
            return 0;
    } else {
        corrupt();
    }
    Py_CLEAR(*positional);
    Py_CLEAR(*keywords);
    return -1;
}
