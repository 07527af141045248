/* Large buffers of what is pickled, an array's content for example, which travel beside the pickle
 * (protocol 5, PEP 574): one copy into shared memory, and none out of it. What arrives refers to a
 * Block, which looks after the memory that it lies in.
 *
 * A payload with buffers is: how many (4 bytes), the length of the pickle (8), the length of each
 * buffer (8, the highest bit: read-only), the pickle, and then the buffers, aligned. */
#include "core.h"

/* A shorter one is copied along with the pickle, which is cheaper than what it takes to refer to
 * it. */
#define MIN_BUFFER 16384
/* What vector instructions like. Relative to the begin of the job's memory, which has it too. */
#define ALIGNMENT 64
#define READ_ONLY (UINT64_C(1) << 63)
#define HEADER 12

static size_t aligned(size_t offset)
{
    return (offset + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* ---- Collecting them ------------------------------------------------------------------------- */

/* The buffer_callback of pickle: true for what is to be in the pickle. `self` is the list. */
static PyObject *collect(PyObject *self, PyObject *buffer)
{
    const Py_buffer *view = PyPickleBuffer_GetBuffer(buffer);
    if (!view)
        return NULL;
    if (view->len < MIN_BUFFER || !PyBuffer_IsContiguous(view, 'A'))
        Py_RETURN_TRUE;
    if (PyList_Append(self, buffer) < 0)
        return NULL;
    Py_RETURN_FALSE;
}

static PyMethodDef collect_method = {"collect", collect, METH_O, NULL};

PyObject *buffers_collector(PyObject **list)
{
    *list = PyList_New(0);
    PyObject *callback = *list ? PyCFunction_New(&collect_method, *list) : NULL;
    if (!callback)
        Py_CLEAR(*list);
    return callback;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static const Py_buffer *nth(PyObject *buffers, Py_ssize_t i)
{
    return PyPickleBuffer_GetBuffer(PyList_GET_ITEM(buffers, i));
}

size_t buffers_end(PyObject *buffers, size_t offset, size_t pickle_size)
{
    size_t end = offset + HEADER + 8 * (size_t)PyList_GET_SIZE(buffers) + pickle_size;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(buffers); i++)
        end = aligned(end) + (size_t)nth(buffers, i)->len;
    return end;
}

void buffers_write(PyObject *buffers, uint8_t *memory, size_t offset, const void *pickle,
                   size_t pickle_size)
{
    uint32_t count = (uint32_t)PyList_GET_SIZE(buffers);
    uint64_t length = pickle_size;
    uint8_t *out = memory + offset;
    memcpy(out, &count, 4);
    memcpy(out + 4, &length, 8);
    out += HEADER;
    for (uint32_t i = 0; i < count; i++, out += 8) {
        const Py_buffer *view = nth(buffers, i);
        length = (uint64_t)view->len | (view->readonly ? READ_ONLY : 0);
        memcpy(out, &length, 8);
    }
    codec_copy(out, pickle, pickle_size, true);
    size_t at = (size_t)(out - memory) + pickle_size;
    for (uint32_t i = 0; i < count; i++) {
        const Py_buffer *view = nth(buffers, i);
        at = aligned(at);
        codec_copy(memory + at, view->buf, (size_t)view->len, true);
        at += (size_t)view->len;
    }
}

/* ---- Reading --------------------------------------------------------------------------------- */

static PyObject *damaged(void)
{
    PyErr_SetString(PyExc_ValueError, "the buffers of this job in shared memory are damaged");
    return NULL;
}

/* A part of the block's memory as a memoryview, or, if it may be needed as it is once more, a copy
 * of it. */
static PyObject *part(Block *block, const uint8_t *data, size_t size, bool read_only, bool copy)
{
    if (copy) {
        PyObject *bytes = read_only ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size)
                                    : PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (bytes)
            codec_copy(read_only ? PyBytes_AS_STRING(bytes) : PyByteArray_AS_STRING(bytes), data,
                       size, true);
        return bytes;
    }
    PyObject *whole = PyMemoryView_FromObject((PyObject *)block);
    Py_ssize_t begin = data - block->memory;
    PyObject *memory = whole ? PySequence_GetSlice(whole, begin, begin + (Py_ssize_t)size) : NULL;
    Py_XDECREF(whole);
    if (memory && read_only)
        Py_SETREF(memory, PyObject_CallMethod(memory, "toreadonly", NULL));
    return memory;
}

/* Reads the header: the number of buffers, or -1 with an exception. */
static int64_t read_header(Reader *reader, size_t *pickle_size)
{
    uint32_t count;
    const uint8_t *data = codec_take(reader, 4);
    if (!data)
        return -1;
    memcpy(&count, data, 4);
    if (codec_read_size(reader, pickle_size) < 0)
        return -1;
    if (count > (size_t)(reader->end - reader->next) / 8) {
        damaged();
        return -1;
    }
    return count;
}

PyObject *buffers_loads(Reader *reader, Block *block, bool copy)
{
    size_t pickle_size;
    int64_t count = read_header(reader, &pickle_size);
    if (count < 0)
        return NULL;
    const uint8_t *lengths = codec_take(reader, 8 * (size_t)count);
    const uint8_t *pickle = lengths ? codec_take(reader, pickle_size) : NULL;
    PyObject *parts = pickle ? PyTuple_New((Py_ssize_t)count) : NULL;
    for (int64_t i = 0; parts && i < count; i++) {
        uint64_t length;
        memcpy(&length, lengths + 8 * i, 8);
        size_t offset = (size_t)(reader->next - block->memory);
        const uint8_t *data = codec_take(reader, aligned(offset) - offset)
                                  ? codec_take(reader, length & ~READ_ONLY)
                                  : NULL;
        PyObject *one =
            data ? part(block, data, length & ~READ_ONLY, length & READ_ONLY, copy) : NULL;
        if (one)
            PyTuple_SET_ITEM(parts, i, one);
        else
            Py_CLEAR(parts);
    }
    PyObject *object = parts ? pickle_loads(reader->core, pickle, pickle_size, parts) : NULL;
    Py_XDECREF(parts);
    return object;
}

/* ---- Block ----------------------------------------------------------------------------------- */

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

static void block_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Block *block = (Block *)self;
    /* In a process that inherited the pool these do nothing. */
    if (block->reference)
        pool_drop(block->handle->pool, block->reference);
    if (block->owns_job)
        pool_future_release(&block->job);
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
    .name = "libpool._core._Block",
    .basicsize = sizeof(Block),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = block_slots,
};
