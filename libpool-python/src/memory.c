/* Memory: an object that exports a piece of shared memory as a buffer, and looks after it. What
 * jobs get is an array of NumPy, or a memoryview, on top of one.
 *
 * A block is held by this process as long as there is a Memory in it, so what a job keeps stays as
 * it is when the program frees the block. To hold is a bit for each process, hence the counts, in
 * `held` for the program's blocks and in `kept` for the arguments of jobs. */
#include "interpreter.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum owner { OWNER_BLOCK, OWNER_ARGUMENT, OWNER_COPY };

struct memory {
    PyObject_HEAD
    struct interpreter *interpreter;
    enum owner owner;
    uint64_t reference;
    void *data;
    Py_ssize_t size, item_size;
    const char *format;
    int dimensions, readonly;
    Py_ssize_t shape[POOL_PYTHON_MAX_DIMENSIONS], strides[POOL_PYTHON_MAX_DIMENSIONS];
};

/* ---- Blocks that are held ------------------------------------------------------------------- */

/* How many objects need the block; -1 with an exception. */
static long get_count(PyObject *counts, PyObject *reference)
{
    PyObject *count = PyDict_GetItemWithError(counts, reference); /* borrowed */

    return count ? PyLong_AsLong(count) : PyErr_Occurred() ? -1 : 0;
}

static int set_count(PyObject *counts, PyObject *reference, long count)
{
    if (count == 0)
        return PyDict_DelItem(counts, reference);
    PyObject *number = PyLong_FromLong(count);
    int error = number ? PyDict_SetItem(counts, reference, number) : -1;
    Py_XDECREF(number);
    return error;
}

/* One more object needs the block, which this process holds. Takes the hold over, also on
 * failure. */
static int add_need(struct memory *memory, uint64_t reference)
{
    struct interpreter *interpreter = memory->interpreter;
    PyObject *counts = memory->owner == OWNER_BLOCK ? interpreter->held : interpreter->kept;
    PyObject *key = PyLong_FromUnsignedLongLong(reference);
    long count = key ? get_count(counts, key) : -1;
    int error = count < 0 ? -1 : set_count(counts, key, count + 1);

    memory->reference = error ? 0 : reference;
    if (error && count == 0)
        pool_drop(interpreter->pool, reference);
    Py_XDECREF(key);
    return error;
}

/* On failure, which is one of memory, the block stays until the worker ends. */
static void drop_need(struct memory *memory)
{
    struct interpreter *interpreter = memory->interpreter;
    PyObject *counts = memory->owner == OWNER_BLOCK ? interpreter->held : interpreter->kept;
    PyObject *before = failure_take();
    PyObject *key = PyLong_FromUnsignedLongLong(memory->reference);
    long count = key ? get_count(counts, key) : -1;

    if (count > 0 && set_count(counts, key, count - 1) == 0 && count == 1)
        pool_drop(interpreter->pool, memory->reference);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(key);
    Py_XDECREF(key);
    failure_put_back(before);
}

uint64_t memory_find(struct interpreter *interpreter, const void *data, size_t *offset)
{
    if (PyDict_GET_SIZE(interpreter->held) == 0)
        return 0;
    uint64_t reference = pool_find(interpreter->pool, data, offset);
    PyObject *key = reference ? PyLong_FromUnsignedLongLong(reference) : NULL;
    int held = key ? PyDict_Contains(interpreter->held, key) : 0;
    Py_XDECREF(key);
    PyErr_Clear(); /* then it is copied */
    return held > 0 ? reference : 0;
}

/* ---- The type ------------------------------------------------------------------------------- */

static void memory_dealloc(PyObject *self)
{
    struct memory *memory = (struct memory *)self;
    PyTypeObject *type = Py_TYPE(self);

    if (memory->owner == OWNER_COPY)
        free(memory->data);
    else if (memory->reference)
        drop_need(memory);
    type->tp_free(self);
    Py_DECREF(type);
}

static int memory_get_buffer(PyObject *self, Py_buffer *buffer, int flags)
{
    struct memory *memory = (struct memory *)self;

    if ((flags & PyBUF_WRITABLE) && memory->readonly) {
        PyErr_SetString(PyExc_BufferError, "this array is read-only");
        buffer->obj = NULL;
        return -1;
    }
    *buffer = (Py_buffer){.buf = memory->data,
                          .obj = Py_NewRef(self),
                          .len = memory->size,
                          .itemsize = memory->item_size,
                          .readonly = memory->readonly,
                          .ndim = 1};
    if (flags & PyBUF_FORMAT)
        buffer->format = (char *)(uintptr_t)memory->format;
    if (flags & PyBUF_ND) {
        buffer->ndim = memory->dimensions;
        buffer->shape = memory->shape;
    }
    if ((flags & PyBUF_STRIDES) == PyBUF_STRIDES)
        buffer->strides = memory->strides;
    return 0;
}

/* ISO C has no conversion from a function to void *, which POSIX and CPython rely on. */
#define SLOT(function) ((void *)(uintptr_t)(function))

static PyType_Slot memory_slots[] = {
    {Py_tp_dealloc, SLOT(memory_dealloc)},
    {Py_bf_getbuffer, SLOT(memory_get_buffer)},
    {0, NULL},
};

static PyType_Spec memory_spec = {
    .name = "libpool_python.Memory",
    .basicsize = sizeof(struct memory),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = memory_slots,
};

int memory_init(struct interpreter *interpreter)
{
    interpreter->memory_type = (PyTypeObject *)PyType_FromSpec(&memory_spec);
    interpreter->held = PyDict_New();
    interpreter->kept = PyDict_New();
    return interpreter->memory_type && interpreter->held && interpreter->kept ? 0 : -1;
}

/* ---- Arrays --------------------------------------------------------------------------------- */

/* As struct names them. On machines whose long has 64 bits NumPy's int64 is a long. */
static const char *format_of(enum pool_python_type type)
{
    static const char *const formats[] = {NULL, "?",
                                          "b",  "h",
                                          "i",  sizeof(long) == 8 ? "l" : "q",
                                          "B",  "H",
                                          "I",  sizeof(long) == 8 ? "L" : "Q",
                                          "e",  "f",
                                          "d",  "Zf",
                                          "Zd"};
    return formats[type];
}

static PyObject *memory_new(struct interpreter *interpreter, const struct pool_python_array *array,
                            size_t size)
{
    PyTypeObject *type = interpreter->memory_type;
    struct memory *memory = (struct memory *)type->tp_alloc(type, 0);
    size_t stride = pool_python_type_size(array->type);

    if (!memory)
        return NULL;
    memory->interpreter = interpreter;
    memory->owner = OWNER_COPY;
    memory->size = (Py_ssize_t)size;
    memory->item_size = (Py_ssize_t)stride;
    memory->format = format_of(array->type);
    memory->dimensions = array->dimensions;
    memory->readonly = array->readonly;
    for (int i = array->dimensions; i-- > 0; stride *= array->shape[i] ? array->shape[i] : 1) {
        memory->shape[i] = (Py_ssize_t)array->shape[i];
        memory->strides[i] = (Py_ssize_t)stride;
    }
    return (PyObject *)memory;
}

/* Looks for NumPy once. What it says while it is imported, beside that it is not there, is an
 * error of the job. */
static int find_numpy(struct interpreter *interpreter)
{
    PyObject *numpy = interpreter->config.without_numpy ? NULL : PyImport_ImportModule("numpy");

    if (numpy) {
        interpreter->asarray = PyObject_GetAttrString(numpy, "asarray");
        Py_DECREF(numpy);
        return interpreter->asarray ? 0 : -1;
    }
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_ModuleNotFoundError))
        return -1;
    PyErr_Clear();
    interpreter->asarray = Py_NewRef(Py_None);
    return 0;
}

/* Takes over `memory`, which may be NULL. */
static PyObject *as_array(struct interpreter *interpreter, PyObject *memory)
{
    PyObject *array = NULL;

    if (memory && (interpreter->asarray || find_numpy(interpreter) == 0))
        array = interpreter->asarray == Py_None ? PyMemoryView_FromObject(memory)
                                                : PyObject_CallOneArg(interpreter->asarray, memory);
    Py_XDECREF(memory);
    return array;
}

PyObject *memory_from_block(struct interpreter *interpreter, const struct pool_python_array *array,
                            size_t size)
{
    void *block;
    size_t room;
    struct memory *memory = (struct memory *)memory_new(interpreter, array, size);

    if (!memory)
        return NULL;
    memory->owner = OWNER_BLOCK;
    if (pool_hold(interpreter->pool, array->reference) < 0) {
        PyErr_SetString(PyExc_ValueError, "an array lies in shared memory that is no longer there");
        Py_DECREF(memory);
        return NULL;
    }
    if (add_need(memory, array->reference) < 0) {
        Py_DECREF(memory);
        return NULL;
    }
    if (pool_lookup(interpreter->pool, array->reference, &block, &room) < 0 ||
        array->offset > room || size > room - array->offset) {
        PyErr_SetString(PyExc_ValueError, "an array does not lie within its shared memory");
        Py_DECREF(memory);
        return NULL;
    }
    memory->data = (unsigned char *)block + array->offset;
    return as_array(interpreter, (PyObject *)memory);
}

PyObject *memory_from_argument(struct interpreter *interpreter, struct pool_job *job,
                               const struct pool_python_array *array, size_t size)
{
    struct memory *memory = (struct memory *)memory_new(interpreter, array, size);
    uint64_t reference;

    if (!memory)
        return NULL;
    memory->readonly = 1; /* a retry of the job needs it as it is */
    if (pool_job_keep(job, &reference) == 0) {
        memory->owner = OWNER_ARGUMENT;
        memory->data = array->data;
        if (add_need(memory, reference) < 0) {
            Py_DECREF(memory);
            return NULL;
        }
    } else { /* a small one, which lies in the job's slot */
        memory->data = malloc(size ? size : 1);
        if (!memory->data) {
            Py_DECREF(memory);
            return PyErr_NoMemory();
        }
        memcpy(memory->data, array->data, size);
    }
    return as_array(interpreter, (PyObject *)memory);
}
