/* libpool: worker processes that take jobs from a ring buffer in shared memory.
 *
 * Conventions, for every function here that does not say otherwise:
 *   - It returns 0 (or a count) on success and a negative errno on failure. Nothing prints or
 *     exits.
 *   - Threads: any thread of the process that made the pool, the host, may call it at any time,
 *     also while others are in it, or in another call on the same pool or job. "Also in a job":
 *     from a job that a worker of this pool runs, on the pool of pool_current(), by the thread that
 *     runs the job. None is to be called in a signal handler.
 *   - Fork: in a process that inherited the pool through somebody else's fork() the pool is inert:
 *     calls return -EXDEV, and nothing that this process does touches the owner's workers.
 *   - What a pointer in an argument leads to is the caller's: it is used until the call returns,
 *     and copied if it is needed later. No pointer may be NULL where it is not said.
 *   - Sizes are bytes, times are nanoseconds of CLOCK_MONOTONIC.
 *   - A struct that begins with `size` may grow at its end in later versions. The library takes
 *     the shorter one of a program that was compiled with an older header, and a longer one too if
 *     all that it does not know there is 0, which always means: as it was before.
 *
 * Linux only. Link with -lpool.
 */
#ifndef LIBPOOL_H
#define LIBPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(_WIN32) || defined(__APPLE__)
#error "libpool supports Linux only"
#endif

#define POOL_VERSION_MAJOR 0
#define POOL_VERSION_MINOR 1
#define POOL_VERSION_PATCH 0

#if defined(__GNUC__)
#define POOL_API __attribute__((visibility("default")))
#else
#define POOL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define POOL_MAX_WORKERS 1024
#define POOL_FOREVER INT64_MAX
#define POOL_EXIT_HOPELESS 2 /* see struct pool_host */

struct pool;
struct pool_job; /* a job as the worker that runs it sees it */

/* One submitted job as its submitter sees it: a plain value, no memory of its own. Copies name
 * the same job. After pool_future_release() every copy is stale, and calls on it return -ESTALE. */
struct pool_future {
    struct pool *pool;
    uint32_t index;
    uint32_t generation;
};

/* A C function that a worker runs. `argument` is the worker's view of the submitted block (aligned
 * to 8 bytes, `size` bytes, valid until the function returns). What it returns reaches the
 * submitter as the job's status: 0 for success, a negative errno (-1 to -4095) for failure; any
 * other value arrives as -ERANGE. A process that it forks, and that returns from it as well, ends
 * there, with exit status 0. */
typedef int (*pool_function)(struct pool_job *job, const void *argument, size_t size);

/* ---- Pools ---------------------------------------------------------------------------------- */

/* What a worker does beside C functions. `start` and `stop` alone are hooks for its start and its
 * end; with `run` it hosts an interpreter. All calls come in the worker, on its one thread, except
 * `fork`, which comes in the process that is about to fork. Any member may be NULL. */
struct pool_host {
    size_t size; /* sizeof(struct pool_host) */
    /* Once in a new worker, before its first job. Nonzero: the worker exits with status 1, and
     * another one tries. It may also exit by itself, with POOL_EXIT_HOPELESS if another one would
     * fare no better: then the pool is broken at once. */
    int (*start)(void *context, struct pool *pool, unsigned worker);
    /* Runs one job submitted with pool_commit_host(). Returns its status, as a pool_function. NULL:
     * such jobs end with the status -ENOSYS. */
    int (*run)(void *context, struct pool_job *job);
    /* Once, when the worker ends in an orderly way: after pool_close(), or `worker_jobs` jobs. Not
     * when it dies; pool_terminate() leaves no time for it. */
    void (*stop)(void *context);
    /* Around every sleep of the worker: let go of the interpreter's lock, and take it again. */
    void (*release)(void *context);
    void (*acquire)(void *context);
    /* fork() with what the interpreter has to do before and after it. NULL: plain fork(). */
    pid_t (*fork)(void *context);
    void *context;
};

/* How much a message matters. */
enum pool_log_level {
    POOL_LOG_DEBUG,   /* what happens all the time: workers begin, and end in an orderly way */
    POOL_LOG_INFO,    /* what was asked for, or follows: jobs killed, workers replaced */
    POOL_LOG_WARNING, /* what cost a job or a worker: deaths, time-outs, retries */
    POOL_LOG_ERROR    /* what the pool does not recover from */
};

/* Is told what happens in a pool: one line of text in `message`, without the line's end, valid
 * until the call returns. It is called
 *   - in the supervisor, by its only thread, for what becomes of workers: their deaths with signal
 *     or exit status, replacements, start hooks that fail, jobs that are killed, are late or run
 *     again, and that it gives up. That is a process of its own: variables that the call changes
 *     are that process's copy, but descriptors and files that were open in pool_create() are there.
 *     No worker is replaced until the call returns. In a fork of a host with threads, a lock that
 *     another thread had at that moment is locked for ever; write() is always safe.
 *   - in a worker that can't be pinned to its CPU, before its start hook;
 *   - in the host, by the thread whose call finds that the pool is broken, or mends what can only
 *     have come of stray writes. The call may be in any function here, also of two threads at once.
 * It must not call functions of this library. */
typedef void (*pool_log_function)(void *context, enum pool_log_level level, const char *message);

struct pool_config {
    size_t size;                  /* sizeof(struct pool_config), set by pool_config_init() */
    int workers;                  /* 1 to POOL_MAX_WORKERS */
    uint64_t shared_limit;        /* the most bytes of shared memory that the pool may commit, at
                                     least 1 MiB; 0: the memory of this machine or container */
    const struct pool_host *host; /* copied; NULL: no interpreter */
    int64_t timeout;              /* default of struct pool_options */
    int retries;                  /* default of struct pool_options */
    uint64_t memory_limit; /* bytes of private memory (RLIMIT_DATA) that a worker may have more
                               than when it started; 0: no limit. Allocations beyond it fail. */
    uint64_t worker_jobs;  /* a worker ends in an orderly way after so many jobs, and is
                               replaced; 0: never */
    const char *name;      /* what ps and top show of workers: NAME-3, "NAME worker 3: command";
                               copied, cut to 31 bytes; NULL: libpool */
    /* A program that becomes the supervisor, see "Programs as supervisors". NULL: a fork of this
     * process. Ends with a NULL; command[0] is a path, $PATH is not searched. `host` must be NULL
     * then: the program brings its own. */
    const char *const *command;
    const void *payload; /* copied; for pool_attach() in that program */
    size_t payload_size; /* bytes */
    const int *keep;     /* descriptors, beside 0 to 2, that it inherits under the same numbers */
    int keep_count;
    /* The most jobs that may wait for a worker, whoever submitted them: beyond it, submissions of
     * the host return -EAGAIN. 0: no limit. They are counted in the queue itself before each
     * submission, so that no death makes the count drift; threads that submit at the same time may
     * exceed it by one each, and a job that a death put back may count twice until a worker takes
     * it. Jobs may submit beyond it, or they could not end, and so may pool_map(), which has at
     * most 16 chunks for each worker in flight. */
    uint64_t queue_limit;
    /* Worker i runs on CPU cpus[i % cpu_count] only, as do its replacements. Copied. 0: where the
     * host may run. */
    const int *cpus;
    int cpu_count;
    pool_log_function log; /* NULL: nobody is told. With `command`: for the host's messages, see
                              pool_set_log() for the others. */
    void *log_context;
};

/* Fills in the defaults: one worker per usable core, no limit of shared memory but the
 * machine's, no host, no limit of the queue, no log. No pool is needed; always succeeds. */
static inline void pool_config_init(struct pool_config *config);
/* The same for a struct of `size` bytes: what the program was compiled with, not the library. */
POOL_API void pool_config_init_size(struct pool_config *config, size_t size);

static inline void pool_config_init(struct pool_config *config)
{
    pool_config_init_size(config, sizeof *config);
}

/* The number of cores this process may use: its CPU affinity, capped by its cgroup's CPU quota
 * (v1 or v2) rounded up. At least 1. */
POOL_API int pool_cpu_count(void);

/* Makes a pool: a shared segment, a supervisor process, workers. `config` may be NULL. Returns as
 * soon as the supervisor is forked: jobs may be submitted at once. On failure *out is NULL.
 * -EINVAL: workers, shared_limit, timeout or retries out of range, a struct size this library does
 * not know, a CPU that this process may not use, a command together with a host, or a payload or
 * descriptors to keep without a command. -ENOMEM, -EMFILE, -EAGAIN: the system has no more memory,
 * descriptors or processes. -ENOENT, -EACCES and the like, as of execv(): the command can't be
 * run. */
POOL_API int pool_create(struct pool **out, const struct pool_config *config);

/* No more submissions from the host: they return -ESHUTDOWN from now on. What was submitted runs,
 * then the workers end. Jobs may still submit to their own pool. Calling it twice is fine. */
POOL_API int pool_close(struct pool *pool);

/* Ends the pool now: waiting jobs are cancelled, running ones killed (they end as POOL_CANCELLED).
 * Returns when all processes of the pool are gone. Results that are there can still be read. */
POOL_API int pool_terminate(struct pool *pool);

/* After pool_close(): waits until every job has ended and all processes of the pool are gone.
 * -EINVAL: negative timeout. -EBUSY: not closed. -ETIMEDOUT. -EINTR: a signal handler ran. */
POOL_API int pool_join(struct pool *pool, int64_t timeout);

/* Terminates what still runs and frees everything; every future of this pool is void afterwards.
 * No other thread may be in a call on this pool. NULL is fine. In a process that inherited the
 * pool it frees only that process's view. */
POOL_API void pool_destroy(struct pool *pool);

/* 0 while the pool can run jobs; -ESHUTDOWN when closed; -EOWNERDEAD when its supervisor died or
 * its workers could not be started: the jobs that had no result yet are lost. -EXDEV when
 * inherited. */
POOL_API int pool_check(struct pool *pool);

/* ---- Programs as supervisors ---------------------------------------------------------------- */

/* The workers of a pool whose `command` is set are forks of that program and not of the host. So
 * they have nothing of the host's memory, and the host may have threads. The program gets one more
 * argument, the number of a descriptor, which it gives to pool_attach(), and then calls
 * pool_serve(). Until then it may do what its workers are to inherit. It starts with SIGINT
 * ignored, with no descriptors but 0 to 2, those in `keep` and the pool's, and is killed when the
 * host ends. If it ends without pool_serve(), the pool is broken.
 * Jobs are sent as shared library and offset: a function of the host's own executable runs only
 * if the program is the same executable. */

/* Finds the pool in the program that was started for it. Call it early: it keeps the pool's
 * descriptors from the programs that this one starts. `*payload`, which may be empty, stays valid
 * as long as the process. One thread, once. -EINVAL: no such descriptor, or the host's library is
 * another version; -ENOMEM, -EMFILE and the like. */
POOL_API int pool_attach(int descriptor, struct pool **pool, const void **payload, size_t *size);

/* Makes this process the supervisor, which forks the workers: they run `host`, which may be NULL.
 * The process must have one thread, and is that of pool_attach(), not a fork of it. Returns only
 * an error: -EINVAL: not attached, or a struct size that this library does not know. */
POOL_API int pool_serve(struct pool *pool, const struct pool_host *host);

/* Before pool_serve(): who is told what happens in this process and its workers, as the `log` of
 * struct pool_config is where there is no command. NULL: nobody. From the thread that will serve.
 * -EINVAL: not attached. */
POOL_API int pool_set_log(struct pool *pool, pool_log_function log, void *context);

/* ---- Jobs ----------------------------------------------------------------------------------- */

/* Submits function(argument, size). The block is copied; `argument` may be NULL when size is 0.
 * `future` may be NULL: the job runs, and nobody learns how it ended. Never blocks on the
 * workers. Also in a job. The function may live in any shared library that the worker can load
 * by the name under which the host loaded it. -EINVAL: no function, or one that lies in no
 * loaded object. -E2BIG: larger than the pool's shared_limit. -ENOMEM: no memory left for it.
 * -EAGAIN: queue_limit jobs wait already. -ESHUTDOWN, -EOWNERDEAD, -EXDEV: as pool_check(). */
POOL_API int pool_submit(struct pool *pool, pool_function function, const void *argument,
                         size_t size, struct pool_future *future);

/* What may be asked for a single job. */
struct pool_options {
    size_t size; /* sizeof(struct pool_options), set by pool_options_init() */
    /* Nanoseconds that the job may run, from its claim by a worker, not counting the time that it
     * waits for one: then its worker is killed and replaced, and the job ends as POOL_TIMEOUT. A
     * job that waits for a job which it submitted runs on. POOL_FOREVER: no limit. */
    int64_t timeout;
    /* How often the job is run again when its worker died under it, 0 to 255. Not after a
     * failure that the function returned, a time-out or a kill. */
    int retries;
};

/* Fills in the pool's defaults. Always succeeds; also in a job. */
static inline void pool_options_init(const struct pool *pool, struct pool_options *options);
/* The same for a struct of `size` bytes. */
POOL_API void pool_options_init_size(const struct pool *pool, struct pool_options *options,
                                     size_t size);

static inline void pool_options_init(const struct pool *pool, struct pool_options *options)
{
    pool_options_init_size(pool, options, sizeof *options);
}

/* pool_submit() with options; NULL: the pool's defaults. -EINVAL also: timeout below 1 or retries
 * out of range. */
POOL_API int pool_submit_with(struct pool *pool, const struct pool_options *options,
                              pool_function function, const void *argument, size_t size,
                              struct pool_future *future);

/* Submits `count` jobs: job i is function(argument i, item_size), with the item_size bytes at
 * `arguments` + i * item_size. They are jobs of their own, in order, each with its future in
 * futures[i]; `futures` may be NULL as in pool_submit(). Quicker than as many calls: the workers
 * that sleep are woken together. Also in a job.
 * Returns how many were submitted. Fewer than `count`: the next one failed, and the call again,
 * with the rest, says why. A negative errno, as of pool_submit_with(): the first one failed. */
POOL_API int64_t pool_submit_many(struct pool *pool, const struct pool_options *options,
                                  pool_function function, const void *arguments, size_t item_size,
                                  size_t count, struct pool_future *futures);

/* The same in two steps, without the copy: reserves a job with room for `size` bytes of argument,
 * to be written to *argument (aligned to 8) before one of the two commits, or given back with
 * pool_abandon(). Where a commit fails, the job is as it was: commit it again, or abandon it. Also
 * in a job. Errors as of pool_submit_with(), -EAGAIN only of the commits. -ESTALE: committed or
 * abandoned already. */
POOL_API int pool_prepare(struct pool *pool, size_t size, struct pool_future *future,
                          void **argument);
POOL_API int pool_prepare_with(struct pool *pool, const struct pool_options *options, size_t size,
                               struct pool_future *future, void **argument);
POOL_API int pool_commit(const struct pool_future *future, pool_function function);
/* ... and to be run by the worker's interpreter host; `target` is for its use. */
POOL_API int pool_commit_host(const struct pool_future *future, uint64_t target);
POOL_API void pool_abandon(const struct pool_future *future);

enum pool_outcome {
    POOL_PENDING = 0, /* waits for a worker */
    POOL_RUNNING,
    POOL_FINISHED,  /* the function returned; `detail` is its status */
    POOL_DIED,      /* its worker died; `detail` is the wait status, as of waitpid() */
    POOL_CANCELLED, /* by pool_future_cancel(), pool_future_kill() or pool_terminate() */
    POOL_LOST,      /* the pool broke before the job had a result */
    POOL_TIMEOUT    /* it ran longer than it was allowed to */
};

/* Returns when the job has ended, however it ended, or after `timeout` ns; 0 only looks.
 * Also in a job (of its own submissions): the worker runs other jobs meanwhile.
 * -EINVAL: negative timeout. -ETIMEDOUT. -EINTR: a signal handler ran; call again.
 * -ESTALE: the future was released. */
POOL_API int pool_future_wait(const struct pool_future *future, int64_t timeout);

/* Returns when all jobs have ended, however they ended. An entry of `futures` whose `pool` is NULL
 * is passed over. They may be of different pools. Also in a job (of its own submissions).
 * Errors as of pool_future_wait(); after each of them it may be called again. */
POOL_API int pool_wait_all(const struct pool_future *futures, size_t count, int64_t timeout);

/* Returns when one of the jobs has ended: its index in `futures`, the lowest of those that have
 * ended by then. To go on with the others, set the `pool` of that entry to NULL: such entries are
 * passed over. Each call looks at all entries; for thousands of jobs see "Completions". Also in a
 * job (of its own submissions).
 * Errors as of pool_future_wait(); -EINVAL also: no entry, or jobs of different pools. */
POOL_API int64_t pool_wait_any(const struct pool_future *futures, size_t count, int64_t timeout);

/* How the job stands now, one of enum pool_outcome, or a negative errno. `detail` may be NULL.
 * Also in a job. */
POOL_API int pool_future_outcome(const struct pool_future *future, int *detail);

/* The result of an ended job: `*data` (aligned to 8, `*size` bytes) is the job's own memory, not a
 * copy, and stays valid until the future is released. Returns the function's status; -EINPROGRESS
 * when it has not ended, -EOWNERDEAD when its worker died or the pool broke, -ECANCELED, -ETIME
 * after a time-out. `data` and `size` may be NULL. Also in a job. */
POOL_API int pool_future_result(const struct pool_future *future, const void **data, size_t *size);

/* This process holds a block that came with the result of a job that has finished, see
 * pool_job_reserve_with(), until pool_drop() or its death. -EINVAL: there is no such result, or the
 * block is none of it. -ESTALE: the future was released. */
POOL_API int pool_future_hold(const struct pool_future *future, uint64_t reference);

/* The part that the job began last, see pool_job_part(), or a negative errno. */
POOL_API int64_t pool_future_part(const struct pool_future *future);

/* Cancels a job that waits. -EBUSY: it runs or has ended already. Also in a job. */
POOL_API int pool_future_cancel(const struct pool_future *future);

/* Ends a job also if it runs: its worker is killed and replaced. Returns before that is done:
 * wait for the future, which ends as POOL_CANCELLED, or, if it was quicker, with its result.
 * -EBUSY: it has ended already. Host only. */
POOL_API int pool_future_kill(const struct pool_future *future);

/* Cancels every job that this process submitted and that waits. Returns how many. Also in a job. */
POOL_API int64_t pool_cancel_waiting(struct pool *pool);

/* Frees the job and its result, which no thread may be using. A job that has not ended still runs;
 * its result is dropped. Releasing it twice is fine. Also in a job (its own submissions). */
POOL_API void pool_future_release(const struct pool_future *future);

/* Calls function(item) for `count` items of `item_size` bytes at `items`, in parallel, and stores
 * `result_size` bytes for each at `results`, in order. Blocks until all have ended, also where
 * some fail. A result shorter than result_size is padded with zeros, a longer one fails with
 * -EMSGSIZE. `results` may be NULL when result_size is 0. Also in a job.
 * The items travel in chunks, about eight for each worker and at most 1 MiB or one item.
 * Returns 0, or the status of the first item, in order, that failed; other items' results are
 * stored all the same. When a worker dies (-EOWNERDEAD) or is late (-ETIME) that goes for the items
 * of its chunk together. */
POOL_API int pool_map(struct pool *pool, pool_function function, const void *items,
                      size_t item_size, size_t count, void *results, size_t result_size);

/* pool_map() with options; NULL: the pool's defaults. A time limit goes for each item. `statuses`
 * has room for `count`, or is NULL: what the function returned for each item, -EOWNERDEAD or -ETIME
 * for all items of a chunk whose worker died or that had a late one, so that these have no results,
 * and the error of the submission for those that could not be submitted. -EINVAL also: as
 * pool_submit_with(). Where it fails before it begins, `statuses` is left as it is. */
POOL_API int pool_map_with(struct pool *pool, const struct pool_options *options,
                           pool_function function, const void *items, size_t item_size,
                           size_t count, void *results, size_t result_size, int *statuses);

/* ---- In a job ------------------------------------------------------------------------------- */

/* Those that take a struct pool_job are for the thread that runs the job, until its function
 * returns. */

/* The pool whose worker this process is, NULL elsewhere. It serves to submit from a job. */
POOL_API struct pool *pool_current(void);

/* The number of this worker, 0 to workers-1, or -1 in a process that is none. */
POOL_API int pool_worker_index(void);

/* Room for a result of `size` bytes, to be written before the function returns; NULL with errno
 * ENOMEM when there is none, EXDEV in a process that the job has forked, or EBADF when a job has
 * closed the pool's descriptors. Called again, the last call counts. */
POOL_API void *pool_job_reserve(struct pool_job *job, size_t size);

/* The same for a result that comes with `count` blocks, 1 to POOL_JOB_BLOCKS of those that this
 * process has allocated by pool_alloc_own(), and has not dropped: they are the result's until the
 * future is released, and longer as long as somebody holds them. This process holds them too, until
 * pool_drop(), at once if it likes. Their references can be passed in the result, for
 * pool_future_hold(). errno EINVAL: a block is none of these, or is some other result's already, or
 * the job is a part of pool_map(). */
#define POOL_JOB_BLOCKS 127
POOL_API void *pool_job_reserve_with(struct pool_job *job, size_t size, const uint64_t *blocks,
                                     size_t count);

/* Copies `data` to the result: 0, or the negative of these. */
POOL_API int pool_job_return(struct pool_job *job, const void *data, size_t size);

/* Keeps the memory of the job's argument beyond its end, until pool_drop(*reference) or this
 * worker's death. -EINVAL: the argument is so small that it lies in the job's slot. */
POOL_API int pool_job_keep(struct pool_job *job, uint64_t *reference);

/* Says that the job begins with its part number `part`: its time limit counts anew from here,
 * and if it is killed the submitter can ask by pool_future_part() how far it got. For jobs that
 * have options; for others it does nothing. A process that the job has forked ends here. */
POOL_API void pool_job_part(struct pool_job *job, uint32_t part);

/* Counts the job as failed in struct pool_stats, also if its status is 0: for who returns an error
 * in another way. */
POOL_API void pool_job_fail(struct pool_job *job);

/* For interpreter hosts: what pool_commit_host() was given; and the argument (`size` may be
 * NULL). */
POOL_API uint64_t pool_job_target(const struct pool_job *job);
POOL_API const void *pool_job_argument(const struct pool_job *job, size_t *size);

/* ---- Shared blocks -------------------------------------------------------------------------- */

/* Memory that the host and all workers see at once, those too that start later: what one process
 * writes the others read, without a copy. Ordering is up to its users; submitting a job and waiting
 * for it order what was written before them. A block is named by a reference, which is passed in
 * arguments; its address differs where the supervisor is a program.
 *
 * It is counted who needs it. pool_alloc() is one claim, which pool_free() gives up, whoever calls
 * it; each process that holds the block has another one, which ends with pool_drop() or with the
 * process. The memory is free when there is none left. All of it is free at the end of the pool. */

/* A block of `size` bytes, aligned to 256, with any content. It does not end with the process that
 * allocated it. Also in a job. -E2BIG: larger than the pool's shared_limit. -ENOMEM: no memory left
 * for it. -ESHUTDOWN, -EOWNERDEAD, -EXDEV: as pool_check(). */
POOL_API int pool_alloc(struct pool *pool, size_t size, uint64_t *reference, void **memory);
/* The same for this process alone, until pool_drop() or its death. It can be given away with a
 * result: pool_job_reserve_with(). */
POOL_API int pool_alloc_own(struct pool *pool, size_t size, uint64_t *reference, void **memory);
/* The same, but only if a block with so much memory has been used before and is free now, so that
 * no memory is committed, and its pages are warm: else -ENOMEM. */
POOL_API int pool_take_own(struct pool *pool, size_t size, uint64_t *reference, void **memory);
/* Gives up the claim of pool_alloc(). Who does not hold the block can't look it up any more. A
 * reference that names no block has no effect. Also in a job. */
POOL_API void pool_free(struct pool *pool, uint64_t reference);
/* Where the block lies in this process, valid as long as it is not free; `size` may be NULL. Also
 * in a job. -EINVAL: no such block. */
POOL_API int pool_lookup(struct pool *pool, uint64_t reference, void **memory, size_t *size);

/* This process holds the block from here on, until pool_drop() or its death: freed meanwhile, the
 * block stays as it is until the last holder lets go. Holding a block twice is as holding it once.
 * The caller has to know that it is not being freed right now: a job whose submitter frees the
 * block only after the job's end may hold it. -EINVAL: no such block. Also in a job. Two threads
 * must not hold and drop the same block at once. */
POOL_API int pool_hold(struct pool *pool, uint64_t reference);
POOL_API void pool_drop(struct pool *pool, uint64_t reference);

/* The reference of the block in which `address` lies, and how far from its beginning; 0 where there
 * is none, or only one that is neither shared nor held by this process. `offset` may be NULL. Also
 * in a job. */
POOL_API uint64_t pool_find(struct pool *pool, const void *address, size_t *offset);

/* ---- Functions as arguments ----------------------------------------------------------------- */

/* Any C function: to be cast to its real type before it is called. */
typedef void (*pool_any_function)(void);

/* A number that stands for a C function in every process of the pool, never 0, to be passed in
 * arguments: an address holds in one process only. Also in a job. -EINVAL: no function, or one that
 * lies in no loaded object, such as code made at run time. -ENOSPC: the functions of this pool lie
 * in more than 128 objects, or the object's file name is longer than 503 bytes. -EXDEV. */
POOL_API int pool_refer(struct pool *pool, pool_any_function function, uint64_t *reference);
/* The function, in this process. Its library is loaded if it is not there yet. Also in a job.
 * -EINVAL: no such function, or its library can't be loaded. -EXDEV. */
POOL_API int pool_resolve(struct pool *pool, uint64_t reference, pool_any_function *function);

/* ---- Completions, for event loops and callback threads (host only) -------------------------- */

/* A descriptor (an eventfd, non-blocking) that becomes readable when a job marked by
 * pool_future_notify() ends, and when a call of this process finds the pool broken: watch
 * pool_supervisor_fd() too, and call pool_check() when that is readable. Owned by the pool. */
POOL_API int pool_notify_fd(struct pool *pool);
/* A pidfd of the supervisor: readable when it has ended. Owned by the pool, too: never close them,
 * nor use them after pool_destroy(). */
POOL_API int pool_supervisor_fd(struct pool *pool);
/* Marks the job. Returns 1 if it has ended already (it is then not announced), else 0. */
POOL_API int pool_future_notify(const struct pool_future *future);
/* Takes one announced job: 1 and *future, or 0 when there is none now. One thread at a time. Read
 * the eventfd empty first, then call this until it returns 0. A job may be announced twice, and a
 * released one may still be announced: compare index and generation with what you know. */
POOL_API int pool_next_completed(struct pool *pool, struct pool_future *future);

/* ---- Insight -------------------------------------------------------------------------------- */

struct pool_stats {
    size_t size;              /* sizeof(struct pool_stats), set by the caller */
    int workers;              /* as configured */
    int alive;                /* worker processes there are now */
    pid_t supervisor;         /* 0 once it has ended */
    uint64_t jobs_started;    /* claimed by workers, over the pool's life */
    uint64_t jobs_retried;    /* of these, put back for another try after a worker's death */
    uint64_t workers_started; /* including replacements */
    uint64_t memory;          /* shared memory committed now */
    uint64_t shared_limit;
    uint64_t jobs_waiting; /* for a worker, now */
    uint64_t jobs_running; /* now */
    uint64_t jobs_done;    /* ended with status 0 */
    uint64_t jobs_failed;  /* ended with another, or by pool_job_fail(), death or time-out */
    uint64_t bytes_in;     /* arguments of the jobs that are done or have failed by themselves */
    uint64_t bytes_out;    /* their results */
    int64_t busy_time;     /* ns that workers have had a job, all together */
    int64_t idle_time;     /* ns that they had none, or a job of theirs waited for another */
};

/* What one worker has done, and those that had its place before it. */
struct pool_worker_stats {
    size_t size; /* sizeof(struct pool_worker_stats), set by the caller */
    pid_t pid;   /* 0: there is none now */
    uint64_t jobs_started, jobs_running, jobs_done, jobs_failed, bytes_in, bytes_out;
    int64_t busy_time, idle_time; /* ns, since it was ready for its first job */
};

/* A chunk of pool_map() is one job. Each number is right by itself; a job may end between two. Of a
 * worker that dies between the end of a job and the count of it, one job may be counted wrongly.
 * While jobs wait, each job that there is gets a look, some ns. Also in a job. -EINVAL: a size that
 * this library does not know, or no such worker. -EXDEV. */
POOL_API int pool_get_stats(struct pool *pool, struct pool_stats *stats);
/* `worker` is 0 to workers-1. */
POOL_API int pool_get_worker_stats(struct pool *pool, int worker, struct pool_worker_stats *stats);
/* The pid of worker 0 to workers-1, 0 while it has none, or there is no such worker. */
POOL_API pid_t pool_worker_pid(struct pool *pool, int worker);

/* The version of the library, "MAJOR.MINOR.PATCH", which may be later than that of this header. */
POOL_API const char *pool_version(void);

#ifdef __cplusplus
}
#endif
#endif
