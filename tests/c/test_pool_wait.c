/* Waiting for all of several jobs, and for any of them. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)
#define SEVERAL 4

/* Jobs at gates of their own, each on a worker of its own. */
struct gated {
    struct pool *pool;
    struct gate *gates[SEVERAL];
    struct pool_future futures[SEVERAL];
};

static struct gated make_gated(void)
{
    struct gated gated = {.pool = harness_pool(SEVERAL, LIMIT)};
    int i;

    for (i = 0; i < SEVERAL; i++) {
        gated.gates[i] = harness_shared(sizeof **gated.gates);
        gated.futures[i] =
            harness_submit(gated.pool, job_gate, &gated.gates[i], sizeof gated.gates[i]);
        REQUIRE(harness_await(&gated.gates[i]->reached, 1), true);
    }
    return gated;
}

static void end_gated(struct gated *gated)
{
    int i;

    for (i = 0; i < SEVERAL; i++)
        harness_raise(&gated->gates[i]->open);
    pool_destroy(gated->pool);
}

static int job_abort(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    _exit(3);
}

static int job_fail(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    return -EIO;
}

/* ---- All ---- */

static void a_wait_for_all_returns_when_the_last_has_ended(void)
{
    struct gated gated = make_gated();
    int i;

    for (i = 0; i < SEVERAL; i++) {
        EXPECT(pool_wait_all(gated.futures, SEVERAL, 0), -ETIMEDOUT);
        EXPECT(pool_wait_all(gated.futures, SEVERAL, MILLISECOND), -ETIMEDOUT);
        harness_raise(&gated.gates[i]->open);
    }
    EXPECT(pool_wait_all(gated.futures, SEVERAL, 20 * SECOND), 0);
    for (i = 0; i < SEVERAL; i++)
        EXPECT(pool_future_outcome(&gated.futures[i], NULL), POOL_FINISHED);
    EXPECT(pool_wait_all(gated.futures, SEVERAL, 0), 0);
    end_gated(&gated);
}

static void a_wait_for_all_does_not_mind_how_they_end(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool_future futures[5];

    futures[0] = harness_submit(pool, job_abort, NULL, 0);
    futures[1] = harness_submit(pool, job_fail, NULL, 0);
    futures[2] = harness_submit(pool, job_gate, &gate, sizeof gate);
    futures[3] = harness_submit(pool, job_nothing, NULL, 0);
    futures[4] = (struct pool_future){NULL, 7, 7}; /* is passed over */
    REQUIRE(harness_await(&gate->reached, 1), true);
    EXPECT(pool_future_cancel(&futures[3]), 0);
    EXPECT(pool_future_kill(&futures[2]), 0);
    EXPECT(pool_wait_all(futures, 5, 20 * SECOND), 0);
    EXPECT(pool_future_outcome(&futures[0], NULL), POOL_DIED);
    EXPECT(pool_future_result(&futures[1], NULL, NULL), -EIO);
    EXPECT(pool_future_outcome(&futures[2], NULL), POOL_CANCELLED);
    EXPECT(pool_future_outcome(&futures[3], NULL), POOL_CANCELLED);
    pool_destroy(pool);
}

static void a_wait_for_all_may_be_for_jobs_of_several_pools(void)
{
    struct pool *pools[2] = {harness_pool(1, LIMIT), harness_pool(1, LIMIT)};
    struct pool_future futures[20];
    int i;

    for (i = 0; i < 20; i++)
        futures[i] = harness_submit(pools[i % 2], job_nothing, NULL, 0);
    EXPECT(pool_wait_all(futures, 20, 20 * SECOND), 0);
    for (i = 0; i < 20; i++)
        EXPECT(harness_status(&futures[i]), 0);
    pool_destroy(pools[0]);
    pool_destroy(pools[1]);
}

static void bad_waits_for_all_are_refused(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future futures[2];

    futures[0] = harness_submit(pool, job_nothing, NULL, 0);
    futures[1] = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(pool_wait_all(futures, 2, -1), -EINVAL);
    EXPECT(pool_wait_all(NULL, 0, 0), 0);
    EXPECT(pool_wait_all(futures, 2, POOL_FOREVER), 0);
    pool_future_release(&futures[1]);
    EXPECT(pool_wait_all(futures, 2, SECOND), -ESTALE);
    pool_destroy(pool);
}

/* ---- Any ---- */

static void a_wait_for_any_tells_which_has_ended(void)
{
    static const int order[SEVERAL] = {2, 0, 3, 1};
    struct gated gated = make_gated();
    int i;

    for (i = 0; i < SEVERAL; i++) {
        EXPECT(pool_wait_any(gated.futures, SEVERAL, 0), -ETIMEDOUT);
        EXPECT(pool_wait_any(gated.futures, SEVERAL, MILLISECOND), -ETIMEDOUT);
        harness_raise(&gated.gates[order[i]]->open);
        EXPECT(pool_wait_any(gated.futures, SEVERAL, 20 * SECOND), order[i]);
        EXPECT(harness_status(&gated.futures[order[i]]), 0);
        gated.futures[order[i]].pool = NULL;
    }
    EXPECT(pool_wait_any(gated.futures, SEVERAL, SECOND), -EINVAL); /* none is left */
    end_gated(&gated);
}

static void the_lowest_of_those_that_have_ended_is_told(void)
{
    struct gated gated = make_gated();

    harness_raise(&gated.gates[3]->open);
    harness_raise(&gated.gates[1]->open);
    EXPECT(pool_wait_all(&gated.futures[3], 1, 20 * SECOND), 0);
    EXPECT(pool_wait_all(&gated.futures[1], 1, 20 * SECOND), 0);
    EXPECT(pool_wait_any(gated.futures, SEVERAL, POOL_FOREVER), 1);
    EXPECT(pool_wait_any(gated.futures, SEVERAL, 0), 1); /* it is not used up */
    EXPECT(pool_wait_any(&gated.futures[2], 2, 0), 1);
    end_gated(&gated);
}

static void bad_waits_for_any_are_refused(void)
{
    struct pool *pools[2] = {harness_pool(1, LIMIT), harness_pool(1, LIMIT)};
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool_future futures[2];

    futures[0] = harness_submit(pools[0], job_gate, &gate, sizeof gate);
    futures[1] = harness_submit(pools[1], job_nothing, NULL, 0);
    EXPECT(pool_wait_any(futures, 2, 0), -EINVAL);
    EXPECT(pool_wait_any(futures, 1, -1), -EINVAL);
    EXPECT(pool_wait_any(futures, 0, 0), -EINVAL);
    EXPECT(pool_wait_any(NULL, 0, 0), -EINVAL);
    EXPECT(harness_status(&futures[1]), 0);
    futures[1].pool = pools[0]; /* of the same pool, and stale or none at all */
    futures[1].generation += 1000;
    EXPECT(pool_wait_any(futures, 2, 0), -ESTALE);
    futures[1].index = UINT32_MAX;
    EXPECT(pool_wait_any(futures, 2, 0), -ESTALE);
    harness_raise(&gate->open);
    pool_destroy(pools[0]);
    pool_destroy(pools[1]);
}

struct later {
    struct gated *gated;
    pid_t pid;
};

/* The waiter sleeps by then, most of the time; it has to hear of it either way. */
static void *kill_later(void *context)
{
    struct later *later = context;
    struct timespec pause = {.tv_nsec = 20000000};

    nanosleep(&pause, NULL);
    EXPECT(kill(later->pid, SIGKILL), 0);
    return NULL;
}

static void a_job_that_dies_with_its_worker_is_one_that_has_ended(void)
{
    struct gated gated = make_gated();
    struct later later = {&gated, pool_worker_pid(gated.pool, 2)};
    pthread_t thread;
    int64_t which;

    REQUIRE(pthread_create(&thread, NULL, kill_later, &later), 0);
    which = pool_wait_any(gated.futures, SEVERAL, POOL_FOREVER);
    REQUIRE(which >= 0 && which < SEVERAL, true);
    EXPECT(pool_future_outcome(&gated.futures[which], NULL), POOL_DIED);
    pthread_join(thread, NULL);
    end_gated(&gated);
}

static void a_job_that_is_killed_or_cancelled_is_one_that_has_ended(void)
{
    struct gated gated = make_gated();
    struct pool_future futures[SEVERAL + 1];

    memcpy(futures, gated.futures, sizeof gated.futures);
    futures[SEVERAL] = harness_submit(gated.pool, job_nothing, NULL, 0);
    EXPECT(pool_wait_any(futures, SEVERAL + 1, MILLISECOND), -ETIMEDOUT); /* marks them */
    EXPECT(pool_future_cancel(&futures[SEVERAL]), 0);
    EXPECT(pool_wait_any(futures, SEVERAL + 1, POOL_FOREVER), SEVERAL);
    EXPECT(pool_future_kill(&futures[1]), 0);
    EXPECT(pool_wait_any(futures, SEVERAL, POOL_FOREVER), 1);
    EXPECT(pool_future_outcome(&futures[1], NULL), POOL_CANCELLED);
    end_gated(&gated);
}

static void when_the_pool_breaks_all_are_lost(void)
{
    struct gated gated = make_gated();
    struct pool_stats stats = {.size = sizeof stats};
    struct later later = {.gated = &gated};
    pthread_t thread;
    int i;

    REQUIRE(pool_get_stats(gated.pool, &stats), 0);
    later.pid = stats.supervisor;
    REQUIRE(pthread_create(&thread, NULL, kill_later, &later), 0);
    EXPECT(pool_wait_any(gated.futures, SEVERAL, POOL_FOREVER), 0);
    EXPECT(pool_wait_all(gated.futures, SEVERAL, POOL_FOREVER), 0);
    for (i = 0; i < SEVERAL; i++)
        EXPECT(pool_future_outcome(&gated.futures[i], NULL), POOL_LOST);
    pthread_join(thread, NULL);
    end_gated(&gated);
}

static void ignore(int signal_number)
{
    (void)signal_number;
}

static void a_signal_handler_interrupts_the_waits(void)
{
    struct gated gated = make_gated();
    struct itimerval timer = {.it_interval = {.tv_usec = 10000}, .it_value = {.tv_usec = 10000}};
    struct sigaction action = {.sa_handler = ignore}, before;

    sigaction(SIGALRM, &action, &before);
    setitimer(ITIMER_REAL, &timer, NULL);
    EXPECT(pool_wait_any(gated.futures, SEVERAL, POOL_FOREVER), -EINTR);
    EXPECT(pool_wait_all(gated.futures, SEVERAL, POOL_FOREVER), -EINTR);
    memset(&timer, 0, sizeof timer);
    setitimer(ITIMER_REAL, &timer, NULL);
    sigaction(SIGALRM, &before, NULL);
    end_gated(&gated);
}

/* ---- Many ---- */

static int job_busy(struct pool_job *job, const void *argument, size_t size)
{
    int rounds = *(const int *)argument;
    volatile int i;

    (void)size;
    for (i = 0; i < rounds; i++)
        ;
    return pool_job_return(job, &rounds, sizeof rounds);
}

#define JOBS 60

/* Each job is told once, whatever the order in which they end. */
static void collect_by_any(void *context, unsigned number)
{
    struct pool *pool = context;
    struct pool_future futures[JOBS];
    uint64_t random = number + 1;
    int rounds[JOBS], round, left, i;

    for (round = 0; round < 20; round++) {
        for (i = 0; i < JOBS; i++)
            rounds[i] = (int)(harness_random(&random) % 5000);
        EXPECT(pool_submit_many(pool, NULL, job_busy, rounds, sizeof *rounds, JOBS, futures), JOBS);
        for (left = JOBS; left > 0; left--) {
            int64_t which = pool_wait_any(futures, JOBS, 20 * SECOND);
            const void *data;

            if (which < 0 || !futures[which].pool) {
                EXPECT(which, 0);
                return;
            }
            EXPECT(pool_future_result(&futures[which], &data, NULL), 0);
            EXPECT(*(const int *)data, rounds[which]);
            pool_future_release(&futures[which]);
            futures[which].pool = NULL;
        }
    }
}

static void threads_wait_for_any_of_their_own_jobs_at_once(void)
{
    struct pool *pool = harness_pool(3, LIMIT);

    harness_threads(3, collect_by_any, pool);
    pool_destroy(pool);
}

/* ---- In a job ---- */

static int job_waits_for_any(struct pool_job *job, const void *argument, size_t size)
{
    int rounds[8] = {1, 2, 3, 4, 5, 6, 7, 8}, left;
    struct pool_future futures[9] = {{NULL, 0, 0}};

    (void)job, (void)argument, (void)size;
    if (pool_submit_many(pool_current(), NULL, job_busy, rounds, sizeof *rounds, 8, futures + 1) !=
        8)
        return -EIO;
    for (left = 8; left > 0; left--) {
        int64_t which = pool_wait_any(futures, 9, 20 * SECOND);

        if (which < 1)
            return which < 0 ? (int)which : -EBADMSG;
        pool_future_release(&futures[which]);
        futures[which].pool = NULL;
    }
    return pool_wait_any(futures, 9, 0) == -EINVAL ? 0 : -EBADMSG;
}

static int job_waits_for_all(struct pool_job *job, const void *argument, size_t size)
{
    int rounds[8] = {1, 2, 3, 4, 5, 6, 7, 8}, i;
    struct pool_future futures[8];

    (void)job, (void)argument, (void)size;
    if (pool_submit_many(pool_current(), NULL, job_busy, rounds, sizeof *rounds, 8, futures) != 8)
        return -EIO;
    if (pool_wait_all(futures, 8, 20 * SECOND) != 0)
        return -EBADMSG;
    for (i = 0; i < 8; i++) {
        if (pool_future_outcome(&futures[i], NULL) != POOL_FINISHED)
            return -EBADMSG;
        pool_future_release(&futures[i]);
    }
    return 0;
}

/* The argument: two gates of jobs that other workers run. */
static int job_is_told_the_second(struct pool_job *job, const void *argument, size_t size)
{
    struct gate *const *gates = argument;
    struct pool_future futures[2];
    int64_t which;
    int i;

    (void)job, (void)size;
    for (i = 0; i < 2; i++)
        if (pool_submit(pool_current(), job_gate, &gates[i], sizeof gates[i], &futures[i]) != 0 ||
            !harness_await(&gates[i]->reached, 1))
            return -EIO;
    if (pool_wait_any(futures, 2, MILLISECOND) != -ETIMEDOUT)
        return -EBADMSG;
    harness_raise(&gates[1]->open);
    which = pool_wait_any(futures, 2, 20 * SECOND);
    harness_raise(&gates[0]->open);
    return which == 1 && pool_wait_all(futures, 2, 20 * SECOND) == 0 ? 0 : -EBADMSG;
}

static void jobs_wait_for_their_own_jobs_with_any_number_of_workers(void)
{
    struct gate *gates[2] = {harness_shared(sizeof **gates), harness_shared(sizeof **gates)};
    struct pool_future future;
    int workers;

    for (workers = 1; workers <= 3; workers++) {
        struct pool *pool = harness_pool(workers, LIMIT);

        future = harness_submit(pool, job_waits_for_any, NULL, 0);
        EXPECT(harness_status(&future), 0);
        future = harness_submit(pool, job_waits_for_all, NULL, 0);
        EXPECT(harness_status(&future), 0);
        if (workers == 3) {
            future = harness_submit(pool, job_is_told_the_second, gates, sizeof gates);
            EXPECT(harness_status(&future), 0);
        }
        pool_destroy(pool);
    }
}

/* ---- Inherited ---- */

static void in_a_fork(void *context)
{
    struct gated *gated = context;

    EXPECT(pool_wait_any(gated->futures, SEVERAL, 0), -EXDEV);
    EXPECT(pool_wait_all(gated->futures, SEVERAL, 0), -EXDEV);
    EXPECT(pool_submit_many(gated->pool, NULL, job_nothing, NULL, 0, 3, NULL), -EXDEV);
}

static void a_process_that_inherits_the_pool_can_not_wait(void)
{
    struct gated gated = make_gated();

    EXPECT(harness_fork(in_a_fork, &gated, 20), 0);
    end_gated(&gated);
}

static const struct harness_test tests[] = {
    TEST(a_wait_for_all_returns_when_the_last_has_ended),
    TEST(a_wait_for_all_does_not_mind_how_they_end),
    TEST(a_wait_for_all_may_be_for_jobs_of_several_pools),
    TEST(bad_waits_for_all_are_refused),
    TEST(a_wait_for_any_tells_which_has_ended),
    TEST(the_lowest_of_those_that_have_ended_is_told),
    TEST(bad_waits_for_any_are_refused),
    TEST(a_job_that_dies_with_its_worker_is_one_that_has_ended),
    TEST(a_job_that_is_killed_or_cancelled_is_one_that_has_ended),
    TEST(when_the_pool_breaks_all_are_lost),
    TEST(a_signal_handler_interrupts_the_waits),
    TEST(threads_wait_for_any_of_their_own_jobs_at_once),
    TEST(jobs_wait_for_their_own_jobs_with_any_number_of_workers),
    TEST(a_process_that_inherits_the_pool_can_not_wait),
};

HARNESS_MAIN("waiting for several jobs", tests)
