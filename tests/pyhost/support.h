/* What the tests of libpool-python share. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "harness.h"
#include "libpool-python.h"

/* A configuration that finds the modules of the tests, and NumPy, where ./dev has put it. */
void python_config(struct pool_python_config *config);
/* A pool with it; else the test ends. `python` NULL: python_config(). */
struct pool *python_pool(int workers, const struct pool_python_config *python);

/* Submits, or the test ends. */
struct pool_future call(struct pool *pool, const char *function,
                        const struct pool_python_arguments *arguments);
struct pool_future evaluate(struct pool *pool, const char *expression,
                            const struct pool_python_arguments *arguments);

/* Waits: the result's error. */
int finish(const struct pool_future *future, struct pool_python_value *value);
/* The same for an integer or a string, which the result has to be; the job is released. */
int64_t int_result(const struct pool_future *future);
bool string_result(const struct pool_future *future, const char *wanted);

/* Waits for a job that is to raise: whether it is of this type, and its message contains the text.
 * Prints what it was, if not. The job is released. */
bool raises(const struct pool_future *future, const char *type, const char *text);

/* Whether workers can import a module. */
bool has_module(struct pool *pool, const char *module);

#define EXPECT_STRING(actual, wanted) EXPECT(same_string(actual, wanted), true)
bool same_string(const char *actual, const char *wanted);

#endif
