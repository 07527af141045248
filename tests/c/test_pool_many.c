/* Many jobs submitted by one call, and a limit of those that wait. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "internal.h"

#define LIMIT (64 * MEBIBYTE)

static int job_add(struct pool_job *job, const void *argument, size_t size)
{
    _Atomic uint32_t *sum = ((_Atomic uint32_t *const *)argument)[0];

    (void)job, (void)size;
    harness_raise(sum);
    return 0;
}

/* A pool of one worker, which a job at a gate keeps busy. */
struct busy {
    struct pool *pool;
    struct gate *gate;
    struct pool_future running;
};

static struct busy make_busy(uint64_t shared_limit, uint64_t queue_limit)
{
    struct busy busy = {.gate = harness_shared(sizeof *busy.gate)};
    struct pool_config config;

    pool_config_init(&config);
    config.workers = 1;
    config.shared_limit = shared_limit;
    config.queue_limit = queue_limit;
    REQUIRE(pool_create(&busy.pool, &config), 0);
    busy.running = harness_submit(busy.pool, job_gate, &busy.gate, sizeof busy.gate);
    REQUIRE(harness_await(&busy.gate->reached, 1), true);
    return busy;
}

static void end_busy(struct busy *busy)
{
    harness_raise(&busy->gate->open);
    EXPECT(harness_status(&busy->running), 0);
    pool_destroy(busy->pool);
}

/* ---- Many at once ---- */

static void each_item_becomes_a_job_of_its_own(void)
{
    static const size_t sizes[] = {1, 8, 96, 97, 5000};
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future futures[100];
    unsigned k, i;

    for (k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t size = sizes[k], length;
        unsigned char *items = malloc(100 * size);
        const void *data;

        for (i = 0; i < 100 * size; i++)
            items[i] = (unsigned char)(i * 7 + i / size);
        REQUIRE(pool_submit_many(pool, NULL, job_echo, items, size, 100, futures), 100);
        EXPECT(pool_wait_all(futures, 100, 20 * SECOND), 0);
        for (i = 0; i < 100; i++) {
            REQUIRE(pool_future_result(&futures[i], &data, &length), 0);
            EXPECT(length == size && memcmp(data, items + i * size, size) == 0, true);
            pool_future_release(&futures[i]);
        }
        free(items);
    }
    pool_destroy(pool);
}

static void many_jobs_need_no_futures_and_no_arguments(void)
{
    _Atomic uint32_t *sum = harness_shared(sizeof *sum);
    struct pool *pool = harness_pool(3, LIMIT);
    _Atomic uint32_t *items[1000];
    struct pool_stats stats = {.size = sizeof stats};
    int i;

    for (i = 0; i < 1000; i++)
        items[i] = sum;
    EXPECT(pool_submit_many(pool, NULL, job_add, items, sizeof *items, 1000, NULL), 1000);
    EXPECT(pool_submit_many(pool, NULL, job_nothing, NULL, 0, 50, NULL), 50);
    EXPECT(pool_submit_many(pool, NULL, job_nothing, NULL, 0, 0, NULL), 0);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(*sum, 1000);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.jobs_done, 1050);
    pool_destroy(pool);
}

static int job_meet(struct pool_job *job, const void *argument, size_t size)
{
    _Atomic uint32_t *here = *(_Atomic uint32_t *const *)argument;

    (void)job, (void)size;
    harness_raise(here);
    return harness_await(here, 4) ? 0 : -ETIMEDOUT;
}

static bool all_sleep(void *context)
{
    const struct pool *pool = context;
    uint64_t words = atomic_load(&pool_control(pool)->wake.word[0]);

    return __builtin_popcountll(words & UINT32_MAX) == pool->workers;
}

static void all_workers_are_woken_for_them(void)
{
    struct pool *pool = harness_pool(4, LIMIT);
    int i, k;

    for (k = 0; k < 20; k++) {
        _Atomic uint32_t *here = harness_shared(sizeof *here), *items[4] = {here, here, here, here};
        struct pool_future futures[4];

        if (k % 2) /* all workers sleep, or whatever they do: they have to be woken */
            EXPECT(harness_until(all_sleep, pool), true);
        EXPECT(pool_submit_many(pool, NULL, job_meet, items, sizeof *items, 4, futures), 4);
        for (i = 0; i < 4; i++)
            EXPECT(harness_status(&futures[i]), 0);
    }
    pool_destroy(pool);
}

static int job_sleep(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    pause(); /* no signal comes but the one that ends it */
    return 0;
}

static void options_go_for_each_of_them(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_options options;
    struct pool_future futures[4];
    int i;

    pool_options_init(pool, &options);
    options.timeout = 20 * MILLISECOND;
    EXPECT(pool_submit_many(pool, &options, job_sleep, NULL, 0, 4, futures), 4);
    for (i = 0; i < 4; i++)
        EXPECT(harness_outcome(&futures[i], NULL), POOL_TIMEOUT);
    options.timeout = 0;
    EXPECT(pool_submit_many(pool, &options, job_sleep, NULL, 0, 4, futures), -EINVAL);
    pool_destroy(pool);
}

static void bad_submissions_of_many_are_refused(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future futures[2];

    EXPECT(pool_submit_many(pool, NULL, NULL, "ab", 1, 2, futures), -EINVAL);
    EXPECT(pool_submit_many(pool, NULL, job_echo, NULL, 1, 2, futures), -EINVAL);
    EXPECT(pool_submit_many(pool, NULL, job_echo, "ab", SIZE_MAX / 2, 3, futures), -EINVAL);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_submit_many(pool, NULL, job_echo, "ab", 1, 2, futures), -ESHUTDOWN);
    pool_destroy(pool);
}

static void where_memory_ends_the_rest_is_left_to_a_later_call(void)
{
    struct busy busy = make_busy(2 * MEBIBYTE, 0);
    static unsigned char items[64][100000];
    struct pool_future futures[64];
    int64_t done = pool_submit_many(busy.pool, NULL, job_echo, items, sizeof *items, 64, futures);
    int64_t i;

    EXPECT(done > 0 && done < 64, true);
    EXPECT(pool_submit_many(busy.pool, NULL, job_echo, items[done], sizeof *items,
                            64 - (size_t)done, futures),
           -ENOMEM);
    EXPECT(pool_cancel_waiting(busy.pool), done);
    for (i = 0; i < done; i++)
        pool_future_release(&futures[i]);
    EXPECT(pool_submit_many(busy.pool, NULL, job_nothing, NULL, 0, 2, futures), 2);
    end_busy(&busy);
}

/* ---- A limit of the queue ---- */

static int try_all_ways(struct pool *pool)
{
    struct pool_future future, many[2];
    void *memory;
    int error = pool_submit(pool, job_nothing, NULL, 0, NULL);

    EXPECT(pool_submit(pool, job_nothing, NULL, 0, &future), error);
    EXPECT(pool_submit_many(pool, NULL, job_nothing, NULL, 0, 2, many), error);
    REQUIRE(pool_prepare(pool, 0, &future, &memory), 0);
    EXPECT(pool_commit(&future, job_nothing), error);
    EXPECT(pool_commit_host(&future, 1), error);
    pool_abandon(&future);
    return error;
}

static void no_more_jobs_may_wait_than_the_limit_says(void)
{
    struct busy busy = make_busy(LIMIT, 5);
    struct pool_future futures[9], prepared;
    void *memory;
    int i;

    REQUIRE(pool_prepare(busy.pool, 0, &prepared, &memory), 0);
    for (i = 0; i < 3; i++)
        futures[i] = harness_submit(busy.pool, job_nothing, NULL, 0);
    EXPECT(pool_submit_many(busy.pool, NULL, job_nothing, NULL, 0, 4, futures + 3), 2);
    EXPECT(try_all_ways(busy.pool), -EAGAIN);
    EXPECT(pool_commit(&prepared, job_nothing), -EAGAIN);
    EXPECT(pool_future_cancel(&futures[2]), 0);     /* its place is free */
    EXPECT(pool_commit(&prepared, job_nothing), 0); /* and it was as before */
    EXPECT(try_all_ways(busy.pool), -EAGAIN);
    harness_raise(&busy.gate->open);
    EXPECT(harness_status(&prepared), 0);
    EXPECT(pool_wait_all(futures, 5, 20 * SECOND), 0);
    for (i = 0; i < 50; i++) { /* places that were used are free again */
        EXPECT(pool_submit_many(busy.pool, NULL, job_nothing, NULL, 0, 5, futures), 5);
        EXPECT(pool_wait_all(futures, 5, 20 * SECOND), 0);
    }
    end_busy(&busy);
}

static void a_limit_beyond_a_level_of_the_ring_holds_as_well(void)
{
    struct busy busy = make_busy(LIMIT, 5000);
    struct pool_future *futures = calloc(5001, sizeof *futures);
    int64_t i;

    EXPECT(pool_submit_many(busy.pool, NULL, job_nothing, NULL, 0, 5001, futures), 5000);
    EXPECT(pool_submit(busy.pool, job_nothing, NULL, 0, NULL), -EAGAIN);
    for (i = 0; i < 5000; i += 2)
        EXPECT(pool_future_cancel(&futures[i]), 0);
    EXPECT(pool_submit_many(busy.pool, NULL, job_nothing, NULL, 0, 5000, NULL), 2500);
    harness_raise(&busy.gate->open);
    EXPECT(pool_wait_all(futures, 5000, 20 * SECOND), 0);
    free(futures);
    end_busy(&busy);
}

/* Submits more than may wait, and waits for them. */
static int job_submits(struct pool_job *job, const void *argument, size_t size)
{
    struct pool_future futures[10];

    (void)job, (void)argument, (void)size;
    if (pool_submit_many(pool_current(), NULL, job_nothing, NULL, 0, 10, futures) != 10 ||
        pool_submit(pool_current(), job_nothing, NULL, 0, NULL) != 0)
        return -EIO;
    return pool_wait_all(futures, 10, 20 * SECOND);
}

static void jobs_and_maps_are_exempt_from_the_limit(void)
{
    struct pool *pool;
    struct pool_config config;
    struct pool_future future;
    uint32_t items[500] = {7}, results[500];

    pool_config_init(&config);
    config.workers = 1;
    config.shared_limit = LIMIT;
    config.queue_limit = 1;
    REQUIRE(pool_create(&pool, &config), 0);
    future = harness_submit(pool, job_submits, NULL, 0);
    EXPECT(harness_status(&future), 0);
    EXPECT(pool_map(pool, job_echo, items, sizeof *items, 500, results, sizeof *results), 0);
    EXPECT(memcmp(items, results, sizeof items), 0);
    pool_destroy(pool);
}

static int job_die(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    _exit(1);
}

static void deaths_do_not_use_up_places(void)
{
    struct pool *pool;
    struct pool_config config;
    struct pool_future futures[3];
    int i, k;

    pool_config_init(&config);
    config.workers = 2;
    config.shared_limit = LIMIT;
    config.queue_limit = 3;
    REQUIRE(pool_create(&pool, &config), 0);
    for (i = 0; i < 30; i++) {
        int64_t done = pool_submit_many(pool, NULL, job_die, NULL, 0, 3, futures);

        REQUIRE(done, 3);
        for (k = 0; k < 3; k++) {
            EXPECT(harness_outcome(&futures[k], NULL), POOL_DIED);
            pool_future_release(&futures[k]);
        }
    }
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(each_item_becomes_a_job_of_its_own),
    TEST(many_jobs_need_no_futures_and_no_arguments),
    TEST(all_workers_are_woken_for_them),
    TEST(options_go_for_each_of_them),
    TEST(bad_submissions_of_many_are_refused),
    TEST(where_memory_ends_the_rest_is_left_to_a_later_call),
    TEST(no_more_jobs_may_wait_than_the_limit_says),
    TEST(a_limit_beyond_a_level_of_the_ring_holds_as_well),
    TEST(jobs_and_maps_are_exempt_from_the_limit),
    TEST(deaths_do_not_use_up_places),
};

HARNESS_MAIN("many jobs", tests)
