/* How functions travel: with the job, or, from the second time on, as the reference of a shared
 * block in which each worker finds them once.
 *
 * What is cached must never be visible: libpool's registry says, for each function, which objects
 * decide what it does (its guards), and each submission checks that they are the same ones. */
#include "core.h"

static void guards_clear(SentFunction *sent)
{
    Guard *guards = sent->guards;
    Py_ssize_t count = sent->count;
    sent->guards = NULL;
    sent->count = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_XDECREF(guards[i].where);
        Py_XDECREF(guards[i].key);
        Py_XDECREF(guards[i].expected);
        Py_XDECREF(guards[i].defaults);
        Py_XDECREF(guards[i].keyword_defaults);
    }
    PyMem_Free(guards);
}

static int sent_function_traverse(PyObject *self, visitproc visit, void *arg)
{
    SentFunction *sent = (SentFunction *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(sent->function);
    for (Py_ssize_t i = 0; i < sent->count; i++) {
        Py_VISIT(sent->guards[i].where);
        Py_VISIT(sent->guards[i].key);
        Py_VISIT(sent->guards[i].expected);
        Py_VISIT(sent->guards[i].defaults);
        Py_VISIT(sent->guards[i].keyword_defaults);
    }
    return 0;
}

static int sent_function_clear(PyObject *self)
{
    SentFunction *sent = (SentFunction *)self;
    sent->dropped = true;
    Py_CLEAR(sent->function);
    Py_CLEAR(sent->pickled);
    guards_clear(sent);
    return 0;
}

static void sent_function_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    sent_function_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot sent_function_slots[] = {
    {Py_tp_traverse, SLOT(sent_function_traverse)},
    {Py_tp_clear, SLOT(sent_function_clear)},
    {Py_tp_dealloc, SLOT(sent_function_dealloc)},
    {0, NULL},
};

PyType_Spec sent_function_spec = {
    .name = "libpool._core._SentFunction",
    .basicsize = sizeof(SentFunction),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sent_function_slots,
};

/* ---- Guards ---------------------------------------------------------------------------------- */

/* Fills in one guard from the tuple that the registry made: borrowed from it. */
static bool guard_parse(PyObject *tuple, Guard *guard)
{
    if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) < 3 ||
        !PyUnicode_Check(PyTuple_GET_ITEM(tuple, 0)))
        return false;
    PyObject *kind = PyTuple_GET_ITEM(tuple, 0);
    Py_ssize_t size = PyTuple_GET_SIZE(tuple);
    guard->where = PyTuple_GET_ITEM(tuple, 1);
    if (PyUnicode_CompareWithASCIIString(kind, "item") == 0) {
        if (size != 4 || !PyDict_Check(guard->where))
            return false;
        guard->kind = GUARD_ITEM;
        guard->key = PyTuple_GET_ITEM(tuple, 2);
        guard->expected = PyTuple_GET_ITEM(tuple, 3);
        return true;
    }
    if (PyUnicode_CompareWithASCIIString(kind, "func") == 0) {
        if (size != 5 || !PyFunction_Check(guard->where))
            return false;
        guard->kind = GUARD_FUNCTION;
        guard->expected = PyTuple_GET_ITEM(tuple, 2);
        guard->defaults = PyTuple_GET_ITEM(tuple, 3);
        guard->keyword_defaults = PyTuple_GET_ITEM(tuple, 4);
        return true;
    }
    if (PyUnicode_CompareWithASCIIString(kind, "cell") == 0) {
        if (size != 3 || !PyCell_Check(guard->where))
            return false;
        guard->kind = GUARD_CELL;
        guard->expected = PyTuple_GET_ITEM(tuple, 2);
        return true;
    }
    return false;
}

static int guards_parse(SentFunction *sent, PyObject *tuples)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuples);
    sent->guards = PyMem_Calloc((size_t)count + 1, sizeof(Guard));
    if (!sent->guards) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Guard *guard = &sent->guards[i];
        if (!guard_parse(PyTuple_GET_ITEM(tuples, i), guard)) {
            *guard = (Guard){0};
            PyErr_Format(PyExc_TypeError, "the registry gave a guard that is none: %R",
                         PyTuple_GET_ITEM(tuples, i));
            return -1;
        }
        Py_XINCREF(guard->where);
        Py_XINCREF(guard->key);
        Py_XINCREF(guard->expected);
        Py_XINCREF(guard->defaults);
        Py_XINCREF(guard->keyword_defaults);
        sent->count = i + 1;
    }
    return 0;
}

static bool same(PyObject *now, PyObject *expected)
{
    return (now ? now : Py_None) == expected;
}

/* 1: it holds; 0: something has changed; -1: exception. */
static int guard_holds(const Guard *guard)
{
    PyObject *now;
    switch (guard->kind) {
    case GUARD_FUNCTION:
        return PyFunction_GetCode(guard->where) == guard->expected &&
               same(PyFunction_GetDefaults(guard->where), guard->defaults) &&
               same(PyFunction_GetKwDefaults(guard->where), guard->keyword_defaults);
    case GUARD_CELL:
        now = PyCell_GET(guard->where);
        return now == guard->expected;
    default:
        now = PyDict_GetItemWithError(guard->where, guard->key);
        return !now && PyErr_Occurred() ? -1 : same(now, guard->expected);
    }
}

static int guards_hold(const SentFunction *sent)
{
    for (Py_ssize_t i = 0; i < sent->count; i++) {
        int holds = guard_holds(&sent->guards[i]);
        if (holds != 1)
            return holds;
    }
    return 1;
}

/* ---- The cache ------------------------------------------------------------------------------- */

int functions_init(FunctionCache *cache)
{
    cache->known = PyDict_New();
    return cache->known ? 0 : -1;
}

int functions_traverse(FunctionCache *cache, visitproc visit, void *arg)
{
    Py_VISIT(cache->known);
    Py_VISIT(cache->last);
    for (int i = 0; i < RECENT_FUNCTIONS; i++)
        Py_VISIT(cache->recent[i]);
    return 0;
}

void functions_clear(FunctionCache *cache)
{
    Py_CLEAR(cache->last);
    Py_CLEAR(cache->known);
    for (int i = 0; i < RECENT_FUNCTIONS; i++)
        Py_CLEAR(cache->recent[i]);
}

/* Only what is equal to nothing but itself may be looked up: no __eq__ of the user's runs, and none
 * can make two functions one. */
static bool cacheable(PyObject *function)
{
    PyTypeObject *type = Py_TYPE(function);
    return type == &PyFunction_Type || type == &PyCFunction_Type || type == &PyType_Type;
}

static void forget(FunctionCache *cache, SentFunction *sent)
{
    sent->dropped = true;
    if (cache->last == sent)
        Py_CLEAR(cache->last);
    /* Another thread may have described the function again by now. */
    if (PyDict_GetItemWithError(cache->known, sent->function) == (PyObject *)sent)
        PyDict_DelItem(cache->known, sent->function);
    if (PyErr_Occurred())
        PyErr_Clear(); /* it stays there, and is not used as it is marked */
}

/* Keeps a function that was used for the first time, at the cost of the one that has been waiting
 * longest for its second time: lambdas made in a loop must not pile up. */
static int remember(FunctionCache *cache, SentFunction *sent)
{
    if (PyDict_SetItem(cache->known, sent->function, (PyObject *)sent) < 0)
        return -1;
    unsigned slot = cache->next_recent++ % RECENT_FUNCTIONS;
    SentFunction *oldest = cache->recent[slot];
    cache->recent[slot] = (SentFunction *)Py_NewRef((PyObject *)sent);
    if (oldest && oldest->pickled && !oldest->dropped)
        forget(cache, oldest);
    Py_XDECREF(oldest);
    return 0;
}

/* Puts the function into a shared block, if there is room. */
static void store(Workers *workers, SentFunction *sent)
{
    FunctionCache *cache = &workers->functions;
    size_t size = (size_t)PyBytes_GET_SIZE(sent->pickled);
    uint64_t reference;
    void *memory;
    if (cache->stored >= MAX_STORED_FUNCTIONS || size > MAX_STORED_BYTES - cache->stored_bytes ||
        pool_alloc(workers->handle->pool, size ? size : 1, &reference, &memory) < 0)
        return;
    memcpy(memory, PyBytes_AS_STRING(sent->pickled), size);
    cache->stored++;
    cache->stored_bytes += size;
    sent->reference = reference;
    Py_CLEAR(sent->pickled);
}

/* Asks the registry. A new SentFunction, or, when it may not be sent twice, *pickled and NULL. */
static SentFunction *describe(Workers *workers, PyObject *function, PyObject **pickled)
{
    FunctionCache *cache = &workers->functions;
    *pickled = NULL;
    PyObject *pair =
        PyObject_CallMethodOneArg(workers->registry, workers->core->name_describe, function);
    if (!pair)
        return NULL;
    PyObject *bytes = NULL, *guards = NULL;
    SentFunction *sent = NULL;
    if (PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2) {
        bytes = PyTuple_GET_ITEM(pair, 0);
        guards = PyTuple_GET_ITEM(pair, 1);
    }
    if (!bytes || !PyBytes_CheckExact(bytes) || !(guards == Py_None || PyTuple_Check(guards))) {
        PyErr_Format(PyExc_TypeError, "the registry described %R by %R", function, pair);
    } else if (guards == Py_None || !cacheable(function)) {
        *pickled = Py_NewRef(bytes);
    } else if ((sent = PyObject_GC_New(SentFunction, workers->core->sent_function_type))) {
        sent->function = Py_NewRef(function);
        sent->pickled = Py_NewRef(bytes);
        sent->reference = 0;
        sent->number = ++cache->last_number ? cache->last_number : ++cache->last_number;
        sent->dropped = false;
        sent->count = 0;
        sent->guards = NULL;
        if (guards_parse(sent, guards) < 0)
            Py_CLEAR(sent);
        else
            PyObject_GC_Track((PyObject *)sent);
    }
    Py_DECREF(pair);
    return sent;
}

/* The known entry, if it still holds: owned. NULL without an exception when there is none. */
static SentFunction *find(FunctionCache *cache, PyObject *function)
{
    SentFunction *sent = cache->last;
    if (!sent || sent->function != function) {
        if (!cacheable(function))
            return NULL;
        sent = (SentFunction *)PyDict_GetItemWithError(cache->known, function);
        if (!sent || sent->dropped)
            return NULL;
    }
    Py_INCREF(sent); /* looking at guards may run code that drops it from the cache */
    int holds = guards_hold(sent);
    if (holds == 1)
        return sent;
    if (holds == 0 && !sent->dropped)
        forget(cache, sent);
    Py_DECREF(sent);
    return NULL;
}

int functions_travel(Workers *workers, PyObject *function, Travel *travel)
{
    if (workers->base)
        workers = workers->base;
    FunctionCache *cache = &workers->functions;
    SentFunction *sent = find(cache, function);
    if (sent) {
        if (!sent->reference)
            store(workers, sent);
        if (cache->last != sent)
            Py_XSETREF(cache->last, (SentFunction *)Py_NewRef((PyObject *)sent));
    } else {
        if (PyErr_Occurred())
            return -1;
        sent = describe(workers, function, &travel->pickled);
        if (!sent && !travel->pickled)
            return -1;
        if (sent && remember(cache, sent) < 0) {
            Py_DECREF(sent);
            return -1;
        }
    }
    travel->target = 0;
    if (!sent)
        return 0;
    if (sent->reference)
        travel->target = sent->reference;
    else
        travel->pickled = Py_NewRef(sent->pickled);
    travel->number = sent->number;
    Py_DECREF(sent); /* the cache has it */
    return 0;
}

PyObject *functions_find(FunctionCache *cache, uint32_t number)
{
    Py_ssize_t position = 0;
    PyObject *function, *sent;
    while (cache->known && PyDict_Next(cache->known, &position, &function, &sent))
        if (((SentFunction *)sent)->number == number)
            return function;
    return NULL;
}
