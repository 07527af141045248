/* From the submitter to a worker, and back: ring, masks, doorbells. */
#include <errno.h>
#include <limits.h>

#include "atomic.h"
#include "internal.h"

void schedule_ring(struct pool *pool, int worker)
{
    struct process *process = pool_process(pool, worker);

    /* Death between the two: the worker sleeps on, until the supervisor rings everybody. */
    shared_add(&process->doorbell, 1, RELEASE);
    futex_wake(&process->doorbell, INT_MAX);
}

void schedule_wake(struct pool *pool, bool force)
{
    int worker = wake_choose(&pool_control(pool)->wake, pool->workers, force);

    if (worker >= 0)
        schedule_ring(pool, worker);
}

void schedule_pass_on(struct pool *pool)
{
    struct wake_words *words = &pool_control(pool)->wake;
    int worker;

    /* Not one that waits, too: it would pass it on to us again. The depth is read after the bit: it
     * was 0 before an idle worker said that it sleeps. */
    for (worker = 0; worker < pool->workers; worker++)
        if (wake_asleep(words, worker) &&
            shared_load(&pool_process(pool, worker)->depth, ACQUIRE) == 0 &&
            wake_one(words, worker)) {
            schedule_ring(pool, worker);
            return;
        }
}

void schedule_wake_many(struct pool *pool, size_t count)
{
    struct wake_words *words = &pool_control(pool)->wake;
    size_t most = (size_t)pool->workers, spinning;

    /* First as for one job, which pairs with who goes to sleep. Who spins takes a job as well. */
    schedule_wake(pool, false);
    spinning = (size_t)wake_count_spinning(words, pool->workers);
    for (count = count < most ? count : most; count > spinning; count--) {
        int worker = wake_choose(words, pool->workers, true);

        if (worker < 0)
            return;
        schedule_ring(pool, worker);
    }
}

int schedule_push(struct pool *pool, uint32_t index)
{
    int error = ring_push(&pool->ready, index);

    if (!error)
        schedule_wake(pool, false);
    return error;
}

/* Writes the job to the stack before the claim, see struct process. */
static bool claim(struct pool *pool, uint32_t index, uint64_t word)
{
    struct process *process = pool_process(pool, pool->self - 1);
    uint32_t depth = shared_load(&process->depth, RELAXED);

    if (depth < PROCESS_STACK)
        shared_store(&process->stack[depth], job_id_make(job_generation(word), index), RELAXED);
    shared_store(&process->depth, depth + 1, RELEASE);
    if (job_claim(&pool->jobs, index, word, pool->self)) {
        shared_store(&process->jobs_started, shared_load(&process->jobs_started, RELAXED) + 1,
                     RELAXED);
        return true;
    }
    shared_store(&process->depth, depth, RELEASE);
    return false;
}

void schedule_pop(struct pool *pool)
{
    struct process *process = pool_process(pool, pool->self - 1);

    shared_store(&process->depth, shared_load(&process->depth, RELAXED) - 1, RELEASE);
}

void schedule_kick_supervisor(struct pool *pool)
{
    process_raise(pool, pool->control_fd);
}

bool schedule_has_options(struct pool *pool, uint32_t index)
{
    return index < pool->jobs.entries &&
           payload_unpack(shared_load(&job_at(&pool->jobs, index)->argument, RELAXED)).options;
}

bool schedule_take(struct pool *pool, bool on_top, uint32_t *index, uint32_t *generation)
{
    struct ring_cursor cursor;

    while (ring_peek(&pool->ready, &cursor)) {
        bool claimed = false;
        uint64_t word;

        if (cursor.item < pool->jobs.entries) {
            word = shared_load(&job_at(&pool->jobs, cursor.item)->word, ACQUIRE);
            if (on_top && job_state(word) == JOB_QUEUED && schedule_has_options(pool, cursor.item))
                return false;
            claimed = job_state(word) == JOB_QUEUED && claim(pool, cursor.item, word);
            *index = cursor.item;
            *generation = job_generation(word);
        }
        /* Claimed by us or another, cancelled, or never a job: the cell is done with. A claim that
         * failed because a flag was set meanwhile is still QUEUED: look at it again. */
        if (!claimed && cursor.item < pool->jobs.entries &&
            job_state(shared_load(&job_at(&pool->jobs, cursor.item)->word, ACQUIRE)) == JOB_QUEUED)
            continue;
        ring_discard(&pool->ready, &cursor);
        if (claimed)
            return true;
    }
    return false;
}

/* A job claimed out of turn leaves its cell behind. Removes two cells that are done with, if
 * they are the oldest, so that a job that submits and waits in a loop does not make the ring
 * grow. */
static void discard_stale(struct pool *pool)
{
    struct ring_cursor cursor;
    int i;

    for (i = 0; i < 2 && ring_peek(&pool->ready, &cursor); i++) {
        if (cursor.item < pool->jobs.entries &&
            job_state(shared_load(&job_at(&pool->jobs, cursor.item)->word, ACQUIRE)) == JOB_QUEUED)
            return;
        ring_discard(&pool->ready, &cursor);
    }
}

bool schedule_claim(struct pool *pool, uint32_t index, uint32_t generation)
{
    uint64_t word = shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE);

    while (job_state(word) == JOB_QUEUED && job_generation(word) == generation) {
        if (claim(pool, index, word)) {
            discard_stale(pool);
            return true;
        }
        word = shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE);
    }
    return false;
}

void schedule_notify_host(struct pool *pool)
{
    process_raise(pool, pool->notify_fd);
}

uint16_t schedule_submitter(const struct pool *pool, uint32_t index)
{
    return payload_unpack(shared_load(&job_at(&pool->jobs, index)->argument, RELAXED)).extra;
}

void schedule_announce(struct pool *pool, uint32_t index, uint32_t generation, unsigned flags,
                       uint16_t submitter)
{
    struct control *control = pool_control(pool);

    if (flags & JOB_WAITED) {
        /* A host thread sleeps on the low half of the word, a worker on its doorbell. */
        if (submitter == JOB_HOST)
            futex_wake((_Atomic uint32_t *)&job_at(&pool->jobs, index)->word, INT_MAX);
        else if (submitter <= pool->workers)
            schedule_ring(pool, submitter - 1);
    }
    if (flags & JOB_ANY) {
        /* Death before, or between the two: the stack of the dead still names the job, so the
         * repair does both. Release: who reads the new number finds the job ended. */
        shared_add(&control->any_ended, 1, RELEASE);
        futex_wake(&control->any_ended, INT_MAX);
    }
    if (flags & JOB_NOTIFY) {
        if (ring_push(&pool->completed, index) != 0)
            shared_store(&control->notify_overflow, 1, SEQ_CST);
        if (shared_load(&control->notify_armed, SEQ_CST) &&
            shared_exchange(&control->notify_armed, 0, SEQ_CST))
            schedule_notify_host(pool);
    }
    if (flags & JOB_DETACHED) {
        if (pool->role == ROLE_WORKER)
            shared_store(&pool_process(pool, pool->self - 1)->touched, 1, RELEASE);
        if (job_collect(&pool->jobs, index, generation, pool->self))
            job_free(&pool->jobs, index, pool->self);
    }
}

int schedule_end(struct pool *pool, uint32_t index, uint32_t generation, uint16_t owner,
                 enum job_state state)
{
    /* Read before the end: afterwards the slot may be another job's. */
    uint16_t submitter = schedule_submitter(pool, index);
    unsigned flags;
    int error = job_end(&pool->jobs, index, generation, owner, state, &flags);

    if (!error)
        schedule_announce(pool, index, generation, flags, submitter);
    return error;
}

bool schedule_cancel(struct pool *pool, uint32_t index, uint32_t generation, enum job_state state)
{
    uint16_t submitter = schedule_submitter(pool, index);
    unsigned flags;

    if (!job_cancel(&pool->jobs, index, generation, state, &flags))
        return false;
    schedule_announce(pool, index, generation, flags, submitter);
    return true;
}
