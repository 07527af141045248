/* Jobs submitted together, and whoever waits for any of several: he hears of each end, also where
 * it was brought about by somebody who died before he had told.
 *
 * Process 0 is the host, then come the workers, further threads of the host, and the supervisor's
 * repair, which goes on as the replacement of the worker that died.
 */
#include <string.h>

#include "atomic.h"
#include "explore.h"
#include "simulation.h"

#define JOBS_MAX 3

enum kind {
    ANY,     /* submit all, wait for any of those that are left, collect it, and so on */
    NESTED,  /* submit a job that does so with all jobs */
    THREADS, /* two threads: each submits all, and waits for any */
    CANCEL   /* submit all, two threads: one cancels them, one waits for any */
};

struct variant {
    const char *name;
    enum kind kind;
    int workers, jobs;
    int deaths;
    int preemptions;
    bool longer;
};

static const struct variant *variant;
static int threads;
/* Of the two threads; the nested job is the last one of the first. */
static int runs[2][JOBS_MAX + 1], outcome[2][JOBS_MAX + 1];
static struct pool_future shared_futures[JOBS_MAX];
/* How many threads have submitted, and have come to their end. */
static _Atomic uint32_t *submitted, *finished;

static int work(struct pool_job *job, const void *argument, size_t length)
{
    const unsigned char *number = argument;

    (void)job;
    if (length != 2)
        explore_fail("an argument has the wrong size");
    explore_remember((uint64_t)number[0] << 8 | number[1]);
    runs[number[0]][number[1]]++;
    return 0;
}

static void submit(struct pool *pool, int thread, struct pool_future *futures)
{
    unsigned char arguments[JOBS_MAX][2];
    int i;

    for (i = 0; i < JOBS_MAX; i++) {
        arguments[i][0] = (unsigned char)thread;
        arguments[i][1] = (unsigned char)i;
    }
    if (pool_submit_many(pool, NULL, work, arguments, 2, (size_t)variant->jobs, futures) !=
        variant->jobs)
        explore_fail("a submit failed");
}

static void collect(int thread, int number, const struct pool_future *future)
{
    outcome[thread][number] = pool_future_outcome(future, NULL);
    if (outcome[thread][number] <= POOL_RUNNING)
        explore_fail("a job that was said to have ended has not");
    pool_future_release(future);
}

static void wait_for_each(int thread, struct pool_future *futures)
{
    int left;

    for (left = variant->jobs; left > 0; left--) {
        int64_t which = pool_wait_any(futures, (size_t)variant->jobs, POOL_FOREVER);

        if (which < 0 || which >= variant->jobs || !futures[which].pool)
            explore_fail("a wait for any failed");
        collect(thread, (int)which, &futures[which]);
        futures[which].pool = NULL;
    }
}

static int nest(struct pool_job *job, const void *argument, size_t length)
{
    struct pool_future futures[JOBS_MAX];

    (void)job, (void)argument, (void)length;
    submit(pool_current(), 0, futures);
    wait_for_each(0, futures);
    runs[0][JOBS_MAX]++;
    return 0;
}

/* ---- The host ---- */

static void host(struct pool *pool, int thread)
{
    struct pool_future futures[JOBS_MAX];

    if (variant->kind == NESTED) {
        if (pool_submit(pool, nest, NULL, 0, futures) != 0 ||
            pool_wait_any(futures, 1, POOL_FOREVER) != 0)
            explore_fail("a nested job failed");
        collect(0, JOBS_MAX, futures);
        return;
    }
    submit(pool, thread, futures);
    if (variant->kind == CANCEL) {
        memcpy(shared_futures, futures, sizeof futures);
        simulation_announce(submitted);
    }
    wait_for_each(thread, futures);
}

static void cancel(void)
{
    int i;

    simulation_await(submitted);
    for (i = 0; i < variant->jobs; i++) {
        explore_remember((uint64_t)shared_futures[i].generation << 32 | shared_futures[i].index);
        pool_future_cancel(&shared_futures[i]);
    }
}

static void setup(void)
{
    struct simulation layout = {.workers = variant->workers,
                                .threads = threads,
                                .ring_bits = 2,
                                .jobs = 8,
                                .block_largest = 256};

    memset(runs, 0, sizeof runs);
    memset(outcome, 0, sizeof outcome);
    simulation_setup(&layout);
    submitted = simulation_word();
    finished = submitted + 1;
}

static void body(int process)
{
    struct pool *pool = simulation_pool(process);

    if (process == 0) {
        host(pool, 0);
        if (threads)
            simulation_await(finished);
        simulation_close(pool);
    } else if (pool->role == ROLE_HOST) {
        if (variant->kind == CANCEL)
            cancel();
        else
            host(pool, 1);
        simulation_announce(finished);
    } else {
        if (pool->role == ROLE_SUPERVISOR)
            simulation_repair(process);
        worker_loop(pool);
    }
}

static void check(void)
{
    int thread, i, died = 0;

    for (thread = 0; thread < 1 + (variant->kind == THREADS); thread++)
        for (i = 0; i <= JOBS_MAX; i++) {
            bool expected = i < variant->jobs || (variant->kind == NESTED && i == JOBS_MAX);

            died += outcome[thread][i] == POOL_DIED;
            if (runs[thread][i] > 1 ||
                (outcome[thread][i] == POOL_FINISHED && runs[thread][i] == 0) ||
                (outcome[thread][i] == POOL_CANCELLED && runs[thread][i] > 0))
                explore_fail("a job did not run as often as it should");
            /* What a nested job began ends unseen where it died. */
            if (expected && outcome[thread][i] == 0 &&
                !(variant->kind == NESTED && outcome[0][JOBS_MAX] == POOL_DIED))
                explore_fail("nobody heard of a job's end");
        }
    /* A nested job and the one on top of it die together. */
    if (died > explore_deaths() * (variant->kind == NESTED ? 2 : 1))
        explore_fail("a death cost more than the job that was running");
    simulation_check_free();
}

static void explore_variant(const struct variant *what)
{
    struct explore_scenario scenario = {.name = what->name,
                                        .setup = setup,
                                        .body = body,
                                        .private = simulation_private,
                                        .check = check,
                                        .mortal = ((1U << what->workers) - 1) << 1,
                                        .deaths = what->deaths,
                                        .preemptions = what->preemptions};

    threads = what->kind == THREADS || what->kind == CANCEL;
    scenario.processes = 1 + what->workers + threads + what->deaths;
    scenario.repairer = what->deaths ? 1 + what->workers + threads : -1;
    /* The replacement of the first to die may be the second. */
    if (what->deaths > 1)
        scenario.mortal |= 1U << scenario.repairer;
    variant = what;
    explore_report(&scenario, what->longer);
}

int main(int argc, char **argv)
{
    static const struct variant variants[] = {
        {"1 worker, any of 1 job", ANY, 1, 1, 0, -1, false},
        {"1 worker, any of 2 jobs", ANY, 1, 2, 0, 2, false},
        {"2 workers, any of 2 jobs", ANY, 2, 2, 0, 1, false},
        {"2 workers, any of 3 jobs", ANY, 2, 3, 0, 1, false},
        {"1 worker, any of 1 job for each of 2 threads", THREADS, 1, 1, 0, 2, false},
        {"1 worker, any of 2 jobs, cancelled", CANCEL, 1, 2, 0, 2, false},
        {"1 worker, any of 2 jobs in a job", NESTED, 1, 2, 0, 2, false},
        {"2 workers, any of 2 jobs in a job", NESTED, 2, 2, 0, 2, false},
        {"1 worker, any of 1 job; a death", ANY, 1, 1, 1, 2, false},
        {"1 worker, any of 2 jobs; a death", ANY, 1, 2, 1, 1, false},
        {"2 workers, any of 2 jobs; a death", ANY, 2, 2, 1, 0, false},
        {"1 worker, any of 1 job for each of 2 threads; a death", THREADS, 1, 1, 1, 0, false},
        {"1 worker, any of 2 jobs, cancelled; a death", CANCEL, 1, 2, 1, 1, false},
        {"2 workers, any of 2 jobs in a job; a death", NESTED, 2, 2, 1, 0, false},
        {"1 worker, any of 1 job; 2 deaths", ANY, 1, 1, 2, 0, false},
        {"more 1 worker, any of 2 jobs", ANY, 1, 2, 0, 4, true},
        {"more 2 workers, any of 2 jobs", ANY, 2, 2, 0, 2, true},
        {"more 1 worker, any of 2 jobs; a death", ANY, 1, 2, 1, 2, true},
        {"more 2 workers, any of 2 jobs; a death", ANY, 2, 2, 1, 1, true},
        {"more 2 workers, any of 2 jobs in a job; a death", NESTED, 2, 2, 1, 1, true},
    };
    size_t i;

    explore_arguments(argc, argv);
    for (i = 0; i < sizeof variants / sizeof *variants; i++)
        explore_variant(&variants[i]);
    return explore_finish();
}
