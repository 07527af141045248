/* What a worker does between jobs: look, spin, sleep; and while a job of its waits for another. */
#include <errno.h>

#include "atomic.h"
#include "internal.h"
#include "system.h"

/* How many unrelated jobs a waiting job may run on top of its own stack; further ones are left to
 * other workers. Jobs it waits for are not counted: that is plain recursion. */
#define NESTING_MAX 64

/* Jobs that this worker has submitted, one of which it waits for. */
struct watch {
    const struct pool_future *futures; /* those without a pool are passed over */
    size_t count;
    int64_t deadline; /* POOL_FOREVER: none */
    size_t ended;     /* after watch_ended(): which */
};

static bool watch_ended(struct pool *pool, struct watch *watch)
{
    size_t i;

    for (i = 0; watch && i < watch->count; i++) {
        const struct pool_future *future = &watch->futures[i];
        uint64_t word;

        if (!future->pool)
            continue;
        word = shared_load(&job_at(&pool->jobs, future->index)->word, ACQUIRE);
        if (job_ended(word) || job_generation(word) != future->generation) {
            watch->ended = i;
            return true;
        }
    }
    return false;
}

/* Asks for a ring of our bell when one of them ends: false if one has ended. */
static bool watch_ask(struct pool *pool, const struct watch *watch)
{
    size_t i;

    for (i = 0; i < watch->count; i++) {
        const struct pool_future *future = &watch->futures[i];

        if (future->pool && job_flag(&pool->jobs, future->index, future->generation, JOB_WAITED))
            return false;
    }
    return true;
}

/* Claims one of them, if one waits. */
static bool watch_claim(struct pool *pool, const struct watch *watch, size_t *claimed)
{
    for (*claimed = 0; *claimed < watch->count; ++*claimed) {
        const struct pool_future *future = &watch->futures[*claimed];

        if (future->pool && schedule_claim(pool, future->index, future->generation))
            return true;
    }
    return false;
}

/* Whether the ring has something for this worker; not everything is, while it waits (`watch`). */
static bool work_there(struct pool *pool, const struct watch *watch)
{
    struct ring_cursor cursor;

    return ring_peek(&pool->ready, &cursor) && !(watch && schedule_has_options(pool, cursor.item));
}

/* Not looking at the ring any more: if there is work left, another worker has to. */
static void leave_spin(struct pool *pool)
{
    if (!pool->spinning)
        return;
    pool->spinning = false;
    wake_busy(&pool_control(pool)->wake, pool->self - 1);
    if (work_there(pool, NULL))
        schedule_wake(pool, false);
}

/* Sleeps until somebody rings. `hungry`: for a job, too; else only for the watched one. */
static void park(struct pool *pool, const struct watch *watch, bool hungry)
{
    struct process *process = pool_process(pool, pool->self - 1);
    struct wake_words *words = &pool_control(pool)->wake;
    /* Read first: whatever rings after this makes the futex call return at once. */
    uint32_t bell = shared_load(&process->doorbell, ACQUIRE);
    int64_t timeout = POOL_FOREVER;

    if (watch && !watch_ask(pool, watch))
        return;
    if (watch && watch->deadline != POOL_FOREVER) {
        timeout = watch->deadline - system_now();
        if (timeout <= 0)
            return;
    }
    if (hungry) {
        wake_sleep(words, pool->self - 1);
        pool->spinning = false;
        if (watch && work_there(pool, NULL) && !work_there(pool, watch))
            schedule_pass_on(pool);
        if (work_there(pool, watch) ||
            (!watch && shared_load(&pool_control(pool)->state, SEQ_CST) != CONTROL_RUNNING))
            timeout = 0;
    }
    if (timeout > 0) {
        if (pool->host.release)
            pool->host.release(pool->host.context);
        process_die_with_supervisor(pool);
        futex_wait(&process->doorbell, bell, timeout);
        if (pool->host.acquire)
            pool->host.acquire(pool->host.context);
        if (!watch)
            spin_woken(&pool->spin, &process->rung_from);
    }
    /* A waker may have counted on us: then we spin, in its books, and owe a look at the ring, and a
     * wake-up to the next worker if we find more than one job there. Also if we did not sleep:
     * whoever pushed while our spinning bit was still set rang nobody. */
    if (hungry &&
        ((wake_busy(words, pool->self - 1) & wake_spinning(pool->self - 1)) || timeout == 0)) {
        wake_spin(words, pool->self - 1);
        pool->spinning = true;
    }
}

/* How many workers may spin. Not `shared_load`: nothing is decided by it that the explorer should
 * look at from all sides. */
static int spinners(const struct pool *pool)
{
    uint32_t count = atomic_load_explicit(&pool_control(pool)->spinners, RELAXED);

    return count >= 1 && count <= POOL_MAX_WORKERS ? (int)count : 1;
}

/* Returns when there may be a job to take, or the watched one has ended, or it is time. */
static void idle(struct pool *pool, struct watch *watch, bool hungry)
{
    struct wake_words *words = &pool_control(pool)->wake;
    struct process *process = pool_process(pool, pool->self - 1);
    struct spin_wait wait;
    bool found = false;

    spin_begin(&wait, &pool->spin);
    stats_wait(process, wait.start);
    if (hungry && !pool->spinning && wake_count_spinning(words, pool->workers) < spinners(pool)) {
        wake_spin(words, pool->self - 1);
        pool->spinning = true;
    }
    if (pool->spinning || !hungry)
        do
            found = (hungry && work_there(pool, watch)) || watch_ended(pool, watch);
        while (!found && spin_round(&wait));
    if (!found)
        park(pool, watch, hungry);
    spin_end(&wait);
    if (!watch) /* two workers of which one waits for the other would both move */
        spin_spread(&wait);
    /* Only after a sleep is the clock looked at for this. */
    stats_resume(process, found || wait.end != wait.start ? wait.end : system_now());
}

int64_t worker_wait(struct pool *pool, const struct pool_future *futures, size_t count,
                    int64_t timeout)
{
    struct watch watch = {
        .futures = futures, .count = count, .deadline = system_deadline(system_now(), timeout)};
    size_t claimed;
    int ended;

    while (!watch_ended(pool, &watch)) {
        uint32_t other, its_generation;
        /* Under a time limit a job runs nothing on top of its stack that would use up its time. */
        bool hungry = pool->nesting < NESTING_MAX && pool->timed == 0;

        if (watch_claim(pool, &watch, &claimed)) {
            leave_spin(pool);
            worker_run(pool, futures[claimed].index, futures[claimed].generation);
        } else if (hungry && schedule_take(pool, true, &other, &its_generation)) {
            leave_spin(pool);
            pool->nesting++;
            worker_run(pool, other, its_generation);
            pool->nesting--;
        } else if (watch.deadline != POOL_FOREVER && system_now() >= watch.deadline) {
            break;
        } else {
            idle(pool, &watch, hungry);
        }
    }
    leave_spin(pool);
    if (!watch_ended(pool, &watch))
        return -ETIMEDOUT;
    ended = future_ended(&futures[watch.ended]);
    return ended < 0 ? ended : (int64_t)watch.ended;
}

/* Runs jobs until the pool is closed and none is left, or as many as this worker is to run. */
void worker_loop(struct pool *pool)
{
    uint32_t index, generation;
    uint64_t jobs = 0;

    for (;;) {
        /* Read before the look at the ring: what was pushed before the pool was closed is seen. */
        uint32_t state = shared_load(&pool_control(pool)->state, SEQ_CST);

        if (schedule_take(pool, false, &index, &generation)) {
            leave_spin(pool);
            worker_run(pool, index, generation);
            if (pool->deaf || (pool->worker_jobs && ++jobs >= pool->worker_jobs))
                break;
        } else if (state != CONTROL_RUNNING) {
            break;
        } else {
            idle(pool, NULL, true);
        }
    }
    leave_spin(pool);
}
