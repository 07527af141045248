/* libpool: worker processes. */
#include <errno.h>
#include <stdlib.h>

#include <libpool.h>

#include "contender.h"

static int nothing(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    return 0;
}

static void *open_pool(int workers)
{
    struct pool_config config;
    pool_config_init(&config);
    config.workers = workers;
    struct pool *pool = NULL;
    return pool_create(&pool, &config) == 0 ? pool : NULL;
}

static bool collect(const struct pool_future *future)
{
    int error;
    do
        error = pool_future_wait(future, POOL_FOREVER);
    while (error == -EINTR);
    if (error == 0)
        error = pool_future_result(future, NULL, NULL);
    pool_future_release(future);
    return error == 0;
}

static bool round_trip(void *pool)
{
    struct pool_future future;
    return pool_submit(pool, nothing, NULL, 0, &future) == 0 && collect(&future);
}

static bool burst(void *pool, size_t count)
{
    struct pool_future *futures = malloc(count * sizeof *futures);
    if (futures == NULL)
        return false;

    size_t submitted = 0;
    while (submitted < count && pool_submit(pool, nothing, NULL, 0, &futures[submitted]) == 0)
        submitted++;
    bool fine = submitted == count;
    for (size_t i = 0; i < submitted; i++)
        fine &= collect(&futures[i]);
    free(futures);
    return fine;
}

static void close_pool(void *pool)
{
    pool_destroy(pool);
}

const struct contender contender_libpool = {"libpool", open_pool, round_trip, burst, close_pool};
