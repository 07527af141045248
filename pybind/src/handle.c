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
    if (!handle->watched)
        Py_CLEAR(handle);
    return handle;
}

bool handle_inherited(const Handle *handle)
{
    return getpid() != handle->owner;
}

void handle_wake(Handle *handle)
{
    if (handle->wake >= 0 && !handle_inherited(handle)) {
        ssize_t written = write(handle->wake, &(uint64_t){1}, sizeof(uint64_t));
        (void)written; /* fails only when the counter is at its maximum: it is readable then */
    }
}

static void handle_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Handle *handle = (Handle *)self;
    struct pool *pool = handle->pool;
    /* A worker's own pool is what it lives in; the worker ends with it, by itself. */
    if (pool && !handle->in_worker) {
        Py_BEGIN_ALLOW_THREADS
        pool_destroy(pool);
        Py_END_ALLOW_THREADS
    }
    if (handle->wake >= 0)
        close(handle->wake);
    Py_XDECREF(handle->watched);
    Py_XDECREF(handle->collector);
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
