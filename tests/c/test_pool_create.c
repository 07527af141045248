/* Pools: made, refused, closed, joined, terminated, destroyed; nothing is left of them. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)

/* ---- Making ---- */

static void a_pool_runs_jobs_as_soon_as_it_is_made(void)
{
    int workers;

    for (workers = 1; workers <= 9; workers += 4) {
        struct pool *pool = harness_pool(workers, LIMIT);
        struct pool_future future = harness_submit(pool, job_nothing, NULL, 0);

        EXPECT(pool_check(pool), 0);
        EXPECT(harness_status(&future), 0);
        pool_destroy(pool);
    }
}

static void the_default_configuration_makes_a_pool(void)
{
    struct pool *pool = NULL;
    struct pool_future future;

    REQUIRE(pool_create(&pool, NULL), 0);
    future = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(harness_status(&future), 0);
    pool_destroy(pool);
}

static void the_smallest_memory_limit_makes_a_pool_that_works(void)
{
    struct pool *pool = harness_pool(2, MEBIBYTE);
    int i;

    for (i = 0; i < 2000; i++) {
        struct pool_future future = harness_submit(pool, job_echo, "0123456789", 10);

        EXPECT(harness_status(&future), 0);
    }
    pool_destroy(pool);
}

static void a_memory_limit_beyond_every_address_space_is_none(void)
{
    static const uint64_t limits[] = {UINT64_C(1) << 47, (UINT64_C(1) << 62) + 1, UINT64_C(1) << 63,
                                      UINT64_MAX};
    unsigned i;

    for (i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct pool *pool = harness_pool(1, limits[i]);
        struct pool_future future = harness_submit(pool, job_echo, "hello", 6);

        EXPECT(harness_status(&future), 0);
        pool_destroy(pool);
    }
}

static void expect_refused(size_t size, int workers, uint64_t limit, const struct pool_host *host)
{
    struct pool_config config;
    struct pool *pool = (struct pool *)&config;

    pool_config_init(&config);
    config.size = size;
    config.workers = workers;
    config.shared_limit = limit;
    config.host = host;
    EXPECT(pool_create(&pool, &config), -EINVAL);
    EXPECT(pool == NULL, true);
}

static void a_bad_configuration_is_einval(void)
{
    static const int workers[] = {0, -1, POOL_MAX_WORKERS + 1, 10000, INT_MIN, INT_MAX};
    static const size_t sizes[] = {0, 1, offsetof(struct pool_config, queue_limit) - 1, 4097,
                                   SIZE_MAX};
    struct pool_host host = {.size = sizeof host - 1};
    unsigned i;

    for (i = 0; i < sizeof workers / sizeof *workers; i++)
        expect_refused(sizeof(struct pool_config), workers[i], LIMIT, NULL);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        expect_refused(sizes[i], 1, LIMIT, NULL);
    expect_refused(sizeof(struct pool_config), 1, 1, NULL);
    expect_refused(sizeof(struct pool_config), 1, MEBIBYTE - 1, NULL);
    expect_refused(sizeof(struct pool_config), 1, LIMIT, &host);
}

static void what_only_a_command_gets_is_einval_without_one(void)
{
    struct pool_config config;
    struct pool *pool;
    int zero = 0;

    pool_config_init(&config);
    config.keep_count = -1;
    EXPECT(pool_create(&pool, &config), -EINVAL);
    config.keep = &zero;
    config.keep_count = 1;
    EXPECT(pool_create(&pool, &config), -EINVAL);
    config.keep_count = 0;
    config.payload = "x";
    config.payload_size = 1;
    EXPECT(pool_create(&pool, &config), -EINVAL);
}

/* The names in a directory that contain `part`. */
static int count_names(const char *directory, const char *part)
{
    DIR *names = opendir(directory);
    struct dirent *entry;
    int count = 0;

    while (names && (entry = readdir(names)))
        count += strstr(entry->d_name, part) != NULL;
    if (names)
        closedir(names);
    return count;
}

static int count_mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    int c, count = 0;

    while (maps && (c = getc(maps)) != EOF)
        count += c == '\n';
    if (maps)
        fclose(maps);
    return count;
}

static void allow_few_descriptors(void *context)
{
    struct pool *pool = NULL;
    struct rlimit limit;
    int made = 0, allowed, before = count_names("/proc/self/fd", "");

    (void)context;
    for (allowed = 3; allowed < 40 && made == 0; allowed++) {
        limit.rlim_cur = limit.rlim_max = 40;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = (rlim_t)allowed;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit), 0);
        made = pool_create(&pool, NULL) == 0;
        if (!made)
            EXPECT(pool == NULL, true);
        pool_destroy(pool);
        limit.rlim_cur = 40;
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit), 0);
        EXPECT(count_names("/proc/self/fd", ""), before);
    }
    EXPECT(made, 1);
}

static void too_few_descriptors_are_an_error_that_leaves_nothing(void)
{
    EXPECT(harness_fork(allow_few_descriptors, NULL, 30), 0);
}

static void allow_little_address_space(void *context)
{
    struct rlimit limit = {.rlim_cur = 4096 * MEBIBYTE, .rlim_max = 4096 * MEBIBYTE};
    struct pool_future future;
    struct pool *pool = NULL;

    (void)context;
    REQUIRE(setrlimit(RLIMIT_AS, &limit), 0);
    REQUIRE(pool_create(&pool, NULL), 0);
    future = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(harness_status(&future), 0);
    pool_destroy(pool);
}

static void a_pool_can_be_made_in_little_address_space(void)
{
    if (!HARNESS_SANITIZED) /* they need terabytes of it */
        EXPECT(harness_fork(allow_little_address_space, NULL, 30), 0);
}

/* ---- Closing and joining ---- */

static void a_closed_pool_takes_no_jobs_and_runs_what_it_has(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future futures[20], late;
    int i;

    for (i = 0; i < 20; i++)
        futures[i] = harness_submit(pool, i ? job_nothing : job_gate, &gate, sizeof gate);
    EXPECT(pool_join(pool, 0), -EBUSY);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_check(pool), -ESHUTDOWN);
    EXPECT(pool_submit(pool, job_nothing, NULL, 0, &late), -ESHUTDOWN);
    EXPECT(pool_submit(pool, job_nothing, NULL, 0, NULL), -ESHUTDOWN);
    EXPECT(pool_map(pool, job_nothing, NULL, 0, 5, NULL, 0), -ESHUTDOWN);
    EXPECT(pool_join(pool, -1), -EINVAL);
    EXPECT(pool_join(pool, 0), -ETIMEDOUT);
    EXPECT(pool_join(pool, 10 * MILLISECOND), -ETIMEDOUT);
    harness_raise(&gate->open);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(pool_join(pool, POOL_FOREVER), 0);
    for (i = 0; i < 20; i++)
        EXPECT(harness_status(&futures[i]), 0);
    EXPECT(pool_check(pool), -ESHUTDOWN);
    pool_destroy(pool);
}

static void an_idle_pool_closes(void)
{
    struct pool *pool = harness_pool(3, LIMIT);

    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, POOL_FOREVER - 1), 0);
    pool_destroy(pool);
}

static void fill(struct pool *pool, struct gate **gate, struct pool_future *futures, int count)
{
    int i;

    for (i = 0; i < count; i++)
        futures[i] = harness_submit(pool, job_gate, gate, sizeof *gate);
}

static void terminate_ends_waiting_and_running_jobs_and_all_processes(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future futures[10], finished = harness_submit(pool, job_echo, "result", 6);
    struct pool_stats stats = {.size = sizeof stats};
    int i, pidfds[3];
    const void *data;
    size_t size;

    EXPECT(pool_future_wait(&finished, 20 * SECOND), 0);
    fill(pool, &gate, futures, 10);
    REQUIRE(harness_await(&gate->reached, 2), true);
    EXPECT(pool_get_stats(pool, &stats), 0);
    pidfds[0] = harness_pidfd(stats.supervisor);
    pidfds[1] = harness_worker(pool, 0);
    pidfds[2] = harness_worker(pool, 1);
    EXPECT(pool_terminate(pool), 0);
    for (i = 0; i < 3; i++) {
        EXPECT(harness_ends(pidfds[i], 0), true);
        close(pidfds[i]);
    }
    for (i = 0; i < 10; i++) {
        EXPECT(pool_future_wait(&futures[i], 0), 0);
        EXPECT(pool_future_outcome(&futures[i], NULL), POOL_CANCELLED);
        EXPECT(pool_future_result(&futures[i], NULL, NULL), -ECANCELED);
        pool_future_release(&futures[i]);
    }
    EXPECT(gate->reached, 2);
    EXPECT(pool_future_result(&finished, &data, &size), 0);
    EXPECT(size == 6 && memcmp(data, "result", 6) == 0, true);
    EXPECT(pool_terminate(pool), 0);
    EXPECT(pool_submit(pool, job_nothing, NULL, 0, NULL), -ESHUTDOWN);
    EXPECT(pool_join(pool, 0), 0);
    pool_destroy(pool);
}

static void after_the_end_no_worker_has_a_pid(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future future = harness_submit(pool, job_nothing, NULL, 0);
    struct pool_stats stats = {.size = sizeof stats};

    EXPECT(harness_status(&future), 0);
    EXPECT(pool_terminate(pool), 0);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.supervisor, 0);
    EXPECT(stats.alive, 0);
    EXPECT(pool_worker_pid(pool, 0), 0); /* the number may be another process's by now */
    EXPECT(pool_worker_pid(pool, 1), 0);
    pool_destroy(pool);
}

static void terminate_is_bounded_when_the_supervisor_is_stopped(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_stats stats = {.size = sizeof stats};
    struct pool_future futures[4];
    int64_t start = system_now();
    int pidfd, i;

    fill(pool, &gate, futures, 4);
    REQUIRE(harness_await(&gate->reached, 2), true);
    EXPECT(pool_get_stats(pool, &stats), 0);
    pidfd = harness_worker(pool, 1);
    EXPECT(kill(stats.supervisor, SIGSTOP), 0);
    EXPECT(pool_terminate(pool), 0);
    EXPECT(system_now() - start < 10 * SECOND, true);
    for (i = 0; i < 4; i++)
        EXPECT(pool_future_outcome(&futures[i], NULL), POOL_CANCELLED);
    EXPECT(harness_ends(pidfd, 1000), true);
    close(pidfd);
    pool_destroy(pool);
}

/* ---- Insight ---- */

static void the_statistics_tell_what_happened(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_stats stats = {.size = sizeof stats}, wrong = {.size = 1};
    int i;

    for (i = 0; i < 30; i++) {
        struct pool_future future = harness_submit(pool, job_nothing, NULL, 0);

        EXPECT(harness_status(&future), 0);
    }
    EXPECT(pool_get_stats(pool, &wrong), -EINVAL);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.workers, 2);
    EXPECT(stats.jobs_started, 30);
    EXPECT(stats.workers_started >= 1 && stats.workers_started <= 2, true);
    EXPECT(stats.supervisor > 0, true);
    EXPECT(stats.memory > 0 && stats.memory <= LIMIT, true);
    EXPECT(stats.shared_limit, LIMIT);
    EXPECT(pool_worker_pid(pool, -1), 0);
    EXPECT(pool_worker_pid(pool, 2), 0);
    EXPECT(pool_worker_pid(pool, INT_MAX), 0);
    pool_destroy(pool);
}

static void the_host_is_no_worker(void)
{
    struct pool *pool = harness_pool(1, LIMIT);

    EXPECT(pool_current() == NULL, true);
    EXPECT(pool_worker_index(), -1);
    pool_destroy(pool);
}

static void the_version_is_that_of_the_header(void)
{
    char text[32];

    snprintf(text, sizeof text, "%d.%d.%d", POOL_VERSION_MAJOR, POOL_VERSION_MINOR,
             POOL_VERSION_PATCH);
    EXPECT(strcmp(pool_version(), text), 0);
}

/* ---- Nothing is left ---- */

static void make_use_and_end(int number)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1 + number % 3, LIMIT);
    struct pool_future futures[4];

    fill(pool, &gate, futures, 4);
    if (number % 4 == 0) {
        harness_raise(&gate->open);
        EXPECT(pool_close(pool), 0);
        EXPECT(pool_join(pool, 20 * SECOND), 0);
    } else if (number % 4 == 1) {
        EXPECT(pool_terminate(pool), 0);
    } else if (number % 4 == 2) {
        EXPECT(pool_close(pool), 0);
    }
    pool_destroy(pool);
}

static void fifty_pools_leave_no_descriptor_mapping_or_file(void)
{
    int descriptors, mappings, files, i;

    make_use_and_end(0);
    descriptors = count_names("/proc/self/fd", "");
    mappings = count_mappings();
    files = count_names("/dev/shm", "libpool");
    for (i = 0; i < 50; i++)
        make_use_and_end(i);
    EXPECT(count_names("/proc/self/fd", ""), descriptors);
    EXPECT(count_names("/dev/shm", "libpool"), files);
    /* The allocators of the C library and the sanitizers map now and then. */
    EXPECT(count_mappings() <= mappings + (HARNESS_SANITIZED ? 30 : 5), true);
    pool_destroy(NULL);
}

static const struct harness_test tests[] = {
    TEST(a_pool_runs_jobs_as_soon_as_it_is_made),
    TEST(the_default_configuration_makes_a_pool),
    TEST(the_smallest_memory_limit_makes_a_pool_that_works),
    TEST(a_memory_limit_beyond_every_address_space_is_none),
    TEST(a_bad_configuration_is_einval),
    TEST(what_only_a_command_gets_is_einval_without_one),
    TEST(too_few_descriptors_are_an_error_that_leaves_nothing),
    TEST(a_pool_can_be_made_in_little_address_space),
    TEST(a_closed_pool_takes_no_jobs_and_runs_what_it_has),
    TEST(an_idle_pool_closes),
    TEST(terminate_ends_waiting_and_running_jobs_and_all_processes),
    TEST(after_the_end_no_worker_has_a_pid),
    TEST(terminate_is_bounded_when_the_supervisor_is_stopped),
    TEST(the_statistics_tell_what_happened),
    TEST(the_host_is_no_worker),
    TEST(the_version_is_that_of_the_header),
    TEST(fifty_pools_leave_no_descriptor_mapping_or_file),
};

HARNESS_MAIN("pool: making and ending", tests)
