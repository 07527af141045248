/* What a program may ask of a pool: CPUs, hooks; and structs of older and newer versions. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)

/* ---- CPUs ---- */

static struct pool *make_pinned(int workers, const int *cpus, int count)
{
    struct pool_config config;
    struct pool *pool = NULL;

    pool_config_init(&config);
    config.workers = workers;
    config.shared_limit = LIMIT;
    config.cpus = cpus;
    config.cpu_count = count;
    REQUIRE(pool_create(&pool, &config), 0);
    return pool;
}

/* Up to `room` CPUs that this process may run on; their number. */
static int usable_cpus(int *cpus, int room)
{
    cpu_set_t set;
    int cpu, count = 0;

    REQUIRE(sched_getaffinity(0, sizeof set, &set), 0);
    for (cpu = 0; cpu < CPU_SETSIZE && count < room; cpu++)
        if (CPU_ISSET(cpu, &set))
            cpus[count++] = cpu;
    return count;
}

/* Argument: the expected CPUs. Also for what the worker forks. */
static int job_runs_on(struct pool_job *job, const void *argument, size_t size)
{
    const int *cpus = argument;
    int cpu = cpus[(size_t)pool_worker_index() % (size / sizeof *cpus)];
    cpu_set_t set;

    (void)job;
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return -errno;
    return CPU_COUNT(&set) == 1 && CPU_ISSET(cpu, &set) && sched_getcpu() == cpu ? 0 : -EBADMSG;
}

static void expect_pinned(struct pool *pool, const int *cpus, int count)
{
    struct pool_future futures[40];
    int i;

    for (i = 0; i < 40; i++)
        futures[i] = harness_submit(pool, job_runs_on, cpus, (size_t)count * sizeof *cpus);
    for (i = 0; i < 40; i++)
        EXPECT(harness_status(&futures[i]), 0);
}

static int job_die(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    _exit(1);
}

static void workers_run_on_their_cpus_and_so_do_their_replacements(void)
{
    cpu_set_t before, after;
    int cpus[3], copied[3], count = usable_cpus(cpus, 3), i;
    struct pool *pool;

    memcpy(copied, cpus, sizeof cpus);
    REQUIRE(sched_getaffinity(0, sizeof before, &before), 0);
    pool = make_pinned(4, copied, count);
    memset(copied, 0xff, sizeof copied);
    REQUIRE(sched_getaffinity(0, sizeof after, &after), 0);
    EXPECT(CPU_EQUAL(&before, &after), true); /* the host's own is as it was */
    expect_pinned(pool, cpus, count);
    for (i = 0; i < 8; i++) {
        struct pool_future future = harness_submit(pool, job_die, NULL, 0);

        EXPECT(harness_outcome(&future, NULL), POOL_DIED);
        pool_future_release(&future);
    }
    expect_pinned(pool, cpus, count);
    pool_destroy(pool);
}

/* A host that keeps a core for itself puts its workers on the others. */
static void workers_may_run_where_the_host_does_not(void)
{
    cpu_set_t before, one;
    int cpus[2];
    struct pool *pool;

    if (usable_cpus(cpus, 2) < 2)
        return;
    REQUIRE(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    CPU_SET(cpus[0], &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one), 0);
    pool = make_pinned(2, &cpus[1], 1);
    expect_pinned(pool, &cpus[1], 1);
    pool_destroy(pool);
    REQUIRE(sched_setaffinity(0, sizeof before, &before), 0);
}

static void a_cpu_that_there_is_not_is_refused(void)
{
    static const int bad[] = {-1, 100000, INT32_MAX, INT32_MIN};
    int cpus[2], i;
    struct pool_config config;
    struct pool *pool;

    usable_cpus(cpus, 1);
    pool_config_init(&config);
    config.workers = 1;
    config.shared_limit = LIMIT;
    config.cpus = cpus;
    config.cpu_count = 2;
    for (i = 0; i < 4; i++) {
        cpus[1] = bad[i];
        EXPECT(pool_create(&pool, &config), -EINVAL);
        EXPECT(pool == NULL, true);
    }
    cpus[1] = cpus[0];
    config.cpu_count = -1;
    EXPECT(pool_create(&pool, &config), -EINVAL);
    config.cpu_count = 1;
    config.cpus = NULL;
    EXPECT(pool_create(&pool, &config), -EINVAL);
    config.cpu_count = 0;
    REQUIRE(pool_create(&pool, &config), 0);
    pool_destroy(pool);
}

/* ---- Hooks ---- */

struct hooks {
    _Atomic uint32_t starts, stops;
    _Atomic uint32_t fail; /* so many starts yet */
};

static int ready; /* in each process */

static int on_start(void *context, struct pool *pool, unsigned worker)
{
    struct hooks *hooks = context;

    EXPECT(pool_current() == pool && pool_worker_index() == (int)worker, true);
    hooks->starts++;
    ready = 40 + (int)worker;
    if (hooks->fail == 0)
        return 0;
    hooks->fail--;
    return -1;
}

static void on_stop(void *context)
{
    ((struct hooks *)context)->stops++;
}

static struct pool *make_hooked(struct hooks *hooks, uint64_t worker_jobs)
{
    struct pool_host host = {
        .size = sizeof host, .start = on_start, .stop = on_stop, .context = hooks};
    struct pool_config config;
    struct pool *pool = NULL;

    pool_config_init(&config);
    config.workers = 2;
    config.shared_limit = LIMIT;
    config.host = &host;
    config.worker_jobs = worker_jobs;
    REQUIRE(pool_create(&pool, &config), 0);
    return pool;
}

static int job_is_ready(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    return ready == 40 + pool_worker_index() ? 0 : -EBADMSG;
}

static void a_start_hook_and_an_end_hook_need_no_interpreter(void)
{
    struct hooks *hooks = harness_shared(sizeof *hooks);
    struct pool *pool = make_hooked(hooks, 5);
    struct pool_future futures[30], future;
    void *memory;
    int i;

    EXPECT(pool_submit_many(pool, NULL, job_is_ready, NULL, 0, 30, futures), 30);
    for (i = 0; i < 30; i++)
        EXPECT(harness_status(&futures[i]), 0);
    REQUIRE(pool_prepare(pool, 0, &future, &memory), 0);
    REQUIRE(pool_commit_host(&future, 1), 0);
    EXPECT(harness_status(&future), -ENOSYS); /* there is no `run` */
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(hooks->starts >= 6, true); /* each worker runs five jobs */
    EXPECT(hooks->stops, hooks->starts);
    pool_destroy(pool);
}

static void a_worker_that_dies_has_no_end_hook(void)
{
    struct hooks *hooks = harness_shared(sizeof *hooks);
    struct pool *pool = make_hooked(hooks, 0);
    struct pool_future future = harness_submit(pool, job_die, NULL, 0);

    EXPECT(harness_outcome(&future, NULL), POOL_DIED);
    EXPECT(hooks->stops, 0);
    pool_destroy(pool);
}

static void a_start_hook_that_fails_is_tried_in_another_worker(void)
{
    struct hooks *hooks = harness_shared(sizeof *hooks);
    struct pool *pool;
    struct pool_future future;

    hooks->fail = 3;
    pool = make_hooked(hooks, 0);
    future = harness_submit(pool, job_is_ready, NULL, 0);
    EXPECT(harness_status(&future), 0);
    EXPECT(hooks->starts >= 4, true);
    pool_destroy(pool);
    hooks->fail = UINT32_MAX;
    pool = make_hooked(hooks, 0);
    if (pool_submit(pool, job_is_ready, NULL, 0, &future) == 0)
        EXPECT(harness_outcome(&future, NULL), POOL_LOST);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    pool_destroy(pool);
}

/* ---- Older and newer programs ---- */

/* As a program sees it that was compiled with the header of 0.1, or of a version to come. The
 * memory is just as long as that, which AddressSanitizer watches. */
#define OLDER offsetof(struct pool_config, queue_limit)
#define NEWER (sizeof(struct pool_config) + 24)

static void a_program_compiled_with_an_older_header_runs(void)
{
    volatile size_t length = OLDER; /* the compiler is not to know, as it would not there */
    struct pool_config *config = malloc(length);
    struct pool *pool;

    memset(config, 0xee, OLDER);
    pool_config_init_size(config, OLDER);
    EXPECT(config->size, OLDER);
    EXPECT(config->workers, pool_cpu_count());
    EXPECT(config->timeout == POOL_FOREVER, true);
    EXPECT(config->keep_count, 0);
    config->workers = 1;
    config->shared_limit = LIMIT;
    REQUIRE(pool_create(&pool, config), 0);
    EXPECT(pool_submit_many(pool, NULL, job_nothing, NULL, 0, 2000, NULL), 2000);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    pool_destroy(pool);
    config->size = OLDER - 1;
    EXPECT(pool_create(&pool, config), -EINVAL);
    free(config);
}

static void a_program_compiled_with_a_newer_header_runs_unless_it_uses_what_is_new(void)
{
    struct pool_config *config = malloc(NEWER);
    unsigned char *last = (unsigned char *)config + NEWER - 1;
    struct pool *pool;

    memset(config, 0xee, NEWER);
    pool_config_init_size(config, NEWER);
    EXPECT(config->size, NEWER);
    EXPECT(*last, 0);
    config->workers = 1;
    config->shared_limit = LIMIT;
    REQUIRE(pool_create(&pool, config), 0);
    pool_destroy(pool);
    *last = 1;
    EXPECT(pool_create(&pool, config), -EINVAL);
    free(config);
}

static void a_newer_host_table_is_taken_unless_it_uses_what_is_new(void)
{
    struct {
        struct pool_host host;
        void (*later)(void);
    } table = {.host = {.size = sizeof table}};
    struct pool_config config;
    struct pool *pool;

    pool_config_init(&config);
    config.workers = 1;
    config.shared_limit = LIMIT;
    config.host = &table.host;
    REQUIRE(pool_create(&pool, &config), 0);
    pool_destroy(pool);
    table.later = abort;
    EXPECT(pool_create(&pool, &config), -EINVAL);
}

static void newer_options_are_taken_unless_they_use_what_is_new(void)
{
    struct {
        struct pool_options options;
        int64_t later;
    } newer;
    struct pool *pool = harness_pool(1, LIMIT);

    memset(&newer, 0xee, sizeof newer);
    pool_options_init_size(pool, &newer.options, sizeof newer);
    EXPECT(newer.options.size, sizeof newer);
    EXPECT(newer.options.timeout == POOL_FOREVER, true);
    EXPECT(newer.later, 0);
    EXPECT(pool_submit_with(pool, &newer.options, job_nothing, NULL, 0, NULL), 0);
    newer.later = 1;
    EXPECT(pool_submit_with(pool, &newer.options, job_nothing, NULL, 0, NULL), -EINVAL);
    newer.options.size = sizeof newer.options;
    EXPECT(pool_submit_with(pool, &newer.options, job_nothing, NULL, 0, NULL), 0);
    newer.options.size = sizeof newer.options - 1;
    EXPECT(pool_submit_with(pool, &newer.options, job_nothing, NULL, 0, NULL), -EINVAL);
    pool_destroy(pool);
}

static void newer_statistics_are_0_where_this_library_knows_none(void)
{
    struct {
        struct pool_stats stats;
        uint64_t later;
    } stats = {.stats = {.size = sizeof stats}, .later = 7};
    struct {
        struct pool_worker_stats stats;
        uint64_t later;
    } worker = {.stats = {.size = sizeof worker}, .later = 7};
    struct pool *pool = harness_pool(1, LIMIT);

    EXPECT(pool_get_stats(pool, &stats.stats), 0);
    EXPECT(stats.stats.size, sizeof stats);
    EXPECT(stats.stats.workers, 1);
    EXPECT(stats.later, 0);
    EXPECT(pool_get_worker_stats(pool, 0, &worker.stats), 0);
    EXPECT(worker.stats.size, sizeof worker);
    EXPECT(worker.later, 0);
    stats.stats.size = sizeof stats.stats - 1;
    EXPECT(pool_get_stats(pool, &stats.stats), -EINVAL);
    worker.stats.size = SIZE_MAX;
    EXPECT(pool_get_worker_stats(pool, 0, &worker.stats), -EINVAL);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(workers_run_on_their_cpus_and_so_do_their_replacements),
    TEST(workers_may_run_where_the_host_does_not),
    TEST(a_cpu_that_there_is_not_is_refused),
    TEST(a_start_hook_and_an_end_hook_need_no_interpreter),
    TEST(a_worker_that_dies_has_no_end_hook),
    TEST(a_start_hook_that_fails_is_tried_in_another_worker),
    TEST(a_program_compiled_with_an_older_header_runs),
    TEST(a_program_compiled_with_a_newer_header_runs_unless_it_uses_what_is_new),
    TEST(a_newer_host_table_is_taken_unless_it_uses_what_is_new),
    TEST(newer_options_are_taken_unless_they_use_what_is_new),
    TEST(newer_statistics_are_0_where_this_library_knows_none),
};

HARNESS_MAIN("what a pool is asked for", tests)
