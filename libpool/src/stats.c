/* What a pool tells about itself.
 *
 * Each worker counts in its own slot, with plain stores, since nobody else writes there; what it
 * has counted stays when it dies, and its replacement goes on from there. A worker that is never
 * without work never looks at a clock: only idle time is measured, when it begins and ends to
 * wait, and what is left of its life is busy time.
 */
#include <errno.h>
#include <string.h>

#include "atomic.h"
#include "internal.h"
#include "sized.h"
#include "system.h"

/* ---- Clocks ---- */

/* A clock is one word, so that one load gives the truth: the nanoseconds that it has run or, while
 * it runs, these less the time at which it was started. That is negative, since no clock has run
 * for longer than the machine. It has one writer: the worker, then who ends its affairs. */
static void start(_Atomic int64_t *clock, int64_t now)
{
    int64_t ran = shared_load(clock, RELAXED);

    if (ran >= 0)
        shared_store(clock, ran - now, RELAXED);
}

static void stop(_Atomic int64_t *clock, int64_t now)
{
    int64_t ran = shared_load(clock, RELAXED);

    if (ran < 0)
        shared_store(clock, ran + now, RELAXED);
}

static int64_t read_clock(const _Atomic int64_t *clock, int64_t now)
{
    int64_t ran = shared_load(clock, RELAXED);

    ran = ran < 0 ? ran + now : ran;
    return ran < 0 || ran > now ? 0 : ran; /* scribbled over */
}

void stats_begin(struct process *process, int64_t now)
{
    start(&process->lived, now);
}

void stats_wait(struct process *process, int64_t since)
{
    start(&process->idle, since);
}

void stats_resume(struct process *process, int64_t now)
{
    stop(&process->idle, now);
}

void stats_end(struct process *process, int64_t now)
{
    stop(&process->idle, now);
    stop(&process->lived, now);
}

/* ---- Reading ---- */

static bool runs(const struct pool *pool, uint64_t id, uint16_t owner)
{
    uint64_t word;

    if ((uint32_t)id >= job_table_count(&pool->jobs))
        return false;
    word = shared_load(&job_at(&pool->jobs, (uint32_t)id)->word, ACQUIRE);
    return job_state(word) == JOB_RUNNING && job_owner(word) == owner &&
           job_generation(word) == id >> 32;
}

/* The jobs on the worker's stack that it has claimed and not ended; those too deep for the stack to
 * name are taken on trust. */
static uint64_t count_running(const struct pool *pool, int worker)
{
    struct process *process = pool_process(pool, worker);
    uint32_t depth = shared_load(&process->depth, ACQUIRE), i;
    uint64_t count = depth > PROCESS_STACK ? depth - PROCESS_STACK : 0;

    for (i = 0; i < depth && i < PROCESS_STACK; i++)
        count += runs(pool, shared_load(&process->stack[i], RELAXED), (uint16_t)(worker + 1));
    return count;
}

/* The ring's own length would count those that were cancelled, too. */
static uint64_t count_waiting(struct pool *pool)
{
    struct ring_cursor cursor;
    uint64_t waiting = 0;
    uint32_t index, count;

    if (!ring_peek(&pool->ready, &cursor))
        return 0;
    count = job_table_sweep_count(&pool->jobs);
    for (index = 0; index < count; index++)
        waiting += job_state(shared_load(&job_at(&pool->jobs, index)->word, RELAXED)) == JOB_QUEUED;
    return waiting;
}

static void read_worker(struct pool *pool, int worker, struct pool_worker_stats *stats)
{
    struct process *process = pool_process(pool, worker);
    int64_t now = system_now(), lived = read_clock(&process->lived, now);

    memset(stats, 0, sizeof *stats);
    stats->size = sizeof *stats;
    stats->pid = pool_worker_pid(pool, worker);
    stats->jobs_running = stats->pid ? count_running(pool, worker) : 0;
    stats->jobs_started = shared_load(&process->jobs_started, RELAXED);
    stats->jobs_done = shared_load(&process->jobs_done, RELAXED);
    stats->jobs_failed = shared_load(&process->jobs_failed, RELAXED);
    stats->bytes_in = shared_load(&process->bytes_in, RELAXED);
    stats->bytes_out = shared_load(&process->bytes_out, RELAXED);
    stats->idle_time = read_clock(&process->idle, now);
    if (stats->idle_time > lived)
        stats->idle_time = lived; /* it came between the two looks */
    stats->busy_time = lived - stats->idle_time;
}

int pool_get_worker_stats(struct pool *pool, int worker, struct pool_worker_stats *stats)
{
    struct pool_worker_stats one;

    if (pool_usable(pool) == -EXDEV)
        return -EXDEV;
    if (stats->size < sizeof one || stats->size > SIZED_LONGEST || worker < 0 ||
        worker >= pool->workers)
        return -EINVAL;
    read_worker(pool, worker, &one);
    sized_give(stats, stats->size, &one, sizeof one);
    return 0;
}

int pool_get_stats(struct pool *pool, struct pool_stats *stats)
{
    size_t size;
    int worker;

    if (pool_usable(pool) == -EXDEV)
        return -EXDEV;
    size = stats->size;
    if (size < sizeof *stats || size > SIZED_LONGEST)
        return -EINVAL;
    memset(stats, 0, size);
    stats->size = size;
    stats->workers = pool->workers;
    stats->supervisor = host_supervisor_alive(pool) ? pool->supervisor_pid : 0;
    for (worker = 0; worker < pool->workers; worker++) {
        struct pool_worker_stats one;

        read_worker(pool, worker, &one);
        stats->alive += stats->supervisor && one.pid != 0;
        stats->jobs_started += one.jobs_started;
        stats->jobs_running += one.jobs_running;
        stats->jobs_done += one.jobs_done;
        stats->jobs_failed += one.jobs_failed;
        stats->bytes_in += one.bytes_in;
        stats->bytes_out += one.bytes_out;
        stats->busy_time += one.busy_time;
        stats->idle_time += one.idle_time;
    }
    stats->jobs_waiting = count_waiting(pool);
    stats->jobs_retried = shared_load(&pool_control(pool)->jobs_retried, RELAXED);
    stats->workers_started = shared_load(&pool_control(pool)->workers_started, RELAXED);
    stats->memory = segment_committed(&pool->segment);
    stats->shared_limit = pool->segment.limit;
    return 0;
}

pid_t pool_worker_pid(struct pool *pool, int worker)
{
    if (pool_usable(pool) == -EXDEV || worker < 0 || worker >= pool->workers ||
        atomic_load_explicit(&pool->gone, ACQUIRE))
        return 0;
    return (pid_t)shared_load(&pool_process(pool, worker)->pid, ACQUIRE);
}
