/* The thread that serves watched futures: those that have callbacks, or that somebody waits for
 * through concurrent.futures. It exists only where there are such futures. */
#include "core.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Between looks at jobs that the library has not yet declared lost after the supervisor's end. */
#define AFTER_THE_END_MS 10

static void remember(Handle *handle)
{
    collector_forget(handle);
    handle->next_collecting = handle->core->collecting;
    handle->core->collecting = handle;
}

void collector_forget(Handle *handle)
{
    for (Handle **link = &handle->core->collecting; *link; link = &(*link)->next_collecting)
        if (*link == handle) {
            *link = handle->next_collecting;
            return;
        }
}

int collector_start(Handle *handle)
{
    if (handle->collecting) {
        if (handle->resting)
            event_write(handle->wake);
        return 0;
    }
    if (handle->wake < 0) {
        handle->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (handle->wake < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
    }
    /* Set first: Thread.start() lets other threads run, and they must not start a second one. */
    handle->collecting = true;
    remember(handle);
    PyObject *arguments = PyTuple_New(0);
    PyObject *keywords = Py_BuildValue("{s:N,s:s,s:O}", "target",
                                       PyObject_GetAttrString((PyObject *)handle, "collect"),
                                       "name", "libpool-collector", "daemon", Py_True);
    PyObject *thread =
        arguments && keywords ? PyObject_Call(handle->core->thread, arguments, keywords) : NULL;
    PyObject *started = thread ? PyObject_CallMethod(thread, "start", NULL) : NULL;
    Py_XDECREF(arguments);
    Py_XDECREF(keywords);
    /* A signal handler may have raised when the thread was there already: see collector_run(). */
    if (!started && !handle->in_collector) {
        handle->collecting = false;
        collector_forget(handle);
    }
    /* Not before the start: a thread can't be joined then. It may have run and noted itself. */
    if (started && !handle->in_collector)
        Py_XSETREF(handle->collector, Py_NewRef(thread));
    Py_XDECREF(thread);
    Py_XDECREF(started);
    return started ? 0 : -1;
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

/* Those that were announced, whoever took them from the library. */
static void deliver_announced(Handle *handle)
{
    PyObject *ended = handle->ended;
    PyObject *fresh = PyList_GET_SIZE(ended) > 0 ? PyList_New(0) : NULL;
    if (!fresh) {
        if (PyErr_Occurred()) {
            PyErr_WriteUnraisable((PyObject *)handle);
            event_write(handle->wake); /* they are still there */
        }
        return;
    }
    handle->ended = fresh;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(ended); i++)
        deliver((Future *)PyList_GET_ITEM(ended, i));
    Py_DECREF(ended);
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
    /* When a signal handler raised in Thread.start() nobody could know whether this thread would
     * come to run, and there may be another. It is the one that runs that is waited for. */
    if (handle->in_collector)
        Py_RETURN_NONE;
    PyObject *thread = PyObject_CallNoArgs(handle->core->current_thread);
    if (!thread)
        return NULL;
    Py_XSETREF(handle->collector, thread);
    handle->in_collector = handle->collecting = true;
    remember(handle);
    struct pollfd on[] = {
        {.events = POLLIN},
        {.fd = handle->wake, .events = POLLIN},
        {.fd = pool_supervisor_fd(handle->pool), .events = POLLIN},
    };
    bool pool_ended = false;
    for (;;) {
        /* While loops alone have something to wait for, no thread is woken for them. */
        handle->resting = handle->loops && PyDict_GET_SIZE(handle->watched) == 0;
        on[0].fd = handle->resting ? -1 : pool_notify_fd(handle->pool);
        Py_BEGIN_ALLOW_THREADS
        poll(on, 3, pool_ended ? AFTER_THE_END_MS : -1);
        Py_END_ALLOW_THREADS
        if (on[1].revents)
            event_drain(handle->wake);
        if (on[2].revents) {
            pool_ended = true;
            on[2].fd = -1; /* it stays readable for ever */
        }
        if (pool_ended)
            pool_check(handle->pool); /* what has no result is declared lost */
        handle_take_announced(handle, NULL);
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
    handle->in_collector = handle->collecting = false;
    collector_forget(handle);
    Py_RETURN_NONE;
}

int collector_finish(Core *core)
{
    for (;;) {
        Handle *handle = core->collecting;
        while (handle && (!handle->closed || handle_inherited(handle)))
            handle = handle->next_collecting;
        if (!handle)
            return 0;
        Py_INCREF(handle);
        int failed = collector_join(handle, -1);
        collector_forget(handle); /* it has done so itself, unless it has yet to begin */
        Py_DECREF(handle);
        if (failed < 0)
            return -1;
    }
}
