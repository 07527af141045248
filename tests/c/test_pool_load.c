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

/* How often the kernel has taken a process off its core, or -1 while it does not sleep. */
static long switches_of_sleeper(pid_t pid)
{
    char path[64], line[256], state = '?';
    long switches = 0, count;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        sscanf(line, "State: %c", &state);
        if (sscanf(line, "voluntary_ctxt_switches: %ld", &count) == 1 ||
            sscanf(line, "nonvoluntary_ctxt_switches: %ld", &count) == 1)
            switches += count;
    }
    if (file)
        fclose(file);
    return state == 'S' ? switches : -1;
}

static bool all_sleep(struct pool *pool, pid_t supervisor, long switches[WORKERS + 1])
{
    int worker;

    switches[WORKERS] = switches_of_sleeper(supervisor);
    for (worker = 0; worker < WORKERS; worker++)
        if ((switches[worker] = switches_of_sleeper(pool_worker_pid(pool, worker))) < 0)
            return false;
    return switches[WORKERS] >= 0;
}

/* Counted, not timed: whoever wakes up, if only to look, has to be taken off a core again. */
static void an_idle_pool_wakes_nobody(void)
{
    struct pool *pool = harness_pool(WORKERS, 64 * MEBIBYTE);
    struct pool_stats stats = {.size = sizeof stats};
    struct pool_future futures[100];
    long before[WORKERS + 1], after[WORKERS + 1];
    int i;

    for (i = 0; i < 100; i++)
        futures[i] = harness_submit(pool, job_nothing, NULL, 0);
    for (i = 0; i < 100; i++)
        EXPECT(harness_status(&futures[i]), 0);
    EXPECT(pool_get_stats(pool, &stats), 0);
    /* They start, spin, and may wake each other. Two looks: during the first one who had been seen
     * asleep may have been woken by one that was not. */
    for (i = 0; i < 1000; i++) {
        if (all_sleep(pool, stats.supervisor, before) && all_sleep(pool, stats.supervisor, after) &&
            memcmp(before, after, sizeof after) == 0)
            break;
        EXPECT(harness_ends(pool_supervisor_fd(pool), 10), false);
    }
    EXPECT(harness_ends(pool_supervisor_fd(pool), 1000), false);
    EXPECT(all_sleep(pool, stats.supervisor, after), true);
    for (i = 0; i < WORKERS; i++)
        EXPECT(after[i] - before[i], 0);
    /* One tick in five seconds, for memory to give back. */
    EXPECT(after[WORKERS] - before[WORKERS] <= 1, true);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(a_million_jobs_may_wait_submitted_by_one_thread),
    TEST(a_million_jobs_may_wait_submitted_by_four_threads),
    TEST(an_idle_pool_uses_no_processor_time),
    TEST(an_idle_pool_wakes_nobody),
};

HARNESS_MAIN("pool: load and idleness", tests)
