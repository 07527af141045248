/* What a worker does between jobs: look, spin, sleep; and while a job of its waits for another. */
#include <errno.h>

#include "atomic.h"
#include "internal.h"
#include "system.h"

/* How many unrelated jobs a waiting job may run on top of its own stack; further ones are left to
 * other workers. Jobs it waits for are not counted: that is plain recursion. */
#define NESTING_MAX 64

struct watch {
    uint32_t index, generation;
    int64_t deadline; /* POOL_FOREVER: none */
};

static bool watch_ended(struct pool *pool, const struct watch *watch)
{
    uint64_t word;

    if (!watch)
        return false;
    word = shared_load(&job_at(&pool->jobs, watch->index)->word, ACQUIRE);
    return job_ended(word) || job_generation(word) != watch->generation;
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

    if (watch && job_flag(&pool->jobs, watch->index, watch->generation, JOB_WAITED) != 0)
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

/* Returns when there may be a job to take, or the watched one has ended, or it is time. */
static void idle(struct pool *pool, const struct watch *watch, bool hungry)
{
    struct wake_words *words = &pool_control(pool)->wake;
    struct process *process = pool_process(pool, pool->self - 1);
    struct spin_wait wait;
    bool found = false;

    spin_begin(&wait, &pool->spin);
    stats_wait(process, wait.start);
    if (hungry && !pool->spinning && wake_count_spinning(words, pool->workers) < pool->spinners) {
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

int worker_wait(struct pool *pool, uint32_t index, uint32_t generation, int64_t timeout)
{
    struct watch watch = {index, generation, POOL_FOREVER};
    int64_t now = system_now();

    if (timeout < POOL_FOREVER - now)
        watch.deadline = now + timeout;
    while (!watch_ended(pool, &watch)) {
        uint32_t other, its_generation;
        /* Under a time limit a job runs nothing on top of its stack that would use up its time. */
        bool hungry = pool->nesting < NESTING_MAX && pool->timed == 0;

        if (schedule_claim(pool, index, generation)) {
            leave_spin(pool);
            worker_run(pool, index, generation);
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
    return job_generation(shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE)) == generation
               ? 0
               : -ESTALE;
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
