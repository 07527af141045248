/* Several pools, several threads, all workers: nobody sleeps while there is work for him. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)
#define THREADS 4

/* ---- All workers work ---- */

/* More long jobs than workers: each worker must come to have one, though nobody waits. */
static void every_worker_gets_a_job_when_there_are_enough(void)
{
    int round, rounds = HARNESS_SANITIZED ? 30 : 100, workers, i;

    for (round = 0; round < rounds; round++) {
        struct gate *gate = harness_shared(sizeof *gate);
        struct pool *pool = harness_pool(workers = 2 + round % 3, LIMIT);
        struct pool_future future = harness_submit(pool, job_nothing, NULL, 0);

        /* On some rounds they have gone to sleep when the jobs come, on others they spin. */
        EXPECT(harness_status(&future), 0);
        if (round % 2)
            EXPECT(harness_ends(pool_supervisor_fd(pool), 2), false);
        for (i = 0; i < workers + 5; i++)
            EXPECT(pool_submit(pool, job_gate, &gate, sizeof gate, NULL), 0);
        REQUIRE(harness_await(&gate->reached, (uint32_t)workers), true);
        harness_raise(&gate->open);
        pool_destroy(pool);
    }
}

/* The same in a pool that has run for a while, again and again. */
static void every_worker_gets_a_job_at_every_burst(void)
{
    enum { WORKERS = 3 };
    int round, rounds = HARNESS_SANITIZED ? 300 : 3000, i;
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(WORKERS, LIMIT);
    struct pool_future futures[WORKERS];

    for (round = 0; round < rounds; round++) {
        gate->reached = gate->open = 0;
        for (i = 0; i < WORKERS; i++)
            futures[i] = harness_submit(pool, job_gate, &gate, sizeof gate);
        REQUIRE(harness_await(&gate->reached, WORKERS), true);
        harness_raise(&gate->open);
        for (i = 0; i < WORKERS; i++)
            EXPECT(harness_status(&futures[i]), 0);
    }
    pool_destroy(pool);
}

/* ---- Several threads ---- */

struct shared_pool {
    struct pool *pool;
    _Atomic uint32_t wrong, jobs, submitting;
};

static void submit_and_check(void *context, unsigned thread)
{
    struct shared_pool *shared = context;
    uint32_t i, rounds = HARNESS_SANITIZED ? 500 : 4000;
    unsigned char bytes[300];

    for (i = 0; i < rounds; i++) {
        size_t size = (i * 7 + thread) % sizeof bytes, length = 0;
        struct pool_future futures[3];
        const void *data;
        int k;

        memset(bytes, (int)(thread + i), sizeof bytes);
        for (k = 0; k < 3; k++)
            shared->wrong += pool_submit(shared->pool, job_echo, bytes, size, &futures[k]) != 0;
        for (k = 3; k-- > 0;) {
            shared->wrong += pool_future_wait(&futures[k], 20 * SECOND) != 0 ||
                             pool_future_result(&futures[k], &data, &length) != 0 ||
                             length != size || memcmp(data, bytes, size) != 0;
            pool_future_release(&futures[k]);
        }
    }
}

static void threads_that_share_a_pool_get_their_own_results(void)
{
    struct shared_pool shared = {.pool = harness_pool(2, LIMIT)};
    struct pool_stats stats = {.size = sizeof stats};

    harness_threads(THREADS, submit_and_check, &shared);
    EXPECT(shared.wrong, 0);
    EXPECT(pool_get_stats(shared.pool, &stats), 0);
    EXPECT(stats.jobs_started, THREADS * 3 * (HARNESS_SANITIZED ? 500 : 4000));
    pool_destroy(shared.pool);
}

static void wait_for_one(void *context, unsigned thread)
{
    struct pool_future *future = context;

    (void)thread;
    EXPECT(pool_future_wait(future, 20 * SECOND), 0);
    EXPECT(pool_future_result(future, NULL, NULL), 0);
}

static void many_threads_may_wait_for_one_job(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int i;

    for (i = 0; i < 50; i++) {
        struct pool_future future = harness_submit(pool, job_nothing, NULL, 0);

        harness_threads(THREADS, wait_for_one, &future);
        pool_future_release(&future);
    }
    pool_destroy(pool);
}

static void use_own_pool(void *context, unsigned thread)
{
    _Atomic uint32_t *wrong = context;
    struct pool_config config;
    int round, i;

    pool_config_init(&config);
    config.workers = (int)thread % 2 + 1;
    config.shared_limit = LIMIT;
    for (round = 0; round < (HARNESS_SANITIZED ? 3 : 15); round++) {
        struct pool *pool = NULL;

        if (pool_create(&pool, &config) != 0) {
            (*wrong)++;
            continue;
        }
        for (i = 0; i < 50; i++) {
            struct pool_future future;

            *wrong += pool_submit(pool, job_nothing, NULL, 0, &future) != 0 ||
                      harness_status(&future) != 0;
        }
        pool_destroy(pool);
    }
}

static void threads_make_use_and_destroy_pools_of_their_own(void)
{
    _Atomic uint32_t wrong = 0;

    harness_threads(THREADS, use_own_pool, (void *)&wrong);
    EXPECT(wrong, 0);
}

static void several_pools_do_not_disturb_each_other(void)
{
    struct pool *pools[4];
    struct pool_future futures[4][50], foreign;
    struct gate *gate = harness_shared(sizeof *gate);
    int i, k;

    for (i = 0; i < 4; i++)
        pools[i] = harness_pool(1 + i % 2, LIMIT);
    foreign = harness_submit(pools[3], job_gate, &gate, sizeof gate);
    for (k = 0; k < 50; k++)
        for (i = 0; i < 3; i++)
            futures[i][k] = harness_submit(pools[i], job_nothing, NULL, 0);
    pool_destroy(pools[1]); /* with its jobs */
    EXPECT(pool_terminate(pools[2]), 0);
    for (k = 0; k < 50; k++)
        EXPECT(harness_status(&futures[0][k]), 0);
    EXPECT(pool_future_outcome(&foreign, NULL) <= POOL_RUNNING, true);
    harness_raise(&gate->open);
    EXPECT(harness_status(&foreign), 0);
    pool_destroy(pools[2]);
    pool_destroy(pools[0]);
    pool_destroy(pools[3]);
}

/* ---- Ending a pool that others use ---- */

/* Submits and waits until it is told that the pool has ended: each wait must return. */
static void submit_until_the_end(void *context, unsigned thread)
{
    struct shared_pool *shared = context;
    struct pool_future future;
    int error;

    if (thread == 0) {
        harness_await(&shared->jobs, 20);
        pool_terminate(shared->pool);
        return;
    }
    while ((error = pool_submit(shared->pool, job_nothing, NULL, 0, &future)) == 0) {
        error = pool_future_wait(&future, 5 * SECOND);
        if (error) {
            shared->wrong++;
            return;
        }
        pool_future_release(&future);
        harness_raise(&shared->jobs);
    }
    shared->wrong += error != -ESHUTDOWN;
}

static void no_submission_that_races_with_terminate_waits_for_ever(void)
{
    int round;

    for (round = 0; round < (HARNESS_SANITIZED ? 30 : 150); round++) {
        struct shared_pool shared = {.pool = harness_pool(1, LIMIT)};

        harness_threads(THREADS, submit_until_the_end, &shared);
        pool_destroy(shared.pool);
        REQUIRE(shared.wrong, 0);
    }
}

static void submit_until_closed(void *context, unsigned thread)
{
    struct shared_pool *shared = context;
    struct pool_future future;
    int error;

    if (thread == 0) {
        harness_await(&shared->jobs, 20);
        pool_close(shared->pool);
        return;
    }
    while ((error = pool_submit(shared->pool, job_nothing, NULL, 0, &future)) == 0) {
        if (harness_outcome(&future, NULL) != POOL_FINISHED) {
            shared->wrong++;
            return;
        }
        harness_raise(&shared->jobs);
    }
    shared->wrong += error != -ESHUTDOWN;
}

/* What was taken runs, also what was taken at the moment of closing. */
static void every_submission_that_races_with_close_runs(void)
{
    int round;

    for (round = 0; round < (HARNESS_SANITIZED ? 30 : 150); round++) {
        struct shared_pool shared = {.pool = harness_pool(2, LIMIT)};

        harness_threads(THREADS, submit_until_closed, &shared);
        EXPECT(pool_join(shared.pool, 20 * SECOND), 0);
        pool_destroy(shared.pool);
        REQUIRE(shared.wrong, 0);
    }
}

static void cancel_or_wait(void *context, unsigned thread)
{
    struct shared_pool *shared = context;
    struct pool_future future;
    int i, outcome;

    for (i = 0; i < 500; i++) {
        if (thread == 0) {
            pool_cancel_waiting(shared->pool);
            continue;
        }
        if (pool_submit(shared->pool, job_nothing, NULL, 0, &future) != 0) {
            shared->wrong++;
            return;
        }
        if (thread == 1)
            (void)pool_future_cancel(&future);
        outcome = harness_outcome(&future, NULL);
        shared->wrong += outcome != POOL_FINISHED && outcome != POOL_CANCELLED;
        pool_future_release(&future);
    }
}

static void cancelling_races_with_running_and_each_job_ends_once(void)
{
    struct shared_pool shared = {.pool = harness_pool(2, LIMIT)};

    harness_threads(THREADS, cancel_or_wait, &shared);
    EXPECT(shared.wrong, 0);
    pool_destroy(shared.pool);
}

static const struct harness_test tests[] = {
    TEST(every_worker_gets_a_job_when_there_are_enough),
    TEST(every_worker_gets_a_job_at_every_burst),
    TEST(threads_that_share_a_pool_get_their_own_results),
    TEST(many_threads_may_wait_for_one_job),
    TEST(threads_make_use_and_destroy_pools_of_their_own),
    TEST(several_pools_do_not_disturb_each_other),
    TEST(no_submission_that_races_with_terminate_waits_for_ever),
    TEST(every_submission_that_races_with_close_runs),
    TEST(cancelling_races_with_running_and_each_job_ends_once),
};

HARNESS_MAIN("pool: threads and several pools", tests)
