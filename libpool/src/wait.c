/* Waiting for several jobs. */
#include <errno.h>

#include "atomic.h"
#include "internal.h"
#include "system.h"

int pool_wait_all(const struct pool_future *futures, size_t count, int64_t timeout)
{
    int64_t deadline = POOL_FOREVER;
    size_t i;
    int error = timeout < 0 ? -EINVAL : 0;

    if (!error && timeout != POOL_FOREVER)
        deadline = system_deadline(system_now(), timeout);
    for (i = 0; !error && i < count; i++) {
        int64_t left = POOL_FOREVER;

        if (!futures[i].pool)
            continue;
        if (deadline != POOL_FOREVER) {
            left = deadline - system_now();
            left = left > 0 ? left : 0;
        }
        error = pool_future_wait(&futures[i], left);
    }
    return error;
}

/* The pool of them all, or NULL: none, or several. */
static struct pool *find_pool(const struct pool_future *futures, size_t count)
{
    struct pool *pool = NULL;
    size_t i;

    for (i = 0; i < count; i++) {
        if (pool && futures[i].pool && futures[i].pool != pool)
            return NULL;
        if (futures[i].pool)
            pool = futures[i].pool;
    }
    return pool;
}

static int check_all(const struct pool_future *futures, size_t count)
{
    size_t i;
    int error = 0;

    for (i = 0; !error && i < count; i++)
        if (futures[i].pool)
            error = future_check(&futures[i]);
    return error;
}

/* Which one has ended; -EAGAIN: none; -ESTALE. */
static int64_t look(const struct pool_future *futures, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++) {
        int done = futures[i].pool ? future_ended(&futures[i]) : 0;

        if (done)
            return done < 0 ? done : (int64_t)i;
    }
    return -EAGAIN;
}

/* Marks them all: false if one has ended, or is stale. */
static bool mark(struct pool *pool, const struct pool_future *futures, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        if (futures[i].pool &&
            job_flag(&pool->jobs, futures[i].index, futures[i].generation, JOB_ANY) != 0)
            return false;
    return true;
}

/* After a slice in which none of them ended. */
static void look_after(struct pool *pool, const struct pool_future *futures, size_t count)
{
    bool alive = host_supervisor_alive(pool);
    size_t i;

    if (!alive)
        host_break(pool);
    for (i = 0; i < count; i++) {
        if (!futures[i].pool)
            continue;
        if (alive)
            future_mend(&futures[i],
                        shared_load(&job_at(&pool->jobs, futures[i].index)->word, ACQUIRE));
        else
            future_give_up(&futures[i]);
    }
}

/* Sleeps until one of them may have ended, one slice, or until `deadline`. */
static int sleep_slice(struct pool *pool, const struct pool_future *futures, size_t count,
                       int64_t deadline)
{
    _Atomic uint32_t *ended = &pool_control(pool)->any_ended;
    /* Read before the marks are set: a job that ends later than its mark changes the word after
     * this. Acquire: of a mark that was set before, the end that changed it already is seen. */
    uint32_t seen = shared_load(ended, ACQUIRE);
    int64_t left = HOST_SLICE;
    int error;

    if (!mark(pool, futures, count))
        return 0;
    if (deadline != POOL_FOREVER) {
        left = deadline - system_now();
        if (left <= 0)
            return -ETIMEDOUT;
    }
    error = futex_wait(ended, seen, left < HOST_SLICE ? left : HOST_SLICE);
    if (error != -ETIMEDOUT)
        return error;
    look_after(pool, futures, count);
    return 0;
}

static int64_t wait_in_host(struct pool *pool, const struct pool_future *futures, size_t count,
                            int64_t timeout)
{
    int64_t deadline = system_deadline(system_now(), timeout), found;
    struct spin_wait wait;

    spin_begin(&wait, &pool->spin);
    while ((found = look(futures, count)) == -EAGAIN && spin_round(&wait))
        ;
    while (found == -EAGAIN) {
        int error = sleep_slice(pool, futures, count, deadline);

        if (error)
            return error;
        found = look(futures, count);
    }
    spin_end(&wait);
    return found;
}

int64_t pool_wait_any(const struct pool_future *futures, size_t count, int64_t timeout)
{
    struct pool *pool = find_pool(futures, count);
    int64_t found = !pool || timeout < 0 ? -EINVAL : check_all(futures, count);

    if (!found)
        found = look(futures, count);
    if (found != -EAGAIN)
        return found;
    if (pool->role == ROLE_WORKER)
        return worker_wait(pool, futures, count, timeout);
    return wait_in_host(pool, futures, count, timeout);
}
