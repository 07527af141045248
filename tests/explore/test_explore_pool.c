/* The whole path of a job, submit to collect, with workers that sleep, and die.
 *
 * Process 0 is the host, then come the workers, and the supervisor's repair, which goes on as the
 * replacement of the worker that died.
 */
#include <string.h>

#include "atomic.h"
#include "explore.h"
#include "simulation.h"

#define JOBS_MAX 4
#define BLOCK 300 /* bytes of a block that comes with a result */

enum kind {
    COLLECT,  /* submit all, wait for each, read its result */
    DETACHED, /* submit all without futures */
    NOTIFY,   /* be told of each by the completion ring */
    CANCEL,   /* submit all, cancel each, wait for each */
    NESTED,   /* submit jobs that submit a job and wait for it */
    RETRY,    /* submit all, each to be run again once if its worker dies, wait for each */
    GIVE,     /* submit all, whose results come with a block, hold these, release, look at them */
    DROP,     /* the same, without futures */
    BESIDE    /* submit a nested job, whose inner one waits until another has begun, which has a
                 time limit, so that a worker that waits does not take it */
};

struct variant {
    const char *name;
    enum kind kind;
    int workers, jobs;
    size_t size; /* bytes of argument and result: inline, or from 97 on in blocks */
    int deaths;
    int preemptions;
    bool longer;
};

static const struct variant *variant;
static int runs[2 * JOBS_MAX], outcome[2 * JOBS_MAX];

/* Where jobs go beside each other: 1 once the inner one, and the other one, have begun. */
static _Atomic uint32_t *inner_begun, *other_begun;

/* ---- The jobs ---- */

static bool gives(void)
{
    return variant->kind == GIVE || variant->kind == DROP;
}

/* A result of one reference, of a block that comes with it. */
static void *give(struct pool_job *job, int number)
{
    uint64_t reference;
    void *memory, *result;

    if (pool_alloc_own(pool_current(), BLOCK, &reference, &memory) != 0)
        explore_fail("no room for a block");
    memset(memory, number + 100, BLOCK);
    result = pool_job_reserve_with(job, sizeof reference, &reference, 1);
    if (result)
        memcpy(result, &reference, sizeof reference);
    /* From here on it is the result's alone. */
    pool_drop(pool_current(), reference);
    return result;
}

static int work(struct pool_job *job, const void *argument, size_t length)
{
    unsigned char number;
    void *result;

    if (length != variant->size)
        explore_fail("an argument has the wrong size");
    number = *(const unsigned char *)argument;
    explore_remember(number);
    if (variant->kind == BESIDE && number >= JOBS_MAX) {
        simulation_announce(inner_begun);
        simulation_await(other_begun);
    } else if (variant->kind == BESIDE && number == 1) {
        simulation_announce(other_begun);
    }
    result = gives() ? give(job, number) : pool_job_reserve(job, variant->size);
    if (!result)
        explore_fail("no room for a result");
    if (!gives())
        memset(result, number + 100, variant->size);
    runs[number]++;
    return 0;
}

static int submit(struct pool *pool, pool_function function, int number, struct pool_future *future)
{
    struct pool_options options;
    unsigned char argument[512];

    pool_options_init(pool, &options);
    options.retries = variant->kind == RETRY;
    if (variant->kind == BESIDE && number == 1)
        options.timeout = 1;
    memset(argument, number, variant->size);
    return pool_submit_with(pool, &options, function, argument, variant->size, future);
}

/* Takes what came with the result, and leaves the future for it. */
static void take(const struct pool_future *future, int number)
{
    uint64_t reference, other;
    const void *data;
    size_t length;
    void *memory, *others;

    if (pool_future_result(future, &data, &length) != 0 || length != sizeof reference)
        explore_fail("a finished job has no result");
    memcpy(&reference, data, sizeof reference);
    if (pool_future_hold(future, reference) != 0)
        explore_fail("what came with a result can't be held");
    pool_future_release(future);
    if (pool_lookup(future->pool, reference, &memory, &length) != 0 || length != BLOCK)
        explore_fail("what came with a result is not there");
    explore_operation();
    if (pool_alloc_own(future->pool, BLOCK, &other, &others) == 0) {
        memset(others, 0, BLOCK);
        pool_drop(future->pool, other);
    }
    if (*(unsigned char *)memory != number + 100)
        explore_fail("what came with a result is another's");
    pool_drop(future->pool, reference);
}

static void check_result(const struct pool_future *future, int number)
{
    const void *data;
    size_t length;

    if (pool_future_result(future, &data, &length) != 0 || length != variant->size)
        explore_fail("a finished job has no result");
    if (*(const unsigned char *)data != number + 100 ||
        ((const unsigned char *)data)[length - 1] != number + 100)
        explore_fail("a result is another job's");
}

static void collect(const struct pool_future *future, int number)
{
    int detail = 0;

    outcome[number] = pool_future_outcome(future, &detail);
    if (outcome[number] == POOL_FINISHED && gives())
        take(future, number);
    else if (outcome[number] == POOL_FINISHED)
        check_result(future, number);
    else if (!(outcome[number] == POOL_DIED && detail == 9) && outcome[number] != POOL_CANCELLED)
        explore_fail("a job ended in a way that it can't");
    pool_future_release(future);
}

static void wait_and_collect(const struct pool_future *future, int number)
{
    if (pool_future_wait(future, POOL_FOREVER) != 0)
        explore_fail("a wait failed");
    collect(future, number);
}

static int nest(struct pool_job *job, const void *argument, size_t length)
{
    unsigned char number = *(const unsigned char *)argument;
    struct pool_future future;

    explore_remember(number);
    if (submit(pool_current(), work, number + JOBS_MAX, &future) != 0)
        explore_fail("a nested submit failed");
    if (variant->kind == BESIDE)
        simulation_await(inner_begun);
    wait_and_collect(&future, number + JOBS_MAX);
    return work(job, argument, length);
}

static bool nests(int number)
{
    return variant->kind == NESTED || (variant->kind == BESIDE && number == 0);
}

static bool is_detached(void)
{
    return variant->kind == DETACHED || variant->kind == DROP;
}

/* ---- The host ---- */

static void be_told(struct pool *pool, struct pool_future futures[JOBS_MAX])
{
    bool told[JOBS_MAX] = {false};
    int i, left = variant->jobs;

    for (i = 0; i < variant->jobs; i++) {
        told[i] = pool_future_notify(&futures[i]) == 1;
        left -= told[i];
    }
    while (left) {
        struct pool_future future;

        while (left && pool_next_completed(pool, &future) == 1)
            for (i = 0; i < variant->jobs; i++)
                if (future.index == futures[i].index && !told[i]) {
                    told[i] = true;
                    left--;
                }
        if (left)
            simulation_await_event();
    }
    for (i = 0; i < variant->jobs; i++)
        collect(&futures[i], i);
}

static void host(struct pool *pool)
{
    struct pool_future futures[JOBS_MAX];
    int i;

    for (i = 0; i < variant->jobs; i++) {
        if (variant->kind == BESIDE && i == 1)
            simulation_await(inner_begun);
        if (submit(pool, nests(i) ? nest : work, i, is_detached() ? NULL : &futures[i]) != 0)
            explore_fail("a submit failed");
    }
    if (variant->kind == NOTIFY)
        be_told(pool, futures);
    for (i = 0; i < variant->jobs && variant->kind == CANCEL; i++)
        pool_future_cancel(&futures[i]);
    for (i = 0; i < variant->jobs && !is_detached() && variant->kind != NOTIFY; i++)
        wait_and_collect(&futures[i], i);
    simulation_close(pool);
}

/* ---- The scenario ---- */

/* They exist and have their hints: there are so few that, while one worker makes them, another
 * would find that there can be no more. */
static void make_blocks(void)
{
    struct pool *pool = simulation_pool(0);
    block_ref small, large;

    arena_alloc(&pool->arena, JOB_HOST, 1, &small);
    arena_alloc(&pool->arena, JOB_HOST, BLOCK, &large);
    arena_free_held(&pool->arena, small, JOB_HOST);
    arena_free_held(&pool->arena, large, JOB_HOST);
}

static void setup(void)
{
    struct simulation layout = {
        .workers = variant->workers, .ring_bits = 1, .jobs = 8, .block_largest = 1024};
    memset(runs, 0, sizeof runs);
    memset(outcome, 0, sizeof outcome);
    simulation_setup(&layout);
    if (gives())
        make_blocks();
    inner_begun = simulation_word();
    other_begun = inner_begun + 1;
}

static void body(int process)
{
    if (process == 0) {
        host(simulation_pool(0));
        return;
    }
    if (process > variant->workers)
        simulation_repair(process);
    worker_loop(simulation_pool(process));
}

static void check(void)
{
    int i, died = 0, missing = 0, deaths = explore_deaths(), again = 0;

    for (i = 0; i < variant->jobs; i++) {
        died += outcome[i] == POOL_DIED;
        missing += runs[i] == 0;
        again += runs[i] > 1;
        if (outcome[i] == 0 && !is_detached())
            explore_fail("a job never ended");
        if (outcome[i] == POOL_FINISHED && runs[i] == 0)
            explore_fail("a job finished and never ran");
        if (outcome[i] == POOL_CANCELLED && runs[i] != 0)
            explore_fail("a cancelled job ran");
    }
    if (variant->kind == RETRY ? again > deaths || (deaths < 2 && died) : again > 0)
        explore_fail("a job ran too often, or not again");
    if (is_detached() ? missing > deaths : died > deaths)
        explore_fail("a death cost more than the job that was running");
    simulation_check_free();
}

static void explore_variant(const struct variant *what)
{
    struct explore_scenario scenario = {.name = what->name,
                                        .processes = 1 + what->workers + what->deaths,
                                        .setup = setup,
                                        .body = body,
                                        .private = simulation_private,
                                        .check = check,
                                        .mortal = ((1U << what->workers) - 1) << 1,
                                        .deaths = what->deaths,
                                        .repairer = what->deaths ? 1 + what->workers : -1,
                                        .preemptions = what->preemptions};

    /* The replacement of the first to die may be the second. */
    if (what->deaths > 1)
        scenario.mortal |= 1U << scenario.repairer;
    variant = what;
    explore_report(&scenario, what->longer);
}

int main(int argc, char **argv)
{
    static const struct variant variants[] = {
        {"1 worker, 1 job", COLLECT, 1, 1, 8, 0, -1, false},
        {"1 worker, 2 jobs", COLLECT, 1, 2, 8, 0, 3, false},
        {"2 workers, 2 jobs", COLLECT, 2, 2, 8, 0, 2, false},
        {"1 worker, 1 job in blocks", COLLECT, 1, 1, 200, 0, 4, false},
        {"1 worker, 1 job, told", NOTIFY, 1, 1, 8, 0, 5, false},
        {"1 worker, 2 jobs, told", NOTIFY, 1, 2, 8, 0, 2, false},
        {"2 workers, 2 jobs, told", NOTIFY, 2, 2, 8, 0, 2, false},
        {"1 worker, 1 job, cancelled", CANCEL, 1, 1, 8, 0, -1, false},
        {"2 workers, 2 jobs, cancelled", CANCEL, 2, 2, 8, 0, 2, false},
        {"2 workers, 2 jobs, detached", DETACHED, 2, 2, 8, 0, 2, false},
        {"1 worker, a nested job", NESTED, 1, 1, 8, 0, 3, false},
        {"2 workers, a nested job", NESTED, 2, 1, 8, 0, 2, false},
        {"3 workers, a nested job beside another", BESIDE, 3, 2, 8, 0, 1, false},
        {"1 worker, 1 job that gives a block", GIVE, 1, 1, 8, 0, 4, false},
        {"2 workers, 2 jobs that give blocks", GIVE, 2, 2, 8, 0, 1, false},
        {"1 worker, 1 job that gives a block; a death", GIVE, 1, 1, 8, 1, 1, false},
        {"1 worker, 1 job that gives a block to nobody; a death", DROP, 1, 1, 8, 1, 1, false},
        {"2 workers, 2 jobs that give blocks; a death", GIVE, 2, 2, 8, 1, 0, false},
        {"1 worker, 1 job; a death", COLLECT, 1, 1, 8, 1, 2, false},
        {"1 worker, 1 job in blocks; a death", COLLECT, 1, 1, 200, 1, 1, false},
        {"2 workers, 2 jobs; a death", COLLECT, 2, 2, 8, 1, 0, false},
        {"2 workers, 2 jobs in blocks; a death", COLLECT, 2, 2, 200, 1, 0, false},
        {"1 worker, 1 job, told; a death", NOTIFY, 1, 1, 8, 1, 1, false},
        {"1 worker, 2 jobs, detached; a death", DETACHED, 1, 2, 8, 1, 1, false},
        {"2 workers, 2 jobs, cancelled; a death", CANCEL, 2, 2, 8, 1, 1, false},
        {"1 worker, a nested job; a death", NESTED, 1, 1, 8, 1, 1, false},
        {"2 workers, a nested job; a death", NESTED, 2, 1, 8, 1, 0, false},
        {"1 worker, 1 job, retried; a death", RETRY, 1, 1, 8, 1, 1, false},
        {"2 workers, 2 jobs in blocks, retried; a death", RETRY, 2, 2, 200, 1, 0, false},
        {"1 worker, 1 job; 2 deaths", COLLECT, 1, 1, 8, 2, 0, false},
        {"1 worker, 1 job, retried; 2 deaths", RETRY, 1, 1, 8, 2, 0, false},
        {"more 1 worker, 2 jobs", COLLECT, 1, 2, 8, 0, 5, true},
        {"more 2 workers, 2 jobs", COLLECT, 2, 2, 8, 0, 3, true},
        {"every 1 worker, 1 job in blocks", COLLECT, 1, 1, 200, 0, -1, true},
        {"every 1 worker, 1 job, told", NOTIFY, 1, 1, 8, 0, -1, true},
        {"more 2 workers, 2 jobs, told", NOTIFY, 2, 2, 8, 0, 3, true},
        {"more 2 workers, a nested job", NESTED, 2, 1, 8, 0, 3, true},
        {"more 1 worker, 1 job; a death", COLLECT, 1, 1, 8, 1, 3, true},
        {"more 1 worker, 1 job, told; a death", NOTIFY, 1, 1, 8, 1, 2, true},
        {"more 2 workers, 2 jobs; a death", COLLECT, 2, 2, 8, 1, 1, true},
        {"more 2 workers, 2 jobs in blocks; a death", COLLECT, 2, 2, 200, 1, 1, true},
        {"2 workers, 3 jobs; a death", COLLECT, 2, 3, 8, 1, 1, true},
        {"2 workers, 2 nested jobs; a death", NESTED, 2, 2, 8, 1, 0, true},
        {"2 workers, 2 jobs; 2 deaths", COLLECT, 2, 2, 8, 2, 0, true},
        {"more 1 worker, 1 job that gives a block; a death", GIVE, 1, 1, 8, 1, 3, true},
        {"more 2 workers, 2 jobs that give blocks; a death", GIVE, 2, 2, 8, 1, 1, true},
    };
    size_t i;

    explore_arguments(argc, argv);
    for (i = 0; i < sizeof variants / sizeof *variants; i++)
        explore_variant(&variants[i]);
    return explore_finish();
}
