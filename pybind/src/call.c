/* The worker's side of a job: read the function and its arguments, call, write what came of it. */
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
            callable = pickle_loads(workers->core, memory, size);
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
    return data ? pickle_loads(workers->core, data, size) : NULL;
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
static PyObject *read_pickle(PyObject *function, Reader *reader)
{
    PyObject *loaded =
        pickle_loads(reader->core, reader->next, (size_t)(reader->end - reader->next));
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

static PyObject *call_pickled(PyObject *function, bool keywords, Reader *reader)
{
    PyObject *loaded = read_pickle(function, reader);
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

static PyObject *call_item(PyObject *function, PyObject *item, bool star)
{
    if (!star)
        return PyObject_CallOneArg(function, item);
    PyObject *args = PySequence_Tuple(item);
    PyObject *result = args ? PyObject_Call(function, args, NULL) : NULL;
    Py_XDECREF(args);
    return result;
}

static PyObject *call_chunk(struct pool_job *job, PyObject *function, int form, Reader *reader)
{
    uint32_t part = 0;
    PyObject *items = NULL;
    if ((form & FORM_KIND) == FORM_CHUNK)
        read_values(function, reader, &items, 1);
    else
        items = read_pickle(function, reader);
    PyObject *iterator = items ? PyObject_GetIter(items) : NULL;
    PyObject *results = iterator ? PyList_New(0) : NULL;
    PyObject *item;
    while (results && (item = PyIter_Next(iterator))) {
        pool_job_part(job, part++);
        PyObject *result = call_item(function, item, form & FORM_STAR);
        Py_DECREF(item);
        if (!result || PyList_Append(results, result) < 0)
            Py_CLEAR(results);
        Py_XDECREF(result);
    }
    if (PyErr_Occurred())
        Py_CLEAR(results);
    Py_XDECREF(iterator);
    Py_XDECREF(items);
    return results;
}

static PyObject *call(struct pool_job *job, PyObject *function, int form, Reader *reader)
{
    int kind = form & FORM_KIND;
    switch (kind) {
    case FORM_CALL:
    case FORM_CALL_KEYWORDS:
        return call_direct(function, kind == FORM_CALL_KEYWORDS, reader);
    case FORM_PICKLED:
    case FORM_PICKLED_KEYWORDS:
        return call_pickled(function, kind == FORM_PICKLED_KEYWORDS, reader);
    case FORM_CHUNK:
    case FORM_PICKLED_CHUNK:
        return call_chunk(job, function, form, reader);
    default:
        PyErr_SetString(PyExc_ValueError, "the form of a job in shared memory is unknown");
        return NULL;
    }
}

/* ---- What came of it ------------------------------------------------------------------------- */

/* One tag, then bytes. 0, or a negative errno. */
static int return_bytes(struct pool_job *job, int tag, const char *data, Py_ssize_t size)
{
    uint8_t *out = pool_job_reserve(job, (size_t)size + 1);
    if (!out)
        return -errno;
    *out = (uint8_t)tag;
    codec_copy(out + 1, data, (size_t)size, true);
    return 0;
}

/* The last resort, when the exception could not be pickled, nor the one about that. */
static int return_failure(struct pool_job *job, PyObject *exception)
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
    int status = return_bytes(job, TAG_FAILURE, data, size);
    Py_XDECREF(text);
    return status;
}

/* The exception that is set now, whatever it is: also SystemExit and KeyboardInterrupt end the job
 * only, as in concurrent.futures. */
static int return_exception(Core *core, struct pool_job *job)
{
    PyObject *exception = errors_take();
    PyObject *dumps = core_late(&core->dumps_exception, "libpool._pickling", "dumps_exception");
    PyObject *pickled = dumps ? PyObject_CallOneArg(dumps, exception) : NULL;
    int status;
    if (pickled && PyBytes_CheckExact(pickled)) {
        status =
            return_bytes(job, TAG_EXCEPTION, PyBytes_AS_STRING(pickled), PyBytes_GET_SIZE(pickled));
    } else {
        PyErr_Clear();
        status = return_failure(job, exception);
    }
    Py_XDECREF(pickled);
    Py_DECREF(exception);
    return status;
}

static int return_pickled(Core *core, struct pool_job *job, PyObject *value, Py_ssize_t *size)
{
    PyObject *pickled = pickle_dumps(core, value, false);
    if (!pickled)
        return -1;
    *size = PyBytes_GET_SIZE(pickled);
    int error = return_bytes(job, TAG_PICKLE, PyBytes_AS_STRING(pickled), *size);
    Py_DECREF(pickled);
    return error;
}

/* For one that is more than a little. */
static int return_measured(Core *core, struct pool_job *job, PyObject *value, Py_ssize_t *size)
{
    Met met = {.count = 0};
    *size = codec_measure(value, &met);
    if (*size < 0)
        return return_pickled(core, job, value, size);
    uint8_t *out = pool_job_reserve(job, (size_t)*size);
    if (!out)
        return -errno;
    Writer writer;
    codec_begin(&writer, out, (size_t)*size, met.count == 0);
    return codec_write(&writer, value) == CODEC_DONE ? 0 : -EIO;
}

/* 0, or -1 with an exception. */
static int return_value(Core *core, struct pool_job *job, PyObject *value)
{
    uint8_t small[SMALL_PAYLOAD];
    Writer writer;
    codec_begin(&writer, small, sizeof small, false);
    Py_ssize_t size;
    int error;
    switch (codec_write(&writer, value)) {
    case CODEC_DONE:
        size = writer.next - small;
        error = pool_job_return(job, small, (size_t)size);
        break;
    case CODEC_FULL:
        error = return_measured(core, job, value, &size);
        break;
    default:
        error = return_pickled(core, job, value, &size);
    }
    if (error < 0 && error != -ENOMEM && !PyErr_Occurred())
        errors_set(core, error);
    else if (error < 0 && !PyErr_Occurred())
        PyErr_Format(PyExc_MemoryError,
                     "the pool has no shared memory left for a result of %zd bytes", size);
    return error < 0 ? -1 : 0;
}

static void note_result(PyObject *function, PyObject *result)
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

int call_run(void *context, struct pool_job *job)
{
    Workers *workers = context;
    Core *core = workers->core;
    size_t size = 0;
    const uint8_t *data = pool_job_argument(job, &size);
    Reader reader = {core, data, data + size};
    PyObject *function = NULL, *result = NULL;
    int form = codec_read_byte(&reader);
    if (form >= 0 && !(function = read_callable(workers, pool_job_target(job), form, &reader)))
        note_reading(NULL);
    if (function)
        result = call(job, function, form, &reader);
    int status = 0;
    if (!result) {
        status = return_exception(core, job);
    } else if (return_value(core, job, result) < 0) {
        note_result(function, result);
        status = return_exception(core, job);
    }
    Py_XDECREF(result);
    Py_XDECREF(function);
    return status;
}
