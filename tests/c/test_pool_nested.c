/* Jobs that submit jobs to their own pool. */
#include <errno.h>
#include <string.h>

#include "harness.h"

#define LIMIT (64 * MEBIBYTE)

static int job_fib(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t n = *(const uint64_t *)argument, below[2], sum = n;
    struct pool_future futures[2];
    const void *data;
    int i, error = 0;

    (void)size;
    if (n < 2)
        return pool_job_return(job, &sum, sizeof sum);
    for (i = 0, sum = 0; i < 2 && !error; i++) {
        below[i] = n - 1 - (uint64_t)i;
        error = pool_submit(pool_current(), job_fib, &below[i], sizeof below[i], &futures[i]);
    }
    for (i = 0; i < 2 && !error; i++) {
        error = pool_future_wait(&futures[i], POOL_FOREVER);
        if (!error)
            error = pool_future_result(&futures[i], &data, NULL);
        if (!error)
            sum += *(const uint64_t *)data;
        pool_future_release(&futures[i]);
    }
    return error ? error : pool_job_return(job, &sum, sizeof sum);
}

static void fork_and_join_recursion_ends_with_any_number_of_workers(void)
{
    static const int workers[] = {1, 2, 5};
    unsigned i;

    for (i = 0; i < 3; i++) {
        struct pool *pool = harness_pool(workers[i], LIMIT);
        uint64_t n = 16;
        struct pool_future future = harness_submit(pool, job_fib, &n, sizeof n);
        const void *data = NULL;

        EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
        REQUIRE(pool_future_result(&future, &data, NULL), 0);
        EXPECT(*(const uint64_t *)data, 987);
        pool_destroy(pool);
    }
}

static void many_recursions_at_once_end(void)
{
    struct pool *pool = harness_pool(3, LIMIT);
    struct pool_future futures[60];
    uint64_t n = 8;
    int i;

    for (i = 0; i < 60; i++)
        futures[i] = harness_submit(pool, job_fib, &n, sizeof n);
    for (i = 0; i < 60; i++)
        EXPECT(harness_status(&futures[i]), 0);
    pool_destroy(pool);
}

/* Argument: how many levels below this one. The result: how many there were. */
static int job_descend(struct pool_job *job, const void *argument, size_t size)
{
    int levels = *(const int *)argument, below = levels - 1, result = 0, error;
    struct pool_future future;
    const void *data = &result;

    if (levels > 0) {
        error = pool_submit(pool_current(), job_descend, &below, size, &future);
        if (!error)
            error = pool_future_wait(&future, POOL_FOREVER);
        if (!error)
            error = pool_future_result(&future, &data, NULL);
        if (error)
            return error;
        result = *(const int *)data + 1;
        pool_future_release(&future);
    }
    return pool_job_return(job, &result, sizeof result);
}

static void a_deep_chain_of_jobs_ends(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    int levels = 300;
    struct pool_future future = harness_submit(pool, job_descend, &levels, sizeof levels);
    const void *data = NULL;

    EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
    REQUIRE(pool_future_result(&future, &data, NULL), 0);
    EXPECT(*(const int *)data, levels);
    pool_destroy(pool);
}

static int job_who_am_i(struct pool_job *job, const void *argument, size_t size)
{
    int index = pool_worker_index();

    (void)argument;
    (void)size;
    return pool_current() ? pool_job_return(job, &index, sizeof index) : -EIO;
}

static void a_job_knows_its_worker(void)
{
    struct pool *pool = harness_pool(3, LIMIT);
    int i;

    for (i = 0; i < 30; i++) {
        struct pool_future future = harness_submit(pool, job_who_am_i, NULL, 0);
        const void *data = NULL;

        EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
        REQUIRE(pool_future_result(&future, &data, NULL), 0);
        EXPECT(*(const int *)data >= 0 && *(const int *)data < 3, true);
        pool_future_release(&future);
    }
    pool_destroy(pool);
}

/* Argument: a gate. Waits for a job that another worker holds at the gate, but not for long. */
static int job_wait_shortly(struct pool_job *job, const void *argument, size_t size)
{
    struct gate *gate = *(struct gate *const *)argument;
    struct pool_future future;
    int error = pool_submit(pool_current(), job_gate, argument, size, &future);

    (void)job;
    if (error || !harness_await(&gate->reached, 1))
        return -EIO;
    if (pool_future_wait(&future, -1) != -EINVAL)
        return -EINVAL;
    error = pool_future_wait(&future, 20 * MILLISECOND);
    if (error != -ETIMEDOUT || pool_future_wait(&future, 0) != -ETIMEDOUT)
        return -EBADMSG;
    harness_raise(&gate->open);
    error = pool_future_wait(&future, POOL_FOREVER);
    pool_future_release(&future);
    return error ? error : pool_future_wait(&future, 0) == -ESTALE ? 0 : -EBADMSG;
}

static void a_wait_in_a_job_keeps_its_time_out(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future future = harness_submit(pool, job_wait_shortly, &gate, sizeof gate);

    EXPECT(harness_status(&future), 0);
    pool_destroy(pool);
}

/* Cancels its own waiting jobs; the host's are not its to cancel. */
static int job_cancel_own(struct pool_job *job, const void *argument, size_t size)
{
    struct pool *pool = pool_current();
    struct pool_future futures[5];
    int i, error = 0;

    (void)job;
    for (i = 0; i < 5 && !error; i++)
        error = pool_submit(pool, job_echo, argument, size, &futures[i]);
    if (error || pool_future_cancel(&futures[2]) != 0 || pool_cancel_waiting(pool) != 4)
        return -EIO;
    for (i = 0; i < 5; i++)
        if (pool_future_wait(&futures[i], 0) != 0 ||
            pool_future_result(&futures[i], NULL, NULL) != -ECANCELED)
            return -EBADMSG;
    return 0;
}

static void a_job_cancels_what_it_submitted_and_nothing_else(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future first = harness_submit(pool, job_cancel_own, NULL, 0);
    struct pool_future second = harness_submit(pool, job_nothing, NULL, 0);

    EXPECT(harness_status(&first), 0);
    EXPECT(harness_status(&second), 0);
    pool_destroy(pool);
}

/* Argument: a gate. Once the pool has been closed, submits and waits. */
static int job_submit_when_closed(struct pool_job *job, const void *argument, size_t size)
{
    struct gate *gate = *(struct gate *const *)argument;
    uint64_t n = 6;
    struct pool_future future;
    int error;

    (void)job;
    (void)size;
    harness_raise(&gate->reached);
    if (!harness_await(&gate->open, 1) || pool_check(pool_current()) != -ESHUTDOWN)
        return -EIO;
    error = pool_submit(pool_current(), job_fib, &n, sizeof n, &future);
    return error ? error : pool_future_wait(&future, POOL_FOREVER);
}

static void jobs_of_a_closed_pool_may_submit(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future future = harness_submit(pool, job_submit_when_closed, &gate, sizeof gate);

    REQUIRE(harness_await(&gate->reached, 1), true);
    EXPECT(pool_close(pool), 0);
    harness_raise(&gate->open);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(harness_status(&future), 0);
    pool_destroy(pool);
}

/* The result of the result, and a large argument: payloads pass through workers, too. */
static int job_echo_twice(struct pool_job *job, const void *argument, size_t size)
{
    struct pool_future future;
    const void *data;
    size_t length;
    int error = pool_submit(pool_current(), job_echo, argument, size, &future);

    if (!error)
        error = pool_future_wait(&future, POOL_FOREVER);
    if (!error)
        error = pool_future_result(&future, &data, &length);
    if (!error)
        error = pool_job_return(job, data, length);
    pool_future_release(&future);
    return error;
}

static void large_payloads_pass_through_a_job(void)
{
    static unsigned char bytes[3000000];
    struct pool *pool = harness_pool(2, LIMIT);
    int i;

    for (i = 0; i < 50; i++) {
        struct pool_future future;
        const void *data = NULL;
        size_t size = 0;

        memset(bytes, i, sizeof bytes);
        future = harness_submit(pool, job_echo_twice, bytes, sizeof bytes);
        EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
        EXPECT(pool_future_result(&future, &data, &size), 0);
        EXPECT(size == sizeof bytes && memcmp(data, bytes, size) == 0, true);
        pool_future_release(&future);
    }
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(fork_and_join_recursion_ends_with_any_number_of_workers),
    TEST(many_recursions_at_once_end),
    TEST(a_deep_chain_of_jobs_ends),
    TEST(a_job_knows_its_worker),
    TEST(a_wait_in_a_job_keeps_its_time_out),
    TEST(a_job_cancels_what_it_submitted_and_nothing_else),
    TEST(jobs_of_a_closed_pool_may_submit),
    TEST(large_payloads_pass_through_a_job),
};

HARNESS_MAIN("pool: nested jobs", tests)
