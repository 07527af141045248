/* The pool, shared by Workers and the futures that came from it. */
#include "core.h"

#include <unistd.h>

Handle *handle_new(Core *core)
{
    Handle *handle = (Handle *)core->handle_type->tp_alloc(core->handle_type, 0);
    if (!handle)
        return NULL;
    handle->core = core;
    handle->owner = getpid();
    handle->wake = -1;
    handle->watched = PyDict_New();
    handle->ended = PyList_New(0);
    handle->lingering = lingering_new();
    if (!handle->lingering)
        PyErr_NoMemory();
    if (!handle->watched || !handle->ended || !handle->lingering)
        Py_CLEAR(handle);
    return handle;
}

bool handle_inherited(const Handle *handle)
{
    return getpid() != handle->owner;
}

void handle_wake(Handle *handle)
{
    if (handle_inherited(handle))
        return;
    if (handle->wake >= 0)
        event_write(handle->wake);
    for (LoopReader *reader = handle->loops; reader; reader = reader->next) {
        reader->sweep = reader->sweep || handle->sweep;
        event_write(reader->wake);
    }
}

int handle_join(struct pool *pool, int64_t deadline)
{
    for (;;) {
        int64_t timeout = sleep_until(deadline, true);
        int error;
        Py_BEGIN_ALLOW_THREADS
        error = pool_join(pool, timeout);
        Py_END_ALLOW_THREADS
        if (error != -EINTR && error != -ETIMEDOUT)
            return error;
        if (PyErr_CheckSignals() < 0)
            return 1;
        if (error == -ETIMEDOUT && deadline != POOL_FOREVER && monotonic_now() >= deadline)
            return error;
    }
}

static void handle_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Handle *handle = (Handle *)self;
    collector_forget(handle);
    /* A worker's own pool is what it lives in; the worker ends with it, by itself. */
    if (!handle->in_worker) {
        Py_BEGIN_ALLOW_THREADS
        reaper_take(handle);
        Py_END_ALLOW_THREADS
    }
    if (handle->wake >= 0)
        close(handle->wake);
    Py_XDECREF(handle->watched);
    Py_XDECREF(handle->ended);
    Py_XDECREF(handle->collector);
    Py_XDECREF(handle->blocks);
    Py_XDECREF(handle->pins);
    Py_XDECREF(handle->orphans);
    Py_XDECREF(handle->deferred);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef handle_methods[] = {
    {"collect", collector_run, METH_NOARGS, "What the collector thread runs."},
    {NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_dealloc, SLOT(handle_dealloc)},
    {Py_tp_methods, handle_methods},
    {0, NULL},
};

PyType_Spec handle_spec = {
    .name = "libpool._core._Handle",
    .basicsize = sizeof(Handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handle_slots,
};
