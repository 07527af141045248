/* The arena: classes, reuse, exhaustion, who may do what to a block, repair, trim, threads. */
#include <errno.h>
#include <string.h>

#include "harness.h"
/* The source itself: some tests take away or forge what a dead or hostile process leaves. */
#include "arena.c"

#define LARGEST (4 * MEBIBYTE)
#define OWNER 3
#define OTHER 4
#define JOB 77

struct fixture {
    struct segment segment;
    struct arena arena;
};

static void make(struct fixture *fixture, uint64_t limit, uint64_t largest)
{
    segment_init(&fixture->segment, limit);
    arena_plan(&fixture->arena, &fixture->segment, 64, largest);
    REQUIRE(segment_map(&fixture->segment), 0);
    REQUIRE(arena_start(&fixture->arena), 0);
}

static void unmake(struct fixture *fixture)
{
    segment_unmap(&fixture->segment);
}

static block_ref alloc(struct arena *arena, uint64_t size)
{
    block_ref ref = 0;

    EXPECT(arena_alloc(arena, OWNER, size, &ref), 0);
    return ref;
}

static unsigned char *memory_of(const struct arena *arena, block_ref ref, uint64_t size)
{
    uint64_t length = 0;
    void *memory = NULL;

    EXPECT(arena_lookup(arena, ref, &memory, &length), 0);
    EXPECT(length, size);
    return memory;
}

/* ---- Sizes ---- */

static void a_block_of_any_size_is_aligned_inside_and_of_no_other_block(void)
{
    struct fixture fixture;
    struct {
        block_ref ref;
        unsigned char *memory;
        uint64_t size;
    } blocks[64];
    unsigned bits, count = 0, i, wrong = 0;
    int64_t around;

    make(&fixture, 32 * MEBIBYTE, LARGEST);
    for (bits = 0; UINT64_C(1) << bits <= LARGEST; bits++)
        for (around = -1; around <= 1; around++) {
            uint64_t size = (UINT64_C(1) << bits) + (uint64_t)around;

            if (size > LARGEST || count >= 64)
                continue;
            blocks[count].ref = alloc(&fixture.arena, size);
            blocks[count].memory = memory_of(&fixture.arena, blocks[count].ref, size);
            blocks[count].size = size;
            EXPECT((uintptr_t)blocks[count].memory % 256, 0);
            memset(blocks[count].memory, (int)count + 1, size);
            count++;
            /* Large ones one after the other, or the limit would have to be large too. */
            if (size > MEBIBYTE / 2)
                EXPECT(arena_free_held(&fixture.arena, blocks[--count].ref, OWNER), true);
        }
    for (i = 0; i < count; i++)
        for (bits = 0; bits < blocks[i].size; bits++)
            wrong += blocks[i].memory[bits] != i + 1;
    EXPECT(wrong, 0);
    unmake(&fixture);
}

static void each_size_comes_from_the_smallest_class_that_it_fits(void)
{
    struct fixture fixture;
    unsigned size_class;

    make(&fixture, 32 * MEBIBYTE, LARGEST);
    EXPECT(fixture.arena.classes, 22 - 8 + 1);
    EXPECT(ref_class(alloc(&fixture.arena, 0)), 0);
    EXPECT(ref_class(alloc(&fixture.arena, 1)), 0);
    for (size_class = 0; size_class < fixture.arena.classes; size_class++) {
        block_ref ref = alloc(&fixture.arena, UINT64_C(256) << size_class);

        EXPECT(ref_class(ref), size_class);
        EXPECT(arena_free_held(&fixture.arena, ref, OWNER), true);
        if (size_class + 1 == fixture.arena.classes)
            break;
        ref = alloc(&fixture.arena, (UINT64_C(256) << size_class) + 1);
        EXPECT(ref_class(ref), size_class + 1);
        EXPECT(arena_free_held(&fixture.arena, ref, OWNER), true);
    }
    unmake(&fixture);
}

static void larger_than_the_largest_is_e2big(void)
{
    static const uint64_t sizes[] = {LARGEST + 1,       2 * LARGEST,    UINT64_C(1) << 40,
                                     UINT64_C(1) << 63, UINT64_MAX - 1, UINT64_MAX};
    struct fixture fixture;
    block_ref ref;
    unsigned i;

    make(&fixture, 32 * MEBIBYTE, LARGEST);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++)
        EXPECT(arena_alloc(&fixture.arena, OWNER, sizes[i], &ref), -E2BIG);
    alloc(&fixture.arena, LARGEST);
    unmake(&fixture);
    make(&fixture, 32 * MEBIBYTE, 3 * MEBIBYTE); /* not a power of two */
    memory_of(&fixture.arena, alloc(&fixture.arena, 3 * MEBIBYTE), 3 * MEBIBYTE)[0] = 1;
    EXPECT(arena_alloc(&fixture.arena, OWNER, 4 * MEBIBYTE + 1, &ref), -E2BIG);
    unmake(&fixture);
}

static void a_large_block_commits_what_it_needs_and_not_its_class(void)
{
    struct fixture fixture;
    uint64_t before;

    make(&fixture, 32 * MEBIBYTE, LARGEST);
    before = segment_committed(&fixture.segment);
    alloc(&fixture.arena, 2 * MEBIBYTE + 1); /* of the 4 MiB class */
    before = segment_committed(&fixture.segment) - before;
    EXPECT(before >= 2 * MEBIBYTE && before < 2 * MEBIBYTE + MEBIBYTE / 4, true);
    unmake(&fixture);
}

/* ---- Reuse and exhaustion ---- */

static void the_lowest_free_block_is_reused(void)
{
    static const uint64_t sizes[] = {100, 5000, 100000};
    struct fixture fixture;
    block_ref refs[4];
    unsigned i, j;

    make(&fixture, 32 * MEBIBYTE, LARGEST);
    for (i = 0; i < 3; i++) {
        for (j = 0; j < 4; j++)
            refs[j] = alloc(&fixture.arena, sizes[i]);
        EXPECT(arena_free_held(&fixture.arena, refs[2], OWNER), true);
        EXPECT(arena_free_held(&fixture.arena, refs[1], OWNER), true);
        EXPECT(alloc(&fixture.arena, sizes[i]), refs[1]);
        EXPECT(alloc(&fixture.arena, sizes[i]), refs[2]);
    }
    unmake(&fixture);
}

static unsigned alloc_all(struct arena *arena, uint64_t size, block_ref *refs, unsigned room)
{
    unsigned count = 0;
    int error = 0;

    while (count < room && (error = arena_alloc(arena, OWNER, size, &refs[count])) == 0)
        count++;
    EXPECT(error, -ENOMEM);
    return count;
}

static void exhaustion_is_enomem_and_what_is_freed_can_be_had_again(void)
{
    static const uint64_t sizes[] = {1, 256, 4096, 40000, 65536, 65537, 300000, MEBIBYTE};
    static block_ref refs[20000];
    struct fixture fixture;
    unsigned i;

    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned count, n;

        make(&fixture, 4 * MEBIBYTE, LARGEST);
        count = alloc_all(&fixture.arena, sizes[i], refs, 20000);
        EXPECT(count > 1, true);
        EXPECT(segment_committed(&fixture.segment) <= 4 * MEBIBYTE, true);
        EXPECT(arena_free_held(&fixture.arena, refs[count / 2], OWNER), true);
        EXPECT(alloc(&fixture.arena, sizes[i]), refs[count / 2]);
        EXPECT(alloc_all(&fixture.arena, sizes[i], refs + count, 10), 0);
        for (n = 0; n < count; n++)
            EXPECT(arena_free_held(&fixture.arena, refs[n], OWNER), true);
        EXPECT(alloc_all(&fixture.arena, sizes[i], refs, 20000), count);
        unmake(&fixture);
    }
}

static void a_class_without_further_entries_is_enomem(void)
{
    struct fixture fixture;
    block_ref first, second;

    make(&fixture, 32 * MEBIBYTE, LARGEST); /* one block of 4 MiB, two of 2 MiB */
    first = alloc(&fixture.arena, LARGEST);
    EXPECT(arena_alloc(&fixture.arena, OWNER, LARGEST, &second), -ENOMEM);
    EXPECT(arena_free_held(&fixture.arena, first, OWNER), true);
    EXPECT(alloc(&fixture.arena, LARGEST), first);
    unmake(&fixture);
}

/* ---- Who may do what ---- */

/* All that may be tried on a block; each says whether it worked. */
static bool try_operation(struct arena *arena, unsigned operation, block_ref ref)
{
    switch (operation) {
    case 0:
        return arena_attach(arena, ref, OWNER, JOB);
    case 1:
        return arena_share(arena, ref, OWNER);
    case 2:
        return arena_free_held(arena, ref, OWNER);
    case 3:
        return arena_free_attached(arena, ref, JOB);
    case 4:
        return arena_free_shared(arena, ref);
    case 5:
        return arena_attach(arena, ref, OTHER, JOB);
    case 6:
        return arena_share(arena, ref, OTHER);
    case 7:
        return arena_free_held(arena, ref, OTHER);
    default:
        return arena_free_attached(arena, ref, JOB + 1);
    }
}

static void each_transition_is_its_owners_and_no_other_is_possible(void)
{
    /* For a block that is free, held, attached, shared: the operations that work. */
    static const unsigned allowed[] = {0, 1 << 0 | 1 << 1 | 1 << 2, 1 << 3, 1 << 4};
    struct fixture fixture;
    unsigned state, operation;

    make(&fixture, 4 * MEBIBYTE, LARGEST);
    for (state = 0; state < 4; state++)
        for (operation = 0; operation < 9; operation++) {
            block_ref ref = alloc(&fixture.arena, 1000);
            uint64_t word;

            if (state == 0)
                EXPECT(arena_free_held(&fixture.arena, ref, OWNER), true);
            if (state == 2)
                EXPECT(arena_attach(&fixture.arena, ref, OWNER, JOB), true);
            if (state == 3)
                EXPECT(arena_share(&fixture.arena, ref, OWNER), true);
            word = *word_of(&fixture.arena, ref_class(ref), ref_index(ref));
            EXPECT(try_operation(&fixture.arena, operation, ref), allowed[state] >> operation & 1);
            if (!(allowed[state] >> operation & 1))
                EXPECT(*word_of(&fixture.arena, ref_class(ref), ref_index(ref)), word);
        }
    unmake(&fixture);
}

static void a_block_freed_twice_is_given_once(void)
{
    struct fixture fixture;
    block_ref ref;

    make(&fixture, 4 * MEBIBYTE, LARGEST);
    ref = alloc(&fixture.arena, 100);
    EXPECT(arena_free_held(&fixture.arena, ref, OWNER), true);
    EXPECT(arena_free_held(&fixture.arena, ref, OWNER), false);
    EXPECT(alloc(&fixture.arena, 100), ref);
    EXPECT(alloc(&fixture.arena, 100) != ref, true);
    unmake(&fixture);
}

/* ---- Hostile references and contents ---- */

static void references_that_can_be_none_are_refused(void)
{
    struct fixture fixture;
    uint64_t random = 5, i;
    uint64_t length;
    void *memory;

    make(&fixture, 4 * MEBIBYTE, LARGEST);
    for (i = 0; i < 20000; i++) {
        uint64_t large = 16384 >> (i % 15); /* entries of class i % 15 */
        uint64_t refs[] = {0,
                           0xff,
                           UINT64_MAX,
                           (large << 8) | (i % 15 + 1),
                           harness_random(&random) | UINT64_C(1) << 63,
                           harness_random(&random) << 8 | 16,
                           (UINT64_C(1) << 40) | (i % 15 + 1)};
        block_ref ref = refs[i % 7];
        unsigned operation;

        EXPECT(arena_lookup(&fixture.arena, ref, &memory, &length), -EINVAL);
        for (operation = 0; operation < 5; operation++)
            EXPECT(try_operation(&fixture.arena, operation, ref), false);
    }
    unmake(&fixture);
}

static void any_block_that_is_found_lies_in_the_segment(void)
{
    struct fixture fixture;
    uint64_t random = 6, i, found = 0;

    make(&fixture, 4 * MEBIBYTE, LARGEST);
    for (i = 0; i < 20000; i++) {
        unsigned size_class = (unsigned)(i % fixture.arena.classes);
        uint32_t entries = fixture.arena.size_class[size_class].entries;
        uint32_t index = (uint32_t)(harness_random(&random) % entries);
        block_ref ref = block_ref_make(size_class, index);
        uint64_t length, begin;
        void *memory;

        details_of(&fixture.arena, size_class, index)->size = harness_random(&random) >> (i % 64);
        if (arena_lookup(&fixture.arena, ref, &memory, &length) != 0)
            continue;
        found++;
        begin = (uint64_t)((unsigned char *)memory - fixture.segment.base);
        EXPECT(begin <= fixture.segment.size && length <= fixture.segment.size - begin, true);
    }
    EXPECT(found > 100, true);
    unmake(&fixture);
}

static void a_size_larger_than_the_class_is_einval(void)
{
    struct fixture fixture;
    uint64_t length;
    void *memory;
    block_ref ref;

    make(&fixture, 4 * MEBIBYTE, LARGEST);
    ref = alloc(&fixture.arena, 300);
    details_of(&fixture.arena, ref_class(ref), ref_index(ref))->size = 513;
    EXPECT(arena_lookup(&fixture.arena, ref, &memory, &length), -EINVAL);
    details_of(&fixture.arena, ref_class(ref), ref_index(ref))->size = UINT64_MAX;
    EXPECT(arena_lookup(&fixture.arena, ref, &memory, &length), -EINVAL);
    unmake(&fixture);
}

static void use_scribbled_arena(void *context)
{
    struct fixture *fixture = context;
    struct arena *arena = &fixture->arena;
    uint64_t random = 11, round;
    unsigned i;

    for (round = 0; round < 2000; round++) {
        unsigned size_class = (unsigned)(harness_random(&random) % arena->classes);
        struct arena_class *c = &arena->size_class[size_class];
        uint32_t index = (uint32_t)(harness_random(&random) % c->entries % 8);
        block_ref ref;

        *count_of(arena, size_class) = (uint32_t)harness_random(&random);
        *word_of(arena, size_class, index) = harness_random(&random) >> (round % 64);
        details_of(arena, size_class, index)->committed = harness_random(&random) >> (round % 64);
        *(uint64_t *)segment_at(arena->segment, c->map.level[round % 3]) = harness_random(&random);
        for (i = 0; i < 4; i++)
            if (arena_alloc(arena, OWNER, UINT64_C(200) << size_class, &ref) == 0) {
                void *memory;
                uint64_t length;

                EXPECT(ref_valid(arena, ref), true);
                if (arena_lookup(arena, ref, &memory, &length) == 0 && length < 4096)
                    memset(memory, 1, length);
                arena_free_held(arena, ref, OWNER);
            }
        if (round % 100 == 0) {
            arena_repair(arena, OWNER);
            arena_trim(arena, OTHER, 0);
        }
    }
}

static void a_scribbled_arena_neither_hangs_nor_leads_outside(void)
{
    struct fixture fixture;

    make(&fixture, 32 * MEBIBYTE, LARGEST);
    EXPECT(harness_fork(use_scribbled_arena, &fixture, 20), 0);
    unmake(&fixture);
}

/* ---- Repair and trim ---- */

static void repair_frees_what_the_dead_held_and_nothing_else(void)
{
    static const uint64_t sizes[] = {100, 3000, 100000};
    struct fixture fixture;
    unsigned i;

    make(&fixture, 32 * MEBIBYTE, LARGEST);
    for (i = 0; i < 3; i++) {
        block_ref held = alloc(&fixture.arena, sizes[i]),
                  attached = alloc(&fixture.arena, sizes[i]);
        block_ref shared = alloc(&fixture.arena, sizes[i]), others = 0;

        EXPECT(arena_alloc(&fixture.arena, OTHER, sizes[i], &others), 0);
        EXPECT(arena_attach(&fixture.arena, attached, OWNER, JOB), true);
        EXPECT(arena_share(&fixture.arena, shared, OWNER), true);
        arena_repair(&fixture.arena, OWNER);
        EXPECT(arena_free_held(&fixture.arena, held, OWNER), false);
        EXPECT(alloc(&fixture.arena, sizes[i]), held);
        EXPECT(arena_free_held(&fixture.arena, others, OTHER), true);
        EXPECT(arena_free_attached(&fixture.arena, attached, JOB), true);
        EXPECT(arena_free_shared(&fixture.arena, shared), true);
    }
    unmake(&fixture);
}

static void repair_gives_the_hints_again_that_the_dead_took(void)
{
    static block_ref refs[20000];
    struct fixture fixture;
    unsigned i, count;
    uint32_t index;

    make(&fixture, 4 * MEBIBYTE, LARGEST);
    count = alloc_all(&fixture.arena, 5000, refs, 20000);
    for (i = 0; i < count; i++)
        EXPECT(arena_free_held(&fixture.arena, refs[i], OWNER), true);
    while (freemap_take(&fixture.arena.size_class[ref_class(refs[0])].map, &index))
        ; /* and die before the claim */
    EXPECT(alloc_all(&fixture.arena, 5000, refs, 20000), 0);
    arena_repair(&fixture.arena, OWNER);
    EXPECT(alloc_all(&fixture.arena, 5000, refs, 20000), count);
    unmake(&fixture);
}

static void trim_gives_memory_of_free_blocks_back_and_they_are_usable_again(void)
{
    struct fixture fixture;
    unsigned char *kept_memory;
    block_ref kept, freed[3];
    uint64_t before, given;
    unsigned i;

    make(&fixture, 32 * MEBIBYTE, LARGEST);
    kept = alloc(&fixture.arena, MEBIBYTE);
    kept_memory = memory_of(&fixture.arena, kept, MEBIBYTE);
    memset(kept_memory, 9, MEBIBYTE);
    for (i = 0; i < 3; i++)
        freed[i] = alloc(&fixture.arena, MEBIBYTE);
    before = segment_committed(&fixture.segment);
    EXPECT(arena_trim(&fixture.arena, OTHER, 0), 0);
    EXPECT(segment_committed(&fixture.segment), before);
    for (i = 0; i < 3; i++)
        EXPECT(arena_free_held(&fixture.arena, freed[i], OWNER), true);
    given = arena_trim(&fixture.arena, OTHER, 0);
    EXPECT(given, 3 * MEBIBYTE);
    EXPECT(segment_committed(&fixture.segment), before - given);
    EXPECT(arena_trim(&fixture.arena, OTHER, 0), 0);
    EXPECT(kept_memory[0] == 9 && kept_memory[MEBIBYTE - 1] == 9, true);
    for (i = 0; i < 3; i++) {
        EXPECT(alloc(&fixture.arena, MEBIBYTE), freed[i]);
        memset(memory_of(&fixture.arena, freed[i], MEBIBYTE), 1, MEBIBYTE);
    }
    EXPECT(segment_committed(&fixture.segment), before);
    unmake(&fixture);
}

static void memory_goes_back_when_it_has_been_free_for_two_ticks_and_not_before(void)
{
    struct fixture fixture;
    struct arena *arena = &fixture.arena;
    block_ref idle, late, again;
    uint64_t before;
    int tick;

    make(&fixture, 32 * MEBIBYTE, LARGEST);
    idle = alloc(arena, MEBIBYTE);
    late = alloc(arena, MEBIBYTE);
    before = segment_committed(&fixture.segment);
    EXPECT(arena_free_held(arena, idle, OWNER), true);
    arena_tick(arena);
    EXPECT(arena_trim(arena, OTHER, 2), 0);
    arena_tick(arena);
    /* The one that was in use for so long begins to be idle only now. */
    EXPECT(arena_free_held(arena, late, OWNER), true);
    EXPECT(arena_trim(arena, OTHER, 2), MEBIBYTE);
    arena_tick(arena);
    EXPECT(arena_trim(arena, OTHER, 2), 0);
    EXPECT(segment_committed(&fixture.segment), before - MEBIBYTE);
    arena_tick(arena);
    EXPECT(arena_trim(arena, OTHER, 2), MEBIBYTE);
    /* In a burst, which uses a block at least once in two ticks, its pages stay. */
    again = alloc(arena, MEBIBYTE);
    EXPECT(again, idle);
    EXPECT(arena_free_held(arena, again, OWNER), true);
    before = segment_committed(&fixture.segment);
    for (tick = 0; tick < 10; tick++) {
        arena_tick(arena);
        EXPECT(arena_trim(arena, OTHER, 2), 0);
        EXPECT(alloc(arena, MEBIBYTE), again);
        EXPECT(segment_committed(&fixture.segment), before);
        EXPECT(arena_free_held(arena, again, OWNER), true);
    }
    unmake(&fixture);
}

/* ---- Threads ---- */

#define THREADS 4
#define ROUNDS (HARNESS_SANITIZED ? 3000 : 20000)

struct stress {
    struct fixture fixture;
    _Atomic uint32_t refused, foreign;
};

/* Fills its blocks and finds them as it left them; one thread trims and repairs meanwhile. */
static void use_blocks(void *context, unsigned number)
{
    struct stress *stress = context;
    struct arena *arena = &stress->fixture.arena;
    uint64_t random = number + 1;
    uint16_t owner = (uint16_t)(number + 1);
    unsigned round;

    for (round = 0; round < ROUNDS; round++) {
        uint64_t length = 0, size = harness_random(&random) % (round % 16 == 0 ? 200000 : 2000) + 8;
        void *memory = NULL;
        block_ref ref;

        if (number == 0 && round % 64 == 0) {
            arena_trim(arena, 100, 0);
            arena_repair(arena, 101);
        }
        if (arena_alloc(arena, owner, size, &ref) != 0) {
            stress->refused++;
            continue;
        }
        arena_lookup(arena, ref, &memory, &length);
        memset(memory, (int)owner, size);
        if (round % 2)
            arena_attach(arena, ref, owner, round);
        stress->foreign += ((unsigned char *)memory)[0] != owner ||
                           ((unsigned char *)memory)[size - 1] != owner || length != size;
        stress->refused += round % 2 ? !arena_free_attached(arena, ref, round)
                                     : !arena_free_held(arena, ref, owner);
    }
}

static void of_threads_each_has_its_blocks_for_itself(void)
{
    struct stress stress = {.refused = 0};

    make(&stress.fixture, 32 * MEBIBYTE, LARGEST);
    harness_threads(THREADS, use_blocks, &stress);
    EXPECT(stress.refused, 0);
    EXPECT(stress.foreign, 0);
    unmake(&stress.fixture);
}

static const struct harness_test tests[] = {
    TEST(a_block_of_any_size_is_aligned_inside_and_of_no_other_block),
    TEST(each_size_comes_from_the_smallest_class_that_it_fits),
    TEST(larger_than_the_largest_is_e2big),
    TEST(a_large_block_commits_what_it_needs_and_not_its_class),
    TEST(the_lowest_free_block_is_reused),
    TEST(exhaustion_is_enomem_and_what_is_freed_can_be_had_again),
    TEST(a_class_without_further_entries_is_enomem),
    TEST(each_transition_is_its_owners_and_no_other_is_possible),
    TEST(a_block_freed_twice_is_given_once),
    TEST(references_that_can_be_none_are_refused),
    TEST(any_block_that_is_found_lies_in_the_segment),
    TEST(a_size_larger_than_the_class_is_einval),
    TEST(a_scribbled_arena_neither_hangs_nor_leads_outside),
    TEST(repair_frees_what_the_dead_held_and_nothing_else),
    TEST(repair_gives_the_hints_again_that_the_dead_took),
    TEST(trim_gives_memory_of_free_blocks_back_and_they_are_usable_again),
    TEST(memory_goes_back_when_it_has_been_free_for_two_ticks_and_not_before),
    TEST(of_threads_each_has_its_blocks_for_itself),
};

HARNESS_MAIN("arena", tests)
