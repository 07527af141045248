/* The ring: order, growth, sealing, many threads, and what a hostile process can write. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include "harness.h"
/* The source itself: some tests lay out by hand what a slow or dead process leaves. */
#include "ring.c"

struct fixture {
    struct segment segment;
    struct ring ring;
};

/* Levels of 2^first to 2^last cells, between guard pages. */
static void make(struct fixture *fixture, unsigned first, unsigned last)
{
    uint64_t guard, end;

    segment_init(&fixture->segment, 64 * MEBIBYTE);
    guard = segment_reserve(&fixture->segment, fixture->segment.page);
    ring_plan(&fixture->ring, &fixture->segment, first, last);
    end = segment_reserve(&fixture->segment, fixture->segment.page);
    REQUIRE(segment_map(&fixture->segment), 0);
    EXPECT(mprotect(segment_at(&fixture->segment, guard), fixture->segment.page, PROT_NONE), 0);
    EXPECT(mprotect(segment_at(&fixture->segment, end), fixture->segment.page, PROT_NONE), 0);
    REQUIRE(ring_start(&fixture->ring), 0);
}

static void unmake(struct fixture *fixture)
{
    segment_unmap(&fixture->segment);
}

/* What is at the front, removed; -1: nothing. */
static int64_t pop(struct ring *ring)
{
    struct ring_cursor cursor;

    if (!ring_peek(ring, &cursor))
        return -1;
    ring_discard(ring, &cursor);
    return cursor.item;
}

/* ---- One process ---- */

static void an_empty_ring_has_nothing(void)
{
    struct fixture fixture;

    make(&fixture, 2, 4);
    EXPECT(pop(&fixture.ring), -1);
    EXPECT(pop(&fixture.ring), -1);
    EXPECT(ring_push(&fixture.ring, 7), 0);
    EXPECT(pop(&fixture.ring), 7);
    EXPECT(pop(&fixture.ring), -1);
    unmake(&fixture);
}

static void items_come_out_in_the_order_in_which_they_went_in(void)
{
    static const uint32_t items[] = {5, 0, UINT32_MAX - 1, 5, 1U << 31};
    struct fixture fixture;
    struct ring_cursor cursor;
    unsigned i;

    make(&fixture, 4, 4);
    for (i = 0; i < 5; i++)
        EXPECT(ring_push(&fixture.ring, items[i]), 0);
    for (i = 0; i < 5; i++) {
        EXPECT(ring_peek(&fixture.ring, &cursor), true); /* a look removes nothing */
        EXPECT(cursor.item, items[i]);
        EXPECT(pop(&fixture.ring), items[i]);
    }
    EXPECT(pop(&fixture.ring), -1);
    unmake(&fixture);
}

static void it_wraps_around_for_many_laps_at_every_filling(void)
{
    struct fixture fixture;
    uint32_t in = 0, out = 0, round;

    make(&fixture, 2, 6);
    for (round = 0; round < 20000; round++) {
        uint32_t filling = round % 4 + 1;

        while (in - out < filling)
            EXPECT(ring_push(&fixture.ring, in++), 0);
        while (in - out > round / 4 % filling)
            EXPECT(pop(&fixture.ring), out++);
    }
    EXPECT(in > 20000, true);
    /* It never held more than the 4 cells of its first level. */
    EXPECT(header_of(&fixture.ring)->producer, 0);
    unmake(&fixture);
}

static void the_lap_in_a_cell_wraps_around(void)
{
    struct fixture fixture;
    struct ring_level *words;
    uint32_t i, last_lap = UINT32_MAX - 1;

    make(&fixture, 2, 2);
    words = &header_of(&fixture.ring)->level[0];
    words->head = words->tail = (uint64_t)(last_lap / 2) * 4;
    for (i = 0; i < 4; i++)
        *cell_at(&fixture.ring, 0, i) = cell_make(0, last_lap);
    EXPECT(pop(&fixture.ring), -1);
    for (i = 0; i < 20; i++) {
        EXPECT(ring_push(&fixture.ring, i), 0);
        EXPECT(ring_push(&fixture.ring, i + 100), 0);
        EXPECT(pop(&fixture.ring), i);
        EXPECT(pop(&fixture.ring), i + 100);
        EXPECT(pop(&fixture.ring), -1);
    }
    unmake(&fixture);
}

static void a_full_level_goes_on_in_the_next_and_order_holds(void)
{
    struct fixture fixture;
    uint32_t i;

    make(&fixture, 2, 10);
    for (i = 0; i < 2000; i++)
        EXPECT(ring_push(&fixture.ring, i), 0);
    EXPECT(header_of(&fixture.ring)->producer, 8);
    for (i = 0; i < 2000; i++)
        EXPECT(pop(&fixture.ring), i);
    EXPECT(pop(&fixture.ring), -1);
    EXPECT(header_of(&fixture.ring)->consumer, 8);
    unmake(&fixture);
}

static void any_mixture_of_pushes_and_pops_is_a_queue(void)
{
    struct fixture fixture;
    uint64_t random = 42;
    uint32_t in = 0, out = 0;

    make(&fixture, 1, 9);
    while (in < 30000) {
        uint32_t some = harness_random(&random) % (in < 15000 ? 40 : 600);

        if (harness_random(&random) % 2) {
            while (some-- && ring_push(&fixture.ring, in) == 0)
                in++;
        } else {
            while (some-- && out < in)
                EXPECT(pop(&fixture.ring), out++);
            if (out == in)
                EXPECT(pop(&fixture.ring), -1);
        }
    }
    while (out < in)
        EXPECT(pop(&fixture.ring), out++);
    EXPECT(pop(&fixture.ring), -1);
    unmake(&fixture);
}

static void the_last_level_full_is_enomem_and_usable_afterwards(void)
{
    struct fixture fixture;
    uint32_t i, round;

    make(&fixture, 2, 4);
    for (i = 0; i < 4 + 8 + 16; i++)
        EXPECT(ring_push(&fixture.ring, i), 0);
    EXPECT(ring_push(&fixture.ring, 99), -ENOMEM);
    EXPECT(ring_push(&fixture.ring, 99), -ENOMEM);
    for (i = 0; i < 4 + 8 + 16; i++)
        EXPECT(pop(&fixture.ring), i);
    EXPECT(pop(&fixture.ring), -1);
    for (round = 0; round < 10; round++) {
        for (i = 0; i < 16; i++)
            EXPECT(ring_push(&fixture.ring, i), 0);
        EXPECT(ring_push(&fixture.ring, 99), -ENOMEM);
        for (i = 0; i < 16; i++)
            EXPECT(pop(&fixture.ring), i);
    }
    unmake(&fixture);
}

static void no_memory_for_a_level_is_enomem_and_usable_afterwards(void)
{
    struct fixture fixture;
    uint32_t i;

    make(&fixture, 9, 12); /* levels of 1, 2, 4, 8 pages */
    fixture.segment.limit = segment_committed(&fixture.segment) + 2 * fixture.segment.page;
    for (i = 0; i < 512 + 1024; i++)
        EXPECT(ring_push(&fixture.ring, i), 0);
    EXPECT(ring_push(&fixture.ring, 9999), -ENOMEM);
    EXPECT(pop(&fixture.ring), 0);
    /* The place is in a level that is done with. */
    EXPECT(ring_push(&fixture.ring, 9999), -ENOMEM);
    for (i = 1; i <= 512; i++)
        EXPECT(pop(&fixture.ring), i);
    EXPECT(ring_push(&fixture.ring, 512 + 1024), 0);
    EXPECT(ring_push(&fixture.ring, 9999), -ENOMEM);
    fixture.segment.limit = 64 * MEBIBYTE;
    for (i = 512 + 1025; i < 5000; i++)
        EXPECT(ring_push(&fixture.ring, i), 0);
    for (i = 513; i < 5000; i++)
        EXPECT(pop(&fixture.ring), i);
    unmake(&fixture);
}

/* ---- What several processes do to each other, step by step ---- */

static void a_second_discard_does_nothing(void)
{
    struct fixture fixture;
    struct ring_cursor cursor;

    make(&fixture, 2, 2);
    EXPECT(ring_push(&fixture.ring, 1), 0);
    EXPECT(ring_push(&fixture.ring, 2), 0);
    EXPECT(ring_peek(&fixture.ring, &cursor), true);
    ring_discard(&fixture.ring, &cursor);
    ring_discard(&fixture.ring, &cursor);
    EXPECT(pop(&fixture.ring), 2);
    EXPECT(pop(&fixture.ring), -1);
    unmake(&fixture);
}

static void a_stale_discard_does_not_remove_what_is_in_the_cell_now(void)
{
    struct fixture fixture;
    struct ring_cursor slow;
    uint32_t i;

    make(&fixture, 2, 2);
    EXPECT(ring_push(&fixture.ring, 1), 0);
    EXPECT(ring_peek(&fixture.ring, &slow), true);
    ring_discard(&fixture.ring, &slow);
    for (i = 0; i < 3; i++) {
        EXPECT(ring_push(&fixture.ring, 2), 0);
        EXPECT(pop(&fixture.ring), 2);
    }
    EXPECT(ring_push(&fixture.ring, 1), 0); /* the same item in the same cell */
    ring_discard(&fixture.ring, &slow);
    EXPECT(pop(&fixture.ring), 1);
    EXPECT(pop(&fixture.ring), -1);
    unmake(&fixture);
}

static void who_died_before_moving_head_or_tail_holds_up_nobody(void)
{
    struct fixture fixture;
    struct ring_level *words;
    uint32_t i;

    make(&fixture, 3, 3);
    words = &header_of(&fixture.ring)->level[0];
    for (i = 0; i < 100; i++) {
        EXPECT(ring_push(&fixture.ring, 2 * i), 0);
        words->tail -= i % 2; /* filled, and the tail not moved */
        EXPECT(ring_push(&fixture.ring, 2 * i + 1), 0);
        EXPECT(pop(&fixture.ring), 2 * i);
        words->head -= i % 3 == 0; /* discarded, and the head not moved */
        EXPECT(pop(&fixture.ring), 2 * i + 1);
        EXPECT(pop(&fixture.ring), -1);
    }
    unmake(&fixture);
}

static bool is_even(void *context, uint32_t item)
{
    (void)context;
    return item % 2 == 0;
}

static void the_length_is_what_was_pushed_and_not_removed(void)
{
    struct fixture fixture;
    uint32_t i;

    make(&fixture, 2, 10);
    EXPECT(ring_length(&fixture.ring), 0);
    EXPECT(ring_count(&fixture.ring, 5, is_even, NULL), 0);
    for (i = 0; i < 2000; i++) {
        EXPECT(ring_push(&fixture.ring, i), 0);
        EXPECT(ring_length(&fixture.ring), i + 1);
    }
    EXPECT(ring_count(&fixture.ring, UINT64_MAX, is_even, NULL), 1000);
    EXPECT(ring_count(&fixture.ring, 77, is_even, NULL), 77);
    for (i = 2000; i-- > 0;) {
        EXPECT(pop(&fixture.ring) >= 0, true);
        EXPECT(ring_length(&fixture.ring), i);
        EXPECT(ring_count(&fixture.ring, 1000, is_even, NULL), i / 2);
    }
    unmake(&fixture);
}

static void the_length_is_off_by_one_where_somebody_died_before_moving_the_tail(void)
{
    struct fixture fixture;
    struct ring_level *words;
    uint32_t i;

    make(&fixture, 3, 3);
    words = &header_of(&fixture.ring)->level[0];
    for (i = 0; i < 100; i++) {
        EXPECT(ring_push(&fixture.ring, 0), 0);
        words->tail--;
        EXPECT(ring_length(&fixture.ring), 0);
        EXPECT(ring_push(&fixture.ring, 0), 0); /* moves it for the dead, too */
        EXPECT(ring_length(&fixture.ring), 2);
        EXPECT(pop(&fixture.ring), 0);
        words->head--;
        EXPECT(ring_length(&fixture.ring), 2);
        EXPECT(ring_count(&fixture.ring, 9, is_even, NULL), 1);
        EXPECT(pop(&fixture.ring), 0);
        EXPECT(ring_length(&fixture.ring), 0);
        words->tail--; /* behind the head, for a moment, where a consumer was quicker */
        EXPECT(ring_length(&fixture.ring), 0);
        words->tail++;
    }
    unmake(&fixture);
}

/* Fills level 0, goes on in level 1, and drains level 0 up to but not including the look that
 * finds it empty. */
static void drain_first_level(struct fixture *fixture)
{
    uint32_t i;

    make(fixture, 2, 3);
    for (i = 0; i < 5; i++)
        EXPECT(ring_push(&fixture->ring, i), 0);
    for (i = 0; i < 4; i++)
        EXPECT(pop(&fixture->ring), i);
    EXPECT(header_of(&fixture->ring)->producer, 1);
    EXPECT(header_of(&fixture->ring)->consumer, 0);
}

static void a_slow_producer_finds_a_drained_level_sealed(void)
{
    struct fixture fixture;
    struct ring_level *words;
    uint64_t tail;

    drain_first_level(&fixture);
    EXPECT(pop(&fixture.ring), 4);
    EXPECT(header_of(&fixture.ring)->consumer, 1);
    /* The slow one had read producer == 0, and whatever tail there was then. */
    words = &header_of(&fixture.ring)->level[0];
    for (tail = 0; tail <= 4; tail++) {
        words->tail = tail;
        EXPECT(push_level(&fixture.ring, 0, 50), FULL);
    }
    EXPECT(ring_push(&fixture.ring, 6), 0);
    EXPECT(pop(&fixture.ring), 6);
    EXPECT(pop(&fixture.ring), -1);
    unmake(&fixture);
}

static void a_slow_producer_that_comes_before_the_seal_is_served_first(void)
{
    struct fixture fixture;

    drain_first_level(&fixture);
    EXPECT(push_level(&fixture.ring, 0, 50), PUSHED);
    EXPECT(pop(&fixture.ring), 50);
    EXPECT(pop(&fixture.ring), 4);
    EXPECT(push_level(&fixture.ring, 0, 51), FULL);
    EXPECT(pop(&fixture.ring), -1);
    unmake(&fixture);
}

static void a_consumer_that_died_between_seal_and_move_holds_up_nobody(void)
{
    struct fixture fixture;

    drain_first_level(&fixture);
    EXPECT(pop(&fixture.ring), 4);
    header_of(&fixture.ring)->consumer = 0; /* the move did not happen */
    EXPECT(ring_push(&fixture.ring, 5), 0);
    EXPECT(pop(&fixture.ring), 5);
    EXPECT(header_of(&fixture.ring)->consumer, 1);
    unmake(&fixture);
}

/* ---- Threads ---- */

#define PRODUCERS 3
#define CONSUMERS 3
#define EACH (HARNESS_SANITIZED ? 50000U : 300000U)

struct stress {
    struct fixture fixture;
    /* Not atomic: that the ring orders a producer's write before a consumer's read is a part of
     * what ThreadSanitizer looks at. */
    uint32_t *payload;
    _Atomic uint32_t *claims; /* 1 once the item has been claimed */
    _Atomic uint32_t claimed, doubled, disorder, wrong;
};

static void produce(struct stress *stress, unsigned producer)
{
    uint32_t i, item;

    for (i = 0; i < EACH; i++) {
        item = producer * EACH + i;
        stress->payload[item] = ~item;
        while (ring_push(&stress->fixture.ring, item) != 0)
            sched_yield(); /* all levels are full */
    }
}

static void consume(struct stress *stress)
{
    uint32_t next[PRODUCERS] = {0};
    struct ring_cursor cursor;

    while (atomic_load(&stress->claimed) < PRODUCERS * EACH) {
        uint32_t expected = 0;

        stress->wrong += ring_length(&stress->fixture.ring) > PRODUCERS * EACH;
        if (!ring_peek(&stress->fixture.ring, &cursor)) {
            sched_yield();
            continue;
        }
        if (atomic_compare_exchange_strong(&stress->claims[cursor.item], &expected, 1)) {
            uint32_t producer = cursor.item / EACH, number = cursor.item % EACH;

            atomic_fetch_add(&stress->claimed, 1);
            stress->disorder += number < next[producer];
            next[producer] = number + 1;
            stress->wrong += stress->payload[cursor.item] != ~cursor.item;
        } else {
            stress->doubled += expected != 1;
        }
        ring_discard(&stress->fixture.ring, &cursor);
    }
}

static void produce_or_consume(void *context, unsigned number)
{
    if (number < PRODUCERS)
        produce(context, number);
    else
        consume(context);
}

static void run_stress(unsigned first, unsigned last)
{
    static uint32_t payload[PRODUCERS * EACH];
    static _Atomic uint32_t claims[PRODUCERS * EACH];
    struct stress stress = {.payload = payload, .claims = claims};
    uint32_t i, missing = 0;

    memset((void *)claims, 0, sizeof claims);
    make(&stress.fixture, first, last);
    harness_threads(PRODUCERS + CONSUMERS, produce_or_consume, &stress);
    for (i = 0; i < PRODUCERS * EACH; i++)
        missing += claims[i] != 1;
    EXPECT(missing, 0);
    EXPECT(stress.claimed, PRODUCERS * EACH);
    EXPECT(stress.doubled, 0);
    EXPECT(stress.disorder, 0);
    EXPECT(stress.wrong, 0);
    EXPECT(pop(&stress.fixture.ring), -1);
    unmake(&stress.fixture);
}

static void threads_get_each_item_once_and_in_order_through_eight_cells(void)
{
    run_stress(3, 3);
}

static void threads_get_each_item_once_and_in_order_while_the_ring_grows(void)
{
    run_stress(1, 18);
}

/* ---- A hostile process ---- */

static const uint64_t evil[] = {0,
                                1,
                                3,
                                4,
                                5,
                                1U << 20,
                                (uint64_t)0x60000000 << 2,
                                UINT32_MAX - 1,
                                UINT32_MAX,
                                (uint64_t)1 << 32,
                                (uint64_t)0x50000003 << 3,
                                (uint64_t)1 << 62,
                                (uint64_t)1 << 63,
                                UINT64_MAX - 1,
                                UINT64_MAX};
#define EVILS (sizeof evil / sizeof *evil)

/* A few calls, each of which has to return. */
static void use(struct ring *ring)
{
    struct ring_cursor cursor;
    int i;

    for (i = 0; i < 20; i++) {
        (void)ring_push(ring, 1);
        if (ring_peek(ring, &cursor))
            ring_discard(ring, &cursor);
        (void)ring_length(ring);
        (void)ring_count(ring, 10, is_even, NULL);
    }
}

static void empty_all_cells(struct ring *ring)
{
    memset(segment_at(ring->segment, ring->cells), 0,
           ((UINT64_C(1) << ring->levels) - 1) << ring->first_bits << 3);
}

static void scribble_levels(void *context)
{
    struct fixture *fixture = context;
    struct ring_header *header = header_of(&fixture->ring);
    unsigned i, j;

    for (i = 0; i < EVILS; i++)
        for (j = 0; j < EVILS; j++) {
            empty_all_cells(&fixture->ring);
            header->producer = (uint32_t)evil[i];
            header->consumer = (uint32_t)evil[j];
            use(&fixture->ring);
        }
}

static void scribble_heads_and_tails(void *context)
{
    struct fixture *fixture = context;
    struct ring_header *header = header_of(&fixture->ring);
    unsigned i, j, level;

    for (i = 0; i < EVILS; i++)
        for (j = 0; j < EVILS; j++) {
            empty_all_cells(&fixture->ring);
            header->producer = header->consumer = 0;
            for (level = 0; level < fixture->ring.levels; level++) {
                header->level[level].head = evil[i];
                header->level[level].tail = evil[j];
            }
            use(&fixture->ring);
        }
}

static void scribble_everything(void *context)
{
    struct fixture *fixture = context;
    uint64_t *words = segment_at(&fixture->segment, fixture->ring.header);
    uint64_t i, count = (fixture->segment.size - 2 * fixture->segment.page) / sizeof *words;
    uint64_t random = 7, round;

    for (round = 0; round < 30; round++) {
        for (i = 0; i < count; i++)
            words[i] = harness_random(&random) >> (harness_random(&random) % 64);
        header_of(&fixture->ring)->producer = round % 4;
        header_of(&fixture->ring)->consumer = round % 3;
        use(&fixture->ring);
    }
}

/* In a child, so that a call that never returns, or leaves the mapping, fails this test alone. */
static void expect_bounded(void (*scribble)(void *context))
{
    struct fixture fixture;

    make(&fixture, 2, 5);
    EXPECT(harness_fork(scribble, &fixture, 5), 0);
    unmake(&fixture);
}

static void scribbled_level_numbers_neither_hang_nor_lead_outside(void)
{
    expect_bounded(scribble_levels);
}

static void scribbled_heads_and_tails_neither_hang_nor_lead_outside(void)
{
    expect_bounded(scribble_heads_and_tails);
}

static void a_scribbled_ring_neither_hangs_nor_leads_outside(void)
{
    expect_bounded(scribble_everything);
}

static const struct harness_test tests[] = {
    TEST(an_empty_ring_has_nothing),
    TEST(items_come_out_in_the_order_in_which_they_went_in),
    TEST(it_wraps_around_for_many_laps_at_every_filling),
    TEST(the_lap_in_a_cell_wraps_around),
    TEST(a_full_level_goes_on_in_the_next_and_order_holds),
    TEST(any_mixture_of_pushes_and_pops_is_a_queue),
    TEST(the_last_level_full_is_enomem_and_usable_afterwards),
    TEST(no_memory_for_a_level_is_enomem_and_usable_afterwards),
    TEST(a_second_discard_does_nothing),
    TEST(a_stale_discard_does_not_remove_what_is_in_the_cell_now),
    TEST(who_died_before_moving_head_or_tail_holds_up_nobody),
    TEST(the_length_is_what_was_pushed_and_not_removed),
    TEST(the_length_is_off_by_one_where_somebody_died_before_moving_the_tail),
    TEST(a_slow_producer_finds_a_drained_level_sealed),
    TEST(a_slow_producer_that_comes_before_the_seal_is_served_first),
    TEST(a_consumer_that_died_between_seal_and_move_holds_up_nobody),
    TEST(threads_get_each_item_once_and_in_order_through_eight_cells),
    TEST(threads_get_each_item_once_and_in_order_while_the_ring_grows),
    TEST(scribbled_level_numbers_neither_hang_nor_lead_outside),
    TEST(scribbled_heads_and_tails_neither_hang_nor_lead_outside),
    TEST(a_scribbled_ring_neither_hangs_nor_leads_outside),
};

HARNESS_MAIN("ring", tests)
