/* What a future has only when somebody asks for it: the condition, the list of waiters and the list
 * of callbacks of concurrent.futures, and the attributes under which its code finds them.
 *
 * Once a condition has been handed out, the future's state changes only with it held. That is what
 * concurrent.futures.wait() relies on. */
#include "core.h"

static int watch_traverse(PyObject *self, visitproc visit, void *arg)
{
    Watch *watch = (Watch *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(watch->condition);
    Py_VISIT(watch->waiters);
    Py_VISIT(watch->callbacks);
    return 0;
}

static int watch_clear(PyObject *self)
{
    Watch *watch = (Watch *)self;
    Py_CLEAR(watch->condition);
    Py_CLEAR(watch->waiters);
    Py_CLEAR(watch->callbacks);
    return 0;
}

static void watch_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    watch_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot watch_slots[] = {
    {Py_tp_traverse, SLOT(watch_traverse)},
    {Py_tp_clear, SLOT(watch_clear)},
    {Py_tp_dealloc, SLOT(watch_dealloc)},
    {0, NULL},
};

PyType_Spec watch_spec = {
    .name = "libpool._core._Watch",
    .basicsize = sizeof(Watch),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = watch_slots,
};

/* ---- Being watched --------------------------------------------------------------------------- */

/* Sees to it that the job's end reaches the watch: by the collector, or right here. */
static int arrange_delivery(Future *future)
{
    Handle *handle = future->handle;
    PyObject *index = PyLong_FromUnsignedLong(future->index);
    int stored = index ? PyDict_SetItem(handle->watched, index, (PyObject *)future) : -1;
    Py_XDECREF(index);
    if (stored < 0)
        return -1;
    struct pool_future job = future_job(future);
    int ended = pool_future_notify(&job);
    if (ended == 1)
        return future_collect(future);
    if (ended < 0) {
        errors_set(handle->core, ended);
        return -1;
    }
    return collector_start(handle);
}

/* A worker has no collector: it has one thread, on which the job may run that is waited for. So
 * there a future's job has to end before it can be watched. */
static int end_in_worker(Future *future)
{
    while (future->state == FUTURE_WAITING) {
        int ended = future_job_ended(future);
        if (ended < 0)
            return -1;
        if (ended ? future_collect(future) < 0 : future_wait(future, POOL_FOREVER) < 0)
            return -1;
    }
    return 0;
}

Watch *watch_of(Future *future)
{
    Core *core = PyType_GetModuleState(Py_TYPE(future));
    if (future->watch)
        return (Watch *)future->watch;
    if (future->state == FUTURE_WAITING) {
        if (handle_inherited(future->handle)) {
            errors_set(core, -EXDEV);
            return NULL;
        }
        int ended = future_job_ended(future);
        if (future->handle->in_worker ? end_in_worker(future) < 0
                                      : ended < 0 || (ended && future_collect(future) < 0))
            return NULL;
    }
    PyObject *watch = core->watch_type->tp_alloc(core->watch_type, 0);
    if (!watch)
        return NULL;
    if (future->watch) { /* made by another thread, while this one collected or allocated */
        Py_DECREF(watch);
        return (Watch *)future->watch;
    }
    future->watch = watch;
    future_track(future);
    if (future->state == FUTURE_WAITING && arrange_delivery(future) < 0) {
        /* Back to unwatched, so that nobody waits for a delivery that will not come. */
        future_unwatch(future);
        Py_CLEAR(future->watch);
        return NULL;
    }
    return (Watch *)watch;
}

int watch_lock(Future *future, PyObject **condition)
{
    Watch *watch = (Watch *)future->watch;
    *condition = NULL;
    if (!watch || !watch->condition)
        return 0;
    Core *core = PyType_GetModuleState(Py_TYPE(future));
    *condition = Py_NewRef(watch->condition);
    PyObject *done = PyObject_CallMethodNoArgs(*condition, core->name_acquire);
    if (!done)
        Py_CLEAR(*condition);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

void watch_announce(Future *future)
{
    Watch *watch = (Watch *)future->watch;
    Core *core = PyType_GetModuleState(Py_TYPE(future));
    const char *call = future->state == FUTURE_RESULT      ? "add_result"
                       : future->state == FUTURE_EXCEPTION ? "add_exception"
                                                           : "add_cancelled";
    for (Py_ssize_t i = 0; watch->waiters && i < PyList_Size(watch->waiters); i++) {
        PyObject *waiter = Py_NewRef(PyList_GET_ITEM(watch->waiters, i));
        PyObject *done = PyObject_CallMethod(waiter, call, "O", future);
        if (!done)
            PyErr_WriteUnraisable(waiter);
        Py_XDECREF(done);
        Py_DECREF(waiter);
    }
    PyObject *done = PyObject_CallMethodNoArgs(watch->condition, core->name_notify_all);
    if (!done)
        PyErr_WriteUnraisable((PyObject *)future);
    Py_XDECREF(done);
}

void watch_unlock(Core *core, PyObject *condition)
{
    if (!condition)
        return;
    PyObject *done = PyObject_CallMethodNoArgs(condition, core->name_release);
    if (!done)
        PyErr_WriteUnraisable(condition);
    Py_XDECREF(done);
    Py_DECREF(condition);
}

int watch_add_callback(Future *future, PyObject *callback)
{
    if (future_ended(future))
        return 0;
    if (!watch_of(future))
        return -1;
    /* Made before the look at the state: from there on nothing may run in between. */
    PyObject *callbacks = PyObject_GetAttrString((PyObject *)future, "_done_callbacks");
    if (!callbacks)
        return -1;
    int added = future_ended(future) ? 0 : PyList_Append(callbacks, callback) == 0 ? 1 : -1;
    Py_DECREF(callbacks);
    return added;
}

int watch_run_callback(Future *future, PyObject *callback)
{
    Core *core = PyType_GetModuleState(Py_TYPE(future));
    PyObject *result = PyObject_CallOneArg(callback, (PyObject *)future);
    if (result) {
        Py_DECREF(result);
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *exception = errors_take();
    PyObject *error = PyObject_GetAttrString(core->logger, "error");
    PyObject *arguments =
        Py_BuildValue("sO", "exception calling callback for %r", (PyObject *)future);
    PyObject *keywords = Py_BuildValue("{s:O}", "exc_info", exception);
    if (error && arguments && keywords)
        result = PyObject_Call(error, arguments, keywords);
    if (!result)
        PyErr_WriteUnraisable((PyObject *)future);
    Py_XDECREF(result);
    Py_XDECREF(keywords);
    Py_XDECREF(arguments);
    Py_XDECREF(error);
    Py_DECREF(exception);
    return 0;
}

int watch_run_callbacks(Future *future)
{
    Watch *watch = (Watch *)future->watch;
    PyObject *callbacks = watch ? watch->callbacks : NULL;
    if (!callbacks)
        return 0;
    int failed = 0;
    Py_INCREF(callbacks);
    for (Py_ssize_t i = 0; !failed && i < PyList_Size(callbacks); i++) {
        PyObject *callback = Py_NewRef(PyList_GET_ITEM(callbacks, i));
        failed = watch_run_callback(future, callback);
        Py_DECREF(callback);
    }
    Py_DECREF(callbacks);
    return failed;
}

/* ---- The attributes that concurrent.futures uses --------------------------------------------- */

/* An unwatched future whose job has ended is collected before its state is told, so that the
 * result is there when the state says so. */
static int settle(Future *future)
{
    if (future->state != FUTURE_WAITING || future->watch)
        return 0;
    int ended = future_job_ended(future);
    return ended == 1 ? future_collect(future) : ended;
}

static PyObject *get_state(PyObject *self, void *Py_UNUSED(closure))
{
    Future *future = (Future *)self;
    Core *core = PyType_GetModuleState(Py_TYPE(self));
    if (settle(future) < 0)
        return NULL;
    struct pool_future job;
    switch (future->state) {
    case FUTURE_WAITING:
        job = future_job(future);
        if (pool_future_outcome(&job, NULL) == POOL_PENDING)
            return Py_NewRef(core->state_pending);
        /* Also when the job has ended and the watchers have not been told yet. */
        return Py_NewRef(core->state_running);
    case FUTURE_CANCELLED:
        return Py_NewRef(core->state_cancelled);
    case FUTURE_CANCELLED_AND_NOTIFIED:
        return Py_NewRef(core->state_cancelled_and_notified);
    case FUTURE_RESULT:
    case FUTURE_EXCEPTION:
        return Py_NewRef(core->state_finished);
    default:
        return Py_NewRef(core->state_running);
    }
}

static int set_state(PyObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    Future *future = (Future *)self;
    if (!value || !PyUnicode_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "_state must be a str");
        return -1;
    }
    int state;
    if (PyUnicode_CompareWithASCIIString(value, "FINISHED") == 0)
        state = future->state == FUTURE_SET_EXCEPTION || future->state == FUTURE_EXCEPTION
                    ? FUTURE_EXCEPTION
                    : FUTURE_RESULT;
    else if (PyUnicode_CompareWithASCIIString(value, "CANCELLED") == 0)
        state = FUTURE_CANCELLED;
    else if (PyUnicode_CompareWithASCIIString(value, "CANCELLED_AND_NOTIFIED") == 0)
        state = FUTURE_CANCELLED_AND_NOTIFIED;
    else
        return 0; /* whether the job waits or runs is for the pool to say */
    bool keep = !future->handle && (state == FUTURE_RESULT || state == FUTURE_EXCEPTION);
    future_drop_job(future);
    future->state = (uint8_t)state;
    if (!keep)
        Py_CLEAR(future->content);
    return 0;
}

static PyObject *get_content(PyObject *self, void *closure)
{
    Future *future = (Future *)self;
    if (settle(future) < 0)
        return NULL;
    bool wanted = future->state == (closure ? FUTURE_EXCEPTION : FUTURE_RESULT);
    return Py_NewRef(wanted && future->content ? future->content : Py_None);
}

static int set_content(PyObject *self, PyObject *value, void *closure)
{
    Future *future = (Future *)self;
    PyObject *content = Py_NewRef(value ? value : Py_None);
    future_drop_job(future);
    future->state = closure ? FUTURE_SET_EXCEPTION : FUTURE_SET_RESULT;
    Py_XSETREF(future->content, content);
    future_track(future);
    return 0;
}

static PyObject *get_condition(PyObject *self, void *Py_UNUSED(closure))
{
    Core *core = PyType_GetModuleState(Py_TYPE(self));
    Watch *watch = watch_of((Future *)self);
    if (!watch)
        return NULL;
    if (!watch->condition) {
        PyObject *condition = PyObject_CallNoArgs(core->condition);
        if (!condition)
            return NULL;
        if (watch->condition) /* made by another thread meanwhile */
            Py_DECREF(condition);
        else
            watch->condition = condition;
    }
    return Py_NewRef(watch->condition);
}

static PyObject *get_list(PyObject *self, void *closure)
{
    Watch *watch = watch_of((Future *)self);
    if (!watch)
        return NULL;
    PyObject **list = closure ? &watch->callbacks : &watch->waiters;
    if (!*list) {
        PyObject *fresh = PyList_New(0);
        if (!fresh)
            return NULL;
        if (*list) /* the collection of garbage may run anything */
            Py_DECREF(fresh);
        else
            *list = fresh;
    }
    return Py_NewRef(*list);
}

/* The instance dict makes cycles possible. */
static PyObject *get_dict(PyObject *self, void *closure)
{
    future_track((Future *)self);
    return PyObject_GenericGetDict(self, closure);
}

static int set_dict(PyObject *self, PyObject *value, void *closure)
{
    future_track((Future *)self);
    return PyObject_GenericSetDict(self, value, closure);
}

PyGetSetDef future_attributes[] = {
    {"__dict__", get_dict, set_dict, NULL, NULL},
    {"_state", get_state, set_state, "As in concurrent.futures.Future.", NULL},
    {"_result", get_content, set_content, "As in concurrent.futures.Future.", NULL},
    {"_exception", get_content, set_content, "As in concurrent.futures.Future.", (void *)""},
    {"_condition", get_condition, NULL, "As in concurrent.futures.Future.", NULL},
    {"_waiters", get_list, NULL, "As in concurrent.futures.Future.", NULL},
    {"_done_callbacks", get_list, NULL, "As in concurrent.futures.Future.", (void *)""},
    {NULL},
};
