/* Jobs: submitted, waited for, their results read. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "system.h"

#define LIMIT (64 * MEBIBYTE)

/* ---- Sizes ---- */

static int job_echo_aligned(struct pool_job *job, const void *argument, size_t size)
{
    return (uintptr_t)argument % 8 ? -EFAULT : pool_job_return(job, argument, size);
}

static void echo(struct pool *pool, unsigned char *bytes, size_t size)
{
    struct pool_future future;
    const void *data = NULL;
    size_t length = 0, i;

    for (i = 0; i < size; i += 97)
        bytes[i] = (unsigned char)(size + i);
    REQUIRE(pool_submit(pool, job_echo_aligned, bytes, size, &future), 0);
    EXPECT(pool_future_wait(&future, 30 * SECOND), 0);
    EXPECT(pool_future_result(&future, &data, &length), 0);
    EXPECT(length, size);
    EXPECT((uintptr_t)data % 8, 0);
    EXPECT(size == length && memcmp(data, bytes, size) == 0, true);
    pool_future_release(&future);
}

static void arguments_and_results_of_every_size_arrive(void)
{
    static const size_t sizes[] = {0,       1,     7,     8,       9,
                                   47,      48,    49,    87,      88,
                                   89,      95,    96,    97,      255,
                                   256,     257,   4095,  4096,    4097,
                                   65535,   65536, 65537, 1 << 20, (1 << 20) + 1,
                                   64 << 20};
    struct pool *pool = harness_pool(2, 256 * MEBIBYTE);
    unsigned char *bytes = calloc(1, 64 << 20);
    unsigned i;

    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        echo(pool, bytes, sizes[i]);
    free(bytes);
    pool_destroy(pool);
}

/* Argument: the size of the result. Fills it, and looks whether that has changed the argument. */
static int job_result_of_size(struct pool_job *job, const void *argument, size_t size)
{
    size_t wanted = *(const size_t *)argument;
    unsigned char *copy = malloc(size);
    void *result;
    int same;

    memcpy(copy, argument, size);
    result = pool_job_reserve(job, wanted);
    if (result)
        memset(result, 0x5a, wanted);
    same = memcmp(copy, argument, size) == 0;
    free(copy);
    return !result ? -errno : same ? 0 : -EFAULT;
}

static void a_result_never_overwrites_the_argument(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    unsigned char argument[200] = {0};
    size_t result, size, length = 0, i, wrong = 0;

    for (size = sizeof(size_t); size < 110; size += 3)
        for (result = 0; result < 110; result += 3) {
            struct pool_future future;
            const unsigned char *bytes;
            const void *data = NULL;

            memcpy(argument, &result, sizeof result);
            future = harness_submit(pool, job_result_of_size, argument, size);
            wrong += pool_future_wait(&future, 20 * SECOND) != 0;
            wrong += pool_future_result(&future, &data, &length) != 0 || length != result;
            bytes = data;
            for (i = 0; i < length; i++)
                wrong += bytes[i] != 0x5a;
            pool_future_release(&future);
        }
    EXPECT(wrong, 0);
    pool_destroy(pool);
}

static void the_argument_is_copied_at_submit(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    char small[] = "as it was", large[1000] = "as it was too";
    struct pool_future first, second, third;
    const void *data = "";
    size_t size;

    first = harness_submit(pool, job_gate, &gate, sizeof gate);
    second = harness_submit(pool, job_echo, small, sizeof small);
    third = harness_submit(pool, job_echo, large, sizeof large);
    memset(small, 'x', sizeof small);
    memset(large, 'x', sizeof large);
    harness_raise(&gate->open);
    EXPECT(harness_status(&first), 0);
    EXPECT(pool_future_wait(&third, 20 * SECOND), 0);
    EXPECT(pool_future_result(&second, &data, &size), 0);
    EXPECT(strcmp(data, "as it was"), 0);
    EXPECT(pool_future_result(&third, &data, &size), 0);
    EXPECT(strcmp(data, "as it was too"), 0);
    pool_destroy(pool);
}

/* ---- What a function may return ---- */

static int job_return_status(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    return size == sizeof(int) ? *(const int *)argument : -EINVAL;
}

static void a_status_arrives_and_one_that_is_none_is_erange(void)
{
    static const int statuses[][2] = {{0, 0},
                                      {-1, -1},
                                      {-EPIPE, -EPIPE},
                                      {-4095, -4095},
                                      {-4096, -ERANGE},
                                      {1, -ERANGE},
                                      {42, -ERANGE},
                                      {32768, -ERANGE},
                                      {-65536, -ERANGE},
                                      {INT_MAX, -ERANGE},
                                      {INT_MIN, -ERANGE}};
    struct pool *pool = harness_pool(2, LIMIT);
    unsigned i;

    for (i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        struct pool_future future =
            harness_submit(pool, job_return_status, &statuses[i][0], sizeof(int));
        int detail = 12345;

        EXPECT(harness_outcome(&future, &detail), POOL_FINISHED);
        EXPECT(detail, statuses[i][1]);
        EXPECT(harness_status(&future), statuses[i][1]);
    }
    pool_destroy(pool);
}

static int job_several_results(struct pool_job *job, const void *argument, size_t size)
{
    void *large = pool_job_reserve(job, 100000);

    (void)argument;
    (void)size;
    if (!large)
        return -errno;
    memset(large, 1, 100000);
    if (pool_job_return(job, "first", 5) != 0 || pool_job_return(job, large, 0) != 0)
        return -EIO;
    large = pool_job_reserve(job, 3000);
    if (!large)
        return -errno;
    memset(large, 2, 3000);
    return pool_job_return(job, "last one", 8);
}

static void of_several_results_the_last_counts_and_the_others_cost_nothing(void)
{
    struct pool *pool = harness_pool(1, 2 * MEBIBYTE);
    int i;

    for (i = 0; i < 300; i++) {
        struct pool_future future = harness_submit(pool, job_several_results, NULL, 0);
        const void *data = NULL;
        size_t size = 0;

        EXPECT(pool_future_wait(&future, 20 * SECOND), 0);
        EXPECT(pool_future_result(&future, &data, &size), 0);
        EXPECT(size == 8 && memcmp(data, "last one", 8) == 0, true);
        pool_future_release(&future);
    }
    pool_destroy(pool);
}

static int job_fail_with_result(struct pool_job *job, const void *argument, size_t size)
{
    int error = pool_job_return(job, argument, size);

    return error ? error : -EILSEQ;
}

static void a_function_that_fails_may_have_a_result_and_one_that_succeeds_none(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future failed = harness_submit(pool, job_fail_with_result, "why", 3);
    struct pool_future nothing = harness_submit(pool, job_nothing, "abc", 3);
    const void *data = NULL;
    size_t size = 99;

    EXPECT(pool_future_wait(&nothing, 20 * SECOND), 0);
    EXPECT(pool_future_result(&failed, &data, &size), -EILSEQ);
    EXPECT(size == 3 && memcmp(data, "why", 3) == 0, true);
    EXPECT(pool_future_result(&nothing, &data, &size), 0);
    EXPECT(size, 0);
    pool_destroy(pool);
}

/* ---- Submitting ---- */

static int job_raise(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)size;
    harness_raise(*(_Atomic uint32_t *const *)argument);
    return 0;
}

static void a_job_without_a_future_runs_and_costs_nothing_afterwards(void)
{
    _Atomic uint32_t *count = harness_shared(sizeof *count);
    struct pool *pool = harness_pool(2, 2 * MEBIBYTE);
    uint32_t i;

    for (i = 0; i < 20000; i++) {
        REQUIRE(pool_submit(pool, job_raise, &count, sizeof count, NULL), 0);
        if (i % 1000 == 999)
            REQUIRE(harness_await(count, i + 1), true);
    }
    EXPECT(*count, 20000);
    pool_destroy(pool);
}

static void what_cannot_be_submitted_is_einval(void)
{
    static int data;
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future;
    int i;

    for (i = 0; i < 1000; i++) {
        EXPECT(pool_submit(pool, NULL, "x", 1, &future), -EINVAL);
        EXPECT(pool_submit(pool, (pool_function)(uintptr_t)&data, "x", 1, &future), -EINVAL);
        EXPECT(pool_submit(pool, job_nothing, NULL, 1, &future), -EINVAL);
        EXPECT(pool_submit(pool, job_nothing, NULL, 1, NULL), -EINVAL);
    }
    future = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(harness_status(&future), 0);
    pool_destroy(pool);
}

static void a_function_of_a_library_loaded_after_the_pool_was_made_runs(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
    struct pool_future future;

    REQUIRE(library != NULL, true);
    /* It looks at no argument, and returns 0, for rounding to the nearest. */
    future = harness_submit(pool, (pool_function)(uintptr_t)dlsym(library, "fegetround"), NULL, 0);
    EXPECT(harness_status(&future), 0);
    pool_destroy(pool);
    dlclose(library);
}

static int job_call_by_reference(struct pool_job *job, const void *argument, size_t size)
{
    pool_any_function function;
    uint64_t reference;
    double result;
    int error;

    (void)size;
    memcpy(&reference, argument, sizeof reference);
    error = pool_resolve(pool_current(), reference, &function);
    if (error)
        return error;
    result = ((double (*)(double))function)(-2.5);
    return pool_job_return(job, &result, sizeof result);
}

static void a_function_passed_as_an_argument_is_the_same_one_in_the_worker(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
    pool_any_function function, found = NULL;
    struct pool_future future;
    uint64_t reference = 0;
    const void *data;
    double result;
    size_t size;

    REQUIRE(library != NULL, true);
    function = (pool_any_function)(uintptr_t)dlsym(library, "fabs");
    EXPECT(pool_refer(pool, NULL, &reference), -EINVAL);
    EXPECT(pool_refer(pool, (pool_any_function)(uintptr_t)&result, &reference), -EINVAL);
    EXPECT(pool_resolve(pool, UINT64_MAX, &found), -EINVAL);
    EXPECT(pool_refer(pool, function, &reference), 0);
    EXPECT(pool_resolve(pool, reference, &found), 0);
    EXPECT(found == function, true);
    future = harness_submit(pool, job_call_by_reference, &reference, sizeof reference);
    EXPECT(harness_outcome(&future, NULL), POOL_FINISHED);
    REQUIRE(pool_future_result(&future, &data, &size), 0);
    REQUIRE(size, sizeof result);
    memcpy(&result, data, sizeof result);
    EXPECT(result == 2.5, true);
    pool_destroy(pool);
    dlclose(library);
}

static int job_note_order(struct pool_job *job, const void *argument, size_t size)
{
    struct {
        uint32_t *list;
        uint32_t number;
    } const *const note = argument;

    (void)job;
    (void)size;
    note->list[++note->list[0]] = note->number;
    return 0;
}

static void one_worker_runs_jobs_in_the_order_of_submission(void)
{
    enum { JOBS = 5000 };
    uint32_t *list = harness_shared((JOBS + 1) * sizeof *list), i, wrong = 0;
    struct pool *pool = harness_pool(1, LIMIT);
    struct {
        uint32_t *list;
        uint32_t number;
    } note = {.list = list};

    for (i = 0; i < JOBS; i++) {
        note.number = i;
        REQUIRE(pool_submit(pool, job_note_order, &note, sizeof note, NULL), 0);
    }
    EXPECT(pool_close(pool), 0);
    EXPECT(pool_join(pool, 20 * SECOND), 0);
    EXPECT(list[0], JOBS);
    for (i = 0; i < JOBS; i++)
        wrong += list[i + 1] != i;
    EXPECT(wrong, 0);
    pool_destroy(pool);
}

static void a_job_in_two_steps_is_written_in_place(void)
{
    static const size_t sizes[] = {0, 10, 96, 97, 5000, 200000};
    struct pool *pool = harness_pool(1, LIMIT);
    unsigned i;

    for (i = 0; i < 6; i++) {
        struct pool_future future;
        const void *data = NULL;
        void *memory = NULL;
        size_t size = 0;

        REQUIRE(pool_prepare(pool, sizes[i], &future, &memory), 0);
        EXPECT((uintptr_t)memory % 8, 0);
        memset(memory, 'p', sizes[i]);
        EXPECT(pool_future_outcome(&future, NULL), -ESTALE); /* it is no job yet */
        EXPECT(pool_commit(&future, NULL), -EINVAL);
        EXPECT(pool_commit(&future, job_echo), 0);
        EXPECT(pool_future_wait(&future, 20 * SECOND), 0);
        EXPECT(pool_commit(&future, job_echo), -ESTALE);
        EXPECT(pool_future_result(&future, &data, &size), 0);
        EXPECT(size, sizes[i]);
        EXPECT(size == 0 || ((const char *)data)[size - 1] == 'p', true);
        pool_future_release(&future);
    }
    pool_destroy(pool);
}

static void an_abandoned_job_costs_nothing(void)
{
    struct pool *pool = harness_pool(1, 2 * MEBIBYTE);
    struct pool_future future;
    void *memory;
    int i;

    for (i = 0; i < 20000; i++) {
        REQUIRE(pool_prepare(pool, (size_t)(i % 3) * 5000, &future, &memory), 0);
        pool_abandon(&future);
    }
    pool_destroy(pool);
}

static void an_abandoned_job_is_stale(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future, first, second;
    void *memory;

    REQUIRE(pool_prepare(pool, 10, &future, &memory), 0);
    pool_abandon(&future);
    pool_abandon(&future); /* harmless */
    EXPECT(pool_commit(&future, job_nothing), -ESTALE);
    first = harness_submit(pool, job_nothing, NULL, 0);
    second = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(first.index != second.index || first.generation != second.generation, true);
    EXPECT(harness_outcome(&first, NULL), POOL_FINISHED);
    EXPECT(harness_outcome(&second, NULL), POOL_FINISHED);
    pool_destroy(pool);
}

static void a_job_for_an_interpreter_that_is_none_is_enosys(void)
{
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future;
    void *memory;

    REQUIRE(pool_prepare(pool, 0, &future, &memory), 0);
    EXPECT(pool_commit_host(&future, 5), 0);
    EXPECT(harness_status(&future), -ENOSYS);
    pool_destroy(pool);
}

/* ---- Waiting ---- */

static void a_job_that_has_not_ended_is_pending_or_running(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future running = harness_submit(pool, job_gate, &gate, sizeof gate);
    struct pool_future waiting = harness_submit(pool, job_nothing, NULL, 0);
    struct pool_future copy = waiting;

    REQUIRE(harness_await(&gate->reached, 1), true);
    EXPECT(pool_future_outcome(&running, NULL), POOL_RUNNING);
    EXPECT(pool_future_outcome(&waiting, NULL), POOL_PENDING);
    EXPECT(pool_future_result(&running, NULL, NULL), -EINPROGRESS);
    EXPECT(pool_future_result(&waiting, NULL, NULL), -EINPROGRESS);
    harness_raise(&gate->open);
    EXPECT(harness_outcome(&copy, NULL), POOL_FINISHED);
    EXPECT(pool_future_outcome(&waiting, NULL), POOL_FINISHED); /* copies name the same job */
    EXPECT(pool_future_outcome(&running, NULL), POOL_FINISHED);
    pool_destroy(pool);
}

static void time_outs_of_every_kind_are_kept(void)
{
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);
    struct pool_future future = harness_submit(pool, job_gate, &gate, sizeof gate);
    int64_t start = system_now();

    EXPECT(pool_future_wait(&future, 0), -ETIMEDOUT);
    EXPECT(pool_future_wait(&future, 1), -ETIMEDOUT);
    EXPECT(pool_future_wait(&future, -1), -EINVAL);
    EXPECT(pool_future_wait(&future, INT64_MIN), -EINVAL);
    EXPECT(system_now() - start < 5 * SECOND, true);
    start = system_now();
    EXPECT(pool_future_wait(&future, 130 * MILLISECOND), -ETIMEDOUT);
    EXPECT(system_now() - start >= 130 * MILLISECOND, true);
    harness_raise(&gate->open);
    EXPECT(pool_future_wait(&future, POOL_FOREVER - 1), 0);
    EXPECT(pool_future_wait(&future, POOL_FOREVER), 0);
    EXPECT(pool_future_wait(&future, 0), 0);
    EXPECT(pool_future_wait(&future, -1), -EINVAL);
    pool_destroy(pool);
}

static void do_nothing(int signal_number)
{
    (void)signal_number;
}

static pthread_t waiter;
static _Atomic uint32_t ready, interrupted;
static struct pool_future watched;

static void wait_or_interrupt(void *context, unsigned thread)
{
    (void)context;
    if (thread == 0) {
        waiter = pthread_self();
        harness_raise(&ready);
        EXPECT(pool_future_wait(&watched, 20 * SECOND), -EINTR);
        interrupted = 1;
        return;
    }
    harness_await(&ready, 1);
    while (!interrupted) { /* it may not sleep yet */
        pthread_kill(waiter, SIGUSR1);
        poll(NULL, 0, 1);
    }
}

static void a_signal_handler_interrupts_a_wait(void)
{
    struct sigaction action = {.sa_handler = do_nothing}, before;
    struct gate *gate = harness_shared(sizeof *gate);
    struct pool *pool = harness_pool(1, LIMIT);

    ready = interrupted = 0;
    watched = harness_submit(pool, job_gate, &gate, sizeof gate);
    sigaction(SIGUSR1, &action, &before);
    harness_threads(2, wait_or_interrupt, NULL);
    sigaction(SIGUSR1, &before, NULL);
    harness_raise(&gate->open);
    EXPECT(harness_status(&watched), 0);
    pool_destroy(pool);
}

static void ten_thousands_of_jobs_leave_memory_flat(void)
{
    struct pool *pool = harness_pool(2, LIMIT);
    struct pool_stats before = {.size = sizeof before}, after = {.size = sizeof after};
    char bytes[1000] = {0};
    int i;

    for (i = 0; i < 20000; i++) {
        struct pool_future future = harness_submit(pool, job_echo, bytes, (size_t)(i % 1000));

        if (i == 2000)
            EXPECT(pool_get_stats(pool, &before), 0);
        EXPECT(harness_status(&future), 0);
    }
    EXPECT(pool_get_stats(pool, &after), 0);
    EXPECT(after.memory <= before.memory + MEBIBYTE / 4, true);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(arguments_and_results_of_every_size_arrive),
    TEST(a_result_never_overwrites_the_argument),
    TEST(the_argument_is_copied_at_submit),
    TEST(a_status_arrives_and_one_that_is_none_is_erange),
    TEST(of_several_results_the_last_counts_and_the_others_cost_nothing),
    TEST(a_function_that_fails_may_have_a_result_and_one_that_succeeds_none),
    TEST(a_job_without_a_future_runs_and_costs_nothing_afterwards),
    TEST(what_cannot_be_submitted_is_einval),
    TEST(a_function_of_a_library_loaded_after_the_pool_was_made_runs),
    TEST(a_function_passed_as_an_argument_is_the_same_one_in_the_worker),
    TEST(one_worker_runs_jobs_in_the_order_of_submission),
    TEST(a_job_in_two_steps_is_written_in_place),
    TEST(an_abandoned_job_costs_nothing),
    TEST(an_abandoned_job_is_stale),
    TEST(a_job_for_an_interpreter_that_is_none_is_enosys),
    TEST(a_job_that_has_not_ended_is_pending_or_running),
    TEST(time_outs_of_every_kind_are_kept),
    TEST(a_signal_handler_interrupts_a_wait),
    TEST(ten_thousands_of_jobs_leave_memory_flat),
};

HARNESS_MAIN("pool: submitting and waiting", tests)
