/* Memory: larger than the limit, exhausted and recovered; shared blocks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define LIMIT (8 * MEBIBYTE)

static void expect_works(struct pool *pool)
{
    struct pool_future future = harness_submit(pool, job_echo, "ok", 2);

    EXPECT(harness_status(&future), 0);
}

/* ---- Warm memory ---- */

static uint64_t committed(struct pool *pool)
{
    struct pool_stats stats = {.size = sizeof stats};

    EXPECT(pool_get_stats(pool, &stats), 0);
    return stats.memory;
}

static void expect_echo(struct pool *pool, const void *bytes, size_t size)
{
    struct pool_future future = harness_submit(pool, job_echo, bytes, size);

    EXPECT(harness_status(&future), 0);
}

static void the_same_memory_serves_one_job_after_the_other(void)
{
    static unsigned char bytes[4 * MEBIBYTE];
    struct pool *pool = harness_pool(1, 64 * MEBIBYTE);
    uint64_t before;
    int i;

    expect_echo(pool, bytes, sizeof bytes);
    before = committed(pool);
    for (i = 0; i < 100; i++)
        expect_echo(pool, bytes, sizeof bytes);
    EXPECT(committed(pool), before);
    pool_destroy(pool);
}

/* The supervisor looks every five seconds, and at what has been idle for two of these. */
static void memory_goes_back_from_what_is_idle_and_not_from_a_burst(void)
{
    static unsigned char bytes[16 * MEBIBYTE];
    const uint64_t once = sizeof bytes, often = 2 * MEBIBYTE;
    struct pool *pool = harness_pool(1, 128 * MEBIBYTE);
    int i;

    expect_echo(pool, bytes, once);
    EXPECT(committed(pool) >= 2 * once, true); /* argument and result */
    for (i = 0; i < 400 && committed(pool) >= once; i++) {
        expect_echo(pool, bytes, often);
        EXPECT(committed(pool) >= 2 * often, true);
        EXPECT(harness_ends(pool_supervisor_fd(pool), 50), false);
    }
    EXPECT(committed(pool) < once, true);
    for (i = 0; i < 20; i++) {
        EXPECT(committed(pool) >= 2 * often, true);
        expect_echo(pool, bytes, often);
    }
    expect_echo(pool, bytes, once);
    pool_destroy(pool);
}

/* ---- Limits ---- */

static void an_argument_larger_than_the_limit_is_e2big(void)
{
    static const uint64_t limits[] = {MEBIBYTE, 2 * MEBIBYTE, 3 * MEBIBYTE, 8 * MEBIBYTE + 4096};
    unsigned i;

    for (i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct pool *pool = harness_pool(1, limits[i]);
        struct pool_future future;
        uint64_t reference;
        void *memory;

        EXPECT(pool_prepare(pool, limits[i] + 1, &future, &memory), -E2BIG);
        EXPECT(pool_prepare(pool, UINT64_C(1) << 40, &future, &memory), -E2BIG);
        EXPECT(pool_prepare(pool, SIZE_MAX, &future, &memory), -E2BIG);
        EXPECT(pool_alloc(pool, limits[i] + 1, &reference, &memory), -E2BIG);
        expect_works(pool);
        pool_destroy(pool);
    }
}

static int job_reserve(struct pool_job *job, const void *argument, size_t size)
{
    (void)size;
    errno = 0;
    if (pool_job_reserve(job, *(const size_t *)argument))
        return 0;
    return errno == ENOMEM ? -ENOSPC : -EIO; /* ENOSPC: as it should be */
}

static void a_result_larger_than_the_limit_is_enomem_in_the_job(void)
{
    static const size_t sizes[] = {LIMIT + 1, (size_t)1 << 40, SIZE_MAX};
    struct pool *pool = harness_pool(1, LIMIT);
    unsigned i;

    for (i = 0; i < 3; i++) {
        struct pool_future future = harness_submit(pool, job_reserve, &sizes[i], sizeof sizes[i]);

        EXPECT(harness_status(&future), -ENOSPC);
    }
    expect_works(pool);
    pool_destroy(pool);
}

static void memory_exhausted_by_results_is_enomem_and_comes_back(void)
{
    static unsigned char bytes[1 << 20];
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future futures[64];
    int i, count = 0, round, first = 0, error = 0;

    for (round = 0; round < 5; round++) {
        for (count = 0; count < 64; count++) {
            error = pool_submit(pool, job_echo, bytes, sizeof bytes, &futures[count]);
            if (error)
                break;
            /* The argument is the job's until it is released, and so the echo is a second MiB. */
            (void)pool_future_wait(&futures[count], 20 * SECOND);
        }
        EXPECT(error, -ENOMEM);
        EXPECT(count >= 3 && count <= 8, true);
        first = round ? first : count;
        EXPECT(count, first);
        for (i = 0; i < count; i++)
            pool_future_release(&futures[i]);
        expect_works(pool);
    }
    pool_destroy(pool);
}

/* Jobs until there is no memory for another: those that were taken run, each once. */
static int job_raise(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)size;
    harness_raise(*(_Atomic uint32_t *const *)argument);
    return 0;
}

static void expect_taken_jobs_run(bool with_future, uint64_t left)
{
    _Atomic uint32_t *count = harness_shared(sizeof *count);
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_stats stats = {.size = sizeof stats};
    struct pool_future running, future;
    uint64_t reference;
    uint32_t taken = 0;
    void *memory;

    running = harness_submit(pool, job_gate, &gate, sizeof gate);
    REQUIRE(harness_await(&gate->reached, 1), true);
    /* Leave so much that slots, or cells of the ring, or hints of the map are what is wanting. */
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(pool_alloc(pool, LIMIT - stats.memory - left, &reference, &memory), 0);
    while (taken < 200000 &&
           pool_submit(pool, job_raise, &count, sizeof count, with_future ? &future : NULL) == 0)
        taken++;
    EXPECT(taken < 200000, true);
    harness_raise(&gate->open);
    EXPECT(harness_status(&running), 0);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    pool_destroy(pool);
    REQUIRE(*count, taken);
}

static void jobs_taken_before_memory_ran_out_run_once(void)
{
    uint64_t left;

    for (left = 100; left < 1000; left += 4)
        expect_taken_jobs_run(true, left * 1024);
}

static void jobs_without_future_taken_before_memory_ran_out_run_once(void)
{
    uint64_t left;

    for (left = 100; left < 1000; left += 4)
        expect_taken_jobs_run(false, left * 1024);
}

static void the_committed_memory_never_exceeds_the_limit(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_stats stats = {.size = sizeof stats};
    uint64_t references[200], random = 3;
    void *memory;
    int i, count = 0;

    for (i = 0; i < 3000; i++) {
        if (harness_random(&random) % 3 && count < 200) {
            size_t size = harness_random(&random) >> (44 + harness_random(&random) % 16);

            if (pool_alloc(pool, size, &references[count], &memory) == 0) {
                memset(memory, 1, size);
                count++;
            }
        } else if (count) {
            pool_free(pool, references[--count]);
        }
        if (i % 100 == 0) {
            EXPECT(pool_get_stats(pool, &stats), 0);
            EXPECT(stats.memory <= LIMIT, true);
        }
    }
    pool_destroy(pool);
}

/* ---- Shared blocks ---- */

struct message {
    uint64_t reference;
    size_t size;
};

/* Looks the block up, adds 1 to each byte. */
static int job_use_block(struct pool_job *job, const void *argument, size_t size)
{
    const struct message *message = argument;
    unsigned char *bytes;
    size_t length, i;
    void *memory;
    int error = pool_lookup(pool_current(), message->reference, &memory, &length);

    (void)job;
    (void)size;
    if (error || length != message->size)
        return error ? error : -EMSGSIZE;
    for (bytes = memory, i = 0; i < length; i++)
        bytes[i]++;
    return 0;
}

static void a_shared_block_is_the_same_memory_in_every_process(void)
{
    static const size_t sizes[] = {1, 100, 256, 5000, 70000, 2000000};
    struct pool *pool = harness_pool(2, LIMIT);
    unsigned i;

    for (i = 0; i < 6; i++) {
        struct message message = {.size = sizes[i]};
        struct pool_future future;
        void *memory = NULL, *again = NULL;
        size_t size = 0;

        REQUIRE(pool_alloc(pool, sizes[i], &message.reference, &memory), 0);
        memset(memory, 41, sizes[i]);
        future = harness_submit(pool, job_use_block, &message, sizeof message);
        EXPECT(harness_status(&future), 0);
        EXPECT(((unsigned char *)memory)[sizes[i] - 1], 42);
        EXPECT(pool_lookup(pool, message.reference, &again, &size), 0);
        EXPECT(again == memory && size == sizes[i], true);
        pool_free(pool, message.reference);
    }
    pool_destroy(pool);
}

/* Allocates, and dies. */
static int job_alloc_and_die(struct pool_job *job, const void *argument, size_t size)
{
    struct message *message = *(struct message *const *)argument;
    void *memory;

    (void)job;
    (void)size;
    if (pool_alloc(pool_current(), 5000, &message->reference, &memory) != 0)
        return -ENOMEM;
    memset(memory, 41, 5000);
    message->size = 5000;
    abort();
}

static void a_block_allocated_in_a_job_outlives_its_worker(void)
{
    struct message *message = harness_shared(sizeof *message);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future = harness_submit(pool, job_alloc_and_die, &message, sizeof message);
    size_t size = 0;
    void *memory = NULL;

    EXPECT(harness_outcome(&future, NULL), POOL_DIED);
    EXPECT(pool_lookup(pool, message->reference, &memory, &size), 0);
    EXPECT(size == 5000 && ((unsigned char *)memory)[4999] == 41, true);
    future = harness_submit(pool, job_use_block, message, sizeof *message);
    EXPECT(harness_status(&future), 0);
    EXPECT(((unsigned char *)memory)[0], 42);
    pool_free(pool, message->reference);
    pool_destroy(pool);
}

static void freeing_gives_the_memory_to_others_and_twice_is_harmless(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    uint64_t reference, other;
    void *memory;
    int i;

    for (i = 0; i < 200; i++) {
        REQUIRE(pool_alloc(pool, MEBIBYTE, &reference, &memory), 0);
        pool_free(pool, reference);
        pool_free(pool, reference);
        REQUIRE(pool_alloc(pool, MEBIBYTE, &reference, &memory), 0);
        REQUIRE(pool_alloc(pool, MEBIBYTE, &other, &memory), 0);
        EXPECT(reference != other, true);
        pool_free(pool, reference);
        pool_free(pool, other);
    }
    pool_destroy(pool);
}

static void a_reference_that_is_none_is_einval(void)
{
    static const uint64_t wrong[] = {
        0, 1, 2, 255, 256, 0xff00, UINT64_MAX, UINT64_C(1) << 63, (UINT64_C(1) << 40) + 1};
    struct pool *pool = harness_pool(1, LIMIT);
    uint64_t reference;
    void *memory;
    size_t size;
    unsigned i;

    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        EXPECT(pool_lookup(pool, wrong[i], &memory, &size), -EINVAL);
        pool_free(pool, wrong[i]);
    }
    REQUIRE(pool_alloc(pool, 3000, &reference, &memory), 0);
    pool_free(pool, reference);
    EXPECT(pool_lookup(pool, reference, &memory, &size), -EINVAL); /* no such block any more */
    expect_works(pool);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(the_same_memory_serves_one_job_after_the_other),
    TEST(memory_goes_back_from_what_is_idle_and_not_from_a_burst),
    TEST(an_argument_larger_than_the_limit_is_e2big),
    TEST(a_result_larger_than_the_limit_is_enomem_in_the_job),
    TEST(memory_exhausted_by_results_is_enomem_and_comes_back),
    TEST(jobs_taken_before_memory_ran_out_run_once),
    TEST(jobs_without_future_taken_before_memory_ran_out_run_once),
    TEST(the_committed_memory_never_exceeds_the_limit),
    TEST(a_shared_block_is_the_same_memory_in_every_process),
    TEST(a_block_allocated_in_a_job_outlives_its_worker),
    TEST(freeing_gives_the_memory_to_others_and_twice_is_harmless),
    TEST(a_reference_that_is_none_is_einval),
};

HARNESS_MAIN("pool: memory", tests)
