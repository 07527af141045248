/* What the files of libpool._core share. Everything here runs with the GIL held unless a comment
 * says otherwise; that is what protects every field that is not in shared memory.
 *
 *   module.c     the module, its state
 *   workers.c    Workers: the pool as Python sees it
 *   start.c      Workers._start and _view
 *   submit.c     Workers.submit and submit_chunk: from a Python call to a job
 *   bulk.c       all chunks of a map at once, and their results
 *   insight.c    Workers.stats
 *   functions.c  how functions travel, and the cache of those that were sent
 *   codec.c      values to bytes and back
 *   array.c      the same for lists of numbers
 *   flat.c       the same for bytearray and array.array
 *   pickling.c   the same for what needs pickle
 *   buffers.c    large buffers beside a pickle
 *   born.c       arrays of NumPy that are in shared memory from the start
 *   block.c      Block: a Python object that looks after a piece of shared memory
 *   future.c     Future: its methods
 *   job.c        a future's job: waiting for it, becoming final
 *   outcome.c    from an ended job to a value or an exception
 *   watch.c      what a Future has only when somebody asks for it: condition, waiters, callbacks
 *   handle.c     the pool, shared by Workers and futures
 *   announce.c   takes what the library announces, for the collector and for event loops
 *   collector.c  the thread that serves watched futures
 *   reaper.c     the threads that see to the end of pools that nobody waits for
 *   loop.c       what an event loop awaits
 *   host.c       the worker's side: the hooks of pool_host
 *   call.c       the worker's side: runs one job
 *   native*.c    jobs that are C functions, see native.h
 *   chunk.c      the same for a chunk of a map
 *   reply.c      the worker's side: writes what came of a job
 *   errors.c     from negative errno to exceptions
 */
#ifndef LIBPOOL_CORE_H
#define LIBPOOL_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h>
#define Py_T_OBJECT_EX T_OBJECT_EX
#endif

#include "libpool.h"

/* A function in a table of slots, where ISO C would not have it. */
#define SLOT(function) ((void *)(uintptr_t)(function))

/* Copies longer than this are made without the GIL: below it, handing the GIL over costs more. */
#define COPY_WITHOUT_GIL 65536

typedef struct Workers Workers;
typedef struct Future Future;
typedef struct Block Block;

/* ---- The module's state ---------------------------------------------------------------------- */

typedef struct Core {
    PyTypeObject *workers_type;
    PyTypeObject *handle_type;
    PyTypeObject *future_type;
    PyTypeObject *watch_type;
    PyTypeObject *sent_function_type;
    PyTypeObject *block_type;
    PyTypeObject *collector_type;
    PyTypeObject *native_type;
    PyTypeObject *awaited_type;
    PyTypeObject *loop_type;

    /* From concurrent.futures. */
    PyObject *base_result;    /* Future.result, the inherited one */
    PyObject *base_exception; /* Future.exception */
    PyObject *cancelled_error;
    PyObject *logger;
    PyObject *state_pending; /* the strings in Future._state */
    PyObject *state_running;
    PyObject *state_cancelled;
    PyObject *state_cancelled_and_notified;
    PyObject *state_finished;

    PyObject *condition;      /* threading.Condition */
    PyObject *thread;         /* threading.Thread */
    PyObject *main_thread;    /* threading.main_thread */
    PyObject *current_thread; /* threading.current_thread */
    PyObject *dumps;          /* pickle.dumps and pickle.loads, the ones written in C */
    PyObject *loads;

    /* Of libpool's own Python modules, which import this one: fetched at first use. */
    PyObject *rich_dumps;   /* libpool._pickling.dumps */
    PyObject *tensor_dumps; /* libpool._tensors.dumps */
    PyObject *all_have;     /* libpool._functions.all_have */
    PyObject *dumps_exception;
    PyObject *loads_exception;
    PyObject *broken_pool; /* libpool._errors.broken_pool */
    PyObject *worker_died;
    PyObject *with_failures;
    PyObject *job_timeout;
    PyObject *native_out; /* libpool._native.Out, the base of InOut */
    PyObject *native_in_out;
    PyObject *simple_data; /* _ctypes._SimpleCData */
    PyObject *array_type;  /* array.array */

    /* Names and constants used on the way of every job. */
    PyObject *name_torch;
    PyObject *name_timeout;
    PyObject *name_acquire;
    PyObject *name_release;
    PyObject *name_notify_all;
    PyObject *name_describe;
    PyObject *name_done; /* the methods of a loop's future, and of its reader */
    PyObject *name_set_result;
    PyObject *name_set_exception;
    PyObject *name_cancel;
    PyObject *name_retire;
    PyObject *pickle_protocol;         /* 5 */
    PyObject *keyword_buffer_callback; /* (name,) */
    PyObject *keyword_buffers;
    PyObject *nothing; /* () */

    Workers *current; /* in a worker: the pool that it belongs to */
    bool printed;     /* in a worker: the streams may hold something since they were last flushed */

    struct Handle *collecting; /* those that have a collector, linked by `next_collecting` */
    /* The interpreter ends, and has waited for all pools: those that are left are terminated. */
    bool ended;
} Core;

extern PyModuleDef core_module;

/* The state of the module that defined `type`, or a class that it derives from. */
Core *core_of(PyTypeObject *type);

/* An attribute of one of libpool's Python modules, remembered in *slot. Borrowed; NULL on error. */
PyObject *core_late(PyObject **slot, const char *module, const char *name);

/* ---- The pool, shared by Workers and its futures (handle.c, announce.c, collector.c, reaper.c) */

typedef struct Lingering Lingering;
typedef struct LoopReader LoopReader;

/* The pool lives as long as somebody may ask something of it: futures outlive their Workers. This
 * is no garbage-collected type, although `watched` refers to futures which refer back: a watched
 * future has to stay alive until it has been told, and then leaves the dict by itself. */
typedef struct Handle {
    PyObject_HEAD
    Core *core;
    struct pool *pool;
    pid_t owner;               /* the one process in which this pool is usable */
    bool in_worker;            /* that process is a worker of this pool */
    bool closed;               /* nothing more will be submitted: the collector may end */
    bool sweep;                /* the collector is to look at every watched future */
    bool resting;              /* the collector has nothing to watch and leaves it to the loops */
    int wake;                  /* an eventfd that wakes the collector, -1 before there is one */
    unsigned long main_thread; /* where signal handlers run, and, in a worker, jobs */
    PyObject *watched;         /* job index (int) -> Future */
    PyObject *ended;           /* list of those that were announced, for the collector */
    LoopReader *loops;         /* borrowed, a list: each leaves it before it is freed */
    PyObject *collector;       /* threading.Thread, the last one that ran, or NULL */
    PyObject *blocks;        /* reference of a shared block (int) -> its Block's address, or NULL */
    PyObject *pins;          /* job (int) -> the Blocks that it needs (tuple), or NULL */
    PyObject *orphans;       /* keys of `pins` whose jobs have no future any more, or NULL */
    Py_ssize_t many_orphans; /* how many are enough to look whether their jobs have ended */
    PyObject *deferred;      /* list of (future, callback) for the collector to call, or NULL */
    bool collecting;         /* it runs, or is being started */
    bool in_collector;       /* it runs */
    bool closing;            /* takes no more calls, but the chunks of those that it took */
    struct Handle *next_collecting;
    Workers *workers;      /* borrowed, NULL when they are gone */
    bool finishes_at_exit; /* the interpreter waits for what was submitted; else it terminates it */
    uint64_t memory_limit; /* of the pool, for messages */
    Lingering *lingering;  /* what reaper.c notes of this pool */
} Handle;

extern PyType_Spec handle_spec;
Handle *handle_new(Core *core);
/* Is this a process that inherited the pool by fork? */
bool handle_inherited(const Handle *handle);
/* Wakes the collector and the loops, if there are any, to look at `closed` and `sweep`. */
void handle_wake(Handle *handle);
/* Takes all that is announced, and tells whom it is for. `taker` is the loop that calls, or NULL:
 * the collector does. It is not woken: it looks at its list next. */
void handle_take_announced(Handle *handle, LoopReader *taker);
/* Makes an eventfd readable, or unreadable. */
void event_write(int descriptor);
void event_drain(int descriptor);
/* Starts the collector unless it runs. 0, or -1 with an exception. */
int collector_start(Handle *handle);
/* Waits for its end: 0 ended, 1 timed out, -1 exception. `timeout` as for Workers.join. */
int collector_join(Handle *handle, double timeout);
/* Has the collector call callback(future), for a final future. 0, or -1 with an exception. */
int collector_defer(Handle *handle, Future *future, PyObject *callback);
/* The method that the thread runs. */
PyObject *collector_run(PyObject *self, PyObject *unused);
/* Forgets a handle that is being freed. */
void collector_forget(Handle *handle);
/* At the interpreter's end: waits for the callbacks of closed pools. 0, or -1 with an exception. */
int collector_finish(Core *core);
/* Waits for the end of a pool that is closed, at the longest until `deadline`, ns of
 * CLOCK_MONOTONIC or POOL_FOREVER. 0, -ETIMEDOUT or another negative errno; 1 with an exception. */
int handle_join(struct pool *pool, int64_t deadline);

/* To be called before the others: 0, or -1 with an exception. */
int reaper_init(void);
/* What a Handle has for the reaper, NULL without memory. reaper_take() frees it. */
Lingering *lingering_new(void);
/* For a pool that is closed, more than once if need be: sees to it that its processes are reaped
 * when it has ended, whoever has it then. Runs no Python code, and can't fail. */
void reaper_watch(Handle *handle);
/* The handle is being freed: destroys its pool, or, while it is watched and has not ended, leaves
 * that to the reaper. Without the GIL. */
void reaper_take(Handle *handle);
/* At the interpreter's end: ends the pools that are watched. 0, or -1 with an exception. */
int reaper_finish(Core *core);

/* ---- Functions that were sent (functions.c) -------------------------------------------------- */

/* One thing that must be as it was for a function to be sent again by its reference. */
typedef struct Guard {
    enum { GUARD_ITEM, GUARD_FUNCTION, GUARD_CELL } kind;
    PyObject *where;
    PyObject *key; /* GUARD_ITEM */
    PyObject *expected;
    PyObject *defaults; /* GUARD_FUNCTION */
    PyObject *keyword_defaults;
} Guard;

typedef struct SentFunction {
    PyObject_HEAD
    PyObject *function;
    PyObject *pickled;  /* bytes; dropped when it is in a shared block */
    uint64_t reference; /* of that block, 0 before */
    uint32_t number;    /* names it in futures */
    bool dropped;       /* a guard failed: not to be used any more */
    Py_ssize_t count;
    Guard *guards;
} SentFunction;

/* At most this many one-shot functions are kept alive by the cache of those that were sent. */
#define RECENT_FUNCTIONS 64
/* What the shared blocks of one pool may take; past that functions travel with each job. */
#define MAX_STORED_FUNCTIONS 4096
#define MAX_STORED_BYTES (64u << 20)

typedef struct FunctionCache {
    PyObject *known;                        /* function -> SentFunction */
    SentFunction *last;                     /* the one that was asked for last */
    SentFunction *recent[RECENT_FUNCTIONS]; /* used once so far */
    unsigned next_recent;
    uint32_t last_number;
    unsigned stored;
    size_t stored_bytes;
} FunctionCache;

/* How a function travels with one job. */
typedef struct Travel {
    uint64_t target;   /* the shared block, 0: with the job */
    PyObject *pickled; /* bytes, owned, when target is 0 */
    uint32_t number;   /* SentFunction.number; 0: there is none */
} Travel;

extern PyType_Spec sent_function_spec;
int functions_init(FunctionCache *cache);
int functions_traverse(FunctionCache *cache, visitproc visit, void *arg);
void functions_clear(FunctionCache *cache);
/* 0, or -1 with an exception: the function can't be sent. */
int functions_travel(Workers *workers, PyObject *function, Travel *travel);
/* The function with this number. Borrowed; NULL, without an exception, when it is known no more. */
PyObject *functions_find(FunctionCache *cache, uint32_t number);

/* ---- Workers (workers.c, start.c, submit.c, insight.c) --------------------------------------- */

struct Workers {
    PyObject_HEAD
    Core *core;
    Handle *handle; /* NULL before _start() */
    int count;
    /* A view, see Workers._view(): this one's handle, functions and registry are `base`'s. */
    Workers *base; /* NULL: it is none */
    struct pool_options options;
    PyObject *start;
    PyObject *stop;
    PyObject *registry;
    FunctionCache functions;
    bool in_midst_of_fork; /* this process is the supervisor, see host.c */
    /* In a worker only. */
    PyObject *callables; /* reference -> callable that was unpickled from that block */
    uint64_t last_target;
    PyObject *last_callable;  /* borrowed from `callables` */
    PyThreadState *suspended; /* while the worker sleeps */
};

extern PyType_Spec workers_spec;
/* Not started, and without a call of __init__(). */
PyObject *workers_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
PyObject *workers_start(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *workers_view(PyObject *self, PyObject *args);
extern const char workers_start_doc[];
extern const char workers_view_doc[];
PyObject *workers_submit(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames);
PyObject *workers_submit_chunk(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
/* The same; `form`: FORM_STAR, FORM_EACH or both. */
PyObject *submit_items(Workers *workers, PyObject *function, PyObject *items, int form);
PyObject *workers_submit_chunks(PyObject *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *bulk_gather(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
/* Memory for a job. With `release`, committing much of it goes without the GIL. */
int submit_prepare(const Workers *workers, size_t size, bool release, struct pool_future *job,
                   void **memory);
/* The future that has the exception that is set now. A closed or broken pool goes first, and what
 * is no Exception goes to the caller: NULL. */
PyObject *submit_failed(Workers *workers);
PyObject *workers_stats(PyObject *self, PyObject *unused);
/* 0, or -1 with an exception. */
int workers_get_stats(PyObject *self, struct pool_stats *stats);
extern const char workers_stats_doc[];
extern const char workers_submit_doc[];
extern const char workers_submit_chunk_doc[];
extern const char workers_submit_chunks_doc[];
extern const char bulk_gather_doc[];
extern const struct pool_host host_hooks;

/* serve.c: fills in how the supervisor's program is started, from the tuple that Workers._start()
 * takes, which must outlive it. -1 with an exception. launch_free() in either case. */
int launch_configure(PyObject *launch, struct pool_config *config);
void launch_free(struct pool_config *config);
PyObject *workers_attach(PyObject *self, PyObject *descriptor);
PyObject *workers_serve(PyObject *self, PyObject *args, PyObject *kwargs);
extern const char workers_attach_doc[];
extern const char workers_serve_doc[];

/* ---- Codec (codec.c, pickling.c) ------------------------------------------------------------- */

/* The forms of a job's argument, in its first byte. */
enum {
    FORM_KIND = 0x07,
    FORM_CALL = 0,             /* number of arguments: one byte; values */
    FORM_CALL_KEYWORDS = 1,    /* ...; number of keywords: one byte; values, then names */
    FORM_PICKLED = 2,          /* the pickled tuple of arguments */
    FORM_PICKLED_KEYWORDS = 3, /* the pickled (args, kwargs) */
    FORM_CHUNK = 4,            /* one value: the list of items */
    FORM_PICKLED_CHUNK = 5,
    FORM_INLINE = 0x10, /* after the first byte: length (8 bytes) of the pickled function, and it */
    FORM_STAR = 0x20,   /* of a chunk: call function(*item) */
    FORM_BUFFERS = 0x40, /* of what is pickled: the pickle comes with buffers, see buffers.c */
    FORM_COPY = 0x80,    /* and they may be needed once more as they are: the job gets a copy */
    FORM_EACH = 0x08,    /* of a chunk: an exception does not end it, see TAG_PARTIAL */
};

/* The first byte of a value. Results are one value, or one of the last ones, from TAG_PICKLE on,
 * with all that follows. */
enum {
    TAG_NONE,
    TAG_FALSE,
    TAG_TRUE,
    TAG_INT8,
    TAG_INT16,
    TAG_INT32,
    TAG_INT64,
    TAG_FLOAT,
    TAG_STR8,  /* length in 1 byte, UTF-8 */
    TAG_STR64, /* length in 8 bytes */
    TAG_BYTES8,
    TAG_BYTES64,
    TAG_TUPLE, /* count in 4 bytes, values */
    TAG_LIST,
    TAG_DICT,
    TAG_ARRAY,     /* a list of numbers, see array.c */
    TAG_RANGE,     /* start, stop, step: 8 bytes each; only as the items of a chunk */
    TAG_BYTEARRAY, /* see flat.c */
    TAG_NUMBERS,   /* an array.array */
    TAG_PICKLE,
    TAG_BUFFERS,   /* a pickle with buffers, see buffers.c */
    TAG_EXCEPTION, /* as by libpool._exceptions.dumps_exception */
    TAG_FAILURE,   /* UTF-8 text about an exception that could not be sent */
    TAG_NATIVE,    /* see native.h */
    TAG_TIMED,     /* nanoseconds that a chunk took: 8 bytes; then a result of any other kind */
    TAG_PARTIAL,   /* of FORM_EACH: (results, {index: exception by dumps_exception}) as a result */
};

/* Containers, and other mutable or long values, that have been met: one that comes again must be
 * sent by pickle, which keeps identities. */
#define MAX_CONTAINERS 8
typedef struct Met {
    int count;
    PyObject *containers[MAX_CONTAINERS];
} Met;

/* What fits in here is written in one go; a value that does not is measured first. */
#define SMALL_PAYLOAD 512
typedef struct Writer {
    uint8_t *next;
    uint8_t *end;
    bool release; /* the GIL may be let go of around long copies: nothing written is mutable */
    Met met;
} Writer;

enum { CODEC_DONE, CODEC_FULL, CODEC_PICKLE };

/* None of these runs Python code or raises. */
static inline void codec_begin(Writer *writer, uint8_t *memory, size_t size, bool release)
{
    writer->next = memory;
    writer->end = memory + size;
    writer->release = release;
    writer->met.count = 0;
}
/* Writes a value, never past `end`. CODEC_FULL: no room. CODEC_PICKLE: it has to be pickled. */
int codec_write(Writer *writer, PyObject *value);
/* Bytes that `value` takes, -1 when it has to be pickled. */
Py_ssize_t codec_measure(PyObject *value, Met *met);
/* memcpy, with `release` without the GIL when long. */
void codec_copy(void *to, const void *from, size_t size, bool release);
/* The same to memory that is new, without the GIL when long. */
void codec_fill(void *to, const void *from, size_t size);
/* memcpy, and past the caches where these are too small for it. */
void copy_memory(void *to, const void *from, size_t size);

typedef struct Reader {
    Core *core;
    Handle *handle;       /* of a result: the pool that it came from */
    const uint8_t *begin; /* of a result: where the job's memory begins */
    Block *block;         /* of a result: exports that memory. NULL: it does not */
    const uint8_t *next;
    const uint8_t *end;
} Reader;

/* The next value; NULL with an exception. Never reads past `end`, whatever the bytes are. */
PyObject *codec_read(Reader *reader);
/* The next `size` bytes, or NULL with an exception. */
const uint8_t *codec_take(Reader *reader, size_t size);
int codec_read_byte(Reader *reader);               /* -1 with an exception */
int codec_read_size(Reader *reader, size_t *size); /* 8 bytes */

/* ---- Buffers (buffers.c, block.c) ------------------------------------------------------------ */

/* A shorter one is copied along with the pickle, which is cheaper than what it takes to refer to
 * it. */
#define MIN_BUFFER 16384

/* What is left out of a pickle. */
typedef struct Buffers {
    PyObject *list;      /* of memoryviews; NULL: there are none */
    PyObject *collector; /* adds to it, during the pickling */
    PyObject *blocks;    /* tuple: the Block that each lies in, or None. NULL: none does */
    PyObject *kept;      /* what `blocks` was before buffers_keep(), or NULL */
    size_t given;        /* how many blocks of this worker's own are among these: */
    uint64_t gifts[POOL_JOB_BLOCKS]; /* their references */
} Buffers;

/* The buffer_callback for pickle. */
typedef struct Collector {
    PyObject_HEAD
    Handle *handle;
    PyObject *list;
} Collector;

/* Where a payload with buffers is read from. */
typedef struct Source {
    PyObject *exporter;            /* of the memory in which it begins */
    const uint8_t *memory;         /* which is here */
    Handle *handle;                /* where to find shared blocks; NULL: there may be none */
    const struct pool_future *job; /* of a result: whose it is */
    PyObject *opened; /* a list to which the Blocks that were found are added, or NULL */
    bool copy;        /* what lies in the payload is copied, not viewed */
    bool read_only;   /* all is */
} Source;

extern PyType_Spec collector_spec;
/* Before the pickling. 0, or -1 with an exception. */
int buffers_begin(Buffers *buffers, Handle *handle);
/* After it: finds out what lies in shared blocks. In a result these are the sequence `known` and
 * this worker's own, which are to be given with it; in an argument, where that is NULL, all others
 * but the private ones. */
int buffers_finish(Buffers *buffers, Handle *handle, PyObject *known);
/* Has the worker keep what it was to give: a copy is sent. 0, or -1 with an exception. */
int buffers_keep(Buffers *buffers);
/* The block that buffer number `i` is sent as a part of. Borrowed; NULL: it is copied. */
Block *buffers_block(const Buffers *buffers, Py_ssize_t i);
/* Sets it. 0, or -1 with an exception. */
int buffers_set_block(Buffers *buffers, Py_ssize_t i, Block *block);
void buffers_clear(Buffers *buffers);
/* Where in the memory a payload ends that begins at `offset`. */
size_t buffers_end(const Buffers *buffers, size_t offset, size_t pickle_size);
void buffers_write(const Buffers *buffers, uint8_t *memory, size_t offset, const void *pickle,
                   size_t pickle_size);
/* Reads such a payload. */
PyObject *buffers_loads(const Source *source, Reader *reader);

/* After buffers_finish(), for a result: has its arrays given whose memory was shared from the
 * start, and that nobody has when *result has been cleared; that is done if there are any. With
 * `result` NULL all are copied. 0, or -1 with an exception. Then, after the writing, born_end(). */
int born_begin(Handle *handle, Buffers *buffers, PyObject **result);
void born_end(const Buffers *buffers);

struct Block {
    PyObject_HEAD
    Handle *handle; /* keeps the memory mapped */
    uint8_t *memory;
    size_t size;
    /* Whose memory it is. Neither: the running job's, which has not ended. */
    uint64_t reference; /* that of a block, which this process holds, or */
    PyObject *key;      /* `reference` as an int, in Handle.blocks; NULL: it is not there */
    bool owned;         /* will free */
    bool own;           /* this worker allocated it, and may give it to whom a result goes */
    bool private;       /* what others get is a copy, as of any memory */
    bool left;          /* neither freed nor dropped here, but at the pool's end */
    bool owns_job;      /* that of the result of `job`, which this object releases */
    struct pool_future job;
};

extern PyType_Spec block_spec;
Block *block_new(Handle *handle, void *memory, size_t size);
/* Does anybody refer to it but the caller? */
bool block_in_use(const Block *block);
/* A new shared block. */
Block *block_alloc(Workers *workers, size_t size);
/* The block with this reference, which a job got, or returned: then `job` is that one. */
Block *block_open(Handle *handle, uint64_t reference, const struct pool_future *job);
/* The shared block in which `address` lies. Borrowed; NULL, without an exception, if in none. */
Block *block_at(Handle *handle, const void *address, size_t *offset);
/* Keeps `blocks`, a tuple, until the future's job has ended. */
int block_pin(Future *future, PyObject *blocks);
/* The future lets go of its job. False: the job has not ended, and is released by block_sweep(), or
 * has been. */
bool block_unpin(Handle *handle, const struct pool_future *job);
/* Lets go of what jobs needed that have ended, and had no future any more. The `last` time, leaves
 * to the pool what the others need. */
void block_sweep(Handle *handle, bool last);
PyObject *workers_allocate(PyObject *self, PyObject *size);
PyObject *workers_put(PyObject *self, PyObject *object);
PyObject *block_get(PyObject *module, PyObject *exporter);
extern const char allocate_doc[];
extern const char put_doc[];
extern const char block_get_doc[];
/* Lists of numbers (array.c). 0: this is none. */
Py_ssize_t array_measure(PyObject *const *items, Py_ssize_t count);
/* False: this is none, or there is no room for it; it is to be written item by item. */
bool array_write(Writer *writer, PyObject *const *items, Py_ssize_t count);
/* After the tag. */
PyObject *array_read(Reader *reader);

/* bytearray and array.array (flat.c). None but flat_read() runs Python code or raises. */
bool flat_check(PyObject *value);
Py_ssize_t flat_measure(PyObject *value); /* -1: it has to be pickled */
int flat_write(Writer *writer, PyObject *value);
/* After the tag. */
PyObject *flat_read(Reader *reader, bool numbers);

/* The (module, name) pairs by which a pickle (bytes) of protocol 5 names functions and classes, a
 * set; None where that can't be said. */
PyObject *globals_in(PyObject *pickled);

/* bytes, by pickle. With `by_value`, also libpool's own pickling when the result refers to
 * __main__, and what it names there differs between the processes. With `buffers`, large ones are
 * left out, see buffers_begin(). */
PyObject *pickle_dumps(Core *core, PyObject *object, bool by_value, Buffers *buffers);
/* `buffers` are what was left out, or NULL. */
PyObject *pickle_loads(Core *core, const uint8_t *data, size_t size, PyObject *buffers);

/* ---- Future (future.c, job.c, watch.c, outcome.c) -------------------------------------------- */

/* WAITING and COLLECTING are the states with a job. */
enum {
    FUTURE_WAITING,    /* nobody has looked at the job's end */
    FUTURE_COLLECTING, /* one thread decodes the result; others wait for it */
    FUTURE_SET_RESULT, /* between `_result = x` and `_state = FINISHED` of set_result() */
    FUTURE_SET_EXCEPTION,
    FUTURE_CANCELLED,
    FUTURE_CANCELLED_AND_NOTIFIED,
    FUTURE_RESULT,
    FUTURE_EXCEPTION,
};

/* There may be a million of these, so no field is for the rare case only.
 *
 * `content` and `watch` are declared as slots of the type. So the functions that Python gives to
 * every class visit, clear and free them along with the instance dict that comes from
 * concurrent.futures.Future; there is no public way for a C type to do the latter in 3.11.
 *
 * As long as a future refers to no Python object, the collector of garbage need not know it: a
 * million waiting ones would be looked at again and again. See future_track(). */
struct Future {
    PyObject_HEAD
#if PY_VERSION_HEX < 0x030C0000
    PyObject *weak_references; /* of concurrent.futures.Future; later versions keep it elsewhere */
#endif
    PyObject *content; /* the result or exception; with a job, the function if it has no number,
                          or (native function, memoryview, ...): what its results go to */
    PyObject *watch;   /* Watch, or NULL */
    Handle *handle;    /* not NULL as long as there is a job */
    uint32_t index;
    uint32_t generation;
    uint32_t function; /* the number of the function that runs, 0: see content */
    uint8_t state;
    bool lent;      /* the result lies in the job's memory: a Block releases the job */
    bool pinned;    /* the job needs Blocks: Handle.pins */
    uint16_t spent; /* how long a chunk ran, see outcome_spent(); or one of SPENT_... */
};

#define SPENT_UNKNOWN 0
#define SPENT_NEVER_SENT UINT16_MAX /* there was no job: the call could not be pickled */

typedef struct Watch {
    PyObject_HEAD
    PyObject *condition; /* each NULL until somebody asks */
    PyObject *waiters;
    PyObject *callbacks;
} Watch;

extern PyType_Spec future_spec;
extern PyType_Spec watch_spec;
extern PyGetSetDef future_attributes[];

/* Creates the type, which derives from `base`, concurrent.futures.Future. */
PyTypeObject *future_make_type(PyObject *module, PyObject *base);

static inline bool future_ended(const Future *future)
{
    return future->state >= FUTURE_CANCELLED;
}

/* To be called before anything can make the future part of a reference cycle. */
static inline void future_track(Future *future)
{
    if (!PyObject_GC_IsTracked((PyObject *)future))
        PyObject_GC_Track((PyObject *)future);
}

static inline struct pool_future future_job(const Future *future)
{
    return (struct pool_future){future->handle->pool, future->index, future->generation};
}

/* A future that has an exception and never had a job. Steals `exception`. */
PyObject *future_failed(Core *core, PyObject *exception);
/* Has the job ended? 1, 0, or -1 with an exception. For a future in state WAITING. */
int future_job_ended(Future *future);
/* How long to sleep now if the wait ends at `deadline`, ns of CLOCK_MONOTONIC or POOL_FOREVER. */
int64_t sleep_until(int64_t deadline, bool main_thread);
/* Sleeps until the job has ended, or less: 0 look again, 1 it is past `deadline`, -1 exception. */
int future_wait(Future *future, int64_t deadline);
/* For one in state WAITING whose job has ended: makes it final and tells who watches. -1 with an
 * exception when a signal handler raised meanwhile; then an unwatched future is as before. */
int future_collect(Future *future);
/* Makes the future final: drops the job, stores, tells who watches. Steals `content`. When the
 * future has a condition, takes it. */
void future_publish(Future *future, int state, PyObject *content);
/* For one in state WAITING: 1 cancelled and told, 0 it runs or has ended, -1 exception. */
int future_cancel_waiting(Future *future);
/* Waits until the future is final: 1; 0: it can be waited for by inherited code only; -1 with an
 * exception. */
int future_settle(Future *future);
/* Gives the job back. */
void future_drop_job(Future *future);
/* Takes the future out of Handle.watched. */
void future_unwatch(Future *future);
/* The function that the future's job runs, to name it. Owned; NULL when it is not known. */
PyObject *future_function(Future *future);
/* The final state of an ended job, and, as *content, its result or exception. -1: an exception was
 * raised that is not the job's. */
int outcome_take(Future *future, PyObject **content);
/* Future.spent as nanoseconds. */
double outcome_spent(uint16_t spent);

/* The future's watch, made if there is none. Borrowed. The future's job is then announced to the
 * collector, or has ended. NULL with an exception. */
Watch *watch_of(Future *future);
/* For a final future: calls what is in `callbacks`. 0, or -1 when one raised a BaseException. */
int watch_run_callbacks(Future *future);
/* Has the callback called when the future ends: 1. 0: it has ended. -1 with an exception. */
int watch_add_callback(Future *future, PyObject *callback);
/* Calls one; logs an Exception as concurrent.futures does. */
int watch_run_callback(Future *future, PyObject *callback);
/* Takes the future's condition: *condition, owned, or NULL when it has none. -1: exception. */
int watch_lock(Future *future, PyObject **condition);
/* With the condition taken: tells those who wait what the state is now. */
void watch_announce(Future *future);
/* Lets go of it; NULL is fine. Steals. */
void watch_unlock(Core *core, PyObject *condition);

/* ---- Event loops (loop.c) -------------------------------------------------------------------- */

typedef struct Awaited {
    PyObject_HEAD
    Future *job;        /* both NULL once the awaiter has been told or was cancelled */
    PyObject *awaiter;  /* a future of the loop */
    LoopReader *reader; /* borrowed: in whose `pending` this is, or NULL */
} Awaited;

struct LoopReader {
    PyObject_HEAD
    Core *core;
    Handle *handle; /* NULL after leave() */
    PyObject *loop;
    PyObject *pending; /* job index (int) -> Awaited */
    PyObject *ended;   /* list of those that were announced */
    bool sweep;        /* look at all that are pending */
    int wake;          /* an eventfd: `ended` or `sweep` was set by another thread */
    LoopReader *next;  /* in Handle.loops */
};

extern PyType_Spec awaited_spec;
extern PyType_Spec loop_spec;

/* ---- The worker's side (call.c, chunk.c, reply.c, host.c) ------------------------------------ */

int call_run(void *context, struct pool_job *job);
/* Writes what was printed and is not a whole line. No exception may be set. */
void host_flush(Core *core);

/* What a worker writes about a job: a header of tags, then a value or an exception. */
#define REPLY_HEADER 10
typedef struct Reply {
    Workers *workers;
    Core *core;
    PyObject *known;   /* list of the Blocks that came with the arguments, or NULL for none: the
                        submitter has these, too */
    PyObject **result; /* the caller's only reference to what is replied: cleared where arrays in
                          it are to be given. NULL: there are others */
    struct pool_job *job;
    size_t header_size;
    uint8_t header[REPLY_HEADER];
} Reply;

void reply_begin_timed(Reply *reply, int64_t nanoseconds);
void reply_begin_partial(Reply *reply);
/* 0, or -1 with an exception; then the call may be made again. */
int reply_value(Reply *reply, PyObject *value);
/* The exception that is set now, whatever it is: also SystemExit and KeyboardInterrupt end the job
 * only, as in concurrent.futures. 0, or -ENOMEM. */
int reply_exception(Reply *reply);
/* bytes by dumps_exception; NULL, without an exception, when that failed. */
PyObject *reply_pickle_exception(Core *core, PyObject *exception);
/* Says of the exception that is set that this result could not be pickled. */
void reply_note_result(PyObject *function, PyObject *result);

typedef struct Chunk {
    Core *core;
    PyObject *function; /* borrowed */
    int form;
    PyObject *failures; /* of FORM_EACH: {index: exception as bytes}, NULL while there is none */
} Chunk;

/* Calls the function with each item and replies. `items` NULL: reading them raised what is set. */
int chunk_run(Chunk *chunk, Reply *reply, PyObject *items);

/* ---- Native functions (native.c, native_pack.c) ---------------------------------------------- */

extern PyType_Spec native_spec;

static inline bool native_check(const Core *core, PyObject *function)
{
    return PyObject_TypeCheck(function, core->native_type);
}
/* As Workers.submit and Workers.submit_chunk, for a NativeFunction. */
PyObject *native_submit(Workers *workers, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames);
PyObject *native_submit_chunk(Workers *workers, PyObject *function, PyObject *items, bool star);
/* What the calls returned. `content` is Future.content. NULL with an exception. */
PyObject *native_decode(PyObject *content, const uint8_t *data, size_t size);

/* ---- Errors (errors.c) ----------------------------------------------------------------------- */

/* Sets the exception for a negative errno of a call on the pool. */
void errors_set(Core *core, int error);
/* The same for a submission of `size` bytes. */
void errors_set_submit(Workers *workers, int error, size_t size);
/* The exception that is set now, taken off. Owned. */
PyObject *errors_take(void);
/* ... and put back. Steals. */
void errors_restore(PyObject *exception);
/* repr(object) cut to a length fit for a message. Owned; NULL, without an exception, when memory is
 * out. An exception that is set stays set. */
PyObject *errors_repr(PyObject *object);
/* Adds a note to the exception that is set now. */
void errors_note(const char *format, ...);
/* When a timeout given by the user ends: NULL or None is POOL_FOREVER, one below 0 is now. -1 with
 * an exception. */
int64_t errors_deadline(PyObject *timeout);
int64_t monotonic_now(void);

#endif
