#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void python_config(struct pool_python_config *config)
{
    static const char *const paths[] = {TEST_MODULES, TEST_PACKAGES, NULL};

    /* So that sanitizers see what Python allocates. */
    if (HARNESS_SANITIZED)
        setenv("PYTHONMALLOC", "malloc", 1);
    pool_python_config_init(config);
    config->paths = paths;
}

struct pool *python_pool(int workers, const struct pool_python_config *python)
{
    struct pool_python_config defaults;
    struct pool_config config;
    struct pool *pool = NULL;

    python_config(&defaults);
    pool_config_init(&config);
    config.workers = workers;
    config.shared_limit = 256 * MEBIBYTE;
    REQUIRE(pool_python_create(&pool, &config, python ? python : &defaults), 0);
    return pool;
}

struct pool_future call(struct pool *pool, const char *function,
                        const struct pool_python_arguments *arguments)
{
    struct pool_future future = {NULL, 0, 0};

    REQUIRE(pool_python_submit(pool, NULL, function, arguments, &future), 0);
    return future;
}

struct pool_future evaluate(struct pool *pool, const char *expression,
                            const struct pool_python_arguments *arguments)
{
    struct pool_future future = {NULL, 0, 0};

    REQUIRE(pool_python_submit_source(pool, NULL, expression, NULL, arguments, &future), 0);
    return future;
}

static void print_exception(const struct pool_future *future)
{
    struct pool_python_exception exception = {.size = sizeof exception};

    if (pool_python_exception(future, &exception) == 0)
        fprintf(stderr, "\n%s: %s\n%s", exception.type, exception.message, exception.traceback);
}

int finish(const struct pool_future *future, struct pool_python_value *value)
{
    int error = pool_future_wait(future, 20 * SECOND);

    return error ? error : pool_python_result(future, value);
}

int64_t int_result(const struct pool_future *future)
{
    struct pool_python_value value;
    int64_t number = -4711;

    if (!EXPECT(finish(future, &value), 0))
        print_exception(future);
    else
        EXPECT(pool_python_get_int64(&value, &number), 0);
    pool_future_release(future);
    return number;
}

bool same_string(const char *actual, const char *wanted)
{
    bool same = strcmp(actual, wanted) == 0;

    if (!same)
        fprintf(stderr, "\n'%s' instead of '%s'\n", actual, wanted);
    return same;
}

bool string_result(const struct pool_future *future, const char *wanted)
{
    struct pool_python_value value;
    const char *text = "";
    bool same;

    if (!EXPECT(finish(future, &value), 0))
        print_exception(future);
    else
        EXPECT(pool_python_get_string(&value, &text, NULL), 0);
    same = same_string(text, wanted);
    pool_future_release(future);
    return same;
}

bool raises(const struct pool_future *future, const char *type, const char *text)
{
    struct pool_python_exception exception = {.size = sizeof exception};
    struct pool_python_value value;
    bool right = EXPECT(finish(future, &value), -EREMOTEIO) &&
                 EXPECT(pool_python_exception(future, &exception), 0) &&
                 same_string(exception.type, type);

    if (right && !strstr(exception.message, text)) {
        fprintf(stderr, "\nthe message is '%s'\n", exception.message);
        right = false;
    }
    right = right && EXPECT(strncmp(exception.traceback, "Traceback", 9) == 0 ||
                                strstr(exception.traceback, type) != NULL,
                            true);
    pool_future_release(future);
    return right;
}

bool has_module(struct pool *pool, const char *module)
{
    struct pool_python_arguments *arguments = pool_python_arguments_create();
    struct pool_python_value value;
    struct pool_future future;
    bool found = false;

    pool_python_put_string(arguments, module);
    future = evaluate(pool, "__import__('importlib.util').util.find_spec(args[0]) is not None",
                      arguments);
    EXPECT(finish(&future, &value), 0);
    EXPECT(pool_python_get_bool(&value, &found), 0);
    pool_future_release(&future);
    pool_python_arguments_destroy(arguments);
    if (!found)
        printf("(no %s here: not tested with it) ", module);
    return found;
}
