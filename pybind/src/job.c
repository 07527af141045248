/* A future's job: waiting for its end, and the one moment at which the future becomes final.
 *
 * The GIL protects a future's state. Two things let go of it in between: decoding a result, hence
 * the state COLLECTING, and taking a condition, hence the second look at the state after it. */
#include "core.h"

#include <time.h>

int future_job_ended(Future *future)
{
    struct pool_future job = future_job(future);
    int outcome = pool_future_outcome(&job, NULL);
    if (outcome >= 0)
        return outcome >= POOL_FINISHED;
    errors_set(future->handle->core, outcome);
    return -1;
}

/* A worker's thread other than the one on which the library runs jobs can't run some while it
 * waits: it looks again from time to time. */
static int wait_in_side_thread(int64_t deadline)
{
    if (monotonic_now() >= deadline)
        return 1;
    Py_BEGIN_ALLOW_THREADS
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    Py_END_ALLOW_THREADS
    return PyErr_CheckSignals();
}

/* A signal that arrives between two sleeps of the library ends neither of them. So the main thread,
 * where the handlers of Python run, comes back from time to time to look. */
#define LOOK_FOR_SIGNALS 50000000

int64_t sleep_until(int64_t deadline, bool main_thread)
{
    int64_t timeout = POOL_FOREVER;
    if (deadline != POOL_FOREVER) {
        timeout = deadline - monotonic_now();
        if (timeout < 0)
            timeout = 0;
    }
    return main_thread && timeout > LOOK_FOR_SIGNALS ? LOOK_FOR_SIGNALS : timeout;
}

int future_wait(Future *future, int64_t deadline)
{
    Handle *handle = future->handle;
    struct pool_future job = future_job(future);
    unsigned long thread = PyThread_get_thread_ident();
    int64_t timeout = sleep_until(deadline, thread == handle->main_thread);
    int error;
    Py_INCREF(
        handle); /* another thread may collect meanwhile, and the pool has to outlive the wait */
    if (!handle->in_worker) {
        Py_BEGIN_ALLOW_THREADS
        error = pool_future_wait(&job, timeout);
        Py_END_ALLOW_THREADS
    } else if (thread == handle->main_thread) {
        /* It runs other jobs meanwhile, for which it needs the GIL; where it sleeps, it calls the
         * hooks that let go of it. */
        error = pool_future_wait(&job, timeout);
    } else {
        Py_DECREF(handle);
        return wait_in_side_thread(deadline);
    }
    Core *core = handle->core;
    Py_DECREF(handle);
    if (error == 0 || error == -ESTALE)
        return 0;
    if (error == -EINTR || error == -ETIMEDOUT) {
        if (PyErr_CheckSignals() < 0)
            return -1;
        return error == -ETIMEDOUT && deadline != POOL_FOREVER && monotonic_now() >= deadline;
    }
    errors_set(core, error);
    return -1;
}

void future_unwatch(Future *future)
{
    PyObject *pending = errors_take(); /* this is called on the way of exceptions too */
    PyObject *watched = future->handle->watched;
    PyObject *index = PyLong_FromUnsignedLong(future->index);
    if (index && PyDict_GetItemWithError(watched, index) == (PyObject *)future)
        PyDict_DelItem(watched, index);
    if (PyErr_Occurred())
        PyErr_WriteUnraisable((PyObject *)future);
    Py_XDECREF(index);
    if (pending)
        errors_restore(pending);
}

/* Gives the job back. What is returned is to be released when the future is in order again, since
 * the end of the pool lets other threads run. */
static Handle *detach(Future *future)
{
    Handle *handle = future->handle;
    if (!handle)
        return NULL;
    struct pool_future job = future_job(future);
    if (future->watch)
        future_unwatch(future);
    future->handle = NULL;
    /* A Block releases the job, or block_sweep(). */
    bool kept = future->lent;
    if (future->pinned)
        kept |= !block_unpin(handle, &job);
    if (!kept)
        pool_future_release(&job);
    return handle;
}

void future_drop_job(Future *future)
{
    Handle *handle = detach(future);
    if (handle && !future_ended(future))
        future->state = FUTURE_CANCELLED_AND_NOTIFIED;
    Py_XDECREF(handle);
}

int future_collect(Future *future)
{
    PyObject *content;
    future->state = FUTURE_COLLECTING;
    int state = outcome_take(future, &content);
    if (state >= 0) {
        future_publish(future, state, content);
        return 0;
    }
    if (future->state == FUTURE_COLLECTING && !future->watch) {
        future->state = FUTURE_WAITING;
        return -1;
    }
    PyObject *exception = errors_take();
    future_publish(future, FUTURE_EXCEPTION, Py_NewRef(exception));
    errors_restore(exception);
    return -1;
}

void future_publish(Future *future, int state, PyObject *content)
{
    Core *core = PyType_GetModuleState(Py_TYPE(future));
    PyObject *condition;
    /* A signal handler that raises here must not keep those who wait from learning the state. */
    while (watch_lock(future, &condition) < 0)
        PyErr_WriteUnraisable((PyObject *)future);
    if (future->state != FUTURE_COLLECTING) { /* set_result() by somebody else */
        watch_unlock(core, condition);
        Py_XDECREF(content);
        return;
    }
    Handle *handle = detach(future);
    PyObject *who = future->content;
    future->content = content;
    future->state = (uint8_t)state;
    if (content && PyObject_IS_GC(content))
        future_track(future);
    if (condition)
        watch_announce(future);
    watch_unlock(core, condition);
    Py_XDECREF(who);
    Py_XDECREF(handle);
    if (watch_run_callbacks(future) < 0)
        PyErr_WriteUnraisable((PyObject *)future);
}

PyObject *future_failed(Core *core, PyObject *exception)
{
    Future *future = (Future *)core->future_type->tp_alloc(core->future_type, 0);
    if (!future) {
        Py_DECREF(exception);
        return NULL;
    }
    future->state = FUTURE_EXCEPTION;
    future->spent = SPENT_NEVER_SENT;
    future->content = exception;
    return (PyObject *)future;
}

int future_cancel_waiting(Future *future)
{
    Core *core = future->handle->core;
    PyObject *condition;
    if (watch_lock(future, &condition) < 0)
        return -1;
    if (future->state != FUTURE_WAITING) {
        watch_unlock(core, condition);
        return 0; /* another thread was faster */
    }
    struct pool_future job = future_job(future);
    int error = pool_future_cancel(&job);
    if (error < 0) {
        watch_unlock(core, condition);
        if (error == -EBUSY)
            return 0;
        errors_set(core, error);
        return -1;
    }
    Handle *handle = detach(future);
    PyObject *who = future->content;
    future->content = NULL;
    future->state = FUTURE_CANCELLED_AND_NOTIFIED;
    if (condition)
        watch_announce(future);
    watch_unlock(core, condition);
    Py_XDECREF(who);
    Py_XDECREF(handle);
    return watch_run_callbacks(future) < 0 ? -1 : 1;
}
