/* A pool that a process inherited through somebody else's fork() is inert there. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define LIMIT (64 * MEBIBYTE)

struct inherited {
    struct pool *pool;
    struct pool_future future, prepared;
    uint64_t block;
    struct gate *gate;
};

static void call_everything(void *context)
{
    struct inherited *inherited = context;
    struct pool *pool = inherited->pool;
    struct pool_stats stats = {.size = sizeof stats};
    struct pool_future future = inherited->future, other;
    uint64_t reference;
    void *memory;
    size_t size;

    EXPECT(pool_check(pool), -EXDEV);
    EXPECT(pool_submit(pool, job_nothing, NULL, 0, &other), -EXDEV);
    EXPECT(pool_submit(pool, job_nothing, NULL, 0, NULL), -EXDEV);
    EXPECT(pool_prepare(pool, 5, &other, &memory), -EXDEV);
    EXPECT(pool_map(pool, job_nothing, NULL, 0, 5, NULL, 0), -EXDEV);
    EXPECT(pool_future_wait(&future, POOL_FOREVER), -EXDEV);
    EXPECT(pool_future_outcome(&future, NULL), -EXDEV);
    EXPECT(pool_future_result(&future, NULL, NULL), -EXDEV);
    EXPECT(pool_future_cancel(&future), -EXDEV);
    EXPECT(pool_future_notify(&future), -EXDEV);
    EXPECT(pool_cancel_waiting(pool), -EXDEV);
    EXPECT(pool_next_completed(pool, &other), -EXDEV);
    EXPECT(pool_alloc(pool, 100, &reference, &memory), -EXDEV);
    EXPECT(pool_lookup(pool, inherited->block, &memory, &size), -EXDEV);
    EXPECT(pool_get_stats(pool, &stats), -EXDEV);
    EXPECT(pool_worker_pid(pool, 0), 0);
    EXPECT(pool_notify_fd(pool) < 0, true);
    EXPECT(pool_supervisor_fd(pool) < 0, true);
    EXPECT(pool_close(pool), -EXDEV);
    EXPECT(pool_join(pool, POOL_FOREVER), -EXDEV);
    EXPECT(pool_terminate(pool), -EXDEV);
    EXPECT(pool_current() == NULL, true);
    EXPECT(pool_worker_index(), -1);
    pool_free(pool, inherited->block);
    pool_future_release(&future);
    pool_abandon(&inherited->prepared);
}

static void commit_what_the_parent_prepared(void *context)
{
    struct inherited *inherited = context;

    EXPECT(pool_commit(&inherited->prepared, job_nothing), -EXDEV);
    EXPECT(pool_commit_host(&inherited->prepared, 1), -EXDEV);
}

static void destroy_it(void *context)
{
    pool_destroy(((struct inherited *)context)->pool);
}

static void leave_it_alone(void *context)
{
    (void)context;
}

/* Does body in a child, while a job runs and one waits, and looks whether the owner notices. */
static void expect_owner_unaffected(void (*body)(void *context))
{
    struct inherited inherited = {.gate = harness_shared(sizeof(struct gate))};
    struct pool_future running;
    void *memory;
    size_t size;

    inherited.pool = harness_pool(1, LIMIT);
    running = harness_submit(inherited.pool, job_gate, &inherited.gate, sizeof inherited.gate);
    inherited.future = harness_submit(inherited.pool, job_echo, "mine", 4);
    REQUIRE(pool_prepare(inherited.pool, 0, &inherited.prepared, &memory), 0);
    REQUIRE(pool_alloc(inherited.pool, 77, &inherited.block, &memory), 0);
    REQUIRE(harness_await(&inherited.gate->reached, 1), true);
    EXPECT(harness_fork(body, &inherited, 20), 0);
    EXPECT(pool_check(inherited.pool), 0);
    EXPECT(pool_future_outcome(&inherited.future, NULL), POOL_PENDING);
    EXPECT(pool_lookup(inherited.pool, inherited.block, &memory, &size), 0);
    EXPECT(pool_commit(&inherited.prepared, job_nothing), 0);
    harness_raise(&inherited.gate->open);
    EXPECT(harness_status(&running), 0);
    EXPECT(harness_status(&inherited.future), 0);
    EXPECT(harness_status(&inherited.prepared), 0);
    pool_destroy(inherited.pool);
}

static void every_call_in_the_child_is_exdev_and_the_owner_unaffected(void)
{
    expect_owner_unaffected(call_everything);
}

static void what_the_parent_prepared_cannot_be_committed_by_the_child(void)
{
    expect_owner_unaffected(commit_what_the_parent_prepared);
}

static void destroying_it_in_the_child_is_harmless(void)
{
    expect_owner_unaffected(destroy_it);
}

static void the_end_of_the_child_is_harmless(void)
{
    expect_owner_unaffected(leave_it_alone);
}

static void make_own_pool(void *context)
{
    struct inherited *inherited = context;
    struct pool *own = harness_pool(2, LIMIT);
    struct pool_future future = harness_submit(own, job_nothing, NULL, 0);

    EXPECT(harness_status(&future), 0);
    EXPECT(pool_check(inherited->pool), -EXDEV);
    pool_destroy(own);
    pool_destroy(inherited->pool);
}

static void the_child_may_have_a_pool_of_its_own(void)
{
    expect_owner_unaffected(make_own_pool);
}

/* None of the descriptors is the pool's memory. */
static void look_for_descriptors(void *context)
{
    char path[64], target[128];
    int fd;

    (void)context;
    for (fd = 0; fd < 1000; fd++) {
        ssize_t length;

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        length = readlink(path, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        EXPECT(strstr(target, "memfd:libpool") == NULL, true);
        EXPECT(strstr(target, "pidfd") == NULL, true);
    }
}

static void the_child_holds_none_of_the_pools_descriptors(void)
{
    expect_owner_unaffected(look_for_descriptors);
}

/* ---- A job that forks ---- */

static int child_of_job(struct pool *pool)
{
    struct pool_future future;
    int failures = 0;

    failures += pool_current() != NULL;
    failures += pool_worker_index() != -1;
    failures += pool_check(pool) != -EXDEV;
    failures += pool_submit(pool, job_nothing, NULL, 0, &future) != -EXDEV;
    failures += pool_terminate(pool) != -EXDEV;
    return failures;
}

static int job_fork(struct pool_job *job, const void *argument, size_t size)
{
    struct pool *pool = pool_current();
    pid_t pid = fork();
    int status = -1;

    (void)job;
    (void)argument;
    (void)size;
    if (pid == 0)
        _exit(child_of_job(pool));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

/* The number of those calls that did not find the pool inert. */
static void the_pool_is_inert_in_a_child_that_a_job_forks(void *context)
{
    struct pool *first = harness_pool(1, LIMIT), *second = harness_pool(1, LIMIT);
    struct pool_future future = harness_submit(second, job_fork, NULL, 0);

    (void)context;
    EXPECT(harness_status(&future), 0);
    future = harness_submit(first, job_fork, NULL, 0);
    EXPECT(harness_status(&future), 0);
    future = harness_submit(first, job_nothing, NULL, 0);
    EXPECT(harness_status(&future), 0);
    pool_destroy(first);
    pool_destroy(second);
}

static void a_child_forked_by_a_job_has_no_pool(void)
{
    /* In a fresh process: its first pool is made before libpool hears of forks. */
    EXPECT(harness_fork(the_pool_is_inert_in_a_child_that_a_job_forks, NULL, 20), 0);
}

/* Goes on in both processes, and says whether the parent saw the child end well. */
static int job_return_twice(struct pool_job *job, const void *argument, size_t size)
{
    _Atomic uint32_t *items = *(_Atomic uint32_t *const *)argument;
    pid_t pid = fork();
    int status = -1;

    (void)size;
    if (pid == 0)
        return pool_job_reserve(job, 4) ? 0 : -errno;
    harness_raise(items);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0 ? pool_job_return(job, "once", 4) : -ECHILD;
}

/* Else it would go on as the worker that it is a copy of. */
static void a_child_that_returns_from_the_job_ends_there(void)
{
    _Atomic uint32_t *items = harness_shared(sizeof *items), *each[10];
    struct pool *pool = harness_pool(2, LIMIT);
    char results[10][4];
    const void *data;
    size_t size;
    int i;

    for (i = 0; i < 10; i++) {
        struct pool_future future;

        each[i] = items;
        future = harness_submit(pool, job_return_twice, &items, sizeof items);
        EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
        EXPECT(pool_future_result(&future, &data, &size), 0);
        EXPECT(size == 4 && memcmp(data, "once", 4) == 0, true);
        pool_future_release(&future);
    }
    EXPECT(pool_map(pool, job_return_twice, each, sizeof *each, 10, results, 4), 0);
    for (i = 0; i < 10; i++)
        EXPECT(memcmp(results[i], "once", 4), 0);
    EXPECT(*items, 20);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(a_child_forked_by_a_job_has_no_pool), /* the first, since the first pool is special */
    TEST(every_call_in_the_child_is_exdev_and_the_owner_unaffected),
    TEST(what_the_parent_prepared_cannot_be_committed_by_the_child),
    TEST(destroying_it_in_the_child_is_harmless),
    TEST(the_end_of_the_child_is_harmless),
    TEST(the_child_may_have_a_pool_of_its_own),
    TEST(the_child_holds_none_of_the_pools_descriptors),
    TEST(a_child_that_returns_from_the_job_ends_there),
};

HARNESS_MAIN("pool: inherited by fork", tests)
