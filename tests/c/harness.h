/* What all tests of the C library share.
 *
 * A test program runs its tests in a child process. The parent watches: a test that takes too long
 * has the stacks of all its processes printed and is killed, and whatever process the tests leave
 * behind comes to the parent, which reports it and fails. A name on the command line runs only the
 * tests whose names contain it; HARNESS_SECONDS sets the time for one test.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <CUnit/CUnit.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "libpool.h"

#define MEBIBYTE (UINT64_C(1) << 20)
#define SECOND INT64_C(1000000000)
#define MILLISECOND INT64_C(1000000)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HARNESS_SANITIZED 1
#else
#define HARNESS_SANITIZED 0
#endif

/* ---- Expectations: in a test, in its threads, and in children made by harness_fork() ---- */

/* Both print what was found. REQUIRE ends the test (or the child); not in a thread. */
#define EXPECT(actual, wanted)                                                                     \
    harness_expect((long long)(actual), (long long)(wanted), #actual " == " #wanted, __FILE__,     \
                   __LINE__, false)
#define REQUIRE(actual, wanted)                                                                    \
    harness_expect((long long)(actual), (long long)(wanted), #actual " == " #wanted, __FILE__,     \
                   __LINE__, true)
bool harness_expect(long long actual, long long wanted, const char *text, const char *file,
                    unsigned line, bool fatal);

/* ---- Processes and threads ---- */

/* Runs body(context) in a forked child, which SIGALRM ends after `seconds`. */
pid_t harness_spawn(void (*body)(void *context), void *context, unsigned seconds);
/* The same, and waits: 0 if all expectations in it held, else its wait status. */
int harness_fork(void (*body)(void *context), void *context, unsigned seconds);
int harness_reap(pid_t pid);

/* Runs body(context, 0), body(context, 1), ... in as many threads, which begin together. */
void harness_threads(unsigned count, void (*body)(void *context, unsigned number), void *context);

/* A pidfd of a living process, and whether that process ends within `milliseconds`. */
int harness_pidfd(pid_t pid);
bool harness_ends(int pidfd, int milliseconds);

/* ---- Between processes ---- */

/* Zeroed memory that processes forked from now on share. Never reused: what a test that failed has
 * left running writes to its own. */
void *harness_shared(size_t size);

/* Counts up, and wakes who waits in harness_await(). */
void harness_raise(_Atomic uint32_t *count);
/* Waits until the count has come to `value`: false if it does not within 20 seconds. */
bool harness_await(_Atomic uint32_t *count, uint32_t value);

/* Looks again and again, for what nobody announces: false if it does not hold within 20 seconds. */
bool harness_until(bool (*condition)(void *context), void *context);

/* A reproducible sequence (xorshift64*); *state starts with any number but 0. */
uint64_t harness_random(uint64_t *state);

/* ---- Pools ---- */

/* A pool that may commit `limit` bytes. A test that can't have it ends here. */
struct pool *harness_pool(int workers, uint64_t limit);
/* Submits or ends the test. */
struct pool_future harness_submit(struct pool *pool, pool_function function, const void *argument,
                                  size_t size);
/* Waits at most 20 seconds for the end: the outcome. */
int harness_outcome(const struct pool_future *future, int *detail);
/* Waits, reads the status, releases. */
int harness_status(const struct pool_future *future);

/* A pidfd of a worker, as soon as the supervisor has said which process it is. */
int harness_worker(struct pool *pool, int worker);

/* Jobs. A gate is a pointer to a count in harness_shared() memory. */
int job_nothing(struct pool_job *job, const void *argument, size_t size);
/* Returns its argument as its result. */
int job_echo(struct pool_job *job, const void *argument, size_t size);
struct gate {
    _Atomic uint32_t reached; /* by how many jobs */
    _Atomic uint32_t open;    /* nonzero lets them pass */
};
/* Argument: struct gate *. */
int job_gate(struct pool_job *job, const void *argument, size_t size);

/* ---- The program ---- */

struct harness_test {
    const char *name;
    void (*run)(void);
};

#define TEST(function) {#function, function}
#define HARNESS_MAIN(suite, tests)                                                                 \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return harness_main(argc, argv, suite, tests, sizeof(tests) / sizeof *(tests));            \
    }

int harness_main(int argc, char **argv, const char *suite, const struct harness_test *tests,
                 size_t count);

#endif
