/* From negative errno to exceptions, and the few things that are done with exceptions and time. */
#include "core.h"

#include <time.h>

PyObject *errors_take(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (!type)
        return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

void errors_restore(PyObject *exception)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exception);
#else
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), exception,
                  PyException_GetTraceback(exception));
#endif
}

void errors_note(const char *format, ...)
{
    va_list arguments;
    PyObject *exception = errors_take();
    if (!exception)
        return;
    va_start(arguments, format);
    PyObject *note = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    PyObject *done = note ? PyObject_CallMethod(exception, "add_note", "O", note) : NULL;
    if (!done)
        PyErr_Clear(); /* the note is a courtesy: a repr() that fails must not hide the error */
    Py_XDECREF(done);
    Py_XDECREF(note);
    errors_restore(exception);
}

static void set_broken(Core *core)
{
    PyObject *make = core_late(&core->broken_pool, "libpool._errors", "broken_pool");
    PyObject *exception = make ? PyObject_CallNoArgs(make) : NULL;
    if (exception && PyExceptionInstance_Check(exception))
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    else if (exception)
        PyErr_Format(PyExc_TypeError, "broken_pool() returned %R", exception);
    Py_XDECREF(exception);
}

void errors_set(Core *core, int error)
{
    switch (error) {
    case -EXDEV:
        PyErr_SetString(PyExc_RuntimeError,
                        "this pool was made in another process and inherited through fork; it can "
                        "be used only where it was made");
        return;
    case -EOWNERDEAD:
        set_broken(core);
        return;
    case -ESHUTDOWN:
        PyErr_SetString(PyExc_RuntimeError, "the pool is closed");
        return;
    case -ENOMEM:
        PyErr_NoMemory();
        return;
    default:
        errno = -error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
}

/* `_closed_error` of the class makes the exception that the imitated interface raises. */
static void set_closed(Workers *workers)
{
    PyObject *exception = PyObject_CallMethod((PyObject *)workers, "_closed_error", NULL);
    if (exception && PyExceptionInstance_Check(exception))
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    else if (exception || PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        errors_set(workers->core, -ESHUTDOWN);
    }
    Py_XDECREF(exception);
}

void errors_set_submit(Workers *workers, int error, size_t size)
{
    if (error == -ESHUTDOWN)
        set_closed(workers);
    else if (error == -E2BIG)
        PyErr_Format(PyExc_MemoryError,
                     "%zu bytes of arguments are more than the pool's shared_limit allows", size);
    else if (error == -ENOMEM)
        PyErr_Format(PyExc_MemoryError,
                     "the pool has no shared memory left for %zu bytes of arguments", size);
    else
        errors_set(workers->core, error);
}

/* threading.TIMEOUT_MAX: what the locks of Python take. */
#define TIMEOUT_MAX 9223372036.0

int64_t monotonic_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t errors_deadline(PyObject *timeout)
{
    if (!timeout || timeout == Py_None)
        return POOL_FOREVER;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds > 0)) /* NaN too, as in threading */
        return monotonic_now();
    if (seconds > TIMEOUT_MAX) {
        PyErr_SetString(PyExc_OverflowError, "timeout value is too large");
        return -1;
    }
    int64_t length = (int64_t)(seconds * 1e9), now = monotonic_now();
    return length < POOL_FOREVER - now ? now + length : POOL_FOREVER;
}

#define MAX_REPR 200

static PyObject *short_repr(PyObject *object)
{
    PyObject *text = PyObject_Repr(object);
    if (!text) {
        PyErr_Clear();
        return PyUnicode_FromFormat("<%.100s object>", Py_TYPE(object)->tp_name);
    }
    if (PyUnicode_GET_LENGTH(text) <= MAX_REPR)
        return text;
    PyObject *start = PyUnicode_Substring(text, 0, MAX_REPR);
    PyObject *cut = start ? PyUnicode_FromFormat("%U...", start) : NULL;
    Py_XDECREF(start);
    Py_DECREF(text);
    return cut;
}

PyObject *errors_repr(PyObject *object)
{
    PyObject *pending = errors_take(); /* no Python code may run with an exception set */
    PyObject *text = short_repr(object);
    if (!text)
        PyErr_Clear();
    if (pending)
        errors_restore(pending);
    return text;
}
