/* The worker's side: writes what came of a job. */
#include "core.h"

void reply_begin_timed(Reply *reply, int64_t nanoseconds)
{
    reply->header[0] = TAG_TIMED;
    memcpy(reply->header + 1, &nanoseconds, sizeof nanoseconds);
    reply->header_size = 1 + sizeof nanoseconds;
}

void reply_begin_partial(Reply *reply)
{
    pool_job_fail(reply->job);
    reply->header[reply->header_size++] = TAG_PARTIAL;
}

/* The header, then memory for `size` bytes; NULL when there is none left. */
static uint8_t *reserve(Reply *reply, size_t size)
{
    uint8_t *out = pool_job_reserve(reply->job, reply->header_size + size);
    if (!out)
        return NULL;
    memcpy(out, reply->header, reply->header_size);
    return out + reply->header_size;
}

/* One tag, then bytes. 0, or a negative errno. */
static int reply_bytes(Reply *reply, int tag, const char *data, Py_ssize_t size)
{
    uint8_t *out = reserve(reply, (size_t)size + 1);
    if (!out)
        return -errno;
    *out = (uint8_t)tag;
    codec_copy(out + 1, data, (size_t)size, true);
    return 0;
}

PyObject *reply_pickle_exception(Core *core, PyObject *exception)
{
    PyObject *dumps = core_late(&core->dumps_exception, "libpool._exceptions", "dumps_exception");
    PyObject *pickled = dumps ? PyObject_CallOneArg(dumps, exception) : NULL;
    if (pickled && !PyBytes_CheckExact(pickled))
        Py_CLEAR(pickled);
    if (!pickled)
        PyErr_Clear();
    return pickled;
}

/* The last resort, when the exception could not be pickled, nor the one about that. */
static int reply_failure(Reply *reply, PyObject *exception)
{
    Py_ssize_t size = 0;
    PyObject *text = PyUnicode_FromFormat("%s (its exception could not be sent): %S",
                                          Py_TYPE(exception)->tp_name, exception);
    const char *data = text ? PyUnicode_AsUTF8AndSize(text, &size) : NULL;
    if (!data) {
        PyErr_Clear();
        data = Py_TYPE(exception)->tp_name;
        size = (Py_ssize_t)strlen(data);
    }
    int status = reply_bytes(reply, TAG_FAILURE, data, size);
    Py_XDECREF(text);
    return status;
}

int reply_exception(Reply *reply)
{
    PyObject *exception = errors_take();
    pool_job_fail(reply->job);
    PyObject *pickled = reply_pickle_exception(reply->core, exception);
    int status = pickled ? reply_bytes(reply, TAG_EXCEPTION, PyBytes_AS_STRING(pickled),
                                       PyBytes_GET_SIZE(pickled))
                         : reply_failure(reply, exception);
    Py_XDECREF(pickled);
    Py_DECREF(exception);
    return status;
}

/* The buffers are aligned relative to the begin of the job's memory. */
static int reply_buffers(Reply *reply, PyObject *pickled, Buffers *buffers, Py_ssize_t *size)
{
    size_t length = (size_t)PyBytes_GET_SIZE(pickled), begin = reply->header_size + 1;
    *size = (Py_ssize_t)buffers_end(buffers, begin, length);
    uint8_t *out = pool_job_reserve_with(reply->job, (size_t)*size, buffers->gifts, buffers->given);
    if (!out && errno == EINVAL && buffers->given) {
        /* One is some other result's, that nobody has collected. */
        return buffers_keep(buffers) < 0 ? -1 : reply_buffers(reply, pickled, buffers, size);
    }
    if (!out)
        return -errno;
    memcpy(out, reply->header, reply->header_size);
    out[reply->header_size] = TAG_BUFFERS;
    buffers_write(buffers, out, begin, PyBytes_AS_STRING(pickled), length);
    return 0;
}

static int reply_pickled(Reply *reply, PyObject *value, Py_ssize_t *size)
{
    Handle *handle = reply->workers->handle;
    PyObject *known = reply->known ? reply->known : reply->core->nothing;
    Buffers buffers;
    int error = -1;
    *size = 0;
    if (buffers_begin(&buffers, handle) < 0)
        return -1;
    PyObject *pickled = pickle_dumps(reply->core, value, false, &buffers);
    if (pickled && PyList_GET_SIZE(buffers.list) == 0) {
        *size = PyBytes_GET_SIZE(pickled);
        error = reply_bytes(reply, TAG_PICKLE, PyBytes_AS_STRING(pickled), *size);
    } else if (pickled && buffers_finish(&buffers, handle, known) == 0) {
        if (born_begin(handle, &buffers, reply->result) == 0)
            error = reply_buffers(reply, pickled, &buffers, size);
        born_end(&buffers);
    }
    Py_XDECREF(pickled);
    buffers_clear(&buffers);
    return error;
}

/* For one that is more than a little. */
static int reply_measured(Reply *reply, PyObject *value, Py_ssize_t *size)
{
    Met met = {.count = 0};
    *size = codec_measure(value, &met);
    if (*size < 0)
        return reply_pickled(reply, value, size);
    uint8_t *out = reserve(reply, (size_t)*size);
    if (!out)
        return -errno;
    Writer writer;
    codec_begin(&writer, out, (size_t)*size, met.count == 0);
    return codec_write(&writer, value) == CODEC_DONE ? 0 : -EIO;
}

int reply_value(Reply *reply, PyObject *value)
{
    uint8_t small[REPLY_HEADER + SMALL_PAYLOAD];
    Writer writer;
    memcpy(small, reply->header, reply->header_size);
    codec_begin(&writer, small + reply->header_size, SMALL_PAYLOAD, false);
    Py_ssize_t size;
    int error;
    switch (codec_write(&writer, value)) {
    case CODEC_DONE:
        size = writer.next - small;
        error = pool_job_return(reply->job, small, (size_t)size);
        break;
    case CODEC_FULL:
        error = reply_measured(reply, value, &size);
        break;
    default:
        error = reply_pickled(reply, value, &size);
    }
    if (error < 0 && error != -ENOMEM && !PyErr_Occurred())
        errors_set(reply->core, error);
    else if (error < 0 && !PyErr_Occurred())
        PyErr_Format(PyExc_MemoryError,
                     "the pool has no shared memory left for a result of %zd bytes", size);
    return error < 0 ? -1 : 0;
}

void reply_note_result(PyObject *function, PyObject *result)
{
    if (PyErr_ExceptionMatches(PyExc_MemoryError))
        return;
    PyObject *what = errors_repr(result);
    PyObject *whose = errors_repr(function);
    if (what && whose)
        errors_note("the result of %U can't be pickled: %U", whose, what);
    Py_XDECREF(what);
    Py_XDECREF(whose);
}
