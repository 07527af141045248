/* Running one job: finds what is to be called, calls it, and sends back what it returns. */
#include "interpreter.h"

#include <string.h>

/* A call as it was sent. The texts are private copies: while the job runs, nobody can change them
 * after they have been checked. */
struct call {
    char *function, *source;
    PyObject *positional, *keywords;
};

static void flush(const char *name)
{
    PyObject *stream = PySys_GetObject(name); /* borrowed */

    if (!stream || stream == Py_None)
        return;
    Py_INCREF(stream);
    PyObject *done = PyObject_CallMethod(stream, "flush", NULL);
    if (!done)
        PyErr_WriteUnraisable(stream);
    Py_XDECREF(done);
    Py_DECREF(stream);
}

void call_flush(void)
{
    flush("stdout");
    flush("stderr");
}

/* A text of the message, ended by a 0. */
static char *copy_text(const unsigned char *text, size_t size)
{
    char *copy = PyMem_Malloc(size + 1);

    if (!copy) {
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(copy, text, size);
    copy[size] = '\0';
    return copy;
}

static int read_call(struct interpreter *interpreter, struct pool_job *job, struct call *call)
{
    struct preamble preamble;
    struct view view;
    size_t size, root;
    const void *argument = pool_job_argument(job, &size);

    if (format_open(&view, FORMAT_CALL, argument, size, &preamble, &root) < 0) {
        PyErr_SetString(PyExc_ValueError, "the job is no call of Python, or it was overwritten");
        return -1;
    }
    const unsigned char *texts = view.base + sizeof preamble;
    call->function = copy_text(texts, preamble.function_size);
    call->source = copy_text(texts + preamble.function_size + 1, preamble.source_size);
    if (!call->function || !call->source)
        return -1;
    return decode_call(interpreter, job, &view, root, &call->positional, &call->keywords);
}

/* What is to be called; new. */
static PyObject *find_function(struct interpreter *interpreter, const struct call *call,
                               bool in_source)
{
    char *colon = strchr(call->function, ':');
    PyObject *module;

    if (in_source) {
        module = Py_XNewRef(source_module(interpreter, call->source));
        colon = NULL;
    } else if (colon) {
        *colon = '\0';
        module = PyImport_ImportModule(call->function);
    } else {
        PyErr_Format(PyExc_ValueError, "no module in the function's name '%s'", call->function);
        return NULL;
    }
    PyObject *function =
        module ? source_attribute(module, colon ? colon + 1 : call->function) : NULL;
    Py_XDECREF(module);
    return function;
}

static PyObject *run_call(struct interpreter *interpreter, const struct call *call, uint64_t target)
{
    if (target == TARGET_EXPRESSION)
        return source_evaluate(interpreter, call->source, call->positional, call->keywords);
    PyObject *function = find_function(interpreter, call, target == TARGET_SOURCE);
    PyObject *result = function ? PyObject_Call(function, call->positional, call->keywords) : NULL;
    Py_XDECREF(function);
    return result;
}

int call_run(struct interpreter *interpreter, struct pool_job *job)
{
    struct call call = {0};
    PyObject *result = NULL;
    int status;

    if (read_call(interpreter, job, &call) == 0)
        result = run_call(interpreter, &call, pool_job_target(job));
    if (result && encode_result(interpreter, job, result) < 0)
        Py_CLEAR(result);
    status = result ? 0 : failure_return(job);
    Py_XDECREF(result);
    Py_XDECREF(call.positional);
    Py_XDECREF(call.keywords);
    PyMem_Free(call.function);
    PyMem_Free(call.source);
    call_flush(); /* what the job printed is there when it has ended */
    return status;
}
