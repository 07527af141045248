/* Workers: the pool as Python sees it. libpool.Pool and libpool.Executor derive from it. */
#include "core.h"

PyObject *workers_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Core *core = core_of(type);
    Workers *workers = core ? (Workers *)type->tp_alloc(type, 0) : NULL;
    if (!workers)
        return NULL;
    workers->core = core;
    if (functions_init(&workers->functions) < 0)
        Py_CLEAR(workers);
    return (PyObject *)workers;
}

static int workers_traverse(PyObject *self, visitproc visit, void *arg)
{
    Workers *workers = (Workers *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(workers->base);
    Py_VISIT(workers->start);
    Py_VISIT(workers->stop);
    Py_VISIT(workers->registry);
    Py_VISIT(workers->callables);
    return functions_traverse(&workers->functions, visit, arg);
}

static int workers_clear(PyObject *self)
{
    Workers *workers = (Workers *)self;
    Py_CLEAR(workers->base);
    Py_CLEAR(workers->start);
    Py_CLEAR(workers->stop);
    Py_CLEAR(workers->registry);
    workers->last_callable = NULL;
    Py_CLEAR(workers->callables);
    functions_clear(&workers->functions);
    return 0;
}

/* Nobody can submit any more. What was submitted runs, then the pool ends, and the collector. After
 * the interpreter's end nothing is to run: the pool is left to be terminated with its handle. */
static void let_run_out(Workers *workers)
{
    Handle *handle = workers->handle;
    if (!workers->core->ended && pool_close(handle->pool) == 0)
        reaper_watch(handle);
    handle->closed = true;
    handle_wake(handle);
}

/* Not a view, and not another process's copy. */
static bool is_owner(const Workers *workers)
{
    const Handle *handle = workers->handle;
    return handle && handle->workers == workers && !handle_inherited(handle) && !handle->in_worker;
}

/* The class may have something to say, in `_abandon`. That is Python code, in which a signal
 * handler may raise, and the exception would be ignored. So what has to be done is done here. */
static void workers_finalize(PyObject *self)
{
    Workers *workers = (Workers *)self;
    if (!is_owner(workers))
        return;
    PyObject *pending = errors_take();
    PyObject *abandon = PyObject_GetAttrString(self, "_abandon");
    PyObject *done = abandon ? PyObject_CallNoArgs(abandon) : NULL;
    if (!abandon && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear();
    else if (!done)
        PyErr_WriteUnraisable(abandon);
    Py_XDECREF(done);
    Py_XDECREF(abandon);
    let_run_out(workers);
    if (pending)
        errors_restore(pending);
}

static void workers_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Workers *workers = (Workers *)self;
    if (PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    if (workers->handle && workers->handle->workers == workers) {
        workers->handle->workers = NULL;
        block_sweep(workers->handle, true);
    }
    workers_clear(self);
    Py_CLEAR(workers->handle);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- Start and end --------------------------------------------------------------------------- */

/* The pool, or NULL with an exception when there is none yet. */
static struct pool *pool_of(PyObject *self)
{
    Workers *workers = (Workers *)self;
    if (workers->handle)
        return workers->handle->pool;
    PyErr_SetString(PyExc_RuntimeError, "the pool has not been started");
    return NULL;
}

/* The same for what ends the pool: that is not for its jobs, which would end in the midst of it. */
static struct pool *pool_to_end(PyObject *self)
{
    struct pool *pool = pool_of(self);
    if (!pool || !((Workers *)self)->handle->in_worker)
        return pool;
    PyErr_SetString(PyExc_RuntimeError,
                    "a job can't close, terminate or join the pool that runs it; in a job, use "
                    "libpool.current() without a with statement");
    return NULL;
}

static PyObject *none_or_error(PyObject *self, int error)
{
    if (error == 0)
        Py_RETURN_NONE;
    errors_set(((Workers *)self)->core, error);
    return NULL;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
"Take no more calls. Those that were submitted run, then the workers end.\n");

static PyObject *workers_close(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pool *pool = pool_to_end(self);
    if (!pool)
        return NULL;
    int error = pool_close(pool);
    if (error == 0) {
        ((Workers *)self)->handle->closed = true;
        handle_wake(((Workers *)self)->handle);
    }
    return none_or_error(self, error);
}

PyDoc_STRVAR(close_later_doc, "_close_later($self, /)\n--\n\n"
"Take no more calls but those of submit_chunk(), until close().\n");

static PyObject *workers_close_later(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (!pool_of(self))
        return NULL;
    ((Workers *)self)->handle->closing = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(when_done_doc, "_when_done($self, future, callback, /)\n--\n\n"
"Have callback(future) called when the future ends, by the thread that tells of ends.\n\n"
"Unlike with Future.add_done_callback(), in that thread also where the future has ended already;\n"
"so one is called at a time. In a worker, which has no such thread, at once.\n");

static PyObject *workers_when_done(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    Workers *workers = (Workers *)self;
    if (nargs != 2 || !Py_IS_TYPE(args[0], workers->core->future_type)) {
        PyErr_SetString(PyExc_TypeError, "_when_done() takes a libpool Future and a callback");
        return NULL;
    }
    if (!pool_of(self))
        return NULL;
    Future *future = (Future *)args[0];
    int added = watch_add_callback(future, args[1]);
    if (added == 0)
        added = workers->handle->in_worker ? watch_run_callback(future, args[1])
                                           : collector_defer(workers->handle, future, args[1]);
    return added < 0 ? NULL : Py_NewRef(Py_None);
}

PyDoc_STRVAR(terminate_doc, "terminate($self, /)\n--\n\n"
"End the pool now. Calls that wait or run are cancelled; all its processes are gone on return.\n");

static PyObject *workers_terminate(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pool *pool = pool_to_end(self);
    if (!pool)
        return NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = pool_terminate(pool);
    Py_END_ALLOW_THREADS
    Handle *handle = ((Workers *)self)->handle;
    if (error == 0) {
        handle->closed = handle->sweep = true;
        handle_wake(handle);
    }
    return none_or_error(self, error);
}

PyDoc_STRVAR(join_doc, "join($self, /, timeout=None)\n--\n\n"
"After close() or terminate(): wait until all calls have ended and all processes are gone.\n\n"
"Also waits until the futures' callbacks have run.\n\n"
"Parameters\n----------\n"
"timeout : float or None\n"
"    Seconds; None waits for ever.\n\n"
"Returns\n-------\n"
"bool\n"
"    False if the time ran out.\n\n"
"Raises\n------\n"
"ValueError\n"
"    The pool was not closed.\n");

static PyObject *workers_join(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {(char *)"timeout", NULL};
    PyObject *timeout = NULL;
    struct pool *pool = pool_to_end(self);
    if (!pool || !PyArg_ParseTupleAndKeywords(args, kwargs, "|O:join", names, &timeout))
        return NULL;
    int64_t deadline = errors_deadline(timeout);
    if (deadline < 0)
        return NULL;
    int error = handle_join(pool, deadline);
    if (error == -ETIMEDOUT)
        Py_RETURN_FALSE;
    if (error == -EBUSY)
        PyErr_SetString(PyExc_ValueError, "Pool is still running");
    else if (error < 0)
        errors_set(((Workers *)self)->core, error);
    if (error != 0)
        return NULL;
    double left = -1;
    if (deadline != POOL_FOREVER)
        left = (double)(deadline - monotonic_now()) / 1e9;
    if (deadline != POOL_FOREVER && left < 0)
        left = 0;
    int late = collector_join(((Workers *)self)->handle, left);
    return late < 0 ? NULL : PyBool_FromLong(!late);
}

PyDoc_STRVAR(linger_doc, "_linger($self, /)\n--\n\n"
"After close(): have the processes reaped when the pool has ended, without waiting for that.\n");

static PyObject *workers_linger(PyObject *self, PyObject *Py_UNUSED(unused))
{
    if (!pool_of(self))
        return NULL;
    reaper_watch(((Workers *)self)->handle);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(cancel_waiting_doc, "cancel_waiting($self, /)\n--\n\n"
"Cancel all calls that no worker has begun.\n\n"
"Returns\n-------\n"
"int\n"
"    How many it cancelled.\n");

static PyObject *workers_cancel_waiting(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pool *pool = pool_of(self);
    if (!pool)
        return NULL;
    int64_t count;
    Py_BEGIN_ALLOW_THREADS
    count = pool_cancel_waiting(pool);
    Py_END_ALLOW_THREADS
    if (count < 0) {
        errors_set(((Workers *)self)->core, (int)count);
        return NULL;
    }
    ((Workers *)self)->handle->sweep = true;
    handle_wake(((Workers *)self)->handle);
    return PyLong_FromLongLong(count);
}

/* ---- Insight --------------------------------------------------------------------------------- */

PyDoc_STRVAR(worker_pids_doc, "worker_pids($self, /)\n--\n\n"
"Return the process ids of the workers that there are now.\n");

static PyObject *workers_worker_pids(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pool *pool = pool_of(self);
    PyObject *pids = pool ? PyList_New(0) : NULL;
    for (int i = 0; pids && i < ((Workers *)self)->count; i++) {
        pid_t pid = pool_worker_pid(pool, i);
        if (pid <= 0)
            continue;
        PyObject *number = PyLong_FromLong(pid);
        if (!number || PyList_Append(pids, number) < 0)
            Py_CLEAR(pids);
        Py_XDECREF(number);
    }
    return pids;
}

PyDoc_STRVAR(check_doc, "check($self, /)\n--\n\n"
"Return 0 while the pool takes calls, else a negative errno: -ESHUTDOWN closed, -EOWNERDEAD\n"
"broken, -EXDEV made in another process.\n");

static PyObject *workers_check(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pool *pool = pool_of(self);
    if (!pool)
        return NULL;
    int error = pool_check(pool);
    return PyLong_FromLong(error == 0 && ((Workers *)self)->handle->closing ? -ESHUTDOWN : error);
}

static PyObject *get_supervisor_pid(PyObject *self, void *Py_UNUSED(closure))
{
    struct pool_stats stats;
    return workers_get_stats(self, &stats) < 0 ? NULL : PyLong_FromLong((long)stats.supervisor);
}

static PyObject *get_workers(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((Workers *)self)->count);
}

/* (timeout in ns or None, retries) */
static PyObject *get_options(PyObject *self, void *Py_UNUSED(closure))
{
    const struct pool_options *options = &((Workers *)self)->options;
    if (options->timeout == POOL_FOREVER)
        return Py_BuildValue("(Oi)", Py_None, options->retries);
    return Py_BuildValue("(Li)", (long long)options->timeout, options->retries);
}

static PyObject *get_in_worker(PyObject *self, void *Py_UNUSED(closure))
{
    const Handle *handle = ((Workers *)self)->handle;
    return PyBool_FromLong(handle && handle->in_worker);
}

static PyGetSetDef workers_properties[] = {
    {"_in_worker", get_in_worker, NULL, "Is this process a worker of this very pool?", NULL},
    {"_options", get_options, NULL, "Options of calls: (timeout in ns or None, retries).", NULL},
    {"supervisor_pid", get_supervisor_pid, NULL,
     "The supervisor's process id, 0 when it has ended.", NULL},
    {"workers", get_workers, NULL, "The number of workers, as configured.", NULL},
    {NULL},
};

static PyMethodDef workers_methods[] = {
    {"submit", (PyCFunction)(void (*)(void))workers_submit, METH_FASTCALL | METH_KEYWORDS,
     workers_submit_doc},
    {"submit_chunk", (PyCFunction)(void (*)(void))workers_submit_chunk, METH_FASTCALL,
     workers_submit_chunk_doc},
    {"submit_chunks", (PyCFunction)(void (*)(void))workers_submit_chunks, METH_FASTCALL,
     workers_submit_chunks_doc},
    {"_start", (PyCFunction)(void (*)(void))workers_start, METH_VARARGS | METH_KEYWORDS,
     workers_start_doc},
    {"_attach", workers_attach, METH_O, workers_attach_doc},
    {"_serve", (PyCFunction)(void (*)(void))workers_serve, METH_VARARGS | METH_KEYWORDS,
     workers_serve_doc},
    {"_view", workers_view, METH_VARARGS, workers_view_doc},
    {"_allocate", workers_allocate, METH_O, allocate_doc},
    {"_put", workers_put, METH_O, put_doc},
    {"close", workers_close, METH_NOARGS, close_doc},
    {"terminate", workers_terminate, METH_NOARGS, terminate_doc},
    {"_close_later", workers_close_later, METH_NOARGS, close_later_doc},
    {"_when_done", (PyCFunction)(void (*)(void))workers_when_done, METH_FASTCALL, when_done_doc},
    {"join", (PyCFunction)(void (*)(void))workers_join, METH_VARARGS | METH_KEYWORDS, join_doc},
    {"_linger", workers_linger, METH_NOARGS, linger_doc},
    {"cancel_waiting", workers_cancel_waiting, METH_NOARGS, cancel_waiting_doc},
    {"stats", workers_stats, METH_NOARGS, workers_stats_doc},
    {"worker_pids", workers_worker_pids, METH_NOARGS, worker_pids_doc},
    {"check", workers_check, METH_NOARGS, check_doc},
    {NULL},
};

PyDoc_STRVAR(workers_doc, "Workers()\n--\n\n"
"Worker processes that call Python functions. The base of libpool.Pool and libpool.Executor.\n");

static PyType_Slot workers_slots[] = {
    {Py_tp_doc, (void *)workers_doc},
    {Py_tp_new, SLOT(workers_new)},
    {Py_tp_traverse, SLOT(workers_traverse)},
    {Py_tp_clear, SLOT(workers_clear)},
    {Py_tp_finalize, SLOT(workers_finalize)},
    {Py_tp_dealloc, SLOT(workers_dealloc)},
    {Py_tp_methods, workers_methods},
    {Py_tp_getset, workers_properties},
    {0, NULL},
};

PyType_Spec workers_spec = {
    .name = "libpool._core.Workers",
    .basicsize = sizeof(Workers),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = workers_slots,
};
