/* Futures: cancelled, released, stale, or none at all. */
#include <errno.h>
#include <string.h>

#include "harness.h"

#define LIMIT (64 * MEBIBYTE)

/* A pool of one worker, which a job at a gate keeps busy. */
struct busy {
    struct pool *pool;
    struct gate *gate;
    struct pool_future running;
};

static struct busy make_busy(uint64_t limit)
{
    struct busy busy = {.gate = harness_shared(sizeof *busy.gate)};

    busy.pool = harness_pool(1, limit);
    busy.running = harness_submit(busy.pool, job_gate, &busy.gate, sizeof busy.gate);
    REQUIRE(harness_await(&busy.gate->reached, 1), true);
    return busy;
}

static int job_raise(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)size;
    harness_raise(*(_Atomic uint32_t *const *)argument);
    return 0;
}

static void expect_stale(const struct pool_future *future)
{
    EXPECT(pool_future_wait(future, 0), -ESTALE);
    EXPECT(pool_future_outcome(future, NULL), -ESTALE);
    EXPECT(pool_future_result(future, NULL, NULL), -ESTALE);
    EXPECT(pool_future_cancel(future), -ESTALE);
    EXPECT(pool_future_notify(future), -ESTALE);
}

/* ---- Cancelling ---- */

static void a_waiting_job_can_be_cancelled_and_never_runs(void)
{
    _Atomic uint32_t *count = harness_shared(sizeof *count);
    struct busy busy = make_busy(LIMIT);
    struct pool_future first = harness_submit(busy.pool, job_raise, &count, sizeof count);
    struct pool_future second = harness_submit(busy.pool, job_raise, &count, sizeof count);

    EXPECT(pool_future_cancel(&first), 0);
    EXPECT(pool_future_cancel(&first), -EBUSY); /* it has ended */
    EXPECT(pool_future_wait(&first, 0), 0);
    EXPECT(pool_future_outcome(&first, NULL), POOL_CANCELLED);
    EXPECT(pool_future_result(&first, NULL, NULL), -ECANCELED);
    pool_future_release(&first);
    expect_stale(&first);
    harness_raise(&busy.gate->open);
    EXPECT(harness_status(&second), 0);
    EXPECT(*count, 1);
    pool_destroy(busy.pool);
}

static void a_running_or_ended_job_cannot_be_cancelled(void)
{
    struct busy busy = make_busy(LIMIT);

    EXPECT(pool_future_cancel(&busy.running), -EBUSY);
    harness_raise(&busy.gate->open);
    EXPECT(harness_outcome(&busy.running, NULL), POOL_FINISHED);
    EXPECT(pool_future_cancel(&busy.running), -EBUSY);
    EXPECT(pool_future_outcome(&busy.running, NULL), POOL_FINISHED);
    pool_destroy(busy.pool);
}

static void all_waiting_jobs_can_be_cancelled_at_once(void)
{
    _Atomic uint32_t *count = harness_shared(sizeof *count);
    struct busy busy = make_busy(LIMIT);
    struct pool_future futures[50];
    int i;

    for (i = 0; i < 50; i++)
        futures[i] = harness_submit(busy.pool, job_raise, &count, sizeof count);
    for (i = 0; i < 7; i++) /* and those that nobody waits for */
        EXPECT(pool_submit(busy.pool, job_raise, &count, sizeof count, NULL), 0);
    EXPECT(pool_future_cancel(&futures[10]), 0);
    EXPECT(pool_cancel_waiting(busy.pool), 56);
    EXPECT(pool_cancel_waiting(busy.pool), 0);
    for (i = 0; i < 50; i++) {
        EXPECT(pool_future_outcome(&futures[i], NULL), POOL_CANCELLED);
        pool_future_release(&futures[i]);
    }
    EXPECT(pool_future_outcome(&busy.running, NULL), POOL_RUNNING);
    harness_raise(&busy.gate->open);
    EXPECT(harness_status(&busy.running), 0);
    futures[0] = harness_submit(busy.pool, job_raise, &count, sizeof count);
    EXPECT(harness_status(&futures[0]), 0);
    EXPECT(*count, 1);
    pool_destroy(busy.pool);
}

static void cancelling_frees_what_the_job_had(void)
{
    static char bytes[300000];
    struct busy busy = make_busy(4 * MEBIBYTE);
    int i;

    for (i = 0; i < 500; i++) {
        struct pool_future future = harness_submit(busy.pool, job_echo, bytes, sizeof bytes);

        if (i % 2)
            EXPECT(pool_future_cancel(&future), 0);
        else
            EXPECT(pool_cancel_waiting(busy.pool), 1);
        pool_future_release(&future);
    }
    harness_raise(&busy.gate->open);
    pool_destroy(busy.pool);
}

/* ---- Releasing ---- */

static void a_released_future_is_stale_and_a_second_release_harmless(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future = harness_submit(pool, job_nothing, NULL, 0), copy = future;

    EXPECT(harness_status(&future), 0);
    expect_stale(&future);
    expect_stale(&copy);
    pool_future_release(&copy);
    pool_future_release(&future);
    expect_stale(&copy);
    pool_destroy(pool);
}

static void a_stale_future_does_nothing_to_the_job_that_has_its_slot_now(void)
{
    struct busy busy = make_busy(LIMIT);
    struct pool_future old = harness_submit(busy.pool, job_nothing, NULL, 0), now;

    EXPECT(pool_future_cancel(&old), 0);
    pool_future_release(&old);
    now = harness_submit(busy.pool, job_echo, "mine", 4);
    REQUIRE(now.index, old.index);
    expect_stale(&old);
    pool_future_release(&old);
    EXPECT(pool_future_outcome(&now, NULL), POOL_PENDING);
    harness_raise(&busy.gate->open);
    EXPECT(harness_outcome(&now, NULL), POOL_FINISHED);
    expect_stale(&old);
    pool_future_release(&old);
    EXPECT(harness_status(&now), 0);
    pool_destroy(busy.pool);
}

static void a_job_released_before_its_end_runs_all_the_same(void)
{
    _Atomic uint32_t *count = harness_shared(sizeof *count);
    struct busy busy = make_busy(LIMIT);
    struct pool_future waiting = harness_submit(busy.pool, job_raise, &count, sizeof count);

    pool_future_release(&waiting);
    pool_future_release(&busy.running);
    harness_raise(&busy.gate->open);
    EXPECT(harness_await(count, 1), true);
    EXPECT(pool_close(busy.pool), 0);
    EXPECT(pool_join(busy.pool, 20 * SECOND), 0);
    expect_stale(&waiting);
    expect_stale(&busy.running);
    pool_destroy(busy.pool);
}

static void a_future_released_before_the_end_is_stale_at_once(void)
{
    struct busy busy = make_busy(LIMIT);
    struct pool_future waiting = harness_submit(busy.pool, job_nothing, NULL, 0);

    pool_future_release(&waiting);
    pool_future_release(&busy.running);
    expect_stale(&waiting);
    expect_stale(&busy.running);
    harness_raise(&busy.gate->open);
    pool_destroy(busy.pool);
}

static void results_that_nobody_wants_are_freed(void)
{
    static char bytes[200000];
    struct pool *pool = harness_pool(2, 8 * MEBIBYTE);
    int i;

    for (i = 0; i < 500; i++) {
        struct pool_future future, last;

        while (pool_submit(pool, job_echo, bytes, sizeof bytes, &future) == -ENOMEM) {
            last = harness_submit(pool, job_nothing, NULL, 0); /* let the others come to an end */
            EXPECT(harness_status(&last), 0);
        }
        pool_future_release(&future);
    }
    pool_destroy(pool);
}

/* ---- Futures that are none ---- */

static void use_futures_that_are_none(void *context)
{
    struct pool_future empty = {NULL, 0, 0}, far, garbage;

    garbage = far = (struct pool_future){context, UINT32_MAX, 0};
    garbage.index = 5000000;
    EXPECT(pool_future_wait(&empty, 0) < 0, true);
    EXPECT(pool_future_outcome(&empty, NULL) < 0, true);
    EXPECT(pool_future_result(&empty, NULL, NULL) < 0, true);
    EXPECT(pool_future_cancel(&empty) < 0, true);
    EXPECT(pool_future_notify(&empty) < 0, true);
    expect_stale(&far);
    expect_stale(&garbage);
}

static void release_futures_that_are_none(void *context)
{
    struct pool_future empty = {NULL, 0, 0}, far = {context, UINT32_MAX, 0};

    pool_future_release(&far);
    pool_abandon(&far);
    EXPECT(pool_commit(&far, job_nothing) < 0, true);
    EXPECT(pool_commit_host(&far, 1) < 0, true);
    pool_future_release(&empty);
    pool_abandon(&empty);
    EXPECT(pool_commit(&empty, job_nothing) < 0, true);
}

/* Each in a process with a pool of its own, so that a crash fails this test alone. */
static void with_own_pool(void *context)
{
    struct pool *pool = harness_pool(1, LIMIT);

    (*(void (**)(void *))context)(pool);
    pool_destroy(pool);
}

static void a_future_that_is_none_is_an_error(void)
{
    void (*body)(void *) = use_futures_that_are_none;

    EXPECT(harness_fork(with_own_pool, &body, 20), 0);
}

static void releasing_or_committing_a_future_that_is_none_is_harmless(void)
{
    void (*body)(void *) = release_futures_that_are_none;

    EXPECT(harness_fork(with_own_pool, &body, 20), 0);
}

static const struct harness_test tests[] = {
    TEST(a_waiting_job_can_be_cancelled_and_never_runs),
    TEST(a_running_or_ended_job_cannot_be_cancelled),
    TEST(all_waiting_jobs_can_be_cancelled_at_once),
    TEST(cancelling_frees_what_the_job_had),
    TEST(a_released_future_is_stale_and_a_second_release_harmless),
    TEST(a_stale_future_does_nothing_to_the_job_that_has_its_slot_now),
    TEST(a_job_released_before_its_end_runs_all_the_same),
    TEST(a_future_released_before_the_end_is_stale_at_once),
    TEST(results_that_nobody_wants_are_freed),
    TEST(a_future_that_is_none_is_an_error),
    TEST(releasing_or_committing_a_future_that_is_none_is_harmless),
};

HARNESS_MAIN("pool: futures", tests)
