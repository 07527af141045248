/* Pools whose supervisor is a program of its own: here this one, called with "supervise". */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

#define LIMIT (64 * MEBIBYTE)

static char itself[4096];
static int mark = 1; /* the host's; a fork would have it */

/* ---- The program ---- */

static int on_start(void *context, struct pool *pool, unsigned worker)
{
    (void)pool;
    mark = *(int *)context + (int)worker;
    return 0;
}

static int on_run(void *context, struct pool_job *job)
{
    return pool_job_return(job, context, sizeof(int));
}

/* The context is the descriptor of a pipe. */
static void tell(void *context, enum pool_log_level level, const char *message)
{
    dprintf(*(const int *)context, "%d: %s\n", (int)level, message);
}

static int supervise(const char *how, const char *number)
{
    struct pool *pool;
    const void *payload;
    size_t size;
    int context = 0, error;
    struct pool_host host = {
        .size = sizeof host, .start = on_start, .run = on_run, .context = &context};

    if (strcmp(how, "exit") == 0)
        return 3;
    if (strcmp(how, "hang") == 0)
        for (;;)
            pause();
    error = pool_attach(atoi(number), &pool, &payload, &size);
    if (error)
        return -error;
    if (strcmp(how, "attach") == 0)
        for (;;)
            pause();
    if (size == sizeof context)
        memcpy(&context, payload, size);
    if (strcmp(how, "tell") == 0 && pool_set_log(pool, tell, &context) != 0)
        return 4;
    return -pool_serve(pool, &host);
}

/* ---- The host ---- */

static struct pool_config configure(const char *const *command, const int *payload)
{
    struct pool_config config;

    pool_config_init(&config);
    config.workers = 2;
    config.shared_limit = LIMIT;
    config.command = command;
    config.payload = payload;
    config.payload_size = payload ? sizeof *payload : 0;
    return config;
}

static struct pool *make(const char *how)
{
    const char *command[] = {itself, "supervise", how, NULL};
    int payload = 40;
    struct pool_config config = configure(command, &payload);
    struct pool *pool = NULL;

    REQUIRE(pool_create(&pool, &config), 0);
    return pool;
}

static int status_of(struct pool *pool, pool_function function, const void *argument, size_t size)
{
    struct pool_future future = harness_submit(pool, function, argument, size);

    return harness_status(&future);
}

static int job_mark_is_not_of_host(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    return mark == 40 + pool_worker_index() ? 0 : -EBADMSG;
}

static void jobs_run_in_forks_of_the_program(void)
{
    struct pool *pool;
    struct pool_future future;
    const void *data = NULL;
    size_t size = 0;
    void *memory;

    mark = 7;
    pool = make("serve");
    EXPECT(status_of(pool, job_mark_is_not_of_host, NULL, 0), 0);
    future = harness_submit(pool, job_echo, "abc", 3);
    EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
    EXPECT(pool_future_result(&future, &data, &size), 0);
    EXPECT(size == 3 && memcmp(data, "abc", 3) == 0, true);
    pool_future_release(&future);
    REQUIRE(pool_prepare(pool, 0, &future, &memory), 0);
    REQUIRE(pool_commit_host(&future, 1), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
    EXPECT(pool_future_result(&future, &data, &size), 0);
    EXPECT(size == sizeof(int) && *(const int *)data == 40, true);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    pool_destroy(pool);
}

static int job_die(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    raise(SIGKILL);
    return 0;
}

static void a_worker_that_dies_is_replaced(void)
{
    struct pool *pool = make("serve");
    int i, detail = 0;

    for (i = 0; i < 6; i++) {
        struct pool_future future = harness_submit(pool, job_die, NULL, 0);

        EXPECT(harness_outcome(&future, &detail), POOL_DIED);
        EXPECT(detail, SIGKILL);
        pool_future_release(&future);
    }
    EXPECT(status_of(pool, job_mark_is_not_of_host, NULL, 0), 0);
    pool_destroy(pool);
}

static int count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = -3; /* ".", ".." and the directory */

    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static int job_check_descriptors(struct pool_job *job, const void *argument, size_t size)
{
    int kept, other;
    struct stat status;

    (void)job;
    (void)size;
    memcpy(&kept, argument, sizeof kept);
    memcpy(&other, (const char *)argument + sizeof kept, sizeof other);
    if (fstat(kept, &status) < 0 || !S_ISFIFO(status.st_mode))
        return -EBADF;
    if (fstat(other, &status) == 0 && S_ISFIFO(status.st_mode))
        return -EEXIST;
    /* 0 to 2, the kept one, the segment, two eventfds. */
    return count_descriptors() == 7 ? 0 : -EMFILE;
}

static void only_named_descriptors_are_inherited(void)
{
    const char *command[] = {itself, "supervise", "serve", NULL};
    struct pool_config config = configure(command, NULL);
    struct pool *pool = NULL;
    int before = count_descriptors(), ends[2];

    REQUIRE(pipe(ends), 0); /* neither is close-on-exec */
    config.keep = &ends[0];
    config.keep_count = 1;
    REQUIRE(pool_create(&pool, &config), 0);
    EXPECT(status_of(pool, job_check_descriptors, ends, sizeof ends), 0);
    EXPECT(fcntl(ends[0], F_GETFD), 0); /* as it was, here */
    pool_destroy(pool);
    close(ends[0]);
    close(ends[1]);
    EXPECT(count_descriptors(), before);
}

static void a_program_that_can_not_run_is_an_error_of_the_call(void)
{
    const char *missing[] = {"/nonexistent/program", NULL}, *directory[] = {"/", NULL};
    const char *nothing[] = {NULL};
    struct pool_host host = {.size = sizeof host};
    struct pool_config config = configure(missing, NULL);
    struct pool *pool;
    int before = count_descriptors();

    EXPECT(pool_create(&pool, &config), -ENOENT);
    config.command = directory;
    EXPECT(pool_create(&pool, &config), -EACCES);
    config.command = nothing;
    EXPECT(pool_create(&pool, &config), -EINVAL);
    config.command = missing;
    config.host = &host;
    EXPECT(pool_create(&pool, &config), -EINVAL);
    EXPECT(pool == NULL, true);
    EXPECT(count_descriptors(), before);
}

static void a_program_that_ends_early_breaks_the_pool(void)
{
    struct pool *pool = make("exit");
    struct pool_future future;
    int error = pool_submit(pool, job_nothing, NULL, 0, &future);

    EXPECT(error == 0 || error == -EOWNERDEAD, true);
    if (error == 0) {
        EXPECT(harness_outcome(&future, NULL), POOL_LOST);
        pool_future_release(&future);
    }
    EXPECT(pool_check(pool), -EOWNERDEAD);
    pool_destroy(pool);
}

static void a_program_that_does_not_come_up_can_be_terminated(void)
{
    struct pool *pool = make("hang");
    struct pool_future future = harness_submit(pool, job_nothing, NULL, 0);

    EXPECT(pool_terminate(pool), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_CANCELLED);
    pool_destroy(pool);
}

struct host {
    const char *how;
    _Atomic uint32_t supervisor, ready;
};

static void be_host(void *context)
{
    struct host *host = context;
    struct pool *pool = make(host->how);
    struct pool_stats stats = {.size = sizeof stats};

    if (strcmp(host->how, "serve") == 0)
        EXPECT(status_of(pool, job_nothing, NULL, 0), 0);
    REQUIRE(pool_get_stats(pool, &stats), 0);
    host->supervisor = (uint32_t)stats.supervisor;
    harness_raise(&host->ready);
    for (;;)
        pause();
}

static void check_host_death(const char *how)
{
    struct host *host = harness_shared(sizeof *host);
    pid_t pid;
    int supervisor;

    host->how = how;
    pid = harness_spawn(be_host, host, 30);
    REQUIRE(harness_await(&host->ready, 1), true);
    supervisor = harness_pidfd((pid_t)host->supervisor);
    kill(pid, SIGKILL);
    EXPECT(harness_ends(supervisor, 1000), true);
    close(supervisor);
    harness_reap(pid);
}

static void the_program_ends_with_the_host_whether_it_is_up_or_not(void)
{
    check_host_death("hang");
    check_host_death("attach");
    check_host_death("serve");
}

static void *make_in_thread(void *pool)
{
    *(struct pool **)pool = make("serve");
    return NULL;
}

static void the_thread_that_made_the_pool_may_end(void)
{
    struct pool *pool = NULL;
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, make_in_thread, &pool), 0);
    REQUIRE(pthread_join(thread, NULL), 0);
    EXPECT(status_of(pool, job_mark_is_not_of_host, NULL, 0), 0);
    pool_destroy(pool);
}

static int job_interrupt_all(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    raise(SIGINT);
    kill(getppid(), SIGINT);
    return 0;
}

static void an_interrupt_reaches_neither_workers_nor_supervisor(void)
{
    struct pool *pool = make("serve");

    EXPECT(status_of(pool, job_interrupt_all, NULL, 0), 0);
    EXPECT(status_of(pool, job_nothing, NULL, 0), 0);
    EXPECT(pool_check(pool), 0);
    pool_destroy(pool);
}

static void copy_itself(const char *path)
{
    char buffer[65536];
    int from = open(itself, O_RDONLY | O_CLOEXEC);
    int to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    ssize_t count;

    REQUIRE(from >= 0 && to >= 0, true);
    while ((count = read(from, buffer, sizeof buffer)) > 0)
        REQUIRE(write(to, buffer, (size_t)count), count);
    close(from);
    close(to);
}

static int job_submit_own(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    return 0;
}

static void a_function_of_another_executable_is_not_called(void)
{
    char path[64];
    const char *command[] = {path, "supervise", "serve", NULL};
    struct pool_config config = configure(command, NULL);
    struct pool *pool = NULL;

    snprintf(path, sizeof path, "/tmp/libpool-test-%ld", (long)getpid());
    copy_itself(path);
    REQUIRE(pool_create(&pool, &config), 0);
    EXPECT(status_of(pool, job_submit_own, NULL, 0), -EINVAL);
    pool_destroy(pool);
    unlink(path);
}

static void attaching_to_what_is_no_pool_is_refused(void)
{
    struct pool *pool = (struct pool *)&mark;
    const void *payload;
    size_t size;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    EXPECT(pool_attach(-1, &pool, &payload, &size), -EINVAL);
    EXPECT(pool_attach(fd, &pool, &payload, &size), -EINVAL);
    EXPECT(pool == NULL, true);
    close(fd);
    pool = make("serve");
    EXPECT(pool_serve(pool, NULL), -EINVAL);
    pool_destroy(pool);
}

static int job_exit(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    _exit(5);
}

static void the_program_is_told_of_its_workers(void)
{
    const char *command[] = {itself, "supervise", "tell", NULL};
    struct pool_config config;
    struct pool *pool = NULL;
    struct pool_future future;
    int ends[2];
    char line[256];
    FILE *told;
    bool found = false;

    REQUIRE(pipe2(ends, O_CLOEXEC), 0);
    config = configure(command, &ends[1]);
    config.keep = &ends[1];
    config.keep_count = 1;
    REQUIRE(pool_create(&pool, &config), 0);
    EXPECT(pool_set_log(pool, tell, NULL), -EINVAL); /* not in the host */
    close(ends[1]);
    future = harness_submit(pool, job_exit, NULL, 0);
    EXPECT(harness_outcome(&future, NULL), POOL_DIED);
    told = fdopen(ends[0], "r");
    while (!found && fgets(line, sizeof line, told))
        found = strstr(line, "ended with exit status 5; jobs it had: 1") != NULL;
    EXPECT(found, true);
    EXPECT(atoi(line), POOL_LOG_WARNING);
    fclose(told);
    pool_destroy(pool);
}

static int job_has_cpu(struct pool_job *job, const void *argument, size_t size)
{
    cpu_set_t set;

    (void)job;
    (void)size;
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return -errno;
    return CPU_COUNT(&set) == 1 && CPU_ISSET(*(const int *)argument, &set) ? 0 : -EBADMSG;
}

static void the_cpus_reach_the_workers_of_a_program(void)
{
    const char *command[] = {itself, "supervise", "serve", NULL};
    char payload[] = "five"; /* an odd size, too */
    struct pool_config config = configure(command, NULL);
    struct pool *pool = NULL;
    int cpu = sched_getcpu(), i;

    config.payload = payload;
    config.payload_size = sizeof payload;
    config.cpus = &cpu;
    config.cpu_count = 1;
    REQUIRE(pool_create(&pool, &config), 0);
    for (i = 0; i < 10; i++)
        EXPECT(status_of(pool, job_has_cpu, &cpu, sizeof cpu), 0);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(jobs_run_in_forks_of_the_program),
    TEST(a_worker_that_dies_is_replaced),
    TEST(only_named_descriptors_are_inherited),
    TEST(a_program_that_can_not_run_is_an_error_of_the_call),
    TEST(a_program_that_ends_early_breaks_the_pool),
    TEST(a_program_that_does_not_come_up_can_be_terminated),
    TEST(the_program_ends_with_the_host_whether_it_is_up_or_not),
    TEST(the_thread_that_made_the_pool_may_end),
    TEST(an_interrupt_reaches_neither_workers_nor_supervisor),
    TEST(a_function_of_another_executable_is_not_called),
    TEST(attaching_to_what_is_no_pool_is_refused),
    TEST(the_program_is_told_of_its_workers),
    TEST(the_cpus_reach_the_workers_of_a_program),
};

int main(int argc, char **argv)
{
    ssize_t length = readlink("/proc/self/exe", itself, sizeof itself - 1);

    if (argc == 4 && strcmp(argv[1], "supervise") == 0)
        return supervise(argv[2], argv[3]);
    if (length < 0)
        return EXIT_FAILURE;
    return harness_main(argc, argv, "Programs as supervisors", tests, sizeof tests / sizeof *tests);
}
