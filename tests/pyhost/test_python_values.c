/* Values on their way to Python and back. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

static struct pool *pool;

/* The shape of what arrives: repr() of the positional and the keyword arguments. */
static bool arrives_as(struct pool_python_arguments *arguments, const char *wanted)
{
    struct pool_future future = call(pool, "echoes:show", arguments);

    pool_python_arguments_clear(arguments);
    return string_result(&future, wanted);
}

static void plain_values_arrive_as_they_are(void)
{
    struct pool_python_arguments *arguments = pool_python_arguments_create();

    pool = python_pool(1, NULL);
    EXPECT(pool_python_put_none(arguments), 0);
    EXPECT(pool_python_put_bool(arguments, true), 0);
    EXPECT(pool_python_put_int64(arguments, -1), 0);
    EXPECT(pool_python_put_int64(arguments, INT64_MIN), 0);
    EXPECT(pool_python_put_int64(arguments, INT64_MAX), 0);
    EXPECT(pool_python_put_double(arguments, 0.1), 0);
    EXPECT(pool_python_put_double(arguments, -INFINITY), 0);
    EXPECT(pool_python_put_string(arguments, "h\xc3\xa9llo \xf0\x9f\x8e\x88"), 0);
    EXPECT(pool_python_put_text(arguments, "a\0b", 3), 0);
    EXPECT(pool_python_put_string(arguments, ""), 0);
    EXPECT(pool_python_put_bytes(arguments, "\0\xff", 2), 0);
    EXPECT(pool_python_put_bytes(arguments, NULL, 0), 0);
    EXPECT(arrives_as(arguments, "(None, True, -1, -9223372036854775808, 9223372036854775807, 0.1, "
                                 "-inf, 'h\xc3\xa9llo \xf0\x9f\x8e\x88', 'a\\x00b', '', "
                                 "b'\\x00\\xff', b'') {}"),
           true);
    EXPECT(arrives_as(arguments, "() {}"), true);
    pool_python_arguments_destroy(arguments);
    pool_destroy(pool);
}

int main(int argc, char **argv);
static const struct harness_test tests[] = {
    TEST(plain_values_arrive_as_they_are),
};

HARNESS_MAIN("libpool-python: values", tests)
