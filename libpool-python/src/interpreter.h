/* The worker's side: one interpreter in one process. */
#ifndef INTERPRETER_H
#define INTERPRETER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "builder.h"

struct interpreter {
    struct pool_python_config config;
    pool_log_function log; /* NULL: the standard error stream */
    void *log_context;
    struct pool *pool;
    unsigned worker;
    PyThreadState *suspended;  /* while the worker sleeps */
    PyTypeObject *memory_type; /* memory.c */
    PyObject *held, *kept;     /* {reference: how many Memory objects need the block} */
    PyObject *asarray;     /* numpy.asarray; NULL: not looked for yet; None: there is no NumPy */
    PyObject *sources;     /* {text: module} */
    PyObject *expressions; /* {text: code} */
    unsigned long source_count;
};

/* host.c: the hooks; the context is a struct interpreter. */
extern const struct pool_host host_hooks;

/* start.c: 0; or the exit status of the worker, after a message. */
int interpreter_start(struct interpreter *interpreter);

/* memory.c: arrays in shared memory, as Python objects. All set an exception on failure. */
int memory_init(struct interpreter *interpreter);
/* An array in a block, which is held as long as needed. */
PyObject *memory_from_block(struct interpreter *interpreter, const struct pool_python_array *array,
                            size_t size);
/* An array in the argument of the job, which is kept, or where that can't be, copied. */
PyObject *memory_from_argument(struct interpreter *interpreter, struct pool_job *job,
                               const struct pool_python_array *array, size_t size);
/* The block of some job's argument in which `data` lies; 0: it lies in none. */
uint64_t memory_find(struct interpreter *interpreter, const void *data, size_t *offset);

/* decode.c: the arguments of a call. */
int decode_call(struct interpreter *interpreter, struct pool_job *job, const struct view *view,
                size_t root, PyObject **positional, PyObject **keywords);

/* encode.c: writes a result to the job. 0; or -1 with an exception. */
int encode_result(struct interpreter *interpreter, struct pool_job *job, PyObject *result);

/* source.c */
int source_init(struct interpreter *interpreter);
/* Compiles text, and has tracebacks show its lines. `start`: as Py_CompileString. */
PyObject *source_compile(const char *text, const char *name, int start);
/* The object of a module by a dotted name; new. */
PyObject *source_attribute(PyObject *module, const char *name);
/* The module that this text makes; borrowed. */
PyObject *source_module(struct interpreter *interpreter, const char *text);
/* The value of an expression; new. */
PyObject *source_evaluate(struct interpreter *interpreter, const char *text, PyObject *positional,
                          PyObject *keywords);

/* call.c: runs a job: its status. */
int call_run(struct interpreter *interpreter, struct pool_job *job);
void call_flush(void);

/* failure.c */
/* The current exception, which is none any more, with its traceback; NULL: there was none. */
PyObject *failure_take(void);
/* The opposite; takes it over. */
void failure_put_back(PyObject *exception);
/* Takes the current exception, and makes it the result of the job: its status. */
int failure_return(struct pool_job *job);
/* Takes the current exception: its traceback, as bytes, also if that can't be had. NULL, without an
 * exception: no memory. */
PyObject *failure_text(void);

#endif
