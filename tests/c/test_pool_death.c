/* Workers that die: their job says how, everybody else's goes on, the worker is replaced. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define LIMIT (64 * MEBIBYTE)

/* Argument: a signal to die of, or, below 0, the exit status. */
static int job_die(struct pool_job *job, const void *argument, size_t size)
{
    int how = *(const int *)argument;

    (void)job;
    (void)size;
    if (how == -256)
        _exit(0);
    if (how < 0)
        exit(-how);
    signal(how, SIG_DFL); /* sanitizers have handlers of their own */
    raise(how);
    return 0;
}

static struct pool_future submit_death(struct pool *pool, int how)
{
    return harness_submit(pool, job_die, &how, sizeof how);
}

static void expect_works(struct pool *pool)
{
    struct pool_future futures[20];
    int i;

    for (i = 0; i < 20; i++)
        futures[i] = harness_submit(pool, job_nothing, NULL, 0);
    for (i = 0; i < 20; i++)
        EXPECT(harness_status(&futures[i]), 0);
    EXPECT(pool_check(pool), 0);
}

static void a_job_whose_worker_dies_says_how(void)
{
    static const int ways[] = {SIGKILL, SIGSEGV, SIGTERM, SIGBUS, -3, -255, -256};
    struct pool *pool = harness_pool(2, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct pool_future future = submit_death(pool, ways[i]);
        int status = -1;

        EXPECT(harness_outcome(&future, &status), POOL_DIED);
        if (ways[i] > 0)
            EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == ways[i], true);
        else
            EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == -ways[i] % 256, true);
        EXPECT(pool_future_result(&future, NULL, NULL), -EOWNERDEAD);
        EXPECT(pool_future_cancel(&future), -EBUSY);
        pool_future_release(&future);
        EXPECT(pool_future_outcome(&future, NULL), -ESTALE);
        expect_works(pool);
    }
    pool_destroy(pool);
}

static void of_a_hundred_jobs_one_that_kills_itself_costs_one(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future futures[100];
    int i, results = 0, died = 0;

    for (i = 0; i < 100; i++)
        futures[i] =
            i == 5 ? submit_death(pool, SIGKILL) : harness_submit(pool, job_echo, &i, sizeof i);
    for (i = 0; i < 100; i++) {
        const void *data = NULL;
        int outcome = harness_outcome(&futures[i], NULL);

        died += outcome == POOL_DIED;
        if (outcome == POOL_FINISHED && pool_future_result(&futures[i], &data, NULL) == 0)
            results += *(const int *)data == i;
        pool_future_release(&futures[i]);
    }
    EXPECT(results, 99);
    EXPECT(died, 1);
    expect_works(pool);
    pool_destroy(pool);
}

static void a_worker_killed_from_outside_is_replaced_and_others_go_on(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_stats stats = {.size = sizeof stats};
    struct pool_future futures[6];
    int i, died = 0, finished = 0, status = 0, pidfd;

    for (i = 0; i < 6; i++)
        futures[i] = harness_submit(pool, job_gate, &gate, sizeof gate);
    REQUIRE(harness_await(&gate->reached, 2), true);
    pidfd = harness_worker(pool, 1);
    EXPECT(kill(pool_worker_pid(pool, 1), SIGKILL), 0);
    EXPECT(harness_ends(pidfd, 5000), true);
    close(pidfd);
    /* The replacement takes the third job; nobody else moves. */
    EXPECT(harness_await(&gate->reached, 3), true);
    harness_raise(&gate->open);
    for (i = 0; i < 6; i++) {
        int outcome = harness_outcome(&futures[i], &status);

        died += outcome == POOL_DIED && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        finished += outcome == POOL_FINISHED;
    }
    EXPECT(died, 1);
    EXPECT(finished, 5);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.workers_started, 3);
    EXPECT(stats.alive, 2);
    pool_destroy(pool);
}

static void an_idle_worker_that_is_killed_costs_nothing(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int i;

    for (i = 0; i < 20; i++) {
        int pidfd = harness_worker(pool, 0);

        EXPECT(kill(pool_worker_pid(pool, 0), SIGKILL), 0);
        EXPECT(harness_ends(pidfd, 5000), true);
        close(pidfd);
        expect_works(pool);
    }
    pool_destroy(pool);
}

static void every_job_of_a_storm_of_deaths_is_accounted_for(void)
{
    enum { JOBS = HARNESS_SANITIZED ? 90 : 300 };
    struct pool *pool = harness_pool(3, LIMIT);
    struct pool_future futures[JOBS];
    int i, died = 0, finished = 0;

    for (i = 0; i < JOBS; i++)
        futures[i] = i % 3 == 0 ? submit_death(pool, i % 2 ? SIGKILL : -3)
                                : harness_submit(pool, job_echo, "x", 1);
    for (i = 0; i < JOBS; i++) {
        int outcome = harness_outcome(&futures[i], NULL);

        died += i % 3 == 0 && outcome == POOL_DIED;
        finished += i % 3 != 0 && outcome == POOL_FINISHED;
        pool_future_release(&futures[i]);
    }
    EXPECT(died, JOBS / 3);
    EXPECT(finished, JOBS - JOBS / 3);
    expect_works(pool);
    pool_destroy(pool);
}

/* Takes of everything that a job can hold, and dies. */
static int job_hoard_and_die(struct pool_job *job, const void *argument, size_t size)
{
    struct pool *pool = pool_current();
    struct pool_future future;
    void *memory;
    int i;

    (void)argument;
    (void)size;
    for (i = 0; i < 10; i++)
        if (pool_prepare(pool, (size_t)i * 20000, &future, &memory) != 0)
            return -ENOMEM; /* and not a death */
    for (i = 0; i < 3; i++)
        if (pool_submit(pool, job_echo, argument, size, &future) != 0)
            return -ENOMEM;
    if (!pool_job_reserve(job, 500000))
        return -ENOMEM;
    raise(SIGKILL);
    return 0;
}

static void what_a_dead_worker_held_is_free_again(void)
{
    static char argument[400000];
    struct pool *pool = harness_pool(1, 8 * MEBIBYTE);
    struct pool_stats stats = {.size = sizeof stats};
    uint64_t memory = 0;
    int i;

    for (i = 0; i < 30; i++) {
        struct pool_future future =
            harness_submit(pool, job_hoard_and_die, argument, sizeof argument);

        EXPECT(harness_outcome(&future, NULL), POOL_DIED);
        pool_future_release(&future);
        expect_works(pool); /* what the dead submitted runs before these */
        EXPECT(pool_get_stats(pool, &stats), 0);
        if (i == 5)
            memory = stats.memory;
    }
    EXPECT(stats.memory <= memory + MEBIBYTE / 2, true);
    pool_destroy(pool);
}

static void a_job_that_nobody_waits_for_may_die(void)
{
    struct pool *pool = harness_pool(2, 2 * MEBIBYTE);
    static char bytes[50000];
    int i, how = SIGKILL;

    memcpy(bytes, &how, sizeof how);
    for (i = 0; i < 40; i++) {
        struct pool_future future;

        EXPECT(pool_submit(pool, job_die, bytes, sizeof bytes, NULL), 0);
        future = harness_submit(pool, job_die, bytes, sizeof bytes);
        pool_future_release(&future);
        expect_works(pool);
    }
    pool_destroy(pool);
}

/* ---- Nested ---- */

/* Argument: how many levels below this one; the last dies. */
static int job_descend_and_die(struct pool_job *job, const void *argument, size_t size)
{
    int levels = *(const int *)argument, how = SIGKILL, status;
    struct pool_future future;

    if (levels == 0)
        return job_die(job, &how, sizeof how);
    levels--;
    status = pool_submit(pool_current(), job_descend_and_die, &levels, size, &future);
    if (status == 0)
        status = pool_future_wait(&future, POOL_FOREVER);
    return status;
}

static void a_death_ends_all_jobs_on_the_workers_stack(void)
{
    static const int depths[] = {0, 1, 2, 10, 23, 24, 25, 60};
    struct pool *pool = harness_pool(1, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof depths / sizeof *depths; i++) {
        struct pool_future future =
            harness_submit(pool, job_descend_and_die, &depths[i], sizeof depths[i]);
        int status = 0;

        EXPECT(harness_outcome(&future, &status), POOL_DIED);
        EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, true);
        pool_future_release(&future);
        expect_works(pool);
    }
    pool_destroy(pool);
}

/* Argument: a count. Submits ten jobs that raise it, and dies without waiting. */
static int job_raise(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)size;
    harness_raise(*(_Atomic uint32_t *const *)argument);
    return 0;
}

static int job_submit_and_die(struct pool_job *job, const void *argument, size_t size)
{
    int i, how = SIGKILL;

    for (i = 0; i < 10; i++)
        if (pool_submit(pool_current(), job_raise, argument, size, NULL) != 0)
            return -EIO;
    return job_die(job, &how, sizeof how);
}

static void what_a_job_submitted_before_its_death_runs(void)
{
    _Atomic uint32_t *count = harness_shared(sizeof *count);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future future = harness_submit(pool, job_submit_and_die, &count, sizeof count);

    EXPECT(harness_outcome(&future, NULL), POOL_DIED);
    EXPECT(harness_await(count, 10), true);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(*count, 10);
    pool_destroy(pool);
}

/* The last jobs of a closing pool: there is still somebody to run what the dead left. */
static void a_death_while_the_pool_closes_loses_no_other_job(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future first = submit_death(pool, SIGKILL), second, third;

    second = harness_submit(pool, job_nothing, NULL, 0);
    third = submit_death(pool, -3);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(pool_future_outcome(&first, NULL), POOL_DIED);
    EXPECT(pool_future_outcome(&second, NULL), POOL_FINISHED);
    EXPECT(pool_future_outcome(&third, NULL), POOL_DIED);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(a_job_whose_worker_dies_says_how),
    TEST(of_a_hundred_jobs_one_that_kills_itself_costs_one),
    TEST(a_worker_killed_from_outside_is_replaced_and_others_go_on),
    TEST(an_idle_worker_that_is_killed_costs_nothing),
    TEST(every_job_of_a_storm_of_deaths_is_accounted_for),
    TEST(what_a_dead_worker_held_is_free_again),
    TEST(a_job_that_nobody_waits_for_may_die),
    TEST(a_death_ends_all_jobs_on_the_workers_stack),
    TEST(what_a_job_submitted_before_its_death_runs),
    TEST(a_death_while_the_pool_closes_loses_no_other_job),
};

HARNESS_MAIN("pool: deaths of workers", tests)
