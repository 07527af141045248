/* Block: an object that looks after a piece of shared memory, as long as others refer to it. It
 * exports the memory through the buffer protocol.
 *
 * A shared block has at most one Block in a process. The host's owns it: when nobody refers to it
 * any more, the block is freed. Until then it is *pinned* by the futures of the jobs to which it
 * was sent, so that a worker which begins such a job finds it, and holds it from then on as long as
 * it needs it. What a worker allocates is its own: nobody else can open it, and it is gone with the
 * worker, unless it is given with a result. Then whoever reads that holds it, too. */
#include "core.h"

#define FEW_ORPHANS 16

Block *block_new(Handle *handle, void *memory, size_t size)
{
    Core *core = handle->core;
    Block *block = (Block *)core->block_type->tp_alloc(core->block_type, 0);
    if (!block)
        return NULL;
    block->handle = (Handle *)Py_NewRef((PyObject *)handle);
    block->memory = memory;
    block->size = size;
    return block;
}

bool block_in_use(const Block *block)
{
    return Py_REFCNT((PyObject *)(uintptr_t)block) > 1;
}

/* ---- Shared blocks --------------------------------------------------------------------------- */

/* Borrowed; NULL, without an exception, if this process has none for this reference. */
static Block *registered(Handle *handle, uint64_t reference)
{
    PyObject *key = handle->blocks ? PyLong_FromUnsignedLongLong(reference) : NULL;
    PyObject *pointer = key ? PyDict_GetItemWithError(handle->blocks, key) : NULL;
    Py_XDECREF(key);
    PyErr_Clear();
    return pointer ? PyLong_AsVoidPtr(pointer) : NULL;
}

/* Takes over what this process has of the block, also on failure. */
static Block *register_block(Handle *handle, uint64_t reference, bool owned, void *memory,
                             size_t size)
{
    Block *block = block_new(handle, memory, size);
    PyObject *key = PyLong_FromUnsignedLongLong(reference);
    PyObject *pointer = block ? PyLong_FromVoidPtr(block) : NULL;
    if (!handle->blocks)
        handle->blocks = PyDict_New();
    if (block) {
        block->reference = reference;
        block->owned = owned;
    } else if (owned) {
        pool_free(handle->pool, reference);
    } else {
        pool_drop(handle->pool, reference);
    }
    if (!key || !pointer || !handle->blocks || PyDict_SetItem(handle->blocks, key, pointer) < 0)
        Py_CLEAR(block);
    else
        block->key = Py_NewRef(key);
    Py_XDECREF(key);
    Py_XDECREF(pointer);
    return block;
}

Block *block_alloc(Workers *workers, size_t size)
{
    Handle *handle = workers->handle;
    uint64_t reference;
    void *memory;
    int error;
    block_sweep(handle, false);
    Py_BEGIN_ALLOW_THREADS
    error = handle->in_worker ? pool_alloc_own(handle->pool, size, &reference, &memory)
                              : pool_alloc(handle->pool, size, &reference, &memory);
    Py_END_ALLOW_THREADS
    if (error < 0) {
        errors_set_submit(workers, error, size);
        return NULL;
    }
    Block *block = register_block(handle, reference, !handle->in_worker, memory, size);
    if (block)
        block->own = handle->in_worker;
    return block;
}

Block *block_open(Handle *handle, uint64_t reference, const struct pool_future *job)
{
    Block *block = registered(handle, reference);
    if (block)
        return (Block *)Py_NewRef((PyObject *)block);
    size_t size;
    void *memory;
    int error = job                 ? pool_future_hold(job, reference)
                : handle->in_worker ? pool_hold(handle->pool, reference)
                                    : -EINVAL;
    if (error < 0) {
        PyErr_SetString(PyExc_ValueError, "a job refers to shared memory that is no longer there");
        return NULL;
    }
    error = pool_lookup(handle->pool, reference, &memory, &size);
    if (error < 0) {
        pool_drop(handle->pool, reference);
        errors_set(handle->core, error);
        return NULL;
    }
    return register_block(handle, reference, false, memory, size);
}

Block *block_at(Handle *handle, const void *address, size_t *offset)
{
    if (!handle->blocks || PyDict_GET_SIZE(handle->blocks) == 0)
        return NULL;
    uint64_t reference = pool_find(handle->pool, address, offset);
    return reference ? registered(handle, reference) : NULL;
}

/* ---- Pins ------------------------------------------------------------------------------------ */

static PyObject *pin_key(uint32_t index, uint32_t generation)
{
    return PyLong_FromUnsignedLongLong((unsigned long long)generation << 32 | index);
}

int block_pin(Future *future, PyObject *blocks)
{
    Handle *handle = future->handle;
    if (handle->orphans && PyList_GET_SIZE(handle->orphans) >= handle->many_orphans)
        block_sweep(handle, false);
    if (!handle->pins)
        handle->pins = PyDict_New();
    PyObject *key = pin_key(future->index, future->generation);
    int error = key && handle->pins ? PyDict_SetItem(handle->pins, key, blocks) : -1;
    Py_XDECREF(key);
    future->pinned = error == 0;
    return error;
}

/* The job goes on although nobody has its future: looked at again by block_sweep(). */
static void keep_orphan(Handle *handle, PyObject *key)
{
    if (!handle->orphans)
        handle->orphans = PyList_New(0);
    if (!handle->orphans || PyList_Append(handle->orphans, key) < 0)
        PyErr_WriteUnraisable(key);
}

/* The job may need them as long as the pool lives: they end with it. */
static void leave_to_pool(PyObject *blocks)
{
    for (Py_ssize_t i = 0; blocks && i < PyTuple_GET_SIZE(blocks); i++)
        if (PyTuple_GET_ITEM(blocks, i) != Py_None)
            ((Block *)PyTuple_GET_ITEM(blocks, i))->left = true;
}

/* Releases a job that has no future any more, and what it needed. */
static void release_orphan(Handle *handle, const struct pool_future *job, PyObject *key, bool ended)
{
    if (!ended)
        leave_to_pool(PyDict_GetItemWithError(handle->pins, key));
    pool_future_release(job);
    if (PyDict_DelItem(handle->pins, key) < 0)
        PyErr_WriteUnraisable(key);
}

/* Called on the way of exceptions, too. */
bool block_unpin(Handle *handle, const struct pool_future *job)
{
    PyObject *pending = errors_take();
    PyObject *key = pin_key(job->index, job->generation);
    int outcome = pool_future_outcome(job, NULL);
    bool ended = outcome < 0 || outcome >= POOL_FINISHED;
    if (!key) {
        PyErr_Clear();
    } else if (ended) {
        if (PyDict_DelItem(handle->pins, key) < 0)
            PyErr_WriteUnraisable(key);
    } else if (!handle->workers) {
        release_orphan(handle, job, key, false); /* nobody will sweep */
    } else {
        keep_orphan(handle, key);
    }
    Py_XDECREF(key);
    if (pending)
        errors_restore(pending);
    return ended;
}

void block_sweep(Handle *handle, bool last)
{
    PyObject *orphans = handle->orphans;
    handle->orphans = NULL;
    for (Py_ssize_t i = 0; orphans && i < PyList_GET_SIZE(orphans); i++) {
        PyObject *key = PyList_GET_ITEM(orphans, i);
        uint64_t number = PyLong_AsUnsignedLongLong(key);
        struct pool_future job = {handle->pool, (uint32_t)number, (uint32_t)(number >> 32)};
        int outcome = pool_future_outcome(&job, NULL);
        bool ended = outcome < 0 || outcome >= POOL_FINISHED;
        if (ended || last)
            release_orphan(handle, &job, key, ended);
        else
            keep_orphan(handle, key);
    }
    Py_XDECREF(orphans);
    /* So each is looked at a few times, however many there are. */
    handle->many_orphans = FEW_ORPHANS;
    if (handle->orphans)
        handle->many_orphans += 2 * PyList_GET_SIZE(handle->orphans);
}

/* ---- What Workers offers --------------------------------------------------------------------- */

const char allocate_doc[] =
    PyDoc_STR("_allocate($self, size, /)\n--\n\n"
"A new Block of shared memory of so many bytes, which arrives in jobs uncopied.\n\n"
"Its content is undefined.\n");

PyObject *workers_allocate(PyObject *self, PyObject *size)
{
    Workers *workers = (Workers *)self;
    size_t bytes = PyLong_AsSize_t(size);
    if (bytes == (size_t)-1 && PyErr_Occurred())
        return NULL;
    if (!workers->handle) {
        PyErr_SetString(PyExc_RuntimeError, "the pool has not been started");
        return NULL;
    }
    return (PyObject *)block_alloc(workers, bytes);
}

const char put_doc[] = PyDoc_STR("_put($self, obj, /)\n--\n\n"
"A new Block with the pickled object, for _get().\n");

PyObject *workers_put(PyObject *self, PyObject *object)
{
    Workers *workers = (Workers *)self;
    Buffers buffers;
    Block *block = NULL;
    if (!workers->handle) {
        PyErr_SetString(PyExc_RuntimeError, "the pool has not been started");
        return NULL;
    }
    if (buffers_begin(&buffers, workers->handle) < 0)
        return NULL;
    PyObject *pickled = pickle_dumps(workers->core, object, true, &buffers);
    if (pickled) {
        size_t size = (size_t)PyBytes_GET_SIZE(pickled);
        block = block_alloc(workers, buffers_end(&buffers, 0, size));
        if (block)
            buffers_write(&buffers, block->memory, 0, PyBytes_AS_STRING(pickled), size);
    }
    Py_XDECREF(pickled);
    buffers_clear(&buffers);
    return (PyObject *)block;
}

const char block_get_doc[] = PyDoc_STR("_get(buffer, /)\n--\n\n"
"The object that Workers._put() wrote to the buffer. Its large parts are read-only views.\n");

PyObject *block_get(PyObject *module, PyObject *exporter)
{
    Py_buffer view;
    if (PyObject_GetBuffer(exporter, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Source source = {.exporter = exporter, .memory = view.buf, .read_only = true};
    const uint8_t *begin = view.buf;
    Reader reader = {.core = PyModule_GetState(module), .next = begin, .end = begin + view.len};
    PyObject *object = buffers_loads(&source, &reader);
    PyBuffer_Release(&view);
    return object;
}

/* ---- The type -------------------------------------------------------------------------------- */

static void unregister(const Block *block)
{
    PyObject *pending = errors_take();
    if (PyDict_DelItem(block->handle->blocks, block->key) < 0)
        PyErr_WriteUnraisable(NULL);
    if (pending)
        errors_restore(pending);
}

static void block_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Block *block = (Block *)self;
    struct pool *pool = block->handle->pool;
    /* In a process that inherited the pool these do nothing. */
    if (block->reference) {
        if (block->key)
            unregister(block);
        if (block->left)
            (void)pool; /* a job may need it still */
        else if (block->owned)
            pool_free(pool, block->reference);
        else
            pool_drop(pool, block->reference);
    }
    if (block->owns_job)
        pool_future_release(&block->job);
    Py_XDECREF(block->key);
    Py_DECREF(block->handle);
    type->tp_free(self);
    Py_DECREF(type);
}

static int block_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
    Block *block = (Block *)self;
    return PyBuffer_FillInfo(view, self, block->memory, (Py_ssize_t)block->size, false, flags);
}

static PyType_Slot block_slots[] = {
    {Py_tp_dealloc, SLOT(block_dealloc)},
    {Py_bf_getbuffer, SLOT(block_getbuffer)},
    {0, NULL},
};

PyType_Spec block_spec = {
    .name = "libpool._core.Block",
    .basicsize = sizeof(Block),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = block_slots,
};
