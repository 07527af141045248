/* Where there are no pidfds, as under valgrind and in some sandboxes. A filter of system calls
 * refuses them in a child, whose processes the tests watch from outside. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)
#define WORKERS 2

static char itself[4096];

static void refuse_pidfds(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_send_signal, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};

    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    REQUIRE(harness_pidfd(getpid()), -1);
}

/* A host without pidfds, and what is to be seen of it. */
struct host {
    bool command; /* its supervisor is a program of its own */
    _Atomic uint32_t ready;
    pid_t supervisor, workers[WORKERS];
};

static struct pool *make(struct host *host)
{
    const char *command[] = {itself, "supervise", NULL};
    struct pool_stats stats = {.size = sizeof stats};
    struct pool_config config;
    struct pool_future future;
    struct pool *pool = NULL;
    int i;

    refuse_pidfds();
    pool_config_init(&config);
    config.workers = WORKERS;
    config.shared_limit = LIMIT;
    config.command = host->command ? command : NULL;
    REQUIRE(pool_create(&pool, &config), 0);
    for (i = 0; i < 100; i++) {
        future = harness_submit(pool, job_nothing, NULL, 0);
        EXPECT(harness_status(&future), 0);
    }
    REQUIRE(pool_get_stats(pool, &stats), 0);
    host->supervisor = stats.supervisor;
    for (i = 0; i < WORKERS; i++)
        host->workers[i] = pool_worker_pid(pool, i);
    return pool;
}

static void close_orderly(void *context)
{
    struct pool *pool = make(context);

    EXPECT(pool_check(pool), 0);
    EXPECT(harness_ends(pool_supervisor_fd(pool), 0), false);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    pool_destroy(pool);
}

static int job_never_ends(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    while (pause() < 0)
        ;
    return 0;
}

static void outlive_the_supervisor(void *context)
{
    struct host *host = context;
    struct pool *pool = make(host);
    struct pool_future future = harness_submit(pool, job_never_ends, NULL, 0);

    EXPECT(kill(host->supervisor, SIGKILL), 0);
    EXPECT(harness_ends(pool_supervisor_fd(pool), 5000), true);
    EXPECT(harness_outcome(&future, NULL), POOL_LOST);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    pool_destroy(pool);
}

static void end_a_stopped_supervisor(void *context)
{
    struct host *host = context;
    struct pool *pool = make(host);
    int64_t start = system_now();

    EXPECT(kill(host->supervisor, SIGSTOP), 0);
    EXPECT(pool_terminate(pool), 0);
    EXPECT(system_now() - start < 10 * SECOND, true);
    EXPECT(kill(host->supervisor, 0), -1); /* ended and reaped */
    pool_destroy(pool);
}

static void wait_for_death(void *context)
{
    struct host *host = context;

    make(host);
    harness_raise(&host->ready);
    for (;;)
        pause();
}

static void check(void (*body)(void *context), bool command)
{
    struct host *host = harness_shared(sizeof *host);

    host->command = command;
    EXPECT(harness_fork(body, host, 60), 0);
}

static void a_pool_works_and_closes(void)
{
    check(close_orderly, false);
    check(close_orderly, true);
}

static void the_supervisors_death_is_noticed(void)
{
    check(outlive_the_supervisor, false);
    check(outlive_the_supervisor, true);
}

static void a_stopped_supervisor_is_killed(void)
{
    check(end_a_stopped_supervisor, false);
    check(end_a_stopped_supervisor, true);
}

static void check_host_death(bool command)
{
    struct host *host = harness_shared(sizeof *host);
    int fds[WORKERS + 1], i;
    pid_t pid;

    host->command = command;
    pid = harness_spawn(wait_for_death, host, 60);
    REQUIRE(harness_await(&host->ready, 1), true);
    fds[WORKERS] = harness_pidfd(host->supervisor);
    for (i = 0; i < WORKERS; i++)
        fds[i] = harness_pidfd(host->workers[i]);
    EXPECT(kill(pid, SIGKILL), 0);
    harness_reap(pid);
    for (i = 0; i <= WORKERS; i++) {
        EXPECT(fds[i] >= 0 && harness_ends(fds[i], 1000), true);
        close(fds[i]);
    }
}

static void a_killed_host_leaves_no_process(void)
{
    check_host_death(false);
    check_host_death(true);
}

static const struct harness_test tests[] = {
    TEST(a_pool_works_and_closes),
    TEST(the_supervisors_death_is_noticed),
    TEST(a_stopped_supervisor_is_killed),
    TEST(a_killed_host_leaves_no_process),
};

int main(int argc, char **argv)
{
    struct pool *pool;
    const void *payload;
    size_t size;

    if (readlink("/proc/self/exe", itself, sizeof itself - 1) < 0)
        return 1;
    if (argc == 3 && strcmp(argv[1], "supervise") == 0)
        return pool_attach(atoi(argv[2]), &pool, &payload, &size) || pool_serve(pool, NULL);
    return harness_main(argc, argv, "pools without pidfds", tests, sizeof tests / sizeof *tests);
}
