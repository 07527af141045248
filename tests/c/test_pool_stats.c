/* What a pool tells about itself: counts, bytes, time, and what ps shows. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)

static struct pool_stats stats_of(struct pool *pool)
{
    struct pool_stats stats = {.size = sizeof stats};

    REQUIRE(pool_get_stats(pool, &stats), 0);
    return stats;
}

static struct pool_worker_stats worker_stats_of(struct pool *pool, int worker)
{
    struct pool_worker_stats stats = {.size = sizeof stats};

    REQUIRE(pool_get_worker_stats(pool, worker, &stats), 0);
    return stats;
}

static int job_fail(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    return -EIO;
}

static int job_say_failed(struct pool_job *job, const void *argument, size_t size)
{
    pool_job_fail(job);
    return pool_job_return(job, argument, size);
}

static int job_die(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    raise(SIGKILL);
    return 0;
}

static int job_work(struct pool_job *job, const void *argument, size_t size)
{
    int64_t end = system_now() + *(const int64_t *)argument;

    (void)job, (void)size;
    while (system_now() < end)
        ;
    return 0;
}

/* Also right after the future says so: a job is counted before it ends. */
static void each_ended_job_is_counted_once(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_stats stats;
    int i;

    for (i = 0; i < 500; i++) {
        struct pool_future future = harness_submit(pool, i % 5 ? job_nothing : job_fail, NULL, 0);

        EXPECT(harness_status(&future), i % 5 ? 0 : -EIO);
        stats = stats_of(pool);
        EXPECT(stats.jobs_started, i + 1);
        EXPECT(stats.jobs_failed, i / 5 + 1);
        EXPECT(stats.jobs_done, i + 1 - (i / 5 + 1));
        EXPECT(stats.jobs_waiting, 0);
        EXPECT(stats.jobs_running, 0);
    }
    pool_destroy(pool);
}

static void a_job_may_say_itself_that_it_failed(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future = harness_submit(pool, job_say_failed, "abc", 3);
    struct pool_stats stats;
    size_t size = 0;

    EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
    EXPECT(pool_future_result(&future, NULL, &size), 0);
    EXPECT(size, 3);
    stats = stats_of(pool);
    EXPECT(stats.jobs_done, 0);
    EXPECT(stats.jobs_failed, 1);
    pool_destroy(pool);
}

static void waiting_and_running_jobs_are_told_apart(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_future futures[9];
    struct pool_stats stats;
    int i;

    for (i = 0; i < 9; i++)
        futures[i] = harness_submit(pool, job_gate, &gate, sizeof gate);
    REQUIRE(harness_await(&gate->reached, 2), true);
    stats = stats_of(pool);
    EXPECT(stats.jobs_running, 2);
    EXPECT(stats.jobs_waiting, 7);
    EXPECT(worker_stats_of(pool, 0).jobs_running, 1);
    EXPECT(pool_future_cancel(&futures[8]), 0);
    stats = stats_of(pool);
    EXPECT(stats.jobs_waiting, 6);
    harness_raise(&gate->open);
    for (i = 0; i < 8; i++)
        EXPECT(harness_status(&futures[i]), 0);
    stats = stats_of(pool);
    EXPECT(stats.jobs_running, 0);
    EXPECT(stats.jobs_waiting, 0);
    EXPECT(stats.jobs_done, 8);
    pool_destroy(pool);
}

static void bytes_are_counted_both_ways_inline_and_in_blocks(void)
{
    static const size_t sizes[] = {0, 8, 40, 96, 300, 100000};
    struct pool *pool = harness_pool(2, LIMIT);
    char *data = calloc(1, 100000);
    struct pool_stats stats;
    size_t sum = 0, i;

    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct pool_future future = harness_submit(pool, job_echo, data, sizes[i]);

        EXPECT(harness_status(&future), 0);
        sum += sizes[i];
        stats = stats_of(pool);
        EXPECT(stats.bytes_in, sum);
        EXPECT(stats.bytes_out, sum);
    }
    free(data);
    pool_destroy(pool);
}

static void a_dead_workers_counts_stay_and_its_replacement_adds_to_them(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future;
    struct pool_worker_stats before, after;
    int round;

    for (round = 1; round <= 10; round++) {
        future = harness_submit(pool, job_echo, "12345678", 8);
        EXPECT(harness_status(&future), 0);
        before = worker_stats_of(pool, 0);
        future = harness_submit(pool, job_die, NULL, 0);
        EXPECT(harness_outcome(&future, NULL), POOL_DIED);
        after = worker_stats_of(pool, 0);
        EXPECT(after.jobs_done, round);
        EXPECT(after.jobs_failed, round);
        EXPECT(after.jobs_started, 2 * round);
        EXPECT(after.bytes_in, 8 * round);
        EXPECT(after.busy_time + after.idle_time >= before.busy_time + before.idle_time, true);
        EXPECT(after.jobs_running, 0);
    }
    pool_destroy(pool);
}

static void a_late_job_has_failed_and_a_killed_one_has_not(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_options options;
    struct pool_future future;

    pool_options_init(pool, &options);
    options.timeout = 10 * MILLISECOND;
    EXPECT(pool_submit_with(pool, &options, job_gate, &gate, sizeof gate, &future), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_TIMEOUT);
    EXPECT(stats_of(pool).jobs_failed, 1);
    future = harness_submit(pool, job_gate, &gate, sizeof gate);
    REQUIRE(harness_await(&gate->reached, 2), true);
    EXPECT(pool_future_kill(&future), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_CANCELLED);
    EXPECT(stats_of(pool).jobs_failed, 1);
    EXPECT(stats_of(pool).jobs_done, 0);
    pool_destroy(pool);
}

static void busy_time_is_that_of_jobs_and_all_else_is_idle(void)
{
    int64_t work = 100 * MILLISECOND, begin = system_now(), lifetime;
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_worker_stats before, after;
    struct pool_future future = harness_submit(pool, job_work, &work, sizeof work);

    EXPECT(harness_status(&future), 0);
    before = worker_stats_of(pool, 0);
    EXPECT(before.busy_time >= work, true);
    /* Idle time goes on while the worker sleeps, which tells nobody anything. */
    poll(NULL, 0, 200);
    after = worker_stats_of(pool, 0);
    EXPECT(after.idle_time - before.idle_time >= 150 * MILLISECOND, true);
    EXPECT(after.busy_time - before.busy_time <= 50 * MILLISECOND, true);
    lifetime = system_now() - begin;
    EXPECT(after.busy_time + after.idle_time <= lifetime, true);
    EXPECT(stats_of(pool).busy_time, after.busy_time);
    pool_destroy(pool);
}

/* However it ended: in order, by force, or by the supervisor's death. */
static void the_clocks_stop_when_the_pool_has_ended(void)
{
    int how;

    for (how = 0; how < 3; how++) {
        struct gate *gate = harness_shared(sizeof *gate);
        struct pool *pool = harness_pool(2, LIMIT);
        struct pool_stats before, after;
        struct pool_future future = harness_submit(pool, job_gate, &gate, sizeof gate);

        REQUIRE(harness_await(&gate->reached, 1), true);
        if (how == 0) {
            harness_raise(&gate->open);
            EXPECT(pool_close(pool), 0);
            EXPECT(pool_join(pool, 20 * SECOND), 0);
        } else if (how == 1) {
            EXPECT(pool_terminate(pool), 0);
        } else {
            EXPECT(kill(stats_of(pool).supervisor, SIGKILL), 0);
            EXPECT(harness_outcome(&future, NULL), POOL_LOST);
        }
        before = stats_of(pool);
        EXPECT(before.busy_time > 0, true);
        poll(NULL, 0, 20);
        after = stats_of(pool);
        EXPECT(after.busy_time, before.busy_time);
        EXPECT(after.idle_time, before.idle_time);
        EXPECT(after.jobs_running, 0);
        EXPECT(after.jobs_waiting, 0);
        pool_destroy(pool);
    }
}

static int job_double(struct pool_job *job, const void *argument, size_t size)
{
    int value = *(const int *)argument;

    (void)size;
    if (value == 7)
        return -EDOM;
    value *= 2;
    return pool_job_return(job, &value, sizeof value);
}

static void a_chunk_of_a_map_is_one_job_that_fails_with_its_items(void)
{
    int items[160], results[160], i;
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_stats stats;

    for (i = 0; i < 160; i++)
        items[i] = i;
    EXPECT(pool_map(pool, job_double, items, sizeof *items, 160, results, sizeof *results), -EDOM);
    stats = stats_of(pool);
    EXPECT(stats.jobs_failed, 1);
    EXPECT(stats.jobs_done, stats.jobs_started - 1);
    EXPECT(stats.jobs_done > 1, true);
    EXPECT(stats.bytes_in >= sizeof items, true);
    EXPECT(stats.bytes_out >= sizeof results, true);
    pool_destroy(pool);
}

static void bad_arguments_are_refused(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_worker_stats stats = {.size = sizeof stats};

    EXPECT(pool_get_worker_stats(pool, -1, &stats), -EINVAL);
    EXPECT(pool_get_worker_stats(pool, 1, &stats), -EINVAL);
    stats.size = 8;
    EXPECT(pool_get_worker_stats(pool, 0, &stats), -EINVAL);
    pool_destroy(pool);
}

/* ---- Names ---- */

static void read_file(pid_t pid, const char *name, char *text, size_t room)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    memset(text, 0, room);
    EXPECT(system_read(path, text, room) > 0, true);
    text[strcspn(text, "\n")] = '\0';
}

struct shown {
    struct pool *pool;
    char comm[32], command[600];
};

/* A worker begins with what is shown of the supervisor. */
static bool worker_is_shown(void *context)
{
    struct shown *shown = context;
    pid_t pid = pool_worker_pid(shown->pool, 1);

    if (!pid)
        return false;
    read_file(pid, "cmdline", shown->command, sizeof shown->command);
    read_file(pid, "comm", shown->comm, sizeof shown->comm); /* which it sets before the other */
    return strstr(shown->command, " worker ") != NULL;
}

static void expect_shown(const char *name, const char *comm, const char *watch)
{
    struct pool_config config;
    struct shown shown = {0};
    char own[600], wanted[600];
    struct pool_future future;
    ssize_t length, i;

    length = system_read("/proc/self/cmdline", own, sizeof own);
    for (i = 0; i < length - 1; i++)
        if (own[i] == '\0')
            own[i] = ' ';
    pool_config_init(&config);
    config.workers = 2;
    config.shared_limit = LIMIT;
    config.name = name;
    REQUIRE(pool_create(&shown.pool, &config), 0);
    EXPECT(harness_until(worker_is_shown, &shown), true);
    EXPECT(strcmp(shown.comm, comm), 0);
    future = harness_submit(shown.pool, job_nothing, NULL, 0);
    EXPECT(harness_status(&future), 0);
    read_file(pool_worker_pid(shown.pool, 1), "cmdline", shown.command, sizeof shown.command);
    snprintf(wanted, sizeof wanted, "%.31s worker 1: %.300s", name ? name : "libpool", own);
    EXPECT(strcmp(shown.command, wanted), 0);
    read_file(stats_of(shown.pool).supervisor, "comm", shown.comm, sizeof shown.comm);
    EXPECT(strcmp(shown.comm, watch), 0);
    read_file(stats_of(shown.pool).supervisor, "cmdline", shown.command, sizeof shown.command);
    snprintf(wanted, sizeof wanted, "%.31s supervisor: %.300s", name ? name : "libpool", own);
    EXPECT(strcmp(shown.command, wanted), 0);
    pool_destroy(shown.pool);
    system_read("/proc/self/cmdline", wanted, sizeof wanted);
    EXPECT(strncmp(wanted, own, strlen(wanted)), 0); /* the host's is as it was */
}

static void ps_shows_which_pool_and_worker_a_process_is(void)
{
    expect_shown(NULL, "libpool-1", "libpool-watch");
    expect_shown("renderer", "renderer-1", "renderer-watch");
    expect_shown("a-name-that-is-longer-than-all-of-them", "a-name-that-i-1", "a-name-th-watch");
}

/* From here on the kernel does not let this process, and those it forks, move its command line. */
static void forbid_moving(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_MM, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};

    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void expect_cut_title(void *context)
{
    char own[600], text[600], wanted[600];
    size_t room = (size_t)system_read("/proc/self/cmdline", own, sizeof own);
    struct pool *pool;
    struct pool_future future;

    (void)context;
    forbid_moving();
    pool = harness_pool(1, LIMIT);
    future = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(harness_status(&future), 0);
    memset(text, 0, sizeof text);
    system_read("/proc/self/cmdline", text, sizeof text);
    EXPECT(memcmp(text, own, room), 0);
    read_file(pool_worker_pid(pool, 0), "cmdline", text, sizeof text);
    snprintf(wanted, sizeof wanted, "libpool worker 0: %.300s", own);
    EXPECT(strncmp(text, wanted, room - 1), 0);
    EXPECT(strlen(text), strlen(wanted) < room - 1 ? strlen(wanted) : room - 1);
    EXPECT(getenv("PATH") != NULL, true);
    pool_destroy(pool);
}

static void a_title_that_can_not_be_moved_is_cut_to_the_room_there_is(void)
{
    EXPECT(harness_fork(expect_cut_title, NULL, 20), 0);
}

static const struct harness_test tests[] = {
    TEST(each_ended_job_is_counted_once),
    TEST(a_job_may_say_itself_that_it_failed),
    TEST(waiting_and_running_jobs_are_told_apart),
    TEST(bytes_are_counted_both_ways_inline_and_in_blocks),
    TEST(a_dead_workers_counts_stay_and_its_replacement_adds_to_them),
    TEST(a_late_job_has_failed_and_a_killed_one_has_not),
    TEST(busy_time_is_that_of_jobs_and_all_else_is_idle),
    TEST(the_clocks_stop_when_the_pool_has_ended),
    TEST(a_chunk_of_a_map_is_one_job_that_fails_with_its_items),
    TEST(bad_arguments_are_refused),
    TEST(ps_shows_which_pool_and_worker_a_process_is),
    TEST(a_title_that_can_not_be_moved_is_cut_to_the_room_there_is),
};

HARNESS_MAIN("pool: insight", tests)
