/* Exceptions, on their way to the program: three strings. */
#include "interpreter.h"

#include <errno.h>
#include <string.h>

PyObject *failure_take(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *exception, *traceback;
    PyErr_Fetch(&type, &exception, &traceback);
    if (!type)
        return NULL;
    PyErr_NormalizeException(&type, &exception, &traceback);
    if (traceback)
        PyException_SetTraceback(exception, traceback);
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return exception;
#endif
}

void failure_put_back(PyObject *exception)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    if (exception)
        PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), exception,
                      PyException_GetTraceback(exception));
    else
        PyErr_Clear();
#endif
}

/* UTF-8, as bytes; what has no form in it, and an object that can't be told, leave a mark. Takes
 * over `text`. NULL, without an exception: no memory. */
static PyObject *to_bytes(PyObject *text, const char *otherwise)
{
    PyObject *bytes = NULL;

    if (text && PyUnicode_Check(text))
        bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    if (!bytes) {
        PyErr_Clear();
        bytes = PyBytes_FromString(otherwise);
    }
    PyErr_Clear();
    Py_XDECREF(text);
    return bytes;
}

/* As tracebacks name it. */
static PyObject *type_name(PyObject *exception)
{
    PyObject *type = (PyObject *)Py_TYPE(exception);
    PyObject *name = PyType_GetQualName((PyTypeObject *)type), *whole;
    PyObject *module = name ? PyObject_GetAttrString(type, "__module__") : NULL;

    PyErr_Clear();
    if (!module || !PyUnicode_Check(module) ||
        PyUnicode_CompareWithASCIIString(module, "builtins") == 0 ||
        PyUnicode_CompareWithASCIIString(module, "__main__") == 0) {
        Py_XDECREF(module);
        return name;
    }
    whole = PyUnicode_FromFormat("%U.%U", module, name);
    Py_DECREF(module);
    Py_DECREF(name);
    return whole;
}

static PyObject *traceback_text(PyObject *exception)
{
    PyObject *module = PyImport_ImportModule("traceback");
    PyObject *lines =
        module ? PyObject_CallMethod(module, "format_exception", "O", exception) : NULL;
    PyObject *empty = lines ? PyUnicode_FromString("") : NULL;
    PyObject *text = empty ? PyUnicode_Join(empty, lines) : NULL;

    PyErr_Clear();
    Py_XDECREF(module);
    Py_XDECREF(lines);
    Py_XDECREF(empty);
    return text;
}

PyObject *failure_text(void)
{
    PyObject *exception = failure_take();
    PyObject *text = to_bytes(traceback_text(exception), "(its traceback can't be had)\n");

    Py_DECREF(exception);
    return text;
}

static int write_failure(struct builder *builder, struct pool_job *job)
{
    struct preamble preamble = {.magic = FORMAT_RESULT};

    if (builder->error)
        return builder->error;
    unsigned char *memory = pool_job_reserve(job, builder_size(builder, sizeof preamble));
    if (!memory)
        return -errno;
    builder_write(builder, sizeof preamble, memory, NULL);
    memcpy(memory, &preamble, sizeof preamble);
    return -EREMOTEIO;
}

/* Adds a string, and takes the bytes over. */
static void put_bytes(struct builder *builder, PyObject *bytes)
{
    builder_put_text(builder, TAG_STRING, bytes ? PyBytes_AS_STRING(bytes) : "",
                     bytes ? (size_t)PyBytes_GET_SIZE(bytes) : 0);
    Py_XDECREF(bytes);
}

int failure_return(struct pool_job *job)
{
    struct builder builder;

    if (!PyErr_Occurred()) /* an extension's mistake */
        PyErr_SetString(PyExc_SystemError, "the call failed without an exception");
    PyObject *exception = failure_take();

    builder_init(&builder);
    builder_begin(&builder, TAG_TUPLE);
    put_bytes(&builder, to_bytes(type_name(exception), Py_TYPE(exception)->tp_name));
    put_bytes(&builder, to_bytes(PyObject_Str(exception), "(its message can't be had)"));
    put_bytes(&builder, to_bytes(traceback_text(exception), "(its traceback can't be had)\n"));
    builder_end(&builder);
    int status = write_failure(&builder, job);
    builder_destroy(&builder);
    Py_DECREF(exception);
    return status;
}
