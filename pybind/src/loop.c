/* LoopReader: what one event loop awaits of one pool. It knows nothing of asyncio but the methods
 * of a future: done(), set_result(), set_exception(), cancel(). libpool/aio.py does the rest.
 *
 * No thread serves it: the loop calls deliver() when one of the descriptors is readable. The loop
 * holds the reader, by that callback, and nothing else does: so when the loop is closed the reader
 * goes, and with it what was awaited. Those jobs run all the same, and nobody collects them.
 *
 * Other threads touch `ended` and `sweep` only, see announce.c. */
#include "core.h"

#include <sys/eventfd.h>
#include <unistd.h>

/* ---- Awaited: one job, and the loop's future that gets its outcome --------------------------- */

static int awaited_traverse(PyObject *self, visitproc visit, void *arg)
{
    Awaited *awaited = (Awaited *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(awaited->job);
    Py_VISIT(awaited->awaiter);
    return 0;
}

static int awaited_clear(PyObject *self)
{
    Awaited *awaited = (Awaited *)self;
    Py_CLEAR(awaited->job);
    Py_CLEAR(awaited->awaiter);
    return 0;
}

static void awaited_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    awaited_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Ends the waiting: takes it out of `pending`. The job and the awaiter, which may be NULL, are the
 * caller's. Nothing is freed. */
static Future *awaited_take(Awaited *awaited, PyObject **awaiter)
{
    Future *job = awaited->job;
    LoopReader *reader = awaited->reader;
    *awaiter = awaited->awaiter;
    awaited->job = NULL;
    awaited->awaiter = NULL;
    awaited->reader = NULL;
    if (!reader || !job)
        return job;
    PyObject *pending = errors_take();
    PyObject *index = PyLong_FromUnsignedLong(job->index);
    if (!index || PyDict_DelItem(reader->pending, index) < 0)
        PyErr_WriteUnraisable((PyObject *)awaited); /* it stays, without a job */
    Py_XDECREF(index);
    if (pending)
        errors_restore(pending);
    return job;
}

PyDoc_STRVAR(awaited_cancel_doc, "cancel($self, kill, /)\n--\n\n"
"Stop awaiting the job: its outcome is dropped. One that waits does not run; one that\n"
"runs goes on, or, with `kill`, ends with its worker.\n");

static PyObject *awaited_cancel(PyObject *self, PyObject *kill)
{
    Awaited *awaited = (Awaited *)self;
    int killing = PyObject_IsTrue(kill);
    if (killing < 0)
        return NULL;
    if (awaited->reader && awaited->reader->handle && awaited->reader->handle->closed)
        event_write(awaited->reader->wake); /* it may be the last one: deliver() looks */
    PyObject *awaiter;
    Future *job = awaited_take(awaited, &awaiter);
    int cancelled = job && job->state == FUTURE_WAITING ? future_cancel_waiting(job) : 1;
    if (cancelled == 0 && killing && job->state == FUTURE_WAITING) {
        struct pool_future running = future_job(job);
        int error = pool_future_kill(&running);
        if (error < 0 && error != -EBUSY && error != -ESTALE) {
            errors_set(job->handle->core, error);
            cancelled = -1;
        }
    }
    Py_XDECREF(job);
    Py_XDECREF(awaiter);
    return cancelled < 0 ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef awaited_methods[] = {
    {"cancel", awaited_cancel, METH_O, awaited_cancel_doc},
    {NULL},
};

static PyType_Slot awaited_slots[] = {
    {Py_tp_traverse, SLOT(awaited_traverse)},
    {Py_tp_clear, SLOT(awaited_clear)},
    {Py_tp_dealloc, SLOT(awaited_dealloc)},
    {Py_tp_methods, awaited_methods},
    {0, NULL},
};

PyType_Spec awaited_spec = {
    .name = "libpool._core._Awaited",
    .basicsize = sizeof(Awaited),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = awaited_slots,
};

/* ---- Handing over ---------------------------------------------------------------------------- */

/* A future of asyncio can't have a StopIteration, which would end the coroutine that awaits it. */
static PyObject *presentable(PyObject *exception)
{
    if (!PyErr_GivenExceptionMatches(exception, PyExc_StopIteration))
        return Py_NewRef(exception);
    PyObject *other =
        PyObject_CallFunction(PyExc_RuntimeError, "s", "the job raised StopIteration");
    if (other)
        PyException_SetCause(other, Py_NewRef(exception));
    return other;
}

static PyObject *tell_awaiter(Core *core, PyObject *awaiter, const Future *job)
{
    PyObject *content = job->content ? job->content : Py_None;
    if (job->state == FUTURE_RESULT)
        return PyObject_CallMethodOneArg(awaiter, core->name_set_result, content);
    if (job->state != FUTURE_EXCEPTION || !job->content)
        return PyObject_CallMethodNoArgs(awaiter, core->name_cancel);
    PyObject *exception = presentable(content);
    if (!exception)
        return NULL;
    PyObject *told = PyObject_CallMethodOneArg(awaiter, core->name_set_exception, exception);
    Py_DECREF(exception);
    return told;
}

/* For one whose job has ended. -1 with an exception that is not the job's; while the job is still
 * there, it is to be done again. */
static int hand_over(Core *core, Awaited *awaited)
{
    Future *job = awaited->job;
    if (!job)
        return 0; /* cancelled, or handed over by way of a second hint */
    Py_INCREF(job);
    int failed = job->state == FUTURE_WAITING ? future_collect(job) : 0;
    Py_DECREF(job);
    if (failed)
        return -1;
    PyObject *awaiter;
    job = awaited_take(awaited, &awaiter); /* decoding runs Python code: it may be cancelled now */
    if (!job)
        return 0;
    PyObject *done = PyObject_CallMethodNoArgs(awaiter, core->name_done);
    if (done == Py_False)
        Py_SETREF(done, tell_awaiter(core, awaiter, job));
    failed = done ? 0 : -1;
    Py_XDECREF(done);
    Py_DECREF(job);
    Py_DECREF(awaiter);
    return failed;
}

/* Adds those that have ended, announced or not. */
static int sweep(LoopReader *reader)
{
    PyObject *all = PyDict_Values(reader->pending);
    int failed = all ? 0 : -1;
    for (Py_ssize_t i = 0; !failed && i < PyList_GET_SIZE(all); i++) {
        Awaited *awaited = (Awaited *)PyList_GET_ITEM(all, i);
        if (!awaited->job)
            continue;
        int ended = awaited->job->state == FUTURE_WAITING ? future_job_ended(awaited->job) : 1;
        if (ended)
            failed = ended < 0 ? -1 : PyList_Append(reader->ended, (PyObject *)awaited);
    }
    Py_XDECREF(all);
    return failed;
}

/* 0, or -1 with an exception for the loop; what is left then comes with the next call. */
static int deliver(LoopReader *reader)
{
    if (reader->sweep) {
        reader->sweep = false;
        if (sweep(reader) < 0)
            return -1;
    }
    PyObject *fresh = PyList_New(0);
    if (!fresh)
        return -1;
    PyObject *ended = reader->ended;
    reader->ended = fresh;
    int failed = 0;
    for (Py_ssize_t i = 0; !failed && i < PyList_GET_SIZE(ended); i++)
        failed = hand_over(reader->core, (Awaited *)PyList_GET_ITEM(ended, i));
    Py_DECREF(ended);
    return failed;
}

PyDoc_STRVAR(deliver_doc, "deliver($self, /)\n--\n\n"
"To be called by the loop when a descriptor is readable: tells the futures of ended jobs.\n\n"
"Calls retire() when the pool is closed and nothing is awaited any more.\n");

static PyObject *loop_deliver(PyObject *self, PyObject *Py_UNUSED(unused))
{
    LoopReader *reader = (LoopReader *)self;
    Handle *handle = reader->handle;
    if (!handle || handle_inherited(handle))
        Py_RETURN_NONE; /* in a process that forked here, what is announced is not for it */
    event_drain(reader->wake);
    handle_take_announced(handle, reader);
    Py_INCREF((PyObject *)handle); /* what is unpickled may do anything */
    int failed = deliver(reader);
    bool last = handle->closed && PyDict_GET_SIZE(reader->pending) == 0;
    Py_DECREF((PyObject *)handle);
    if (failed) {
        /* Ctrl-C in the midst of it leaves the loop. If that runs again, it goes on from there. */
        reader->sweep = true;
        event_write(reader->wake);
        return NULL;
    }
    return last ? PyObject_CallMethodNoArgs(self, reader->core->name_retire) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(deliver_lost_doc, "deliver_lost($self, /)\n--\n\n"
"To be called when the supervisor has ended: finds jobs that ended unannounced, or are lost.\n\n"
"Returns\n-------\n"
"bool\n"
"    True while there are others: call it again in a moment.\n");

static PyObject *loop_deliver_lost(PyObject *self, PyObject *unused)
{
    LoopReader *reader = (LoopReader *)self;
    if (!reader->handle || handle_inherited(reader->handle))
        Py_RETURN_FALSE;
    pool_check(reader->handle->pool); /* what has no result is declared lost */
    reader->handle->closed = true;    /* it is broken, if it was not closed */
    reader->sweep = true;
    PyObject *done = loop_deliver(self, unused);
    Py_XDECREF(done);
    return done ? PyBool_FromLong(PyDict_GET_SIZE(reader->pending) > 0) : NULL;
}

/* ---- Awaiting -------------------------------------------------------------------------------- */

PyDoc_STRVAR(add_doc, "add($self, job, awaiter, /)\n--\n\n"
"Have the outcome of a job go to a future of the loop.\n\n"
"Parameters\n----------\n"
"job : Future\n"
"    Of this pool. Nobody else may have it.\n"
"awaiter : asyncio.Future\n"
"    Is told at once if the job has ended.\n\n"
"Returns\n-------\n"
"object\n"
"    Its cancel(kill) gives up the job.\n");

static PyObject *loop_add(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    LoopReader *reader = (LoopReader *)self;
    Core *core = reader->core;
    if (nargs != 2 || !PyObject_TypeCheck(args[0], core->future_type)) {
        PyErr_SetString(PyExc_TypeError, "add() takes a job's future and a future of the loop");
        return NULL;
    }
    Future *job = (Future *)args[0];
    bool waiting = job->state == FUTURE_WAITING;
    if (waiting && (job->handle != reader->handle || job->watch)) {
        PyErr_SetString(PyExc_ValueError, "the job is another pool's, or is watched already");
        return NULL;
    }
    Awaited *awaited = (Awaited *)core->awaited_type->tp_alloc(core->awaited_type, 0);
    if (!awaited)
        return NULL;
    awaited->job = (Future *)Py_NewRef(args[0]);
    awaited->awaiter = Py_NewRef(args[1]);
    int ended = 1;
    if (waiting) {
        /* Pending before it is marked: from then on another thread may find it announced. */
        PyObject *index = PyLong_FromUnsignedLong(job->index);
        ended = index ? PyDict_SetItem(reader->pending, index, (PyObject *)awaited) : -1;
        Py_XDECREF(index);
        if (ended == 0) {
            awaited->reader = reader;
            struct pool_future marked = future_job(job);
            ended = pool_future_notify(&marked);
            if (ended < 0)
                errors_set(core, ended);
        }
    }
    if (ended == 0 || (ended > 0 && hand_over(core, awaited) == 0))
        return (PyObject *)awaited;
    PyObject *awaiter = NULL;
    Py_XDECREF(awaited_take(awaited, &awaiter));
    Py_XDECREF(awaiter);
    Py_DECREF(awaited);
    return NULL;
}

/* ---- The reader ------------------------------------------------------------------------------ */

static Handle *handle_of(Core *core, PyObject *workers)
{
    if (!PyObject_TypeCheck(workers, core->workers_type)) {
        PyErr_Format(PyExc_TypeError, "expected Workers, not %.100s", Py_TYPE(workers)->tp_name);
        return NULL;
    }
    Handle *handle = ((Workers *)workers)->handle;
    if (!handle)
        PyErr_SetString(PyExc_RuntimeError, "the pool has not been started");
    return handle;
}

static PyObject *loop_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    Core *core = core_of(type);
    PyObject *workers, *loop;
    if (!core || !PyArg_ParseTuple(args, "OO:LoopReader", &workers, &loop))
        return NULL;
    Handle *handle = handle_of(core, workers);
    LoopReader *reader = handle ? (LoopReader *)type->tp_alloc(type, 0) : NULL;
    if (!reader)
        return NULL;
    reader->core = core;
    reader->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    reader->loop = Py_NewRef(loop);
    reader->pending = PyDict_New();
    reader->ended = PyList_New(0);
    if (reader->wake < 0)
        PyErr_SetFromErrno(PyExc_OSError);
    if (reader->wake < 0 || !reader->pending || !reader->ended) {
        Py_DECREF(reader);
        return NULL;
    }
    reader->handle = (Handle *)Py_NewRef((PyObject *)handle);
    reader->next = handle->loops;
    handle->loops = reader;
    return (PyObject *)reader;
}

/* Takes the reader off the pool, which may be freed by this. */
static void leave(LoopReader *reader)
{
    Handle *handle = reader->handle;
    if (!handle)
        return;
    LoopReader **link = &handle->loops;
    while (*link != reader)
        link = &(*link)->next;
    *link = reader->next;
    reader->handle = NULL;
    Py_DECREF(handle);
}

static int loop_traverse(PyObject *self, visitproc visit, void *arg)
{
    LoopReader *reader = (LoopReader *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(reader->loop);
    Py_VISIT(reader->pending);
    Py_VISIT(reader->ended);
    return 0;
}

static int loop_clear(PyObject *self)
{
    LoopReader *reader = (LoopReader *)self;
    PyObject *pending = reader->pending, *awaited;
    Py_ssize_t position = 0;
    leave(reader);
    /* Nobody else has the dict from here on, whatever code is run by what is freed. */
    reader->pending = NULL;
    while (pending && PyDict_Next(pending, &position, NULL, &awaited)) {
        /* An awaiter refers to what it is awaited by. Without that cycle, the jobs and the memory
         * of their results are given back at once. */
        PyObject *awaiter;
        ((Awaited *)awaited)->reader = NULL;
        Py_XDECREF(awaited_take((Awaited *)awaited, &awaiter));
        Py_XDECREF(awaiter);
    }
    Py_XDECREF(pending);
    Py_CLEAR(reader->loop);
    Py_CLEAR(reader->ended);
    return 0;
}

static void loop_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    loop_clear(self);
    if (((LoopReader *)self)->wake >= 0)
        close(((LoopReader *)self)->wake);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(leave_doc, "leave($self, /)\n--\n\n"
"Let go of the pool. Of use when nothing is awaited any more.\n");

static PyObject *loop_leave(PyObject *self, PyObject *Py_UNUSED(unused))
{
    leave((LoopReader *)self);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(find_doc, "find($type, workers, loop, /)\n--\n\n"
"Return the reader that this loop has for this pool, or None.\n");

static PyObject *loop_find(PyObject *type, PyObject *const *args, Py_ssize_t nargs)
{
    Core *core = core_of((PyTypeObject *)type);
    if (core && nargs != 2)
        PyErr_SetString(PyExc_TypeError, "find() takes the pool and the loop");
    Handle *handle = core && nargs == 2 ? handle_of(core, args[0]) : NULL;
    if (!handle)
        return NULL;
    for (LoopReader *reader = handle->loops; reader; reader = reader->next)
        if (reader->loop == args[1])
            return Py_NewRef((PyObject *)reader);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(descriptors_doc, "descriptors($type, workers, /)\n--\n\n"
"Return the two descriptors that every loop watches: the pool's announcements, and the end of its\n"
"supervisor. None in a worker of the pool, where nothing is announced.\n");

static PyObject *loop_descriptors(PyObject *type, PyObject *workers)
{
    Core *core = core_of((PyTypeObject *)type);
    Handle *handle = core ? handle_of(core, workers) : NULL;
    if (!handle)
        return NULL;
    if (handle->in_worker)
        Py_RETURN_NONE;
    return Py_BuildValue("(ii)", pool_notify_fd(handle->pool), pool_supervisor_fd(handle->pool));
}

static PyMethodDef loop_methods[] = {
    {"add", (PyCFunction)(void (*)(void))loop_add, METH_FASTCALL, add_doc},
    {"deliver", loop_deliver, METH_NOARGS, deliver_doc},
    {"deliver_lost", loop_deliver_lost, METH_NOARGS, deliver_lost_doc},
    {"leave", loop_leave, METH_NOARGS, leave_doc},
    {"find", (PyCFunction)(void (*)(void))loop_find, METH_FASTCALL | METH_CLASS, find_doc},
    {"descriptors", loop_descriptors, METH_O | METH_CLASS, descriptors_doc},
    {NULL},
};

static PyObject *get_wake(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((LoopReader *)self)->wake);
}

static PyGetSetDef loop_properties[] = {
    {"wake", get_wake, NULL, "The descriptor of this reader alone.", NULL},
    {NULL},
};

PyDoc_STRVAR(loop_doc, "LoopReader(workers, loop, /)\n--\n\n"
"What an event loop awaits of a pool. A subclass has retire(), which takes it off the loop.\n");

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, (void *)loop_doc},         {Py_tp_new, SLOT(loop_new)},
    {Py_tp_traverse, SLOT(loop_traverse)}, {Py_tp_clear, SLOT(loop_clear)},
    {Py_tp_dealloc, SLOT(loop_dealloc)},   {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_properties},       {0, NULL},
};

PyType_Spec loop_spec = {
    .name = "libpool._core.LoopReader",
    .basicsize = sizeof(LoopReader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = loop_slots,
};
