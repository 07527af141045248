/* libpool-python: Python functions as jobs of a C program.
 *
 * Each worker of such a pool has a CPython interpreter of its own, so Python code runs on as many
 * cores as there are workers. The pool is a struct pool as any other: wait for, cancel, kill and
 * release the jobs with the functions of libpool.h, and submit C functions to it, too. The program
 * itself has no interpreter.
 *
 * The conventions are those of libpool.h: 0 (or a count) for success, a negative errno for failure;
 * nothing prints or exits in the program; what a pointer in an argument leads to is copied, or only
 * used until the call returns. Any thread may call any function here at any time, except where two
 * would use the same struct pool_python_arguments at once. "Also in a job": from a C function that
 * a worker of the pool runs. A struct that begins with `size` may grow at its end later.
 *
 * Link with -lpool-python -lpool. CPython 3.11 or later.
 */
#ifndef LIBPOOL_PYTHON_H
#define LIBPOOL_PYTHON_H

#include <libpool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Pools whose workers host Python -------------------------------------------------------- */

struct pool_python_config {
    size_t size; /* sizeof(struct pool_python_config), set by pool_python_config_init() */
    /* As python -I: no PYTHON* variable of the environment counts, and the user's own
     * site-packages are not searched. */
    bool isolated;
    /* Arrays arrive as memoryview also where NumPy could be imported. */
    bool without_numpy;
    /* The folder of a virtual environment, whose packages are found then; or the interpreter that
     * workers pass for (sys.executable) and whose packages are found. At most one of them. NULL:
     * the interpreter of the linked version (python3.11, say) that $PATH has. */
    const char *venv;
    const char *executable;
    /* Put in front of sys.path. Ends with a NULL. The current folder is searched only if it is
     * among them ("."). NULL: none. */
    const char *const *paths;
    /* Python code that each worker runs in __main__ before its first job: the file first, then the
     * text. What it defines can be called as "__main__:name". NULL: none. If it raises, or the
     * interpreter does not start, the pool is broken: jobs end as POOL_LOST, calls return
     * -EOWNERDEAD. The reason, a traceback, is told the log of struct pool_config, line by line, in
     * the worker; where there is no log, it goes to the standard error stream. */
    const char *script;
    const char *source;
};

/* Fills in the defaults: not isolated, nothing else. */
static inline void pool_python_config_init(struct pool_python_config *config);
/* The same for a struct of `size` bytes: what the program was compiled with, not the library. */
POOL_API void pool_python_config_init_size(struct pool_python_config *config, size_t size);

static inline void pool_python_config_init(struct pool_python_config *config)
{
    pool_python_config_init_size(config, sizeof *config);
}

/* pool_create() with workers that host Python. `config` (whose `host` and `command` have to be
 * NULL) and `python` may be NULL. The strings are copied. Workers start their interpreters on their
 * own, and jobs may be submitted at once; so an error in `source` is not one of this call.
 * -EBUSY: this process has started Python itself, and its forks can't start it again: make the pool
 * before that, or use a program as supervisor, which calls pool_python_serve(). -ENOENT, -EACCES,
 * -EISDIR: the script or the executable is not there, or can't be used; or `venv` is no virtual
 * environment of this version of Python. -EINVAL: venv and executable, a host or a command, or a
 * struct size that this library does not know. Else as pool_create(). */
POOL_API int pool_python_create(struct pool **out, const struct pool_config *config,
                                const struct pool_python_config *python);

/* pool_serve() with workers that host Python, in a program that is the supervisor of a pool whose
 * `command` it was. Returns only an error: those of pool_serve() and pool_python_create(). */
POOL_API int pool_python_serve(struct pool *pool, const struct pool_python_config *python);

/* The version of the linked Python: "3.11.2 (main, ...) [GCC 12.2.0]". */
POOL_API const char *pool_python_version(void);

/* ---- Arrays --------------------------------------------------------------------------------- */

#define POOL_PYTHON_MAX_DIMENSIONS 16
#define POOL_PYTHON_MAX_DEPTH 200 /* of lists in lists */

/* Elements, in the machine's own byte order. */
enum pool_python_type {
    POOL_PYTHON_BOOL = 1, /* one byte, 0 or 1 */
    POOL_PYTHON_INT8,
    POOL_PYTHON_INT16,
    POOL_PYTHON_INT32,
    POOL_PYTHON_INT64,
    POOL_PYTHON_UINT8,
    POOL_PYTHON_UINT16,
    POOL_PYTHON_UINT32,
    POOL_PYTHON_UINT64,
    POOL_PYTHON_FLOAT16,
    POOL_PYTHON_FLOAT32,
    POOL_PYTHON_FLOAT64,
    POOL_PYTHON_COMPLEX64, /* two float32: real, imaginary */
    POOL_PYTHON_COMPLEX128
};

/* The bytes of one element; 0 if there is no such type. */
POOL_API size_t pool_python_type_size(enum pool_python_type type);

/* An array in C order: the last index varies fastest. */
struct pool_python_array {
    size_t size; /* sizeof(struct pool_python_array), set by the caller */
    enum pool_python_type type;
    int dimensions; /* 0 to POOL_PYTHON_MAX_DIMENSIONS */
    size_t shape[POOL_PYTHON_MAX_DIMENSIONS];
    /* As an argument: either the block, of pool_alloc(), in which the elements lie, and how many
     * bytes from its begin; or, with reference 0, `data`, which pool_python_submit() copies.
     * In a result: data is where the elements are; reference is 0, or the block of the argument of
     * which the result is a part. */
    void *data;
    uint64_t reference;
    size_t offset;
    bool readonly; /* Python code may not write to it; always so for what is copied */
};

/* ---- Arguments ------------------------------------------------------------------------------ */

/* The arguments of a call, while they are put together. Not tied to a pool; to be changed by one
 * thread at a time, while no other submits them.
 * Each call below adds one value. It is a positional argument; or an item, between begin and end of
 * a list, tuple or dict; or, directly after pool_python_put_keyword(), a keyword argument.
 *
 * Errors stick: after one, each call returns the same, and so does pool_python_submit(), so that it
 * is enough to look there. -ENOMEM. -EINVAL: an end without a begin, a key without a value, a
 * keyword inside of a list. -EOVERFLOW: lists nested deeper than POOL_PYTHON_MAX_DEPTH. */
struct pool_python_arguments;

/* NULL: no memory. */
POOL_API struct pool_python_arguments *pool_python_arguments_create(void);
/* Forgets all values, and an error; the memory is used again. */
POOL_API void pool_python_arguments_clear(struct pool_python_arguments *arguments);
/* NULL is fine. */
POOL_API void pool_python_arguments_destroy(struct pool_python_arguments *arguments);

POOL_API int pool_python_put_none(struct pool_python_arguments *arguments);
POOL_API int pool_python_put_bool(struct pool_python_arguments *arguments, bool value);
POOL_API int pool_python_put_int64(struct pool_python_arguments *arguments, int64_t value);
POOL_API int pool_python_put_double(struct pool_python_arguments *arguments, double value);
/* A str, from UTF-8 that ends with a 0; or from `size` bytes, which may contain 0. They are copied.
 * -EILSEQ: that is not UTF-8. */
POOL_API int pool_python_put_string(struct pool_python_arguments *arguments, const char *text);
POOL_API int pool_python_put_text(struct pool_python_arguments *arguments, const char *text,
                                  size_t size);
/* A bytes object; copied. */
POOL_API int pool_python_put_bytes(struct pool_python_arguments *arguments, const void *data,
                                   size_t size);
/* An array: numpy.ndarray where NumPy can be imported in the worker, else memoryview.
 * One in a block is not copied at all: all jobs that get it see the same memory. The block has to
 * live until those jobs have ended; what Python code keeps of it beyond that holds the block.
 * One that is copied has to stay as it is until pool_python_submit(), and arrives read-only.
 * -EINVAL also: no such type, too many dimensions; later, by pool_python_submit(): no such block,
 * or the array does not lie within it, or not on a multiple of its element's size. */
POOL_API int pool_python_put_array(struct pool_python_arguments *arguments,
                                   const struct pool_python_array *array);

POOL_API int pool_python_begin_list(struct pool_python_arguments *arguments);
POOL_API int pool_python_begin_tuple(struct pool_python_arguments *arguments);
/* Put key, value, key, value, ... A key that can't be hashed raises TypeError in the worker. */
POOL_API int pool_python_begin_dict(struct pool_python_arguments *arguments);
/* Ends the list, tuple or dict begun last. */
POOL_API int pool_python_end(struct pool_python_arguments *arguments);

/* The next value is the keyword argument `name`, UTF-8. Put twice, the last one counts. */
POOL_API int pool_python_put_keyword(struct pool_python_arguments *arguments, const char *name);

/* ---- Calls ---------------------------------------------------------------------------------- */

/* Submits a call of a Python function, named "module:function"; after the colon there may be
 * dotted attributes ("package.module:Class.method"). The worker imports the module when the first
 * such job runs. `arguments` may be NULL for none, and is unchanged afterwards: it can be submitted
 * again. `options` (time limit, retries) and `future` as in pool_submit_with(). Also in a job.
 * -EINVAL: no colon in the name, or an unfinished list. The error of `arguments`, if it has one.
 * Else as pool_submit_with(). */
POOL_API int pool_python_submit(struct pool *pool, const struct pool_options *options,
                                const char *function, const struct pool_python_arguments *arguments,
                                struct pool_future *future);

/* The same with Python code, UTF-8, of the program's own. With a `function`, `source` is the text
 * of a module, which each worker runs once, when it gets the text for the first time, and whose
 * function of this name (dotted attributes allowed) is called; texts are told apart by what they
 * say, and each worker keeps the 256 that came last. Without (NULL), `source` is an expression:
 * its value is the result. It sees what the start code of the pool defined in __main__, the keyword
 * arguments by their names and the others as the tuple `args`. The text travels with each job.
 * -EINVAL: no source. -EILSEQ: it is not UTF-8. -E2BIG: longer than 4 GiB. */
POOL_API int pool_python_submit_source(struct pool *pool, const struct pool_options *options,
                                       const char *source, const char *function,
                                       const struct pool_python_arguments *arguments,
                                       struct pool_future *future);

/* ---- Results -------------------------------------------------------------------------------- */

enum pool_python_kind {
    POOL_PYTHON_KIND_NONE = 1,
    POOL_PYTHON_KIND_BOOL,
    POOL_PYTHON_KIND_INT, /* of 64 bits: a larger one is an OverflowError of the job */
    POOL_PYTHON_KIND_DOUBLE,
    POOL_PYTHON_KIND_STRING,
    POOL_PYTHON_KIND_BYTES,
    POOL_PYTHON_KIND_LIST,
    POOL_PYTHON_KIND_TUPLE,
    POOL_PYTHON_KIND_DICT,
    POOL_PYTHON_KIND_ARRAY /* from numpy.ndarray, array.array, memoryview or any other buffer */
};

/* A value in the result of a job: a plain value, without memory of its own; the members are the
 * library's. It, and all pointers that it gives, are valid until the future is released. */
struct pool_python_value {
    struct pool *pool;
    const void *data;
    size_t size;
    size_t offset;
};

/* The result of an ended job that called Python. As pool_future_result(), and: -EREMOTEIO: the call
 * raised an exception, see pool_python_exception(), also where the result is of a type that has no
 * form here (TypeError). -EBADMSG: the job was not one of this library, or its result has been
 * overwritten. */
POOL_API int pool_python_result(const struct pool_future *future, struct pool_python_value *value);

struct pool_python_exception {
    size_t size;           /* sizeof(struct pool_python_exception), set by the caller */
    const char *type;      /* "ValueError"; those of modules "module.Name" */
    const char *message;   /* str() of it */
    const char *traceback; /* as Python prints it: with causes and notes, ends with a newline */
};

/* The exception of a job whose result is -EREMOTEIO. The strings are UTF-8, valid until the future
 * is released. -ENOENT: the job has ended without one. Else as pool_python_result(). */
POOL_API int pool_python_exception(const struct pool_future *future,
                                   struct pool_python_exception *exception);

/* One of enum pool_python_kind. For this and all below: -EINVAL: the value is of another kind;
 * -EBADMSG: the result has been overwritten by a worker that went astray. */
POOL_API int pool_python_kind(const struct pool_python_value *value);
POOL_API int pool_python_get_bool(const struct pool_python_value *value, bool *out);
POOL_API int pool_python_get_int64(const struct pool_python_value *value, int64_t *out);
/* Of an int, too, rounded. */
POOL_API int pool_python_get_double(const struct pool_python_value *value, double *out);
/* UTF-8; *text[*size] is 0. `size` may be NULL. */
POOL_API int pool_python_get_string(const struct pool_python_value *value, const char **text,
                                    size_t *size);
POOL_API int pool_python_get_bytes(const struct pool_python_value *value, const void **data,
                                   size_t *size);
/* `array->size` has to be set. An array that lies in a block of the job's arguments comes back as a
 * view of that block (`reference`), all others as a copy in the result. -EINVAL also: the block is
 * gone. */
POOL_API int pool_python_get_array(const struct pool_python_value *value,
                                   struct pool_python_array *array);

/* How many items a list or tuple, or entries a dict has. */
POOL_API int64_t pool_python_length(const struct pool_python_value *value);
/* -ERANGE: no such item. */
POOL_API int pool_python_get_item(const struct pool_python_value *list, size_t index,
                                  struct pool_python_value *item);
/* An entry of a dict, in Python's order. `key` and `item` may be NULL. -ERANGE: no such entry. */
POOL_API int pool_python_get_entry(const struct pool_python_value *dict, size_t index,
                                   struct pool_python_value *key, struct pool_python_value *item);
/* The entry whose key is this string; looks at one after the other. -ENOENT: there is none. */
POOL_API int pool_python_find(const struct pool_python_value *dict, const char *key,
                              struct pool_python_value *item);

#ifdef __cplusplus
}
#endif
#endif
