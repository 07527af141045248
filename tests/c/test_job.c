/* Jobs: each transition and each forbidden one, generations, payloads, the table, repair. */
#include <errno.h>
#include <string.h>

#include "atomic.h"
#include "harness.h"
#include "job.h"

#define OWNER 3 /* who holds or runs the job */
#define OTHER 4
#define GENERATION 7

struct fixture {
    struct segment segment;
    struct arena arena;
    struct job_table table;
};

static void make(struct fixture *fixture, uint32_t entries, uint64_t limit)
{
    segment_init(&fixture->segment, limit);
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

static uint32_t alloc(struct fixture *fixture)
{
    uint32_t index = 0;

    REQUIRE(job_alloc(&fixture->table, OWNER, &index), 0);
    return index;
}

static uint64_t word_of(struct fixture *fixture, uint32_t index)
{
    return shared_load(&job_at(&fixture->table, index)->word, ACQUIRE);
}

static void set_word(struct fixture *fixture, uint32_t index, unsigned flags, enum job_state state)
{
    shared_store(&job_at(&fixture->table, index)->word,
                 job_word_make(GENERATION, OWNER, flags, state), RELEASE);
}

/* A block attached to the job, named by its slot as its argument, or its result. */
static block_ref attach_block(struct fixture *fixture, uint32_t index, bool result)
{
    struct job *job = job_at(&fixture->table, index);
    struct payload payload = {.kind = PAYLOAD_BLOCK, .extra = OWNER};

    EXPECT(arena_alloc(&fixture->arena, OWNER, 1000, &payload.block), 0);
    EXPECT(arena_attach(&fixture->arena, payload.block, OWNER, index), true);
    shared_store(result ? &job->result : &job->argument, payload_pack(payload), RELEASE);
    return payload.block;
}

/* ---- One process ---- */

static void a_job_goes_through_its_life(void)
{
    struct fixture fixture;
    unsigned flags = 99;
    uint32_t index;

    make(&fixture, 100, 64 * MEBIBYTE);
    index = alloc(&fixture);
    EXPECT(word_of(&fixture, index), job_word_make(0, OWNER, 0, JOB_HELD));
    job_queue(&fixture.table, index, JOB_NOTIFY);
    EXPECT(word_of(&fixture, index), job_word_make(0, OWNER, JOB_NOTIFY, JOB_QUEUED));
    EXPECT(job_flag(&fixture.table, index, 0, JOB_WAITED), 0);
    EXPECT(job_claim(&fixture.table, index, word_of(&fixture, index), OTHER), true);
    EXPECT(word_of(&fixture, index), job_word_make(0, OTHER, JOB_NOTIFY | JOB_WAITED, JOB_RUNNING));
    EXPECT(job_end(&fixture.table, index, 0, OTHER, JOB_FINISHED, &flags), 0);
    EXPECT(flags, JOB_NOTIFY | JOB_WAITED);
    EXPECT(job_flag(&fixture.table, index, 0, JOB_DETACHED), 1);
    EXPECT(job_collect(&fixture.table, index, 0, OWNER), true);
    EXPECT(word_of(&fixture, index), job_word_make(1, OWNER, 0, JOB_HELD));
    job_free(&fixture.table, index, OWNER);
    EXPECT(word_of(&fixture, index), job_word_make(1, 0, 0, JOB_FREE));
    EXPECT(alloc(&fixture), index); /* warm, and in its next generation */
    EXPECT(word_of(&fixture, index), job_word_make(1, OWNER, 0, JOB_HELD));
    unmake(&fixture);
}

enum operation { FREE_IT, UNQUEUE, CLAIM, END, CANCEL, FLAG, COLLECT, OPERATIONS };

static bool try_operation(struct job_table *table, enum operation operation, uint32_t index,
                          uint32_t generation, uint16_t owner)
{
    uint64_t before = shared_load(&job_at(table, index)->word, ACQUIRE);
    unsigned flags;

    switch (operation) {
    case FREE_IT:
        job_free(table, index, owner);
        return shared_load(&job_at(table, index)->word, ACQUIRE) != before;
    case UNQUEUE:
        return job_unqueue(table, index, generation, owner);
    case CLAIM:
        return job_claim(table, index, job_word_make(generation, owner, 0, JOB_QUEUED), OTHER);
    case END:
        return job_end(table, index, generation, owner, JOB_FINISHED, &flags) == 0;
    case CANCEL:
        return job_cancel(table, index, generation, JOB_CANCELLED, &flags);
    case FLAG:
        return job_flag(table, index, generation, JOB_WAITED) == 0;
    default:
        return job_collect(table, index, generation, owner);
    }
}

/* For each operation, the states from which it is possible, one bit for each. */
static const unsigned allowed[OPERATIONS] = {
    [FREE_IT] = 1U << JOB_HELD,
    [UNQUEUE] = 1U << JOB_QUEUED,
    [CLAIM] = 1U << JOB_QUEUED,
    [END] = 1U << JOB_RUNNING,
    [CANCEL] = 1U << JOB_QUEUED,
    [FLAG] = 1U << JOB_QUEUED | 1U << JOB_RUNNING,
    [COLLECT] = 1U << JOB_FINISHED | 1U << JOB_DIED | 1U << JOB_CANCELLED | 1U << JOB_LOST,
};

static void each_transition_is_possible_from_its_states_only(void)
{
    struct fixture fixture;
    unsigned state, operation;
    uint32_t index;

    make(&fixture, 100, 64 * MEBIBYTE);
    index = alloc(&fixture);
    for (operation = 0; operation < OPERATIONS; operation++)
        for (state = JOB_FREE; state <= JOB_LOST; state++) {
            bool possible = allowed[operation] >> state & 1;

            set_word(&fixture, index, 0, state);
            EXPECT(try_operation(&fixture.table, operation, index, GENERATION, OWNER), possible);
            EXPECT(word_of(&fixture, index) != job_word_make(GENERATION, OWNER, 0, state),
                   possible);
        }
    unmake(&fixture);
}

static void another_generation_or_owner_is_refused(void)
{
    struct fixture fixture;
    unsigned state, operation;
    uint32_t index;

    make(&fixture, 100, 64 * MEBIBYTE);
    index = alloc(&fixture);
    for (operation = 0; operation < OPERATIONS; operation++)
        for (state = JOB_FREE; state <= JOB_LOST; state++) {
            bool owned = operation == FREE_IT || operation == UNQUEUE || operation == END;

            set_word(&fixture, index, 0, state);
            if (operation != FREE_IT) {
                EXPECT(try_operation(&fixture.table, operation, index, GENERATION - 1, OWNER),
                       false);
                EXPECT(try_operation(&fixture.table, operation, index, GENERATION + 1, OWNER),
                       false);
            }
            if (owned)
                EXPECT(try_operation(&fixture.table, operation, index, GENERATION, OTHER), false);
            EXPECT(word_of(&fixture, index), job_word_make(GENERATION, OWNER, 0, state));
        }
    unmake(&fixture);
}

static void a_flag_on_an_ended_job_says_so_and_on_a_stale_one_estale(void)
{
    struct fixture fixture;
    unsigned state;
    uint32_t index;

    make(&fixture, 100, 64 * MEBIBYTE);
    index = alloc(&fixture);
    for (state = JOB_FREE; state <= JOB_LOST; state++) {
        int wanted = state < JOB_QUEUED ? -ESTALE : state >= JOB_FINISHED;

        set_word(&fixture, index, 0, state);
        EXPECT(job_flag(&fixture.table, index, GENERATION, JOB_NOTIFY), wanted);
        EXPECT(job_flag(&fixture.table, index, GENERATION, JOB_NOTIFY), wanted); /* again */
        EXPECT(job_flags(word_of(&fixture, index)), wanted == 0 ? JOB_NOTIFY : 0);
        EXPECT(job_flag(&fixture.table, index, GENERATION + 1, JOB_NOTIFY), -ESTALE);
    }
    unmake(&fixture);
}

static void the_generation_wraps_around(void)
{
    struct fixture fixture;
    uint32_t index;

    make(&fixture, 100, 64 * MEBIBYTE);
    index = alloc(&fixture);
    shared_store(&job_at(&fixture.table, index)->word,
                 job_word_make(UINT32_MAX, OWNER, 0, JOB_FINISHED), RELEASE);
    EXPECT(job_collect(&fixture.table, index, UINT32_MAX, OWNER), true);
    EXPECT(word_of(&fixture, index), job_word_make(0, OWNER, 0, JOB_HELD));
    unmake(&fixture);
}

static void payloads_survive_packing(void)
{
    uint64_t random = 9;
    unsigned i;

    for (i = 0; i < 10000; i++) {
        struct payload in = {.kind = (enum payload_kind)(i % 3),
                             .host = i / 3 % 2,
                             .options = i / 6 % 2,
                             .size = (uint8_t)(harness_random(&random) % (JOB_INLINE + 1)),
                             .extra = (uint16_t)harness_random(&random)};
        struct payload out;

        if (in.kind == PAYLOAD_BLOCK)
            in.block = block_ref_make(i % ARENA_CLASSES, (uint32_t)harness_random(&random));
        out = payload_unpack(payload_pack(in));
        EXPECT(out.kind == in.kind && out.host == in.host && out.size == in.size, true);
        EXPECT(out.options, in.options);
        EXPECT(out.extra, in.extra);
        EXPECT(out.block, in.block);
    }
    EXPECT(payload_unpack(0).kind, PAYLOAD_NONE);
}

static void a_freed_job_frees_its_blocks_and_no_other_jobs(void)
{
    struct fixture fixture;
    uint32_t index, another;
    block_ref argument, result, foreign;

    make(&fixture, 100, 64 * MEBIBYTE);
    index = alloc(&fixture);
    another = alloc(&fixture);
    argument = attach_block(&fixture, index, false);
    result = attach_block(&fixture, index, true);
    foreign = attach_block(&fixture, another, false);
    job_free(&fixture.table, index, OWNER);
    EXPECT(arena_free_attached(&fixture.arena, argument, index), false);
    EXPECT(arena_free_attached(&fixture.arena, result, index), false);
    /* A slot that names a block which has become another job's. */
    index = alloc(&fixture);
    shared_store(&job_at(&fixture.table, index)->argument,
                 payload_pack((struct payload){.kind = PAYLOAD_BLOCK, .block = foreign}), RELEASE);
    job_drop_payloads(&fixture.table, index);
    EXPECT(shared_load(&job_at(&fixture.table, index)->argument, ACQUIRE), 0);
    EXPECT(arena_free_attached(&fixture.arena, foreign, another), true);
    unmake(&fixture);
}

/* ---- The table ---- */

static void the_table_grows_and_its_end_is_enomem(void)
{
    struct fixture fixture;
    static bool seen[1000];
    uint32_t i, index;

    memset(seen, 0, sizeof seen);
    make(&fixture, 1000, 64 * MEBIBYTE);
    EXPECT(job_table_count(&fixture.table), 0);
    for (i = 0; i < 1000; i++) {
        index = alloc(&fixture);
        REQUIRE(index < 1000 && !seen[index], true);
        seen[index] = true;
    }
    EXPECT(job_table_count(&fixture.table), 1000);
    EXPECT(job_alloc(&fixture.table, OWNER, &index), -ENOMEM);
    job_free(&fixture.table, 500, OWNER);
    EXPECT(alloc(&fixture), 500);
    EXPECT(job_alloc(&fixture.table, OWNER, &index), -ENOMEM);
    unmake(&fixture);
}

static void no_memory_for_the_table_is_enomem_and_recovers(void)
{
    struct fixture fixture;
    uint32_t index, count = 0;

    make(&fixture, 100000, MEBIBYTE);
    while (job_alloc(&fixture.table, OWNER, &index) == 0)
        count++;
    EXPECT(count > 1000 && count < 8192, true);
    EXPECT(segment_committed(&fixture.segment) <= MEBIBYTE, true);
    job_free(&fixture.table, index = count / 2, OWNER);
    EXPECT(alloc(&fixture), index);
    EXPECT(job_alloc(&fixture.table, OWNER, &index), -ENOMEM);
    unmake(&fixture);
}

static void a_scribbled_count_leads_not_outside(void)
{
    struct fixture fixture;
    uint32_t index;

    make(&fixture, 100, 64 * MEBIBYTE);
    alloc(&fixture);
    *(uint32_t *)segment_at(&fixture.segment, fixture.table.header) = UINT32_MAX;
    EXPECT(job_table_count(&fixture.table), 100);
    while (job_alloc(&fixture.table, OWNER, &index) == 0)
        EXPECT(index < 100, true);
    unmake(&fixture);
}

/* ---- Repair ---- */

static uint32_t rescued[16], rescued_count;

static void rescue(void *context, uint32_t index)
{
    (void)context;
    if (rescued_count < 16)
        rescued[rescued_count++] = index;
}

static void submitted_by(struct fixture *fixture, uint32_t index, uint16_t submitter)
{
    shared_store(&job_at(&fixture->table, index)->argument,
                 payload_pack((struct payload){.kind = PAYLOAD_NONE, .extra = submitter}), RELEASE);
}

static void repair_frees_what_the_dead_held_and_saves_what_it_queued(void)
{
    struct fixture fixture;
    uint32_t held, others, queued, running, ended, foreign;
    block_ref block;

    make(&fixture, 100, 64 * MEBIBYTE);
    rescued_count = 0;
    held = alloc(&fixture);
    block = attach_block(&fixture, held, false);
    REQUIRE(job_alloc(&fixture.table, OTHER, &others), 0);
    submitted_by(&fixture, queued = alloc(&fixture), OWNER);
    submitted_by(&fixture, running = alloc(&fixture), OWNER);
    submitted_by(&fixture, ended = alloc(&fixture), OWNER);
    submitted_by(&fixture, foreign = alloc(&fixture), OTHER);
    set_word(&fixture, queued, 0, JOB_QUEUED);
    set_word(&fixture, running, 0, JOB_RUNNING);
    set_word(&fixture, ended, 0, JOB_FINISHED);
    set_word(&fixture, foreign, 0, JOB_FINISHED);
    job_table_repair(&fixture.table, OWNER, rescue, NULL);

    EXPECT(job_state(word_of(&fixture, held)), JOB_FREE);
    EXPECT(arena_free_attached(&fixture.arena, block, held), false);
    EXPECT(word_of(&fixture, others), job_word_make(0, OTHER, 0, JOB_HELD));
    EXPECT(word_of(&fixture, queued), job_word_make(GENERATION, OWNER, JOB_DETACHED, JOB_QUEUED));
    EXPECT(rescued_count, 1);
    EXPECT(rescued[0], queued);
    EXPECT(word_of(&fixture, running), job_word_make(GENERATION, OWNER, JOB_DETACHED, JOB_RUNNING));
    EXPECT(word_of(&fixture, ended), job_word_make(GENERATION + 1, 0, 0, JOB_FREE));
    EXPECT(word_of(&fixture, foreign), job_word_make(GENERATION, OWNER, 0, JOB_FINISHED));
    job_table_repair(&fixture.table, OWNER, rescue, NULL); /* twice does no harm */
    EXPECT(word_of(&fixture, others), job_word_make(0, OTHER, 0, JOB_HELD));
    unmake(&fixture);
}

static void repair_gives_the_hints_again_that_the_dead_took(void)
{
    struct fixture fixture;
    uint32_t i, index;

    make(&fixture, 128, 64 * MEBIBYTE);
    for (i = 0; i < 128; i++)
        alloc(&fixture);
    for (i = 0; i < 128; i++)
        job_free(&fixture.table, i, OWNER);
    while (freemap_take(&fixture.table.map, &index))
        ; /* and die before the claim */
    EXPECT(job_alloc(&fixture.table, OTHER, &index), -ENOMEM);
    job_table_repair(&fixture.table, OWNER, rescue, NULL);
    for (i = 0; i < 128; i++)
        EXPECT(alloc(&fixture), i);
    unmake(&fixture);
}

static const struct harness_test tests[] = {
    TEST(a_job_goes_through_its_life),
    TEST(each_transition_is_possible_from_its_states_only),
    TEST(another_generation_or_owner_is_refused),
    TEST(a_flag_on_an_ended_job_says_so_and_on_a_stale_one_estale),
    TEST(the_generation_wraps_around),
    TEST(payloads_survive_packing),
    TEST(a_freed_job_frees_its_blocks_and_no_other_jobs),
    TEST(the_table_grows_and_its_end_is_enomem),
    TEST(no_memory_for_the_table_is_enomem_and_recovers),
    TEST(a_scribbled_count_leads_not_outside),
    TEST(repair_frees_what_the_dead_held_and_saves_what_it_queued),
    TEST(repair_gives_the_hints_again_that_the_dead_took),
};

HARNESS_MAIN("job", tests)
