/* The arena alone: processes that allocate, pass on and free a few blocks, and die, while the
 * supervisor repairs what the dead left, or takes memory of free blocks away.
 */
#include <errno.h>
#include <string.h>

#include "explore.h"
/* The source itself, for what a state must look like. */
#include "arena.c"

#define BLOCKS_MAX 4
#define SHARER 0 /* the process that shares its blocks */

enum use {
    HOLD,   /* alloc, free */
    ATTACH, /* alloc, attach, free */
    SHARE   /* process 0 allocates and shares; all others try to free it */
};

struct variant {
    const char *name;
    enum use use;
    int processes, rounds; /* that use blocks, and how often each does */
    uint32_t blocks;
    bool fresh; /* the blocks do not exist yet */
    bool large; /* blocks that are committed one by one, and trimmed by one more process */
    int deaths, preemptions;
    bool longer;
};

static const struct variant *variant;
static struct segment segment;
static struct arena arena;
static unsigned size_class;
/* What a slot says that its job has, as in the job table: written before the block is attached. */
static _Atomic uint64_t *slots;
static _Atomic uint64_t *offer;
/* The block that each process has; its own note. */
static block_ref has[EXPLORE_PROCESSES];
static int frees; /* of shared blocks, that succeeded */
static int shares;

static uint64_t size_of_block(void)
{
    return (uint64_t)1 << class_bits(size_class);
}

/* Only one class, with as many blocks as wanted, at addresses that are not there: the arena never
 * looks into a block. */
static void plan(void)
{
    struct arena_class *c;

    segment_init(&segment, UINT64_C(1) << 40);
    memset(&arena, 0, sizeof arena);
    size_class = variant->large ? SMALL_CLASS_BITS - ARENA_MIN_BITS : 0;
    c = &arena.size_class[size_class];
    arena.segment = &segment;
    arena.header = segment_reserve(&segment, sizeof(struct arena_header));
    arena.classes = size_class + 1;
    c->entries = variant->blocks;
    freemap_plan(&c->map, &segment, c->entries);
    c->words = segment_reserve(&segment, c->entries * sizeof(uint64_t));
    c->details = segment_reserve(&segment, c->entries * sizeof(struct block_details));
    slots = segment_at(&segment, segment_reserve(&segment, EXPLORE_PROCESSES * sizeof *slots));
    offer = segment_at(&segment, segment_reserve(&segment, sizeof *offer));
    c->blocks = segment_reserve(&segment, c->entries * size_of_block());
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
    memset(has, 0, sizeof has);
    frees = shares = 0;
    for (i = 0; i < variant->blocks && !variant->fresh; i++)
        arena_alloc(&arena, 1, size_of_block(), &all[i]);
    for (i = 0; i < variant->blocks && !variant->fresh; i++)
        arena_free_held(&arena, all[i], 1);
}

/* ---- What they do ---- */

static bool allocate(int process, block_ref *ref)
{
    int error = arena_alloc(&arena, owner_of(process), size_of_block(), ref);
    struct block_details *details;

    if (error && error != -ENOMEM)
        explore_fail("an allocation failed in a way that it can't");
    if (error)
        return false;
    details = details_of(&arena, size_class, ref_index(*ref));
    if (details->size != size_of_block() || (variant->large && details->committed < details->size))
        explore_fail("a block has less memory than was asked for");
    has[process] = *ref;
    return true;
}

static void free_block(int process, block_ref ref)
{
    uint32_t job = (uint32_t)process;

    has[process] = 0;
    if (variant->use == HOLD) {
        if (!arena_free_held(&arena, ref, owner_of(process)))
            explore_fail("a block that was held can't be freed");
        return;
    }
    if (!arena_free_attached(&arena, ref, job))
        explore_fail("a block that was attached can't be freed");
    shared_store(&slots[process], 0, RELAXED);
}

static void use(int process)
{
    int round;

    for (round = 0; round < variant->rounds; round++) {
        block_ref ref;

        explore_forget((uint64_t)round);
        if (!allocate(process, &ref))
            continue;
        if (variant->use == ATTACH) {
            shared_store(&slots[process], ref, RELEASE);
            if (!arena_attach(&arena, ref, owner_of(process), (uint32_t)process))
                explore_fail("a block that was held can't be attached");
        }
        explore_operation();
        free_block(process, ref);
    }
}

static void share(void)
{
    int round;

    for (round = 0; round < variant->rounds; round++) {
        block_ref ref;

        explore_forget((uint64_t)round);
        if (!allocate(SHARER, &ref))
            continue;
        has[SHARER] = 0;
        shares++;
        if (!arena_share(&arena, ref, owner_of(SHARER)))
            explore_fail("a block that was held can't be shared");
        shared_store(offer, ref, RELEASE);
    }
}

static void free_shared(void)
{
    int round;

    for (round = 0; round < variant->rounds; round++) {
        block_ref ref;

        explore_forget((uint64_t)round);
        ref = shared_load(offer, ACQUIRE);
        frees += ref && arena_free_shared(&arena, ref);
    }
}

/* As repair_worker() does: first the job that the dead was about, then what it held. */
static void repair(void)
{
    int process = explore_dead();
    uint64_t ref = shared_load(&slots[process], ACQUIRE);

    if (ref && !arena_free_attached(&arena, ref, (uint32_t)process))
        arena_free_held(&arena, ref, owner_of(process));
    arena_repair(&arena, owner_of(process));
    explore_repaired();
}

static void body(int process)
{
    if (process >= variant->processes + variant->large)
        repair();
    else if (process == variant->processes)
        arena_trim(&arena, owner_of(process), 0);
    else if (variant->use != SHARE)
        use(process);
    else if (process == SHARER)
        share();
    else
        free_shared();
}

/* ---- What must hold ---- */

static void observe(void)
{
    int i, k;

    for (i = 0; i < variant->processes; i++)
        for (k = 0; k < i; k++)
            if (has[i] && has[i] == has[k] && !explore_has_died(i) && !explore_has_died(k))
                explore_fail("a block was given to two");
    if (frees > shares)
        explore_fail("a shared block was freed twice");
}

static void check(void)
{
    uint32_t i, count = *count_of(&arena, size_class);
    block_ref ref;
    bool is_free[BLOCKS_MAX] = {false};

    if (count > variant->blocks)
        explore_fail("there are more blocks than fit");
    for (i = 0; i < count; i++) {
        uint64_t word = *word_of(&arena, size_class, i);

        is_free[i] = word == FREE_WORD;
        if (!is_free[i] && !(variant->use == SHARE && word_state(word) == BLOCK_SHARED))
            explore_fail("a block is not free at the end: it is leaked");
    }
    while (freemap_take(&arena.size_class[size_class].map, &i)) {
        if (i >= count || !is_free[i])
            explore_fail("a hint for a block that is not free");
        is_free[i] = false;
    }
    for (i = 0; i < count; i++)
        if (is_free[i])
            explore_fail("a free block has no hint: nobody will find it");
    /* Those that did not come into being can still do so. */
    for (; count < variant->blocks; count += i)
        if (arena_alloc(&arena, 1, size_of_block(), &ref) != 0 ||
            (i = *count_of(&arena, size_class) - count) == 0)
            explore_fail("the class can't grow any more");
}

static void explore_variant(const struct variant *what)
{
    int users = what->processes + what->large;
    struct explore_scenario scenario = {.name = what->name,
                                        .processes = users + what->deaths,
                                        .setup = setup,
                                        .body = body,
                                        .observe = observe,
                                        .check = check,
                                        .mortal = (1U << what->processes) - 1,
                                        .deaths = what->deaths,
                                        .repairer = what->deaths ? users : -1,
                                        .preemptions = what->preemptions,
                                        .operation = 60};

    variant = what;
    explore_report(&scenario, what->longer);
}

int main(int argc, char **argv)
{
    static const struct variant variants[] = {
        {"2 hold 1 block", HOLD, 2, 2, 1, false, false, 0, -1, false},
        {"2 hold 2 blocks", HOLD, 2, 2, 2, false, false, 0, -1, false},
        {"3 hold 2 blocks", HOLD, 3, 1, 2, false, false, 0, -1, false},
        {"3 hold 1 block", HOLD, 3, 1, 1, false, false, 0, 5, false},
        {"2 attach 1 block", ATTACH, 2, 2, 1, false, false, 0, 5, false},
        {"2 hold 4 fresh blocks", HOLD, 2, 2, 4, true, false, 0, -1, false},
        {"3 hold 2 fresh blocks", HOLD, 3, 1, 2, true, false, 0, -1, false},
        {"2 hold 2 large blocks, trimmed", HOLD, 2, 1, 2, false, true, 0, 5, false},
        {"2 hold 2 fresh large blocks, trimmed", HOLD, 2, 1, 2, true, true, 0, -1, false},
        {"1 shares 2 blocks, 2 free them", SHARE, 3, 2, 2, false, false, 0, -1, false},
        {"2 hold 1 block; a death", HOLD, 2, 2, 1, false, false, 1, 5, false},
        {"2 hold 2 blocks; a death", HOLD, 2, 2, 2, false, false, 1, -1, false},
        {"2 attach 1 block; a death", ATTACH, 2, 2, 1, false, false, 1, 4, false},
        {"3 attach 2 blocks; a death", ATTACH, 3, 1, 2, false, false, 1, 2, false},
        {"2 hold 4 fresh blocks; a death", HOLD, 2, 1, 4, true, false, 1, -1, false},
        {"2 hold 2 large blocks, trimmed; a death", HOLD, 2, 1, 2, false, true, 1, 3, false},
        {"2 attach 2 blocks; 2 deaths", ATTACH, 2, 1, 2, false, false, 2, -1, false},
        {"every 3 hold 1 block", HOLD, 3, 1, 1, false, false, 0, -1, true},
        {"every 2 attach 1 block", ATTACH, 2, 2, 1, false, false, 0, -1, true},
        {"every 2 hold 2 large blocks, trimmed", HOLD, 2, 1, 2, false, true, 0, -1, true},
        {"every 2 hold 1 block; a death", HOLD, 2, 2, 1, false, false, 1, -1, true},
        {"every 2 attach 1 block; a death", ATTACH, 2, 2, 1, false, false, 1, -1, true},
        {"more 3 attach 2 blocks; a death", ATTACH, 3, 1, 2, false, false, 1, 4, true},
        {"more 2 hold 2 large blocks, trimmed; a death", HOLD, 2, 1, 2, false, true, 1, 5, true},
    };
    size_t i;

    explore_arguments(argc, argv);
    for (i = 0; i < sizeof variants / sizeof *variants; i++)
        explore_variant(&variants[i]);
    return explore_finish();
}
