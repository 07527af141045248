/* What the library announces, and whom it is for.
 *
 * A pool has one descriptor and one queue of announcements, but several may wait: the collector's
 * thread, and any number of event loops, each in a thread of its own. All of them watch the
 * descriptor, and whoever is woken first takes everything from the queue and tells each job to its
 * consumer. So a loop that does not run now holds up nobody.
 *
 * Handle.watched and LoopReader.pending are the truth about who waits for what; the lists of ended
 * ones are hints, which may be stale or doubled. A list that is not empty has its consumer woken:
 * who puts the first one in writes the consumer's eventfd.
 *
 * All of this runs with the GIL and without letting go of it, and nothing here frees an object. */
#include "core.h"

#include <unistd.h>

void event_drain(int descriptor)
{
    uint64_t counter;
    ssize_t got = read(descriptor, &counter, sizeof counter);
    (void)got; /* nothing in it is fine as well */
}

void event_write(int descriptor)
{
    ssize_t written = write(descriptor, &(uint64_t){1}, sizeof(uint64_t));
    (void)written; /* fails only when the counter is at its maximum: it is readable then */
}

/* True when the list's consumer has to be woken. Where memory is out, `sweep` makes up for it. */
static bool put(PyObject *list, PyObject *object, bool *sweep)
{
    bool first = PyList_GET_SIZE(list) == 0;
    if (PyList_Append(list, object) == 0)
        return first;
    PyErr_Clear();
    *sweep = true;
    return true;
}

static bool tell_collector(Handle *handle, PyObject *index, uint32_t generation, bool is_taker)
{
    PyObject *found = PyDict_GetItemWithError(handle->watched, index);
    if (!found || ((Future *)found)->generation != generation)
        return false;
    if (put(handle->ended, found, &handle->sweep) && !is_taker)
        event_write(handle->wake);
    return true;
}

static bool tell_loop(LoopReader *reader, PyObject *index, uint32_t generation, bool is_taker)
{
    PyObject *found = PyDict_GetItemWithError(reader->pending, index);
    Future *job = found ? ((Awaited *)found)->job : NULL; /* NULL: the reader is being cleared */
    if (!job || job->generation != generation)
        return false;
    if (put(reader->ended, found, &reader->sweep) && !is_taker)
        event_write(reader->wake);
    return true;
}

static void tell(Handle *handle, const struct pool_future *job, LoopReader *taker)
{
    PyObject *index = PyLong_FromUnsignedLong(job->index);
    if (!index) {
        PyErr_Clear();
        handle->sweep = true;
        handle_wake(handle);
        return;
    }
    /* The taker first: mostly there is only one. */
    bool told = (taker && tell_loop(taker, index, job->generation, true)) ||
                tell_collector(handle, index, job->generation, !taker);
    for (LoopReader *reader = handle->loops; !told && reader; reader = reader->next)
        told = tell_loop(reader, index, job->generation, false);
    /* Nobody's: it is announced for the second time, or was cancelled or dropped. */
    PyErr_Clear();
    Py_DECREF(index);
}

void handle_take_announced(Handle *handle, LoopReader *taker)
{
    struct pool_future job;
    event_drain(pool_notify_fd(handle->pool));
    while (pool_next_completed(handle->pool, &job) == 1)
        tell(handle, &job, taker);
}
