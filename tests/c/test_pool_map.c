/* pool_map(): a function over an array. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define LIMIT (64 * MEBIBYTE)

static int job_square(struct pool_job *job, const void *argument, size_t size)
{
    uint32_t item;
    uint64_t result;

    if (size != sizeof item)
        return -EINVAL;
    memcpy(&item, argument, sizeof item);
    result = (uint64_t)item * item;
    return pool_job_return(job, &result, sizeof result);
}

static void expect_squares(struct pool *pool, size_t count)
{
    uint32_t *items = calloc(count + 1, sizeof *items);
    uint64_t *results = calloc(count + 1, sizeof *results);
    size_t i, wrong = 0;

    for (i = 0; i < count; i++)
        items[i] = (uint32_t)(i * 7919);
    results[count] = 4711;
    EXPECT(pool_map(pool, job_square, items, sizeof *items, count, results, sizeof *results), 0);
    for (i = 0; i < count; i++)
        wrong += results[i] != (uint64_t)items[i] * items[i];
    EXPECT(wrong, 0);
    EXPECT(results[count], 4711); /* nothing behind the last */
    free(items);
    free(results);
}

static void arrays_of_every_length_are_mapped_in_order(void)
{
    static const size_t counts[] = {0, 1, 2, 15, 16, 17, 31, 100, 1000, 100000};
    struct pool *pool = harness_pool(2, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof counts / sizeof *counts; i++)
        expect_squares(pool, counts[i]);
    pool_destroy(pool);
    pool = harness_pool(7, LIMIT);
    expect_squares(pool, 1000);
    pool_destroy(pool);
}

static int job_count(struct pool_job *job, const void *argument, size_t size)
{
    static _Atomic uint32_t *count;

    (void)job;
    if (size == sizeof count)
        memcpy(&count, argument, sizeof count);
    if (!count)
        return -EIO;
    harness_raise(count);
    return 0;
}

static void without_items_or_results_it_is_a_loop(void)
{
    _Atomic uint32_t *count = harness_shared(sizeof *count);
    struct pool *pool = harness_pool(1, LIMIT);
    _Atomic uint32_t *items[50];
    unsigned i;

    for (i = 0; i < 50; i++)
        items[i] = count;
    EXPECT(pool_map(pool, job_count, items, sizeof *items, 50, NULL, 0), 0);
    EXPECT(*count, 50);
    EXPECT(pool_map(pool, job_count, NULL, 0, 1000, NULL, 0), 0);
    EXPECT(*count, 1050);
    EXPECT(pool_map(pool, job_count, NULL, 0, 0, NULL, 0), 0);
    EXPECT(*count, 1050);
    pool_destroy(pool);
}

static void what_cannot_be_mapped_is_einval(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    uint64_t item = 1;

    EXPECT(pool_map(pool, NULL, &item, sizeof item, 1, &item, sizeof item), -EINVAL);
    EXPECT(pool_map(pool, job_square, NULL, sizeof item, 1, &item, sizeof item), -EINVAL);
    EXPECT(pool_map(pool, job_square, &item, sizeof item, 1, NULL, sizeof item), -EINVAL);
    EXPECT(pool_map(pool, job_square, &item, SIZE_MAX / 2, 3, NULL, 0), -EINVAL);
    EXPECT(pool_map(pool, job_square, NULL, 0, 3, &item, SIZE_MAX / 2), -EINVAL);
    pool_destroy(pool);
}

/* Argument: an int: what to do. */
static int job_misbehave(struct pool_job *job, const void *argument, size_t size)
{
    int what;
    char bytes[32];

    (void)size;
    memcpy(&what, argument, sizeof what);
    memset(bytes, what, sizeof bytes);
    switch (what) {
    case 100: /* longer than there is room for, and does not look */
        (void)pool_job_return(job, bytes, 9);
        return 0;
    case 101: /* shorter, after a longer one */
        return pool_job_return(job, bytes, 8) ? -EIO : pool_job_return(job, "ab", 2);
    case 102:
        return pool_job_return(job, "abc", 3);
    case 103:
        return 0; /* none */
    case 104:
        raise(SIGKILL);
        return 0;
    case 105:
        return 5; /* no status */
    default:
        return what < 0 ? what : pool_job_return(job, bytes, 8);
    }
}

static const unsigned char *map_with(struct pool *pool, int position, int what, int status)
{
    static unsigned char results[10 * 8];
    int items[10], i;

    for (i = 0; i < 10; i++)
        items[i] = i + 1;
    items[position] = what;
    memset(results, 0xee, sizeof results);
    EXPECT(pool_map(pool, job_misbehave, items, sizeof *items, 10, results, 8), status);
    for (i = 0; i < 10; i++) /* the others' are stored all the same */
        if (i != position)
            EXPECT(results[i * 8] == i + 1 && results[i * 8 + 7] == i + 1, true);
    return &results[position * 8];
}

static void one_item_that_fails_costs_no_other_its_result(void)
{
    struct pool *pool = harness_pool(2, LIMIT);

    map_with(pool, 3, -EPIPE, -EPIPE);
    map_with(pool, 0, 100, -EMSGSIZE);
    map_with(pool, 9, 105, -ERANGE);
    map_with(pool, 4, 104, -EOWNERDEAD);
    map_with(pool, 0, 104, -EOWNERDEAD);
    pool_destroy(pool);
}

static void a_shorter_result_is_padded_with_zeros(void)
{
    struct pool *pool = harness_pool(2, LIMIT);

    EXPECT(memcmp(map_with(pool, 5, 102, 0), "abc\0\0\0\0\0", 8), 0);
    EXPECT(memcmp(map_with(pool, 5, 103, 0), "\0\0\0\0\0\0\0\0", 8), 0);
    EXPECT(memcmp(map_with(pool, 5, 101, 0), "ab\0\0\0\0\0\0", 8), 0); /* the last call counts */
    pool_destroy(pool);
}

static void the_status_is_that_of_the_first_that_failed_in_order(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    static unsigned char results[1000 * 8];
    int items[1000], i;

    for (i = 0; i < 1000; i++)
        items[i] = 1;
    items[999] = -EPERM;
    items[501] = -ENOENT;
    items[500] = -ESRCH;
    EXPECT(pool_map(pool, job_misbehave, items, sizeof *items, 1000, results, 8), -ESRCH);
    pool_destroy(pool);
}

/* The death of a worker takes what it had in hand with it, and no more. */
static void a_death_in_a_long_map_costs_at_most_its_chunk(void)
{
    enum { COUNT = 1600, WORKERS = 2 };
    struct pool *pool = harness_pool(WORKERS, LIMIT);
    static unsigned char results[COUNT * 8];
    static int items[COUNT];
    int i, missing = 0;

    for (i = 0; i < COUNT; i++)
        items[i] = 7;
    items[800] = 104;
    memset(results, 0, sizeof results);
    EXPECT(pool_map(pool, job_misbehave, items, sizeof *items, COUNT, results, 8), -EOWNERDEAD);
    for (i = 0; i < COUNT; i++)
        missing += results[i * 8] != 7;
    EXPECT(missing >= 1 && missing <= COUNT / (WORKERS * 8) + 1, true);
    expect_squares(pool, 100);
    pool_destroy(pool);
}

static int job_map_squares(struct pool_job *job, const void *argument, size_t size)
{
    uint32_t items[200], i;
    uint64_t results[200];
    int error;

    (void)argument;
    (void)size;
    for (i = 0; i < 200; i++)
        items[i] = i;
    error =
        pool_map(pool_current(), job_square, items, sizeof *items, 200, results, sizeof *results);
    for (i = 0; i < 200 && !error; i++)
        error = results[i] != (uint64_t)i * i ? -EBADMSG : 0;
    return error ? error : pool_job_return(job, &results[199], sizeof *results);
}

static void a_job_may_map_and_a_map_may_map(void)
{
    int workers;

    for (workers = 1; workers <= 2; workers++) {
        struct pool *pool = harness_pool(workers, LIMIT);
        struct pool_future future = harness_submit(pool, job_map_squares, NULL, 0);
        uint64_t results[20];

        EXPECT(harness_status(&future), 0);
        EXPECT(pool_map(pool, job_map_squares, NULL, 0, 20, results, sizeof *results), 0);
        EXPECT(results[0] == 199 * 199 && results[19] == 199 * 199, true);
        pool_destroy(pool);
    }
}

static int job_sum(struct pool_job *job, const void *argument, size_t size)
{
    const unsigned char *bytes = argument;
    uint64_t sum = 0;
    size_t i;

    for (i = 0; i < size; i += 4096)
        sum += bytes[i];
    return pool_job_return(job, &sum, sizeof sum);
}

/* Items that are together larger than the memory the pool may use. */
static void a_map_of_more_than_fits_at_once_succeeds(void)
{
    enum { COUNT = 128 };
    struct pool *pool = harness_pool(2, 16 * MEBIBYTE);
    unsigned char *items = malloc(COUNT << 20);
    uint64_t results[COUNT] = {0};
    int i, wrong = 0;

    for (i = 0; i < COUNT; i++)
        memset(items + ((size_t)i << 20), i, 1 << 20);
    EXPECT(pool_map(pool, job_sum, items, 1 << 20, COUNT, results, sizeof *results), 0);
    for (i = 0; i < COUNT; i++)
        wrong += results[i] != 256 * (uint64_t)i;
    EXPECT(wrong, 0);
    free(items);
    pool_destroy(pool);
}

/* ---- With statuses ---- */

static int item_fate(struct pool_job *job, const void *argument, size_t size)
{
    const int *fate = argument;

    (void)job;
    (void)size;
    if (*fate == -ETIME)
        for (;;)
            pause();
    if (*fate == -EOWNERDEAD)
        raise(SIGKILL);
    return *fate;
}

/* Chunks of five items: those with a death or a late item are lost. */
static void a_map_says_which_items_were_lost(void)
{
    enum { ITEMS = 64, CHUNK = ITEMS / (2 * 8) + 1, LATE = 21, DEAD = 43, FAILED = 50 };
    struct pool *pool = harness_pool(2, 64 * MEBIBYTE);
    struct pool_options options;
    int fates[ITEMS] = {[LATE] = -ETIME, [DEAD] = -EOWNERDEAD, [FAILED] = -EDOM};
    int statuses[ITEMS], i;

    pool_options_init(pool, &options);
    options.timeout = 200 * MILLISECOND;
    EXPECT(pool_map_with(pool, &options, item_fate, fates, sizeof *fates, ITEMS, NULL, 0, statuses),
           -ETIME);
    for (i = 0; i < ITEMS; i++)
        EXPECT(statuses[i], i / CHUNK == LATE / CHUNK   ? -ETIME
                            : i / CHUNK == DEAD / CHUNK ? -EOWNERDEAD
                                                        : fates[i]);
    expect_squares(pool, 100);
    options.timeout = 0;
    EXPECT(pool_map_with(pool, &options, item_fate, fates, sizeof *fates, ITEMS, NULL, 0, statuses),
           -EINVAL);
    EXPECT(statuses[0], -EINVAL);
    EXPECT(statuses[ITEMS - 1], -EINVAL);
    pool_destroy(pool);
}

/* Small items, and large results beside which the statuses lie anywhere. */
static void statuses_come_with_results_of_any_size(void)
{
    enum { ITEMS = 1000 };
    static const size_t sizes[] = {0, 1, 3, 8, 1001};
    struct pool *pool = harness_pool(2, 64 * MEBIBYTE);
    unsigned char items[ITEMS], *results = malloc((size_t)ITEMS * 1001);
    int statuses[ITEMS + 1], wrong = 0, i;
    unsigned s;

    for (i = 0; i < ITEMS; i++)
        items[i] = (unsigned char)(i % 250 + 1);
    for (s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        statuses[ITEMS] = 4711;
        EXPECT(pool_map_with(pool, NULL, job_echo, items, 1, ITEMS, results, sizes[s], statuses),
               sizes[s] ? 0 : -EMSGSIZE);
        for (i = 0; i < ITEMS; i++) {
            wrong += statuses[i] != (sizes[s] ? 0 : -EMSGSIZE);
            wrong += sizes[s] && results[(size_t)i * sizes[s]] != items[i];
        }
        EXPECT(statuses[ITEMS], 4711);
    }
    EXPECT(wrong, 0);
    free(results);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(arrays_of_every_length_are_mapped_in_order),
    TEST(without_items_or_results_it_is_a_loop),
    TEST(what_cannot_be_mapped_is_einval),
    TEST(one_item_that_fails_costs_no_other_its_result),
    TEST(a_shorter_result_is_padded_with_zeros),
    TEST(the_status_is_that_of_the_first_that_failed_in_order),
    TEST(a_death_in_a_long_map_costs_at_most_its_chunk),
    TEST(a_job_may_map_and_a_map_may_map),
    TEST(a_map_of_more_than_fits_at_once_succeeds),
    TEST(a_map_says_which_items_were_lost),
    TEST(statuses_come_with_results_of_any_size),
};

HARNESS_MAIN("pool: map", tests)
