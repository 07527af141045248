/* What a job may not exceed, nor a worker: time, memory, number of jobs. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)
#define NO_RETRIES 0

/* How late an answer may be on a machine that is busy with other things. */
#define PATIENT (10 * SECOND)

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

/* ---- Time limits ---- */

static void a_late_jobs_worker_is_killed_and_replaced_and_others_go_on(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_stats stats = {.size = sizeof stats};
    struct pool_future other = harness_submit(pool, job_gate, &gate, sizeof gate), late;
    const int64_t limit = 100 * MILLISECOND;
    int64_t begin, took;

    REQUIRE(harness_await(&gate->reached, 1), true);
    begin = system_now();
    late = submit_with(pool, limit, NO_RETRIES, job_gate, &gate, sizeof gate);
    EXPECT(harness_outcome(&late, NULL), POOL_TIMEOUT);
    took = system_now() - begin;
    EXPECT(took >= limit, true);
    EXPECT(took < PATIENT, true);
    EXPECT(pool_future_result(&late, NULL, NULL), -ETIME);
    EXPECT(pool_future_cancel(&late), -EBUSY);
    EXPECT(pool_future_kill(&late), -EBUSY);
    EXPECT(pool_future_outcome(&late, NULL), POOL_TIMEOUT);
    pool_future_release(&late);
    EXPECT(pool_future_outcome(&late, NULL), -ESTALE);
    expect_works(pool); /* the replacement, for the other worker is still at it */
    EXPECT(pool_future_outcome(&other, NULL), POOL_RUNNING);
    harness_raise(&gate->open);
    EXPECT(harness_status(&other), 0);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.workers_started, 3);
    pool_destroy(pool);
}

static void time_counts_running_and_not_waiting(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future first = harness_submit(pool, job_gate, &gate, sizeof gate), futures[10];
    const int64_t limit = 300 * MILLISECOND;
    int i;

    REQUIRE(harness_await(&gate->reached, 1), true);
    for (i = 0; i < 10; i++)
        futures[i] = submit_with(pool, limit, NO_RETRIES, job_nothing, NULL, 0);
    pass(2 * limit);
    for (i = 0; i < 10; i++)
        EXPECT(pool_future_outcome(&futures[i], NULL), POOL_PENDING);
    harness_raise(&gate->open);
    EXPECT(harness_status(&first), 0);
    for (i = 0; i < 10; i++)
        EXPECT(harness_status(&futures[i]), 0);
    pool_destroy(pool);
}

static void each_of_many_late_jobs_gets_its_own_end(void)
{
    enum { JOBS = 24 };
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future futures[JOBS];
    int i;

    /* Every third one is late, and some of them much later than others. */
    for (i = 0; i < JOBS; i++)
        futures[i] = i % 3 ? harness_submit(pool, job_echo, &i, sizeof i)
                           : submit_with(pool, (5 + i) * MILLISECOND, NO_RETRIES, job_gate, &gate,
                                         sizeof gate);
    for (i = 0; i < JOBS; i++) {
        const void *data = NULL;

        EXPECT(harness_outcome(&futures[i], NULL), i % 3 ? POOL_FINISHED : POOL_TIMEOUT);
        if (i % 3 && pool_future_result(&futures[i], &data, NULL) == 0)
            EXPECT(*(const int *)data, i);
        pool_future_release(&futures[i]);
    }
    expect_works(pool);
    pool_destroy(pool);
}

/* Argument: for how long to run. Its result is that number. */
static int job_busy(struct pool_job *job, const void *argument, size_t size)
{
    int64_t end = system_now() + *(const int64_t *)argument;

    while (system_now() < end)
        ;
    return pool_job_return(job, argument, size);
}

/* An end and a kill that race: one wins, and the loser leaves no trace. */
static void a_job_that_ends_right_at_its_limit_ends_once(void)
{
    enum { ROUNDS = HARNESS_SANITIZED ? 60 : 300 };
    struct pool *pool = harness_pool(2, LIMIT);
    const int64_t limit = 2 * MILLISECOND;
    uint64_t state = 1;
    int i, late = 0, finished = 0;

    for (i = 0; i < ROUNDS; i++) {
        int64_t time = limit + (int64_t)(harness_random(&state) % 200) * 1000 - 100000;
        struct pool_future racer =
            submit_with(pool, limit, NO_RETRIES, job_busy, &time, sizeof time);
        struct pool_future next = harness_submit(pool, job_echo, &i, sizeof i);
        int outcome = harness_outcome(&racer, NULL);
        const void *data = NULL;

        late += outcome == POOL_TIMEOUT;
        finished += outcome == POOL_FINISHED;
        if (outcome == POOL_FINISHED && pool_future_result(&racer, &data, NULL) == 0)
            EXPECT(*(const int64_t *)data, time);
        EXPECT(harness_outcome(&next, NULL), POOL_FINISHED);
        if (pool_future_result(&next, &data, NULL) == 0)
            EXPECT(*(const int *)data, i);
        EXPECT(pool_future_outcome(&racer, NULL), outcome);
        pool_future_release(&racer);
        pool_future_release(&next);
    }
    EXPECT(late + finished, ROUNDS);
    expect_works(pool);
    pool_destroy(pool);
}

static void a_stopped_worker_is_late_too(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future = submit_with(pool, SECOND, NO_RETRIES, job_gate, &gate, sizeof gate);

    REQUIRE(harness_await(&gate->reached, 1), true);
    close(harness_worker(pool, 0)); /* its pid may be told later than its first job begins */
    REQUIRE(pool_worker_pid(pool, 0) > 0, true);
    EXPECT(kill(pool_worker_pid(pool, 0), SIGSTOP), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_TIMEOUT);
    expect_works(pool);
    pool_destroy(pool);
}

static void a_late_job_that_nobody_waits_for_is_killed_too(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, 2 * MEBIBYTE);
    struct pool_options options;
    struct pool_future future;
    int i;

    pool_options_init(pool, &options);
    options.timeout = 5 * MILLISECOND;
    for (i = 0; i < 20; i++)
        EXPECT(pool_submit_with(pool, &options, job_gate, &gate, sizeof gate, NULL), 0);
    future = submit_with(pool, 5 * MILLISECOND, NO_RETRIES, job_gate, &gate, sizeof gate);
    pool_future_release(&future);
    expect_works(pool);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    pool_destroy(pool);
}

static void a_limit_holds_also_while_the_pool_closes(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future late =
        submit_with(pool, 50 * MILLISECOND, NO_RETRIES, job_gate, &gate, sizeof gate);
    struct pool_future after = harness_submit(pool, job_nothing, NULL, 0);

    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(pool_future_outcome(&late, NULL), POOL_TIMEOUT);
    EXPECT(pool_future_outcome(&after, NULL), POOL_FINISHED);
    pool_destroy(pool);
}

/* Also the one with the nearest limit was submitted last, when the supervisor slept until later. */
static void the_nearest_limit_counts(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future later =
        submit_with(pool, 1000 * SECOND, NO_RETRIES, job_gate, &gate, sizeof gate);
    struct pool_future sooner;
    int64_t begin;

    REQUIRE(harness_await(&gate->reached, 1), true);
    begin = system_now();
    sooner = submit_with(pool, 20 * MILLISECOND, NO_RETRIES, job_gate, &gate, sizeof gate);
    EXPECT(harness_outcome(&sooner, NULL), POOL_TIMEOUT);
    /* Not at the supervisor's next routine look, which is within 5 seconds. */
    EXPECT(system_now() - begin < 2 * SECOND, true);
    EXPECT(pool_future_outcome(&later, NULL), POOL_RUNNING);
    harness_raise(&gate->open);
    EXPECT(harness_status(&later), 0);
    pool_destroy(pool);
}

static void limits_near_forever_are_limits_without_overflow(void)
{
    static const int64_t limits[] = {POOL_FOREVER, POOL_FOREVER - 1, POOL_FOREVER / 2};
    struct pool *pool = harness_pool(1, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct pool_future future =
            submit_with(pool, limits[i], NO_RETRIES, job_echo, &i, sizeof i);

        EXPECT(harness_status(&future), 0);
    }
    pool_destroy(pool);
}

/* ---- Parts ---- */

struct parts {
    int64_t each;
    uint32_t count;
    struct gate *gate; /* the last one waits there, if there is one */
};

static int job_parts(struct pool_job *job, const void *argument, size_t size)
{
    const struct parts *parts = argument;
    uint32_t i;

    (void)size;
    for (i = 0; i < parts->count; i++) {
        pool_job_part(job, i);
        pass(parts->each);
    }
    return parts->gate ? job_gate(job, &parts->gate, sizeof parts->gate) : 0;
}

static void time_counts_anew_for_each_part(void)
{
    struct parts parts = {.each = 200 * MILLISECOND, .count = 6};
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future =
        submit_with(pool, 800 * MILLISECOND, NO_RETRIES, job_parts, &parts, sizeof parts);

    EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
    EXPECT(pool_future_part(&future), 5);
    pool_destroy(pool);
}

static void the_part_that_was_late_is_told(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct parts parts = {.count = 8, .gate = gate};
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future =
        submit_with(pool, 200 * MILLISECOND, NO_RETRIES, job_parts, &parts, sizeof parts);

    EXPECT(harness_outcome(&future, NULL), POOL_TIMEOUT);
    EXPECT(pool_future_part(&future), 7);
    pool_future_release(&future);
    EXPECT(pool_future_part(&future), -ESTALE);
    /* Without options it is allowed, and says nothing. */
    parts.gate = NULL;
    future = harness_submit(pool, job_parts, &parts, sizeof parts);
    EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
    EXPECT(pool_future_part(&future), 0);
    pool_destroy(pool);
}

struct item {
    struct gate *gate; /* to wait at, or none */
    int64_t value;
};

static int item_double(struct pool_job *job, const void *argument, size_t size)
{
    const struct item *item = argument;
    int64_t twice = item->value * 2;

    (void)size;
    if (item->gate)
        job_gate(job, &item->gate, sizeof item->gate);
    return pool_job_return(job, &twice, sizeof twice);
}

static void a_map_loses_the_chunk_of_its_late_item_only(void)
{
    enum { ITEMS = 64 };
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = pool_with_defaults(2, 200 * MILLISECOND, NO_RETRIES);
    struct item items[ITEMS];
    int64_t results[ITEMS];
    int i, lost = 0;

    for (i = 0; i < ITEMS; i++) {
        items[i] = (struct item){.gate = i == 21 ? gate : NULL, .value = i + 1};
        results[i] = -1;
    }
    EXPECT(pool_map(pool, item_double, items, sizeof *items, ITEMS, results, sizeof *results),
           -ETIME);
    for (i = 0; i < ITEMS; i++) {
        lost += results[i] == -1;
        if (results[i] != -1)
            EXPECT(results[i], 2 * (i + 1));
    }
    EXPECT(results[21], -1);
    EXPECT(lost, ITEMS / (2 * 8) + 1);
    expect_works(pool);
    pool_destroy(pool);
}

static void in_a_map_time_counts_anew_for_each_item(void)
{
    enum { ITEMS = 80 };
    static const int64_t time = 40 * MILLISECOND;
    /* Chunks of eleven items: less than they take together, and ten times what one takes, for a
     * busy machine. */
    struct pool *pool = pool_with_defaults(1, 400 * MILLISECOND, NO_RETRIES);
    int64_t items[ITEMS], results[ITEMS];
    int i, status;

    for (i = 0; i < ITEMS; i++)
        items[i] = time;
    status = pool_map(pool, job_busy, items, sizeof *items, ITEMS, results, sizeof *results);
    EXPECT(status, 0);
    for (i = 0; i < ITEMS; i++)
        EXPECT(results[i], time);
    pool_destroy(pool);
}

/* ---- Nested ---- */

struct family {
    struct gate *gate; /* where the child waits */
    _Atomic uint32_t *ended;
    int64_t timeout; /* of the child; 0: the pool's default */
    bool elsewhere;  /* the parent does not wait before another worker runs the child */
};

static int job_child(struct pool_job *job, const void *argument, size_t size)
{
    const struct family *family = argument;
    int status = job_gate(job, &family->gate, sizeof family->gate);

    (void)size;
    if (status == 0)
        harness_raise(family->ended);
    return status;
}

/* Returns what it reads as the child's status. */
static int job_parent(struct pool_job *job, const void *argument, size_t size)
{
    const struct family *family = argument;
    struct pool_options options;
    struct pool_future child;
    int status;

    (void)job;
    pool_options_init(pool_current(), &options);
    if (family->timeout)
        options.timeout = family->timeout;
    status = pool_submit_with(pool_current(), &options, job_child, argument, size, &child);
    if (status)
        return status;
    if (family->elsewhere && !harness_await(&family->gate->reached, 1))
        return -EIO;
    status = pool_future_wait(&child, POOL_FOREVER);
    return status ? status : pool_future_result(&child, NULL, NULL);
}

static struct family make_family(int64_t timeout, bool elsewhere)
{
    return (struct family){.gate = harness_shared(sizeof(struct gate)),
                           .ended = harness_shared(sizeof(uint32_t)),
                           .timeout = timeout,
                           .elsewhere = elsewhere};
}

static void the_defaults_go_for_nested_jobs(void)
{
    struct pool *pool = pool_with_defaults(2, 100 * MILLISECOND, NO_RETRIES);
    struct family family = make_family(0, true);
    struct pool_future parent =
        submit_with(pool, POOL_FOREVER, NO_RETRIES, job_parent, &family, sizeof family);

    EXPECT(harness_status(&parent), -ETIME);
    EXPECT(*family.ended, 0);
    expect_works(pool);
    pool_destroy(pool);
}

static void a_late_child_on_another_worker_is_the_parents_to_see(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct family family = make_family(100 * MILLISECOND, true);
    struct pool_future parent = harness_submit(pool, job_parent, &family, sizeof family);

    EXPECT(harness_status(&parent), -ETIME);
    expect_works(pool);
    pool_destroy(pool);
}

/* There is no other worker that could run it, and none that could be killed for it. */
static void a_late_child_on_top_of_its_parent_takes_the_parent_along(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct family family = make_family(100 * MILLISECOND, false);
    struct pool_future parent = harness_submit(pool, job_parent, &family, sizeof family);
    int status = 0;

    EXPECT(harness_outcome(&parent, &status), POOL_DIED);
    EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, true);
    expect_works(pool);
    pool_destroy(pool);
}

static void a_late_parent_leaves_its_child_on_another_worker_alone(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct family family = make_family(POOL_FOREVER, true);
    struct pool_future parent =
        submit_with(pool, 200 * MILLISECOND, NO_RETRIES, job_parent, &family, sizeof family);

    EXPECT(harness_outcome(&parent, NULL), POOL_TIMEOUT);
    EXPECT(*family.ended, 0);
    harness_raise(&family.gate->open);
    EXPECT(harness_await(family.ended, 1), true);
    expect_works(pool);
    pool_destroy(pool);
}

static void a_late_parent_is_killed_with_its_child_on_top(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct family family = make_family(POOL_FOREVER, false);
    struct pool_future parent =
        submit_with(pool, 100 * MILLISECOND, NO_RETRIES, job_parent, &family, sizeof family);

    EXPECT(harness_outcome(&parent, NULL), POOL_TIMEOUT);
    EXPECT(family.gate->reached, 1);
    expect_works(pool);
    pool_destroy(pool);
}

static void a_job_with_a_limit_is_not_run_on_top_of_another(void)
{
    struct gate *endless = harness_shared(sizeof *endless);
    struct family family = make_family(POOL_FOREVER, true);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future parent = harness_submit(pool, job_parent, &family, sizeof family), late;

    REQUIRE(harness_await(&family.gate->reached, 1), true);
    late = submit_with(pool, 50 * MILLISECOND, NO_RETRIES, job_gate, &endless, sizeof endless);
    pass(200 * MILLISECOND);
    EXPECT(pool_future_outcome(&late, NULL), POOL_PENDING);
    harness_raise(&family.gate->open);
    EXPECT(harness_status(&parent), 0);
    EXPECT(harness_outcome(&late, NULL), POOL_TIMEOUT);
    pool_destroy(pool);
}

/* A worker whose job waits does not take it, so the wake-up is not for that one. */
static void an_idle_worker_takes_a_job_with_options_while_others_wait(void)
{
    struct pool *pool = harness_pool(4, LIMIT);
    int i;

    for (i = 0; i < 20; i++) {
        struct family family = make_family(POOL_FOREVER, true);
        _Atomic uint32_t *count = harness_shared(sizeof *count), *given = count;
        struct pool_future parent = harness_submit(pool, job_parent, &family, sizeof family);
        struct pool_options options;

        REQUIRE(harness_await(&family.gate->reached, 1), true);
        pass(5 * MILLISECOND); /* until all of them sleep */
        pool_options_init(pool, &options);
        options.timeout = 100 * SECOND;
        EXPECT(pool_submit_with(pool, &options, job_raise, &given, sizeof given, NULL), 0);
        REQUIRE(harness_await(count, 1), true);
        harness_raise(&family.gate->open);
        EXPECT(harness_status(&parent), 0);
    }
    pool_destroy(pool);
}

struct descent {
    int levels; /* below this one */
    int64_t timeout;
    struct gate *gate;
    _Atomic uint32_t *ended;
    struct gate *other; /* where the other worker waits, so that it takes none of the levels */
};

/* The last level gets the time limit, and waits at the gate. */
static int job_descend(struct pool_job *job, const void *argument, size_t size)
{
    struct descent below = *(const struct descent *)argument;
    struct pool_options options;
    struct pool_future child;
    int status;

    if (below.levels-- == 0)
        return job_gate(job, &below.gate, sizeof below.gate);
    pool_options_init(pool_current(), &options);
    if (below.levels == 0)
        options.timeout = below.timeout;
    status = pool_submit_with(pool_current(), &options, job_descend, &below, size, &child);
    if (status == 0)
        status = pool_future_wait(&child, POOL_FOREVER);
    return status;
}

static void a_late_job_deep_in_a_stack_is_killed(void)
{
    static const int depths[] = {1, 22, 23, 24, 25, 60};
    struct pool *pool = harness_pool(1, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof depths / sizeof *depths; i++) {
        struct descent descent = {.levels = depths[i],
                                  .timeout = 50 * MILLISECOND,
                                  .gate = harness_shared(sizeof(struct gate))};
        struct pool_future future = harness_submit(pool, job_descend, &descent, sizeof descent);

        REQUIRE(harness_await(&descent.gate->reached, 1), true);
        EXPECT(harness_outcome(&future, NULL), POOL_DIED);
        pool_future_release(&future);
        expect_works(pool);
    }
    pool_destroy(pool);
}

/* Goes down, and at the bottom lets the other worker go on, and waits for a child that it runs. */
static int job_descend_and_wait(struct pool_job *job, const void *argument, size_t size)
{
    struct descent below = *(const struct descent *)argument;
    struct pool_future child;
    int status;

    (void)job;
    if (below.levels-- == 0) {
        struct family family = {
            .gate = below.gate, .ended = below.ended, .timeout = POOL_FOREVER, .elsewhere = true};

        harness_raise(&below.other->open);
        return job_parent(job, &family, sizeof family);
    }
    status = pool_submit(pool_current(), job_descend_and_wait, &below, size, &child);
    if (status == 0)
        status = pool_future_wait(&child, POOL_FOREVER);
    return status;
}

static void a_job_that_runs_on_top_of_a_deep_stack_can_be_killed(void)
{
    static const int depths[] = {0, 20, 24, 40};
    struct pool *pool = harness_pool(2, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof depths / sizeof *depths; i++) {
        struct gate *child = harness_shared(sizeof *child), *top = harness_shared(sizeof *top);
        struct gate *other = harness_shared(sizeof *other);
        struct descent descent = {.levels = depths[i],
                                  .gate = child,
                                  .ended = harness_shared(sizeof(uint32_t)),
                                  .other = other};
        struct pool_future beside = harness_submit(pool, job_gate, &other, sizeof other);
        struct pool_future below, above;

        REQUIRE(harness_await(&other->reached, 1), true);
        below = harness_submit(pool, job_descend_and_wait, &descent, sizeof descent);
        EXPECT(harness_status(&beside), 0);
        REQUIRE(harness_await(&child->reached, 1), true);
        above = harness_submit(pool, job_gate, &top, sizeof top);
        REQUIRE(harness_await(&top->reached, 1), true);
        EXPECT(pool_future_kill(&above), 0);
        EXPECT(harness_outcome(&above, NULL), POOL_CANCELLED);
        EXPECT(harness_outcome(&below, NULL), POOL_DIED);
        harness_raise(&child->open);
        pool_future_release(&above);
        pool_future_release(&below);
        expect_works(pool);
    }
    pool_destroy(pool);
}

/* ---- Memory of workers ---- */

static struct pool *pool_of_config(int workers, uint64_t shared_limit, uint64_t memory_limit,
                                   uint64_t worker_jobs)
{
    struct pool_config config;
    struct pool *pool = NULL;

    pool_config_init(&config);
    config.workers = workers;
    config.shared_limit = shared_limit;
    config.memory_limit = memory_limit;
    config.worker_jobs = worker_jobs;
    REQUIRE(pool_create(&pool, &config), 0);
    return pool;
}

/* Argument: bytes of private memory to have for a moment. By mmap(), which sanitizers leave
 * alone. */
static int job_have(struct pool_job *job, const void *argument, size_t size)
{
    size_t bytes = *(const size_t *)argument;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)job;
    (void)size;
    if (memory == MAP_FAILED)
        return -errno;
    memset(memory, 1, bytes);
    return munmap(memory, bytes);
}

static int status_of_having(struct pool *pool, size_t bytes)
{
    struct pool_future future = harness_submit(pool, job_have, &bytes, sizeof bytes);

    return harness_status(&future);
}

static void an_allocation_beyond_the_memory_limit_fails_in_that_job_alone(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = pool_of_config(2, LIMIT, 64 * MEBIBYTE, 0);
    struct pool_future other = harness_submit(pool, job_gate, &gate, sizeof gate);
    struct pool_stats stats = {.size = sizeof stats};
    int i;

    REQUIRE(harness_await(&gate->reached, 1), true);
    for (i = 0; i < 10; i++) {
        EXPECT(status_of_having(pool, 32 * MEBIBYTE), 0);
        EXPECT(status_of_having(pool, 128 * MEBIBYTE), -ENOMEM);
    }
    expect_works(pool);
    harness_raise(&gate->open);
    EXPECT(harness_status(&other), 0);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.workers_started, 2);
    pool_destroy(pool);
}

static int job_touch_malloc(struct pool_job *job, const void *argument, size_t size)
{
    volatile unsigned char *memory = malloc(*(const size_t *)argument);

    (void)job;
    (void)size;
    signal(SIGSEGV, SIG_DFL);
    memory[0] = 1; /* as those do who think that malloc() can't fail */
    free((void *)memory);
    return 0;
}

static void a_job_that_does_not_look_whether_it_got_memory_dies_alone(void)
{
    struct pool *pool = pool_of_config(1, LIMIT, 64 * MEBIBYTE, 0);
    size_t little = MEBIBYTE, much = 256 * MEBIBYTE;
    struct pool_future future = harness_submit(pool, job_touch_malloc, &little, sizeof little);
    int status = 0;

    EXPECT(harness_status(&future), 0);
    future = harness_submit(pool, job_touch_malloc, &much, sizeof much);
    EXPECT(harness_outcome(&future, &status), POOL_DIED);
    if (!HARNESS_SANITIZED) /* whose malloc() does not return */
        EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, true);
    expect_works(pool);
    pool_destroy(pool);
}

static void a_replacement_has_the_memory_limit_too(void)
{
    struct pool *pool = pool_of_config(1, LIMIT, 64 * MEBIBYTE, 0);
    int i;

    for (i = 0; i < 5; i++) {
        int pidfd = harness_worker(pool, 0);

        EXPECT(kill(pool_worker_pid(pool, 0), SIGKILL), 0);
        EXPECT(harness_ends(pidfd, 5000), true);
        close(pidfd);
        EXPECT(status_of_having(pool, 128 * MEBIBYTE), -ENOMEM);
        EXPECT(status_of_having(pool, 32 * MEBIBYTE), 0);
    }
    pool_destroy(pool);
}

static void shared_memory_does_not_count_for_the_memory_limit(void)
{
    static unsigned char bytes[20 << 20];
    struct pool *pool = pool_of_config(1, 128 * MEBIBYTE, 8 * MEBIBYTE, 0);
    struct pool_future future = harness_submit(pool, job_echo, bytes, sizeof bytes);
    size_t size = 0;

    EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
    EXPECT(pool_future_result(&future, NULL, &size), 0);
    EXPECT(size, sizeof bytes);
    pool_destroy(pool);
}

static void jobs_run_under_the_smallest_memory_limit(void)
{
    struct pool *pool = pool_of_config(2, LIMIT, 1, 0);

    expect_works(pool);
    EXPECT(status_of_having(pool, MEBIBYTE), -ENOMEM);
    expect_works(pool);
    pool_destroy(pool);
}

/* No wrap around to a limit below what a worker has. */
static void a_memory_limit_beyond_all_memory_is_none_or_refused(void)
{
    static const uint64_t limits[] = {INT64_MAX, UINT64_MAX - 4096, UINT64_MAX};
    unsigned i;

    for (i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct pool_config config;
        struct pool *pool = NULL;
        int error;

        pool_config_init(&config);
        config.workers = 1;
        config.shared_limit = LIMIT;
        config.memory_limit = limits[i];
        error = pool_create(&pool, &config);
        EXPECT(error == 0 || error == -EINVAL, true);
        if (error == 0)
            EXPECT(status_of_having(pool, 16 * MEBIBYTE), 0);
        pool_destroy(pool);
    }
}

/* ---- Shared memory ---- */

static void memory_that_was_given_back_serves_other_sizes(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    uint64_t references[200];
    void *memory;
    int round, count, i;

    for (round = 0; round < 4; round++) {
        uint64_t size = MEBIBYTE << round;

        for (count = 0; count < 200; count++) {
            if (pool_alloc(pool, size, &references[count], &memory) != 0)
                break;
            memset(memory, 1, size);
        }
        EXPECT((uint64_t)count >= LIMIT / 2 / size, true);
        for (i = 0; i < count; i++)
            pool_free(pool, references[i]);
    }
    expect_works(pool);
    pool_destroy(pool);
}

/* ---- A small file system for the shared memory ---- */

/* As on a kernel without memfd_create(), so that the segment is a file in /dev/shm. */
static int refuse_memfd(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

/* Gives this process a /dev/shm of its own. */
static int mount_small(const char *options)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", "/dev/shm", "tmpfs", 0, options) < 0)
        return -errno;
    return refuse_memfd();
}

static uint64_t bytes_free(void)
{
    struct statvfs status;

    return statvfs("/dev/shm", &status) == 0 ? status.f_bfree * status.f_frsize : 0;
}

static int job_reserve_and_fill(struct pool_job *job, const void *argument, size_t size)
{
    size_t bytes = *(const size_t *)argument;
    void *memory = pool_job_reserve(job, bytes);

    (void)size;
    if (!memory)
        return -errno;
    memset(memory, 5, bytes);
    return 0;
}

#define BLOCK 60000

static int fill(struct pool *pool, uint64_t *references, int most, int *count)
{
    void *memory;
    int error = 0;

    *count = 0;
    while (*count < most && (error = pool_alloc(pool, BLOCK, &references[*count], &memory)) == 0) {
        memset(memory, 7, BLOCK); /* SIGBUS, if it were not there */
        (*count)++;
    }
    return error;
}

static void use_up(struct pool *pool)
{
    static unsigned char bytes[BLOCK];
    uint64_t references[200];
    size_t large = 2 * MEBIBYTE;
    struct pool_future future;
    int round, count, i;

    for (round = 0; round < 3; round++) {
        EXPECT(fill(pool, references, 200, &count), -ENOMEM);
        EXPECT(count > 2 && count < 18, true);
        EXPECT(pool_submit(pool, job_echo, bytes, sizeof bytes, &future), -ENOMEM);
        EXPECT(pool_check(pool), 0);
        expect_works(pool); /* small ones need nothing more */
        for (i = 0; i < count; i++)
            pool_free(pool, references[i]);
        future = harness_submit(pool, job_echo, bytes, sizeof bytes);
        EXPECT(harness_status(&future), 0);
        future = harness_submit(pool, job_reserve_and_fill, &large, sizeof large);
        EXPECT(harness_status(&future), -ENOMEM);
    }
}

struct crowd {
    struct gate gate;
    _Atomic uint32_t count;
};

/* More jobs than there is room for: those that were taken run. */
static void submit_too_many(struct pool *pool, struct crowd *crowd)
{
    struct gate *gate = &crowd->gate;
    _Atomic uint32_t *count = &crowd->count;
    struct pool_future running = harness_submit(pool, job_gate, &gate, sizeof gate);
    uint32_t taken = 0;
    int error = 0;

    REQUIRE(harness_await(&gate->reached, 1), true);
    while (taken < 100000 &&
           (error = pool_submit(pool, job_raise, &count, sizeof count, NULL)) == 0)
        taken++;
    EXPECT(error, -ENOMEM);
    EXPECT(taken > 100, true);
    harness_raise(&gate->open);
    EXPECT(harness_status(&running), 0);
    EXPECT(harness_await(count, taken), true);
    expect_works(pool);
    EXPECT(*count, taken);
}

/* Context: a struct crowd, from the parent, whose shared memory it is. */
static void work_in_a_mebibyte(void *context)
{
    struct pool_config config;
    struct pool *pool = NULL;
    uint64_t before;
    int error = mount_small("size=1m");

    if (error) {
        printf("(skipped: no mount of one's own or no seccomp, errno %d) ", -error);
        return;
    }
    before = bytes_free();
    pool_config_init(&config);
    config.workers = 1;
    REQUIRE(pool_create(&pool, &config), 0);
    EXPECT(bytes_free() < before, true);
    expect_works(pool);
    use_up(pool);
    submit_too_many(pool, context);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    pool_destroy(pool);
    EXPECT(bytes_free(), before);
}

static void a_file_system_of_one_mebibyte_is_an_error_and_never_sigbus(void)
{
    EXPECT(harness_fork(work_in_a_mebibyte, harness_shared(sizeof(struct crowd)), 50), 0);
}

static void create_without_room(void *context)
{
    struct pool *pool = NULL;
    int error = mount_small("size=64k");

    (void)context;
    if (error) {
        printf("(skipped: no mount of one's own or no seccomp, errno %d) ", -error);
        return;
    }
    EXPECT(pool_create(&pool, NULL), -ENOMEM);
    EXPECT(pool == NULL, true);
    EXPECT(bytes_free(), 65536);
}

static void a_file_system_too_small_for_a_pool_is_enomem(void)
{
    EXPECT(harness_fork(create_without_room, NULL, 20), 0);
}

/* ---- Jobs of a worker ---- */

static int job_pid(struct pool_job *job, const void *argument, size_t size)
{
    pid_t pid = getpid();

    (void)argument;
    (void)size;
    return pool_job_return(job, &pid, sizeof pid);
}

static pid_t pid_of(struct pool_future *future)
{
    const void *data = NULL;
    pid_t pid = 0;

    EXPECT(harness_outcome(future, NULL), POOL_FINISHED);
    if (pool_future_result(future, &data, NULL) == 0)
        pid = *(const pid_t *)data;
    pool_future_release(future);
    return pid;
}

static void a_worker_is_replaced_after_exactly_so_many_jobs(void)
{
    static const uint64_t counts[] = {1, 2, 5};
    unsigned i;

    for (i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct pool *pool = pool_of_config(1, LIMIT, 0, counts[i]);
        struct pool_future futures[20];
        pid_t before = 0;
        unsigned j;

        for (j = 0; j < 20; j++)
            futures[j] = harness_submit(pool, job_pid, NULL, 0);
        for (j = 0; j < 20; j++) {
            pid_t pid = pid_of(&futures[j]);

            EXPECT(pid != before, j % counts[i] == 0);
            before = pid;
        }
        pool_destroy(pool);
    }
}

static void no_job_is_lost_when_workers_are_replaced(void)
{
    enum { JOBS = HARNESS_SANITIZED ? 60 : 300 };
    struct pool *pool = pool_of_config(3, LIMIT, 0, 2);
    struct pool_future futures[JOBS];
    struct pool_stats stats = {.size = sizeof stats};
    int i;

    for (i = 0; i < JOBS; i++)
        futures[i] = harness_submit(pool, job_echo, &i, sizeof i);
    for (i = 0; i < JOBS; i++) {
        const void *data = NULL;

        EXPECT(harness_outcome(&futures[i], NULL), POOL_FINISHED);
        if (pool_future_result(&futures[i], &data, NULL) == 0)
            EXPECT(*(const int *)data, i);
        pool_future_release(&futures[i]);
    }
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.jobs_started, JOBS);
    EXPECT(stats.workers_started >= JOBS / 2, true);
    EXPECT(stats.workers_started <= JOBS / 2 + 3, true);
    EXPECT(pool_check(pool), -ESHUTDOWN);
    pool_destroy(pool);
}

/* One at a time, so that the worker that is to take it may be ending at that moment. */
static void a_job_that_comes_while_its_worker_ends_runs(void)
{
    enum { ROUNDS = HARNESS_SANITIZED ? 40 : 200 };
    struct pool *pool = pool_of_config(2, LIMIT, 0, 1);
    _Atomic uint32_t *count = harness_shared(sizeof *count);
    uint32_t i;

    for (i = 1; i <= ROUNDS; i++) {
        EXPECT(pool_submit(pool, job_raise, &count, sizeof count, NULL), 0);
        REQUIRE(harness_await(count, i), true);
    }
    pool_destroy(pool);
}

static void workers_are_replaced_while_the_pool_closes(void)
{
    int round;

    for (round = 0; round < 10; round++) {
        struct pool *pool = pool_of_config(2, LIMIT, 0, 1);
        _Atomic uint32_t *count = harness_shared(sizeof *count);
        int i;

        for (i = 0; i < 11; i++)
            EXPECT(pool_submit(pool, job_raise, &count, sizeof count, NULL), 0);
        EXPECT(pool_close(pool), 0);
        EXPECT(pool_join(pool, 20 * SECOND), 0);
        EXPECT(*count, 11);
        pool_destroy(pool);
    }
}

struct tree {
    int levels;
    _Atomic uint32_t *count;
};

/* Two children that it waits for, and one that it leaves to others. */
static int job_tree(struct pool_job *job, const void *argument, size_t size)
{
    struct tree below = *(const struct tree *)argument;
    struct pool_future children[2];
    int i, status, error = 0;

    (void)job;
    harness_raise(below.count);
    if (below.levels-- == 0)
        return 0;
    if (pool_submit(pool_current(), job_raise, &below.count, sizeof below.count, NULL) != 0)
        return -EIO;
    for (i = 0; i < 2; i++)
        if (pool_submit(pool_current(), job_tree, &below, size, &children[i]) != 0)
            return -EIO;
    for (i = 0; i < 2; i++) {
        status = pool_future_wait(&children[i], POOL_FOREVER);
        if (status == 0)
            status = pool_future_result(&children[i], NULL, NULL);
        pool_future_release(&children[i]);
        error = error ? error : status;
    }
    return error;
}

static void nested_jobs_run_on_workers_that_are_replaced_after_each(void)
{
    enum { ROUNDS = HARNESS_SANITIZED ? 5 : 15 };
    struct pool *pool = pool_of_config(2, LIMIT, 0, 1);
    int i;

    for (i = 0; i < ROUNDS; i++) {
        struct tree tree = {.levels = 3, .count = harness_shared(sizeof(uint32_t))};
        struct pool_future future = harness_submit(pool, job_tree, &tree, sizeof tree);

        EXPECT(harness_status(&future), 0);
        EXPECT(harness_await(tree.count, 15 + 7), true);
    }
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(a_late_jobs_worker_is_killed_and_replaced_and_others_go_on),
    TEST(time_counts_running_and_not_waiting),
    TEST(each_of_many_late_jobs_gets_its_own_end),
    TEST(a_job_that_ends_right_at_its_limit_ends_once),
    TEST(a_stopped_worker_is_late_too),
    TEST(a_late_job_that_nobody_waits_for_is_killed_too),
    TEST(a_limit_holds_also_while_the_pool_closes),
    TEST(the_nearest_limit_counts),
    TEST(limits_near_forever_are_limits_without_overflow),
    TEST(time_counts_anew_for_each_part),
    TEST(the_part_that_was_late_is_told),
    TEST(a_map_loses_the_chunk_of_its_late_item_only),
    TEST(in_a_map_time_counts_anew_for_each_item),
    TEST(the_defaults_go_for_nested_jobs),
    TEST(a_late_child_on_another_worker_is_the_parents_to_see),
    TEST(a_late_child_on_top_of_its_parent_takes_the_parent_along),
    TEST(a_late_parent_leaves_its_child_on_another_worker_alone),
    TEST(a_late_parent_is_killed_with_its_child_on_top),
    TEST(a_job_with_a_limit_is_not_run_on_top_of_another),
    TEST(an_idle_worker_takes_a_job_with_options_while_others_wait),
    TEST(a_late_job_deep_in_a_stack_is_killed),
    TEST(a_job_that_runs_on_top_of_a_deep_stack_can_be_killed),
    TEST(an_allocation_beyond_the_memory_limit_fails_in_that_job_alone),
    TEST(a_job_that_does_not_look_whether_it_got_memory_dies_alone),
    TEST(a_replacement_has_the_memory_limit_too),
    TEST(shared_memory_does_not_count_for_the_memory_limit),
    TEST(jobs_run_under_the_smallest_memory_limit),
    TEST(a_memory_limit_beyond_all_memory_is_none_or_refused),
    TEST(memory_that_was_given_back_serves_other_sizes),
    TEST(a_file_system_of_one_mebibyte_is_an_error_and_never_sigbus),
    TEST(a_file_system_too_small_for_a_pool_is_enomem),
    TEST(a_worker_is_replaced_after_exactly_so_many_jobs),
    TEST(no_job_is_lost_when_workers_are_replaced),
    TEST(a_job_that_comes_while_its_worker_ends_runs),
    TEST(workers_are_replaced_while_the_pool_closes),
    TEST(nested_jobs_run_on_workers_that_are_replaced_after_each),
};

HARNESS_MAIN("pool: limits", tests)
