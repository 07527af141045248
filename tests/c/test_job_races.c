/* Jobs: threads that race for a job's word, of whom one wins, and for slots of the table. */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "atomic.h"
#include "harness.h"
#include "job.h"

#define OWNER 3 /* who holds or runs the job */
#define GENERATION 7

struct fixture {
    struct segment segment;
    struct arena arena;
    struct job_table table;
};

static void make(struct fixture *fixture, uint32_t entries)
{
    segment_init(&fixture->segment, 64 * MEBIBYTE);
    job_table_plan(&fixture->table, &fixture->segment, &fixture->arena, entries);
    arena_plan(&fixture->arena, &fixture->segment, 64, MEBIBYTE);
    REQUIRE(segment_map(&fixture->segment), 0);
    REQUIRE(job_table_start(&fixture->table), 0);
    REQUIRE(arena_start(&fixture->arena), 0);
}

static void unmake(struct fixture *fixture)
{
    segment_unmap(&fixture->segment);
}

/* ---- Races: the same job, again and again, by all threads at once ---- */

#define THREADS 4
#define ROUNDS (HARNESS_SANITIZED ? 3000U : 15000U)

struct race {
    struct fixture fixture;
    uint32_t index;
    enum job_state from;
    /* What thread 0, 1, ... does; true if it won. */
    bool (*moves[THREADS])(struct race *race, unsigned thread);
    bool (*right)(struct race *race, const bool *won); /* the end of a round */
    _Atomic uint32_t arrived;
    bool won[THREADS];
    unsigned flags[THREADS]; /* as given by job_end() and job_cancel() */
    uint32_t wrong, wins[THREADS];
};

/* All threads come to `count`; spins, so that they leave together. */
static void meet(struct race *race, uint32_t count)
{
    uint32_t looks = 0;

    atomic_fetch_add(&race->arrived, 1);
    while (atomic_load(&race->arrived) < count)
        if (++looks % 256 == 0)
            sched_yield();
}

static void run_rounds(void *context, unsigned thread)
{
    struct race *race = context;
    uint32_t round, meetings = 0;

    for (round = 0; round < ROUNDS; round++) {
        if (thread == 0)
            shared_store(&job_at(&race->fixture.table, race->index)->word,
                         job_word_make(GENERATION, OWNER, 0, race->from), RELEASE);
        meet(race, ++meetings * THREADS);
        race->won[thread] = race->moves[thread] && race->moves[thread](race, thread);
        meet(race, ++meetings * THREADS);
        if (thread == 0)
            race->wrong += !race->right(race, race->won);
        race->wins[thread] += race->won[thread];
    }
}

static void run_race(struct race *race)
{
    unsigned i;

    make(&race->fixture, 64);
    REQUIRE(job_alloc(&race->fixture.table, OWNER, &race->index), 0);
    harness_threads(THREADS, run_rounds, race);
    EXPECT(race->wrong, 0);
    for (i = 0; i < THREADS; i++)
        if (race->moves[i] && race->wins[i] == 0)
            printf("(thread %u never won) ", i);
    unmake(&race->fixture);
}

static bool move_claim(struct race *race, unsigned thread)
{
    return job_claim(&race->fixture.table, race->index,
                     job_word_make(GENERATION, OWNER, 0, JOB_QUEUED), (uint16_t)(thread + 1));
}

static bool move_cancel(struct race *race, unsigned thread)
{
    return job_cancel(&race->fixture.table, race->index, GENERATION, JOB_CANCELLED,
                      &race->flags[thread]);
}

static bool move_lose(struct race *race, unsigned thread)
{
    return job_cancel(&race->fixture.table, race->index, GENERATION, JOB_LOST,
                      &race->flags[thread]);
}

static bool move_finish(struct race *race, unsigned thread)
{
    return job_end(&race->fixture.table, race->index, GENERATION, OWNER, JOB_FINISHED,
                   &race->flags[thread]) == 0;
}

static bool move_die(struct race *race, unsigned thread)
{
    return job_end(&race->fixture.table, race->index, GENERATION, OWNER, JOB_DIED,
                   &race->flags[thread]) == 0;
}

/* Returns whether the flag was set in time. */
static bool move_flag(struct race *race, unsigned thread)
{
    (void)thread;
    return job_flag(&race->fixture.table, race->index, GENERATION, JOB_WAITED) == 0;
}

static bool move_unqueue(struct race *race, unsigned thread)
{
    (void)thread;
    return job_unqueue(&race->fixture.table, race->index, GENERATION, OWNER);
}

static bool move_collect(struct race *race, unsigned thread)
{
    return job_collect(&race->fixture.table, race->index, GENERATION, (uint16_t)(thread + 1));
}

static bool one_won(struct race *race, const bool *won)
{
    (void)race;
    return won[0] + won[1] + won[2] + won[3] == 1;
}

static void of_claims_and_cancels_one_wins(void)
{
    struct race race = {.from = JOB_QUEUED,
                        .moves = {move_claim, move_cancel, move_claim, move_lose},
                        .right = one_won};

    run_race(&race);
}

static void of_claim_cancel_and_taking_back_one_wins(void)
{
    struct race race = {.from = JOB_QUEUED,
                        .moves = {move_unqueue, move_claim, move_cancel, move_unqueue},
                        .right = one_won};

    run_race(&race);
}

static void of_result_and_death_one_is_the_end(void)
{
    struct race race = {.from = JOB_RUNNING,
                        .moves = {move_finish, move_die, move_finish, move_die},
                        .right = one_won};

    run_race(&race);
}

static void of_collectors_one_gets_the_job(void)
{
    struct race race = {.from = JOB_DIED,
                        .moves = {move_collect, move_collect, move_collect, move_collect},
                        .right = one_won};

    run_race(&race);
}

/* One of threads 1 to 3 ends the job; thread 0 sets a flag. Set in time means: the one who ended
 * the job was told so. */
static bool flag_is_seen_by_who_ends(struct race *race, const bool *won)
{
    unsigned ender, enders = 0;
    bool told = false;

    for (ender = 1; ender < THREADS; ender++)
        if (won[ender]) {
            enders++;
            told = race->flags[ender] & JOB_WAITED;
        }
    return enders == 1 && told == won[0];
}

static void a_flag_set_in_time_is_seen_by_who_ends_the_job(void)
{
    struct race race = {.from = JOB_RUNNING,
                        .moves = {move_flag, move_finish, move_die, move_finish},
                        .right = flag_is_seen_by_who_ends};

    run_race(&race);
}

static void a_flag_set_in_time_is_seen_by_who_cancels_the_job(void)
{
    struct race race = {.from = JOB_QUEUED,
                        .moves = {move_flag, move_cancel, move_lose, move_cancel},
                        .right = flag_is_seen_by_who_ends};

    run_race(&race);
}

/* ---- Slots among threads ---- */

struct slots {
    struct fixture fixture;
    _Atomic uint32_t owner[4096];
    _Atomic uint32_t doubled, refused;
};

static void alloc_and_free(void *context, unsigned thread)
{
    struct slots *slots = context;
    uint32_t round, held[40], count = 0, i;
    uint64_t random = thread + 1;

    for (round = 0; round < ROUNDS; round++) {
        if (count < 40 && harness_random(&random) % 2) {
            if (job_alloc(&slots->fixture.table, (uint16_t)(thread + 1), &i) != 0) {
                slots->refused++;
                continue;
            }
            slots->doubled += atomic_exchange(&slots->owner[i], thread + 1) != 0;
            job_at(&slots->fixture.table, i)->data[0] = (unsigned char)thread;
            held[count++] = i;
        } else if (count) {
            i = held[--count];
            slots->doubled += job_at(&slots->fixture.table, i)->data[0] != thread;
            atomic_store(&slots->owner[i], 0);
            job_free(&slots->fixture.table, i, (uint16_t)(thread + 1));
        }
    }
}

static void of_threads_each_has_its_slots_for_itself(void)
{
    static struct slots slots;

    memset((void *)&slots, 0, sizeof slots);
    make(&slots.fixture, 4096);
    harness_threads(THREADS, alloc_and_free, &slots);
    EXPECT(slots.doubled, 0);
    EXPECT(slots.refused, 0);
    EXPECT(job_table_count(&slots.fixture.table) <= 512, true); /* reused, not extended */
    unmake(&slots.fixture);
}

static const struct harness_test tests[] = {
    TEST(of_claims_and_cancels_one_wins),
    TEST(of_claim_cancel_and_taking_back_one_wins),
    TEST(of_result_and_death_one_is_the_end),
    TEST(of_collectors_one_gets_the_job),
    TEST(a_flag_set_in_time_is_seen_by_who_ends_the_job),
    TEST(a_flag_set_in_time_is_seen_by_who_cancels_the_job),
    TEST(of_threads_each_has_its_slots_for_itself),
};

HARNESS_MAIN("job races", tests)
