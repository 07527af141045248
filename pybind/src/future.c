/* Future: a concurrent.futures.Future that is a job's number until somebody needs more.
 *
 * Who asks an unwatched future for its result waits for the job itself and collects it: no other
 * thread has a part in it. Once the future is watched (watch.c), the collector makes it final, and
 * whoever waits does so on its condition, by the inherited code. */
#include "core.h"

/* ---- Waiting for the result ------------------------------------------------------------------ */

enum { SETTLED, TIMED_OUT, WATCHED };

/* Blocks until the future is final. WATCHED: it can be waited for by the inherited code only, for
 * *left more (owned). -1 with an exception. */
static int settle(Future *future, PyObject *timeout, PyObject **left)
{
    int64_t deadline = -1; /* not known yet: a bad timeout matters only if there is a wait */
    for (;;) {
        if (future_ended(future))
            return SETTLED;
        if (future->state != FUTURE_WAITING || future->watch)
            break;
        int ended = future_job_ended(future);
        if (ended > 0)
            ended = future_collect(future);
        else if (ended == 0) {
            if (deadline < 0) {
                deadline = errors_deadline(timeout);
                if (deadline < 0)
                    return -1;
            }
            ended = future_wait(future, deadline);
            if (ended == 1 && future->state == FUTURE_WAITING && !future->watch)
                return TIMED_OUT;
        }
        if (ended < 0)
            return -1;
    }
    if (future->handle && handle_inherited(future->handle)) {
        errors_set(future->handle->core, -EXDEV);
        return -1;
    }
    if (deadline < 0)
        *left = Py_NewRef(timeout ? timeout : Py_None);
    else if (deadline == POOL_FOREVER)
        *left = Py_NewRef(Py_None);
    else
        *left = PyFloat_FromDouble((double)(deadline - monotonic_now()) / 1e9);
    return *left ? WATCHED : -1;
}

int future_settle(Future *future)
{
    PyObject *left;
    switch (settle(future, NULL, &left)) {
    case SETTLED:
        return 1;
    case WATCHED:
        Py_DECREF(left);
        return 0;
    default:
        return -1;
    }
}

/* The one argument of result() and exception(). 0, or -1 with an exception. */
static int parse_timeout(Core *core, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                         PyObject **timeout)
{
    Py_ssize_t keywords = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    *timeout = nargs + keywords > 0 ? args[0] : NULL;
    if (nargs + keywords > 1) {
        PyErr_Format(PyExc_TypeError, "expected at most 1 argument, the timeout, got %zd",
                     nargs + keywords);
        return -1;
    }
    if (keywords == 1 && PyUnicode_Compare(PyTuple_GET_ITEM(kwnames, 0), core->name_timeout) != 0) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError, "unexpected keyword argument %R",
                         PyTuple_GET_ITEM(kwnames, 0));
        return -1;
    }
    return 0;
}

/* Waits, then returns 0 when the future is final; else -1 with an exception, or with *inherited,
 * which is what the inherited method returned. */
static int wait_final(Future *future, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                      PyObject *base_method, PyObject **inherited)
{
    Core *core = PyType_GetModuleState(Py_TYPE(future));
    PyObject *timeout, *left;
    *inherited = NULL;
    if (parse_timeout(core, args, nargs, kwnames, &timeout) < 0)
        return -1;
    switch (settle(future, timeout, &left)) {
    case SETTLED:
        if (future->state != FUTURE_CANCELLED && future->state != FUTURE_CANCELLED_AND_NOTIFIED)
            return 0;
        PyErr_SetNone(core->cancelled_error);
        return -1;
    case TIMED_OUT:
        PyErr_SetNone(PyExc_TimeoutError);
        return -1;
    case WATCHED:
        *inherited = PyObject_CallFunctionObjArgs(base_method, future, left, NULL);
        Py_DECREF(left);
        return -1;
    default:
        return -1;
    }
}

PyDoc_STRVAR(result_doc, "result($self, /, timeout=None)\n--\n\n"
"Return the value that the call returned, waiting for it if need be.\n\n"
"Parameters\n----------\n"
"timeout : float or None\n"
"    Seconds to wait at most; None waits for ever, 0 or less does not wait.\n\n"
"Raises\n------\n"
"concurrent.futures.CancelledError\n"
"    The future was cancelled.\n"
"TimeoutError\n"
"    The job has not ended by then. It goes on.\n"
"libpool.WorkerDied\n"
"    The worker process died while it ran this job.\n"
"Exception\n"
"    What the call raised, with its type, arguments and the worker's traceback.\n");

static PyObject *future_result(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames)
{
    Future *future = (Future *)self;
    Core *core = PyType_GetModuleState(Py_TYPE(self));
    PyObject *inherited;
    if (wait_final(future, args, nargs, kwnames, core->base_result, &inherited) < 0)
        return inherited;
    PyObject *content = Py_NewRef(future->content ? future->content : Py_None);
    if (future->state == FUTURE_RESULT)
        return content;
    PyErr_SetObject((PyObject *)Py_TYPE(content), content);
    Py_DECREF(content);
    return NULL;
}

PyDoc_STRVAR(exception_doc, "exception($self, /, timeout=None)\n--\n\n"
"Return the exception that the call raised, or None, waiting for its end if need be.\n\n"
"Parameters\n----------\n"
"timeout : float or None\n"
"    Seconds to wait at most; None waits for ever, 0 or less does not wait.\n\n"
"Raises\n------\n"
"concurrent.futures.CancelledError\n"
"    The future was cancelled.\n"
"TimeoutError\n"
"    The job has not ended by then. It goes on.\n");

static PyObject *future_exception(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                  PyObject *kwnames)
{
    Future *future = (Future *)self;
    Core *core = PyType_GetModuleState(Py_TYPE(self));
    PyObject *inherited;
    if (wait_final(future, args, nargs, kwnames, core->base_exception, &inherited) < 0)
        return inherited;
    bool raised = future->state == FUTURE_EXCEPTION && future->content;
    return Py_NewRef(raised ? future->content : Py_None);
}

/* ---- Questions that do not wait -------------------------------------------------------------- */

/* How an unended future's job stands, one of pool_outcome, or -1 with an exception. */
static int outcome_now(Future *future)
{
    if (!future->handle)
        return POOL_RUNNING; /* within set_result() */
    struct pool_future job = future_job(future);
    int outcome = pool_future_outcome(&job, NULL);
    if (outcome < 0)
        errors_set(future->handle->core, outcome);
    return outcome < 0 ? -1 : outcome;
}

PyDoc_STRVAR(done_doc, "done($self, /)\n--\n\n"
"Return True if the call has ended or was cancelled.\n");

static PyObject *future_done(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Future *future = (Future *)self;
    if (future_ended(future))
        Py_RETURN_TRUE;
    /* A watched one is done when its watchers have been told. */
    if (future->watch && future->state != FUTURE_COLLECTING)
        Py_RETURN_FALSE;
    int outcome = outcome_now(future);
    return outcome < 0 ? NULL : PyBool_FromLong(outcome >= POOL_FINISHED);
}

PyDoc_STRVAR(running_doc, "running($self, /)\n--\n\n"
"Return True if a worker runs the call now.\n");

static PyObject *future_running(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Future *future = (Future *)self;
    if (future_ended(future))
        Py_RETURN_FALSE;
    int outcome = outcome_now(future);
    if (outcome < 0)
        return NULL;
    return PyBool_FromLong(outcome == POOL_RUNNING || (future->watch && outcome > POOL_RUNNING));
}

PyDoc_STRVAR(cancelled_doc, "cancelled($self, /)\n--\n\n"
"Return True if the call was cancelled before it ran.\n");

static PyObject *future_cancelled(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Future *future = (Future *)self;
    if (future_ended(future))
        return PyBool_FromLong(future->state <= FUTURE_CANCELLED_AND_NOTIFIED);
    if (future->watch && future->state != FUTURE_COLLECTING)
        Py_RETURN_FALSE;
    int outcome = outcome_now(future);
    return outcome < 0 ? NULL : PyBool_FromLong(outcome == POOL_CANCELLED);
}

static PyObject *future_repr(PyObject *self)
{
    Future *future = (Future *)self;
    Core *core = PyType_GetModuleState(Py_TYPE(self));
    PyObject *state = PyObject_GetAttrString(self, "_state");
    if (!state)
        return NULL;
    PyObject *text;
    if (future->state >= FUTURE_RESULT && future->content)
        text = PyUnicode_FromFormat("<Future at %p state=finished %s %s>", self,
                                    future->state == FUTURE_RESULT ? "returned" : "raised",
                                    Py_TYPE(future->content)->tp_name);
    else
        text = PyUnicode_FromFormat("<Future at %p state=%s>", self,
                                    state == core->state_pending    ? "pending"
                                    : state == core->state_running  ? "running"
                                    : state == core->state_finished ? "finished"
                                                                    : "cancelled");
    Py_DECREF(state);
    return text;
}

/* ---- Changes --------------------------------------------------------------------------------- */

PyDoc_STRVAR(cancel_doc, "cancel($self, /)\n--\n\n"
"Cancel the call if no worker has begun it.\n\n"
"Returns\n-------\n"
"bool\n"
"    True if the call is cancelled, now or already; False if it runs or has ended.\n");

static PyObject *future_cancel(PyObject *self, PyObject *Py_UNUSED(unused))
{
    Future *future = (Future *)self;
    if (future->state == FUTURE_WAITING) {
        int cancelled = future_cancel_waiting(future);
        if (cancelled < 0)
            return NULL;
        if (cancelled)
            Py_RETURN_TRUE;
    }
    if (future_ended(future))
        return PyBool_FromLong(future->state <= FUTURE_CANCELLED_AND_NOTIFIED);
    /* Cancelled through the pool, and its watchers are about to be told. */
    int outcome = outcome_now(future);
    return outcome < 0 ? NULL : PyBool_FromLong(outcome == POOL_CANCELLED);
}

PyDoc_STRVAR(kill_doc, "kill($self, /)\n--\n\n"
"Cancel the call, also if a worker runs it: that worker is killed and replaced.\n\n"
"Returns\n-------\n"
"bool\n"
"    True if the call is cancelled, now or already, as for cancel(): result() raises\n"
"    CancelledError, at once or within milliseconds, unless the call is just ending by itself.\n"
"    False if it has ended otherwise.\n");

static PyObject *future_kill(PyObject *self, PyObject *unused)
{
    Future *future = (Future *)self;
    PyObject *cancelled = future_cancel(self, unused);
    if (cancelled != Py_False || future->state != FUTURE_WAITING)
        return cancelled;
    Py_DECREF(cancelled);
    struct pool_future job = future_job(future);
    int error = pool_future_kill(&job);
    if (error == 0)
        Py_RETURN_TRUE;
    if (error == -EBUSY)
        Py_RETURN_FALSE;
    errors_set(future->handle->core, error);
    return NULL;
}

PyDoc_STRVAR(add_done_callback_doc, "add_done_callback($self, fn, /)\n--\n\n"
"Have a function called with this future when it ends, or now if it has ended.\n\n"
"It is called in a thread of this process. An Exception that it raises is logged. In a job, for\n"
"one that was submitted there, this waits for the end.\n\n"
"Parameters\n----------\n"
"fn : callable\n"
"    Called with the future as its only argument. Several are called in the order in which they\n"
"    were added.\n");

static PyObject *future_add_done_callback(PyObject *self, PyObject *callback)
{
    int added = watch_add_callback((Future *)self, callback);
    if (added < 0 || (!added && watch_run_callback((Future *)self, callback) < 0))
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(spent_doc, "_spent($self, /)\n--\n\n"
"Return how many seconds a chunk ran, or None while that is not known, and if it has died.\n");

static PyObject *future_spent(PyObject *self, PyObject *Py_UNUSED(unused))
{
    uint16_t spent = ((Future *)self)->spent;
    if (spent == SPENT_UNKNOWN || spent == SPENT_NEVER_SENT)
        Py_RETURN_NONE;
    return PyFloat_FromDouble(outcome_spent(spent) / 1e9);
}

PyDoc_STRVAR(was_sent_doc, "_was_sent($self, /)\n--\n\n"
"Return False if there never was a job, since the call could not be pickled.\n");

static PyObject *future_was_sent(PyObject *self, PyObject *Py_UNUSED(unused))
{
    return PyBool_FromLong(((Future *)self)->spent != SPENT_NEVER_SENT);
}

static PyObject *future_reduce(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(unused))
{
    PyErr_SetString(PyExc_TypeError, "cannot pickle a libpool Future: only the process that "
                                     "submitted the job can wait for it");
    return NULL;
}

/* ---- The type -------------------------------------------------------------------------------- */

static void future_finalize(PyObject *self)
{
    future_drop_job((Future *)self);
}

/* Attributes of the user's go to the instance dict. */
static int future_setattr(PyObject *self, PyObject *name, PyObject *value)
{
    future_track((Future *)self);
    return PyObject_GenericSetAttr(self, name, value);
}

static PyMemberDef future_members[] = {
    {"_content", Py_T_OBJECT_EX, offsetof(Future, content), 0, NULL},
    {"_watch", Py_T_OBJECT_EX, offsetof(Future, watch), 0, NULL},
    {NULL},
};

#define FAST (METH_FASTCALL | METH_KEYWORDS)
static PyMethodDef future_methods[] = {
    {"result", (PyCFunction)(void (*)(void))future_result, FAST, result_doc},
    {"exception", (PyCFunction)(void (*)(void))future_exception, FAST, exception_doc},
    {"done", future_done, METH_NOARGS, done_doc},
    {"running", future_running, METH_NOARGS, running_doc},
    {"cancelled", future_cancelled, METH_NOARGS, cancelled_doc},
    {"cancel", future_cancel, METH_NOARGS, cancel_doc},
    {"kill", future_kill, METH_NOARGS, kill_doc},
    {"add_done_callback", future_add_done_callback, METH_O, add_done_callback_doc},
    {"_spent", future_spent, METH_NOARGS, spent_doc},
    {"_was_sent", future_was_sent, METH_NOARGS, was_sent_doc},
    {"__reduce__", future_reduce, METH_NOARGS, NULL},
    {NULL},
};

PyDoc_STRVAR(future_doc,
"The result of a call in a worker, now or later.\n\n"
"A concurrent.futures.Future: wait(), as_completed() and asyncio.wrap_future() take it. Made by\n"
"submit() only.\n");

static PyType_Slot future_slots[] = {
    {Py_tp_doc, (void *)future_doc},         {Py_tp_members, future_members},
    {Py_tp_methods, future_methods},         {Py_tp_getset, future_attributes},
    {Py_tp_finalize, SLOT(future_finalize)}, {Py_tp_repr, SLOT(future_repr)},
    {Py_tp_setattro, SLOT(future_setattr)},  {0, NULL},
};

PyType_Spec future_spec = {
    .name = "libpool._core.Future",
    .basicsize = sizeof(Future),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = future_slots,
};

PyTypeObject *future_make_type(PyObject *module, PyObject *base)
{
    if (!PyType_Check(base) ||
        ((PyTypeObject *)base)->tp_basicsize > (Py_ssize_t)offsetof(Future, content)) {
        PyErr_SetString(PyExc_ImportError, "concurrent.futures.Future is not laid out as "
                                           "libpool was compiled for");
        return NULL;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &future_spec, base);
    /* The slots stay where Python's own functions find them; as attributes they would let anybody
     * put anything there. */
    if (type && (PyObject_DelAttrString(type, "_content") < 0 ||
                 PyObject_DelAttrString(type, "_watch") < 0))
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}
