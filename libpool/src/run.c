/* How a worker runs a job, and what the running job can call. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "atomic.h"
#include "internal.h"
#include "system.h"

/* ---- The running job's own calls ---- */

/* Where an inline result begins: after an inline argument. */
static size_t inline_offset(struct payload argument)
{
    return argument.kind == PAYLOAD_INLINE ? (argument.size + 7U) & ~7U : 0;
}

/* In a process that the job has forked, the slot and the worker's books are its parent's. */
static bool is_copy(const struct pool *pool)
{
    return pool->forks != fork_count();
}

void run_end_copy(const struct pool *pool)
{
    if (is_copy(pool))
        _exit(0);
}

static void drop_result(struct pool_job *job)
{
    struct pool *pool = job->pool;

    if (job->result.kind == PAYLOAD_BLOCK && !job_free_result(&pool->jobs, job->result, job->index))
        arena_free_held(&pool->arena, job->result.block, pool->self);
    job->result = (struct payload){.kind = PAYLOAD_NONE};
}

static void *reserve_block(struct pool_job *job, size_t size)
{
    struct pool *pool = job->pool;
    uint64_t length;
    void *memory;
    int error;

    shared_store(&pool_process(pool, pool->self - 1)->touched, 1, RELEASE);
    error = arena_alloc(&pool->arena, pool->self, size, &job->result.block);
    /* Memory of free blocks counts as committed: where there is none left, give it back first. */
    if (error == -ENOMEM && arena_trim(&pool->arena, pool->self, 0) > 0)
        error = arena_alloc(&pool->arena, pool->self, size, &job->result.block);
    if (error == -EBADF)
        pool->deaf = true;
    if (error || arena_lookup(&pool->arena, job->result.block, &memory, &length) != 0) {
        errno = error == -EBADF ? EBADF : ENOMEM;
        return NULL;
    }
    job->result.kind = PAYLOAD_BLOCK;
    return memory;
}

/* The result's block is the job's from here on, as worker_run() does it at the end of others, and
 * so are those that come with it. Death in between: the repair frees what it finds attached; the
 * others the dead held. */
static int give(struct pool_job *job, unsigned char *trailer, size_t size, const uint64_t *blocks)
{
    struct pool *pool = job->pool;
    struct job *slot = job_at(&pool->jobs, job->index);
    uint64_t length = size;
    uint8_t i;

    memcpy(trailer, &length, sizeof length);
    memcpy(trailer + sizeof length, blocks, job->result.size * sizeof *blocks);
    shared_store(&slot->result, payload_pack(job->result), RELEASE);
    arena_attach(&pool->arena, job->result.block, pool->self, job->index);
    for (i = 0; i < job->result.size; i++) {
        void *memory;

        if (!arena_give(&pool->arena, blocks[i], pool->self, job->index) ||
            arena_lookup(&pool->arena, blocks[i], &memory, &length) != 0)
            return -EINVAL;
        job->returned += length;
    }
    return 0;
}

void *pool_job_reserve_with(struct pool_job *job, size_t size, const uint64_t *blocks, size_t count)
{
    size_t begin = (size + 7) & ~(size_t)7;
    unsigned char *memory = NULL;

    if (count == 0)
        return pool_job_reserve(job, size);
    if (is_copy(job->pool) || job->slice || count > POOL_JOB_BLOCKS || begin < size) {
        errno = is_copy(job->pool) ? EXDEV : EINVAL;
        return NULL;
    }
    drop_result(job);
    job->returned = size;
    memory = reserve_block(job, begin + (1 + count) * sizeof *blocks);
    if (!memory)
        return NULL;
    job->result.size = (uint8_t)count;
    if (give(job, memory + begin, size, blocks) == 0)
        return memory;
    drop_result(job);
    errno = EINVAL;
    return NULL;
}

void *pool_job_reserve(struct pool_job *job, size_t size)
{
    struct pool *pool = job->pool;
    struct job *slot = job_at(&pool->jobs, job->index);
    size_t offset, room;

    if (is_copy(pool)) {
        errno = EXDEV;
        return NULL;
    }
    if (job->slice) {
        job->slice_overflow = size > job->slice_room;
        job->slice_used = job->slice_overflow ? 0 : size;
        if (!job->slice_overflow)
            return job->slice;
        errno = EMSGSIZE;
        return NULL;
    }
    drop_result(job);
    job->returned = size;
    offset = inline_offset(payload_unpack(shared_load(&slot->argument, RELAXED)));
    room = job->options ? JOB_INLINE - sizeof(struct job_options) : JOB_INLINE;
    if (offset <= room && size <= room - offset) {
        job->result.kind = size ? PAYLOAD_INLINE : PAYLOAD_NONE;
        job->result.size = (uint8_t)size;
        return slot->data + (size ? offset : 0);
    }
    return reserve_block(job, size);
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

int pool_job_keep(struct pool_job *job, uint64_t *reference)
{
    struct pool *pool = job->pool;
    struct payload argument =
        payload_unpack(shared_load(&job_at(&pool->jobs, job->index)->argument, RELAXED));

    if (argument.kind != PAYLOAD_BLOCK)
        return -EINVAL;
    submit_touch(pool); /* before: if we die, the repair looks for what we hold */
    if (!arena_hold(&pool->arena, argument.block, pool->self))
        return -EINVAL;
    *reference = argument.block;
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

/* The job's time counts from now. */
static void start_clock(struct pool *pool, uint32_t index)
{
    struct job_options *options = job_options(job_at(&pool->jobs, index));
    int64_t deadline = POOL_FOREVER;

    if (options->timeout != POOL_FOREVER)
        deadline = system_deadline(system_now(), options->timeout);
    /* Seq_cst: either the supervisor, which sets next_look and then looks, sees the deadline, or we
     * see that it will look too late. */
    shared_store(&options->deadline, deadline, SEQ_CST);
    if (deadline < shared_load(&pool_control(pool)->next_look, SEQ_CST))
        schedule_kick_supervisor(pool);
}

void pool_job_part(struct pool_job *job, uint32_t part)
{
    run_end_copy(job->pool);
    if (!job->options)
        return;
    shared_store(&job_options(job_at(&job->pool->jobs, job->index))->part, part, RELAXED);
    start_clock(job->pool, job->index);
}

/* We are about to be killed, and are not to touch anything until then. */
static _Noreturn void await_death(struct pool *pool)
{
    schedule_kick_supervisor(pool);
    for (;;)
        pause();
}

void pool_job_fail(struct pool_job *job)
{
    job->failed = true;
}

/* Before the job ends, so that whoever learns of its end finds it counted. `times` is 1; or the
 * opposite, when it did not end so after all, since it is doomed or was given up. */
static void count(struct pool *pool, const struct pool_job *job, int status, uint64_t times)
{
    struct process *process = pool_process(pool, pool->self - 1);

    stats_add(status || job->failed ? &process->jobs_failed : &process->jobs_done, times);
    stats_add(&process->bytes_in, job->size * times);
    if (job->result.kind != PAYLOAD_NONE)
        stats_add(&process->bytes_out, job->returned * times);
}

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
    if (payload.kind == PAYLOAD_INLINE && size > job_room(payload))
        return -EINVAL;
    job->argument = memory;
    job->size = size;
    return 0;
}

void worker_run(struct pool *pool, uint32_t index, uint32_t generation)
{
    struct job *slot = job_at(&pool->jobs, index);
    struct payload argument = payload_unpack(shared_load(&slot->argument, RELAXED));
    struct pool_job job = {
        .pool = pool, .index = index, .generation = generation, .options = argument.options};
    int status, error;

    job.target = shared_load(&slot->function, RELAXED);
    if (job.options) {
        pool->timed++;
        start_clock(pool, index);
    }
    status = find_argument(&job, argument);
    if (status == 0)
        status = run_function(&job, argument.host);
    run_end_copy(pool);
    job.result.extra = (uint16_t)(int16_t)status;
    count(pool, &job, status, 1);
    /* First the slot names the block, then the block is the job's, then the job ends. Death in
     * between leaves a running job, whose result the repair frees: as held, or as attached. */
    shared_store(&slot->result, payload_pack(job.result), RELEASE);
    if (job.result.kind == PAYLOAD_BLOCK && !job.result.size)
        arena_attach(&pool->arena, job.result.block, pool->self, index);
    error = schedule_end(pool, index, generation, pool->self, JOB_FINISHED);
    if (error)
        count(pool, &job, status, UINT64_MAX);
    if (error == -ECANCELED)
        await_death(pool);
    if (error && job.result.kind == PAYLOAD_BLOCK)
        job_free_result(&pool->jobs, job.result, index);
    if (job.options)
        pool->timed--;
    schedule_pop(pool);
}
