/* From an ended job to what its future holds. */
#include "core.h"

static PyObject *exception_of(Core *core, const uint8_t *data, size_t size)
{
    PyObject *loads = core_late(&core->loads_exception, "libpool._pickling", "loads_exception");
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *exception = loads && bytes ? PyObject_CallOneArg(loads, bytes) : NULL;
    Py_XDECREF(bytes);
    if (exception && !PyExceptionInstance_Check(exception)) {
        PyErr_Format(PyExc_TypeError, "the worker sent %R as an exception", exception);
        Py_CLEAR(exception);
    }
    return exception;
}

/* The value or exception that the worker wrote; NULL with an exception. */
static PyObject *decode(Core *core, const uint8_t *data, size_t size, int *state)
{
    Reader reader = {core, data, data + size};
    *state = FUTURE_RESULT;
    if (size > 0 && data[0] >= TAG_PICKLE) {
        PyObject *text, *exception = NULL;
        int tag = codec_read_byte(&reader);
        switch (tag) {
        case TAG_PICKLE:
            return pickle_loads(core, reader.next, size - 1);
        case TAG_EXCEPTION:
            *state = FUTURE_EXCEPTION;
            return exception_of(core, reader.next, size - 1);
        case TAG_FAILURE:
            *state = FUTURE_EXCEPTION;
            text = PyUnicode_DecodeUTF8((const char *)reader.next, (Py_ssize_t)size - 1, "replace");
            if (text)
                exception = PyObject_CallOneArg(PyExc_RuntimeError, text);
            Py_XDECREF(text);
            return exception;
        }
        reader.next--; /* an unknown tag: codec_read() complains */
    }
    return codec_read(&reader);
}

static PyObject *exception_of_death(Core *core, int wait_status, PyObject *function,
                                    uint64_t memory_limit)
{
    PyObject *make = core_late(&core->worker_died, "libpool._errors", "worker_died");
    if (!make)
        return NULL;
    PyObject *exception = PyObject_CallFunction(
        make, "iOK", wait_status, function ? function : Py_None, (unsigned long long)memory_limit);
    if (exception && !PyExceptionInstance_Check(exception)) {
        PyErr_Format(PyExc_TypeError, "worker_died() returned %R", exception);
        Py_CLEAR(exception);
    }
    return exception;
}

/* The exception for a negative errno. */
static PyObject *exception_of_error(Core *core, int error)
{
    errors_set(core, error);
    return errors_take();
}

static PyObject *take_finished(Core *core, const struct pool_future *job, int *state)
{
    const void *data;
    size_t size;
    int status = pool_future_result(job, &data, &size);
    if (status == 0)
        return decode(core, data, size, state);
    *state = FUTURE_EXCEPTION;
    if (status == -ENOMEM)
        PyErr_SetString(PyExc_MemoryError, "the pool has no shared memory left for the result");
    else
        errors_set(core, status);
    return errors_take();
}

PyObject *future_function(Future *future)
{
    Workers *workers = future->handle ? future->handle->workers : NULL;
    if (!future->function)
        return Py_XNewRef(future->content);
    return workers ? Py_XNewRef(functions_find(&workers->functions, future->function)) : NULL;
}

static PyObject *died(Future *future, Core *core, int wait_status)
{
    PyObject *function = future_function(future);
    uint64_t memory_limit = future->handle ? future->handle->memory_limit : 0;
    PyObject *exception = exception_of_death(core, wait_status, function, memory_limit);
    Py_XDECREF(function);
    return exception;
}

static PyObject *late(Future *future, Core *core, const struct pool_future *job)
{
    PyObject *make = core_late(&core->job_timeout, "libpool._errors", "job_timeout");
    PyObject *function = future_function(future);
    PyObject *exception = make ? PyObject_CallFunction(make, "LO", (long long)pool_future_part(job),
                                                       function ? function : Py_None)
                               : NULL;
    Py_XDECREF(function);
    return exception;
}

static void note_function(Future *future)
{
    PyObject *function = future_function(future);
    PyObject *text = function ? errors_repr(function) : NULL;
    if (text)
        errors_note("raised while the result of %U was unpickled", text);
    else
        errors_note("raised while the result of the job was unpickled");
    Py_XDECREF(text);
    Py_XDECREF(function);
}

int outcome_take(Future *future, PyObject **content)
{
    /* Decoding runs Python code, which may drop the future's job; the memory stays mapped. */
    Handle *handle = (Handle *)Py_NewRef((PyObject *)future->handle);
    Core *core = handle->core;
    struct pool_future job = future_job(future);
    int detail = 0, state = FUTURE_EXCEPTION;
    *content = NULL;
    switch (pool_future_outcome(&job, &detail)) {
    case POOL_FINISHED:
        *content = take_finished(core, &job, &state);
        break;
    case POOL_DIED:
        *content = died(future, core, detail);
        break;
    case POOL_TIMEOUT:
        *content = late(future, core, &job);
        break;
    case POOL_CANCELLED:
        state = FUTURE_CANCELLED_AND_NOTIFIED;
        break;
    case POOL_PENDING:
    case POOL_RUNNING:
        PyErr_SetString(PyExc_RuntimeError, "a job was collected that has not ended");
        break;
    default:
        *content = exception_of_error(core, -EOWNERDEAD);
    }
    if (PyErr_Occurred()) {
        /* The result can't be read here. That is how this job ended, unless it is something that
         * happened to the reader: a signal handler raised. */
        state = -1;
        if (PyErr_ExceptionMatches(PyExc_Exception)) {
            note_function(future);
            *content = errors_take();
            state = FUTURE_EXCEPTION;
        }
    }
    Py_DECREF(handle);
    return state;
}
