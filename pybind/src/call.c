/* The worker's side of a job: reads the function and its arguments, and calls. */
#include "core.h"

/* Arguments of a direct call that need no memory from the heap. */
#define ARGUMENTS_ON_STACK 8

/* Says of the exception that is set what was going on. */
static void note_reading(PyObject *function)
{
    if (!function) {
        errors_note("raised while the function was unpickled");
        return;
    }
    PyObject *text = errors_repr(function);
    if (text)
        errors_note("raised while the arguments of %U were unpickled", text);
    Py_XDECREF(text);
}

/* The callable in a shared block. It is unpickled once in each worker. Borrowed. */
static PyObject *stored_callable(Workers *workers, uint64_t target)
{
    if (target == workers->last_target && workers->last_callable)
        return workers->last_callable;
    PyObject *key = PyLong_FromUnsignedLongLong(target);
    PyObject *callable = key ? PyDict_GetItemWithError(workers->callables, key) : NULL;
    if (!callable && key && !PyErr_Occurred()) {
        void *memory;
        size_t size;
        int error = pool_lookup(workers->handle->pool, target, &memory, &size);
        if (error < 0) {
            errors_set(workers->core, error);
        } else {
            callable = pickle_loads(workers->core, memory, size, NULL);
            if (callable && PyDict_SetItem(workers->callables, key, callable) < 0)
                Py_CLEAR(callable);
            Py_XDECREF(callable); /* the dict has it */
        }
    }
    Py_XDECREF(key);
    if (callable) {
        workers->last_target = target;
        workers->last_callable = callable;
    }
    return callable;
}

/* Owned. */
static PyObject *read_callable(Workers *workers, uint64_t target, int form, Reader *reader)
{
    if (!(form & FORM_INLINE))
        return Py_XNewRef(stored_callable(workers, target));
    size_t size;
    if (codec_read_size(reader, &size) < 0)
        return NULL;
    const uint8_t *data = codec_take(reader, size);
    return data ? pickle_loads(workers->core, data, size, NULL) : NULL;
}

/* Reads `count` values to `values`: how many it could read. */
static Py_ssize_t read_values(PyObject *function, Reader *reader, PyObject **values,
                              Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (!(values[i] = codec_read(reader))) {
            note_reading(function);
            return i;
        }
    return count;
}

/* Everything that is left is one pickle. */
static PyObject *read_pickle(PyObject *function, Reader *reader, const Source *source)
{
    PyObject *loaded = source->exporter ? buffers_loads(source, reader)
                                        : pickle_loads(reader->core, reader->next,
                                                       (size_t)(reader->end - reader->next), NULL);
    if (!loaded)
        note_reading(function);
    return loaded;
}

static PyObject *read_names(Reader *reader, Py_ssize_t count)
{
    PyObject *names = PyTuple_New(count);
    for (Py_ssize_t i = 0; names && i < count; i++) {
        PyObject *name = codec_read(reader);
        if (name && !PyUnicode_CheckExact(name)) {
            PyErr_SetString(PyExc_ValueError, "a keyword in shared memory is no string");
            Py_CLEAR(name);
        }
        if (!name) {
            Py_CLEAR(names);
            break;
        }
        PyTuple_SET_ITEM(names, i, name);
    }
    return names;
}

static PyObject *call_direct(PyObject *function, bool keywords, Reader *reader)
{
    int positional = codec_read_byte(reader);
    int named = positional >= 0 && keywords ? codec_read_byte(reader) : 0;
    if (positional < 0 || named < 0)
        return NULL;
    Py_ssize_t count = positional + named;
    /* One place before the arguments is lent to the callee, which bound methods make use of. */
    PyObject *on_stack[1 + ARGUMENTS_ON_STACK];
    PyObject **values = on_stack + 1;
    if (count > ARGUMENTS_ON_STACK) {
        PyObject **memory = PyMem_New(PyObject *, count + 1);
        if (!memory)
            return PyErr_NoMemory();
        values = memory + 1;
    }
    PyObject *result = NULL, *names = NULL;
    Py_ssize_t got = read_values(function, reader, values, count);
    if (got == count && (!named || (names = read_names(reader, named))))
        result = PyObject_Vectorcall(function, values,
                                     (size_t)positional | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
    for (Py_ssize_t i = 0; i < got; i++)
        Py_DECREF(values[i]);
    Py_XDECREF(names);
    if (values != on_stack + 1)
        PyMem_Free(values - 1);
    return result;
}

static PyObject *call_pickled(PyObject *function, bool keywords, Reader *reader,
                              const Source *source)
{
    PyObject *loaded = read_pickle(function, reader, source);
    PyObject *result = NULL, *args = loaded, *kwargs = NULL;
    bool sound = loaded && PyTuple_CheckExact(loaded);
    if (sound && keywords) {
        sound = PyTuple_GET_SIZE(loaded) == 2;
        args = sound ? PyTuple_GET_ITEM(loaded, 0) : NULL;
        kwargs = sound ? PyTuple_GET_ITEM(loaded, 1) : NULL;
        sound = sound && PyTuple_CheckExact(args) && PyDict_CheckExact(kwargs);
    }
    if (sound)
        result = PyObject_Call(function, args, kwargs);
    else if (loaded)
        PyErr_SetString(PyExc_ValueError, "the arguments in shared memory are damaged");
    Py_XDECREF(loaded);
    return result;
}

static PyObject *call(PyObject *function, int form, Reader *reader, const Source *source)
{
    int kind = form & FORM_KIND;
    switch (kind) {
    case FORM_CALL:
    case FORM_CALL_KEYWORDS:
        return call_direct(function, kind == FORM_CALL_KEYWORDS, reader);
    case FORM_PICKLED:
    case FORM_PICKLED_KEYWORDS:
        return call_pickled(function, kind == FORM_PICKLED_KEYWORDS, reader, source);
    default:
        PyErr_SetString(PyExc_ValueError, "the form of a job in shared memory is unknown");
        return NULL;
    }
}

static int run_chunk(Reply *reply, PyObject *function, int form, Reader *reader,
                     const Source *source)
{
    PyObject *items = NULL;
    if ((form & FORM_KIND) == FORM_CHUNK)
        read_values(function, reader, &items, 1);
    else
        items = read_pickle(function, reader, source);
    Chunk chunk = {.core = reply->core, .function = function, .form = form};
    int status = chunk_run(&chunk, reply, items);
    Py_XDECREF(items);
    return status;
}

static int run_call(Reply *reply, PyObject *function, int form, Reader *reader,
                    const Source *source)
{
    PyObject *result = call(function, form, reader, source);
    reply->result = &result;
    int error = result ? reply_value(reply, result) : -1;
    if (error < 0 && result)
        reply_note_result(function, result);
    Py_XDECREF(result);
    return error < 0 ? reply_exception(reply) : 0;
}

/* ---- The job --------------------------------------------------------------------------------- */

/* Where the buffers of its arguments are. 0, or -1 with an exception. */
static int open_source(Source *source, Workers *workers, const uint8_t *data, size_t size, int form)
{
    source->exporter = (PyObject *)block_new(workers->handle, (uint8_t *)(uintptr_t)data, size);
    source->opened = PyList_New(0);
    source->memory = data;
    source->handle = workers->handle;
    /* What is so short may lie in the job's slot, which nobody can keep. */
    source->copy = (form & FORM_COPY) || size < MIN_BUFFER;
    return source->exporter && source->opened ? 0 : -1;
}

/* What still refers to the job's memory by its end keeps it. */
static void close_source(Source *source, struct pool_job *job)
{
    Block *block = (Block *)source->exporter;
    if (block && block_in_use(block))
        pool_job_keep(job, &block->reference);
    Py_XDECREF(block);
    Py_XDECREF(source->opened);
}

int call_run(void *context, struct pool_job *job)
{
    Workers *workers = context;
    size_t size = 0;
    const uint8_t *data = pool_job_argument(job, &size);
    Reader reader = {.core = workers->core, .next = data, .end = data + size};
    Source source = {0};
    Reply reply = {.workers = workers, .core = workers->core, .job = job};
    PyObject *function = NULL;
    int form = codec_read_byte(&reader);
    if (form >= 0 && (form & FORM_BUFFERS) && open_source(&source, workers, data, size, form) < 0)
        form = -1;
    if (form >= 0 && !(function = read_callable(workers, pool_job_target(job), form, &reader)))
        note_reading(NULL);
    int kind = form & FORM_KIND, status;
    reply.known = source.opened;
    if (!function)
        status = reply_exception(&reply);
    else if (kind == FORM_CHUNK || kind == FORM_PICKLED_CHUNK)
        status = run_chunk(&reply, function, form, &reader, &source);
    else
        status = run_call(&reply, function, form, &reader, &source);
    Py_XDECREF(function);
    close_source(&source, job);
    if (workers->core->printed)
        host_flush(workers->core);
    return status;
}
