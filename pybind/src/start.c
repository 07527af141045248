/* Workers._start and _view: a pool is made, and other objects for it. */
#include "core.h"

static int set_memory_limit(struct pool_config *config, PyObject *limit)
{
    if (!limit || limit == Py_None)
        return 0;
    config->shared_limit = PyLong_AsUnsignedLongLong(limit);
    if (config->shared_limit != (unsigned long long)-1 || !PyErr_Occurred())
        return 0;
    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "shared_limit must be a number of bytes, not %R", limit);
    }
    return -1;
}

/* A time limit in ns, or None. False with an exception. */
static bool parse_limit(PyObject *timeout, int64_t *limit)
{
    *limit = POOL_FOREVER;
    if (timeout != Py_None)
        *limit = PyLong_AsLongLong(timeout);
    return !PyErr_Occurred();
}

static void set_start_error(int error, Py_ssize_t count)
{
    if (error == -EINVAL) {
        PyErr_Format(PyExc_ValueError,
                     "a pool has 1 to %d workers, not %zd, and a shared_limit of at least 1 MiB",
                     POOL_MAX_WORKERS, count);
    } else if (error == -ENOMEM) {
        PyErr_SetString(PyExc_MemoryError, "the system has no memory left for a pool");
    } else {
        errno = -error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
}

static bool note_main_thread(Handle *handle)
{
    PyObject *thread = PyObject_CallNoArgs(handle->core->main_thread);
    PyObject *number = thread ? PyObject_GetAttrString(thread, "ident") : NULL;
    handle->main_thread = number ? PyLong_AsUnsignedLong(number) : 0;
    Py_XDECREF(number);
    Py_XDECREF(thread);
    return !PyErr_Occurred();
}

const char workers_start_doc[] = PyDoc_STR(
"_start($self, /, workers, *, shared_limit=0, start=None, stop=None, registry,\n"
"       timeout=None, retries=0, memory_limit=0, worker_jobs=0,\n"
"       finishes_at_exit=False, name=None, launch=None)\n--\n\n"
"Make the pool. Once only.\n\n"
"Parameters\n----------\n"
"workers : int\n"
"    How many, 1 to 1024.\n"
"shared_limit : int\n"
"    Bytes of shared memory; 0 is what the machine or container has.\n"
"start : callable or None\n"
"    Called with the worker's number in each new worker. Where it raises, the traceback is\n"
"    printed and the worker exits with status 1.\n"
"stop : callable or None\n"
"    Called in a worker that ends in an orderly way.\n"
"registry : object\n"
"    Its describe(fn) returns (bytes, guards): the pickled function, and the tuple of what must\n"
"    stay the same for these bytes to be used again, or None if they may not be.\n"
"timeout, retries\n"
"    Options of all calls, as for _view().\n"
"memory_limit : int\n"
"    Bytes of private memory that a worker may have more than at its start; 0: no limit.\n"
"worker_jobs : int\n"
"    After so many calls a worker is replaced; 0: never.\n"
"finishes_at_exit : bool\n"
"    When nobody has the object any more and the interpreter ends: whether it waits for the\n"
"    calls that were submitted, or cancels them.\n"
"name : str or None\n"
"    What ps and top show, with a number, for workers; None: libpool.\n"
"launch : tuple or None\n"
"    None: the workers are forks of this process. Else (command, payload, descriptors): they are\n"
"    forks of the program `command`, a tuple of bytes, which gives the last argument that it gets\n"
"    to `_attach()` for the payload (bytes), and then calls `_serve()` with its own `start` and\n"
"    `stop`. It inherits the descriptors, a tuple of int.\n\n"
"Raises\n------\n"
"ValueError\n"
"    workers or shared_limit is out of range.\n"
"OSError, MemoryError\n"
"    The system has no more processes, descriptors or memory.\n");

/* Makes the pool: 0, a negative errno, or 1 with an exception. */
static int create(Workers *workers, struct pool_config *config, PyObject *launch)
{
    struct pool_host host = host_hooks;
    host.context = workers;
    int error = 1;
    if (launch == Py_None)
        config->host = &host;
    if (launch == Py_None || launch_configure(launch, config) == 0)
        error = pool_create(&workers->handle->pool, config);
    launch_free(config);
    return error;
}

PyObject *workers_start(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {(char *)"workers",
                            (char *)"shared_limit",
                            (char *)"start",
                            (char *)"stop",
                            (char *)"registry",
                            (char *)"timeout",
                            (char *)"retries",
                            (char *)"memory_limit",
                            (char *)"worker_jobs",
                            (char *)"finishes_at_exit",
                            (char *)"name",
                            (char *)"launch",
                            NULL};
    Workers *workers = (Workers *)self;
    Py_ssize_t count;
    PyObject *limit = NULL, *start = NULL, *stop = NULL, *registry = NULL, *timeout = Py_None;
    PyObject *launch = Py_None;
    unsigned long long memory_limit = 0, worker_jobs = 0;
    int finishes_at_exit = 0;
    struct pool_config config;
    pool_config_init(&config);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "n|$OOOOOiKKpzO:_start", names, &count, &limit,
                                     &start, &stop, &registry, &timeout, &config.retries,
                                     &memory_limit, &worker_jobs, &finishes_at_exit, &config.name,
                                     &launch) ||
        !parse_limit(timeout, &config.timeout))
        return NULL;
    config.memory_limit = memory_limit;
    config.worker_jobs = worker_jobs;
    if (workers->handle) {
        PyErr_SetString(PyExc_RuntimeError, "the pool has been started already");
        return NULL;
    }
    if (!registry) {
        PyErr_SetString(PyExc_TypeError, "_start() needs a registry");
        return NULL;
    }
    if (set_memory_limit(&config, limit) < 0)
        return NULL;
    config.workers = count < 1 || count > POOL_MAX_WORKERS ? -1 : (int)count;
    Py_XSETREF(workers->start, start && start != Py_None ? Py_NewRef(start) : NULL);
    Py_XSETREF(workers->stop, stop && stop != Py_None ? Py_NewRef(stop) : NULL);
    Py_XSETREF(workers->registry, Py_NewRef(registry));
    workers->count = config.workers;
    workers->handle = handle_new(workers->core);
    if (!workers->handle)
        return NULL;
    workers->handle->workers = workers;
    workers->handle->finishes_at_exit = finishes_at_exit;
    workers->handle->memory_limit = memory_limit;
    if (!note_main_thread(workers->handle)) {
        Py_CLEAR(workers->handle);
        return NULL;
    }
    workers->options = (struct pool_options){
        .size = sizeof workers->options, .timeout = config.timeout, .retries = config.retries};
    /* With the GIL held: the fork hook needs it. */
    int error = create(workers, &config, launch);
    if (error > 0) {
        Py_CLEAR(workers->handle);
        return NULL;
    }
    if (error < 0) {
        Py_CLEAR(workers->handle);
        set_start_error(error, count);
        return NULL;
    }
    Py_RETURN_NONE;
}

const char workers_view_doc[] =
    PyDoc_STR(
"_view($self, timeout, retries, /)\n--\n\n"
"Another object for the same workers, whose calls have other options.\n\n"
"Parameters\n----------\n"
"timeout : int or None\n"
"    Nanoseconds that a call may run; None: no limit.\n"
"retries : int\n"
"    How often a call runs again when its worker died, 0 to 255.\n");

PyObject *workers_view(PyObject *self, PyObject *args)
{
    Workers *workers = (Workers *)self;
    struct pool_options options = {.size = sizeof options};
    PyObject *timeout;
    if (!PyArg_ParseTuple(args, "Oi:_view", &timeout, &options.retries) ||
        !parse_limit(timeout, &options.timeout))
        return NULL;
    if (!workers->handle) {
        PyErr_SetString(PyExc_RuntimeError, "the pool has not been started");
        return NULL;
    }
    Workers *view = (Workers *)workers_new(Py_TYPE(self), NULL, NULL);
    if (!view)
        return NULL;
    view->handle = (Handle *)Py_NewRef((PyObject *)workers->handle);
    view->count = workers->count;
    view->base = (Workers *)Py_NewRef((PyObject *)(workers->base ? workers->base : workers));
    view->options = options;
    return (PyObject *)view;
}
