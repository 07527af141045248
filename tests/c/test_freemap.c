/* The free map: lowest first, borders between words, threads, lost and forged hints. */
#include <string.h>

#include "harness.h"
/* The source itself: some tests take away or forge what a dead or hostile process leaves. */
#include "freemap.c"

struct fixture {
    struct segment segment;
    struct freemap map;
};

static void make(struct fixture *fixture, uint32_t entries)
{
    segment_init(&fixture->segment, 64 * MEBIBYTE);
    freemap_plan(&fixture->map, &fixture->segment, entries);
    REQUIRE(segment_map(&fixture->segment), 0);
    REQUIRE(freemap_commit(&fixture->map, entries), 0);
}

static void unmake(struct fixture *fixture)
{
    segment_unmap(&fixture->segment);
}

/* The index that is taken, -1: none. */
static int64_t take(struct freemap *map)
{
    uint32_t index;

    return freemap_take(map, &index) ? (int64_t)index : -1;
}

static void the_lowest_is_taken_first(void)
{
    static const uint32_t given[] = {299999, 70, 4096, 63, 64, 262144, 5, 262143, 4095};
    static const uint32_t taken[] = {5, 63, 64, 70, 4095, 4096, 262143, 262144, 299999};
    struct fixture fixture;
    unsigned i;

    make(&fixture, 300000);
    EXPECT(take(&fixture.map), -1);
    for (i = 0; i < 9; i++)
        freemap_set(&fixture.map, given[i]);
    for (i = 0; i < 9; i++)
        EXPECT(take(&fixture.map), taken[i]);
    EXPECT(take(&fixture.map), -1);
    unmake(&fixture);
}

static void what_is_set_twice_is_taken_once(void)
{
    struct fixture fixture;

    make(&fixture, 100);
    freemap_set(&fixture.map, 7);
    freemap_set(&fixture.map, 7);
    freemap_repair(&fixture.map, 100);
    EXPECT(take(&fixture.map), 7);
    EXPECT(take(&fixture.map), -1);
    freemap_set(&fixture.map, 7);
    EXPECT(take(&fixture.map), 7);
    EXPECT(take(&fixture.map), -1);
    unmake(&fixture);
}

static void each_entry_is_taken_until_there_is_none(void)
{
    struct fixture fixture;
    uint32_t i, entries = 5000, wrong = 0;

    make(&fixture, entries);
    for (i = 0; i < entries; i++)
        freemap_set(&fixture.map, i);
    for (i = 0; i < entries; i++)
        wrong += take(&fixture.map) != i;
    EXPECT(wrong, 0);
    EXPECT(take(&fixture.map), -1);
    for (i = entries; i-- > 0;)
        freemap_set(&fixture.map, i);
    for (i = 0; i < entries; i++)
        wrong += take(&fixture.map) != i;
    EXPECT(wrong, 0);
    EXPECT(take(&fixture.map), -1);
    unmake(&fixture);
}

static void entries_at_the_borders_of_words_are_found_alone(void)
{
    static const uint32_t borders[] = {0,      1,      62,     63,     64,     65,     127,
                                       128,    4094,   4095,   4096,   4097,   8191,   8192,
                                       262142, 262143, 262144, 262145, 524287, 524288, 699999};
    struct fixture fixture;
    unsigned i;

    make(&fixture, 700000);
    for (i = 0; i < sizeof borders / sizeof *borders; i++) {
        freemap_set(&fixture.map, borders[i]);
        EXPECT(take(&fixture.map), borders[i]);
        EXPECT(take(&fixture.map), -1);
    }
    unmake(&fixture);
}

static void maps_of_every_size_have_their_last_entry_and_no_more(void)
{
    static const uint32_t sizes[] = {1,    2,    63,     64,     65,     4095,
                                     4096, 4097, 262143, 262144, 262145, FREEMAP_MAX};
    struct fixture fixture;
    unsigned i;

    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        make(&fixture, sizes[i]);
        freemap_set(&fixture.map, sizes[i]);
        freemap_set(&fixture.map, UINT32_MAX);
        EXPECT(take(&fixture.map), -1);
        freemap_set(&fixture.map, sizes[i] - 1);
        EXPECT(take(&fixture.map), sizes[i] - 1);
        EXPECT(take(&fixture.map), -1);
        unmake(&fixture);
    }
}

static void commit_takes_only_what_the_entries_need(void)
{
    struct fixture fixture;

    segment_init(&fixture.segment, 64 * MEBIBYTE);
    freemap_plan(&fixture.map, &fixture.segment, FREEMAP_MAX);
    REQUIRE(segment_map(&fixture.segment), 0);
    EXPECT(freemap_commit(&fixture.map, 100), 0);
    EXPECT(segment_committed(&fixture.segment), 3 * fixture.segment.page);
    EXPECT(freemap_commit(&fixture.map, FREEMAP_MAX), 0);
    EXPECT(segment_committed(&fixture.segment), fixture.segment.size);
    segment_unmap(&fixture.segment);
}

/* ---- Lost and forged hints ---- */

static void repair_finds_what_a_process_left_without_summaries(void)
{
    static const uint32_t lost[] = {0, 64, 4095, 4096, 262143, 262144, 299999};
    struct fixture fixture;
    unsigned i;

    make(&fixture, 300000);
    for (i = 0; i < 7; i++) { /* died after the bit and before any summary */
        shared_or(word_at(&fixture.map, 0, lost[i] >> 6), UINT64_C(1) << (lost[i] & 63), SEQ_CST);
        EXPECT(take(&fixture.map), -1);
    }
    freemap_repair(&fixture.map, 300000);
    for (i = 0; i < 7; i++)
        EXPECT(take(&fixture.map), lost[i]);
    EXPECT(take(&fixture.map), -1);
    for (i = 0; i < 7; i++) { /* died between the summaries */
        freemap_set(&fixture.map, lost[i]);
        *word_at(&fixture.map, 2, lost[i] >> 18) = 0;
    }
    EXPECT(take(&fixture.map), -1);
    freemap_repair(&fixture.map, 300000);
    for (i = 0; i < 7; i++)
        EXPECT(take(&fixture.map), lost[i]);
    EXPECT(take(&fixture.map), -1);
    unmake(&fixture);
}

static void repair_of_no_entries_and_of_more_than_there_are_is_harmless(void)
{
    struct fixture fixture;

    make(&fixture, 65);
    freemap_repair(&fixture.map, 0);
    freemap_repair(&fixture.map, UINT32_MAX);
    EXPECT(take(&fixture.map), -1);
    freemap_set(&fixture.map, 64);
    freemap_repair(&fixture.map, UINT32_MAX);
    EXPECT(take(&fixture.map), 64);
    unmake(&fixture);
}

static void summaries_that_lead_nowhere_are_passed_over(void)
{
    struct fixture fixture;

    make(&fixture, 300000);
    *word_at(&fixture.map, 2, 0) = UINT64_C(0xff);
    *word_at(&fixture.map, 1, 3) = UINT64_C(0xf0);
    freemap_set(&fixture.map, 200000);
    EXPECT(take(&fixture.map), 200000);
    EXPECT(take(&fixture.map), -1);
    EXPECT(*word_at(&fixture.map, 2, 0), 0);
    EXPECT(*word_at(&fixture.map, 1, 3), 0);
    unmake(&fixture);
}

static void take_from_scribbled_words(void *context)
{
    struct fixture *fixture = context;
    uint64_t random = 3, *words = segment_at(&fixture->segment, 0);
    uint64_t i, count = fixture->segment.size / sizeof *words, round;

    for (round = 0; round < 50; round++) {
        uint32_t index, calls = 0;

        for (i = 0; i < count; i++)
            words[i] = harness_random(&random) >> (harness_random(&random) % 64);
        while (calls++ < 1000 && freemap_take(&fixture->map, &index))
            EXPECT(index < fixture->map.entries, true);
        freemap_set(&fixture->map, (uint32_t)round);
        freemap_repair(&fixture->map, (uint32_t)harness_random(&random));
    }
}

static void a_scribbled_map_neither_hangs_nor_gives_an_entry_that_is_none(void)
{
    static const uint32_t sizes[] = {1, 100, 5000, 300000};
    struct fixture fixture;
    unsigned i;

    for (i = 0; i < 4; i++) {
        make(&fixture, sizes[i]);
        EXPECT(harness_fork(take_from_scribbled_words, &fixture, 10), 0);
        unmake(&fixture);
    }
}

/* ---- Threads ---- */

#define THREADS 4
#define ROUNDS (HARNESS_SANITIZED ? 100000 : 500000)

struct stress {
    struct fixture fixture;
    _Atomic uint32_t *owned;
    /* Not atomic: that the map orders who had an entry before who has it next is a part of what
     * ThreadSanitizer looks at. */
    uint32_t *plain;
    _Atomic uint32_t shared_entries, takes;
};

static void take_and_set(void *context, unsigned number)
{
    struct stress *stress = context;
    uint64_t random = number + 1;
    uint32_t index, held[8];
    unsigned count = 0, round;

    for (round = 0; round < ROUNDS; round++) {
        if (count < 8 && harness_random(&random) % 2 &&
            freemap_take(&stress->fixture.map, &index)) {
            stress->shared_entries += atomic_exchange(&stress->owned[index], 1) != 0;
            stress->plain[index]++;
            stress->takes++;
            held[count++] = index;
        } else if (count) {
            index = held[--count];
            stress->plain[index]++;
            atomic_store(&stress->owned[index], 0);
            freemap_set(&stress->fixture.map, index);
        }
    }
    while (count) {
        index = held[--count];
        atomic_store(&stress->owned[index], 0);
        freemap_set(&stress->fixture.map, index);
    }
}

/* `count` entries, `stride` apart, among threads. */
static void run_stress(uint32_t count, uint32_t stride)
{
    static _Atomic uint32_t owned[300000];
    static uint32_t plain[300000];
    struct stress stress = {.owned = owned, .plain = plain};
    uint32_t i, lost = 0;

    memset((void *)owned, 0, sizeof owned);
    make(&stress.fixture, count * stride);
    for (i = 0; i < count; i++)
        freemap_set(&stress.fixture.map, i * stride);
    harness_threads(THREADS, take_and_set, &stress);
    EXPECT(stress.shared_entries, 0);
    EXPECT(stress.takes > 0, true);
    for (i = 0; i < count; i++)
        lost += take(&stress.fixture.map) != (int64_t)i * stride;
    EXPECT(lost, 0);
    EXPECT(take(&stress.fixture.map), -1);
    unmake(&stress.fixture);
}

static void of_threads_one_has_an_entry_at_a_time(void)
{
    run_stress(100, 1);
}

/* Words become empty and filled all the time, and their summaries with them. */
static void entries_alone_in_their_words_are_never_lost(void)
{
    run_stress(3, 1);
    run_stress(3, 64);
    run_stress(3, 4096);
    run_stress(2, 140000);
}

static const struct harness_test tests[] = {
    TEST(the_lowest_is_taken_first),
    TEST(what_is_set_twice_is_taken_once),
    TEST(each_entry_is_taken_until_there_is_none),
    TEST(entries_at_the_borders_of_words_are_found_alone),
    TEST(maps_of_every_size_have_their_last_entry_and_no_more),
    TEST(commit_takes_only_what_the_entries_need),
    TEST(repair_finds_what_a_process_left_without_summaries),
    TEST(repair_of_no_entries_and_of_more_than_there_are_is_harmless),
    TEST(summaries_that_lead_nowhere_are_passed_over),
    TEST(a_scribbled_map_neither_hangs_nor_gives_an_entry_that_is_none),
    TEST(of_threads_one_has_an_entry_at_a_time),
    TEST(entries_alone_in_their_words_are_never_lost),
};

HARNESS_MAIN("freemap", tests)
