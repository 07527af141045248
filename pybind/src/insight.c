/* Workers.stats: what the pool tells about itself. */
#include "core.h"

int workers_get_stats(PyObject *self, struct pool_stats *stats)
{
    Workers *workers = (Workers *)self;
    if (!workers->handle) {
        PyErr_SetString(PyExc_RuntimeError, "the pool has not been started");
        return -1;
    }
    *stats = (struct pool_stats){.size = sizeof *stats};
    int error;
    Py_BEGIN_ALLOW_THREADS /* a million waiting jobs take some milliseconds */
    error = pool_get_stats(workers->handle->pool, stats);
    Py_END_ALLOW_THREADS
    if (error < 0)
        errors_set(workers->core, error);
    return error < 0 ? -1 : 0;
}

const char workers_stats_doc[] =
    "stats($self, /)\n--\n\n"
    "Return what the pool has done and is doing, as a dict; see libpool.Stats.\n";

static PyObject *seconds(int64_t time)
{
    return PyFloat_FromDouble((double)time / 1e9);
}

static PyObject *worker_stats(struct pool *pool, int worker)
{
    struct pool_worker_stats stats = {.size = sizeof stats};
    pool_get_worker_stats(pool, worker, &stats);
    return Py_BuildValue(
        "{s:l,s:K,s:K,s:K,s:K,s:K,s:K,s:N,s:N}", "pid", (long)stats.pid, "jobs_running",
        (unsigned long long)stats.jobs_running, "jobs_started",
        (unsigned long long)stats.jobs_started, "jobs_done", (unsigned long long)stats.jobs_done,
        "jobs_failed", (unsigned long long)stats.jobs_failed, "bytes_in",
        (unsigned long long)stats.bytes_in, "bytes_out", (unsigned long long)stats.bytes_out,
        "busy_time", seconds(stats.busy_time), "idle_time", seconds(stats.idle_time));
}

PyObject *workers_stats(PyObject *self, PyObject *Py_UNUSED(unused))
{
    struct pool_stats stats;
    if (workers_get_stats(self, &stats) < 0)
        return NULL;
    PyObject *each = PyList_New(stats.workers);
    for (int i = 0; each && i < stats.workers; i++) {
        PyObject *one = worker_stats(((Workers *)self)->handle->pool, i);
        if (one)
            PyList_SET_ITEM(each, i, one);
        else
            Py_CLEAR(each);
    }
    if (!each)
        return NULL;
    return Py_BuildValue(
        "{s:i,s:i,s:l,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:N,s:N,s:K,s:K,s:N}", "workers",
        stats.workers, "alive", stats.alive, "supervisor", (long)stats.supervisor,
        "workers_started", (unsigned long long)stats.workers_started, "jobs_waiting",
        (unsigned long long)stats.jobs_waiting, "jobs_running",
        (unsigned long long)stats.jobs_running, "jobs_started",
        (unsigned long long)stats.jobs_started, "jobs_done", (unsigned long long)stats.jobs_done,
        "jobs_failed", (unsigned long long)stats.jobs_failed, "jobs_retried",
        (unsigned long long)stats.jobs_retried, "bytes_in", (unsigned long long)stats.bytes_in,
        "bytes_out", (unsigned long long)stats.bytes_out, "busy_time", seconds(stats.busy_time),
        "idle_time", seconds(stats.idle_time), "memory", (unsigned long long)stats.memory,
        "shared_limit", (unsigned long long)stats.shared_limit, "per_worker", each);
}
