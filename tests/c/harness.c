/* What all tests of the C library share. */
#include "harness.h"

#include <CUnit/Basic.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "system.h"
#include "wake.h"

#if defined(__GLIBC__)
#include <execinfo.h>
#endif

#define SHARED_BYTES (64 * MEBIBYTE)
#define PATIENCE (20 * SECOND)
#define CHILD_FAILED 97
/* What the tests leave behind has this long to end by itself. */
#define GRACE_MS 2000

static const struct harness_test *all_tests;
static size_t test_count;
static int watchdog_timer = -1;
static int test_seconds;
static unsigned char *shared_area;
static size_t shared_used;
static bool in_child;
static _Atomic bool child_failed;
static pthread_mutex_t expect_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- Expectations ---- */

bool harness_expect(long long actual, long long wanted, const char *text, const char *file,
                    unsigned line, bool fatal)
{
    bool held = actual == wanted;
    char message[400];

    if (!held && in_child) {
        fprintf(stderr, "\n    in a child: %s:%u: %s, but it is %lld\n", file, line, text, actual);
        child_failed = true;
        if (fatal)
            _exit(CHILD_FAILED);
        return false;
    }
    if (in_child)
        return true;
    snprintf(message, sizeof message, held ? "%s" : "%s, but it is %lld", text, actual);
    if (!held && fatal)
        CU_assertImplementation(CU_FALSE, line, message, file, "", CU_TRUE);
    pthread_mutex_lock(&expect_lock);
    CU_assertImplementation(held, line, message, file, "", CU_FALSE);
    pthread_mutex_unlock(&expect_lock);
    return held;
}

/* ---- Processes and threads ---- */

pid_t harness_spawn(void (*body)(void *context), void *context, unsigned seconds)
{
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        in_child = true;
        signal(SIGALRM, SIG_DFL);
        alarm(seconds);
        body(context);
        fflush(NULL);
        _exit(child_failed ? CHILD_FAILED : 0);
    }
    REQUIRE(pid > 0, true);
    return pid;
}

int harness_reap(pid_t pid)
{
    int status = -1;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

int harness_fork(void (*body)(void *context), void *context, unsigned seconds)
{
    return harness_reap(harness_spawn(body, context, seconds));
}

struct crew {
    void (*body)(void *context, unsigned number);
    void *context;
    pthread_barrier_t start;
};

struct member {
    struct crew *crew;
    unsigned number;
    pthread_t thread;
};

static void *run_member(void *argument)
{
    struct member *member = argument;

    pthread_barrier_wait(&member->crew->start);
    member->crew->body(member->crew->context, member->number);
    return NULL;
}

void harness_threads(unsigned count, void (*body)(void *context, unsigned number), void *context)
{
    struct crew crew = {.body = body, .context = context};
    struct member *members = calloc(count, sizeof *members);
    unsigned i;

    pthread_barrier_init(&crew.start, NULL, count);
    for (i = 0; i < count; i++) {
        members[i] = (struct member){.crew = &crew, .number = i};
        if (pthread_create(&members[i].thread, NULL, run_member, &members[i]) != 0)
            abort(); /* the others wait at the barrier */
    }
    for (i = 0; i < count; i++)
        pthread_join(members[i].thread, NULL);
    pthread_barrier_destroy(&crew.start);
    free(members);
}

int harness_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

bool harness_ends(int pidfd, int milliseconds)
{
    struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
    int64_t deadline = system_now() + milliseconds * MILLISECOND;
    int ready;

    while ((ready = poll(&poll_fd, 1, milliseconds)) < 0 && errno == EINTR) {
        int64_t left = deadline - system_now();

        milliseconds = left > 0 ? (int)(left / MILLISECOND) : 0;
    }
    return ready > 0;
}

/* ---- Between processes ---- */

void *harness_shared(size_t size)
{
    size_t begin = (shared_used + 63) / 64 * 64;

    if (begin + size > SHARED_BYTES)
        abort();
    shared_used = begin + size;
    return shared_area + begin;
}

void harness_raise(_Atomic uint32_t *count)
{
    atomic_fetch_add(count, 1);
    futex_wake(count, INT_MAX);
}

bool harness_await(_Atomic uint32_t *count, uint32_t value)
{
    int64_t deadline = system_now() + PATIENCE;
    uint32_t now;

    while ((now = atomic_load(count)) < value) {
        int64_t left = deadline - system_now();

        if (left <= 0)
            return false;
        futex_wait(count, now, left);
    }
    return true;
}

bool harness_until(bool (*condition)(void *context), void *context)
{
    int64_t deadline = system_now() + PATIENCE;

    while (!condition(context)) {
        if (system_now() > deadline)
            return false;
        poll(NULL, 0, 1);
    }
    return true;
}

uint64_t harness_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

/* ---- Pools ---- */

struct pool *harness_pool(int workers, uint64_t limit)
{
    struct pool_config config;
    struct pool *pool = NULL;

    pool_config_init(&config);
    config.workers = workers;
    config.shared_limit = limit;
    REQUIRE(pool_create(&pool, &config), 0);
    return pool;
}

struct pool_future harness_submit(struct pool *pool, pool_function function, const void *argument,
                                  size_t size)
{
    struct pool_future future = {NULL, 0, 0};

    REQUIRE(pool_submit(pool, function, argument, size, &future), 0);
    return future;
}

int harness_outcome(const struct pool_future *future, int *detail)
{
    int error = pool_future_wait(future, PATIENCE);

    return error ? error : pool_future_outcome(future, detail);
}

int harness_status(const struct pool_future *future)
{
    int status = pool_future_wait(future, PATIENCE);

    if (status == 0)
        status = pool_future_result(future, NULL, NULL);
    pool_future_release(future);
    return status;
}

struct numbered {
    struct pool *pool;
    int worker;
};

static bool has_pid(void *context)
{
    struct numbered *numbered = context;

    return pool_worker_pid(numbered->pool, numbered->worker) > 0;
}

int harness_worker(struct pool *pool, int worker)
{
    struct numbered numbered = {pool, worker};

    REQUIRE(harness_until(has_pid, &numbered), true);
    return harness_pidfd(pool_worker_pid(pool, worker));
}

int job_nothing(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    return 0;
}

int job_echo(struct pool_job *job, const void *argument, size_t size)
{
    return pool_job_return(job, argument, size);
}

int job_gate(struct pool_job *job, const void *argument, size_t size)
{
    struct gate *gate = *(struct gate *const *)argument;

    (void)job;
    (void)size;
    harness_raise(&gate->reached);
    return harness_await(&gate->open, 1) ? 0 : -ETIMEDOUT;
}

/* ---- The watching parent ---- */

/* Calls visit for each process whose parent is `parent`. */
static void each_child(pid_t parent, void (*visit)(pid_t pid, const char *name))
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;

    while (processes && (entry = readdir(processes))) {
        char path[64], text[512], *name, *end;
        pid_t pid = (pid_t)atoi(entry->d_name), its_parent;
        FILE *file;

        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        file = pid > 0 ? fopen(path, "re") : NULL;
        if (!file)
            continue;
        if (fgets(text, sizeof text, file) && (name = strchr(text, '(')) &&
            (end = strrchr(text, ')')) && sscanf(end + 1, " %*c %d", &its_parent) == 1 &&
            its_parent == parent) {
            *end = '\0';
            visit(pid, name + 1);
        }
        fclose(file);
    }
    if (processes)
        closedir(processes);
}

/* Prints the stacks of all threads of a process, with gdb where there is one. */
static void print_stacks(pid_t pid, const char *name)
{
    char number[16];
    pid_t gdb;

    fprintf(stderr, "---- stacks of process %d (%s)\n", (int)pid, name);
    snprintf(number, sizeof number, "%d", (int)pid);
    gdb = fork();
    if (gdb == 0) {
        alarm(30);
        dup2(STDERR_FILENO, STDOUT_FILENO);
        execlp("gdb", "gdb", "-p", number, "--batch", "-nx", "-ex", "thread apply all backtrace",
               (char *)NULL);
        _exit(127);
    }
    if (gdb > 0 && harness_reap(gdb) != 0)
        kill(pid, SIGQUIT); /* it prints the stack of its main thread itself */
}

static void print_stacks_below(pid_t pid, const char *name)
{
    print_stacks(pid, name);
    each_child(pid, print_stacks_below);
}

static void print_own_stack(int signal_number)
{
    (void)signal_number;
#if defined(__GLIBC__)
    void *frames[64];

    backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
#endif
}

static bool left_behind;

static void kill_left_behind(pid_t pid, const char *name)
{
    fprintf(stderr, "left behind: process %d (%s)\n", (int)pid, name);
    left_behind = true;
    kill(pid, SIGKILL);
}

/* Orphans of the tests are our children, since we are a subreaper. They must end by themselves. */
static void reap_orphans(void)
{
    struct timespec grace = {.tv_sec = GRACE_MS / 1000};
    sigset_t child;
    pid_t pid;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0)
        if (pid == 0 && sigtimedwait(&child, NULL, &grace) < 0 && errno == EAGAIN)
            each_child(getpid(), kill_left_behind);
}

static int watch(pid_t tests)
{
    struct pollfd fds[2] = {{.fd = harness_pidfd(tests), .events = POLLIN},
                            {.fd = watchdog_timer, .events = POLLIN}};
    int status;

    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
    if (!fds[0].revents) {
        fprintf(stderr, "\nThis test takes more than %d seconds.\n", test_seconds);
        print_stacks_below(tests, "tests");
        kill(tests, SIGABRT);
    }
    status = harness_reap(tests);
    reap_orphans();
    if (WIFSIGNALED(status))
        fprintf(stderr, "The tests were ended by signal %d.\n", WTERMSIG(status));
    return left_behind || status != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- The program ---- */

static void check_children(void)
{
    siginfo_t info;

    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD)
        harness_expect(1, 0, "child processes left behind", __FILE__, __LINE__, false);
}

static void run_current(void)
{
    const char *name = CU_get_current_test()->pName;
    struct itimerspec limit = {.it_value.tv_sec = test_seconds};
    size_t i;

    timerfd_settime(watchdog_timer, 0, &limit, NULL);
    for (i = 0; i < test_count; i++)
        if (strcmp(all_tests[i].name, name) == 0)
            all_tests[i].run();
    /* One that failed may not have come to clean up. */
    if (CU_get_number_of_failures() == 0)
        check_children();
}

static int run_tests(const char *suite_name, const char *wanted)
{
    CU_pSuite suite;
    size_t i;

    signal(SIGQUIT, print_own_stack);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (CU_initialize_registry() != CUE_SUCCESS)
        return EXIT_FAILURE;
    suite = CU_add_suite(suite_name, NULL, NULL);
    for (i = 0; i < test_count; i++)
        if (!wanted || strstr(all_tests[i].name, wanted))
            CU_add_test(suite, all_tests[i].name, run_current);
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_basic_run_tests();
    return CU_get_number_of_failures() || CU_get_number_of_tests_run() == 0;
}

int harness_main(int argc, char **argv, const char *suite, const struct harness_test *tests,
                 size_t count)
{
    const char *seconds = getenv("HARNESS_SECONDS");
    pid_t pid;

    all_tests = tests;
    test_count = count;
    test_seconds = seconds ? atoi(seconds) : 60;
    watchdog_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    shared_area =
        mmap(NULL, SHARED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (watchdog_timer < 0 || shared_area == MAP_FAILED)
        return EXIT_FAILURE;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid = fork();
    if (pid == 0)
        exit(run_tests(suite, argc > 1 ? argv[1] : NULL));
    return pid > 0 ? watch(pid) : EXIT_FAILURE;
}
