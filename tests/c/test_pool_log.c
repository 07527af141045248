/* What a program is told of its pool, and in which process. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "internal.h"

#define LIMIT (64 * MEBIBYTE)
#define MESSAGES 64

/* In memory that all processes share. */
struct said {
    pid_t pid;
    enum pool_log_level level;
    char text[256];
};

struct book {
    _Atomic uint32_t count, written;
    struct said said[MESSAGES];
};

static void note(void *context, enum pool_log_level level, const char *message)
{
    struct book *book = context;
    uint32_t i = book->count++;

    if (i < MESSAGES) {
        book->said[i].pid = getpid();
        book->said[i].level = level;
        strncpy(book->said[i].text, message, sizeof book->said[i].text - 1);
    }
    harness_raise(&book->written);
}

struct wanted {
    const struct book *book;
    enum pool_log_level level;
    const char *text;
    const struct said *found;
};

static bool is_said(void *context)
{
    struct wanted *wanted = context;
    uint32_t i, count = wanted->book->written;

    for (i = 0; i < count && i < MESSAGES; i++)
        if (wanted->book->said[i].level == wanted->level &&
            strstr(wanted->book->said[i].text, wanted->text)) {
            wanted->found = &wanted->book->said[i];
            return true;
        }
    return false;
}

/* Waits for a message that has `text` in it: what it is. */
static const struct said *expect_said(const struct book *book, enum pool_log_level level,
                                      const char *text)
{
    static const struct said nothing;
    struct wanted wanted = {book, level, text, &nothing};

    harness_expect(harness_until(is_said, &wanted), true, text, __FILE__, __LINE__, false);
    return wanted.found;
}

static struct pool *make(struct book *book, int workers, const struct pool_host *host)
{
    struct pool_config config;
    struct pool *pool = NULL;

    pool_config_init(&config);
    config.workers = workers;
    config.shared_limit = LIMIT;
    config.host = host;
    config.log = note;
    config.log_context = book;
    REQUIRE(pool_create(&pool, &config), 0);
    return pool;
}

static pid_t supervisor_of(struct pool *pool)
{
    struct pool_stats stats = {.size = sizeof stats};

    REQUIRE(pool_get_stats(pool, &stats), 0);
    return stats.supervisor;
}

static int job_signal(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)size;
    signal(*(const int *)argument, SIG_DFL);
    raise(*(const int *)argument);
    return 0;
}

static int job_exit(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    _exit(7);
}

static int job_pause(struct pool_job *job, const void *argument, size_t size)
{
    harness_raise(*(_Atomic uint32_t *const *)argument);
    (void)job, (void)size;
    pause();
    return 0;
}

static void the_supervisor_tells_of_deaths_and_replacements(void)
{
    struct book *book = harness_shared(sizeof *book);
    struct pool *pool = make(book, 1, NULL);
    pid_t supervisor = supervisor_of(pool);
    int number = SIGSEGV;
    struct pool_future future = harness_submit(pool, job_signal, &number, sizeof number);
    const struct said *said;

    EXPECT(expect_said(book, POOL_LOG_DEBUG, "worker 0 begins: pid ")->pid, supervisor);
    EXPECT(harness_outcome(&future, NULL), POOL_DIED);
    said =
        expect_said(book, POOL_LOG_WARNING,
                    HARNESS_SANITIZED ? "worker 0 (pid " : "signal 11 (SIGSEGV); jobs it had: 1");
    EXPECT(said->pid, supervisor);
    EXPECT(strchr(said->text, '\n') == NULL, true);
    expect_said(book, POOL_LOG_WARNING, "a job of worker 0 died with it");
    EXPECT(expect_said(book, POOL_LOG_INFO, "worker 0 is replaced: pid ")->pid, supervisor);
    future = harness_submit(pool, job_exit, NULL, 0);
    EXPECT(harness_outcome(&future, NULL), POOL_DIED);
    expect_said(book, POOL_LOG_WARNING, "ended with exit status 7; jobs it had: 1");
    future = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(harness_status(&future), 0);
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    expect_said(book, POOL_LOG_DEBUG, ") ends");
    pool_destroy(pool);
}

static void it_tells_of_time_outs_kills_and_retries(void)
{
    struct book *book = harness_shared(sizeof *book);
    _Atomic uint32_t *begun = harness_shared(sizeof *begun);
    struct pool *pool = make(book, 1, NULL);
    struct pool_options options;
    struct pool_future future;

    pool_options_init(pool, &options);
    options.timeout = 10 * MILLISECOND;
    REQUIRE(pool_submit_with(pool, &options, job_pause, &begun, sizeof begun, &future), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_TIMEOUT);
    expect_said(book, POOL_LOG_WARNING, "a job of worker 0 ran too long");
    future = harness_submit(pool, job_pause, &begun, sizeof begun);
    EXPECT(harness_await(begun, 2), true);
    EXPECT(pool_future_kill(&future), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_CANCELLED);
    expect_said(book, POOL_LOG_INFO, "a job of worker 0 was killed");
    options.timeout = POOL_FOREVER;
    options.retries = 2;
    REQUIRE(pool_submit_with(pool, &options, job_exit, NULL, 0, &future), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_DIED);
    expect_said(book, POOL_LOG_WARNING, "a job is run again; tries left after this one: 1");
    expect_said(book, POOL_LOG_WARNING, "a job is run again; tries left after this one: 0");
    pool_destroy(pool);
}

static int fail_to_start(void *context, struct pool *pool, unsigned worker)
{
    (void)context, (void)pool, (void)worker;
    return 1;
}

static void a_start_hook_that_fails_and_the_end_of_the_pool_are_told(void)
{
    struct book *book = harness_shared(sizeof *book);
    struct pool_host host = {.size = sizeof host, .start = fail_to_start};
    struct pool *pool = make(book, 1, &host);
    const struct said *said;

    expect_said(book, POOL_LOG_WARNING, "did not come to start: it ended with exit status 1");
    said = expect_said(book, POOL_LOG_ERROR, "the pool is given up: no worker can be started");
    EXPECT(said->pid != getpid() && said->pid != 0, true);
    EXPECT(harness_ends(pool_supervisor_fd(pool), 20000), true);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    said = expect_said(book, POOL_LOG_ERROR, "the pool is broken: its supervisor ended with exit");
    EXPECT(said->pid, getpid());
    pool_destroy(pool);
}

static uint32_t count_of(const struct book *book, const char *text)
{
    uint32_t i, count = 0;

    for (i = 0; i < book->written && i < MESSAGES; i++)
        count += strstr(book->said[i].text, text) != NULL;
    return count;
}

static void check_often(void *context, unsigned number)
{
    int i;

    (void)number;
    for (i = 0; i < 100; i++)
        EXPECT(pool_check(context), -EOWNERDEAD);
}

static void the_host_tells_once_that_the_pool_is_broken(void)
{
    struct book *book = harness_shared(sizeof *book);
    struct pool *pool = make(book, 2, NULL);

    REQUIRE(kill(supervisor_of(pool), SIGKILL), 0);
    EXPECT(harness_ends(pool_supervisor_fd(pool), 20000), true);
    harness_threads(4, check_often, pool);
    EXPECT(count_of(book, "the pool is broken: its supervisor was ended by signal 9 (SIGKILL)"), 1);
    pool_destroy(pool);
    EXPECT(count_of(book, "broken"), 1);
}

static void a_pool_that_is_ended_is_not_broken(void)
{
    struct book *book = harness_shared(sizeof *book);
    struct pool *pool = make(book, 2, NULL);
    struct pool_future future = harness_submit(pool, job_nothing, NULL, 0);

    EXPECT(harness_status(&future), 0);
    EXPECT(pool_terminate(pool), 0);
    EXPECT(count_of(book, "broken"), 0);
    pool_destroy(pool);
}

/* As if another process had written into the job table. */
static void the_host_tells_of_stray_writes_that_it_mends(void)
{
    struct book *book = harness_shared(sizeof *book);
    struct pool *pool = make(book, 1, NULL);
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool_future running = harness_submit(pool, job_gate, &gate, sizeof gate), lost;
    struct ring_cursor cursor;

    EXPECT(harness_await(&gate->reached, 1), true);
    lost = harness_submit(pool, job_nothing, NULL, 0);
    REQUIRE(ring_peek(&pool->ready, &cursor), true);
    ring_discard(&pool->ready, &cursor);
    harness_raise(&gate->open);
    EXPECT(harness_status(&running), 0);
    EXPECT(pool_wait_any(&lost, 1, 20 * SECOND), 0);
    EXPECT(expect_said(book, POOL_LOG_WARNING, "in no queue")->pid, getpid());
    pool_destroy(pool);
}

/* From when on no process gets a CPU: the one that was asked for in pool_create() has gone. */
static bool cpus_are_gone;

/* In place of the C library's. */
int sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *set)
{
    if (cpus_are_gone) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_sched_setaffinity, pid, size, set);
}

static pid_t fork_without_cpus(void *context)
{
    pid_t pid;

    (void)context;
    cpus_are_gone = true;
    pid = fork();
    if (pid != 0)
        cpus_are_gone = false;
    return pid;
}

static void a_worker_that_can_not_be_pinned_tells_and_runs(void)
{
    struct book *book = harness_shared(sizeof *book);
    struct pool_host host = {.size = sizeof host, .fork = fork_without_cpus};
    struct pool_config config;
    struct pool *pool = NULL;
    struct pool_future future;
    const struct said *said;
    int cpu = sched_getcpu();

    pool_config_init(&config);
    config.workers = 1;
    config.shared_limit = LIMIT;
    config.host = &host;
    config.log = note;
    config.log_context = book;
    config.cpus = &cpu;
    config.cpu_count = 1;
    REQUIRE(pool_create(&pool, &config), 0);
    said = expect_said(book, POOL_LOG_WARNING, "worker 0 can't be pinned to CPU");
    future = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(harness_status(&future), 0);
    EXPECT(said->pid, pool_worker_pid(pool, 0));
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(the_supervisor_tells_of_deaths_and_replacements),
    TEST(it_tells_of_time_outs_kills_and_retries),
    TEST(a_start_hook_that_fails_and_the_end_of_the_pool_are_told),
    TEST(the_host_tells_once_that_the_pool_is_broken),
    TEST(a_pool_that_is_ended_is_not_broken),
    TEST(the_host_tells_of_stray_writes_that_it_mends),
    TEST(a_worker_that_can_not_be_pinned_tells_and_runs),
};

HARNESS_MAIN("what is told", tests)
