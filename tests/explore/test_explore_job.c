/* The state machine of one job: claim, end, cancel, wait, release and collect race for its word.
 *
 * The job is queued at the start. Its slot is used `rounds` times: who collects it in one
 * generation queues it in the next, so that claims, ends and copies of the future from one
 * generation meet the job of the next.
 */
#include <errno.h>
#include <string.h>

#include "atomic.h"
#include "explore.h"
#include "simulation.h"

#define ROUNDS_MAX 3

enum part {
    NOBODY,
    WAITS,    /* waits for the end, collects, and queues the next one */
    COPY,     /* waits with a copy of the future of the first round, and tries to collect */
    RELEASES, /* lets go of it at once: whoever comes last frees the slot */
    CANCELS,  /* tries to, in each round */
    WORKS,    /* claims and ends what it finds */
    BREAKS,   /* ends as lost what it finds running, as when the pool breaks */
    KILLS,    /* dooms the job if it runs, cancels it if it waits */
    REPAIRS
};

struct variant {
    const char *name;
    enum part part[EXPLORE_PROCESSES]; /* workers at 1 and 2; 2 may be another thread */
    int workers, rounds;
    int deaths, preemptions;
    bool longer;
};

static const struct variant *variant;
static uint32_t slot;
/* For each generation: whether its job has ended, and how many were told that they did it. */
static int ended[ROUNDS_MAX + 1], won[ROUNDS_MAX + 1], collected[ROUNDS_MAX + 1];
/* The round that each process waits for. */
static uint32_t waited[EXPLORE_PROCESSES];
static uint64_t word_before;
static bool killed; /* pool_future_kill() says so */

static _Atomic uint64_t *word_of_job(void)
{
    return &job_at(&simulation_pool(0)->jobs, slot)->word;
}

/* How many processes there are before the first that does `part`. */
static int count_until(enum part part)
{
    int count = 0;

    while (count < EXPLORE_PROCESSES && variant->part[count] != NOBODY &&
           variant->part[count] != part)
        count++;
    return count;
}

static void setup(void)
{
    struct simulation layout = {.workers = variant->workers,
                                .threads = count_until(REPAIRS) - 1 - variant->workers,
                                .ring_bits = 1,
                                .jobs = 1,
                                .block_largest = 256};

    killed = false;
    memset(ended, 0, sizeof ended);
    memset(won, 0, sizeof won);
    memset(collected, 0, sizeof collected);
    simulation_setup(&layout);
    job_alloc(&simulation_pool(0)->jobs, JOB_HOST, &slot);
    job_queue(&simulation_pool(0)->jobs, slot, 0);
    word_before = *word_of_job();
}

/* Nobody here pushes, sleeps for want of a job, or looks who does: what is done to rings, wake
 * words and bells is seen by nobody else. */
static bool concerns_nobody(int process, const volatile void *address)
{
    const struct pool *pool = simulation_pool(process);

    return (const volatile unsigned char *)address <
           (const unsigned char *)segment_at(&pool->segment, pool->jobs.header);
}

/* ---- What they do ---- */

static void wait_for(struct pool *pool, uint32_t generation)
{
    struct pool_future future = {pool, slot, generation};
    int error;

    waited[pool - simulation_pool(0)] = generation;
    error = pool_future_wait(&future, POOL_FOREVER);
    if (error == 0 && !ended[generation])
        explore_fail("a wait ended before the job did");
    if (error && (error != -ESTALE || !collected[generation]))
        explore_fail("a wait failed");
}

static bool collect(struct pool *pool, uint32_t generation)
{
    if (!job_collect(&pool->jobs, slot, generation, JOB_HOST))
        return false;
    if (job_generation(*word_of_job()) != generation + 1 || ++collected[generation] > 1)
        explore_fail("a job was collected twice");
    return true;
}

static void wait_in_rounds(struct pool *pool)
{
    uint32_t round;

    for (round = 0; round < (uint32_t)variant->rounds; round++) {
        explore_forget(round);
        wait_for(pool, round);
        if (!collect(pool, round)) {
            if (variant->part[2] != COPY)
                explore_fail("nobody else could have collected it");
            return; /* the other one goes on with it */
        }
        if (round + 1 < (uint32_t)variant->rounds)
            job_queue(&pool->jobs, slot, 0);
    }
}

static void cancel_in_rounds(struct pool *pool)
{
    uint32_t round;

    for (round = 0; round < (uint32_t)variant->rounds; round++) {
        explore_forget(round);
        if (schedule_cancel(pool, slot, round, JOB_CANCELLED))
            won[round]++;
    }
}

static void work(struct pool *pool)
{
    int turn;

    for (turn = 0; turn < variant->rounds; turn++) {
        uint32_t generation;
        int error;

        explore_forget((uint64_t)turn);
        generation = job_generation(shared_load(word_of_job(), ACQUIRE));
        if (!schedule_claim(pool, slot, generation))
            continue;
        error = schedule_end(pool, slot, generation, pool->self, JOB_FINISHED);
        if (error == -ECANCELED)
            explore_die();
        won[generation] += error == 0;
        schedule_pop(pool);
    }
}

static void break_off(struct pool *pool)
{
    uint64_t word = shared_load(word_of_job(), ACQUIRE);

    if (job_state(word) == JOB_RUNNING &&
        schedule_end(pool, slot, job_generation(word), job_owner(word), JOB_LOST) == 0)
        won[job_generation(word)]++;
}

static void body(int process)
{
    struct pool *pool = simulation_pool(process);
    struct pool_future future = {pool, slot, 0};

    switch (variant->part[process]) {
    case WAITS:
        wait_in_rounds(pool);
        break;
    case COPY:
        wait_for(pool, 0);
        if (collect(pool, 0) && variant->rounds > 1)
            job_queue(&pool->jobs, slot, 0); /* and nobody waits for it any more */
        break;
    case RELEASES:
        pool_future_release(&future);
        break;
    case CANCELS:
        cancel_in_rounds(pool);
        break;
    case WORKS:
        work(pool);
        break;
    case BREAKS:
        break_off(pool);
        break;
    case KILLS:
        killed = pool_future_kill(&future) == 0;
        break;
    case REPAIRS:
        simulation_repair(process);
        work(pool);
        break;
    case NOBODY:
        break;
    }
}

/* ---- What must hold ---- */

/* Whether the word may change so in one step. */
static bool may_become(uint64_t from, uint64_t to)
{
    enum job_state a = job_state(from), b = job_state(to);

    if (job_ended(from))
        return b == JOB_HELD && job_generation(to) == job_generation(from) + 1 && !job_flags(to);
    if (job_generation(from) != job_generation(to))
        return false;
    switch (a) {
    case JOB_FREE:
        return b == JOB_HELD;
    case JOB_HELD:
        return b == JOB_QUEUED || b == JOB_FREE;
    case JOB_QUEUED:
        return (b == JOB_QUEUED && job_owner(from) == job_owner(to)) || b == JOB_CANCELLED ||
               (b == JOB_RUNNING && job_owner(to) != JOB_HOST);
    case JOB_RUNNING:
        if (b == JOB_FINISHED && (job_flags(from) & JOB_DOOMED))
            return false;
        return (b == JOB_RUNNING || job_ended(to)) && job_owner(from) == job_owner(to);
    default:
        return false;
    }
}

static void observe(void)
{
    uint64_t word = *word_of_job();

    if (word != word_before && !may_become(word_before, word))
        explore_fail("the word changed as a job's can't");
    if (job_flags(word_before) & ~job_flags(word) && !job_ended(word_before))
        explore_fail("a flag was overlooked");
    if (job_ended(word) && !job_ended(word_before))
        ended[job_generation(word)]++;
    if (killed && job_state(word) == JOB_FINISHED)
        explore_fail("a job that was killed has finished");
    word_before = word;
}

/* The low half of the word, on which a thread of the host sleeps, may be the same in the next
 * generation. So who waits with a copy of a future that another thread has released may learn only
 * after a slice of sleep that it is stale. But the end of the job that it waits for wakes it. */
static void check_sleepers(uint64_t word)
{
    int i;

    for (i = 0; i < EXPLORE_PROCESSES; i++)
        if (explore_sleeping(i) && job_ended(word) && job_generation(word) == waited[i])
            explore_fail("somebody sleeps on a job that has ended");
}

static void check(void)
{
    uint64_t word = *word_of_job();
    struct ring_cursor cursor;
    int round;

    check_sleepers(word);
    for (round = 0; round < variant->rounds; round++)
        if (won[round] > ended[round] ||
            (won[round] < ended[round] && !explore_deaths() && !killed))
            explore_fail("not just one was told that it ended the job");
    if (ring_peek(&simulation_pool(0)->ready, &cursor))
        explore_fail("a job was pushed, which this test takes to be impossible");
    if (job_state(word) == JOB_RUNNING)
        explore_fail("a job runs, and nobody runs it");
    if (variant->part[0] == RELEASES && job_ended(word))
        explore_fail("a job has ended, and nobody will free it");
    if (variant->part[0] == RELEASES && job_state(word) != JOB_QUEUED)
        simulation_check_free();
}

static void explore_variant(const struct variant *what)
{
    struct explore_scenario scenario = {.name = what->name,
                                        .setup = setup,
                                        .body = body,
                                        .private = concerns_nobody,
                                        .observe = observe,
                                        .check = check,
                                        .mortal = ((1U << what->workers) - 1) << 1,
                                        .deaths = what->deaths,
                                        .preemptions = what->preemptions,
                                        /* Nobody may ever come to take the job. */
                                        .sleepers = ~0U,
                                        .operation = 60};

    variant = what;
    scenario.processes = count_until(NOBODY);
    scenario.repairer = count_until(REPAIRS);
    explore_report(&scenario, what->longer);
}

int main(int argc, char **argv)
{
    static const struct variant variants[] = {
        {"two claim", {WAITS, WORKS, WORKS}, 2, 1, 0, -1, false},
        {"two claim, in 2 rounds", {WAITS, WORKS, WORKS}, 2, 2, 0, 5, false},
        {"claim and cancel", {WAITS, WORKS, CANCELS}, 1, 1, 0, -1, false},
        {"claim and cancel, in 2 rounds", {WAITS, WORKS, CANCELS}, 1, 2, 0, -1, false},
        {"two claim and a cancel", {WAITS, WORKS, WORKS, CANCELS}, 2, 1, 0, 5, false},
        {"finish and break", {WAITS, WORKS, BREAKS}, 1, 1, 0, -1, false},
        {"finish and break, in 2 rounds", {WAITS, WORKS, BREAKS}, 1, 2, 0, -1, false},
        {"finish and kill", {WAITS, WORKS, KILLS, REPAIRS}, 1, 1, 0, -1, false},
        {"two wait", {WAITS, WORKS, COPY}, 1, 1, 0, -1, false},
        {"two wait, in 2 rounds", {WAITS, WORKS, COPY}, 1, 2, 0, 4, false},
        {"two wait and a cancel", {WAITS, WORKS, COPY, CANCELS}, 1, 1, 0, 4, false},
        {"release", {RELEASES, WORKS, CANCELS}, 1, 1, 0, -1, false},
        {"release twice", {RELEASES, WORKS, RELEASES}, 1, 1, 0, -1, false},
        {"release and break", {RELEASES, WORKS, BREAKS}, 1, 1, 0, -1, false},
        {"release and kill", {RELEASES, WORKS, KILLS, REPAIRS}, 1, 1, 0, -1, false},
        {"two claim; a death", {WAITS, WORKS, WORKS, REPAIRS}, 2, 1, 1, 3, false},
        {"claim in 2 rounds; a death", {WAITS, WORKS, REPAIRS}, 1, 2, 1, -1, false},
        {"claim and cancel; a death", {WAITS, WORKS, CANCELS, REPAIRS}, 1, 1, 1, -1, false},
        {"finish and break; a death", {WAITS, WORKS, BREAKS, REPAIRS}, 1, 1, 1, 4, false},
        {"finish and kill; a death", {WAITS, WORKS, KILLS, REPAIRS, REPAIRS}, 1, 1, 1, 3, false},
        {"two wait; a death", {WAITS, WORKS, COPY, REPAIRS}, 1, 1, 1, 3, false},
        {"release; a death", {RELEASES, WORKS, CANCELS, REPAIRS}, 1, 1, 1, -1, false},
        {"every two claim, in 2 rounds", {WAITS, WORKS, WORKS}, 2, 2, 0, -1, true},
        {"every two claim and a cancel", {WAITS, WORKS, WORKS, CANCELS}, 2, 1, 0, -1, true},
        {"every two wait, in 2 rounds", {WAITS, WORKS, COPY}, 1, 2, 0, -1, true},
        {"every two wait and a cancel", {WAITS, WORKS, COPY, CANCELS}, 1, 1, 0, -1, true},
        {"every two claim; a death", {WAITS, WORKS, WORKS, REPAIRS}, 2, 1, 1, -1, true},
        {"every finish and break; a death", {WAITS, WORKS, BREAKS, REPAIRS}, 1, 1, 1, -1, true},
        {"every kill; a death", {WAITS, WORKS, KILLS, REPAIRS, REPAIRS}, 1, 1, 1, -1, true},
        {"every two wait; a death", {WAITS, WORKS, COPY, REPAIRS}, 1, 1, 1, -1, true},
    };
    size_t i;

    explore_arguments(argc, argv);
    for (i = 0; i < sizeof variants / sizeof *variants; i++)
        explore_variant(&variants[i]);
    return explore_finish();
}
