/* Results that come with blocks which were the worker's own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define LIMIT (8 * MEBIBYTE)
#define LARGE ((size_t)MEBIBYTE)

/* What a job is to do with its block, and what it says of it. */
enum then { DROP, KEEP, DIE, TAKE_BACK };

struct request {
    enum then then;
    unsigned count;
    unsigned char value;
};

struct answer {
    uint64_t references[4];
};

/* What jobs of one worker have kept. */
static uint64_t kept;
static const unsigned char *kept_memory;

static int job_give(struct pool_job *job, const void *argument, size_t size)
{
    const struct request *request = argument;
    struct answer answer = {{0}}, *result;
    void *memory;
    unsigned i;

    (void)size;
    for (i = 0; i < request->count; i++) {
        if (pool_alloc_own(pool_current(), LARGE, &answer.references[i], &memory) != 0)
            return -ENOMEM;
        memset(memory, request->value + (int)i, LARGE);
    }
    result = pool_job_reserve_with(job, sizeof answer, answer.references, request->count);
    if (!result)
        return -errno;
    *result = answer;
    if (request->then == DIE)
        abort();
    if (request->then == TAKE_BACK)
        pool_job_return(job, &answer, sizeof answer);
    kept = answer.references[0];
    kept_memory = memory;
    for (i = 0; i < request->count && request->then != KEEP; i++)
        pool_drop(pool_current(), answer.references[i]);
    return 0;
}

/* Gives what was kept once more. */
static int job_give_again(struct pool_job *job, const void *argument, size_t size)
{
    struct answer answer = {{kept}}, *result = pool_job_reserve_with(job, sizeof answer, &kept, 1);

    (void)argument;
    (void)size;
    if (!result)
        return -errno;
    *result = answer;
    return 0;
}

static int job_let_go(struct pool_job *job, const void *argument, size_t size)
{
    unsigned char value = kept_memory[LARGE - 1];

    (void)argument;
    (void)size;
    pool_drop(pool_current(), kept);
    return pool_job_return(job, &value, 1);
}

static struct pool_future submit(struct pool *pool, enum then then, unsigned count)
{
    struct request request = {then, count, 40};

    return harness_submit(pool, job_give, &request, sizeof request);
}

/* What the result says, after its job has finished. */
static struct answer answer_of(const struct pool_future *future)
{
    const void *data;
    size_t size;
    struct answer answer;

    REQUIRE(pool_future_wait(future, 20 * SECOND), 0);
    REQUIRE(pool_future_result(future, &data, &size), 0);
    REQUIRE(size, sizeof answer);
    memcpy(&answer, data, sizeof answer);
    return answer;
}

static unsigned char last_byte(struct pool *pool, uint64_t reference)
{
    size_t size = 0;
    void *memory;

    REQUIRE(pool_lookup(pool, reference, &memory, &size), 0);
    REQUIRE(size, LARGE);
    return ((unsigned char *)memory)[size - 1];
}

/* Fills blocks with 99, as many as there is room for, all of them at once: how many. */
static int fill(struct pool *pool)
{
    uint64_t references[16];
    void *memory;
    int made = 0, i;

    while (made < 16 && pool_alloc(pool, LARGE, &references[made], &memory) == 0) {
        memset(memory, 99, LARGE);
        made++;
    }
    for (i = 0; i < made; i++)
        pool_free(pool, references[i]);
    return made;
}

struct room {
    struct pool *pool;
    int blocks;
};

static bool has_room(void *context)
{
    const struct room *room = context;

    return fill(room->pool) == room->blocks;
}

static void what_a_job_gives_is_there_until_the_host_lets_go(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int i, room = fill(pool);

    for (i = 0; i < 20; i++) {
        struct pool_future future = submit(pool, DROP, 2);
        struct answer answer = answer_of(&future);

        EXPECT(pool_future_hold(&future, answer.references[0]), 0);
        EXPECT(pool_future_hold(&future, answer.references[1]), 0);
        pool_future_release(&future);
        fill(pool);
        EXPECT(last_byte(pool, answer.references[0]), 40);
        EXPECT(last_byte(pool, answer.references[1]), 41);
        pool_drop(pool, answer.references[0]);
        pool_drop(pool, answer.references[1]);
    }
    EXPECT(fill(pool), room);
    pool_destroy(pool);
}

static void it_is_free_with_the_future_if_nobody_holds_it(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int i, room = fill(pool);

    for (i = 0; i < 20; i++) {
        struct pool_future future = submit(pool, DROP, 3);

        if (i % 2)
            answer_of(&future);
        pool_future_release(&future);
    }
    EXPECT(harness_until(has_room, &(struct room){pool, room}), true);
    pool_destroy(pool);
}

static void what_the_worker_keeps_stays_when_the_host_lets_go(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int room = fill(pool);
    struct pool_future future = submit(pool, KEEP, 1);
    const void *data;
    size_t size;

    answer_of(&future);
    pool_future_release(&future);
    EXPECT(fill(pool), room - 1);
    future = harness_submit(pool, job_let_go, NULL, 0);
    EXPECT(pool_future_wait(&future, 20 * SECOND), 0);
    EXPECT(pool_future_result(&future, &data, &size), 0);
    EXPECT(*(const unsigned char *)data, 40);
    pool_future_release(&future);
    EXPECT(fill(pool), room);
    pool_destroy(pool);
}

static void one_block_is_one_results_at_a_time(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int room = fill(pool);
    struct pool_future first = submit(pool, KEEP, 1), second;
    struct answer answer = answer_of(&first);

    second = harness_submit(pool, job_give_again, NULL, 0);
    EXPECT(harness_status(&second), -EINVAL);
    pool_future_release(&first);
    second = harness_submit(pool, job_give_again, NULL, 0);
    EXPECT(answer_of(&second).references[0] == answer.references[0], true);
    EXPECT(pool_future_hold(&second, answer.references[0]), 0);
    pool_future_release(&second);
    EXPECT(last_byte(pool, answer.references[0]), 40);
    pool_drop(pool, answer.references[0]);
    second = harness_submit(pool, job_let_go, NULL, 0);
    EXPECT(harness_status(&second), 0);
    EXPECT(fill(pool), room);
    pool_destroy(pool);
}

static void another_result_takes_the_place_of_one_with_blocks(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int i, room = fill(pool);

    for (i = 0; i < 20; i++) {
        struct pool_future future = submit(pool, TAKE_BACK, 2);
        struct answer answer = answer_of(&future);

        EXPECT(pool_future_hold(&future, answer.references[0]), -EINVAL);
        EXPECT(fill(pool), room);
        pool_future_release(&future);
    }
    pool_destroy(pool);
}

static void it_is_free_after_the_workers_death(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int i, room = fill(pool);

    for (i = 0; i < 20; i++) {
        struct pool_future future = submit(pool, DIE, 2);

        EXPECT(harness_outcome(&future, NULL), POOL_DIED);
        pool_future_release(&future);
    }
    EXPECT(harness_until(has_room, &(struct room){pool, room}), true);
    pool_destroy(pool);
}

static int job_refused(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t own, many[POOL_JOB_BLOCKS + 1], shared = *(const uint64_t *)argument;
    void *memory;
    int i;

    (void)size;
    if (pool_alloc_own(pool_current(), LARGE, &own, &memory) != 0)
        return -ENOMEM;
    memset(memory, 3, LARGE);
    for (i = 0; i <= POOL_JOB_BLOCKS; i++)
        many[i] = own;
    if (pool_job_reserve_with(job, 8, &shared, 1) || errno != EINVAL)
        return -1;
    if (pool_job_reserve_with(job, 8, (uint64_t[]){own, shared}, 2) || errno != EINVAL)
        return -2;
    if (pool_job_reserve_with(job, 8, (uint64_t[]){own, own}, 2) || errno != EINVAL)
        return -3;
    if (pool_job_reserve_with(job, 8, many, POOL_JOB_BLOCKS + 1) || errno != EINVAL)
        return -4;
    /* What was refused is still ours alone. */
    if (((unsigned char *)memory)[LARGE - 1] != 3)
        return -5;
    if (!pool_job_reserve_with(job, 8, &own, 1))
        return -6;
    pool_drop(pool_current(), own);
    return 0;
}

static int item_refused(struct pool_job *job, const void *item, size_t size)
{
    uint64_t own;
    void *memory;
    bool refused;

    (void)item;
    (void)size;
    if (pool_alloc_own(pool_current(), LARGE, &own, &memory) != 0)
        return -ENOMEM;
    refused = !pool_job_reserve_with(job, 8, &own, 1) && errno == EINVAL;
    pool_drop(pool_current(), own);
    return refused ? 0 : -1;
}

static void what_cannot_be_given_is_refused(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future, other;
    uint64_t shared, zero = 0;
    size_t size;
    void *memory;
    int room = fill(pool);

    REQUIRE(pool_alloc(pool, LARGE, &shared, &memory), 0);
    future = harness_submit(pool, job_refused, &shared, sizeof shared);
    EXPECT(pool_future_wait(&future, 20 * SECOND), 0);
    EXPECT(pool_future_result(&future, NULL, &size), 0);
    EXPECT(size, 8);
    EXPECT(pool_future_hold(&future, shared), -EINVAL);
    EXPECT(pool_future_hold(&future, 0), -EINVAL);
    EXPECT(pool_future_hold(&future, UINT64_MAX), -EINVAL);
    other = submit(pool, DROP, 1);
    EXPECT(pool_future_hold(&future, answer_of(&other).references[0]), -EINVAL);
    pool_future_release(&other);
    pool_future_release(&future);
    EXPECT(pool_future_hold(&future, shared), -ESTALE);
    pool_free(pool, shared);
    EXPECT(pool_map(pool, item_refused, &zero, 8, 1, &zero, 8), 0);
    EXPECT(fill(pool), room);
    pool_destroy(pool);
}

static void only_memory_that_was_used_before_is_taken(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_stats stats = {.size = sizeof stats};
    uint64_t reference, other, before;
    void *memory, *found;

    EXPECT(pool_take_own(pool, LARGE, &reference, &memory), -ENOMEM);
    fill(pool);
    REQUIRE(pool_get_stats(pool, &stats), 0);
    before = stats.memory;
    REQUIRE(pool_take_own(pool, LARGE, &reference, &memory), 0);
    EXPECT(*(unsigned char *)memory, 99);
    REQUIRE(pool_take_own(pool, LARGE / 2, &other, &found), 0); /* of the next class */
    EXPECT(found != memory, true);
    REQUIRE(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.memory - before < 65536, true); /* a page of each table that is looked at */
    pool_drop(pool, other);
    pool_drop(pool, reference);
    EXPECT(pool_take_own(pool, LARGE + 1, &reference, &memory), -ENOMEM);
    EXPECT(pool_take_own(pool, LARGE / 4, &reference, &memory), -ENOMEM);
    EXPECT(pool_take_own(pool, SIZE_MAX, &reference, &memory), -ENOMEM);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(what_a_job_gives_is_there_until_the_host_lets_go),
    TEST(it_is_free_with_the_future_if_nobody_holds_it),
    TEST(what_the_worker_keeps_stays_when_the_host_lets_go),
    TEST(one_block_is_one_results_at_a_time),
    TEST(another_result_takes_the_place_of_one_with_blocks),
    TEST(it_is_free_after_the_workers_death),
    TEST(what_cannot_be_given_is_refused),
    TEST(only_memory_that_was_used_before_is_taken),
};

HARNESS_MAIN("pool: given blocks", tests)
