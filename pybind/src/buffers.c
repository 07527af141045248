/* Large buffers of what is pickled, an array's content for example, which travel beside the pickle
 * (protocol 5, PEP 574): one copy into shared memory, and none out of it. What lies in a shared
 * block already is not copied at all. What arrives refers to a Block, which looks after the memory
 * that it lies in.
 *
 * A payload with buffers is: how many (4 bytes), the length of the pickle (8), for each buffer its
 * length (8, the highest bits: read-only, private), the reference of the block that it lies in and
 * how far from the block's begin (8 and 8; 0: it is here), then the pickle, and the buffers. */
#include "core.h"

/* What vector instructions like. Relative to the payload's memory, which has it too. */
#define ALIGNMENT 64
#define READ_ONLY (UINT64_C(1) << 63)
#define PRIVATE (UINT64_C(1) << 62)
#define LENGTH (PRIVATE - 1)
#define HEADER 12
#define ENTRY 24

static size_t aligned(size_t offset)
{
    return (offset + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* ---- Collecting them ------------------------------------------------------------------------- */

int buffers_begin(Buffers *buffers, Handle *handle)
{
    Core *core = handle->core;
    buffers->list = PyList_New(0);
    buffers->blocks = buffers->kept = NULL;
    buffers->given = 0;
    Collector *collector = (Collector *)core->collector_type->tp_alloc(core->collector_type, 0);
    buffers->collector = (PyObject *)collector;
    if (!buffers->list || !collector) {
        buffers_clear(buffers);
        return -1;
    }
    collector->handle = (Handle *)Py_NewRef((PyObject *)handle);
    collector->list = Py_NewRef(buffers->list);
    return 0;
}

void buffers_clear(Buffers *buffers)
{
    Py_CLEAR(buffers->list);
    Py_CLEAR(buffers->collector);
    Py_CLEAR(buffers->blocks);
    Py_CLEAR(buffers->kept);
}

/* The buffer_callback of pickle: true for what is to be in the pickle. */
static PyObject *collector_call(PyObject *self, PyObject *args, PyObject *keywords)
{
    Collector *collector = (Collector *)self;
    PyObject *buffer;
    size_t offset;
    if (keywords || !PyArg_ParseTuple(args, "O", &buffer))
        return keywords ? PyErr_Format(PyExc_TypeError, "one argument is expected") : NULL;
    /* One of our own, since anybody may release the PickleBuffer before we read it. */
    PyObject *memory = PyMemoryView_FromObject(buffer);
    if (!memory)
        return NULL;
    const Py_buffer *view = PyMemoryView_GET_BUFFER(memory);
    bool beside = PyBuffer_IsContiguous(view, 'A') &&
                  (view->len >= MIN_BUFFER || block_at(collector->handle, view->buf, &offset));
    int error = beside ? PyList_Append(collector->list, memory) : 0;
    Py_DECREF(memory);
    return error < 0 ? NULL : PyBool_FromLong(!beside);
}

/* Forgets what was collected: pickling begins anew. */
static PyObject *collector_clear(PyObject *self, PyObject *Py_UNUSED(unused))
{
    PyObject *list = ((Collector *)self)->list;
    if (PyList_SetSlice(list, 0, PyList_GET_SIZE(list), NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static void collector_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Collector *)self)->handle);
    Py_XDECREF(((Collector *)self)->list);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef collector_methods[] = {
    {"clear", collector_clear, METH_NOARGS, "Forget what was collected."},
    {NULL},
};

static PyType_Slot collector_slots[] = {
    {Py_tp_dealloc, SLOT(collector_dealloc)},
    {Py_tp_call, SLOT(collector_call)},
    {Py_tp_methods, collector_methods},
    {0, NULL},
};

PyType_Spec collector_spec = {
    .name = "libpool._core._Collector",
    .basicsize = sizeof(Collector),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = collector_slots,
};

/* ---- Writing --------------------------------------------------------------------------------- */

static const Py_buffer *nth(const Buffers *buffers, Py_ssize_t i)
{
    return PyMemoryView_GET_BUFFER(PyList_GET_ITEM(buffers->list, i));
}

Block *buffers_block(const Buffers *buffers, Py_ssize_t i)
{
    PyObject *block = buffers->blocks ? PyTuple_GET_ITEM(buffers->blocks, i) : Py_None;
    return block == Py_None ? NULL : (Block *)block;
}

/* A tuple of None. */
static PyObject *no_blocks(Py_ssize_t count)
{
    PyObject *blocks = PyTuple_New(count);
    for (Py_ssize_t i = 0; blocks && i < count; i++)
        PyTuple_SET_ITEM(blocks, i, Py_NewRef(Py_None));
    return blocks;
}

int buffers_set_block(Buffers *buffers, Py_ssize_t i, Block *block)
{
    if (!buffers->blocks)
        buffers->blocks = no_blocks(PyList_GET_SIZE(buffers->list));
    if (!buffers->blocks)
        return -1;
    Py_DECREF(Py_None); /* which is what is there */
    PyTuple_SET_ITEM(buffers->blocks, i, Py_NewRef((PyObject *)block));
    return 0;
}

/* Whether the block goes by reference: 1 or 0, or -1 with an exception. */
static int goes(Buffers *buffers, const Block *block, PyObject *known)
{
    if (!known)
        return !block->own && !block->private;
    int found = PySequence_Contains(known, (PyObject *)(uintptr_t)block);
    if (found || !block->own)
        return found;
    for (size_t i = 0; i < buffers->given; i++)
        if (buffers->gifts[i] == block->reference)
            return 1;
    if (buffers->given == POOL_JOB_BLOCKS)
        return 0;
    buffers->gifts[buffers->given++] = block->reference;
    return 1;
}

int buffers_finish(Buffers *buffers, Handle *handle, PyObject *known)
{
    Py_ssize_t count = PyList_GET_SIZE(buffers->list);
    size_t offset;
    Py_CLEAR(buffers->collector);
    for (Py_ssize_t i = 0; i < count; i++) {
        Block *block = block_at(handle, nth(buffers, i)->buf, &offset);
        int by_reference = block ? goes(buffers, block, known) : 0;
        if (by_reference < 0)
            return -1;
        if (by_reference && buffers_set_block(buffers, i, block) < 0)
            return -1;
    }
    return 0;
}

int buffers_keep(Buffers *buffers)
{
    Py_ssize_t count = PyList_GET_SIZE(buffers->list);
    /* Which look after the memory that is copied. */
    Py_XSETREF(buffers->kept, buffers->blocks);
    buffers->blocks = NULL;
    buffers->given = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *block = PyTuple_GET_ITEM(buffers->kept, i);
        if (block != Py_None && !((Block *)block)->own &&
            buffers_set_block(buffers, i, (Block *)block) < 0)
            return -1;
    }
    return 0;
}

size_t buffers_end(const Buffers *buffers, size_t offset, size_t pickle_size)
{
    Py_ssize_t count = PyList_GET_SIZE(buffers->list);
    size_t end = offset + HEADER + ENTRY * (size_t)count + pickle_size;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!buffers_block(buffers, i))
            end = aligned(end) + (size_t)nth(buffers, i)->len;
    return end;
}

static void write_entry(const Buffers *buffers, Py_ssize_t i, uint8_t *out)
{
    const Py_buffer *view = nth(buffers, i);
    const Block *block = buffers_block(buffers, i);
    uint64_t entry[3] = {(uint64_t)view->len | (view->readonly ? READ_ONLY : 0)};
    if (block) {
        entry[0] |= block->private ? PRIVATE : 0;
        entry[1] = block->reference;
        entry[2] = (uint64_t)((const uint8_t *)view->buf - block->memory);
    }
    memcpy(out, entry, ENTRY);
}

void buffers_write(const Buffers *buffers, uint8_t *memory, size_t offset, const void *pickle,
                   size_t pickle_size)
{
    uint32_t count = (uint32_t)PyList_GET_SIZE(buffers->list);
    uint64_t length = pickle_size;
    uint8_t *out = memory + offset;
    memcpy(out, &count, 4);
    memcpy(out + 4, &length, 8);
    out += HEADER;
    for (uint32_t i = 0; i < count; i++, out += ENTRY)
        write_entry(buffers, i, out);
    codec_copy(out, pickle, pickle_size, true);
    size_t at = (size_t)(out - memory) + pickle_size;
    for (uint32_t i = 0; i < count; i++) {
        const Py_buffer *view = nth(buffers, i);
        if (buffers_block(buffers, i))
            continue;
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

static PyObject *copied(const uint8_t *data, size_t size, bool read_only)
{
    PyObject *bytes = read_only ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size)
                                : PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes)
        codec_fill(read_only ? PyBytes_AS_STRING(bytes) : PyByteArray_AS_STRING(bytes), data, size);
    return bytes;
}

/* A part of what `exporter` exports, as a memoryview. */
static PyObject *viewed(PyObject *exporter, size_t begin, size_t size, bool read_only)
{
    PyObject *whole = PyMemoryView_FromObject(exporter);
    PyObject *memory =
        whole ? PySequence_GetSlice(whole, (Py_ssize_t)begin, (Py_ssize_t)(begin + size)) : NULL;
    Py_XDECREF(whole);
    if (memory && read_only)
        Py_SETREF(memory, PyObject_CallMethod(memory, "toreadonly", NULL));
    return memory;
}

/* One that lies in another block. */
static PyObject *referred(const Source *source, const uint64_t entry[3], size_t size,
                          bool read_only)
{
    size_t begin = entry[2];
    Block *block = block_open(source->handle, entry[1], source->job);
    if (!block)
        return NULL;
    PyObject *memory = NULL;
    /* A worker's nested job may outlive it, and then nobody else had what the worker passed on. */
    block->private |= source->job && ((entry[0] & PRIVATE) || source->handle->in_worker);
    if (begin > block->size || size > block->size - begin)
        damaged();
    else if (!source->opened || PyList_Append(source->opened, (PyObject *)block) == 0)
        memory = viewed((PyObject *)block, begin, size, read_only);
    Py_DECREF(block);
    return memory;
}

static PyObject *read_buffer(const Source *source, Reader *reader, const uint8_t *at)
{
    uint64_t entry[3];
    memcpy(entry, at, ENTRY);
    size_t size = entry[0] & LENGTH;
    bool read_only = source->read_only || (entry[0] & READ_ONLY);
    if (entry[1])
        return source->handle ? referred(source, entry, size, read_only) : damaged();
    size_t offset = (size_t)(reader->next - source->memory);
    if (!codec_take(reader, aligned(offset) - offset))
        return NULL;
    const uint8_t *data = codec_take(reader, size);
    if (!data)
        return NULL;
    return source->copy
               ? copied(data, size, read_only)
               : viewed(source->exporter, (size_t)(data - source->memory), size, read_only);
}

PyObject *buffers_loads(const Source *source, Reader *reader)
{
    uint32_t count;
    size_t pickle_size;
    const uint8_t *data = codec_take(reader, 4);
    if (!data)
        return NULL;
    memcpy(&count, data, 4);
    if (codec_read_size(reader, &pickle_size) < 0)
        return NULL;
    if (count > (size_t)(reader->end - reader->next) / ENTRY)
        return damaged();
    const uint8_t *entries = codec_take(reader, ENTRY * (size_t)count);
    const uint8_t *pickle = entries ? codec_take(reader, pickle_size) : NULL;
    PyObject *parts = pickle ? PyTuple_New((Py_ssize_t)count) : NULL;
    for (uint32_t i = 0; parts && i < count; i++) {
        PyObject *one = read_buffer(source, reader, entries + (size_t)ENTRY * i);
        if (one)
            PyTuple_SET_ITEM(parts, i, one);
        else
            Py_CLEAR(parts);
    }
    PyObject *object = parts ? pickle_loads(reader->core, pickle, pickle_size, parts) : NULL;
    Py_XDECREF(parts);
    return object;
}
