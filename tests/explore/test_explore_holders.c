/* Blocks that processes hold: shared ones, arguments that jobs keep, and those that are a process's
 * own from the start; while others free them, or processes die and the supervisor repairs what they
 * left.
 *
 * Whoever holds a block has it: it is not free, nor given to another, until the holder lets go. In
 * the end each block is free, and nobody's bit is set.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "explore.h"
/* The source itself, for what a state must look like. */
#include "arena.c"

#define BLOCKS_MAX 4
#define HOST 0 /* the process that shares, or submits */
#define JOB 7  /* the number of the one job */

enum use {
    SHARED,   /* the host shares and frees; all others hold and drop */
    ARGUMENT, /* the host submits a job with a block; a worker keeps it; the host frees it */
    RETRIED,  /* the same; when the worker dies, another one runs the job */
    OWN       /* all keep blocks of their own */
};

struct variant {
    const char *name;
    enum use use;
    int processes, rounds, holds; /* how often the host, and others where it does not say, do it */
    uint32_t blocks;
    bool mortal_host;
    int deaths, preemptions;
    bool longer;
};

/* The word of the job: [block:24][owner:4][state:4]. */
enum state { NONE, QUEUED, RUNNING, ENDED, CLOSED };

static const struct variant *variant;
static struct segment segment;
static struct arena arena;
static _Atomic uint64_t *offer;
static _Atomic uint32_t *job;
static _Atomic uint64_t
    *content; /* what a process looks at while it has a block: the same always */
/* The block that each process fills, and the one that it holds; its own notes. */
static block_ref fills[EXPLORE_PROCESSES], holds[EXPLORE_PROCESSES];

static uint32_t job_make(block_ref ref, uint16_t owner, enum state state)
{
    return (uint32_t)ref << 8 | (uint32_t)owner << 4 | (uint32_t)state;
}

static enum state job_state(uint32_t word)
{
    return (enum state)(word & 0xf);
}

static block_ref job_block(uint32_t word)
{
    return word >> 8;
}

/* Only one class, with as many blocks as wanted. */
static void plan(void)
{
    struct arena_class *c = &arena.size_class[0];

    segment_init(&segment, UINT64_C(1) << 40);
    memset(&arena, 0, sizeof arena);
    arena.segment = &segment;
    arena.header = segment_reserve(&segment, sizeof(struct arena_header));
    arena.classes = 1;
    arena.holder_words = 1;
    c->entries = variant->blocks;
    freemap_plan(&c->map, &segment, c->entries);
    c->words = segment_reserve(&segment, c->entries * sizeof(uint64_t));
    c->details = segment_reserve(&segment, c->entries * sizeof(struct block_details));
    c->holders = segment_reserve(&segment, c->entries * sizeof(uint64_t));
    offer = segment_at(&segment, segment_reserve(&segment, sizeof *offer));
    job = segment_at(&segment, segment_reserve(&segment, sizeof(uint64_t)));
    content = segment_at(&segment, segment_reserve(&segment, sizeof *content));
    c->blocks = segment_reserve(&segment, (uint64_t)c->entries << ARENA_MIN_BITS);
}

static uint16_t owner_of(int process)
{
    return (uint16_t)(process + 1);
}

static void setup(void)
{
    block_ref all[BLOCKS_MAX];
    uint32_t i;

    plan();
    memset(fills, 0, sizeof fills);
    memset(holds, 0, sizeof holds);
    for (i = 0; i < variant->blocks; i++)
        arena_alloc(&arena, 1, 1, &all[i]);
    for (i = 0; i < variant->blocks; i++)
        arena_free_held(&arena, all[i], 1);
}

/* ---- What they do ---- */

/* 0: all blocks are taken. */
static block_ref allocate(int process)
{
    block_ref ref;
    int error = arena_alloc(&arena, owner_of(process), 1, &ref);

    if (error && error != -ENOMEM)
        explore_fail("an allocation failed in a way that it can't");
    return fills[process] = error ? 0 : ref;
}

/* Has the block for a while, and lets go of it. */
static void use(int process, block_ref ref, uint16_t owner)
{
    holds[process] = ref;
    explore_operation();
    (void)shared_load(content, RELAXED);
    explore_operation();
    holds[process] = 0;
    arena_drop(&arena, ref, owner);
}

static void share(void)
{
    int round;

    for (round = 0; round < variant->rounds; round++) {
        block_ref ref;

        explore_forget((uint64_t)round);
        if (!(ref = allocate(HOST)))
            continue;
        fills[HOST] = 0;
        if (!arena_share(&arena, ref, owner_of(HOST)))
            explore_fail("a block that was filled can't be shared");
        shared_store(offer, ref, RELEASE);
        explore_operation();
        if (!arena_free_shared(&arena, ref))
            explore_fail("a block that was shared can't be freed");
    }
}

static void hold_shared(int process)
{
    int round;

    for (round = 0; round < variant->holds; round++) {
        block_ref ref;

        explore_forget((uint64_t)round);
        ref = shared_load(offer, ACQUIRE);
        if (!ref || !arena_hold(&arena, ref, owner_of(process)))
            continue;
        use(process, ref, owner_of(process));
    }
}

static void keep_own(int process)
{
    int round;

    for (round = 0; round < variant->holds; round++) {
        block_ref ref;

        explore_forget((uint64_t)round);
        if (!(ref = allocate(process)))
            continue;
        fills[process] = 0;
        if (!arena_keep(&arena, ref, owner_of(process)))
            explore_fail("a block that was filled can't be kept");
        use(process, ref, owner_of(process));
    }
}

static void tell(uint32_t word)
{
    shared_store(job, word, SEQ_CST);
    explore_futex_wake(job, INT_MAX);
}

static void submit(void)
{
    int round;

    for (round = 0; round < variant->rounds; round++) {
        block_ref ref;
        uint32_t word;

        explore_forget((uint64_t)round);
        if (!(ref = allocate(HOST)))
            continue;
        fills[HOST] = 0;
        if (!arena_attach(&arena, ref, owner_of(HOST), JOB))
            explore_fail("a block that was filled can't be attached");
        tell(job_make(ref, 0, QUEUED));
        while (job_state(word = shared_load(job, SEQ_CST)) != ENDED)
            explore_futex_wait(job, word);
        explore_operation();
        if (!arena_free_attached(&arena, ref, JOB))
            explore_fail("the argument of an ended job can't be freed");
    }
    tell(job_make(0, 0, CLOSED));
}

/* A worker, or the replacement of the one that was called so. */
static void work(int process, uint16_t owner)
{
    for (;;) {
        uint32_t word;
        block_ref ref;

        explore_forget(owner);
        word = shared_load(job, SEQ_CST);
        if (job_state(word) == CLOSED)
            return;
        if (job_state(word) != QUEUED) {
            explore_futex_wait(job, word);
            continue;
        }
        ref = job_block(word);
        if (!shared_cas(job, &word, job_make(ref, owner, RUNNING), SEQ_CST))
            continue;
        if (!arena_hold(&arena, ref, owner))
            explore_fail("the argument of a running job can't be held");
        holds[process] = ref;
        tell(job_make(ref, owner, ENDED));
        use(process, ref, owner);
    }
}

/* As repair_worker() does: first the job, then what it held. */
static void repair(int process)
{
    uint16_t owner = owner_of(explore_dead());
    uint32_t word = shared_load(job, SEQ_CST);
    bool jobs = variant->use == ARGUMENT || variant->use == RETRIED;

    if (job_state(word) == RUNNING && word == job_make(job_block(word), owner, RUNNING))
        tell(job_make(job_block(word), 0, variant->use == RETRIED ? QUEUED : ENDED));
    else
        explore_futex_wake(job, INT_MAX);
    arena_repair(&arena, owner);
    explore_repaired();
    if (jobs)
        work(process, owner);
}

static void body(int process)
{
    if (process >= variant->processes)
        repair(process);
    else if (variant->use == OWN)
        keep_own(process);
    else if (variant->use == SHARED && process == HOST)
        share();
    else if (variant->use == SHARED)
        hold_shared(process);
    else if (process == HOST)
        submit();
    else
        work(process, owner_of(process));
}

/* ---- What must hold ---- */

static uint64_t word_now(block_ref ref)
{
    return *word_of(&arena, ref_class(ref), ref_index(ref));
}

static void observe(void)
{
    int i, k;

    for (i = 0; i < EXPLORE_PROCESSES; i++) {
        if (explore_has_died(i))
            continue;
        if (holds[i] && word_state(word_now(holds[i])) < BLOCK_ATTACHED)
            explore_fail("a block is free, or another's, while somebody holds it");
        for (k = 0; k < i; k++)
            if (fills[i] && fills[i] == fills[k] && !explore_has_died(k))
                explore_fail("a block was given to two");
    }
}

static void check(void)
{
    uint32_t i, count = *count_of(&arena, 0);
    bool is_free[BLOCKS_MAX] = {false};

    for (i = 0; i < count; i++) {
        uint64_t word = *word_of(&arena, 0, i);

        is_free[i] = word == FREE_WORD;
        /* What a process has shared outlives it. */
        if (!is_free[i] && !(word_state(word) == BLOCK_SHARED && explore_has_died(HOST)))
            explore_fail("a block is not free at the end: it is leaked");
        if (*holders_of(&arena, 0, i) != 0)
            explore_fail("a block is held at the end, which nobody can free again");
    }
    while (freemap_take(&arena.size_class[0].map, &i)) {
        if (i >= count || !is_free[i])
            explore_fail("a hint for a block that is not free");
        is_free[i] = false;
    }
    for (i = 0; i < count; i++)
        if (is_free[i])
            explore_fail("a free block has no hint: nobody will find it");
}

static void explore_variant(const struct variant *what)
{
    bool mortal_host = what->mortal_host || what->use == OWN;
    unsigned all = (1U << what->processes) - 1;
    struct explore_scenario scenario = {.name = what->name,
                                        .processes = what->processes + what->deaths,
                                        .setup = setup,
                                        .body = body,
                                        .observe = observe,
                                        .check = check,
                                        .mortal = mortal_host ? all : all & ~(1U << HOST),
                                        .deaths = what->deaths,
                                        .repairer = what->deaths ? what->processes : -1,
                                        .preemptions = what->preemptions,
                                        .operation = 60};

    variant = what;
    explore_report(&scenario, what->longer);
}

int main(int argc, char **argv)
{
    static const struct variant variants[] = {
        {"1 holds what 1 frees", SHARED, 2, 2, 2, 1, false, 0, -1, false},
        {"2 hold what 1 frees", SHARED, 3, 2, 2, 1, false, 0, 3, false},
        {"2 hold once what 1 frees", SHARED, 3, 2, 1, 1, false, 0, 5, false},
        {"1 holds what 1 frees, 2 blocks", SHARED, 2, 3, 3, 2, false, 0, 5, false},
        {"a job keeps its argument", ARGUMENT, 2, 2, 0, 1, false, 0, -1, false},
        {"2 workers keep arguments", ARGUMENT, 3, 2, 0, 1, false, 0, 4, false},
        {"2 have blocks of their own", OWN, 2, 0, 2, 1, false, 0, -1, false},
        {"1 holds what 1 frees; a death", SHARED, 2, 2, 2, 1, false, 1, -1, false},
        {"2 hold what 1 frees; a death", SHARED, 3, 1, 1, 1, false, 1, 3, false},
        {"1 holds what 1 shares; a death of any", SHARED, 2, 2, 2, 1, true, 1, 4, false},
        {"a job keeps its argument; a death", ARGUMENT, 2, 2, 0, 1, false, 1, 5, false},
        {"2 workers keep arguments; a death", ARGUMENT, 3, 2, 0, 2, false, 1, 2, false},
        {"2 workers run it twice; a death", RETRIED, 3, 1, 0, 1, false, 1, 3, false},
        {"2 have blocks of their own; a death", OWN, 2, 0, 2, 1, false, 1, 3, false},
        {"every 2 hold what 1 frees", SHARED, 3, 1, 1, 1, false, 0, -1, true},
        {"every 2 have blocks of their own; a death", OWN, 2, 0, 2, 1, false, 1, -1, true},
        {"every job keeps its argument; a death", ARGUMENT, 2, 2, 0, 1, false, 1, -1, true},
        {"every 2 workers keep arguments; a death", ARGUMENT, 3, 1, 0, 1, false, 1, -1, true},
        {"more 2 hold what 1 frees; a death", SHARED, 3, 2, 2, 1, false, 1, 4, true},
        {"more 2 workers run it twice; 2 deaths", RETRIED, 3, 2, 0, 1, false, 2, 4, true},
    };
    size_t i;

    explore_arguments(argc, argv);
    for (i = 0; i < sizeof variants / sizeof *variants; i++)
        explore_variant(&variants[i]);
    return explore_finish();
}
