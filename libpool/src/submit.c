/* Submitting jobs: from the host, and from a job to its own pool. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "atomic.h"
#include "internal.h"
#include "sized.h"

/* Slots kept for the next submissions, at most, and at most this part of all memory; those beyond
 * go back to all. */
#define SLOTS_KEPT (1U << 17)
#define SLOTS_PART 16

int submit_allowed(struct pool *pool)
{
    int error = pool_usable(pool);

    return error == -ESHUTDOWN && pool->role == ROLE_WORKER ? 0 : error;
}

void submit_touch(struct pool *pool)
{
    if (pool->role == ROLE_WORKER)
        shared_store(&pool_process(pool, pool->self - 1)->touched, 1, RELEASE);
}

static bool lock_slots(struct pool *pool)
{
    return !atomic_exchange_explicit(&pool->slots_taken, true, ACQUIRE);
}

static void unlock_slots(struct pool *pool)
{
    atomic_store_explicit(&pool->slots_taken, false, RELEASE);
}

static int take_slot(struct pool *pool, uint32_t *index)
{
    bool taken = false;

    if (lock_slots(pool)) {
        if (pool->slot_count) {
            *index = pool->slots[--pool->slot_count];
            taken = true;
        }
        unlock_slots(pool);
    }
    return taken ? 0 : job_alloc(&pool->jobs, pool->self, index);
}

/* With the lock: makes room for more of them, unless they are as many as may be kept. */
static void extend_slots(struct pool *pool)
{
    size_t room = pool->slot_room ? pool->slot_room * 2 : 64;
    uint32_t *slots;

    if (room > SLOTS_KEPT || (pool->slot_room && room > pool->jobs.entries / SLOTS_PART))
        return;
    slots = realloc(pool->slots, room * sizeof *slots);
    if (slots) {
        pool->slots = slots;
        pool->slot_room = room;
    }
}

/* A slot that this process holds: keep it at hand, where it is still warm, or free it. */
void submit_return(struct pool *pool, uint32_t index)
{
    bool kept = false;

    job_drop_payloads(&pool->jobs, index);
    if (lock_slots(pool)) {
        if (pool->slot_count == pool->slot_room)
            extend_slots(pool);
        if (pool->slot_count < pool->slot_room) {
            pool->slots[pool->slot_count++] = index;
            kept = true;
        }
        unlock_slots(pool);
    }
    if (!kept)
        job_free(&pool->jobs, index, pool->self);
}

static struct pool_options defaults_of(const struct pool *pool)
{
    return (struct pool_options){
        .size = sizeof(struct pool_options), .timeout = pool->timeout, .retries = pool->retries};
}

void pool_options_init_size(const struct pool *pool, struct pool_options *options, size_t size)
{
    struct pool_options defaults = defaults_of(pool);

    sized_give(options, size, &defaults, sizeof defaults);
}

static int check_options(const struct pool_options *options)
{
    if (options->timeout < 1 || options->retries < 0 || options->retries > 255)
        return -EINVAL;
    return options->size == sizeof *options
               ? 0
               : sized_check(sizeof *options, options, sizeof *options);
}

static void place_options(struct job *job, const struct pool_options *options)
{
    struct job_options *place = job_options(job);

    place->timeout = options->timeout;
    shared_store(&place->deadline, 0, RELAXED);
    shared_store(&place->retries, (uint32_t)options->retries, RELAXED);
    shared_store(&place->part, 0, RELAXED);
}

static int place_argument(struct pool *pool, uint32_t index, const struct pool_options *options,
                          size_t size, void **argument)
{
    struct job *job = job_at(&pool->jobs, index);
    struct payload payload = {.kind = PAYLOAD_NONE, .extra = pool->self};
    uint64_t length;
    int error;

    *argument = job->data;
    payload.options = options->timeout != POOL_FOREVER || options->retries > 0;
    if (payload.options)
        place_options(job, options);
    if (size > job_room(payload)) {
        error = arena_alloc(&pool->arena, pool->self, size, &payload.block);
        if (error)
            return error;
        if (arena_lookup(&pool->arena, payload.block, argument, &length) != 0 || length != size) {
            arena_free_held(&pool->arena, payload.block, pool->self);
            return -EBADMSG; /* scribbled over */
        }
        payload.kind = PAYLOAD_BLOCK;
    } else if (size) {
        payload.kind = PAYLOAD_INLINE;
        payload.size = (uint8_t)size;
    }
    /* First the slot names the block, then the block is the job's: a death in between leaves a
     * held block, or one that the held slot names, and the repair frees either. */
    shared_store(&job->argument, payload_pack(payload), RELEASE);
    if (payload.kind == PAYLOAD_BLOCK)
        arena_attach(&pool->arena, payload.block, pool->self, index);
    return 0;
}

int pool_prepare(struct pool *pool, size_t size, struct pool_future *future, void **argument)
{
    return pool_prepare_with(pool, NULL, size, future, argument);
}

bool submit_make_room(struct pool *pool)
{
    return arena_trim(&pool->arena, pool->self, 0) > 0;
}

/* In a pool that can be used. */
static int prepare(struct pool *pool, const struct pool_options *options, size_t size,
                   struct pool_future *future, void **argument)
{
    struct pool_options defaults;
    uint32_t index;
    int error;

    if (!options) {
        defaults = defaults_of(pool);
        options = &defaults;
    }
    error = check_options(options);
    if (error)
        return error;
    submit_touch(pool);
    error = take_slot(pool, &index);
    if (error == -ENOMEM && submit_make_room(pool))
        error = take_slot(pool, &index);
    if (error)
        return error;
    error = place_argument(pool, index, options, size, argument);
    if (error == -ENOMEM && submit_make_room(pool))
        error = place_argument(pool, index, options, size, argument);
    if (error) {
        submit_return(pool, index);
        return error;
    }
    future->pool = pool;
    future->index = index;
    future->generation = job_generation(shared_load(&job_at(&pool->jobs, index)->word, RELAXED));
    return 0;
}

int pool_prepare_with(struct pool *pool, const struct pool_options *options, size_t size,
                      struct pool_future *future, void **argument)
{
    int error = submit_allowed(pool);

    return error ? error : prepare(pool, options, size, future, argument);
}

static int put(struct pool *pool, uint32_t index, bool wake)
{
    return wake ? schedule_push(pool, index) : ring_push(&pool->ready, index);
}

int submit_commit(const struct pool_future *future, uint64_t function, bool host, unsigned flags,
                  bool wake)
{
    struct pool *pool = future->pool;
    struct job *job = job_at(&pool->jobs, future->index);
    uint64_t word = shared_load(&job->word, RELAXED);
    int error;

    if (job_state(word) != JOB_HELD || job_generation(word) != future->generation ||
        job_owner(word) != pool->self)
        return -ESTALE;
    if (host) {
        struct payload argument = payload_unpack(shared_load(&job->argument, RELAXED));

        argument.host = true;
        shared_store(&job->argument, payload_pack(argument), RELAXED);
    }
    shared_store(&job->function, function, RELAXED);
    job_queue(&pool->jobs, future->index, flags);
    error = put(pool, future->index, wake);
    if (error == -ENOMEM && submit_make_room(pool))
        error = put(pool, future->index, wake);
    /* The pool may have been closed, or have broken, since we looked; who did that may have looked
     * for jobs before this one was there. We look after it is there: one of us sees the other. */
    if (!error)
        error = submit_allowed(pool);
    /* A worker may have found the job all the same. */
    if (error && !job_unqueue(&pool->jobs, future->index, future->generation, pool->self))
        error = 0;
    return error;
}

int pool_commit(const struct pool_future *future, pool_function function)
{
    uint64_t id;
    int error = future_check(future);

    if (!error)
        error = function_id(&future->pool->functions, function, &id);
    if (!error && queue_full(future->pool))
        error = -EAGAIN;
    return error ? error : submit_commit(future, id, false, 0, true);
}

int pool_commit_host(const struct pool_future *future, uint64_t target)
{
    int error = future_check(future);

    if (!error && queue_full(future->pool))
        error = -EAGAIN;
    return error ? error : submit_commit(future, target, true, 0, true);
}

void pool_abandon(const struct pool_future *future)
{
    struct pool *pool = future->pool;

    if (future_check(future) == 0 &&
        job_renew(&pool->jobs, future->index, future->generation, pool->self))
        submit_return(pool, future->index);
}

int pool_submit(struct pool *pool, pool_function function, const void *argument, size_t size,
                struct pool_future *future)
{
    return pool_submit_with(pool, NULL, function, argument, size, future);
}

int pool_submit_with(struct pool *pool, const struct pool_options *options, pool_function function,
                     const void *argument, size_t size, struct pool_future *future)
{
    struct pool_future own;
    void *memory;
    uint64_t id;
    int error = submit_allowed(pool);

    if (!error)
        error = function_id(&pool->functions, function, &id);
    if (!error && size && !argument)
        error = -EINVAL;
    if (!error && queue_full(pool))
        error = -EAGAIN;
    if (!error)
        error = prepare(pool, options, size, &own, &memory);
    if (error)
        return error;
    if (size)
        memcpy(memory, argument, size);
    error = submit_commit(&own, id, false, future ? 0 : JOB_DETACHED, true);
    if (error)
        submit_return(pool, own.index);
    else if (future)
        *future = own;
    return error;
}

void pool_future_release(const struct pool_future *future)
{
    struct pool *pool = future->pool;

    if (future_check(future) != 0)
        return;
    if (job_flag(&pool->jobs, future->index, future->generation, JOB_DETACHED) == 1 &&
        job_collect(&pool->jobs, future->index, future->generation, pool->self))
        submit_return(pool, future->index);
}

int64_t pool_cancel_waiting(struct pool *pool)
{
    uint32_t index, count;
    int64_t cancelled = 0;
    int error = pool_usable(pool);

    if (error == -EXDEV)
        return error;
    count = job_table_sweep_count(&pool->jobs);
    for (index = 0; index < count; index++) {
        uint64_t word = shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE);

        if (job_state(word) == JOB_QUEUED && schedule_submitter(pool, index) == pool->self &&
            schedule_cancel(pool, index, job_generation(word), JOB_CANCELLED))
            cancelled++;
    }
    return cancelled;
}

/* ---- Functions as arguments ---- */

int pool_refer(struct pool *pool, pool_any_function function, uint64_t *reference)
{
    int error = pool_usable(pool) == -EXDEV ? -EXDEV : 0;

    return error ? error : function_id(&pool->functions, (pool_function)function, reference);
}

int pool_resolve(struct pool *pool, uint64_t reference, pool_any_function *function)
{
    pool_function found;
    int error = pool_usable(pool) == -EXDEV ? -EXDEV : 0;

    if (!error)
        error = function_resolve(&pool->functions, reference, &found);
    if (!error)
        *function = (pool_any_function)found;
    return error;
}
