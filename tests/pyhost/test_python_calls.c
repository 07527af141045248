/* How functions are found, and how calls end. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

static struct pool *pool;
static struct pool_python_arguments *arguments;
static struct pool_future future;

static void begin(int workers, const char *source)
{
    struct pool_python_config python;

    python_config(&python);
    python.source = source;
    pool = python_pool(workers, &python);
    arguments = pool_python_arguments_create();
    REQUIRE(arguments != NULL, true);
}

static void end(void)
{
    pool_python_arguments_destroy(arguments);
    pool_destroy(pool);
}

static bool call_raises(const char *function, const char *type, const char *text)
{
    future = call(pool, function, NULL);
    return raises(&future, type, text);
}

static struct pool_future call_source(const char *source, const char *function)
{
    REQUIRE(pool_python_submit_source(pool, NULL, source, function, arguments, &future), 0);
    return future;
}

/* Jobs after this one are as well off as before. */
static bool lives_on(void)
{
    future = evaluate(pool, "6 * 7", NULL);
    return int_result(&future) == 42;
}

/* ---- Functions of modules ---- */

static void functions_are_found_by_module_and_dotted_name(void)
{
    struct pool_python_value value;
    double root = 0;

    begin(1, NULL);
    pool_python_put_double(arguments, 2.25);
    future = call(pool, "math:sqrt", arguments);
    EXPECT(finish(&future, &value), 0);
    EXPECT(pool_python_get_double(&value, &root), 0);
    EXPECT(root == 1.5, true);
    pool_python_arguments_clear(arguments);
    pool_python_put_string(arguments, "a");
    pool_python_put_string(arguments, "b");
    future = call(pool, "os.path:join", arguments);
    EXPECT(string_result(&future, "a/b"), true);
    future = call(pool, "echoes:Seven.__name__.upper", NULL);
    EXPECT(string_result(&future, "SEVEN"), true);
    end();
}

static void names_that_lead_nowhere_are_errors(void)
{
    static const char *const bad[] = {"math.sqrt", ":sqrt", "math:", "", NULL};
    size_t i;

    begin(1, NULL);
    for (i = 0; i < sizeof bad / sizeof *bad; i++)
        EXPECT(pool_python_submit(pool, NULL, bad[i], NULL, &future), -EINVAL);
    EXPECT(pool_python_submit(pool, NULL, "math:\xff", NULL, &future), -EILSEQ);
    EXPECT(call_raises("no_such_module:f", "ModuleNotFoundError", "no_such_module"), true);
    EXPECT(call_raises("math:no_such_function", "AttributeError", "no_such_function"), true);
    EXPECT(call_raises("math:sqrt..x", "AttributeError", ""), true);
    EXPECT(call_raises("math:pi", "TypeError", "not callable"), true);
    EXPECT(call_raises("math:sqrt", "TypeError", "argument"), true);
    EXPECT(lives_on(), true);
    end();
}

static void a_job_that_nobody_waits_for_runs(void)
{
    struct pool_stats stats = {.size = sizeof stats};

    begin(1, NULL);
    EXPECT(pool_python_submit(pool, NULL, "time:time", NULL, NULL), 0);
    EXPECT(lives_on(), true);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.jobs_done, 2);
    EXPECT(stats.jobs_failed, 0);
    end();
}

/* ---- Source text ---- */

static void a_source_runs_once_in_each_worker(void)
{
    static const char text[] = "runs = 0\n"
                               "import dataclasses\n"
                               "@dataclasses.dataclass\n"
                               "class Counter:\n"
                               "    count: 'int' = 0\n"
                               "    def add(self, step):\n"
                               "        self.count += step\n"
                               "        return self.count\n"
                               "counter = Counter()\n";
    char other[sizeof text + 20];

    begin(1, NULL);
    pool_python_put_int64(arguments, 5);
    call_source(text, "counter.add");
    EXPECT(int_result(&future), 5);
    call_source(text, "counter.add");
    EXPECT(int_result(&future), 10);
    snprintf(other, sizeof other, "%s# another\n", text);
    call_source(other, "counter.add");
    EXPECT(int_result(&future), 5);
    call_source(text, "counter.add");
    EXPECT(int_result(&future), 15);
    end();
}

static void a_source_that_fails_is_tried_again_by_the_next_job(void)
{
    static const char text[] = "import builtins\n"
                               "builtins.tries = getattr(builtins, 'tries', 0) + 1\n"
                               "if builtins.tries < 3:\n"
                               "    raise RuntimeError(f'try {builtins.tries}')\n"
                               "def tries():\n"
                               "    return builtins.tries\n";

    begin(1, NULL);
    call_source(text, "tries");
    EXPECT(raises(&future, "RuntimeError", "try 1"), true);
    call_source(text, "tries");
    EXPECT(raises(&future, "RuntimeError", "try 2"), true);
    call_source(text, "tries");
    EXPECT(int_result(&future), 3);
    call_source("def f(:\n", "f");
    EXPECT(raises(&future, "SyntaxError", "invalid syntax"), true);
    EXPECT(pool_python_submit_source(pool, NULL, NULL, "f", NULL, &future), -EINVAL);
    EXPECT(pool_python_submit_source(pool, NULL, "f = 1", "", NULL, &future), -EINVAL);
    EXPECT(pool_python_submit_source(pool, NULL, "\xff", NULL, NULL, &future), -EILSEQ);
    EXPECT(pool_python_submit_source(pool, NULL, "f", "\xff", NULL, &future), -EILSEQ);
    end();
}

static void tracebacks_show_the_lines_of_a_source(void)
{
    struct pool_python_exception exception = {.size = sizeof exception};
    struct pool_python_value value;

    begin(1, "def helper(x):\n    return 1 // x  # of the start code\n");
    pool_python_put_int64(arguments, 0);
    call_source("import __main__\n\ndef f(x):\n    return __main__.helper(x)  # of the source\n",
                "f");
    EXPECT(finish(&future, &value), -EREMOTEIO);
    EXPECT(pool_python_exception(&future, &exception), 0);
    EXPECT(strstr(exception.traceback, "return __main__.helper(x)  # of the source") != NULL, true);
    EXPECT(strstr(exception.traceback, "line 4, in f") != NULL, true);
    EXPECT(strstr(exception.traceback, "return 1 // x  # of the start code") != NULL, true);
    future = evaluate(pool, "helper(*args)", arguments);
    EXPECT(finish(&future, &value), -EREMOTEIO);
    EXPECT(pool_python_exception(&future, &exception), 0);
    EXPECT(strstr(exception.traceback, "helper(*args)") != NULL, true);
    end();
}

static void an_expression_sees_arguments_and_start_code(void)
{
    begin(1, "base = 100\ndef shift(x):\n    return base + x\n");
    pool_python_put_int64(arguments, 3);
    pool_python_put_keyword(arguments, "n");
    pool_python_put_int64(arguments, 4);
    future = evaluate(pool, "sum(shift(n * i) for i in range(args[0]))", arguments);
    EXPECT(int_result(&future), 312);
    future = evaluate(pool, "(base := 5) + base", NULL);
    EXPECT(int_result(&future), 10);
    future = evaluate(pool, "base", NULL); /* nothing is left of it */
    EXPECT(int_result(&future), 100);
    future = evaluate(pool, "n", NULL);
    EXPECT(raises(&future, "NameError", "'n'"), true);
    future = call(pool, "__main__:shift", arguments);
    EXPECT(raises(&future, "TypeError", "'n'"), true);
    end();
}

static void old_texts_are_forgotten(void)
{
    struct pool_python_value value;
    int64_t number = 0, wrong = 0;
    char text[100];
    int i, round;

    begin(1, NULL);
    for (round = 0; round < 2; round++)
        for (i = 0; i < 600; i++) {
            snprintf(text, sizeof text, "def f():\n    return %d\n", i);
            call_source(text, "f");
            wrong += finish(&future, &value) != 0 || pool_python_get_int64(&value, &number) != 0 ||
                     number != i;
            pool_future_release(&future);
            snprintf(text, sizeof text, "%d + 0", i);
            future = evaluate(pool, text, NULL);
            wrong += finish(&future, &value) != 0 || pool_python_get_int64(&value, &number) != 0 ||
                     number != i;
            pool_future_release(&future);
        }
    EXPECT(wrong, 0);
    pool_python_arguments_clear(arguments);
    future =
        evaluate(pool, "sum(n.startswith('libpool_') for n in __import__('sys').modules)", NULL);
    EXPECT(int_result(&future), 256);
    future = evaluate(pool, "sum('libpool' in n for n in __import__('linecache').cache)", NULL);
    EXPECT(int_result(&future), 512);
    end();
}

/* ---- Exceptions ---- */

static void an_exception_comes_with_type_message_and_traceback(void)
{
    struct pool_python_exception exception = {.size = sizeof exception};
    struct pool_python_value value;

    begin(1, NULL);
    future = call(pool, "failures:raise_chain", NULL);
    EXPECT(finish(&future, &value), -EREMOTEIO);
    EXPECT(pool_python_exception(&future, &exception), 0);
    EXPECT_STRING(exception.type, "KeyError");
    EXPECT_STRING(exception.message, "'outer'");
    EXPECT(strstr(exception.traceback, "ZeroDivisionError: division by zero") != NULL, true);
    EXPECT(strstr(exception.traceback, "direct cause") != NULL, true);
    EXPECT(strstr(exception.traceback, "return 1 / value") != NULL, true);
    EXPECT(strstr(exception.traceback, "KeyError: 'outer'\na note on it\n") != NULL, true);
    EXPECT(call_raises("failures:raise_unprintable", "failures.Unprintable", "can't be had"), true);
    EXPECT(call_raises("failures:raise_surrogate", "ValueError", "\\ud800 and "), true);
    EXPECT(call_raises("failures:raise_own", "failures.raise_own.<locals>.Inner", "own"), true);
    end();
}

static void no_exception_ends_the_worker(void)
{
    int64_t pid;
    struct pool_stats stats = {.size = sizeof stats};

    begin(1, NULL);
    future = call(pool, "failures:pid", NULL);
    pid = int_result(&future);
    EXPECT(call_raises("failures:exit", "SystemExit", "3"), true);
    EXPECT(call_raises("failures:interrupt", "KeyboardInterrupt", ""), true);
    EXPECT(call_raises("failures:recurse", "RecursionError", "recursion"), true);
    future = call(pool, "failures:pid", NULL);
    EXPECT(int_result(&future), pid);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.jobs_failed, 3);
    end();
}

static void a_worker_may_allocate_only_so_much(void)
{
    struct pool_python_config python;
    struct pool_config config;

    if (HARNESS_SANITIZED)
        return; /* the allocator of a sanitizer ends the process */
    python_config(&python);
    pool_config_init(&config);
    config.workers = 1;
    config.memory_limit = 64 * MEBIBYTE;
    REQUIRE(pool_python_create(&pool, &config, &python), 0);
    arguments = pool_python_arguments_create();
    pool_python_put_int64(arguments, 200 << 20);
    future = call(pool, "failures:take_memory", arguments);
    EXPECT(raises(&future, "MemoryError", ""), true);
    pool_python_arguments_clear(arguments);
    pool_python_put_int64(arguments, INT64_C(1) << 50);
    future = call(pool, "failures:take_memory", arguments);
    EXPECT(raises(&future, "MemoryError", ""), true);
    EXPECT(lives_on(), true);
    end();
}

static bool dies(const char *function, int wanted)
{
    struct pool_python_value value;
    int detail = 0;

    future = call(pool, function, NULL);
    EXPECT(harness_outcome(&future, &detail), POOL_DIED);
    EXPECT(pool_python_result(&future, &value), -EOWNERDEAD);
    EXPECT(
        pool_python_exception(
            &future, &(struct pool_python_exception){.size = sizeof(struct pool_python_exception)}),
        -EOWNERDEAD);
    pool_future_release(&future);
    return EXPECT(detail, wanted);
}

static void a_worker_that_dies_is_replaced_by_one_with_python(void)
{
    begin(1, "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n");
    EXPECT(dies("failures:exit_at_once", 7 << 8), true);
    EXPECT(lives_on(), true);
    if (!HARNESS_SANITIZED) { /* which would have its own say */
        EXPECT(dies("failures:crash", SIGSEGV), true);
        EXPECT(lives_on(), true);
    }
    end();
}

static void time_limits_retries_and_kill_are_those_of_all_jobs(void)
{
    struct pool_options options;
    char path[] = "/tmp/libpool-test-XXXXXX";
    int fd = mkstemp(path);

    begin(1, NULL);
    pool_options_init(pool, &options);
    options.timeout = 50 * MILLISECOND;
    pool_python_put_double(arguments, 100);
    EXPECT(pool_python_submit(pool, &options, "failures:sleep", arguments, &future), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_TIMEOUT);
    EXPECT(lives_on(), true);
    future = call(pool, "failures:sleep", arguments);
    EXPECT(pool_future_kill(&future), 0);
    EXPECT(harness_outcome(&future, NULL), POOL_CANCELLED);
    pool_options_init(pool, &options);
    options.retries = 2;
    pool_python_arguments_clear(arguments);
    pool_python_put_string(arguments, path);
    pool_python_put_int64(arguments, 2);
    EXPECT(pool_python_submit(pool, &options, "failures:die_until", arguments, &future), 0);
    EXPECT(int_result(&future), 3);
    options.timeout = 0;
    EXPECT(pool_python_submit(pool, &options, "failures:sleep", arguments, &future), -EINVAL);
    close(fd);
    unlink(path);
    end();
}

static void a_job_that_forks_ends_once(void)
{
    struct pool_python_value value;
    bool parent = false;

    begin(1, NULL);
    future = call(pool, "failures:fork_and_return", NULL);
    EXPECT(finish(&future, &value), 0);
    EXPECT(pool_python_get_bool(&value, &parent), 0);
    EXPECT(parent, true);
    EXPECT(lives_on(), true);
    end();
}

static void a_broken_pipe_is_an_exception_and_not_the_end(void)
{
    begin(1, NULL);
    future = call(pool, "failures:write_to_broken_pipe", NULL);
    EXPECT(string_result(&future, "BrokenPipeError"), true);
    end();
}

/* ---- Beside C ---- */

/* Calls Python from a C job, and waits: the worker, which runs this, has to run it itself. */
static int job_ask_python(struct pool_job *job, const void *argument, size_t size)
{
    struct pool_python_arguments *own = pool_python_arguments_create();
    struct pool_python_value value;
    struct pool_future inner;
    int64_t number = 0;
    int error;

    (void)argument;
    (void)size;
    pool_python_put_int64(own, 20);
    error = pool_python_submit_source(pool_current(), NULL, "args[0] * 2 + 2", NULL, own, &inner);
    pool_python_arguments_destroy(own);
    if (error == 0)
        error = pool_future_wait(&inner, 10 * SECOND);
    if (error == 0)
        error = pool_python_result(&inner, &value);
    if (error == 0)
        error = pool_python_get_int64(&value, &number);
    pool_future_release(&inner);
    return error ? error : pool_job_return(job, &number, sizeof number);
}

static void a_c_job_calls_python_in_its_own_pool(void)
{
    const void *data = NULL;
    size_t size = 0;
    int i;

    begin(1, NULL);
    for (i = 0; i < 20; i++) {
        future = harness_submit(pool, job_ask_python, NULL, 0);
        EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
        EXPECT(pool_future_result(&future, &data, &size), 0);
        EXPECT(size == 8 && *(const int64_t *)data == 42, true);
        pool_future_release(&future);
    }
    end();
}

static bool has_ticked(void *context)
{
    future = call(pool, "failures:read_ticks", NULL);
    return int_result(&future) > *(int64_t *)context + 10;
}

/* Between jobs the worker sleeps without the interpreter's lock. */
static void a_thread_that_a_job_has_left_runs_while_the_worker_sleeps(void)
{
    int64_t before;

    begin(1, NULL);
    future = call(pool, "failures:start_thread", NULL);
    EXPECT(finish(&future, &(struct pool_python_value){0}), 0);
    future = call(pool, "failures:read_ticks", NULL);
    before = int_result(&future);
    EXPECT(harness_until(has_ticked, &before), true);
    end();
}

static void submit_many_numbers(void *context, unsigned number)
{
    struct pool_python_arguments *own = pool_python_arguments_create();
    struct pool_python_value value;
    struct pool_future mine;
    int64_t result = -1, i;

    (void)context;
    for (i = 0; i < 200; i++) {
        pool_python_arguments_clear(own);
        pool_python_put_int64(own, i * 10 + number);
        EXPECT(pool_python_submit(pool, NULL, "operator:neg", own, &mine), 0);
        EXPECT(finish(&mine, &value), 0);
        EXPECT(pool_python_get_int64(&value, &result), 0);
        EXPECT(result, -(i * 10 + number));
        pool_future_release(&mine);
    }
    pool_python_arguments_destroy(own);
}

static void threads_of_the_program_submit_at_the_same_time(void)
{
    begin(2, NULL);
    harness_threads(4, submit_many_numbers, NULL);
    end();
}

static const struct harness_test tests[] = {
    TEST(functions_are_found_by_module_and_dotted_name),
    TEST(names_that_lead_nowhere_are_errors),
    TEST(a_job_that_nobody_waits_for_runs),
    TEST(a_source_runs_once_in_each_worker),
    TEST(a_source_that_fails_is_tried_again_by_the_next_job),
    TEST(tracebacks_show_the_lines_of_a_source),
    TEST(an_expression_sees_arguments_and_start_code),
    TEST(old_texts_are_forgotten),
    TEST(an_exception_comes_with_type_message_and_traceback),
    TEST(no_exception_ends_the_worker),
    TEST(a_worker_may_allocate_only_so_much),
    TEST(a_worker_that_dies_is_replaced_by_one_with_python),
    TEST(time_limits_retries_and_kill_are_those_of_all_jobs),
    TEST(a_job_that_forks_ends_once),
    TEST(a_broken_pipe_is_an_exception_and_not_the_end),
    TEST(a_c_job_calls_python_in_its_own_pool),
    TEST(a_thread_that_a_job_has_left_runs_while_the_worker_sleeps),
    TEST(threads_of_the_program_submit_at_the_same_time),
};

HARNESS_MAIN("libpool-python: calls", tests)
