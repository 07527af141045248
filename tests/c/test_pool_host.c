/* Interpreter hosts, and completions for event loops. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)

/* What the hooks saw; in memory that all processes share. */
struct seen {
    _Atomic uint32_t starts, runs, stops, releases, acquires, forks, wrong;
    int fail;
};

static int on_start(void *context, struct pool *pool, unsigned worker)
{
    struct seen *seen = context;

    seen->starts++;
    seen->wrong += pool_current() != pool || pool_worker_index() != (int)worker;
    return seen->fail;
}

static int on_run(void *context, struct pool_job *job)
{
    struct seen *seen = context;
    const void *argument;
    size_t size;

    seen->runs++;
    argument = pool_job_argument(job, &size);
    seen->wrong += pool_job_argument(job, NULL) != argument;
    return pool_job_target(job) == 77 ? pool_job_return(job, argument, size) : -EINVAL;
}

static void on_stop(void *context)
{
    ((struct seen *)context)->stops++;
}

static void on_release(void *context)
{
    ((struct seen *)context)->releases++;
}

static void on_acquire(void *context)
{
    ((struct seen *)context)->acquires++;
}

static pid_t on_fork(void *context)
{
    ((struct seen *)context)->forks++;
    return fork();
}

static struct pool *make(struct seen *seen, int workers)
{
    struct pool_host host = {.size = sizeof host,
                             .start = on_start,
                             .run = on_run,
                             .stop = on_stop,
                             .release = on_release,
                             .acquire = on_acquire,
                             .fork = on_fork,
                             .context = seen};
    struct pool_config config;
    struct pool *pool = NULL;

    pool_config_init(&config);
    config.workers = workers;
    config.shared_limit = LIMIT;
    config.host = &host;
    REQUIRE(pool_create(&pool, &config), 0);
    memset(&host, 0xff, sizeof host); /* it was copied */
    return pool;
}

static struct pool_future submit_target(struct pool *pool, uint64_t target, const char *text)
{
    struct pool_future future;
    void *memory;

    REQUIRE(pool_prepare(pool, strlen(text), &future, &memory), 0);
    memcpy(memory, text, strlen(text));
    REQUIRE(pool_commit_host(&future, target), 0);
    return future;
}

static void every_hook_is_called_when_it_is_due(void)
{
    struct seen *seen = harness_shared(sizeof *seen);
    struct pool *pool = make(seen, 2);
    struct pool_future future = submit_target(pool, 77, "argument"), other;
    const void *data = "";
    size_t size = 0;

    EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
    EXPECT(pool_future_result(&future, &data, &size), 0);
    EXPECT(size == 8 && memcmp(data, "argument", 8) == 0, true);
    other = submit_target(pool, 78, "");
    EXPECT(harness_status(&other), -EINVAL);
    other = harness_submit(pool, job_nothing, NULL, 0); /* C functions run there as well */
    EXPECT(harness_status(&other), 0);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(seen->starts, 2);
    EXPECT(seen->runs, 2);
    EXPECT(seen->stops, 2);
    EXPECT(seen->forks, 3); /* a supervisor and two workers */
    EXPECT(seen->releases, seen->acquires);
    EXPECT(seen->wrong, 0);
    pool_destroy(pool);
}

static bool has_slept(void *context)
{
    return ((struct seen *)context)->releases > ((struct seen *)context)->acquires;
}

static void a_worker_that_sleeps_has_let_go_of_its_interpreter(void)
{
    struct seen *seen = harness_shared(sizeof *seen);
    struct pool *pool = make(seen, 1);
    struct pool_future future = submit_target(pool, 77, "x");

    EXPECT(harness_status(&future), 0);
    EXPECT(harness_until(has_slept, seen), true);
    future = submit_target(pool, 77, "x");
    EXPECT(harness_status(&future), 0);
    pool_destroy(pool);
}

static void workers_that_cannot_start_break_the_pool_and_are_not_forked_for_ever(void)
{
    struct seen *seen = harness_shared(sizeof *seen);
    struct pool_future futures[5];
    struct pool *pool;
    int64_t start = system_now();
    int i, submitted, error = 0;

    seen->fail = 1;
    pool = make(seen, 2);
    for (submitted = 0; submitted < 5 && error == 0; submitted++)
        error = pool_submit(pool, job_nothing, NULL, 0, &futures[submitted]);
    if (error)
        EXPECT(error, -EOWNERDEAD);
    for (i = 0; i < submitted - (error != 0); i++) {
        EXPECT(pool_future_wait(&futures[i], POOL_FOREVER), 0);
        EXPECT(pool_future_outcome(&futures[i], NULL), POOL_LOST);
    }
    EXPECT(harness_ends(pool_supervisor_fd(pool), 5000), true);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    EXPECT(system_now() - start < 5 * SECOND, true);
    EXPECT(seen->starts >= 2 && seen->starts <= 20, true);
    EXPECT(seen->stops, 0);
    pool_destroy(pool);
}

/* ---- Completions ---- */

static bool readable(struct pool *pool, int milliseconds)
{
    struct pollfd poll_fd = {.fd = pool_notify_fd(pool), .events = POLLIN};

    return poll(&poll_fd, 1, milliseconds) == 1;
}

static void read_empty(struct pool *pool)
{
    uint64_t events;

    while (read(pool_notify_fd(pool), &events, sizeof events) > 0)
        ;
}

/* As an event loop does it: until `count` of the futures have been announced. */
static int collect(struct pool *pool, const struct pool_future *futures, int total, int count)
{
    static bool announced[2000];
    struct pool_future future;
    int found = 0, i;

    memset(announced, 0, sizeof announced);
    while (found < count && readable(pool, 20000)) {
        read_empty(pool);
        while (pool_next_completed(pool, &future) == 1)
            for (i = 0; i < total; i++)
                if (futures[i].index == future.index &&
                    futures[i].generation == future.generation && !announced[i]) {
                    announced[i] = true;
                    found++;
                }
    }
    return found;
}

static void marked_jobs_are_announced_and_no_others(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future running = harness_submit(pool, job_gate, &gate, sizeof gate);
    struct pool_future futures[100], future;
    int i;

    for (i = 0; i < 100; i++) {
        futures[i] = harness_submit(pool, job_nothing, NULL, 0);
        if (i % 2)
            EXPECT(pool_future_notify(&futures[i]), 0);
    }
    EXPECT(pool_future_notify(&futures[1]), 0);
    read_empty(pool);
    EXPECT(pool_next_completed(pool, &future), 0);
    harness_raise(&gate->open);
    EXPECT(collect(pool, futures, 100, 50), 50);
    EXPECT(pool_future_wait(&futures[99], 20 * SECOND), 0);
    EXPECT(pool_next_completed(pool, &future), 0);
    for (i = 0; i < 100; i++)
        EXPECT(pool_future_outcome(&futures[i], NULL), POOL_FINISHED);
    EXPECT(pool_future_notify(&running), 1); /* it has ended: not announced */
    EXPECT(pool_next_completed(pool, &future), 0);
    pool_destroy(pool);
}

static int job_kill_itself(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    raise(SIGKILL);
    return 0;
}

static void cancelled_and_dead_jobs_are_announced_too(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future futures[3];

    futures[0] = harness_submit(pool, job_gate, &gate, sizeof gate);
    futures[1] = harness_submit(pool, job_nothing, NULL, 0);
    futures[2] = harness_submit(pool, job_kill_itself, NULL, 0);
    EXPECT(pool_future_notify(&futures[1]), 0);
    EXPECT(pool_future_notify(&futures[2]), 0);
    EXPECT(pool_future_cancel(&futures[1]), 0);
    EXPECT(collect(pool, futures, 3, 1), 1);
    harness_raise(&gate->open);
    EXPECT(collect(pool, futures, 3, 1), 1);
    EXPECT(pool_future_outcome(&futures[2], NULL), POOL_DIED);
    pool_destroy(pool);
}

/* Marked while they end: each is either announced, or known to have ended already. */
static void no_completion_is_missed_in_a_race(void)
{
    enum { JOBS = HARNESS_SANITIZED ? 300 : 2000 };
    static struct pool_future futures[JOBS], marked[JOBS];
    struct pool *pool = harness_pool(2, LIMIT);
    int round, i, count;

    for (round = 0; round < 5; round++) {
        for (i = 0; i < JOBS; i++)
            futures[i] = harness_submit(pool, job_nothing, NULL, 0);
        for (i = JOBS, count = 0; i-- > 0;)
            if (pool_future_notify(&futures[i]) == 0)
                marked[count++] = futures[i];
        EXPECT(collect(pool, marked, count, count), count);
        for (i = 0; i < JOBS; i++)
            EXPECT(harness_status(&futures[i]), 0);
    }
    pool_destroy(pool);
}

/* More than the first levels of the completion ring take, and nobody looks meanwhile. */
static void completions_wait_until_somebody_looks(void)
{
    enum { JOBS = 2000 };
    static struct pool_future futures[JOBS];
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future running = harness_submit(pool, job_gate, &gate, sizeof gate);
    struct pool_future second = harness_submit(pool, job_gate, &gate, sizeof gate);
    int i;

    for (i = 0; i < JOBS; i++) {
        futures[i] = harness_submit(pool, job_nothing, NULL, 0);
        EXPECT(pool_future_notify(&futures[i]), 0);
    }
    harness_raise(&gate->open);
    for (i = 0; i < JOBS; i++)
        EXPECT(pool_future_wait(&futures[i], 20 * SECOND), 0);
    EXPECT(collect(pool, futures, JOBS, JOBS), JOBS);
    EXPECT(harness_status(&running), 0);
    EXPECT(harness_status(&second), 0);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(every_hook_is_called_when_it_is_due),
    TEST(a_worker_that_sleeps_has_let_go_of_its_interpreter),
    TEST(workers_that_cannot_start_break_the_pool_and_are_not_forked_for_ever),
    TEST(marked_jobs_are_announced_and_no_others),
    TEST(cancelled_and_dead_jobs_are_announced_too),
    TEST(no_completion_is_missed_in_a_race),
    TEST(completions_wait_until_somebody_looks),
};

HARNESS_MAIN("pool: interpreter hosts and completions", tests)
