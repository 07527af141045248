/* A million jobs at once, and none at all: an idle pool sleeps. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define OUTSTANDING (HARNESS_SANITIZED ? 100000U : 1000000U)

struct load {
    struct pool *pool;
    struct pool_future *futures;
    uint32_t each;
    _Atomic uint32_t wrong;
};

static void submit_share(void *context, unsigned thread)
{
    struct load *load = context;
    uint32_t i;

    for (i = thread * load->each; i < (thread + 1) * load->each; i++)
        load->wrong += pool_submit(load->pool, job_nothing, NULL, 0, &load->futures[i]) != 0;
}

static void collect_share(void *context, unsigned thread)
{
    struct load *load = context;
    uint32_t i;

    for (i = thread * load->each; i < (thread + 1) * load->each; i++)
        load->wrong += harness_status(&load->futures[i]) != 0;
}

/* All wait at once, behind one job that is at a gate. */
static void run_load(unsigned threads)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct load load = {.each = OUTSTANDING / threads};
    struct pool_stats stats = {.size = sizeof stats};
    struct pool_future running;

    load.futures = malloc(OUTSTANDING * sizeof *load.futures);
    load.pool = harness_pool(1, 512 * MEBIBYTE);
    running = harness_submit(load.pool, job_gate, &gate, sizeof gate);
    REQUIRE(harness_await(&gate->reached, 1), true);
    harness_threads(threads, submit_share, &load);
    EXPECT(load.wrong, 0);
    EXPECT(pool_future_outcome(&load.futures[0], NULL), POOL_PENDING);
    EXPECT(pool_future_outcome(&load.futures[OUTSTANDING - 1], NULL), POOL_PENDING);
    harness_raise(&gate->open);
    harness_threads(threads, collect_share, &load);
    EXPECT(load.wrong, 0);
    EXPECT(harness_status(&running), 0);
    EXPECT(pool_get_stats(load.pool, &stats), 0);
    EXPECT(stats.jobs_started, OUTSTANDING + 1);
    pool_destroy(load.pool);
    free(load.futures);
}

static void a_million_jobs_may_wait_submitted_by_one_thread(void)
{
    run_load(1);
}

static void a_million_jobs_may_wait_submitted_by_four_threads(void)
{
    run_load(4);
}

/* Clock ticks of user and system time that a process has used. */
static long cpu_ticks(pid_t pid)
{
    char path[64], text[512], *end;
    unsigned long user = 0, system = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (file && fgets(text, sizeof text, file) && (end = strrchr(text, ')')))
        sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    if (file)
        fclose(file);
    return (long)(user + system);
}

#define WORKERS 8

static long pool_ticks(struct pool *pool, pid_t supervisor)
{
    long ticks = cpu_ticks(supervisor) + cpu_ticks(getpid());
    int worker;

    for (worker = 0; worker < WORKERS; worker++)
        ticks += cpu_ticks(pool_worker_pid(pool, worker));
    return ticks;
}

static void an_idle_pool_uses_no_processor_time(void)
{
    struct pool *pool = harness_pool(WORKERS, 64 * MEBIBYTE);
    struct pool_stats stats = {.size = sizeof stats};
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool_future futures[WORKERS];
    long before;
    int i;

    for (i = 0; i < WORKERS; i++)
        futures[i] = harness_submit(pool, job_gate, &gate, sizeof gate);
    harness_raise(&gate->open);
    for (i = 0; i < WORKERS; i++)
        EXPECT(harness_status(&futures[i]), 0);
    EXPECT(pool_get_stats(pool, &stats), 0);
    /* They may spin for a moment; nobody says when they have stopped. */
    EXPECT(harness_ends(pool_supervisor_fd(pool), 100), false);
    before = pool_ticks(pool, stats.supervisor);
    EXPECT(harness_ends(pool_supervisor_fd(pool), 600), false);
    EXPECT(pool_ticks(pool, stats.supervisor) - before <= 1, true); /* of 60 */
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(a_million_jobs_may_wait_submitted_by_one_thread),
    TEST(a_million_jobs_may_wait_submitted_by_four_threads),
    TEST(an_idle_pool_uses_no_processor_time),
};

HARNESS_MAIN("pool: load and idleness", tests)
