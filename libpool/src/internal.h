/* The pool as its own parts see it. */
#ifndef POOL_INTERNAL_H
#define POOL_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "atomic.h"
#include "function.h"
#include "job.h"
#include "libpool.h"
#include "ring.h"
#include "segment.h"
#include "wake.h"

enum control_state { CONTROL_RUNNING, CONTROL_CLOSING, CONTROL_TERMINATING };

/* In the segment, one for a pool. */
struct control {
    /* Written by the host, and only grows. Read by all. */
    _Atomic uint32_t state;
    /* 1: the supervisor gave up, since no worker could be started. */
    _Atomic uint32_t failed;
    /* Written by the supervisor. */
    _Atomic uint64_t workers_started;
    _Atomic uint64_t jobs_retried;
    /* How many workers may spin at the same time; by it too, once, when the workers are on their
     * way: counting cores takes a while. 0: not known yet. A hint, and no more. */
    _Atomic uint32_t spinners;
    /* When the supervisor will look at deadlines next (ns). A worker that begins a job which is due
     * before that wakes it. */
    alignas(64) _Atomic int64_t next_look;
    struct wake_words wake;
    /* 1: the host sleeps on the eventfd. Whoever announces a completion swaps it for 0, and if it
     * was 1 writes the eventfd: one system call for a burst of completions. */
    alignas(64) _Atomic uint32_t notify_armed;
    /* 1: a completion could not be announced for lack of memory; look through the job table. */
    _Atomic uint32_t notify_overflow;
    /* 1: a worker could not write an eventfd, and asks the supervisor to wake everybody. */
    _Atomic uint32_t unheard;
    /* Threads of the host sleep on it that wait for any of several jobs. Whoever ends a job that
     * has JOB_ANY adds 1, with release, and wakes them all. */
    _Atomic uint32_t any_ended;
};

/* Every submission and every look for work reads `state`. */
_Static_assert(offsetof(struct control, next_look) == 64, "what is written often is further on");
_Static_assert(offsetof(struct control, wake) == 128 &&
                   offsetof(struct control, notify_armed) >=
                       offsetof(struct control, wake) + sizeof(struct wake_words),
               "the wake words share their lines with nothing");

#define PROCESS_STACK 24

/* In the segment, one for each worker. Written by the worker that has it, read by all, and set
 * back by the supervisor between one worker's death and the next one's birth. */
struct process {
    /* What the worker sleeps on. Anybody adds 1 and wakes. */
    alignas(128) _Atomic uint32_t doorbell;
    _Atomic uint32_t pid; /* written by the worker and the supervisor; 0: none */
    /* 1 once the interpreter host has started. */
    _Atomic uint32_t started;
    /* 1 once it has taken job slots or blocks, so that its death needs the tables to be looked
     * through. */
    _Atomic uint32_t touched;
    _Atomic uint64_t jobs_started;
    /* The jobs it has claimed or is about to, the lowest first: ids of (generation, index). An
     * entry is written, and the depth raised, before the claim; the depth is lowered after the
     * job's end has been announced. */
    _Atomic uint32_t depth;
    /* The core of who rang the doorbell last, see spin_note_core(). */
    _Atomic uint32_t rung_from;
    _Atomic uint64_t stack[PROCESS_STACK];
    /* What all workers that had this slot have done, on a cache line that only this one writes.
     * Ended jobs, and the bytes of their arguments and results. */
    alignas(64) _Atomic uint64_t jobs_done, jobs_failed, bytes_in, bytes_out;
    /* Clocks, see stats.c: for how long they had no job to run; for how long there was one. */
    _Atomic int64_t idle, lived;
};

_Static_assert(sizeof(struct process) % 128 == 0 && offsetof(struct process, jobs_done) % 64 == 0,
               "no two workers share a line, and nobody else writes to that of the counts");

enum role { ROLE_HOST, ROLE_SUPERVISOR, ROLE_WORKER };

/* Private to each process; the supervisor and the workers have copies from the fork. */
struct pool {
    struct segment segment;
    struct ring ready, completed;
    struct arena arena;
    struct job_table jobs;
    struct function_table functions;
    uint64_t control, processes; /* offsets */
    struct spin spin;
    struct pool_host host;
    int workers;
    uint64_t largest; /* bytes of the arena's largest block */
    int64_t timeout;  /* defaults of struct pool_options */
    int retries;
    uint64_t memory_limit, worker_jobs; /* as in struct pool_config */
    uint64_t queue_limit;               /* likewise; in the host */
    int *cpus;
    int cpu_count;
    pool_log_function log;
    void *log_context;
    char name[32];     /* for people, as `command` is */
    char command[384]; /* supervisor, workers: the host's command line */

    enum role role;
    uint16_t self;  /* the process number: JOB_HOST, or worker + 1 */
    uint32_t forks; /* fork_count() when this process came to have the pool as its own */
    pid_t host_pid, supervisor_pid;
    int supervisor_status; /* wait status, once it is gone; 0 if the program reaped it itself */
    sigset_t host_mask;    /* of the thread that made the pool, for the workers */
    int host_fd;           /* in the supervisor: pidfd of the host, or an end of a pipe instead */
    int supervisor_fd;     /* in the host: pidfd of the supervisor, or the pipe's other end */
    int life_fd; /* host: the only write end of a pipe; supervisor: its read end. Closed by exec */
    bool attached;                   /* by pool_attach() */
    int notify_fd;                   /* eventfd to the host */
    int control_fd;                  /* eventfd to the supervisor: look at control.state */
    struct file_identity event_file; /* of both */
    _Atomic bool broken;             /* the supervisor has ended, unasked */
    _Atomic bool gone;               /* the supervisor has ended and was reaped */
    int nesting;                     /* worker: unrelated jobs on its stack */
    int timed;                       /* worker: jobs with a time limit on its stack */
    bool deaf;     /* worker: a job has closed the pool's descriptors: ends after it */
    bool spinning; /* worker: its spinning bit is set, so it owes a look at the ring */

    uint32_t
        scan; /* host: how far pool_next_completed() has looked through the table, if it does */

    pthread_mutex_t lock; /* for ending the pool */
    struct pool *next;    /* pools of this process */

    /* Job slots that this process holds for its next submissions; for the thread that has set
     * `slots_taken`. Others do not wait for it: they use the shared table. */
    _Atomic bool slots_taken;
    uint32_t *slots;
    size_t slot_count, slot_room;
};

struct pool_job {
    struct pool *pool;
    uint32_t index, generation;
    uint64_t target;
    const void *argument;
    size_t size;
    /* The result so far. */
    struct payload result;
    /* pool_map: results go to this slice instead. */
    void *slice;
    size_t slice_room, slice_used;
    bool slice_overflow;
    bool options;    /* the slot has some */
    bool failed;     /* counts as failed, whatever its status */
    size_t returned; /* bytes of the result */
};

static inline struct control *pool_control(const struct pool *pool)
{
    return segment_at(&pool->segment, pool->control);
}

static inline struct process *pool_process(const struct pool *pool, int worker)
{
    return (struct process *)segment_at(&pool->segment, pool->processes) + worker;
}

static inline uint64_t job_id_make(uint32_t generation, uint32_t index)
{
    return (uint64_t)generation << 32 | index;
}

/* fork.c: counts the forks between the first process and this one. */
uint32_t fork_count(void);
/* Before the first fork of a process: makes it be counted. */
int fork_watch(void);
/* Registers a pool, so that a process that inherits it drops its descriptors. After
 * fork_watch(). */
void fork_register(struct pool *pool);
void fork_unregister(struct pool *pool);
pid_t fork_process(const struct pool *pool);

/* schedule.c */
/* Puts a job into the ring, and wakes a worker for it. */
int schedule_push(struct pool *pool, uint32_t index);
/* Claims the oldest job. `on_top`: to be run on top of another, so not if it has a time limit,
 * since then the other would die with it. */
bool schedule_take(struct pool *pool, bool on_top, uint32_t *index, uint32_t *generation);
/* Claims this job, if it waits, out of turn. */
bool schedule_claim(struct pool *pool, uint32_t index, uint32_t generation);
/* Whether a job waiting in the ring has options, a time limit perhaps. */
bool schedule_has_options(struct pool *pool, uint32_t index);
/* Ends a claimed job and tells who wants to know. Errors as of job_end(). */
int schedule_end(struct pool *pool, uint32_t index, uint32_t generation, uint16_t owner,
                 enum job_state state);
/* QUEUED -> CANCELLED or LOST, and tells who wants to know. */
bool schedule_cancel(struct pool *pool, uint32_t index, uint32_t generation, enum job_state state);
/* What the end of a job owes to others, by its flags. May be done twice. */
void schedule_announce(struct pool *pool, uint32_t index, uint32_t generation, unsigned flags,
                       uint16_t submitter);
void schedule_pop(struct pool *pool);
/* Wakes a sleeping worker, unless one is on its way to the ring. `force`: even then. */
void schedule_wake(struct pool *pool, bool force);
/* As many as there are jobs for, after `count` of them have been put into the ring. */
void schedule_wake_many(struct pool *pool, size_t count);
/* This worker may not take what is in the ring, since it has a job that waits: wakes one that
 * sleeps and has none. If there is none, whoever comes out of its jobs next looks at the ring. */
void schedule_pass_on(struct pool *pool);
void schedule_ring(struct pool *pool, int worker);
void schedule_notify_host(struct pool *pool);
/* Makes the supervisor look at control.state, deadlines and doomed jobs. */
void schedule_kick_supervisor(struct pool *pool);
uint16_t schedule_submitter(const struct pool *pool, uint32_t index);

/* queue.c: whether as many jobs wait as may. Never in a job. */
bool queue_at_limit(struct pool *pool);
static inline bool queue_full(struct pool *pool)
{
    return pool->queue_limit != 0 && queue_at_limit(pool);
}

/* submit.c */
/* Queues a prepared job. `flags`: those that it is to have from the start. `wake`: else the caller
 * has to, after the last one. */
int submit_commit(const struct pool_future *future, uint64_t function, bool host, unsigned flags,
                  bool wake);
/* Gives back a slot that this process holds. */
void submit_return(struct pool *pool, uint32_t index);
/* 0, or why this process can't submit. Jobs may, also when the pool is closing. */
int submit_allowed(struct pool *pool);
/* In a worker: what it takes from here on has to be looked for if it dies. Before the taking. */
void submit_touch(struct pool *pool);
/* Memory of free blocks counts as committed: where there is none left, gives it back. Whether it
 * found some. */
bool submit_make_room(struct pool *pool);

/* run.c: runs a job that this worker has claimed, and ends it. */
void worker_run(struct pool *pool, uint32_t index, uint32_t generation);
/* After user's code: ends this process if it is one that the job has forked, and that comes out of
 * the job as well. */
void run_end_copy(const struct pool *pool);

/* worker.c */
void worker_loop(struct pool *pool);
/* Returns the index of one of the jobs that has ended; runs others meanwhile. */
int64_t worker_wait(struct pool *pool, const struct pool_future *futures, size_t count,
                    int64_t timeout);

/* future.c */
/* -EXDEV in a process that inherited the pool; a future that is none is stale. Inline: each call on
 * a job begins with it. */
static inline int future_check(const struct pool_future *future)
{
    if (!future->pool)
        return -EINVAL;
    if (future->pool->forks != fork_count())
        return -EXDEV;
    return future->index < future->pool->jobs.entries ? 0 : -ESTALE;
}
/* 1: ended; 0: not yet; -ESTALE. */
int future_ended(const struct pool_future *future);
/* A sleeping thread of the host looks this often (ns) whether the supervisor is still there. */
#define HOST_SLICE INT64_C(100000000)
/* After a slice of sleep in which nothing happened to the job, since its word was `seen`: puts
 * right what can only come of memory that was scribbled over, or of a worker that is stopped. */
void future_mend(const struct pool_future *future, uint64_t seen);
/* After host_break(). */
void future_give_up(const struct pool_future *future);

/* process.c */
/* At the start, and before each sleep, since a change of credentials undoes it. */
void process_die_with_supervisor(struct pool *pool);
_Noreturn void worker_main(struct pool *pool, int worker);
/* Adds 1 to an eventfd of the pool's. */
void process_raise(struct pool *pool, int fd);

/* title.c: what ps and top show. The supervisor is first. */
void title_set_supervisor(struct pool *pool);
void title_set_worker(const struct pool *pool, int worker);

/* limits.c: kills the workers of doomed and late jobs; `pids` are those of the workers, 0 for none.
 * Returns when to look again (ns). */
int64_t limits_enforce(struct pool *pool, const pid_t *pids, int64_t now);
int limits_set_memory(uint64_t bytes);

/* stats.c: the clocks in a process slot. Starting one that runs, or stopping one that does not, has
 * no effect. Times are ns of CLOCK_MONOTONIC. */
void stats_begin(struct process *process, int64_t now);
void stats_wait(struct process *process, int64_t since);
void stats_resume(struct process *process, int64_t now);
/* The worker has ended. */
void stats_end(struct process *process, int64_t now);
/* Adds to a counter that nobody else writes. */
static inline void stats_add(_Atomic uint64_t *counter, uint64_t more)
{
    shared_store(counter, shared_load(counter, RELAXED) + more, RELAXED);
}

/* repair.c */
void repair_worker(struct pool *pool, int worker, int wait_status);
/* Any wake-up that the dead owed to somebody. */
void repair_ring_everybody(struct pool *pool);

/* supervisor.c */
_Noreturn void supervisor_main(struct pool *pool);

/* create.c */
/* A pool that has what `config` says, and no segment, descriptors or processes yet. NULL: no
 * memory. */
struct pool *create_empty(const struct pool_config *config);
/* Reserves all regions, of which `limit` bytes may be committed, and the largest block is of
 * `largest` bytes. */
void create_plan(struct pool *pool, uint64_t limit, uint64_t largest);
void create_undo(struct pool *pool);
int create_pidfd(pid_t pid);
void create_close(int *fd);

/* launch.c: the supervisor as a program of its own. `life` are the pipe's ends. Returns its pid. */
pid_t launch_supervisor(struct pool *pool, const struct pool_config *config, const int life[2]);

/* pool.c */
void host_break(struct pool *pool);
/* How a job ends that the supervisor left: CANCELLED if that was pool_terminate(), else LOST. */
enum job_state host_end_state(struct pool *pool);
bool host_supervisor_alive(struct pool *pool);
/* 0, or why the pool can't be used by this process. */
int pool_usable(struct pool *pool);

#endif
