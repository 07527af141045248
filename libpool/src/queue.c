/* How many jobs wait, for who limits it. */
#include "atomic.h"
#include "internal.h"

static bool waits(void *context, uint32_t index)
{
    struct pool *pool = context;

    return index < pool->jobs.entries &&
           job_state(shared_load(&job_at(&pool->jobs, index)->word, RELAXED)) == JOB_QUEUED;
}

bool queue_at_limit(struct pool *pool)
{
    if (pool->role == ROLE_WORKER || ring_length(&pool->ready) < pool->queue_limit)
        return false;
    /* Cells of jobs that were cancelled, or claimed out of turn, are among these. */
    return ring_count(&pool->ready, pool->queue_limit, waits, pool) >= pool->queue_limit;
}
