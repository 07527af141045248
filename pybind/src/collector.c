/* The thread that serves watched futures: those that have callbacks, or that somebody waits for
 * through concurrent.futures. It exists only where there are such futures. */
#include "core.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Between looks at jobs that the library has not yet declared lost after the supervisor's end. */
#define AFTER_THE_END_MS 10

int collector_start(Handle *handle)
{
    if (handle->collecting)
        return 0;
    if (handle->wake < 0) {
        handle->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (handle->wake < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
    }
    /* Set first: Thread.start() lets other threads run, and they must not start a second one. */
    handle->collecting = true;
    PyObject *arguments = PyTuple_New(0);
    PyObject *keywords = Py_BuildValue("{s:N,s:s,s:O}", "target",
                                       PyObject_GetAttrString((PyObject *)handle, "collect"),
                                       "name", "libpool-collector", "daemon", Py_True);
    PyObject *thread =
        arguments && keywords ? PyObject_Call(handle->core->thread, arguments, keywords) : NULL;
    PyObject *started = thread ? PyObject_CallMethod(thread, "start", NULL) : NULL;
    Py_XDECREF(arguments);
    Py_XDECREF(keywords);
    if (!started) {
        Py_XDECREF(thread);
        handle->collecting = false;
        return -1;
    }
    Py_DECREF(started);
    Py_XSETREF(handle->collector, thread);
    return 0;
}

int collector_join(Handle *handle, double timeout)
{
    if (!handle->collector)
        return 0;
    handle_wake(handle);
    PyObject *thread = Py_NewRef(handle->collector);
    PyObject *result = NULL, *alive = NULL;
    PyObject *identifier = PyObject_GetAttrString(thread, "ident");
    int ended = -1;
    if (!identifier)
        goto done;
    if (PyLong_Check(identifier) &&
        PyLong_AsUnsignedLong(identifier) == PyThread_get_thread_ident()) {
        ended = 0; /* a callback that joins its pool: it can't wait for itself */
        goto done;
    }
    result = timeout < 0 ? PyObject_CallMethod(thread, "join", NULL)
                         : PyObject_CallMethod(thread, "join", "d", timeout);
    alive = result ? PyObject_CallMethod(thread, "is_alive", NULL) : NULL;
    if (alive)
        ended = PyObject_IsTrue(alive);
done:
    Py_XDECREF(identifier);
    Py_XDECREF(result);
    Py_XDECREF(alive);
    Py_DECREF(thread);
    return ended;
}

static void deliver(Future *future)
{
    if (future->state != FUTURE_WAITING)
        return; /* another thread is at it */
    Py_INCREF(future);
    if (future_collect(future) < 0)
        PyErr_WriteUnraisable((PyObject *)future);
    Py_DECREF(future);
}

/* Those that the library announces. */
static void deliver_announced(Handle *handle)
{
    struct pool_future job;
    while (pool_next_completed(handle->pool, &job) == 1) {
        PyObject *index = PyLong_FromUnsignedLong(job.index);
        PyObject *found = index ? PyDict_GetItemWithError(handle->watched, index) : NULL;
        if (found && ((Future *)found)->generation == job.generation)
            deliver((Future *)found);
        else if (PyErr_Occurred())
            PyErr_WriteUnraisable((PyObject *)handle);
        Py_XDECREF(index);
    }
}

/* All that have ended, announced or not. */
static void deliver_ended(Handle *handle)
{
    PyObject *futures = PyDict_Values(handle->watched);
    Py_ssize_t count = futures ? PyList_GET_SIZE(futures) : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Future *future = (Future *)PyList_GET_ITEM(futures, i);
        if (future->state == FUTURE_WAITING && future_job_ended(future) == 1)
            deliver(future);
    }
    if (PyErr_Occurred())
        PyErr_WriteUnraisable((PyObject *)handle);
    Py_XDECREF(futures);
}

/* Empties an eventfd. */
static void drain(int descriptor)
{
    uint64_t counter;
    ssize_t got = read(descriptor, &counter, sizeof counter);
    (void)got; /* nothing in it is fine as well */
}

int collector_defer(Handle *handle, Future *future, PyObject *callback)
{
    PyObject *pair = PyTuple_Pack(2, future, callback);
    if (!handle->deferred)
        handle->deferred = PyList_New(0);
    int failed = pair && handle->deferred ? PyList_Append(handle->deferred, pair) : -1;
    Py_XDECREF(pair);
    if (failed < 0 || collector_start(handle) < 0)
        return -1;
    handle_wake(handle);
    return 0;
}

/* Callbacks of futures that were final when they were added. */
static void call_deferred(Handle *handle)
{
    while (handle->deferred) {
        PyObject *pairs = handle->deferred;
        handle->deferred = NULL; /* a callback may add more */
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pairs); i++) {
            PyObject *pair = PyList_GET_ITEM(pairs, i);
            Future *future = (Future *)PyTuple_GET_ITEM(pair, 0);
            if (watch_run_callback(future, PyTuple_GET_ITEM(pair, 1)) < 0)
                PyErr_WriteUnraisable((PyObject *)future);
        }
        Py_DECREF(pairs);
    }
}

PyObject *collector_run(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Handle *handle = (Handle *)self;
    struct pollfd on[] = {
        {.fd = pool_notify_fd(handle->pool), .events = POLLIN},
        {.fd = handle->wake, .events = POLLIN},
        {.fd = pool_supervisor_fd(handle->pool), .events = POLLIN},
    };
    bool pool_ended = false;
    for (;;) {
        Py_BEGIN_ALLOW_THREADS
        poll(on, 3, pool_ended ? AFTER_THE_END_MS : -1);
        Py_END_ALLOW_THREADS
        if (on[1].revents)
            drain(handle->wake);
        if (on[0].revents)
            drain(on[0].fd);
        if (on[2].revents) {
            pool_ended = true;
            on[2].fd = -1; /* it stays readable for ever */
        }
        if (pool_ended)
            pool_check(handle->pool); /* what has no result is declared lost */
        deliver_announced(handle);
        if (handle->sweep || pool_ended) {
            handle->sweep = false;
            deliver_ended(handle);
        }
        call_deferred(handle);
        if (PyDict_Size(handle->watched) == 0 && !handle->deferred &&
            (handle->closed || pool_ended))
            break;
    }
    /* Nothing runs between the look at `watched` and this, so what is watched next starts a new
     * thread. */
    handle->collecting = false;
    Py_RETURN_NONE;
}
