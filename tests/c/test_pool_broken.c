/* The supervisor dies, or the host: nobody waits for ever, and no process is left. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)
#define WORKERS 3

static void kill_supervisor(struct pool *pool)
{
    struct pool_stats stats = {.size = sizeof stats};

    REQUIRE(pool_get_stats(pool, &stats), 0);
    REQUIRE(stats.supervisor > 0, true);
    EXPECT(kill(stats.supervisor, SIGKILL), 0);
    EXPECT(harness_ends(pool_supervisor_fd(pool), 5000), true);
}

/* ---- The supervisor ---- */

static void jobs_without_a_result_are_lost_within_a_second(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(WORKERS, LIMIT);
    struct pool_future finished = harness_submit(pool, job_echo, "kept", 4), futures[10];
    int i, pidfds[WORKERS];
    const void *data = "";
    int64_t start;

    EXPECT(pool_future_wait(&finished, 20 * SECOND), 0);
    for (i = 0; i < 10; i++)
        futures[i] = harness_submit(pool, job_gate, &gate, sizeof gate);
    REQUIRE(harness_await(&gate->reached, WORKERS), true);
    for (i = 0; i < WORKERS; i++)
        pidfds[i] = harness_worker(pool, i);
    kill_supervisor(pool);
    start = system_now();
    for (i = 0; i < 10; i++) {
        EXPECT(pool_future_wait(&futures[i], POOL_FOREVER), 0);
        EXPECT(pool_future_outcome(&futures[i], NULL), POOL_LOST);
        EXPECT(pool_future_result(&futures[i], NULL, NULL), -EOWNERDEAD);
        pool_future_release(&futures[i]);
    }
    EXPECT(system_now() - start < SECOND, true);
    for (i = 0; i < WORKERS; i++) {
        EXPECT(harness_ends(pidfds[i], 1000), true);
        close(pidfds[i]);
    }
    EXPECT(pool_future_result(&finished, &data, NULL), 0);
    EXPECT(memcmp(data, "kept", 4), 0);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    EXPECT(pool_submit(pool, job_nothing, NULL, 0, &finished), -EOWNERDEAD);
    EXPECT(pool_map(pool, job_nothing, NULL, 0, 5, NULL, 0), -EOWNERDEAD);
    pool_destroy(pool);
}

static void the_death_of_an_idle_pools_supervisor_is_noticed(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_stats stats = {.size = sizeof stats};

    kill_supervisor(pool);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.supervisor, 0);
    EXPECT(stats.alive, 0);
    EXPECT(pool_terminate(pool), 0);
    EXPECT(pool_join(pool, SECOND), 0);
    pool_destroy(pool);
}

/* Nobody has noticed yet when it is submitted. */
static void a_job_submitted_after_the_death_is_refused_or_lost(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future future;
    int error;

    kill_supervisor(pool);
    error = pool_submit(pool, job_nothing, NULL, 0, &future);
    if (error == 0)
        EXPECT(harness_outcome(&future, NULL), POOL_LOST);
    else
        EXPECT(error, -EOWNERDEAD);
    EXPECT(pool_map(pool, job_nothing, NULL, 0, 5, NULL, 0), -EOWNERDEAD);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    pool_destroy(pool);
}

/* Committed after the pool was found to be broken: refused, or ended; never left waiting. */
static void a_job_prepared_before_and_committed_after_the_break_does_not_wait_for_ever(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future future;
    void *memory;
    int error;

    REQUIRE(pool_prepare(pool, 10, &future, &memory), 0);
    kill_supervisor(pool);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    error = pool_commit(&future, job_nothing);
    if (error == 0)
        EXPECT(pool_future_wait(&future, 3 * SECOND), 0);
    else
        EXPECT(error, -EOWNERDEAD);
    pool_destroy(pool);
}

static void a_job_prepared_before_and_committed_after_terminate_does_not_wait_for_ever(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future future;
    void *memory;
    int error;

    REQUIRE(pool_prepare(pool, 10, &future, &memory), 0);
    EXPECT(pool_terminate(pool), 0);
    error = pool_commit(&future, job_nothing);
    if (error == 0)
        EXPECT(pool_future_wait(&future, 3 * SECOND), 0);
    else
        EXPECT(error, -ESHUTDOWN);
    pool_destroy(pool);
}

static void a_supervisor_that_dies_while_the_pool_closes_loses_the_jobs_and_ends_the_join(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future futures[3];
    int i;

    for (i = 0; i < 3; i++)
        futures[i] = harness_submit(pool, job_gate, &gate, sizeof gate);
    REQUIRE(harness_await(&gate->reached, 1), true);
    EXPECT(pool_close(pool), 0);
    kill_supervisor(pool);
    EXPECT(pool_join(pool, POOL_FOREVER) <= 0, true);
    for (i = 0; i < 3; i++)
        EXPECT(pool_future_outcome(&futures[i], NULL), POOL_LOST);
    pool_destroy(pool);
}

struct waiters {
    struct pool *pool;
    struct pool_future future;
    _Atomic uint32_t waiting, lost;
};

static void wait_or_kill(void *context, unsigned thread)
{
    struct waiters *waiters = context;

    if (thread == 0) {
        struct pool_stats stats = {.size = sizeof stats};

        harness_await(&waiters->waiting, 4);
        pool_get_stats(waiters->pool, &stats);
        kill(stats.supervisor, SIGKILL);
        return;
    }
    harness_raise(&waiters->waiting);
    EXPECT(pool_future_wait(&waiters->future, POOL_FOREVER), 0);
    waiters->lost += pool_future_outcome(&waiters->future, NULL) == POOL_LOST;
}

static void all_threads_that_wait_are_told(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct waiters waiters = {.pool = harness_pool(1, LIMIT)};

    waiters.future = harness_submit(waiters.pool, job_gate, &gate, sizeof gate);
    harness_threads(5, wait_or_kill, &waiters);
    EXPECT(waiters.lost, 4);
    pool_destroy(waiters.pool);
}

/* Job: kills the supervisor, its parent. */
static int job_kill_supervisor(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    kill(getppid(), SIGKILL);
    pause(); /* until our own end */
    return -EIO;
}

static void a_map_ends_when_the_supervisor_dies(void)
{
    struct pool *pool = harness_pool(2, LIMIT);

    EXPECT(pool_map(pool, job_kill_supervisor, NULL, 0, 100, NULL, 0), -EOWNERDEAD);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    pool_destroy(pool);
}

static void the_descriptors_for_event_loops_become_readable(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future = harness_submit(pool, job_gate, &gate, sizeof gate), announced;
    struct pollfd notify = {.fd = pool_notify_fd(pool), .events = POLLIN};
    uint64_t events;

    EXPECT(pool_future_notify(&future), 0);
    REQUIRE(harness_await(&gate->reached, 1), true);
    if (read(notify.fd, &events, sizeof events) < 0)
        EXPECT(errno, EAGAIN);
    EXPECT(pool_next_completed(pool, &announced), 0);
    kill_supervisor(pool);
    EXPECT(pool_check(pool), -EOWNERDEAD); /* who polls the pidfd calls this */
    EXPECT(poll(&notify, 1, 1000), 1);
    EXPECT(pool_next_completed(pool, &announced), 1);
    EXPECT(announced.index == future.index && announced.generation == future.generation, true);
    EXPECT(pool_future_outcome(&future, NULL), POOL_LOST);
    pool_destroy(pool);
}

/* ---- The host ---- */

/* In memory shared with the test: what the host says of its pool before it dies. */
struct report {
    _Atomic uint32_t ready, threaded;
    pid_t pids[WORKERS + 1];
    struct gate gate;
    bool idle;
    int end; /* how the host ends */
};

static int job_report(struct pool_job *job, const void *argument, size_t size)
{
    struct report *report = *(struct report *const *)argument;

    (void)job;
    (void)size;
    report->pids[pool_worker_index()] = getpid();
    harness_raise(&report->gate.reached);
    if (!report->idle)
        for (;;)
            pause();
    return 0;
}

static void *make_pool(void *context)
{
    *(struct pool **)context = harness_pool(WORKERS, LIMIT);
    return NULL;
}

static void be_a_host(void *context)
{
    struct report *report = context;
    struct pool_stats stats = {.size = sizeof stats};
    struct pool *pool = NULL;
    pthread_t thread;
    int i;

    if (report->threaded) {
        REQUIRE(pthread_create(&thread, NULL, make_pool, &pool), 0);
        pthread_join(thread, NULL);
    } else {
        make_pool(&pool);
    }
    for (i = 0; i < WORKERS * 3; i++)
        REQUIRE(pool_submit(pool, job_report, &report, sizeof report, NULL), 0);
    REQUIRE(harness_await(&report->gate.reached, report->idle ? WORKERS * 3 : WORKERS), true);
    for (i = 0; i < WORKERS; i++) {
        close(harness_worker(pool, i));
        report->pids[i] = pool_worker_pid(pool, i);
    }
    pool_get_stats(pool, &stats);
    report->pids[WORKERS] = stats.supervisor;
    harness_raise(&report->ready);
    if (report->end == 0)
        for (;;)
            (void)pool_submit(pool, job_nothing, NULL, 0, NULL); /* it dies in the middle of this */
    if (report->end == 1)
        for (;;)
            pause();
    exit(0); /* without pool_destroy() */
}

static int count_files(void)
{
    DIR *names = opendir("/dev/shm");
    struct dirent *entry;
    int count = 0;

    while (names && (entry = readdir(names)))
        count += strstr(entry->d_name, "libpool") != NULL; /* others come and go */
    if (names)
        closedir(names);
    return count;
}

static void expect_nothing_left(bool idle, bool threaded, int end)
{
    struct report *report = harness_shared(sizeof *report);
    int i, pidfds[WORKERS + 1], files = count_files();
    pid_t host;

    report->idle = idle;
    report->threaded = threaded;
    report->end = end;
    host = harness_spawn(be_a_host, report, 30);
    REQUIRE(harness_await(&report->ready, 1), true);
    for (i = 0; i <= WORKERS; i++) {
        pidfds[i] = harness_pidfd(report->pids[i]);
        EXPECT(pidfds[i] >= 0 || end == 2, true);
    }
    if (end != 2)
        EXPECT(kill(host, SIGKILL), 0);
    harness_reap(host);
    for (i = 0; i <= WORKERS; i++) {
        EXPECT(pidfds[i] < 0 || harness_ends(pidfds[i], 1000), true);
        close(pidfds[i]);
    }
    EXPECT(count_files(), files);
}

static void a_host_killed_while_it_submits_leaves_no_process(void)
{
    expect_nothing_left(false, false, 0);
}

static void a_host_killed_while_its_pool_is_idle_leaves_no_process(void)
{
    expect_nothing_left(true, false, 1);
}

static void a_host_killed_whose_pool_a_thread_had_made_leaves_no_process(void)
{
    expect_nothing_left(false, true, 1);
}

static void a_host_that_exits_without_destroying_its_pool_leaves_no_process(void)
{
    expect_nothing_left(false, false, 2);
}

static void a_pool_made_in_a_thread_outlives_it(void)
{
    struct pool *pool = NULL;
    struct pool_future future;
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, make_pool, &pool), 0);
    pthread_join(thread, NULL);
    close(harness_worker(pool, 0));
    future = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(harness_status(&future), 0);
    EXPECT(harness_ends(pool_supervisor_fd(pool), 200),
           false); /* as it would, were it tied to it */
    future = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(harness_status(&future), 0);
    EXPECT(pool_check(pool), 0);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(jobs_without_a_result_are_lost_within_a_second),
    TEST(the_death_of_an_idle_pools_supervisor_is_noticed),
    TEST(a_job_submitted_after_the_death_is_refused_or_lost),
    TEST(a_job_prepared_before_and_committed_after_the_break_does_not_wait_for_ever),
    TEST(a_job_prepared_before_and_committed_after_terminate_does_not_wait_for_ever),
    TEST(a_supervisor_that_dies_while_the_pool_closes_loses_the_jobs_and_ends_the_join),
    TEST(all_threads_that_wait_are_told),
    TEST(a_map_ends_when_the_supervisor_dies),
    TEST(the_descriptors_for_event_loops_become_readable),
    TEST(a_host_killed_while_it_submits_leaves_no_process),
    TEST(a_host_killed_while_its_pool_is_idle_leaves_no_process),
    TEST(a_host_killed_whose_pool_a_thread_had_made_leaves_no_process),
    TEST(a_host_that_exits_without_destroying_its_pool_leaves_no_process),
    TEST(a_pool_made_in_a_thread_outlives_it),
};

HARNESS_MAIN("pool: deaths of supervisor and host", tests)
