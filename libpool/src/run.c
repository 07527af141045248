/* How a worker runs a job, and what the running job can call. */
#include <errno.h>
#include <string.h>

#include "atomic.h"
#include "internal.h"

/* ---- The running job's own calls ---- */

/* Where an inline result begins: after an inline argument. */
static size_t inline_offset(struct payload argument)
{
    return argument.kind == PAYLOAD_INLINE ? (argument.size + 7U) & ~7U : 0;
}

static void drop_result(struct pool_job *job)
{
    if (job->result.kind == PAYLOAD_BLOCK)
        arena_free_held(&job->pool->arena, job->result.block, job->pool->self);
    job->result = (struct payload){.kind = PAYLOAD_NONE};
}

void *pool_job_reserve(struct pool_job *job, size_t size)
{
    struct pool *pool = job->pool;
    struct job *slot = job_at(&pool->jobs, job->index);
    size_t offset;
    uint64_t length;
    void *memory;

    if (job->slice) {
        job->slice_overflow = size > job->slice_room;
        if (!job->slice_overflow)
            return job->slice;
        errno = EMSGSIZE;
        return NULL;
    }
    drop_result(job);
    offset = inline_offset(payload_unpack(shared_load(&slot->argument, RELAXED)));
    if (offset <= JOB_INLINE && size <= JOB_INLINE - offset) {
        job->result.kind = size ? PAYLOAD_INLINE : PAYLOAD_NONE;
        job->result.size = (uint8_t)size;
        return slot->data + (size ? offset : 0);
    }
    shared_store(&pool_process(pool, pool->self - 1)->touched, 1, RELEASE);
    if (arena_alloc(&pool->arena, pool->self, size, &job->result.block) != 0 ||
        arena_lookup(&pool->arena, job->result.block, &memory, &length) != 0) {
        errno = ENOMEM;
        return NULL;
    }
    job->result.kind = PAYLOAD_BLOCK;
    return memory;
}

int pool_job_return(struct pool_job *job, const void *data, size_t size)
{
    void *memory = pool_job_reserve(job, size);

    if (!memory)
        return -errno;
    if (size)
        memcpy(memory, data, size);
    return 0;
}

uint64_t pool_job_target(const struct pool_job *job)
{
    return job->target;
}

const void *pool_job_argument(const struct pool_job *job, size_t *size)
{
    if (size)
        *size = job->size;
    return job->argument;
}

/* ---- Running a job ---- */

static int run_function(struct pool_job *job, bool host)
{
    struct pool *pool = job->pool;
    pool_function function;
    int status;

    if (host) {
        if (!pool->host.run)
            return -ENOSYS;
        status = pool->host.run(pool->host.context, job);
    } else {
        status = function_resolve(&pool->functions, job->target, &function);
        if (status == 0)
            status = function(job, job->argument, job->size);
    }
    return status > 0 || status < -4095 ? -ERANGE : status;
}

/* Finds the argument; what the slot says is checked against the segment. */
static int find_argument(struct pool_job *job, struct payload payload)
{
    void *memory = job_at(&job->pool->jobs, job->index)->data;
    uint64_t size = payload.kind == PAYLOAD_INLINE ? payload.size : 0;

    if (payload.kind == PAYLOAD_BLOCK) {
        int error = arena_lookup(&job->pool->arena, payload.block, &memory, &size);
        if (error)
            return error;
    }
    if (payload.kind == PAYLOAD_INLINE && size > JOB_INLINE)
        return -EINVAL;
    job->argument = memory;
    job->size = size;
    return 0;
}

void worker_run(struct pool *pool, uint32_t index, uint32_t generation)
{
    struct job *slot = job_at(&pool->jobs, index);
    struct payload argument = payload_unpack(shared_load(&slot->argument, RELAXED));
    struct pool_job job = {.pool = pool, .index = index, .generation = generation};
    int status;

    job.target = shared_load(&slot->function, RELAXED);
    status = find_argument(&job, argument);
    if (status == 0)
        status = run_function(&job, argument.host);
    job.result.extra = (uint16_t)(int16_t)status;
    /* First the slot names the block, then the block is the job's, then the job ends. Death in
     * between leaves a running job, whose result the repair frees: as held, or as attached. */
    shared_store(&slot->result, payload_pack(job.result), RELEASE);
    if (job.result.kind == PAYLOAD_BLOCK)
        arena_attach(&pool->arena, job.result.block, pool->self, index);
    if (!schedule_end(pool, index, generation, pool->self, JOB_FINISHED) &&
        job.result.kind == PAYLOAD_BLOCK)
        arena_free_attached(&pool->arena, job.result.block, index);
    schedule_pop(pool);
}
