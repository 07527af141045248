/* Many chunks at a time: sends all items of a map, and collects what came of them. What makes an
 * exception of the rule is left to the caller's Python code. */
#include "core.h"

/* After so many, other threads may run, and signals are looked at. */
#define TURN 1024

/* 0, or -1 with an exception. */
static int give_way(Py_ssize_t i)
{
    if (i % TURN != TURN - 1)
        return 0;
    Py_BEGIN_ALLOW_THREADS
    Py_END_ALLOW_THREADS
    return PyErr_CheckSignals();
}

const char workers_submit_chunks_doc[] =
    PyDoc_STR(
"submit_chunks($self, fn, items, size, star, each, futures, /)\n--\n\n"
"As submit_chunk() for one slice of the items after the other.\n\n"
"Parameters\n----------\n"
"fn : callable\n"
"items : list, tuple or range\n"
"size : int\n"
"    How many items make a chunk.\n"
"star, each : bool\n"
"    As for submit_chunk().\n"
"futures : list\n"
"    Gets the future of each chunk that is sent. After an exception, too.\n\n"
"Raises\n------\n"
"As submit().\n");

PyObject *workers_submit_chunks(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 6 || !PyList_CheckExact(args[5])) {
        PyErr_SetString(PyExc_TypeError, "submit_chunks() takes 6 arguments, the last one a list");
        return NULL;
    }
    PyObject *items = args[1];
    Py_ssize_t size = PyLong_AsSsize_t(args[2]), total = PySequence_Size(items);
    int star = PyObject_IsTrue(args[3]), each = PyObject_IsTrue(args[4]);
    if ((size == -1 && PyErr_Occurred()) || total < 0 || star < 0 || each < 0)
        return NULL;
    if (size < 1) {
        PyErr_Format(PyExc_ValueError, "a chunk has 1 item or more, not %zd", size);
        return NULL;
    }
    int form = (star ? FORM_STAR : 0) | (each ? FORM_EACH : 0), failed = 0;
    for (Py_ssize_t start = 0, i = 0; !failed && start < total; i++) {
        Py_ssize_t end = total - start < size ? total : start + size;
        PyObject *chunk = PySequence_GetSlice(items, start, end);
        PyObject *future = chunk ? submit_items((Workers *)self, args[0], chunk, form) : NULL;
        Py_XDECREF(chunk);
        failed = !future || PyList_Append(args[5], future) < 0 || give_way(i) < 0;
        Py_XDECREF(future);
        start = end;
    }
    return failed ? NULL : Py_NewRef(Py_None);
}

/* 1: its results are taken; 0: it has none, or can't be waited for here; -1 with an exception. */
static int take_results(Future *future, PyObject *results)
{
    int settled = future_settle(future);
    PyObject *content = future->content;
    if (settled < 1)
        return settled;
    if (future->state != FUTURE_RESULT || !content || !PyList_CheckExact(content))
        return 0;
    Py_ssize_t count = PyList_GET_SIZE(results);
    int failed = PyList_GET_SIZE(content) == 1 ? PyList_Append(results, PyList_GET_ITEM(content, 0))
                                               : PyList_SetSlice(results, count, count, content);
    return failed < 0 ? -1 : 1;
}

const char bulk_gather_doc[] = PyDoc_STR(
"gather($module, futures, results, /)\n--\n\n"
"Wait for chunks in order, and add their results to a list, until one has none.\n\n"
"Parameters\n----------\n"
"futures : list of Future\n"
"    Those whose results were taken are replaced by None, so that their memory is free again.\n"
"results : list\n\n"
"Returns\n-------\n"
"int\n"
"    How many chunks have given their results. The next one has an exception, or is to be waited\n"
"    for by its own methods.\n");

PyObject *bulk_gather(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    Core *core = PyModule_GetState(module);
    if (nargs != 2 || !PyList_CheckExact(args[0]) || !PyList_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "gather() takes two lists");
        return NULL;
    }
    Py_ssize_t i;
    for (i = 0; i < PyList_GET_SIZE(args[0]); i++) {
        PyObject *each = PyList_GET_ITEM(args[0], i);
        if (Py_TYPE(each) != core->future_type) {
            PyErr_Format(PyExc_TypeError, "gather() takes futures, not %.100s",
                         Py_TYPE(each)->tp_name);
            return NULL;
        }
        Py_INCREF(each);
        int taken = take_results((Future *)each, args[1]);
        if (taken == 1 && PyList_SetItem(args[0], i, Py_NewRef(Py_None)) < 0)
            taken = -1;
        Py_DECREF(each);
        if (taken == 1 && give_way(i) < 0)
            taken = -1;
        if (taken < 0)
            return NULL;
        if (taken == 0)
            break;
    }
    return PyLong_FromSsize_t(i);
}
