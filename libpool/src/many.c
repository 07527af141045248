/* Submitting many jobs at once. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "internal.h"

/* One job, for which nobody is woken yet. */
static int submit_one(struct pool *pool, const struct pool_options *options, uint64_t function,
                      const void *argument, size_t size, struct pool_future *future)
{
    struct pool_future own;
    void *memory;
    int error = queue_full(pool) ? -EAGAIN : 0;

    if (!error)
        error = pool_prepare_with(pool, options, size, &own, &memory);
    if (error)
        return error;
    if (size)
        memcpy(memory, argument, size);
    error = submit_commit(&own, function, false, future ? 0 : JOB_DETACHED, false);
    if (error)
        submit_return(pool, own.index);
    else if (future)
        *future = own;
    return error;
}

int64_t pool_submit_many(struct pool *pool, const struct pool_options *options,
                         pool_function function, const void *arguments, size_t item_size,
                         size_t count, struct pool_future *futures)
{
    const unsigned char *argument = arguments;
    uint64_t id;
    size_t done = 0;
    int error = submit_allowed(pool);

    if (!error)
        error = function_id(&pool->functions, function, &id);
    if (!error && item_size && count && (!arguments || count > SIZE_MAX / item_size))
        error = -EINVAL;
    while (!error && done < count) {
        error = submit_one(pool, options, id, argument, item_size, futures ? &futures[done] : NULL);
        if (error)
            break;
        argument += item_size;
        /* Who sleeps is woken for the first, and finds the others as they come. */
        if (done++ == 0)
            schedule_wake(pool, false);
    }
    /* Death before: the workers that sleep are rung when ours is repaired. */
    if (done > 1)
        schedule_wake_many(pool, done);
    return done ? (int64_t)done : error;
}
