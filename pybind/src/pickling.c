/* What needs pickle. The plain C pickler does it where it can; libpool._pickling does the rest. */
#include "core.h"

/* Below this, a copy is cheaper than a memoryview. */
#define COPY_TO_BYTES 1024

static const char main_module[] = "__main__";

/* Does the pickle name __main__? A false alarm, from a string with these letters, costs time only.
 */
static bool refers_to_main(PyObject *pickled)
{
    const char *data = PyBytes_AS_STRING(pickled);
    size_t size = (size_t)PyBytes_GET_SIZE(pickled);
    const void *found;
    if (size <= COPY_WITHOUT_GIL)
        return memmem(data, size, main_module, sizeof main_module - 1) != NULL;
    Py_BEGIN_ALLOW_THREADS
    found = memmem(data, size, main_module, sizeof main_module - 1);
    Py_END_ALLOW_THREADS
    return found != NULL;
}

/* Under a name of __main__ the workers may have something else than this process. Whether all that
 * the pickle names is the same there; -1 with an exception. */
static int names_what_workers_have(Core *core, PyObject *pickled)
{
    PyObject *all_have = core_late(&core->all_have, "libpool._functions", "all_have");
    PyObject *names = all_have ? globals_in(pickled) : NULL;
    PyObject *answer = NULL;
    int same = -1;
    if (names == Py_None)
        same = 0;
    else if (names && (answer = PyObject_CallOneArg(all_have, names)))
        same = PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    Py_XDECREF(names);
    return same;
}

static PyObject *check_bytes(PyObject *pickled)
{
    if (pickled && !PyBytes_CheckExact(pickled)) {
        PyErr_Format(PyExc_TypeError, "pickling made %.100s instead of bytes",
                     Py_TYPE(pickled)->tp_name);
        Py_CLEAR(pickled);
    }
    return pickled;
}

/* Python has loaded PyTorch. */
static bool has_tensors(Core *core)
{
    PyObject *modules = PyImport_GetModuleDict(); /* borrowed */
    return PyDict_CheckExact(modules) && PyDict_GetItemWithError(modules, core->name_torch);
}

static PyObject *plain_dumps(Core *core, PyObject *object, PyObject *callback)
{
    if (has_tensors(core)) {
        PyObject *dumps = core_late(&core->tensor_dumps, "libpool._tensors", "dumps");
        PyObject *with_callback[] = {object, callback};
        return dumps ? PyObject_Vectorcall(dumps, with_callback, 1,
                                           callback ? core->keyword_buffer_callback : NULL)
                     : NULL;
    }
    PyObject *args[] = {object, core->pickle_protocol, callback};
    return PyObject_Vectorcall(core->dumps, args, 2,
                               callback ? core->keyword_buffer_callback : NULL);
}

static PyObject *rich_dumps(Core *core, PyObject *object, PyObject *callback)
{
    PyObject *dumps = core_late(&core->rich_dumps, "libpool._pickling", "dumps");
    PyObject *args[] = {object, callback};
    if (!dumps)
        return NULL;
    return check_bytes(
        PyObject_Vectorcall(dumps, args, 1, callback ? core->keyword_buffer_callback : NULL));
}

PyObject *pickle_dumps(Core *core, PyObject *object, bool by_value, Buffers *buffers)
{
    PyObject *callback = buffers ? buffers->collector : NULL;
    PyObject *pickled = plain_dumps(core, object, callback);
    if (pickled && PyBytes_CheckExact(pickled) && by_value && refers_to_main(pickled)) {
        int same = names_what_workers_have(core, pickled);
        if (same > 0)
            return pickled;
        Py_CLEAR(pickled);
        if (same == 0)
            return rich_dumps(core, object, callback);
    }
    if (pickled || !PyErr_ExceptionMatches(PyExc_Exception))
        return check_bytes(pickled);
    /* What plain pickle said about it is of interest only if the other fails too, and then that
     * one says it again. */
    PyErr_Clear();
    return rich_dumps(core, object, callback);
}

PyObject *pickle_loads(Core *core, const uint8_t *data, size_t size, PyObject *buffers)
{
    /* Unpickled where they lie, unless they are short: pickle keeps no view of what it read. */
    PyObject *pickled = size <= COPY_TO_BYTES
                            ? PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size)
                            : PyMemoryView_FromMemory((char *)data, (Py_ssize_t)size, PyBUF_READ);
    if (!pickled)
        return NULL;
    PyObject *args[] = {pickled, buffers};
    PyObject *object =
        PyObject_Vectorcall(core->loads, args, 1, buffers ? core->keyword_buffers : NULL);
    Py_DECREF(pickled);
    return object;
}
