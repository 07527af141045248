/* How the interpreters of workers start and end. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"
#include "system.h"

static char itself[4096];

static struct pool *pool;
static struct pool_python_config python;
static struct pool_future future;

static void begin(void)
{
    python_config(&python);
}

static int64_t evaluated_int(const char *expression)
{
    future = evaluate(pool, expression, NULL);
    return int_result(&future);
}

static bool evaluates_to(const char *expression, const char *wanted)
{
    future = evaluate(pool, expression, NULL);
    return string_result(&future, wanted);
}

static void end_in_order(void)
{
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    pool_destroy(pool);
}

/* What the processes of a pool, made by `make`, write to a descriptor until all have ended. */
static char *output_of(int descriptor, void (*make)(void), void (*use)(void))
{
    static char output[65536];
    size_t used = 0;
    ssize_t count;
    int saved = dup(descriptor), ends[2];

    fflush(NULL);
    REQUIRE(pipe2(ends, O_CLOEXEC), 0);
    dup2(ends[1], descriptor);
    close(ends[1]);
    make();
    dup2(saved, descriptor);
    close(saved);
    use();
    while ((count = read(ends[0], output + used, sizeof output - 1 - used)) > 0)
        used += (size_t)count;
    output[used] = '\0';
    close(ends[0]);
    return output;
}

static void make_pool(void)
{
    pool = python_pool(1, &python);
}

/* ---- Configuration ---- */

static void each_worker_has_its_own_interpreter(void)
{
    struct pool_python_value value;
    double version = 0;

    begin();
    pool = python_pool(2, &python);
    EXPECT(Py_IsInitialized(), 0);
    EXPECT(strncmp(pool_python_version(), PY_VERSION, strlen(PY_VERSION)), 0);
    future = evaluate(pool, "float('%d.%d' % __import__('sys').version_info[:2])", NULL);
    EXPECT(finish(&future, &value), 0);
    EXPECT(pool_python_get_double(&value, &version), 0);
    EXPECT(version > 3.1, true);
    end_in_order();
    pool = NULL;
    EXPECT(pool_python_create(&pool, NULL, NULL), 0); /* the defaults of both */
    EXPECT(evaluated_int("6 * 7"), 42);
    end_in_order();
}

static void paths_come_first_and_the_current_folder_is_not_searched(void)
{
    static const char *const paths[] = {"/nowhere/first", "/nowhere/second", NULL};

    begin();
    python.paths = paths;
    pool = python_pool(1, &python);
    EXPECT(evaluates_to("' '.join(__import__('sys').path[:2])", "/nowhere/first /nowhere/second"),
           true);
    EXPECT(evaluated_int("sum(p in ('', '.', __import__('os').getcwd()) "
                         "for p in __import__('sys').path)"),
           0);
    end_in_order();
}

static void the_environment_counts_unless_isolated(void)
{
    static const char expression[] =
        "'%s %d' % (__import__('sys').flags.isolated, '/of/variable' in __import__('sys').path)";

    setenv("PYTHONPATH", "/of/variable", 1);
    begin();
    pool = python_pool(1, &python);
    EXPECT(evaluates_to(expression, "0 1"), true);
    end_in_order();
    python.isolated = true;
    pool = python_pool(1, &python);
    EXPECT(evaluates_to(expression, "1 0"), true);
    end_in_order();
    unsetenv("PYTHONPATH");
}

static bool run(const char *format, const char *argument)
{
    char command[8192];

    snprintf(command, sizeof command, format, argument);
    return system(command) == 0;
}

static void packages_of_a_virtual_environment_are_found(void)
{
    char folder[] = "/tmp/libpool-venv-XXXXXX", path[200], wanted[300];

    REQUIRE(mkdtemp(folder) != NULL, true);
    REQUIRE(run(TEST_PYTHON " -m venv --without-pip %s", folder), true);
    REQUIRE(run("echo 'where = \"in the venv\"' > $(echo %s/lib/python*/site-packages)/inside.py",
                folder),
            true);
    begin();
    python.venv = folder;
    pool = python_pool(1, &python);
    EXPECT(evaluates_to("__import__('inside').where", "in the venv"), true);
    EXPECT(evaluates_to("__import__('sys').prefix", folder), true);
    snprintf(wanted, sizeof wanted, "%s/bin/python", folder);
    EXPECT(evaluates_to("__import__('sys').executable", wanted), true);
    end_in_order();
    snprintf(path, sizeof path, "%s/bin/python", folder);
    python.venv = NULL;
    python.executable = path;
    python.isolated = true;
    pool = python_pool(1, &python);
    EXPECT(evaluates_to("__import__('inside').where", "in the venv"), true);
    end_in_order();
    EXPECT(run("rm -r %s", folder), true);
}

static void a_bad_configuration_is_an_error_of_the_call(void)
{
    struct pool_host host = {.size = sizeof host};
    struct pool_config config;
    const char *command[] = {"/bin/true", NULL};
    char long_path[5000];

    begin();
    pool = (struct pool *)&host;
    python.venv = "/nowhere";
    EXPECT(pool_python_create(&pool, NULL, &python), -ENOENT);
    EXPECT(pool == NULL, true);
    python.venv = "/usr"; /* has bin and lib, but is none */
    EXPECT(pool_python_create(&pool, NULL, &python), -ENOENT);
    memset(long_path, 'x', sizeof long_path);
    long_path[sizeof long_path - 1] = '\0';
    python.venv = long_path;
    EXPECT(pool_python_create(&pool, NULL, &python), -ENAMETOOLONG);
    python.executable = "/bin/sh";
    EXPECT(pool_python_create(&pool, NULL, &python), -EINVAL);
    python.venv = NULL;
    python.executable = "/nowhere/python";
    EXPECT(pool_python_create(&pool, NULL, &python), -ENOENT);
    begin();
    python.script = "/nowhere/start.py";
    EXPECT(pool_python_create(&pool, NULL, &python), -ENOENT);
    python.script = "/";
    EXPECT(pool_python_create(&pool, NULL, &python), -EISDIR);
    begin();
    python.size = 4;
    EXPECT(pool_python_create(&pool, NULL, &python), -EINVAL);
    begin();
    pool_config_init(&config);
    config.host = &host;
    EXPECT(pool_python_create(&pool, &config, &python), -EINVAL);
    config.host = NULL;
    config.command = command;
    EXPECT(pool_python_create(&pool, &config, &python), -EINVAL);
    config.command = NULL;
    config.workers = 0;
    EXPECT(pool_python_create(&pool, &config, &python), -EINVAL);
}

static void structs_of_older_and_newer_headers_are_taken(void)
{
    struct {
        struct pool_python_config known;
        uint64_t unknown;
    } newer = {.unknown = 0};

    begin();
    newer.known = python;
    newer.known.size = sizeof newer;
    newer.known.source = "x = 1";
    pool = python_pool(1, &newer.known);
    EXPECT(evaluated_int("x"), 1);
    end_in_order();
    newer.unknown = 1;
    EXPECT(pool_python_create(&pool, NULL, &newer.known), -EINVAL);
    python.source = "x = 1"; /* the last member, which the older one does not have */
    python.size = offsetof(struct pool_python_config, source);
    pool = python_pool(1, &python);
    EXPECT(evaluated_int("'x' in globals() and 1 or 2"), 2);
    end_in_order();
}

static void a_host_with_python(void *context)
{
    (void)context;
    begin();
    Py_InitializeEx(0);
    EXPECT(pool_python_create(&pool, NULL, &python), -EBUSY);
    EXPECT(pool_python_serve(NULL, &python), -EBUSY);
    Py_FinalizeEx();
}

static void a_process_that_has_python_itself_is_refused(void)
{
    EXPECT(harness_fork(a_host_with_python, NULL, 20), 0);
}

/* ---- Start code ---- */

static void script_and_source_run_before_the_first_job(void)
{
    begin();
    python.script = TEST_MODULES "/start.py";
    python.source = "order.append('source')";
    pool = python_pool(1, &python);
    EXPECT(evaluates_to("' '.join(order)", "script source"), true);
    EXPECT(evaluates_to("__file__", TEST_MODULES "/start.py"), true);
    future = call(pool, "__main__:where", NULL);
    EXPECT(string_result(&future, "__main__"), true);
    end_in_order();
}

static void find_it_broken(void)
{
    struct pool_python_value value;
    int error = pool_python_submit(pool, NULL, "os:getpid", NULL, &future);

    if (error == 0) {
        EXPECT(harness_outcome(&future, NULL), POOL_LOST);
        EXPECT(pool_python_result(&future, &value), -EOWNERDEAD);
    } else {
        EXPECT(error, -EOWNERDEAD);
    }
    EXPECT(harness_ends(pool_supervisor_fd(pool), 10000), true);
    EXPECT(pool_check(pool), -EOWNERDEAD);
    pool_destroy(pool);
}

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;

    while ((text = strstr(text, part))) {
        text += strlen(part);
        count++;
    }
    return count;
}

static void start_code_that_raises_breaks_the_pool_and_says_why(void)
{
    const char *output;

    begin();
    python.source = "def check():\n    raise RuntimeError('no licence')\ncheck()\n";
    output = output_of(2, make_pool, find_it_broken);
    EXPECT(strstr(output, "libpool: worker 0: the start code failed\n") != NULL, true);
    EXPECT(strstr(output, "libpool: worker 0:     raise RuntimeError('no licence')\n") != NULL,
           true);
    EXPECT(count_of(output, "RuntimeError: no licence"), 1);
    python.source = "import sys\nsys.exit('not today')";
    output = output_of(2, make_pool, find_it_broken);
    EXPECT(strstr(output, "SystemExit: not today") != NULL, true);
    python.source = "x = = 1";
    output = output_of(2, make_pool, find_it_broken);
    EXPECT(strstr(output, "SyntaxError") != NULL, true);
    python.source = "\xff";
    output = output_of(2, make_pool, find_it_broken);
    EXPECT(strstr(output, "UnicodeDecodeError") != NULL, true);
    python.source = NULL;
    python.script = "/proc/self/mem";
    output = output_of(2, make_pool, find_it_broken);
    EXPECT(strstr(output, "OSError") != NULL, true);
}

/* In the worker: `context` is shared with the test. */
static void note_line(void *context, enum pool_log_level level, const char *message)
{
    char *lines = context;

    if (level == POOL_LOG_ERROR && strlen(lines) + strlen(message) + 2 < 4096)
        strcat(strcat(lines, message), "\n");
}

static void the_log_is_told_why_a_worker_does_not_start(void)
{
    char *lines = harness_shared(4096);
    struct pool_config config;

    begin();
    pool_config_init(&config);
    config.workers = 1;
    config.log = note_line;
    config.log_context = lines;
    python.source = "1 / 0\n";
    REQUIRE(pool_python_create(&pool, &config, &python), 0);
    find_it_broken();
    EXPECT(strstr(lines, "worker 0: the start code failed\nworker 0: Traceback") == lines, true);
    EXPECT(strstr(lines, "\nworker 0:     1 / 0\n") != NULL, true);
    EXPECT(strstr(lines, "\nworker 0: ZeroDivisionError: division by zero\n") != NULL, true);
}

static void an_interpreter_that_can_not_start_breaks_the_pool_and_says_why(void)
{
    const char *output;

    begin();
    setenv("PYTHONHOME", "/nowhere", 1);
    output = output_of(2, make_pool, find_it_broken);
    EXPECT(strstr(output, "libpool: worker 0: Python can't start: ") != NULL, true);
    python.isolated = true; /* then the variable does not count */
    make_pool();
    EXPECT(evaluated_int("6 * 7"), 42);
    end_in_order();
    unsetenv("PYTHONHOME");
}

/* ---- Output, end, signals ---- */

static void print_and_die(void)
{
    future = evaluate(pool, "print('said before it died')", NULL);
    EXPECT(finish(&future, &(struct pool_python_value){0}), 0);
    EXPECT(kill(pool_worker_pid(pool, 0), SIGKILL), 0);
    EXPECT(evaluated_int("print('said by the next') or 1"), 1);
    end_in_order();
}

static void what_a_job_prints_is_there_when_it_has_ended(void)
{
    const char *output;

    begin();
    unsetenv("PYTHONUNBUFFERED"); /* or Python would not keep anything back */
    python.source = "import atexit\natexit.register(print, 'at the end')\nprint('begun')\n";
    output = output_of(1, make_pool, print_and_die);
    EXPECT_STRING(output, "begun\nsaid before it died\nbegun\nsaid by the next\nat the end\n");
}

static void ctrl_c_is_the_program_s(void)
{
    begin();
    pool = python_pool(1, &python);
    EXPECT(evaluates_to("str(__import__('signal').getsignal(2))", "None"), true); /* libpool's */
    EXPECT(kill(pool_worker_pid(pool, 0), SIGINT), 0);
    EXPECT(evaluated_int("__import__('os').kill(__import__('os').getpid(), 2) or 1"), 1);
    end_in_order();
}

static void threads_that_jobs_have_left_are_waited_for(void)
{
    begin();
    pool = python_pool(1, &python);
    EXPECT(evaluated_int("__import__('threading').Timer(0.05, print, ['']).start() or 1"), 1);
    end_in_order();
}

static void a_worker_is_replaced_after_its_number_of_jobs(void)
{
    struct pool_config config;
    int64_t pids[4];
    int i;

    begin();
    pool_config_init(&config);
    config.workers = 1;
    config.worker_jobs = 2;
    REQUIRE(pool_python_create(&pool, &config, &python), 0);
    for (i = 0; i < 4; i++)
        pids[i] = evaluated_int("__import__('os').getpid()");
    EXPECT(pids[0] == pids[1] && pids[2] == pids[3] && pids[1] != pids[2], true);
    end_in_order();
}

/* ---- A program as supervisor ---- */

static int supervise(const char *number)
{
    struct pool *served;
    const void *payload;
    size_t size;
    int error = pool_attach(atoi(number), &served, &payload, &size);

    if (error)
        return -error;
    pool_python_config_init(&python);
    python.source = payload; /* ends with its 0 */
    return -pool_python_serve(served, &python);
}

static void workers_of_a_program_host_python_too(void)
{
    const char *command[] = {itself, "supervise", NULL};
    static const char source[] = "answer = 42";
    struct pool_config config;

    pool_config_init(&config);
    config.workers = 2;
    config.command = command;
    config.payload = source;
    config.payload_size = sizeof source;
    REQUIRE(pool_create(&pool, &config), 0);
    EXPECT(evaluated_int("answer"), 42);
    end_in_order();
}

static const struct harness_test tests[] = {
    TEST(each_worker_has_its_own_interpreter),
    TEST(paths_come_first_and_the_current_folder_is_not_searched),
    TEST(the_environment_counts_unless_isolated),
    TEST(packages_of_a_virtual_environment_are_found),
    TEST(a_bad_configuration_is_an_error_of_the_call),
    TEST(structs_of_older_and_newer_headers_are_taken),
    TEST(a_process_that_has_python_itself_is_refused),
    TEST(script_and_source_run_before_the_first_job),
    TEST(start_code_that_raises_breaks_the_pool_and_says_why),
    TEST(the_log_is_told_why_a_worker_does_not_start),
    TEST(an_interpreter_that_can_not_start_breaks_the_pool_and_says_why),
    TEST(what_a_job_prints_is_there_when_it_has_ended),
    TEST(ctrl_c_is_the_program_s),
    TEST(threads_that_jobs_have_left_are_waited_for),
    TEST(a_worker_is_replaced_after_its_number_of_jobs),
    TEST(workers_of_a_program_host_python_too),
};

int main(int argc, char **argv)
{
    ssize_t length = readlink("/proc/self/exe", itself, sizeof itself - 1);

    if (argc == 3 && strcmp(argv[1], "supervise") == 0)
        return supervise(argv[2]);
    if (length < 0)
        return EXIT_FAILURE;
    return harness_main(argc, argv, "libpool-python: start and end", tests,
                        sizeof tests / sizeof *tests);
}
