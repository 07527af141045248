/* How a worker hosts Python: the hooks of pool_host. The context is the Workers object, which is in
 * the worker too since it is a fork of the process that made the pool.
 *
 * The supervisor is such a fork too. There the interpreter is a frozen copy that runs nothing. */
#include "core.h"

#include <unistd.h>

static void print_exception(void)
{
    PyObject *exception = errors_take();
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_DisplayException(exception);
#else
    PyObject *traceback = PyException_GetTraceback(exception);
    PyErr_Display((PyObject *)Py_TYPE(exception), exception, traceback);
    Py_XDECREF(traceback);
#endif
    Py_DECREF(exception);
}

static void flush(const char *name)
{
    PyObject *stream = PySys_GetObject(name); /* borrowed */
    if (!stream || stream == Py_None)
        return;
    Py_INCREF(stream);
    PyObject *done = PyObject_CallMethod(stream, "flush", NULL);
    if (!done)
        PyErr_Clear();
    Py_XDECREF(done);
    Py_DECREF(stream);
}

void host_flush(Core *core)
{
    core->printed = false;
    flush("stdout");
    flush("stderr");
}

/* Calls what the user of this module gave for the worker's start or end; tells its exception. */
static int call_given(PyObject *callable, PyObject *argument)
{
    if (!callable)
        return 0;
    PyObject *result =
        argument ? PyObject_CallOneArg(callable, argument) : PyObject_CallNoArgs(callable);
    if (!result)
        print_exception();
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static int host_start(void *context, struct pool *pool, unsigned worker)
{
    Workers *workers = context;
    Handle *handle = workers->handle;
    handle->pool = pool;
    handle->owner = getpid();
    handle->in_worker = true;
    handle->main_thread = PyThread_get_thread_ident();
    workers->core->current = (Workers *)Py_NewRef((PyObject *)workers);
    workers->callables = PyDict_New();
    PyObject *number = PyLong_FromUnsignedLong(worker);
    int failed = -1;
    if (workers->callables && number)
        failed = call_given(workers->start, number);
    else
        print_exception();
    Py_XDECREF(number);
    host_flush(workers->core);
    return failed ? 1 : 0;
}

static void host_stop(void *context)
{
    Workers *workers = context;
    call_given(workers->stop, NULL);
    host_flush(workers->core);
}

static void host_release(void *context)
{
    Workers *workers = context;
    if (workers->core->printed) /* by a thread that a job has left */
        host_flush(workers->core);
    workers->suspended = PyEval_SaveThread();
}

static void host_acquire(void *context)
{
    Workers *workers = context;
    PyEval_RestoreThread(workers->suspended);
}

/* For Python the forks of the supervisor and, from it, of a worker are one: before it in the host,
 * after it in the worker, which has what the interpreter was in the midst of the host's fork. The
 * supervisor never comes out of it; what Python and the hooks of modules do in a new process costs
 * as much as the fork itself, and all workers would wait for it. Where the supervisor is a program
 * of its own, each worker is a fork of its interpreter. */
static pid_t host_fork(void *context)
{
    Workers *workers = context;
    bool in_midst = workers->in_midst_of_fork;
    bool from_host = !in_midst && !workers->handle->in_worker;
    if (!in_midst)
        PyOS_BeforeFork();
    pid_t child = fork();
    int error = errno;
    if (child == 0 && from_host) {
        workers->in_midst_of_fork = true;
    } else if (child == 0) {
        workers->in_midst_of_fork = false;
        PyOS_AfterFork_Child();
    } else if (!in_midst) {
        PyOS_AfterFork_Parent();
    }
    errno = error;
    return child;
}

const struct pool_host host_hooks = {
    .size = sizeof(struct pool_host),
    .start = host_start,
    .run = call_run,
    .stop = host_stop,
    .release = host_release,
    .acquire = host_acquire,
    .fork = host_fork,
};
