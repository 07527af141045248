/* Blocks that are held: shared ones, and the arguments that jobs keep. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

#define LIMIT (8 * MEBIBYTE)
#define LARGE ((size_t)MEBIBYTE)

/* What the jobs of one worker remember. */
static uint64_t remembered;
static const unsigned char *remembered_memory;

static int job_hold(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t reference = *(const uint64_t *)argument;
    void *memory;
    int error = pool_hold(pool_current(), reference);

    (void)job;
    if (!error)
        error = pool_lookup(pool_current(), reference, &memory, &size);
    if (!error) {
        remembered = reference;
        remembered_memory = memory;
    }
    return error;
}

static int job_keep(struct pool_job *job, const void *argument, size_t size)
{
    (void)size;
    remembered_memory = argument;
    return pool_job_keep(job, &remembered);
}

static int job_keep_and_die(struct pool_job *job, const void *argument, size_t size)
{
    if (job_keep(job, argument, size) != 0)
        return -EIO;
    abort();
}

/* The first and the last byte of what is remembered. */
static int job_look(struct pool_job *job, const void *argument, size_t size)
{
    unsigned char bytes[2] = {remembered_memory[0], remembered_memory[LARGE - 1]};

    (void)argument;
    (void)size;
    return pool_job_return(job, bytes, sizeof bytes);
}

static int job_drop(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    pool_drop(pool_current(), remembered);
    return 0;
}

static int job_alloc_and_die(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t reference;
    void *memory;

    (void)job;
    (void)argument;
    (void)size;
    if (pool_alloc_own(pool_current(), LARGE, &reference, &memory) != 0)
        return -ENOMEM;
    memset(memory, 1, LARGE);
    abort();
}

static int run(struct pool *pool, pool_function function, const void *argument, size_t size)
{
    struct pool_future future = harness_submit(pool, function, argument, size);

    return harness_status(&future);
}

static bool sees(struct pool *pool, unsigned char value)
{
    struct pool_future future = harness_submit(pool, job_look, NULL, 0);
    const unsigned char wanted[2] = {value, value};
    const void *data;
    size_t size;
    bool same = pool_future_wait(&future, 20 * SECOND) == 0 &&
                pool_future_result(&future, &data, &size) == 0 && size == 2 &&
                memcmp(data, wanted, 2) == 0;

    pool_future_release(&future);
    return same;
}

/* Fills `count` blocks with 99, all of them at once: how many there was room for. */
static int fill(struct pool *pool, int count)
{
    uint64_t references[16];
    void *memory;
    int made = 0;

    while (made < count && pool_alloc(pool, LARGE, &references[made], &memory) == 0) {
        memset(memory, 99, LARGE);
        made++;
    }
    for (count = 0; count < made; count++)
        pool_free(pool, references[count]);
    return made;
}

static uint64_t make(struct pool *pool, unsigned char value)
{
    uint64_t reference = 0;
    void *memory;

    REQUIRE(pool_alloc(pool, LARGE, &reference, &memory), 0);
    memset(memory, value, LARGE);
    return reference;
}

static void a_block_that_a_worker_holds_stays_when_it_is_freed(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    uint64_t reference = make(pool, 7);
    size_t size;
    void *memory;

    EXPECT(run(pool, job_hold, &reference, sizeof reference), 0);
    pool_free(pool, reference);
    EXPECT(pool_lookup(pool, reference, &memory, &size), -EINVAL);
    EXPECT(pool_hold(pool, reference), 0); /* since another one holds it */
    EXPECT(pool_lookup(pool, reference, &memory, &size), 0);
    pool_drop(pool, reference);
    EXPECT(pool_lookup(pool, reference, &memory, &size), -EINVAL);
    fill(pool, 5);
    EXPECT(sees(pool, 7), true);
    pool_free(pool, reference); /* again: nothing */
    fill(pool, 5);
    EXPECT(sees(pool, 7), true);
    pool_destroy(pool);
}

static void the_last_holder_frees_it(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int i, room = fill(pool, 16);

    for (i = 0; i < 20; i++) {
        uint64_t reference = make(pool, 1);

        EXPECT(run(pool, job_hold, &reference, sizeof reference), 0);
        pool_free(pool, reference);
        EXPECT(run(pool, job_drop, NULL, 0), 0);
    }
    EXPECT(fill(pool, 16), room);
    pool_destroy(pool);
}

struct room {
    struct pool *pool;
    int blocks;
};

static bool has_room(void *context)
{
    const struct room *room = context;

    return fill(room->pool, 16) == room->blocks;
}

static void a_worker_dies_with_what_it_has(pool_function function, size_t size)
{
    struct pool *pool = harness_pool(1, LIMIT);
    unsigned char *argument = calloc(1, LARGE);
    int i, room = fill(pool, 16);

    for (i = 0; i < 20; i++) {
        struct pool_future future = harness_submit(pool, function, argument, size);

        EXPECT(harness_outcome(&future, NULL), POOL_DIED);
        pool_future_release(&future);
    }
    /* The job's end is told before the repair is done. */
    EXPECT(harness_until(has_room, &(struct room){pool, room}), true);
    free(argument);
    pool_destroy(pool);
}

static void a_held_block_is_free_after_its_holders_death(void)
{
    a_worker_dies_with_what_it_has(job_keep_and_die, LARGE);
}

static void a_workers_own_block_is_free_after_its_death(void)
{
    a_worker_dies_with_what_it_has(job_alloc_and_die, 1);
}

static void a_block_of_ones_own_is_found_by_its_address_until_it_is_dropped(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int i, room = fill(pool, 16);

    for (i = 0; i < 20; i++) {
        uint64_t reference;
        void *memory, *found;
        size_t size;

        REQUIRE(pool_alloc_own(pool, LARGE, &reference, &memory), 0);
        EXPECT(pool_lookup(pool, reference, &found, &size), 0);
        EXPECT(found == memory, true);
        EXPECT(pool_find(pool, (char *)memory + 7, &size) == reference && size == 7, true);
        memset(memory, 3, LARGE);
        pool_free(pool, reference); /* nothing: it is not shared */
        fill(pool, 4);
        EXPECT(((unsigned char *)memory)[LARGE - 1], 3);
        pool_drop(pool, reference);
        EXPECT(pool_find(pool, memory, &size), 0);
    }
    EXPECT(fill(pool, 16), room);
    pool_destroy(pool);
}

static void a_job_keeps_its_argument(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    unsigned char *argument = malloc(LARGE);
    int i, room = fill(pool, 16);

    for (i = 0; i < 20; i++) {
        memset(argument, i, LARGE);
        EXPECT(run(pool, job_keep, argument, LARGE), 0);
        fill(pool, 4);
        EXPECT(sees(pool, (unsigned char)i), true);
        EXPECT(run(pool, job_drop, NULL, 0), 0);
    }
    EXPECT(fill(pool, 16), room);
    free(argument);
    pool_destroy(pool);
}

static void a_small_argument_is_in_no_block(void)
{
    struct pool *pool = harness_pool(1, LIMIT);

    EXPECT(run(pool, job_keep, "small", 5), -EINVAL);
    pool_destroy(pool);
}

static void the_host_holds_blocks_too(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    uint64_t reference = make(pool, 5);
    unsigned char *bytes;
    size_t size;
    void *memory;

    REQUIRE(pool_lookup(pool, reference, &memory, &size), 0);
    bytes = memory;
    EXPECT(pool_hold(pool, reference), 0);
    EXPECT(pool_hold(pool, reference), 0);
    pool_free(pool, reference);
    fill(pool, 4);
    EXPECT(bytes[0] == 5 && bytes[LARGE - 1] == 5, true);
    pool_drop(pool, reference);
    pool_drop(pool, reference);
    pool_destroy(pool);
}

static void an_address_is_found_in_its_block(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    uint64_t reference = make(pool, 0), small;
    unsigned char *bytes;
    size_t size, offset = 1;
    void *memory, *other;

    REQUIRE(pool_lookup(pool, reference, &memory, &size), 0);
    REQUIRE(pool_alloc(pool, 10, &small, &other), 0);
    bytes = memory;
    EXPECT(pool_find(pool, bytes, &offset) == reference && offset == 0, true);
    EXPECT(pool_find(pool, bytes + 12345, &offset) == reference && offset == 12345, true);
    EXPECT(pool_find(pool, other, &offset) == small && offset == 0, true);
    EXPECT(pool_find(pool, &size, &offset), 0);
    EXPECT(pool_find(pool, NULL, &offset), 0);
    pool_free(pool, reference);
    EXPECT(pool_find(pool, bytes, &offset), 0);
    pool_destroy(pool);
}

static void references_that_are_none_are_refused(void)
{
    static const uint64_t wrong[] = {0, 1, 255, 0xff00, UINT64_MAX, (UINT64_C(1) << 40) + 1};
    struct pool *pool = harness_pool(1, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        EXPECT(pool_hold(pool, wrong[i]), -EINVAL);
        pool_drop(pool, wrong[i]);
    }
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(a_block_that_a_worker_holds_stays_when_it_is_freed),
    TEST(the_last_holder_frees_it),
    TEST(a_held_block_is_free_after_its_holders_death),
    TEST(a_workers_own_block_is_free_after_its_death),
    TEST(a_block_of_ones_own_is_found_by_its_address_until_it_is_dropped),
    TEST(a_job_keeps_its_argument),
    TEST(a_small_argument_is_in_no_block),
    TEST(the_host_holds_blocks_too),
    TEST(an_address_is_found_in_its_block),
    TEST(references_that_are_none_are_refused),
};

HARNESS_MAIN("pool: holders", tests)
