/* NativeFunction: a C function, and what it takes and returns. See native.h. */
#include "native_pack.h"

#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>

/* ---- The worker's side: no object of Python's is touched ------------------------------------- */

static int fail(struct pool_job *job, const char *text, const char *why)
{
    size_t length = strlen(text), more = strlen(why);
    uint8_t *out = pool_job_reserve(job, 1 + length + more);
    if (!out)
        return -ENOMEM;
    *out = TAG_FAILURE;
    memcpy(out + 1, text, length);
    memcpy(out + 1 + length, why, more);
    return 0;
}

static int native_job(struct pool_job *job, const void *argument, size_t size)
{
    struct native_call call;
    int error = native_read(&call, argument, size);
    if (error == -EBADMSG)
        return fail(job, "the data of this job in shared memory are damaged", "");
    uint8_t *result = error ? NULL : pool_job_reserve(job, call.result_size);
    if (!result)
        return -ENOMEM;
    if (pool_resolve(pool_current(), call.header.function, &call.function) < 0) {
        const char *why = dlerror();
        return fail(job, "the worker can't load the library of this function: ",
                    why ? why : "there is another one of its name");
    }
    /* So that threads which earlier jobs have started go on. */
    Py_BEGIN_ALLOW_THREADS
    native_run(&call, result, job);
    Py_END_ALLOW_THREADS
    return 0;
}

/* ---- Submitting ------------------------------------------------------------------------------ */

static void set_refer_error(Workers *workers, const NativeFunction *function, int error)
{
    if (error == -EINVAL)
        PyErr_Format(PyExc_ValueError, "%U is no code of a library", function->name);
    else if (error == -ENOSPC)
        PyErr_Format(PyExc_RuntimeError,
                     "%U: a pool takes functions of 128 libraries at most, whose names have up to "
                     "503 bytes",
                     function->name);
    else
        errors_set_submit(workers, error, 0);
}

static PyObject *send(Workers *workers, Pack *pack)
{
    Core *core = workers->core;
    struct pool *pool = workers->handle->pool;
    struct pool_future job;
    uint64_t reference;
    void *memory;
    Future *future = (Future *)core->future_type->tp_alloc(core->future_type, 0);
    PyObject *content = future ? pack_content(pack) : NULL;
    if (!content) {
        Py_XDECREF(future);
        return NULL;
    }
    int error = pool_refer(pool, pack->function->function, &reference);
    if (error < 0) {
        set_refer_error(workers, pack->function, error);
        goto failed;
    }
    error = submit_prepare(workers, pack->size, true, &job, &memory);
    if (error == 0) {
        pack_write(pack, reference, memory);
        error = pool_commit(&job, native_job);
        if (error < 0)
            pool_abandon(&job);
    }
    if (error < 0) {
        errors_set_submit(workers, error, pack->size);
        goto failed;
    }
    future->handle = (Handle *)Py_NewRef((PyObject *)workers->handle);
    future->index = job.index;
    future->generation = job.generation;
    future->content = content;
    return (PyObject *)future;
failed:
    Py_DECREF(content);
    Py_DECREF(future);
    return NULL;
}

static int refuse_keywords(const NativeFunction *function, PyObject *names)
{
    if (!names || PyTuple_GET_SIZE(names) == 0)
        return 0;
    PyErr_Format(PyExc_TypeError, "%U is a C function and takes no keyword arguments, such as %R",
                 function->name, PyTuple_GET_ITEM(names, 0));
    return -1;
}

PyObject *native_submit(Workers *workers, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames)
{
    NativeFunction *function = (NativeFunction *)args[0];
    if (refuse_keywords(function, kwnames) < 0)
        return submit_failed(workers);
    Pack pack;
    int packed = pack_begin(&pack, function, NATIVE_VALUE, 1);
    if (packed == 0)
        packed = pack_call(&pack, 0, args + 1, nargs - 1);
    PyObject *future = packed == 0 ? send(workers, &pack) : submit_failed(workers);
    pack_end(&pack);
    return future;
}

static int pack_items(Pack *pack, PyObject *items, bool star)
{
    Py_ssize_t count = PySequence_Fast_GET_SIZE(items);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(items, i);
        if (!star) {
            if (pack_call(pack, (size_t)i, &item, 1) < 0)
                return -1;
            continue;
        }
        PyObject *arguments = PySequence_Tuple(item);
        int packed = arguments ? pack_call(pack, (size_t)i, ((PyTupleObject *)arguments)->ob_item,
                                           PyTuple_GET_SIZE(arguments))
                               : -1;
        Py_XDECREF(arguments);
        if (packed < 0)
            return -1;
    }
    return 0;
}

PyObject *native_submit_chunk(Workers *workers, PyObject *function, PyObject *items, bool star)
{
    /* A copy, since converting an item may run code that changes the list. */
    PyObject *list = PySequence_Tuple(items);
    if (!list)
        return submit_failed(workers);
    Pack pack;
    int packed =
        pack_begin(&pack, (NativeFunction *)function, NATIVE_LIST, (size_t)PyTuple_GET_SIZE(list));
    if (packed == 0)
        packed = pack_items(&pack, list, star);
    PyObject *future = packed == 0 ? send(workers, &pack) : submit_failed(workers);
    pack_end(&pack);
    Py_DECREF(list);
    return future;
}

PyDoc_STRVAR(submit_columns_doc, "_submit_columns($self, workers, columns, start, stop, out, /)\n"
"--\n\n"
"Have a worker call the function for items start to stop of each column, and put what it\n"
"returns into the same items of `out`, which is None where it returns nothing.\n");

static PyObject *submit_columns(PyObject *self, PyObject *args)
{
    NativeFunction *function = (NativeFunction *)self;
    PyObject *workers, *columns, *out;
    Py_ssize_t start, stop;
    if (!PyArg_ParseTuple(args, "O!O!nnO:_submit_columns", function->core->workers_type, &workers,
                          &PyTuple_Type, &columns, &start, &stop, &out))
        return NULL;
    if (!((Workers *)workers)->handle || start < 0 || stop < start ||
        PyTuple_GET_SIZE(columns) != function->arguments ||
        (out == Py_None) != (function->result == NATIVE_VOID)) {
        PyErr_SetString(PyExc_ValueError, "no such columns");
        return NULL;
    }
    Pack pack;
    int packed = pack_begin(&pack, function, NATIVE_ARRAY, (size_t)(stop - start));
    for (unsigned i = 0; packed == 0 && i < function->arguments; i++)
        packed = pack_column(&pack, i, PyTuple_GET_ITEM(columns, i), start);
    if (packed == 0 && out != Py_None)
        packed = pack_destination(&pack, out, start);
    PyObject *future = packed == 0 ? send((Workers *)workers, &pack) : NULL;
    pack_end(&pack);
    return future;
}

/* ---- A call in this process ------------------------------------------------------------------ */

/* As in a worker, with memory of the heap in the place of the shared one. */
static PyObject *call_packed(Pack *pack)
{
    struct native_call call;
    PyObject *value = NULL;
    uint8_t *result = NULL;
    uint8_t *argument = aligned_alloc(64, native_align(pack->size, 64));
    if (argument) {
        pack_write(pack, 0, argument);
        if (native_read(&call, argument, pack->size) == 0)
            result = aligned_alloc(64, native_align(call.result_size, 64));
    }
    PyObject *content = result ? pack_content(pack) : PyErr_NoMemory();
    if (content) {
        call.function = pack->function->function;
        Py_BEGIN_ALLOW_THREADS
        native_run(&call, result, NULL);
        Py_END_ALLOW_THREADS
        value = native_decode(content, result, call.result_size);
    }
    Py_XDECREF(content);
    free(result);
    free(argument);
    return value;
}

static PyObject *native_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    NativeFunction *function = (NativeFunction *)self;
    if (kwargs && PyDict_Size(kwargs) > 0) {
        PyErr_Format(PyExc_TypeError, "%U is a C function and takes no keyword arguments",
                     function->name);
        return NULL;
    }
    Pack pack;
    int packed = pack_begin(&pack, function, NATIVE_VALUE, 1);
    if (packed == 0)
        packed = pack_call(&pack, 0, ((PyTupleObject *)args)->ob_item, PyTuple_GET_SIZE(args));
    PyObject *value = packed == 0 ? call_packed(&pack) : NULL;
    pack_end(&pack);
    return value;
}

/* ---- The type -------------------------------------------------------------------------------- */

/* By enum native_type: letters as in the module struct, in its standard sizes, and "v" for void. */
static const char type_letters[] = "v?cbBhHiIqQfd";

static int type_of(char letter)
{
    const char *found = letter ? strchr(type_letters, letter) : NULL;
    return found ? (int)(found - type_letters) : -1;
}

static bool parse_arguments(NativeFunction *function, const char *text)
{
    for (; *text; text++) {
        if (function->arguments == NATIVE_MAX_ARGUMENTS)
            return false;
        bool pointer = *text == 'P';
        int type = type_of(pointer ? *++text : *text);
        if (type < 0 || (!pointer && type == NATIVE_VOID))
            return false;
        function->types[function->arguments] = pointer ? NATIVE_POINTER : (uint8_t)type;
        function->elements[function->arguments++] = (uint8_t)type;
    }
    return true;
}

/* Finds the library that the function lies in, since that is what workers know it by. */
static int locate(NativeFunction *self)
{
    Dl_info info;
    struct link_map *map = NULL;
    uintptr_t address = (uintptr_t)self->function;
    if (!address || !dladdr1((void *)address, &info, (void **)&map, RTLD_DL_LINKMAP) || !map) {
        PyErr_Format(PyExc_ValueError,
                     "%U lies in no library: a callback, or code that was made at run time, does "
                     "not exist in another process",
                     self->name);
        return -1;
    }
    self->library = PyUnicode_DecodeFSDefault(map->l_name);
    self->offset = address - map->l_addr;
    return self->library ? 0 : -1;
}

static int check_abi(const NativeFunction *self)
{
#ifdef NATIVE_ABI
    if (native_stack_needed(self->types, self->arguments) <= NATIVE_STACK)
        return 0;
    PyErr_Format(PyExc_ValueError,
                 "%U has too many arguments: %d integers and pointers, %d floats and %d of either "
                 "can be passed on " NATIVE_ABI,
                 self->name, NATIVE_INTEGERS, NATIVE_FLOATS, NATIVE_STACK);
#else
    PyErr_SetString(PyExc_NotImplementedError,
                    "native functions can be called on x86-64 and 64-bit ARM only");
#endif
    return -1;
}

static PyObject *native_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *name, *owner;
    unsigned long long address;
    const char *result, *arguments;
    if ((kwargs && PyDict_Size(kwargs) > 0) ||
        !PyArg_ParseTuple(args, "KUssO:NativeFunction", &address, &name, &result, &arguments,
                          &owner)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "NativeFunction() takes no keyword arguments");
        return NULL;
    }
    Core *core = core_of(type);
    NativeFunction *self = core ? (NativeFunction *)type->tp_alloc(type, 0) : NULL;
    if (!self)
        return NULL;
    self->core = core;
    self->function = (pool_any_function)(uintptr_t)address;
    self->name = Py_NewRef(name);
    self->owner = Py_NewRef(owner);
    int returned = result[0] && !result[1] ? type_of(result[0]) : -1;
    self->result = (uint8_t)returned;
    if (returned < 0 || !parse_arguments(self, arguments)) {
        PyErr_Format(PyExc_ValueError, "%U: more than %d arguments, or no types: %s, %s", name,
                     NATIVE_MAX_ARGUMENTS, result, arguments);
        Py_CLEAR(self);
    } else if (check_abi(self) < 0 || locate(self) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int native_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((NativeFunction *)self)->owner);
    return 0;
}

static int native_clear(PyObject *self)
{
    Py_CLEAR(((NativeFunction *)self)->owner);
    return 0;
}

static void native_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    native_clear(self);
    Py_XDECREF(((NativeFunction *)self)->name);
    Py_XDECREF(((NativeFunction *)self)->library);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *get_name(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((NativeFunction *)self)->name);
}

static PyObject *get_library(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((NativeFunction *)self)->library);
}

static PyObject *get_offset(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((NativeFunction *)self)->offset);
}

static char letter_of(enum native_type type)
{
    return type_letters[type];
}

static PyObject *get_result(PyObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromFormat("%c", letter_of(((NativeFunction *)self)->result));
}

static PyObject *get_arguments(PyObject *self, void *Py_UNUSED(closure))
{
    const NativeFunction *function = (NativeFunction *)self;
    PyObject *letters = PyTuple_New(function->arguments);
    for (unsigned i = 0; letters && i < function->arguments; i++) {
        bool pointer = function->types[i] == NATIVE_POINTER;
        PyObject *text = pointer ? PyUnicode_FromFormat("P%c", letter_of(function->elements[i]))
                                 : PyUnicode_FromFormat("%c", letter_of(function->types[i]));
        if (text)
            PyTuple_SET_ITEM(letters, i, text);
        else
            Py_CLEAR(letters);
    }
    return letters;
}

PyDoc_STRVAR(load_address_doc, "_load_address(handle, /)\n--\n\n"
"Where the library with this handle, as by dlopen(), lies in this process.\n");

static PyObject *load_address(PyObject *Py_UNUSED(type), PyObject *argument)
{
    struct link_map *map;
    void *handle = PyLong_AsVoidPtr(argument);
    if (!handle && PyErr_Occurred())
        return NULL;
    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0) {
        PyErr_SetString(PyExc_OSError, dlerror());
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(map->l_addr);
}

static PyGetSetDef native_properties[] = {
    {"_result", get_result, NULL, "The letter of what it returns.", NULL},
    {"_arguments", get_arguments, NULL, "The letters of what it takes, a tuple.", NULL},
    {"__name__", get_name, NULL, "The function's name.", NULL},
    {"library", get_library, NULL,
     "The library that it lies in, as the loader knows it; empty for the executable.", NULL},
    {"_offset", get_offset, NULL, "How far from the beginning of the library it lies.", NULL},
    {NULL},
};

static PyMethodDef native_methods[] = {
    {"_submit_columns", submit_columns, METH_VARARGS, submit_columns_doc},
    {"_load_address", load_address, METH_O | METH_STATIC, load_address_doc},
    {NULL},
};

PyDoc_STRVAR(native_doc, "NativeFunction(address, name, result, arguments, owner, /)\n--\n\n"
"A C function, for workers to call without their interpreter. The base of libpool's class.\n\n"
"Parameters\n----------\n"
"address : int\n"
"name : str\n"
"result, arguments : str\n"
"    Types: letters of the module struct in its standard sizes, v for void, P and the type of\n"
"    what it points to, or v, for a pointer.\n"
"owner : object\n"
"    Kept alive, so that the library stays loaded.\n\n"
"Raises\n------\n"
"ValueError\n"
"    The address lies in no library, or there are too many arguments.\n");

static PyType_Slot native_slots[] = {
    {Py_tp_doc, (void *)native_doc},
    {Py_tp_new, SLOT(native_new)},
    {Py_tp_call, SLOT(native_call)},
    {Py_tp_traverse, SLOT(native_traverse)},
    {Py_tp_clear, SLOT(native_clear)},
    {Py_tp_dealloc, SLOT(native_dealloc)},
    {Py_tp_getset, native_properties},
    {Py_tp_methods, native_methods},
    {0, NULL},
};

PyType_Spec native_spec = {
    .name = "libpool._core.NativeFunction",
    .basicsize = sizeof(NativeFunction),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = native_slots,
};
