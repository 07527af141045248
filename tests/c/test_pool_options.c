/* Kills and retries of single jobs. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)
#define NO_RETRIES 0

static struct pool_future submit_with(struct pool *pool, int64_t timeout, int retries,
                                      pool_function function, const void *argument, size_t size)
{
    struct pool_future future = {NULL, 0, 0};
    struct pool_options options;

    pool_options_init(pool, &options);
    options.timeout = timeout;
    options.retries = retries;
    REQUIRE(pool_submit_with(pool, &options, function, argument, size, &future), 0);
    return future;
}

static struct pool *pool_with_defaults(int workers, int64_t timeout, int retries)
{
    struct pool_config config;
    struct pool *pool = NULL;

    pool_config_init(&config);
    config.workers = workers;
    config.shared_limit = LIMIT;
    config.timeout = timeout;
    config.retries = retries;
    REQUIRE(pool_create(&pool, &config), 0);
    return pool;
}

static uint64_t retried(struct pool *pool)
{
    struct pool_stats stats = {.size = sizeof stats};

    EXPECT(pool_get_stats(pool, &stats), 0);
    return stats.jobs_retried;
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

/* Lets time go by, where time is what is tested. */
static void pass(int64_t duration)
{
    poll(NULL, 0, (int)(duration / MILLISECOND));
}

/* Argument: a count. Raises it. */
static int job_raise(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)size;
    harness_raise(*(_Atomic uint32_t *const *)argument);
    return 0;
}

/* Argument: for how long to run. Its result is that number. */
static int job_busy(struct pool_job *job, const void *argument, size_t size)
{
    int64_t end = system_now() + *(const int64_t *)argument;

    while (system_now() < end)
        ;
    return pool_job_return(job, argument, size);
}

/* ---- Kill ---- */

static void kill_ends_a_job_that_waits(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future running = harness_submit(pool, job_gate, &gate, sizeof gate), waiting;
    struct pool_stats stats = {.size = sizeof stats};

    waiting = harness_submit(pool, job_gate, &gate, sizeof gate);
    REQUIRE(harness_await(&gate->reached, 1), true);
    EXPECT(pool_future_kill(&waiting), 0);
    EXPECT(pool_future_outcome(&waiting, NULL), POOL_CANCELLED);
    EXPECT(pool_future_kill(&waiting), -EBUSY);
    harness_raise(&gate->open);
    EXPECT(harness_status(&running), 0);
    expect_works(pool);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.workers_started, 1);
    EXPECT(gate->reached, 1);
    pool_destroy(pool);
}

static void kill_ends_a_job_that_runs_and_cancel_does_not(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future future = harness_submit(pool, job_gate, &gate, sizeof gate);
    struct pool_future other = harness_submit(pool, job_gate, &gate, sizeof gate);
    struct pool_stats stats = {.size = sizeof stats};

    REQUIRE(harness_await(&gate->reached, 2), true);
    EXPECT(pool_future_cancel(&future), -EBUSY);
    EXPECT(pool_future_outcome(&future, NULL), POOL_RUNNING);
    EXPECT(pool_future_kill(&future), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_CANCELLED);
    EXPECT(pool_future_result(&future, NULL, NULL), -ECANCELED);
    EXPECT(pool_future_kill(&future), -EBUSY);
    expect_works(pool);
    EXPECT(pool_future_outcome(&other, NULL), POOL_RUNNING);
    harness_raise(&gate->open);
    EXPECT(harness_status(&other), 0);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.workers_started, 3);
    pool_destroy(pool);
}

static void kill_of_an_ended_or_released_job_is_refused(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future = harness_submit(pool, job_nothing, NULL, 0), next;
    struct pool_stats stats = {.size = sizeof stats};
    void *memory;

    EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
    EXPECT(pool_future_kill(&future), -EBUSY);
    pool_future_release(&future);
    EXPECT(pool_future_kill(&future), -ESTALE);
    next = harness_submit(pool, job_nothing, NULL, 0); /* in the same slot */
    EXPECT(pool_future_kill(&future), -ESTALE);
    EXPECT(harness_status(&next), 0);
    EXPECT(pool_prepare(pool, 8, &future, &memory), 0);
    EXPECT(pool_future_kill(&future), -ESTALE); /* not submitted yet */
    pool_abandon(&future);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.workers_started, 1);
    pool_destroy(pool);
}

struct waiters {
    struct pool_future future;
    _Atomic uint32_t ready;
};

static void wait_or_kill(void *context, unsigned number)
{
    struct waiters *waiters = context;

    if (number == 0) {
        EXPECT(harness_await(&waiters->ready, 2), true);
        EXPECT(pool_future_kill(&waiters->future), 0);
    } else {
        harness_raise(&waiters->ready);
    }
    EXPECT(harness_outcome(&waiters->future, NULL), POOL_CANCELLED);
}

static void kill_ends_the_wait_of_other_threads(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    int i;

    for (i = 0; i < 10; i++) {
        struct gate *gate = harness_shared(sizeof *gate);
        struct waiters waiters = {.future = harness_submit(pool, job_gate, &gate, sizeof gate)};

        REQUIRE(harness_await(&gate->reached, 1), true);
        harness_threads(3, wait_or_kill, &waiters);
        pool_future_release(&waiters.future);
    }
    expect_works(pool);
    pool_destroy(pool);
}

/* The worker begins the next job at the very moment at which the one before is to be killed. */
static void kill_never_hits_the_job_that_the_worker_began_afterwards(void)
{
    enum { ROUNDS = HARNESS_SANITIZED ? 100 : 500, AFTER = 5 };
    struct pool *pool = harness_pool(1, LIMIT);
    uint64_t state = 7;
    int i, j, killed = 0, finished = 0;

    for (i = 0; i < ROUNDS; i++) {
        int64_t time = (int64_t)(harness_random(&state) % 30000), until;
        struct pool_future victim = harness_submit(pool, job_busy, &time, sizeof time);
        struct pool_future after[AFTER];
        int outcome, error;

        for (j = 0; j < AFTER; j++)
            after[j] = harness_submit(pool, job_echo, &j, sizeof j);
        until = system_now() + (int64_t)(harness_random(&state) % 30000);
        while (system_now() < until)
            ;
        error = pool_future_kill(&victim);
        outcome = harness_outcome(&victim, NULL);
        EXPECT(error == 0 || error == -EBUSY, true);
        EXPECT(outcome, error == 0 ? POOL_CANCELLED : POOL_FINISHED);
        killed += error == 0;
        finished += error != 0;
        for (j = 0; j < AFTER; j++)
            EXPECT(harness_status(&after[j]), 0);
        pool_future_release(&victim);
    }
    EXPECT(killed + finished, ROUNDS);
    EXPECT(pool_check(pool), 0);
    pool_destroy(pool);
}

static void a_killed_or_late_job_is_announced(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future killed = harness_submit(pool, job_gate, &gate, sizeof gate), done;
    struct pool_future late =
        submit_with(pool, 200 * MILLISECOND, NO_RETRIES, job_gate, &gate, sizeof gate);
    int announced = 0;

    REQUIRE(harness_await(&gate->reached, 2), true);
    EXPECT(pool_future_notify(&killed), 0);
    EXPECT(pool_future_notify(&late), 0);
    EXPECT(pool_next_completed(pool, &done), 0);
    EXPECT(pool_future_kill(&killed), 0);
    while (announced != 3) {
        struct pollfd poll_fd = {.fd = pool_notify_fd(pool), .events = POLLIN};
        uint64_t events;

        REQUIRE(poll(&poll_fd, 1, 20000), 1);
        EXPECT(read(poll_fd.fd, &events, sizeof events), sizeof events);
        while (pool_next_completed(pool, &done) == 1) {
            announced |= done.index == killed.index && done.generation == killed.generation;
            announced |= 2 * (done.index == late.index && done.generation == late.generation);
        }
    }
    EXPECT(pool_future_outcome(&killed, NULL), POOL_CANCELLED);
    EXPECT(pool_future_outcome(&late, NULL), POOL_TIMEOUT);
    pool_destroy(pool);
}

/* ---- Retries ---- */

struct attempt {
    _Atomic uint32_t *runs;
    int32_t deaths; /* in so many of its first runs it dies */
    int32_t how;    /* of this signal, or, below 0, with this exit status */
}; /* then a pattern, up to the size of the argument */

static unsigned char pattern(size_t i)
{
    return (unsigned char)(i * 7 + 3);
}

static int job_attempt(struct pool_job *job, const void *argument, size_t size)
{
    const struct attempt *attempt = argument;
    const unsigned char *rest = (const unsigned char *)(attempt + 1);
    uint32_t run = *attempt->runs;
    size_t i;
    void *memory;

    for (i = 0; i < size - sizeof *attempt; i++)
        if (rest[i] != pattern(i))
            return -EBADMSG;
    /* What it had of a result when it died is nobody's. */
    memory = pool_job_reserve(job, size);
    if (!memory)
        return -ENOMEM;
    memset(memory, 0xee, size);
    harness_raise(attempt->runs);
    if (run < (uint32_t)attempt->deaths) {
        if (attempt->how < 0)
            _exit(-attempt->how);
        signal(attempt->how, SIG_DFL);
        raise(attempt->how);
    }
    return pool_job_return(job, argument, size);
}

static void make_attempt(struct attempt *attempt, int deaths, int how, size_t size)
{
    unsigned char *rest = (unsigned char *)(attempt + 1);
    size_t i;

    attempt->runs = harness_shared(sizeof *attempt->runs);
    attempt->deaths = deaths;
    attempt->how = how;
    for (i = 0; i < size - sizeof *attempt; i++)
        rest[i] = pattern(i);
}

static void a_job_whose_worker_dies_runs_again(void)
{
    static const int ways[] = {SIGKILL, SIGSEGV, SIGABRT, -1, -255};
    struct pool *pool = harness_pool(2, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct attempt attempt;
        struct pool_future future;

        make_attempt(&attempt, 2, ways[i], sizeof attempt);
        future = submit_with(pool, POOL_FOREVER, 2, job_attempt, &attempt, sizeof attempt);
        EXPECT(harness_status(&future), 0);
        EXPECT(*attempt.runs, 3);
        EXPECT(retried(pool), 2 * (i + 1));
    }
    expect_works(pool);
    pool_destroy(pool);
}

/* Those that lie in the job itself, with and without room for options and result, and blocks. */
static void the_argument_is_intact_when_a_job_runs_again(void)
{
    static const size_t sizes[] = {16, 17, 32, 36,  40,  64,  71,  72,  73,   88,    95,
                                   96, 97, 98, 104, 128, 129, 256, 257, 5000, 300000};
    static union {
        struct attempt attempt;
        unsigned char bytes[300000];
    } argument;
    struct pool *pool = harness_pool(2, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct pool_future future;
        const void *data = NULL;
        size_t size = 0;

        make_attempt(&argument.attempt, 2, SIGKILL, sizes[i]);
        future = submit_with(pool, 100 * SECOND, 2, job_attempt, &argument, sizes[i]);
        EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
        EXPECT(pool_future_result(&future, &data, &size), 0);
        EXPECT(size, sizes[i]);
        EXPECT(size == sizes[i] && memcmp(data, &argument, size) == 0, true);
        EXPECT(*argument.attempt.runs, 3);
        pool_future_release(&future);
    }
    pool_destroy(pool);
}

static void when_the_retries_are_used_up_the_job_has_died(void)
{
    static const int retries[] = {0, 1, 3};
    struct pool *pool = harness_pool(1, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof retries / sizeof *retries; i++) {
        struct attempt attempt;
        struct pool_future future;
        int status = 0;

        make_attempt(&attempt, 1000, -7, sizeof attempt);
        future = submit_with(pool, POOL_FOREVER, retries[i], job_attempt, &attempt, sizeof attempt);
        EXPECT(harness_outcome(&future, &status), POOL_DIED);
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 7, true);
        EXPECT(*attempt.runs, retries[i] + 1);
        pool_future_release(&future);
    }
    EXPECT(retried(pool), 4);
    expect_works(pool);
    pool_destroy(pool);
}

static void as_many_retries_as_there_may_be(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct attempt attempt;
    struct pool_future future;

    make_attempt(&attempt, 255, SIGKILL, sizeof attempt);
    future = submit_with(pool, POOL_FOREVER, 255, job_attempt, &attempt, sizeof attempt);
    EXPECT(harness_status(&future), 0);
    EXPECT(*attempt.runs, 256);
    EXPECT(retried(pool), 255);
    pool_destroy(pool);
}

static int job_raise_and_fail(struct pool_job *job, const void *argument, size_t size)
{
    job_raise(job, argument, size);
    return -EIO;
}

static void a_job_that_fails_is_late_or_killed_is_not_run_again(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    _Atomic uint32_t *runs = harness_shared(sizeof *runs);
    struct pool_future future =
        submit_with(pool, POOL_FOREVER, 5, job_raise_and_fail, &runs, sizeof runs);

    EXPECT(harness_status(&future), -EIO);
    EXPECT(*runs, 1);
    future = submit_with(pool, 100 * MILLISECOND, 5, job_gate, &gate, sizeof gate);
    EXPECT(harness_outcome(&future, NULL), POOL_TIMEOUT);
    EXPECT(gate->reached, 1);
    future = submit_with(pool, POOL_FOREVER, 5, job_gate, &gate, sizeof gate);
    REQUIRE(harness_await(&gate->reached, 2), true);
    EXPECT(pool_future_kill(&future), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_CANCELLED);
    expect_works(pool);
    EXPECT(gate->reached, 2);
    EXPECT(retried(pool), 0);
    pool_destroy(pool);
}

static void a_job_that_nobody_waits_for_runs_again_too(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_options options;
    struct attempt first, second;
    struct pool_future future;

    make_attempt(&first, 3, SIGKILL, sizeof first);
    pool_options_init(pool, &options);
    options.retries = 3;
    EXPECT(pool_submit_with(pool, &options, job_attempt, &first, sizeof first, NULL), 0);
    EXPECT(harness_await(first.runs, 4), true);
    make_attempt(&second, 3, SIGKILL, sizeof second);
    future = submit_with(pool, POOL_FOREVER, 3, job_attempt, &second, sizeof second);
    pool_future_release(&future);
    EXPECT(harness_await(second.runs, 4), true);
    expect_works(pool);
    EXPECT(*first.runs, 4);
    EXPECT(*second.runs, 4);
    pool_destroy(pool);
}

static void retries_may_be_the_pools_default(void)
{
    struct pool *pool = pool_with_defaults(2, POOL_FOREVER, 2);
    struct attempt attempt;
    struct pool_future future;
    struct pool_options options;

    make_attempt(&attempt, 2, SIGKILL, sizeof attempt);
    future = harness_submit(pool, job_attempt, &attempt, sizeof attempt);
    EXPECT(harness_status(&future), 0);
    pool_options_init(pool, &options);
    EXPECT(options.retries, 2);
    EXPECT(options.timeout, POOL_FOREVER);
    make_attempt(&attempt, 2, SIGKILL, sizeof attempt);
    options.retries = 0;
    EXPECT(pool_submit_with(pool, &options, job_attempt, &attempt, sizeof attempt, &future), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_DIED);
    EXPECT(*attempt.runs, 1);
    pool_destroy(pool);
}

static void time_counts_anew_when_a_job_runs_again(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct gate *gate = harness_shared(sizeof *gate);
    const int64_t limit = 600 * MILLISECOND;
    struct pool_future future = submit_with(pool, limit, 2, job_gate, &gate, sizeof gate);
    uint32_t run;

    for (run = 1; run <= 2; run++) {
        int pidfd;

        REQUIRE(harness_await(&gate->reached, run), true);
        pass(limit / 2);
        pidfd = harness_worker(pool, 0);
        EXPECT(kill(pool_worker_pid(pool, 0), SIGKILL), 0);
        EXPECT(harness_ends(pidfd, 5000), true);
        close(pidfd);
    }
    REQUIRE(harness_await(&gate->reached, 3), true);
    pass(limit / 4); /* longer than the limit all in all */
    harness_raise(&gate->open);
    EXPECT(harness_status(&future), 0);
    EXPECT(retried(pool), 2);
    pool_destroy(pool);
}

static void a_job_runs_again_while_the_pool_closes(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct attempt attempt;
    struct pool_future future;

    make_attempt(&attempt, 3, SIGKILL, sizeof attempt);
    future = submit_with(pool, POOL_FOREVER, 3, job_attempt, &attempt, sizeof attempt);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(pool_future_outcome(&future, NULL), POOL_FINISHED);
    EXPECT(*attempt.runs, 4);
    pool_destroy(pool);
}

static void a_job_that_runs_again_and_again_can_be_killed_or_terminated(void)
{
    enum { ROUNDS = HARNESS_SANITIZED ? 10 : 40 };
    struct pool *pool = harness_pool(1, LIMIT);
    struct attempt attempt;
    struct pool_future future;
    int i;

    for (i = 0; i < ROUNDS; i++) {
        int error;

        make_attempt(&attempt, 1000, SIGKILL, sizeof attempt);
        future = submit_with(pool, POOL_FOREVER, 255, job_attempt, &attempt, sizeof attempt);
        REQUIRE(harness_await(attempt.runs, (uint32_t)i % 4 + 1), true);
        error = pool_future_kill(&future);
        EXPECT(error, 0);
        EXPECT(harness_outcome(&future, NULL), POOL_CANCELLED);
        pool_future_release(&future);
    }
    expect_works(pool);
    make_attempt(&attempt, 1000, SIGKILL, sizeof attempt);
    future = submit_with(pool, POOL_FOREVER, 255, job_attempt, &attempt, sizeof attempt);
    REQUIRE(harness_await(attempt.runs, 2), true);
    EXPECT(pool_terminate(pool), 0);
    EXPECT(pool_future_outcome(&future, NULL), POOL_CANCELLED);
    pool_destroy(pool);
}

static void every_retried_job_of_a_storm_of_deaths_has_its_result(void)
{
    enum { JOBS = HARNESS_SANITIZED ? 60 : 200 };
    struct pool *pool = harness_pool(3, LIMIT);
    struct pool_future futures[JOBS];
    struct attempt attempts[JOBS];
    uint64_t deaths = 0;
    int i;

    for (i = 0; i < JOBS; i++) {
        deaths += (uint64_t)i % 3;
        make_attempt(&attempts[i], i % 3, SIGKILL, sizeof attempts[i]);
        futures[i] =
            submit_with(pool, POOL_FOREVER, 2, job_attempt, &attempts[i], sizeof attempts[i]);
    }
    for (i = 0; i < JOBS; i++) {
        EXPECT(harness_status(&futures[i]), 0);
        EXPECT(*attempts[i].runs, i % 3 + 1);
    }
    EXPECT(retried(pool), deaths);
    pool_destroy(pool);
}

/* ---- Bad input ---- */

static void options_out_of_range_are_refused(void)
{
    static const struct pool_options bad[] = {
        {sizeof(struct pool_options), 0, 0},     {sizeof(struct pool_options), -1, 0},
        {sizeof(struct pool_options), 1, -1},    {sizeof(struct pool_options), 1, 256},
        {sizeof(struct pool_options), 1, 1000},  {0, 1, 0},
        {sizeof(struct pool_options) - 1, 1, 0}, {SIZE_MAX, 1, 0}};
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future;
    void *memory;
    unsigned i;

    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct pool_config config;
        struct pool *none = NULL;

        EXPECT(pool_submit_with(pool, &bad[i], job_nothing, NULL, 0, &future), -EINVAL);
        EXPECT(pool_prepare_with(pool, &bad[i], 8, &future, &memory), -EINVAL);
        if (bad[i].size != sizeof *bad)
            continue;
        pool_config_init(&config);
        config.timeout = bad[i].timeout;
        config.retries = bad[i].retries;
        EXPECT(pool_create(&none, &config), -EINVAL);
        EXPECT(none == NULL, true);
    }
    /* No options are the defaults. */
    EXPECT(pool_submit_with(pool, NULL, job_nothing, NULL, 0, &future), 0);
    EXPECT(harness_status(&future), 0);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(kill_ends_a_job_that_waits),
    TEST(kill_ends_a_job_that_runs_and_cancel_does_not),
    TEST(kill_of_an_ended_or_released_job_is_refused),
    TEST(kill_ends_the_wait_of_other_threads),
    TEST(kill_never_hits_the_job_that_the_worker_began_afterwards),
    TEST(a_killed_or_late_job_is_announced),
    TEST(a_job_whose_worker_dies_runs_again),
    TEST(the_argument_is_intact_when_a_job_runs_again),
    TEST(when_the_retries_are_used_up_the_job_has_died),
    TEST(as_many_retries_as_there_may_be),
    TEST(a_job_that_fails_is_late_or_killed_is_not_run_again),
    TEST(a_job_that_nobody_waits_for_runs_again_too),
    TEST(retries_may_be_the_pools_default),
    TEST(time_counts_anew_when_a_job_runs_again),
    TEST(a_job_runs_again_while_the_pool_closes),
    TEST(a_job_that_runs_again_and_again_can_be_killed_or_terminated),
    TEST(every_retried_job_of_a_storm_of_deaths_has_its_result),
    TEST(options_out_of_range_are_refused),
};

HARNESS_MAIN("pool: kills and retries", tests)
