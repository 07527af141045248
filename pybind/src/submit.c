/* From a Python call to a job. Three steps, so that nothing has to be undone but on failure: first
 * everything that may run Python code or fail in it (pickling, making the future), then the job's
 * memory, then the writing, which can't fail. */
#include "core.h"

#define MAX_DIRECT_ARGUMENTS UINT8_MAX
/* The length before an inline function. */
#define INLINE_HEADER 8

/* What will be written after the form byte and the inline function: bytes that are there already,
 * or, when it is more than a little, values that were measured. */
typedef struct Payload {
    int form;
    size_t size;
    const uint8_t *data; /* the bytes, NULL: values */
    PyObject *pickled;   /* owned: what `data` points into, if not into the caller's buffer */
    Buffers buffers;     /* what comes beside the pickle */
    PyObject *const *values;
    Py_ssize_t count; /* of values, with those of keywords */
    PyObject *names;  /* of keywords, or NULL */
    PyObject *items;  /* of a chunk */
    bool release;     /* the GIL may be let go of while it is written */
} Payload;

/* ---- Measuring ------------------------------------------------------------------------------- */

static void write_counts(Writer *writer, const Payload *payload)
{
    Py_ssize_t keywords = payload->names ? PyTuple_GET_SIZE(payload->names) : 0;
    *writer->next++ = (uint8_t)(payload->count - keywords);
    if (payload->names)
        *writer->next++ = (uint8_t)keywords;
}

static int write_call(Writer *writer, const Payload *payload)
{
    write_counts(writer, payload);
    int stop = 0;
    for (Py_ssize_t i = 0; !stop && i < payload->count; i++)
        stop = codec_write(writer, payload->values[i]);
    if (payload->names)
        for (Py_ssize_t i = 0; !stop && i < PyTuple_GET_SIZE(payload->names); i++)
            stop = codec_write(writer, PyTuple_GET_ITEM(payload->names, i));
    return stop;
}

/* For a payload that is more than a little. */
static bool measure_call(Payload *payload)
{
    Met met = {.count = 0};
    Py_ssize_t total = payload->names ? 2 : 1;
    for (Py_ssize_t i = 0; i < payload->count; i++) {
        Py_ssize_t size = codec_measure(payload->values[i], &met);
        if (size < 0)
            return false;
        total += size;
    }
    for (Py_ssize_t i = 0; payload->names && i < PyTuple_GET_SIZE(payload->names); i++) {
        Py_ssize_t size = codec_measure(PyTuple_GET_ITEM(payload->names, i), &met);
        if (size < 0)
            return false;
        total += size;
    }
    payload->size = (size_t)total;
    payload->release = met.count == 0;
    return true;
}

/* True unless the arguments have to be pickled. */
static bool direct_call(Payload *payload, uint8_t small[SMALL_PAYLOAD])
{
    if (payload->count > MAX_DIRECT_ARGUMENTS)
        return false;
    payload->form = payload->names ? FORM_CALL_KEYWORDS : FORM_CALL;
    Writer writer;
    codec_begin(&writer, small, SMALL_PAYLOAD, false);
    switch (write_call(&writer, payload)) {
    case CODEC_DONE:
        payload->data = small;
        payload->size = (size_t)(writer.next - small);
        return true;
    case CODEC_FULL:
        return measure_call(payload);
    default:
        return false;
    }
}

static PyObject *tuple_of(PyObject *const *values, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple && i < count; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(values[i]));
    return tuple;
}

/* (args, kwargs) as one object: what is in both stays one object when it arrives. */
static PyObject *pickle_call(Core *core, PyObject *const *values, Py_ssize_t count, PyObject *names,
                             Buffers *buffers)
{
    Py_ssize_t keywords = names ? PyTuple_GET_SIZE(names) : 0;
    PyObject *object = tuple_of(values, count - keywords);
    if (object && names) {
        PyObject *mapping = PyDict_New();
        for (Py_ssize_t i = 0; mapping && i < keywords; i++)
            if (PyDict_SetItem(mapping, PyTuple_GET_ITEM(names, i), values[count - keywords + i]) <
                0)
                Py_CLEAR(mapping);
        PyObject *both = mapping ? PyTuple_Pack(2, object, mapping) : NULL;
        Py_XDECREF(mapping);
        Py_SETREF(object, both);
    }
    PyObject *pickled = object ? pickle_dumps(core, object, true, buffers) : NULL;
    Py_XDECREF(object);
    return pickled;
}

static int pickled_payload(Workers *workers, Payload *payload, int form, PyObject *pickled)
{
    Buffers *buffers = &payload->buffers;
    if (!pickled)
        return -1;
    payload->form = form;
    payload->pickled = pickled;
    payload->data = (const uint8_t *)PyBytes_AS_STRING(pickled);
    payload->size = (size_t)PyBytes_GET_SIZE(pickled);
    payload->release = true;
    if (PyList_GET_SIZE(buffers->list) == 0) {
        buffers_clear(buffers);
        return 0;
    }
    payload->form |= FORM_BUFFERS;
    /* A job may write to its arrays. If it is run again, it gets them as they were. */
    if (workers->options.retries > 0)
        payload->form |= FORM_COPY;
    return buffers_finish(buffers, workers->handle, NULL);
}

static int make_call(Workers *workers, Payload *payload, uint8_t small[SMALL_PAYLOAD])
{
    if (direct_call(payload, small))
        return 0;
    if (buffers_begin(&payload->buffers, workers->handle) < 0)
        return -1;
    return pickled_payload(workers, payload, payload->names ? FORM_PICKLED_KEYWORDS : FORM_PICKLED,
                           pickle_call(workers->core, payload->values, payload->count,
                                       payload->names, &payload->buffers));
}

/* Writes a range of 64-bit numbers: 1. 0: they are larger. -1 with an exception. */
static int write_range(Payload *payload, PyObject *range, uint8_t *out)
{
    static const char *const names[] = {"start", "stop", "step"};
    payload->data = out;
    *out++ = TAG_RANGE;
    for (int i = 0; i < 3; i++) {
        int overflow = 0;
        PyObject *number = PyObject_GetAttrString(range, names[i]);
        int64_t value = number ? PyLong_AsLongLongAndOverflow(number, &overflow) : -1;
        Py_XDECREF(number);
        if (value == -1 && PyErr_Occurred())
            return -1;
        if (overflow)
            return 0;
        memcpy(out, &value, sizeof value);
        out += sizeof value;
    }
    payload->size = 1 + 3 * sizeof(int64_t);
    return 1;
}

static int make_chunk(Workers *workers, Payload *payload, PyObject *items,
                      uint8_t small[SMALL_PAYLOAD])
{
    payload->form = FORM_CHUNK;
    if (Py_TYPE(items) == &PyRange_Type) {
        int direct = write_range(payload, items, small);
        if (direct != 0)
            return direct < 0 ? -1 : 0;
    } else {
        Met met = {.count = 0};
        Py_ssize_t size = codec_measure(items, &met);
        if (size >= 0) {
            payload->items = items;
            payload->size = (size_t)size;
            return 0;
        }
    }
    if (buffers_begin(&payload->buffers, workers->handle) < 0)
        return -1;
    return pickled_payload(workers, payload, FORM_PICKLED_CHUNK,
                           pickle_dumps(workers->core, items, true, &payload->buffers));
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* Writes to `size` bytes of the job's memory. Values that were measured fit, since nothing has run
 * that could change them: where they are mutable, the GIL was not let go of. */
static void write_payload(uint8_t *out, size_t size, const Payload *payload, PyObject *function)
{
    uint8_t *memory = out, *end = out + size;
    *out++ = (uint8_t)(payload->form | (function ? FORM_INLINE : 0));
    if (function) {
        uint64_t length = (uint64_t)PyBytes_GET_SIZE(function);
        memcpy(out, &length, INLINE_HEADER);
        memcpy(out + INLINE_HEADER, PyBytes_AS_STRING(function), length);
        out += INLINE_HEADER + length;
    }
    if (payload->buffers.list) {
        buffers_write(&payload->buffers, memory, (size_t)(out - memory), payload->data,
                      payload->size);
        return;
    }
    if (payload->data) {
        codec_copy(out, payload->data, payload->size, payload->release);
        return;
    }
    Writer writer;
    codec_begin(&writer, out, (size_t)(end - out), payload->release);
    if (payload->items)
        codec_write(&writer, payload->items);
    else
        write_call(&writer, payload);
}

/* Committing much memory takes time, in which others may run, unless they could change what was
 * measured. */
int submit_prepare(const Workers *workers, size_t size, bool release, struct pool_future *job,
                   void **memory)
{
    struct pool *pool = workers->handle->pool;
    int error;
    if (!release || size <= COPY_WITHOUT_GIL)
        return pool_prepare_with(pool, &workers->options, size, job, memory);
    Py_BEGIN_ALLOW_THREADS
    error = pool_prepare_with(pool, &workers->options, size, job, memory);
    Py_END_ALLOW_THREADS
    return error;
}

/* The bytes of a job's argument. */
static size_t total_size(const Payload *payload, const Travel *travel)
{
    size_t size = 1;
    if (travel->pickled)
        size += INLINE_HEADER + (size_t)PyBytes_GET_SIZE(travel->pickled);
    return payload->buffers.list ? buffers_end(&payload->buffers, size, payload->size)
                                 : size + payload->size;
}

static PyObject *send(Workers *workers, PyObject *function, const Payload *payload,
                      const Travel *travel)
{
    Core *core = workers->core;
    size_t size = total_size(payload, travel);
    Future *future = (Future *)core->future_type->tp_alloc(core->future_type, 0);
    if (!future)
        return NULL;
    struct pool_future job;
    void *memory;
    int error = submit_prepare(workers, size, payload->release, &job, &memory);
    if (error == 0) {
        write_payload(memory, size, payload, travel->pickled);
        error = pool_commit_host(&job, travel->target);
        if (error < 0)
            pool_abandon(&job);
    }
    if (error < 0) {
        Py_DECREF(future);
        errors_set_submit(workers, error, size);
        return NULL;
    }
    future->handle = (Handle *)Py_NewRef((PyObject *)workers->handle);
    future->index = job.index;
    future->generation = job.generation;
    future->function = travel->number;
    /* The caller has the buffers until then. */
    if (payload->buffers.blocks && block_pin(future, payload->buffers.blocks) < 0) {
        Py_DECREF(future);
        return NULL;
    }
    if (travel->number)
        PyObject_GC_UnTrack((PyObject *)future);
    else
        future->content = Py_NewRef(function);
    return (PyObject *)future;
}

/* ---- When something can't be pickled --------------------------------------------------------- */

/* Ctrl-C in the middle says nothing of what was being pickled. */
static bool is_interruption(void)
{
    return !PyErr_ExceptionMatches(PyExc_Exception);
}

/* Says which argument it was, by trying each. */
static void note_argument(Core *core, PyObject *function, PyObject *const *values, Py_ssize_t count,
                          PyObject *names)
{
    if (is_interruption())
        return;
    PyObject *exception = errors_take();
    Py_ssize_t keywords = names ? PyTuple_GET_SIZE(names) : 0;
    Py_ssize_t culprit;
    for (culprit = 0; culprit < count; culprit++) {
        PyObject *pickled = pickle_dumps(core, values[culprit], true, NULL);
        if (!pickled)
            break;
        Py_DECREF(pickled);
    }
    PyErr_Clear();
    PyObject *what = culprit < count ? errors_repr(values[culprit]) : NULL;
    PyObject *whose = errors_repr(function);
    errors_restore(exception);
    if (!what || !whose)
        errors_note("the arguments of the call can't be pickled");
    else if (culprit >= count - keywords)
        errors_note("argument %R of %U can't be pickled: %U",
                    PyTuple_GET_ITEM(names, culprit - (count - keywords)), whose, what);
    else
        errors_note("argument %zd of %U can't be pickled: %U", culprit + 1, whose, what);
    Py_XDECREF(what);
    Py_XDECREF(whose);
}

static void note_function(PyObject *function)
{
    if (is_interruption())
        return;
    PyObject *whose = errors_repr(function);
    if (whose)
        errors_note("the function of the call can't be pickled: %U", whose);
    Py_XDECREF(whose);
}

PyObject *submit_failed(Workers *workers)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyObject *exception = errors_take();
    int error = workers->handle->in_worker ? 0 : pool_check(workers->handle->pool);
    if (error < 0) {
        Py_DECREF(exception);
        errors_set_submit(workers, error, 0);
        return NULL;
    }
    return future_failed(workers->core, exception);
}

/* ---- The methods ----------------------------------------------------------------------------- */

static int check(Workers *workers, PyObject *function)
{
    if (!workers->handle) {
        PyErr_SetString(PyExc_RuntimeError, "the pool has not been started");
        return -1;
    }
    if (!PyCallable_Check(function)) {
        PyObject *text = errors_repr(function);
        if (text)
            PyErr_Format(PyExc_TypeError, "the first argument must be callable, not %U", text);
        else
            PyErr_NoMemory();
        Py_XDECREF(text);
        return -1;
    }
    return 0;
}

const char workers_submit_doc[] =
    PyDoc_STR(
"submit($self, fn, /, *args, **kwargs)\n--\n\n"
"Have a worker call ``fn(*args, **kwargs)``.\n\n"
"Never waits for the workers.\n\n"
"Parameters\n----------\n"
"fn : callable\n"
"    Sent by reference where the workers can import it, else by value.\n"
"*args, **kwargs\n"
"    Its arguments.\n\n"
"Returns\n-------\n"
"Future\n"
"    Where something can't be pickled, it has that exception already.\n\n"
"Raises\n------\n"
"TypeError\n"
"    fn is not callable.\n"
"MemoryError\n"
"    The arguments are larger than the memory that is left.\n"
"RuntimeError, ValueError\n"
"    The pool is closed, or was made in another process.\n"
"libpool.BrokenPool\n"
"    The pool's supervisor died.\n");

PyObject *workers_submit(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Workers *workers = (Workers *)self;
    if (nargs < 1) {
        PyErr_SetString(PyExc_TypeError, "submit() needs the function to call");
        return NULL;
    }
    if (check(workers, args[0]) < 0)
        return NULL;
    if (workers->handle->closing) {
        errors_set_submit(workers, -ESHUTDOWN, 0);
        return NULL;
    }
    if (native_check(workers->core, args[0]))
        return native_submit(workers, args, nargs, kwnames);
    if (kwnames && PyTuple_GET_SIZE(kwnames) == 0)
        kwnames = NULL;
    Travel travel = {0};
    Payload payload = {
        .values = args + 1,
        .count = nargs - 1 + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0),
        .names = kwnames,
    };
    uint8_t small[SMALL_PAYLOAD];
    PyObject *future;
    if (functions_travel(workers, args[0], &travel) < 0) {
        note_function(args[0]);
        return submit_failed(workers);
    }
    if (make_call(workers, &payload, small) == 0) {
        future = send(workers, args[0], &payload, &travel);
    } else {
        note_argument(workers->core, args[0], payload.values, payload.count, kwnames);
        future = submit_failed(workers);
    }
    Py_XDECREF(payload.pickled);
    buffers_clear(&payload.buffers);
    Py_XDECREF(travel.pickled);
    return future;
}

const char workers_submit_chunk_doc[] = PyDoc_STR(
"submit_chunk($self, fn, items, star, each=False, /)\n--\n\n"
"Have a worker call fn(item) for each item, one after the other.\n\n"
"Parameters\n----------\n"
"fn : callable\n"
"items : list, tuple or range\n"
"star : bool\n"
"    Call fn(*item) instead.\n"
"each : bool\n"
"    An exception does not end the chunk: a libpool._errors.Failed is in the place of the\n"
"    result.\n\n"
"Returns\n-------\n"
"Future\n"
"    Its result is the list of results. An exception ends the chunk, and is the future's.\n\n"
"Raises\n------\n"
"As submit().\n");

PyObject *submit_items(Workers *workers, PyObject *function, PyObject *items, int form)
{
    if (!PyList_Check(items) && !PyTuple_Check(items) && Py_TYPE(items) != &PyRange_Type) {
        PyErr_Format(PyExc_TypeError, "items must be a list, a tuple or a range, not %.100s",
                     Py_TYPE(items)->tp_name);
        return NULL;
    }
    if (check(workers, function) < 0)
        return NULL;
    if (native_check(workers->core, function))
        return native_submit_chunk(workers, function, items, form & FORM_STAR);
    Travel travel = {0};
    Payload payload = {0};
    uint8_t small[SMALL_PAYLOAD];
    PyObject *future;
    if (functions_travel(workers, function, &travel) < 0) {
        note_function(function);
        return submit_failed(workers);
    }
    if (make_chunk(workers, &payload, items, small) == 0) {
        payload.form |= form;
        future = send(workers, function, &payload, &travel);
    } else {
        note_argument(workers->core, function, &items, 1, NULL);
        future = submit_failed(workers);
    }
    Py_XDECREF(payload.pickled);
    buffers_clear(&payload.buffers);
    Py_XDECREF(travel.pickled);
    return future;
}

PyObject *workers_submit_chunk(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3 && nargs != 4) {
        PyErr_Format(PyExc_TypeError, "submit_chunk() takes 3 or 4 arguments, got %zd", nargs);
        return NULL;
    }
    int star = PyObject_IsTrue(args[2]);
    int each = nargs == 4 ? PyObject_IsTrue(args[3]) : 0;
    if (star < 0 || each < 0)
        return NULL;
    return submit_items((Workers *)self, args[0], args[1],
                        (star ? FORM_STAR : 0) | (each ? FORM_EACH : 0));
}
