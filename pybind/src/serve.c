/* Pools whose supervisor is an interpreter of its own: what the host tells it, and its side. */
#include "core.h"

#include <unistd.h>

/* ---- The host -------------------------------------------------------------------------------- */

/* The objects stay the tuple's. */
static bool parse_launch(PyObject *launch, PyObject **command, PyObject **payload, PyObject **keep)
{
    if (!PyTuple_Check(launch) || !PyArg_ParseTuple(launch, "O!SO!:launch", &PyTuple_Type, command,
                                                    payload, &PyTuple_Type, keep)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "launch must be (command, payload, descriptors)");
        return false;
    }
    if (PyTuple_GET_SIZE(*command) > 0)
        return true;
    PyErr_SetString(PyExc_ValueError, "the command must not be empty");
    return false;
}

int launch_configure(PyObject *launch, struct pool_config *config)
{
    PyObject *command, *payload, *keep;
    if (!parse_launch(launch, &command, &payload, &keep))
        return -1;
    Py_ssize_t words = PyTuple_GET_SIZE(command), count = PyTuple_GET_SIZE(keep);
    const char **arguments = PyMem_Calloc((size_t)words + 1, sizeof *arguments);
    int *descriptors = PyMem_Calloc((size_t)count + 1, sizeof *descriptors);
    config->command = arguments;
    config->keep = descriptors;
    config->keep_count = (int)count;
    config->payload = PyBytes_AS_STRING(payload);
    config->payload_size = (size_t)PyBytes_GET_SIZE(payload);
    if (!arguments || !descriptors) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < words; i++)
        if (!(arguments[i] = PyBytes_AsString(PyTuple_GET_ITEM(command, i))))
            return -1;
    for (Py_ssize_t i = 0; i < count; i++)
        descriptors[i] = (int)PyLong_AsLong(PyTuple_GET_ITEM(keep, i));
    return PyErr_Occurred() ? -1 : 0;
}

void launch_free(struct pool_config *config)
{
    PyMem_Free((void *)(uintptr_t)config->command);
    PyMem_Free((void *)(uintptr_t)config->keep);
}

/* ---- The supervisor -------------------------------------------------------------------------- */

const char workers_attach_doc[] =
    PyDoc_STR("_attach($self, descriptor, /)\n--\n\n"
"In a process that was started to be a supervisor: find the pool.\n\n"
"Parameters\n----------\n"
"descriptor : int\n"
"    The number that it was given as its last argument.\n\n"
"Returns\n-------\n"
"bytes\n"
"    The payload that `_start()` was given.\n\n"
"Raises\n------\n"
"OSError, MemoryError\n"
"    There is no pool to be found.\n");

PyObject *workers_attach(PyObject *self, PyObject *descriptor)
{
    Workers *workers = (Workers *)self;
    int fd = (int)PyLong_AsLong(descriptor);
    if (PyErr_Occurred())
        return NULL;
    if (workers->handle) {
        PyErr_SetString(PyExc_RuntimeError, "the pool has been started already");
        return NULL;
    }
    Handle *handle = handle_new(workers->core);
    if (!handle)
        return NULL;
    const void *payload;
    size_t size;
    int error = pool_attach(fd, &handle->pool, &payload, &size);
    if (error < 0) {
        Py_DECREF(handle);
        if (error == -ENOMEM)
            return PyErr_NoMemory();
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    handle->in_worker = true; /* not this process's to destroy */
    handle->workers = workers;
    workers->handle = handle;
    pool_options_init(handle->pool, &workers->options);
    struct pool_stats stats = {.size = sizeof stats};
    pool_get_stats(handle->pool, &stats);
    workers->count = stats.workers;
    return PyBytes_FromStringAndSize(payload, (Py_ssize_t)size);
}

const char workers_serve_doc[] = PyDoc_STR("_serve($self, /, start, stop, registry)\n--\n\n"
"After _attach(): be the supervisor, until the pool ends. The workers are forks of this process.\n"
"\n"
"Parameters\n----------\n"
"start, stop, registry\n"
"    As for `_start()`.\n\n"
"Raises\n------\n"
"OSError\n"
"    This process can't be. Otherwise the call does not return.\n");

PyObject *workers_serve(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {(char *)"start", (char *)"stop", (char *)"registry", NULL};
    Workers *workers = (Workers *)self;
    PyObject *start, *stop, *registry;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO:_serve", names, &start, &stop, &registry))
        return NULL;
    if (!workers->handle) {
        PyErr_SetString(PyExc_RuntimeError, "_attach() comes first");
        return NULL;
    }
    Py_XSETREF(workers->start, Py_NewRef(start));
    Py_XSETREF(workers->stop, Py_NewRef(stop));
    Py_XSETREF(workers->registry, Py_NewRef(registry));
    struct pool_host host = host_hooks;
    host.context = workers;
    errno = -pool_serve(workers->handle->pool, &host);
    return PyErr_SetFromErrno(PyExc_OSError);
}
