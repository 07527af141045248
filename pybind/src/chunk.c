/* The worker's side of a chunk: one call for each of its items. */
#include "core.h"

static PyObject *call_item(PyObject *function, PyObject *item, bool star)
{
    if (!star)
        return PyObject_CallOneArg(function, item);
    PyObject *args = PySequence_Tuple(item);
    PyObject *result = args ? PyObject_Call(function, args, NULL) : NULL;
    Py_XDECREF(args);
    return result;
}

/* Keeps the exception that is set now as the outcome of item number `part`. None, which stands in
 * for the item's result, or NULL with an exception. */
static PyObject *keep_exception(Chunk *chunk, Py_ssize_t part)
{
    PyObject *exception = errors_take();
    PyObject *pickled = reply_pickle_exception(chunk->core, exception);
    PyObject *index = pickled ? PyLong_FromSsize_t(part) : NULL;
    if (index && !chunk->failures)
        chunk->failures = PyDict_New();
    int kept = index && chunk->failures ? PyDict_SetItem(chunk->failures, index, pickled) : -1;
    if (!pickled)
        errors_restore(Py_NewRef(exception));
    Py_XDECREF(index);
    Py_XDECREF(pickled);
    Py_DECREF(exception);
    return kept < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *call_items(Chunk *chunk, struct pool_job *job, PyObject *items)
{
    Py_ssize_t part = 0;
    PyObject *iterator = PyObject_GetIter(items);
    PyObject *results = iterator ? PyList_New(0) : NULL;
    PyObject *item;
    while (results && (item = PyIter_Next(iterator))) {
        pool_job_part(job, (uint32_t)part);
        PyObject *result = call_item(chunk->function, item, chunk->form & FORM_STAR);
        Py_DECREF(item);
        if (!result && (chunk->form & FORM_EACH))
            result = keep_exception(chunk, part);
        part++;
        if (!result || PyList_Append(results, result) < 0)
            Py_CLEAR(results);
        Py_XDECREF(result);
    }
    if (PyErr_Occurred())
        Py_CLEAR(results);
    Py_XDECREF(iterator);
    return results;
}

/* Puts an exception in the place of each result that can't be pickled. 0, or -1 with one set. */
static int drop_unpicklable(Chunk *chunk, PyObject *results)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(results); i++) {
        PyObject *result = PyList_GET_ITEM(results, i);
        PyObject *pickled = pickle_dumps(chunk->core, result, false, NULL);
        if (pickled) {
            Py_DECREF(pickled);
            continue;
        }
        reply_note_result(chunk->function, result);
        PyObject *stand_in = keep_exception(chunk, i);
        if (!stand_in || PyList_SetItem(results, i, stand_in) < 0)
            return -1;
    }
    return 0;
}

/* 0, or -1 with an exception. *results may be cleared. */
static int reply_results(Chunk *chunk, Reply *reply, PyObject **results)
{
    if (!chunk->failures) {
        reply->result = results;
        return reply_value(reply, *results);
    }
    size_t before = reply->header_size;
    reply->result = NULL;
    reply_begin_partial(reply);
    PyObject *value = PyTuple_Pack(2, *results, chunk->failures);
    int error = value ? reply_value(reply, value) : -1;
    if (error < 0)
        reply->header_size = before;
    Py_XDECREF(value);
    return error;
}

int chunk_run(Chunk *chunk, Reply *reply, PyObject *items)
{
    int64_t begin = monotonic_now();
    PyObject *results = items ? call_items(chunk, reply->job, items) : NULL;
    reply_begin_timed(reply, monotonic_now() - begin);
    int error = results ? reply_results(chunk, reply, &results) : -1;
    if (error < 0 && results && !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        if (!(chunk->form & FORM_EACH)) {
            reply_note_result(chunk->function, results);
        } else {
            PyErr_Clear();
            error = drop_unpicklable(chunk, results);
            if (error == 0)
                error = reply_results(chunk, reply, &results);
        }
    }
    Py_XDECREF(results);
    Py_CLEAR(chunk->failures);
    return error < 0 ? reply_exception(reply) : 0;
}
