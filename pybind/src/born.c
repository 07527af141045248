/* NumPy arrays that are born in shared memory, and returned without a copy (NEP 49).
 *
 * A worker that has returned a large array by a copy expects to return one of that size again. From
 * then on memory for arrays of just that size comes from the pool's, if there is some that has been
 * used before and is free: a first touch takes longer than a copy. Where there is none the array is
 * copied once more, and then memory is committed for one more such array, as long as the pool has
 * plenty: results that the host keeps need it anyway, and of temporaries there are only so many at
 * a time. When the result of a job has such an array, and nobody else has it when the result has
 * been dropped, its block is given.
 *
 * NumPy's own allocator does the rest, and all of it in other threads than the one on which jobs
 * run: the allocator belongs to a context. Everything here needs the GIL, which NumPy has when it
 * calls. */
#include "core.h"

#include <pthread.h>
#include <sys/mman.h>

/* Of smaller ones the copy costs less than all this. */
#define MIN_BORN (256 * 1024)
#define MAX_BORN 8
/* Memory is committed while no more of the pool's limit is in use than one part in so many. */
#define PLENTY 4
#define MAX_EXPECTED 8
/* How many arrays of a size may end here, and none be returned, before none is expected. */
#define PATIENCE 32

/* What there is of NumPy's C interface here, as its headers have it since 1.22; so nothing of NumPy
 * is needed to build this, and which version there is shows at run time. */
typedef struct Allocator {
    void *context;
    void *(*malloc)(void *context, size_t size);
    void *(*calloc)(void *context, size_t count, size_t size);
    void *(*realloc)(void *context, void *memory, size_t size);
    void (*free)(void *context, void *memory, size_t size);
} Allocator;

typedef struct MemoryHandler {
    char name[127];
    uint8_t version;
    Allocator allocator;
} MemoryHandler;

enum {
    API_ARRAY_TYPE = 2,
    API_FEATURE_VERSION = 211,
    API_SET_HANDLER = 304,
    API_GET_HANDLER = 305,
    API_DEFAULT_HANDLER = 306
};
#define FEATURE_VERSION 0xf

/* An array that is in a block of this worker's own. */
typedef struct Born {
    uint8_t *memory; /* NULL: this entry is none */
    size_t size;
    bool committed;        /* for it */
    uint64_t reference;    /* 0: a Block has the block, or this process is a fork of the worker */
    const Buffers *sender; /* sends its content: what frees it leaves it to born_end(), */
    bool freed;            /* and has done so */
    void *copy;            /* while this process forks: what the child is to see */
} Born;

/* A size of which arrays are expected to be returned. */
typedef struct Expected {
    size_t size;
    int patience; /* 0: this entry is none */
    bool missed;  /* there was no memory for one since the last was copied */
    bool commit;  /* memory may be committed for one */
} Expected;

typedef struct Nursery {
    struct pool *pool; /* NULL in a fork of the worker */
    void **api;
    PyObject *(*get_handler)(void);
    PyObject *(*set_handler)(PyObject *handler);
    Allocator plain; /* NumPy's own */
    MemoryHandler handler;
    PyObject *capsule; /* with `handler`, as NumPy wants it */
    Born born[MAX_BORN];
    Expected expected[MAX_EXPECTED];
    unsigned next_expected;
} Nursery;

/* Of this process, a worker, until its end: arrays may be freed by whatever is last. NULL: it has
 * not come to that. */
static Nursery *nursery;

/* ---- What NumPy calls ------------------------------------------------------------------------ */

static Born *born_at(const void *address)
{
    const uint8_t *at = address;
    for (int i = 0; nursery && i < MAX_BORN; i++) {
        Born *one = &nursery->born[i];
        if (one->memory && at >= one->memory && at < one->memory + one->size)
            return one;
    }
    return NULL;
}

static Expected *expected_of(size_t size)
{
    for (int i = 0; i < MAX_EXPECTED; i++)
        if (nursery->expected[i].size == size && nursery->expected[i].patience > 0)
            return &nursery->expected[i];
    return NULL;
}

static void let_go(Born *one)
{
    if (one->reference)
        pool_drop(nursery->pool, one->reference);
    *one = (Born){0};
}

static bool has_plenty(size_t size)
{
    struct pool_stats stats = {.size = sizeof stats};
    return pool_get_stats(nursery->pool, &stats) == 0 && size < stats.shared_limit / PLENTY &&
           stats.memory <= stats.shared_limit / PLENTY - size;
}

static bool bear_in(Born *one, Expected *expected, size_t size)
{
    void *memory;
    int error = pool_take_own(nursery->pool, size, &one->reference, &memory);
    one->committed = error < 0 && expected->commit;
    expected->missed |= error < 0 && !expected->commit;
    if (one->committed) {
        expected->commit = false;
        if (has_plenty(size))
            error = pool_alloc_own(nursery->pool, size, &one->reference, &memory);
    }
    if (error < 0)
        return false;
    one->memory = memory;
    one->size = size;
    return true;
}

static void *bear(size_t size)
{
    Expected *expected = size >= MIN_BORN && nursery->pool ? expected_of(size) : NULL;
    for (int i = 0; expected && i < MAX_BORN; i++)
        if (!nursery->born[i].memory)
            return bear_in(&nursery->born[i], expected, size) ? nursery->born[i].memory : NULL;
    return NULL;
}

static void *born_malloc(void *Py_UNUSED(context), size_t size)
{
    void *memory = bear(size);
    return memory ? memory : nursery->plain.malloc(nursery->plain.context, size);
}

static void *born_calloc(void *Py_UNUSED(context), size_t count, size_t size)
{
    size_t all;
    void *memory = __builtin_mul_overflow(count, size, &all) ? NULL : bear(all);
    return memory ? memset(memory, 0, all)
                  : nursery->plain.calloc(nursery->plain.context, count, size);
}

static void born_free(void *Py_UNUSED(context), void *memory, size_t size)
{
    Born *one = born_at(memory);
    Expected *expected = one ? expected_of(one->size) : NULL;
    if (!one) {
        nursery->plain.free(nursery->plain.context, memory, size);
    } else if (one->sender) {
        one->freed = true;
    } else {
        if (expected)
            expected->patience--;
        let_go(one);
    }
}

static void *born_realloc(void *context, void *memory, size_t size)
{
    const Born *one = born_at(memory);
    if (!one)
        return nursery->plain.realloc(nursery->plain.context, memory, size);
    void *other = nursery->plain.malloc(nursery->plain.context, size);
    if (other) {
        memcpy(other, memory, size < one->size ? size : one->size);
        born_free(context, memory, one->size);
    }
    return other;
}

/* ---- Forks by a job -------------------------------------------------------------------------- */

/* A child has a copy of its parent's memory, and shares none of it. So what is shared, and is an
 * array to both, is copied before the fork, and takes the array's place in the child. Where there
 * is no memory for that, they have the array in common. */

static void copy_born(void)
{
    for (int i = 0; nursery && i < MAX_BORN; i++) {
        Born *one = &nursery->born[i];
        if (!one->memory)
            continue;
        one->copy =
            mmap(NULL, one->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (one->copy == MAP_FAILED)
            one->copy = NULL;
        else
            memcpy(one->copy, one->memory, one->size);
    }
}

static void forget_copies(void)
{
    for (int i = 0; nursery && i < MAX_BORN; i++) {
        Born *one = &nursery->born[i];
        if (one->copy)
            munmap(one->copy, one->size);
        one->copy = NULL;
    }
}

static void use_copies(void)
{
    for (int i = 0; nursery && i < MAX_BORN; i++) {
        Born *one = &nursery->born[i];
        if (one->copy)
            mremap(one->copy, one->size, one->size, MREMAP_MAYMOVE | MREMAP_FIXED, one->memory);
        one->copy = NULL;
        one->reference = 0;
    }
    if (nursery)
        nursery->pool = NULL;
}

/* ---- Installing ------------------------------------------------------------------------------ */

/* NumPy's table of functions. NULL, without an exception, where there is none of a version that has
 * these. */
static void **numpy_api(void)
{
    static const char *const modules[] = {"numpy._core._multiarray_umath",
                                          "numpy.core._multiarray_umath"};
    PyObject *loaded = PyImport_GetModuleDict(); /* borrowed */
    void **api = NULL;
    for (int i = 0; i < 2 && !api; i++) {
        PyObject *module = PyMapping_GetItemString(loaded, modules[i]);
        PyObject *capsule = module ? PyObject_GetAttrString(module, "_ARRAY_API") : NULL;
        if (capsule && PyCapsule_CheckExact(capsule))
            api = PyCapsule_GetPointer(capsule, NULL);
        Py_XDECREF(capsule);
        Py_XDECREF(module);
        PyErr_Clear();
    }
    unsigned (*feature_version)(void) = NULL;
    if (api)
        /* ISO C converts no pointer to an object to one to a function; POSIX has them alike. */
        memcpy(&feature_version, &api[API_FEATURE_VERSION], sizeof feature_version);
    return feature_version && feature_version() >= FEATURE_VERSION ? api : NULL;
}

static Nursery *make(void)
{
    void **api = numpy_api();
    Nursery *made = api ? PyMem_RawCalloc(1, sizeof *made) : NULL;
    if (!made)
        return NULL;
    made->api = api;
    memcpy(&made->get_handler, &api[API_GET_HANDLER], sizeof made->get_handler);
    memcpy(&made->set_handler, &api[API_SET_HANDLER], sizeof made->set_handler);
    made->handler = (MemoryHandler){
        .name = "libpool",
        .version = 1,
        .allocator = {made, born_malloc, born_calloc, born_realloc, born_free},
    };
    made->capsule = PyCapsule_New(&made->handler, "mem_handler", NULL);
    if (!made->capsule || pthread_atfork(copy_born, forget_copies, use_copies) != 0) {
        Py_XDECREF(made->capsule);
        PyErr_Clear();
        PyMem_RawFree(made);
        return NULL;
    }
    return made;
}

/* Has this context's arrays come to us, unless somebody has chosen another allocator. */
static void install(struct pool *pool)
{
    PyObject *now = nursery->get_handler();
    const MemoryHandler *standard = now && now == *(PyObject **)nursery->api[API_DEFAULT_HANDLER]
                                        ? PyCapsule_GetPointer(now, "mem_handler")
                                        : NULL;
    if (standard && standard->version == 1) {
        nursery->plain = standard->allocator;
        Py_XSETREF(now, nursery->set_handler(nursery->capsule));
    }
    if (now)
        nursery->pool = pool;
    Py_XDECREF(now);
    PyErr_Clear();
}

/* ---- Sending --------------------------------------------------------------------------------- */

/* How much memory the array allocated that the buffer is part of; 0: it is of none. */
static size_t allocated(PyObject *object)
{
    size_t size = 0;
    Py_XINCREF(object);
    while (object && PyObject_TypeCheck(object, (PyTypeObject *)nursery->api[API_ARRAY_TYPE])) {
        PyObject *base = PyObject_GetAttrString(object, "base");
        if (base == Py_None) {
            PyObject *bytes = PyObject_GetAttrString(object, "nbytes");
            size = bytes ? PyLong_AsSize_t(bytes) : 0;
            Py_XDECREF(bytes);
        }
        Py_SETREF(object, base);
    }
    Py_XDECREF(object);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        size = 0;
    }
    return size;
}

/* One of these is being sent: the next one shall not be copied. */
static void expect(size_t size, bool commit)
{
    Expected *expected = expected_of(size);
    if (!expected) {
        expected = &nursery->expected[nursery->next_expected++ % MAX_EXPECTED];
        *expected = (Expected){.size = size};
    }
    expected->patience = PATIENCE;
    expected->commit |= commit || expected->missed;
    expected->missed = false;
}

static void learn(Handle *handle, const Buffers *buffers)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(buffers->list); i++) {
        const Py_buffer *view = PyMemoryView_GET_BUFFER(PyList_GET_ITEM(buffers->list, i));
        if (view->len < MIN_BORN || buffers_block(buffers, i) || born_at(view->buf))
            continue;
        if (!nursery)
            nursery = make();
        size_t size = nursery ? allocated(view->obj) : 0;
        if (size < MIN_BORN)
            continue;
        install(handle->pool);
        expect(size, false);
    }
}

/* Has the list refer to the arrays' memory, and no more to the arrays. How many, or -1. */
static int loosen(Buffers *buffers)
{
    int count = 0;
    for (Py_ssize_t i = 0; nursery && i < PyList_GET_SIZE(buffers->list); i++) {
        const Py_buffer *view = PyMemoryView_GET_BUFFER(PyList_GET_ITEM(buffers->list, i));
        Born *one = born_at(view->buf);
        if (!one || !one->reference || (one->sender && one->sender != buffers))
            continue;
        PyObject *loose = PyMemoryView_FromMemory(view->buf, view->len,
                                                  view->readonly ? PyBUF_READ : PyBUF_WRITE);
        one->sender = buffers; /* before the array may go */
        count++;
        if (!loose || PyList_SetItem(buffers->list, i, loose) < 0)
            return -1;
    }
    return count;
}

/* A Block for one that nobody has any more, which is given by it. */
static int give(Handle *handle, Buffers *buffers, Py_ssize_t i, Born *one)
{
    Block *block = NULL;
    for (Py_ssize_t k = 0; k < i && !block; k++) {
        Block *other = buffers_block(buffers, k);
        block = other && other->memory == one->memory ? other : NULL;
    }
    if (block)
        return buffers_set_block(buffers, i, block);
    if (buffers->given == POOL_JOB_BLOCKS)
        return 0;
    block = block_new(handle, one->memory, one->size);
    if (!block)
        return -1;
    block->own = block->private = true;
    block->reference = one->reference;
    int error = buffers_set_block(buffers, i, block);
    if (error == 0) {
        buffers->gifts[buffers->given++] = one->reference;
        expect(one->size, one->committed); /* what has paid may be done again */
        one->reference = 0;                /* the Block's */
    } else {
        block->reference = 0;
    }
    Py_DECREF((PyObject *)block);
    return error;
}

int born_begin(Handle *handle, Buffers *buffers, PyObject **result)
{
    /* The pool's memory would not count towards the worker's limit. */
    if (handle->memory_limit)
        return 0;
    learn(handle, buffers);
    int count = result ? loosen(buffers) : 0;
    if (count <= 0)
        return count;
    Py_CLEAR(*result);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(buffers->list); i++) {
        Born *one = born_at(PyMemoryView_GET_BUFFER(PyList_GET_ITEM(buffers->list, i))->buf);
        if (one && one->sender == buffers && one->freed && give(handle, buffers, i, one) < 0)
            return -1;
    }
    return 0;
}

void born_end(const Buffers *buffers)
{
    for (int i = 0; nursery && i < MAX_BORN; i++) {
        Born *one = &nursery->born[i];
        if (one->sender != buffers)
            continue;
        one->sender = NULL;
        if (one->freed)
            let_go(one);
    }
}
