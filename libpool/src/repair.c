/* After a worker's death: what it was doing is ended, what it held is freed, what it owed is done.
 *
 * Runs in the supervisor, while all others go on. Everything it does may be done twice. Whether
 * the dead had come to do a thing is told by the truth (job and block words), never by a hint.
 */
#include "atomic.h"
#include "internal.h"
#include "log.h"
#include "system.h"

static void rescue(void *context, uint32_t index)
{
    struct pool *pool = context;

    /* It may be in the ring already; a second cell costs a look. Without memory for a cell the
     * job is lost, and says so. */
    if (ring_push(&pool->ready, index) != 0)
        schedule_cancel(pool, index,
                        job_generation(shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE)),
                        JOB_LOST);
}

/* It may have attached its result and not come to say so. Leaves the wait status in its place. */
static void drop_result(struct pool *pool, uint16_t owner, uint32_t index, int wait_status)
{
    struct job *job = job_at(&pool->jobs, index);
    struct payload died = {.kind = PAYLOAD_NONE, .extra = (uint16_t)wait_status};
    struct payload result = payload_unpack(shared_load(&job->result, RELAXED));

    if (result.kind == PAYLOAD_BLOCK && !arena_free_attached(&pool->arena, result.block, index))
        arena_free_held(&pool->arena, result.block, owner);
    shared_store(&job->result, payload_pack(died), RELAXED);
}

/* Puts the job back where it was, if it may run again. Its argument is as it was submitted. */
static bool retry(struct pool *pool, uint32_t index, uint64_t word)
{
    struct job_options *options = job_options(job_at(&pool->jobs, index));
    uint32_t left;

    if (!schedule_has_options(pool, index) || (job_flags(word) & JOB_DOOMED))
        return false;
    left = shared_load(&options->retries, RELAXED);
    if (left == 0)
        return false;
    shared_store(&options->retries, left - 1, RELAXED);
    shared_store(&options->deadline, 0, RELAXED);
    /* Only a flag can have been set meanwhile: by one who waits, detaches, or dooms it. */
    while (!job_requeue(&pool->jobs, index, word, schedule_submitter(pool, index))) {
        word = shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE);
        if (job_flags(word) & JOB_DOOMED)
            return false;
    }
    shared_add(&pool_control(pool)->jobs_retried, 1, RELAXED);
    log_say(pool, POOL_LOG_WARNING, "a job is run again; tries left after this one: %u", left - 1);
    rescue(pool, index);
    return true;
}

static void end_running(struct pool *pool, uint16_t owner, uint32_t index, uint32_t generation)
{
    unsigned flags = job_flags(shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE));
    enum job_state state = flags & JOB_LATE     ? JOB_TIMEOUT
                           : flags & JOB_KILLED ? JOB_CANCELLED
                                                : JOB_DIED;

    log_say(pool, state == JOB_CANCELLED ? POOL_LOG_INFO : POOL_LOG_WARNING,
            "a job of worker %d %s", owner - 1,
            state == JOB_TIMEOUT     ? "ran too long, and is ended"
            : state == JOB_CANCELLED ? "was killed, as it was asked to be"
                                     : "died with it");
    /* The dead had the slot's counters, and then whoever repairs. */
    if (state != JOB_CANCELLED)
        stats_add(&pool_process(pool, owner - 1)->jobs_failed, 1);
    schedule_end(pool, index, generation, owner, state);
}

/* A job that the dead worker had on its stack: give it the end that is due, or finish telling. */
static void repair_job(struct pool *pool, uint16_t owner, uint32_t index, uint32_t generation,
                       int wait_status)
{
    struct job *job = job_at(&pool->jobs, index);
    uint64_t word = shared_load(&job->word, ACQUIRE);

    if (job_generation(word) == generation && job_state(word) == JOB_RUNNING &&
        job_owner(word) == owner) {
        drop_result(pool, owner, index, wait_status);
        if (!retry(pool, index, word))
            end_running(pool, owner, index, generation);
    } else if (job_generation(word) == generation && job_ended(word)) {
        schedule_announce(pool, index, generation, job_flags(word),
                          schedule_submitter(pool, index));
    } else if (job_generation(word) == generation + 1 && job_state(word) == JOB_HELD &&
               job_owner(word) == owner) {
        job_free(&pool->jobs, index, owner);
    }
}

void repair_worker(struct pool *pool, int worker, int wait_status)
{
    struct process *process = pool_process(pool, worker);
    uint16_t owner = (uint16_t)(worker + 1);
    uint32_t depth = shared_load(&process->depth, ACQUIRE), i;

    /* The latest first: an outer job may wait for an inner one. */
    for (i = depth < PROCESS_STACK ? depth : PROCESS_STACK; i-- > 0;) {
        uint64_t id = shared_load(&process->stack[i], RELAXED);

        if ((uint32_t)id < job_table_count(&pool->jobs))
            repair_job(pool, owner, (uint32_t)id, (uint32_t)(id >> 32), wait_status);
    }
    if (depth > PROCESS_STACK)
        for (i = 0; i < job_table_count(&pool->jobs); i++) {
            uint64_t word = shared_load(&job_at(&pool->jobs, i)->word, ACQUIRE);

            if (job_state(word) == JOB_RUNNING && job_owner(word) == owner)
                repair_job(pool, owner, i, job_generation(word), wait_status);
        }
    if (shared_load(&process->touched, ACQUIRE)) {
        job_table_repair(&pool->jobs, owner, rescue, pool);
        arena_repair(&pool->arena, owner);
    }
    wake_busy(&pool_control(pool)->wake, worker);
    stats_end(process, system_now());
    shared_store(&process->touched, 0, RELAXED);
    shared_store(&process->depth, 0, RELAXED);
    shared_store(&process->pid, 0, RELEASE);
}

/* Any wake-up that the dead owed to somebody. */
void repair_ring_everybody(struct pool *pool)
{
    int worker;

    for (worker = 0; worker < pool->workers; worker++)
        schedule_ring(pool, worker);
    schedule_notify_host(pool);
}
