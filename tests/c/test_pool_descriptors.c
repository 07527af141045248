/* Jobs that close every descriptor they find, as daemons do, and so the pool's, too. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

#define LIMIT (64 * MEBIBYTE)
#define DESCRIPTORS 64
#define CONTENT 8192

/* Argument: a path. All numbers that were the pool's are that file's afterwards. */
static int job_take_all_descriptors(struct pool_job *job, const void *argument, size_t size)
{
    int fd;

    (void)job;
    (void)size;
    for (fd = 3; fd < DESCRIPTORS; fd++)
        close(fd);
    while ((fd = open(argument, O_RDWR | O_APPEND)) >= 0)
        if (fd >= DESCRIPTORS)
            return 0;
    return -errno;
}

static int job_large_result(struct pool_job *job, const void *argument, size_t size)
{
    (void)argument;
    (void)size;
    return pool_job_reserve(job, MEBIBYTE) ? 0 : -errno;
}

static int job_never_ends(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    for (;;)
        pause();
}

struct file {
    char path[64];
    struct pool *pool;
};

static void take_all_descriptors(struct file *file)
{
    struct pool_future future =
        harness_submit(file->pool, job_take_all_descriptors, file->path, sizeof file->path);

    REQUIRE(harness_status(&future), 0);
}

static void set_up(struct file *file)
{
    char content[CONTENT];
    int fd;

    strcpy(file->path, "/tmp/libpool-test-XXXXXX");
    fd = mkstemp(file->path);
    memset(content, 'x', sizeof content);
    REQUIRE(write(fd, content, sizeof content), sizeof content);
    close(fd);
    file->pool = harness_pool(1, LIMIT);
    take_all_descriptors(file);
}

/* The pool has not taken it for its own. */
static void tear_down(struct file *file)
{
    char content[CONTENT + 1];
    struct stat status;
    int fd, i;

    pool_destroy(file->pool);
    fd = open(file->path, O_RDONLY);
    unlink(file->path);
    EXPECT(fstat(fd, &status), 0);
    EXPECT(status.st_blocks * 512 <= 2 * CONTENT, true);
    EXPECT(read(fd, content, sizeof content), CONTENT);
    for (i = 0; i < CONTENT && content[i] == 'x'; i++)
        ;
    EXPECT(i, CONTENT);
    close(fd);
}

static uint64_t workers_started(struct pool *pool)
{
    struct pool_stats stats = {.size = sizeof stats};

    EXPECT(pool_get_stats(pool, &stats), 0);
    return stats.workers_started;
}

static void ends_are_announced_all_the_same(void)
{
    struct file file;
    struct pool_future future, completed;
    struct pollfd notify;
    struct gate *gate = harness_shared(sizeof *gate);
    uint64_t events;

    set_up(&file);
    notify = (struct pollfd){.fd = pool_notify_fd(file.pool), .events = POLLIN};
    future = harness_submit(file.pool, job_gate, &gate, sizeof gate);
    REQUIRE(harness_await(&gate->reached, 1), true);
    EXPECT(pool_future_notify(&future), 0);
    while (read(notify.fd, &events, sizeof events) > 0)
        ;
    EXPECT(pool_next_completed(file.pool, &completed), 0);
    harness_raise(&gate->open);
    EXPECT(poll(&notify, 1, 20000), 1);
    EXPECT(pool_next_completed(file.pool, &completed), 1);
    EXPECT(completed.index, future.index);
    EXPECT(harness_status(&future), 0);
    tear_down(&file);
}

static void a_time_limit_holds_all_the_same(void)
{
    struct pool_options options;
    struct pool_future future;
    struct file file;

    set_up(&file);
    pool_options_init(file.pool, &options);
    options.timeout = 50 * MILLISECOND;
    REQUIRE(pool_submit_with(file.pool, &options, job_never_ends, NULL, 0, &future), 0);
    EXPECT(pool_future_wait(&future, 2 * SECOND), 0);
    EXPECT(pool_future_outcome(&future, NULL), POOL_TIMEOUT);
    pool_future_release(&future);
    tear_down(&file);
}

static void what_needs_a_descriptor_fails_once_and_the_worker_is_replaced(void)
{
    struct pool_future future;
    struct file file;

    set_up(&file);
    future = harness_submit(file.pool, job_large_result, NULL, 0);
    EXPECT(harness_status(&future), -EBADF);
    future = harness_submit(file.pool, job_large_result, NULL, 0);
    EXPECT(harness_status(&future), 0);
    EXPECT(workers_started(file.pool), 2);
    tear_down(&file);
}

static const struct harness_test tests[] = {
    TEST(ends_are_announced_all_the_same),
    TEST(a_time_limit_holds_all_the_same),
    TEST(what_needs_a_descriptor_fails_once_and_the_worker_is_replaced),
};

HARNESS_MAIN("pool: jobs that close its descriptors", tests)
