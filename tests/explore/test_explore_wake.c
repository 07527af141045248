/* Going to sleep and being woken: workers that look for jobs, submitters that look for sleepers.
 *
 * Jobs are pushed and nobody waits for them; the pool stays open. When nothing goes on any more,
 * each job must have run: one that waits while all workers sleep is a lost wake-up.
 */
#include <limits.h>
#include <string.h>

#include "atomic.h"
#include "explore.h"
#include "simulation.h"

#define JOBS_MAX 4

struct variant {
    const char *name;
    int workers, submitters;
    int jobs;                      /* of each submitter */
    enum { ALONE, TOGETHER } kind; /* whether each job waits until all of them run */
    bool replaced;                 /* a dead worker is */
    int deaths, preemptions;
    bool longer;
};

static const struct variant *variant;
static uint32_t slots[JOBS_MAX];
static int runs[JOBS_MAX];
static _Atomic uint32_t *begun; /* jobs, where each waits for all */

static void wait_for_all(void)
{
    uint32_t all = (uint32_t)(variant->submitters * variant->jobs), now;

    if (shared_add(begun, 1, SEQ_CST) + 1 == all)
        explore_futex_wake(begun, INT_MAX);
    while ((now = shared_load(begun, ACQUIRE)) < all)
        explore_futex_wait(begun, now);
}

static int work(struct pool_job *job, const void *argument, size_t size)
{
    (void)argument, (void)size;
    runs[job->index]++;
    if (variant->kind == TOGETHER)
        wait_for_all();
    /* What the worker will do from here on follows from the job, and from this. */
    explore_forget((uint64_t)job->index << 1 | job->pool->spinning);
    return 0;
}

/* What a worker without a job will do follows from this alone. */
static void idle(void)
{
    explore_forget(UINT64_C(1) << 32 | simulation_pool(explore_running())->spinning);
}

static void setup(void)
{
    struct simulation layout = {.workers = variant->workers,
                                .threads = variant->submitters - 1,
                                .ring_bits = 2,
                                .jobs = JOBS_MAX,
                                .block_largest = 256};
    struct job_table *jobs;
    int i;

    memset(runs, 0, sizeof runs);
    simulation_setup(&layout);
    begun = simulation_word();
    jobs = &simulation_pool(0)->jobs;
    for (i = 0; i < variant->submitters * variant->jobs; i++) {
        job_alloc(jobs, JOB_HOST, &slots[i]);
        shared_store(&job_at(jobs, slots[i])->function, (uint64_t)(uintptr_t)work, RELAXED);
    }
}

static void submit(struct pool *pool, int submitter)
{
    int i;

    for (i = 0; i < variant->jobs; i++) {
        uint32_t slot = slots[submitter * variant->jobs + i];

        explore_forget((uint64_t)i);
        job_queue(&pool->jobs, slot, 0);
        if (schedule_push(pool, slot) != 0)
            explore_fail("a push failed");
    }
}

static void body(int process)
{
    struct pool *pool = simulation_pool(process);

    if (process == 0)
        submit(pool, 0);
    else if (process > variant->workers && process < variant->workers + variant->submitters)
        submit(pool, process - variant->workers);
    else if (process > variant->workers)
        simulation_repair(process);
    if (process <= variant->workers || variant->replaced)
        if (pool->role == ROLE_WORKER)
            worker_loop(pool);
}

static void check(void)
{
    struct pool *pool = simulation_pool(0);
    uint64_t words = pool_control(pool)->wake.word[0];
    int i, died = 0;

    for (i = 0; i < variant->submitters * variant->jobs; i++) {
        enum job_state state = job_state(job_at(&pool->jobs, slots[i])->word);

        if (state == JOB_QUEUED)
            explore_fail("a job waits, and all workers sleep");
        if (state == JOB_RUNNING)
            explore_fail("a job runs, and nobody runs it");
        if (runs[slots[i]] > 1 || (state == JOB_FINISHED && runs[slots[i]] == 0))
            explore_fail("a job did not run once");
        died += state == JOB_DIED;
    }
    if (died > explore_deaths())
        explore_fail("a death cost more than the job that was running");
    if (words >> WAKE_WORKERS)
        explore_fail("a worker counts as spinning, and sleeps");
    if (__builtin_popcountll(words) !=
        variant->workers - (variant->replaced ? 0 : explore_deaths()))
        explore_fail("those who count as sleeping are not those who sleep");
}

static void explore_variant(const struct variant *what)
{
    int users = what->workers + what->submitters;
    unsigned workers = ((1U << what->workers) - 1) << 1;
    struct explore_scenario scenario = {.name = what->name,
                                        .processes = users + what->deaths,
                                        .setup = setup,
                                        .body = body,
                                        .private = simulation_private,
                                        .check = check,
                                        .mortal = workers,
                                        .deaths = what->deaths,
                                        .repairer = what->deaths ? users : -1,
                                        .preemptions = what->preemptions,
                                        .sleepers = ~0U,
                                        .operation = 100};

    variant = what;
    explore_report(&scenario, what->longer);
}

int main(int argc, char **argv)
{
    static const struct variant variants[] = {
        {"1 worker, 1 job", 1, 1, 1, ALONE, true, 0, -1, false},
        {"1 worker, 3 jobs", 1, 1, 3, ALONE, true, 0, -1, false},
        {"1 worker, a job from each of 2", 1, 2, 1, ALONE, true, 0, 5, false},
        {"2 workers, 1 job", 2, 1, 1, ALONE, true, 0, 4, false},
        {"2 workers, 2 jobs", 2, 1, 2, ALONE, true, 0, 3, false},
        {"2 workers, a job from each of 2", 2, 2, 1, ALONE, true, 0, 2, false},
        {"2 workers, a burst of 4 jobs", 2, 1, 4, ALONE, true, 0, 2, false},
        {"2 workers, 2 jobs together", 2, 1, 2, TOGETHER, true, 0, 3, false},
        {"2 workers, from each of 2 a job, together", 2, 2, 1, TOGETHER, true, 0, 2, false},
        {"3 workers, 3 jobs together", 3, 1, 3, TOGETHER, true, 0, 1, false},
        {"1 worker, 1 job; a death", 1, 1, 1, ALONE, true, 1, -1, false},
        {"1 worker, 2 jobs; a death", 1, 1, 2, ALONE, true, 1, 3, false},
        {"2 workers, 1 job; a death", 2, 1, 1, ALONE, true, 1, 1, false},
        {"2 workers, 2 jobs; a death", 2, 1, 2, ALONE, true, 1, 1, false},
        {"2 workers, 1 job; a death, unreplaced", 2, 1, 1, ALONE, false, 1, 1, false},
        {"2 workers, 2 jobs; a death, unreplaced", 2, 1, 2, ALONE, false, 1, 1, false},
        {"every 1 worker, a job from each of 2", 1, 2, 1, ALONE, true, 0, -1, true},
        {"more 2 workers, 1 job", 2, 1, 1, ALONE, true, 0, 5, true},
        {"more 2 workers, a job from each of 2", 2, 2, 1, ALONE, true, 0, 3, true},
        {"more 3 workers, 3 jobs together", 3, 1, 3, TOGETHER, true, 0, 2, true},
        {"every 1 worker, 2 jobs; a death", 1, 1, 2, ALONE, true, 1, -1, true},
        {"more 2 workers, 1 job; a death", 2, 1, 1, ALONE, true, 1, 2, true},
    };
    size_t i;

    simulation_idle = idle;
    explore_arguments(argc, argv);
    for (i = 0; i < sizeof variants / sizeof *variants; i++)
        explore_variant(&variants[i]);
    return explore_finish();
}
