/* From an ended job to what its future holds. */
#include "core.h"

static PyObject *exception_of(Core *core, const uint8_t *data, size_t size)
{
    PyObject *loads = core_late(&core->loads_exception, "libpool._exceptions", "loads_exception");
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *exception = loads && bytes ? PyObject_CallOneArg(loads, bytes) : NULL;
    Py_XDECREF(bytes);
    if (exception && !PyExceptionInstance_Check(exception)) {
        PyErr_Format(PyExc_TypeError, "the worker sent %R as an exception", exception);
        Py_CLEAR(exception);
    }
    return exception;
}

/* A duration in 16 bits: 6 for the position of the highest bit, then the 10 that follow that bit.
 * To a thousandth, which is better than it is measured. */
static uint16_t pack_spent(uint64_t nanoseconds)
{
    unsigned position = 63 - (unsigned)__builtin_clzll(nanoseconds | 1);
    uint64_t below = (nanoseconds | 1) - (UINT64_C(1) << position);
    uint64_t fraction = position >= 10 ? below >> (position - 10) : below << (10 - position);
    uint16_t packed = (uint16_t)(position << 10 | fraction);
    if (packed == SPENT_UNKNOWN)
        return 1;
    return packed == SPENT_NEVER_SENT ? packed - 1 : packed;
}

double outcome_spent(uint16_t spent)
{
    double highest = (double)(UINT64_C(1) << (spent >> 10));
    return highest + highest * (spent & 0x3ff) / 0x400;
}

static PyObject *decode_buffers(Future *future, Reader *reader)
{
    Handle *handle = reader->handle;
    const uint8_t *begin = reader->begin;
    Block *block = block_new(handle, (uint8_t *)(uintptr_t)begin, (size_t)(reader->end - begin));
    struct pool_future job = future_job(future);
    Source source = {.exporter = (PyObject *)block, .memory = begin, .handle = handle, .job = &job};
    Py_XSETREF(reader->block, block);
    return block ? buffers_loads(&source, reader) : NULL;
}

/* What refers to the job's memory takes the job over, once the future is sure to become final. */
static void lend(Future *future, Block *block)
{
    if (block_in_use(block) && future->handle) {
        block->job = future_job(future);
        block->owns_job = future->lent = true;
    }
}

/* What the future of a native function has for its content says how. */
static PyObject *decode_native(Future *future, const Reader *reader)
{
    PyObject *native = Py_XNewRef(future->content);
    PyObject *value = native_decode(native, reader->begin, (size_t)(reader->end - reader->begin));
    Py_XDECREF(native);
    return value;
}

static PyObject *decode(Future *future, Reader *reader, int *state);

static PyObject *decode_timed(Future *future, Reader *reader, int *state)
{
    size_t nanoseconds;
    if (codec_read_size(reader, &nanoseconds) < 0)
        return NULL;
    future->spent = pack_spent(nanoseconds);
    return decode(future, reader, state);
}

/* The list of results, with what says of them that there are none where their calls raised. */
static PyObject *decode_partial(Future *future, Reader *reader, int *state)
{
    Core *core = reader->core;
    PyObject *make = core_late(&core->with_failures, "libpool._errors", "with_failures");
    PyObject *both = make ? decode(future, reader, state) : NULL;
    PyObject *results = both && *state == FUTURE_RESULT ? PyObject_CallOneArg(make, both) : NULL;
    if (both && *state != FUTURE_RESULT)
        PyErr_SetString(PyExc_ValueError, "the data of this job in shared memory are damaged");
    Py_XDECREF(both);
    return results;
}

/* The value or exception that the worker wrote; NULL with an exception. */
static PyObject *decode(Future *future, Reader *reader, int *state)
{
    Core *core = reader->core;
    size_t left = (size_t)(reader->end - reader->next);
    *state = FUTURE_RESULT;
    if (left > 0 && *reader->next >= TAG_PICKLE) {
        PyObject *text, *exception = NULL;
        int tag = codec_read_byte(reader);
        left--;
        switch (tag) {
        case TAG_PICKLE:
            return pickle_loads(core, reader->next, left, NULL);
        case TAG_BUFFERS:
            return decode_buffers(future, reader);
        case TAG_EXCEPTION:
            *state = FUTURE_EXCEPTION;
            return exception_of(core, reader->next, left);
        case TAG_FAILURE:
            *state = FUTURE_EXCEPTION;
            text = PyUnicode_DecodeUTF8((const char *)reader->next, (Py_ssize_t)left, "replace");
            if (text)
                exception = PyObject_CallOneArg(PyExc_RuntimeError, text);
            Py_XDECREF(text);
            return exception;
        case TAG_NATIVE:
            return decode_native(future, reader);
        case TAG_TIMED:
            if (future->spent == SPENT_UNKNOWN) /* a second one is damage */
                return decode_timed(future, reader, state);
            break;
        case TAG_PARTIAL:
            /* One inside of another is damage. */
            if (left > 0 && *reader->next < TAG_TIMED)
                return decode_partial(future, reader, state);
            break;
        }
        reader->next--; /* an unknown tag: codec_read() complains */
    }
    return codec_read(reader);
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

/* *block: what exports the job's memory to the value, owned; NULL: nothing does. */
static PyObject *read_result(Future *future, Handle *handle, const void *data, size_t size,
                             int *state, Block **block)
{
    Reader reader = {.core = handle->core,
                     .handle = handle,
                     .begin = data,
                     .next = data,
                     .end = (const uint8_t *)data + size};
    future->spent = SPENT_UNKNOWN; /* it may be read twice: see future_collect() */
    PyObject *value = decode(future, &reader, state);
    *block = reader.block;
    return value;
}

/* The exception for a finished job that has no result. */
static PyObject *exception_of_status(Core *core, int status)
{
    if (status == -ENOMEM)
        PyErr_SetString(PyExc_MemoryError, "the pool has no shared memory left for the result");
    else
        errors_set(core, status);
    return errors_take();
}

PyObject *future_function(Future *future)
{
    Workers *workers = future->handle ? future->handle->workers : NULL;
    if (!future->function && future->content && PyTuple_CheckExact(future->content))
        return Py_NewRef(PyTuple_GET_ITEM(future->content, 0));
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
    Block *block = NULL;
    int detail = 0, state = FUTURE_EXCEPTION;
    const void *data;
    size_t size;
    int status = pool_future_result(&job, &data, &size);
    *content = NULL;
    /* Zero is what finished jobs have, unless something went wrong in the worker. */
    switch (status == 0 ? POOL_FINISHED : pool_future_outcome(&job, &detail)) {
    case POOL_FINISHED:
        *content = status == 0 ? read_result(future, handle, data, size, &state, &block)
                               : exception_of_status(core, status);
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
    if (block && state >= 0)
        lend(future, block);
    Py_XDECREF(block);
    Py_DECREF(handle);
    return state;
}
