/* A worker that writes over the shared memory: the host may see errors, but lives and goes on. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic.h"
#include "harness.h"
/* What the worker knows of its pool, and so can write over. */
#include "internal.h"

#define LIMIT (16 * MEBIBYTE)

/* ---- Everything ---- */

struct range {
    uint64_t offset, length;
};

/* The tables' beginnings, which are what is used. */
static unsigned list_ranges(const struct pool *pool, struct range *ranges)
{
    const struct arena *arena = &pool->arena;
    unsigned size_class, count = 0;

    ranges[count++] = (struct range){pool->control, sizeof(struct control)};
    ranges[count++] = (struct range){pool->functions.modules, 65536};
    ranges[count++] = (struct range){pool->ready.header, 4096};
    ranges[count++] = (struct range){pool->ready.cells, 8192};
    ranges[count++] = (struct range){pool->completed.header, 4096};
    ranges[count++] = (struct range){pool->completed.cells, 2048};
    ranges[count++] = (struct range){pool->jobs.header, 4096};
    ranges[count++] = (struct range){pool->jobs.slots, 16384};
    ranges[count++] = (struct range){pool->jobs.map.level[0], 4096};
    ranges[count++] = (struct range){pool->jobs.map.level[1], 64};
    ranges[count++] = (struct range){pool->jobs.map.level[2], 8};
    ranges[count++] = (struct range){arena->header, 4096};
    for (size_class = 0; size_class < arena->classes && size_class < 12; size_class++) {
        ranges[count++] = (struct range){arena->size_class[size_class].words, 256};
        ranges[count++] = (struct range){arena->size_class[size_class].details, 256};
        ranges[count++] = (struct range){arena->size_class[size_class].map.level[0], 8};
    }
    return count;
}

/* Argument: a seed. Writes some words, small or of any size, all over the ranges. */
static int job_scribble(struct pool_job *job, const void *argument, size_t size)
{
    struct pool *pool = pool_current();
    uint64_t random = *(const uint64_t *)argument, i, rounds = harness_random(&random) % 20000;
    struct range ranges[64];
    unsigned count = list_ranges(pool, ranges);

    (void)job;
    (void)size;
    for (i = 0; i < rounds; i++) {
        struct range *range = &ranges[harness_random(&random) % count];
        uint64_t *words = segment_at(&pool->segment, range->offset);

        words[harness_random(&random) % (range->length / 8)] =
            harness_random(&random) >> (harness_random(&random) % 64);
    }
    /* The process slots but for the pids, which have a test of their own below. */
    for (i = 0; i < (uint64_t)pool->workers; i++) {
        struct process *process = pool_process(pool, (int)i);

        process->doorbell = (uint32_t)harness_random(&random);
        process->depth = (uint32_t)harness_random(&random);
        process->stack[random % PROCESS_STACK] = harness_random(&random);
    }
    return 0;
}

static void look_at(const struct pool_future *future)
{
    const volatile unsigned char *bytes;
    const void *data = NULL;
    size_t size = 0;

    (void)pool_future_outcome(future, NULL);
    if (pool_future_result(future, &data, &size) == 0 && size > 0) {
        bytes = data; /* wherever it is said to be, it can be read */
        (void)bytes[0];
        (void)bytes[size - 1];
    }
}

/* All calls but those that wait for ever for what may never come. */
static void use_everything(struct pool *pool, uint64_t round)
{
    struct pool_stats stats = {.size = sizeof stats};
    struct pool_future futures[4] = {{NULL, 0, 0}}, other;
    static unsigned char bytes[5000];
    uint64_t reference;
    void *memory;
    size_t size;
    int i;

    for (i = 0; i < 4; i++) {
        if (pool_submit(pool, job_echo, bytes, (size_t)(i * 1300), &futures[i]) != 0)
            continue;
        (void)pool_future_notify(&futures[i]);
        if (round % 2)
            (void)pool_future_cancel(&futures[i]);
        (void)pool_future_wait(&futures[i], 3 * MILLISECOND);
        look_at(&futures[i]);
    }
    (void)pool_wait_any(futures, 4, 3 * MILLISECOND);
    (void)pool_wait_all(futures, 4, 3 * MILLISECOND);
    (void)pool_submit_many(pool, NULL, job_echo, bytes, 70, 20, NULL);
    for (i = 0; i < 100 && pool_next_completed(pool, &other) == 1; i++)
        look_at(&other);
    for (i = 0; i < 4; i++)
        if (futures[i].pool)
            pool_future_release(&futures[i]);
    if (pool_alloc(pool, 3000, &reference, &memory) == 0) {
        memset(memory, 1, 3000);
        if (pool_lookup(pool, reference, &memory, &size) == 0 && size > 0)
            memset(memory, 2, size);
        pool_free(pool, reference);
    }
    (void)pool_cancel_waiting(pool);
    (void)pool_get_stats(pool, &stats);
    (void)pool_check(pool);
}

static void be_host_of_a_scribbler(void *context)
{
    uint64_t seed = *(uint64_t *)context, round;
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future future;

    for (round = 0; round < 4; round++) {
        seed++;
        if (pool_submit(pool, job_scribble, &seed, sizeof seed, &future) == 0) {
            (void)pool_future_wait(&future, 20 * MILLISECOND);
            look_at(&future);
        }
        use_everything(pool, round);
    }
    if (seed % 3 == 0) {
        (void)pool_close(pool);
        (void)pool_join(pool, 20 * MILLISECOND);
    }
    if (seed % 3 == 1)
        (void)pool_terminate(pool);
    pool_destroy(pool);
}

static void a_worker_that_scribbles_over_everything_neither_crashes_nor_hangs_the_host(void)
{
    uint64_t seed, seeds = HARNESS_SANITIZED ? 10 : 20;

    for (seed = 1; seed <= seeds; seed++) {
        uint64_t start = seed * 1000;

        if (!EXPECT(harness_fork(be_host_of_a_scribbler, &start, 10), 0)) {
            printf("    seed %d\n", (int)start);
            break;
        }
    }
}

/* ---- Chosen words ---- */

static _Atomic uint32_t *ready_for_death; /* in shared memory */

static void wait_for_the_end(void *context)
{
    (void)context;
    harness_await(ready_for_death, 1);
}

/* Argument: a pid, to be taken for a worker's. */
static int job_forge_pids(struct pool_job *job, const void *argument, size_t size)
{
    pid_t pid = *(const pid_t *)argument;
    struct pool *pool = pool_current();
    int i;

    (void)job;
    (void)size;
    for (i = 0; i < pool->workers; i++)
        shared_store(&pool_process(pool, i)->pid, (uint32_t)pid, SEQ_CST);
    return 0;
}

/* The supervisor kills its workers, and nobody whose number a worker has written somewhere. */
static void a_forged_pid_gets_no_bystander_killed(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future future;
    pid_t bystander;

    ready_for_death = harness_shared(sizeof *ready_for_death);
    bystander = harness_spawn(wait_for_the_end, NULL, 30);
    future = harness_submit(pool, job_forge_pids, &bystander, sizeof bystander);
    EXPECT(harness_status(&future), 0);
    EXPECT(pool_terminate(pool), 0);
    pool_destroy(pool);
    harness_raise(ready_for_death);
    EXPECT(harness_reap(bystander), 0);
}

static int job_forge_and_die(struct pool_job *job, const void *argument, size_t size)
{
    (void)job_forge_pids(job, argument, size);
    raise(SIGKILL);
    return 0;
}

static void a_worker_whose_pid_was_forged_is_replaced_all_the_same(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    pid_t nobody = 0x7ffffff0;
    struct pool_future future = harness_submit(pool, job_forge_and_die, &nobody, sizeof nobody);

    EXPECT(pool_future_wait(&future, 2 * SECOND), 0);
    EXPECT(pool_future_outcome(&future, NULL), POOL_DIED);
    future = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(pool_future_wait(&future, 2 * SECOND), 0);
    pool_destroy(pool);
}

static int job_forge_state(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)size;
    shared_store(&pool_control(pool_current())->state, *(const uint32_t *)argument, SEQ_CST);
    return 0;
}

static void a_forged_state_of_the_pool_does_not_hang_its_end(void)
{
    static const uint32_t states[] = {1, 2, 3, 1000, UINT32_MAX};
    unsigned i;

    for (i = 0; i < 5; i++) {
        struct pool *pool = harness_pool(2, LIMIT);
        struct pool_future future =
            harness_submit(pool, job_forge_state, &states[i], sizeof *states);

        (void)pool_future_wait(&future, SECOND);
        EXPECT(pool_close(pool), 0);
        EXPECT(pool_join(pool, 5 * SECOND), 0);
        pool_destroy(pool);
    }
}

static const struct harness_test tests[] = {
    TEST(a_worker_that_scribbles_over_everything_neither_crashes_nor_hangs_the_host),
    TEST(a_forged_pid_gets_no_bystander_killed),
    TEST(a_worker_whose_pid_was_forged_is_replaced_all_the_same),
    TEST(a_forged_state_of_the_pool_does_not_hang_its_end),
};

HARNESS_MAIN("pool: hostile workers", tests)
