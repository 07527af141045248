/* The whole path of a job, submit to collect, with workers that sleep, and die. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "atomic.h"
#include "explore.h"
#include "libpool.h"
#include "simulation.h"

#define JOBS 2

static struct simulation layout;
static int jobs;        /* of this scenario */
static size_t size;     /* of argument and result, bytes */
static int runs[8];     /* how often each job ran to its end */
static int outcome[8];
static bool may_die, nested, detached;

static int note(struct pool_job *job, const void *argument, size_t length)
{
    unsigned char number;
    void *result;

    if (length != size)
        explore_fail("an argument has the wrong size");
    number = *(const unsigned char *)argument;
    result = pool_job_reserve(job, size);
    if (!result)
        explore_fail("no room for a result");
    memset(result, number + 100, size);
    runs[number]++;
    return 0;
}

static void setup(void)
{
    memset(runs, 0, sizeof runs);
    memset(outcome, 0, sizeof outcome);
    simulation_setup(&layout);
}

static void collect(const struct pool_future *future, int number)
{
    const unsigned char *data;
    size_t length;
    int detail;

    if (pool_future_wait(future, POOL_FOREVER) != 0)
        explore_fail("a wait failed");
    outcome[number] = pool_future_outcome(future, &detail);
    if (outcome[number] == POOL_FINISHED) {
        if (pool_future_result(future, (const void **)&data, &length) != 0 || length != size)
            explore_fail("a finished job has no result");
        if (data[0] != number + 100 || data[size - 1] != number + 100)
            explore_fail("a result is another job's");
    } else if (outcome[number] != POOL_DIED || detail != 9) {
        explore_fail("a job ended in a way that it can't");
    }
    pool_future_release(future);
}

static void host(struct pool *pool)
{
    struct pool_future future[8];
    unsigned char argument[512];
    int i;

    for (i = 0; i < jobs; i++) {
        memset(argument, i, size);
        if (pool_submit(pool, note, argument, size, &future[i]) != 0)
            explore_fail("a submit failed");
    }
    for (i = 0; i < jobs; i++)
        collect(&future[i], i);
    simulation_close(pool);
}

static void body(int process)
{
    if (process == 0)
        host(simulation_pool(0));
    else if (process <= layout.workers)
        worker_loop(simulation_pool(process));
    else
        simulation_repair(process);
}

/* Of a process slot all but the bell is the worker's own, and the supervisor's once it is dead. */
static bool private(int process, const volatile void *address)
{
    struct pool *pool = simulation_pool(process);
    const volatile unsigned char *begin;

    if (pool->role != ROLE_WORKER)
        return false;
    begin = (const volatile unsigned char *)pool_process(pool, pool->self - 1);
    return (const volatile unsigned char *)address >= begin + sizeof(_Atomic uint32_t) &&
           (const volatile unsigned char *)address < begin + sizeof(struct process);
}

static void check(void)
{
    int i, died = 0;

    for (i = 0; i < jobs; i++) {
        if (outcome[i] == 0)
            explore_fail("a job never ended");
        if (outcome[i] == POOL_DIED)
            died++;
        else if (runs[i] != 1)
            explore_fail("a job ran twice, or finished and never ran");
        if (runs[i] > 1)
            explore_fail("a job ran twice");
    }
    if (died > (may_die ? 1 : 0))
        explore_fail("a death cost more than one job");
    simulation_check_free();
}

int main(int argc, char **argv)
{
    struct explore_scenario scenario = {.name = "pool", .setup = setup, .body = body, .check = check, .private = private, .repairer = -1};
    struct explore_result result;
    int mode = argc > 1 ? atoi(argv[1]) : 0;

    layout.workers = argc > 2 ? atoi(argv[2]) : 1;
    jobs = argc > 3 ? atoi(argv[3]) : 1;
    size = argc > 4 ? (size_t)atoi(argv[4]) : 8;
    layout.ring_bits = 1;
    layout.block_largest = 1024;
    scenario.processes = 1 + layout.workers;
    scenario.preemptions = argc > 5 ? atoi(argv[5]) : -1;
    if (mode) {
        may_die = true;
        scenario.repairer = scenario.processes++;
        scenario.deaths = 1;
        scenario.mortal = ((1U << layout.workers) - 1) << 1;
    }
    (void)nested, (void)detached;
    result = explore(&scenario, 0);
    printf("%s mode %d workers %d jobs %d size %zu preemptions %d: %llu executions, %llu states, %llu steps: %s\n", scenario.name, mode, layout.workers, jobs, size, scenario.preemptions,
           (unsigned long long)result.executions, (unsigned long long)result.states, (unsigned long long)result.steps, result.failure ? result.failure : "ok");
    if (result.failure)
        explore_print_trace();
    return result.failure != NULL;
}
