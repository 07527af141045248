/* The ring alone: producers and consumers that overtake each other, and die, between any two steps.
 *
 * As in the pool, an item names a thing with a word of its own: who wants it claims that word, and
 * then discards the cell. What has been pushed by the time that all are done must be there still.
 */
#include <errno.h>
#include <string.h>

#include "explore.h"
/* The source itself, for what a state must look like. */
#include "ring.c"

#define ITEMS_MAX 8 /* of one producer */

struct variant {
    const char *name;
    int producers, consumers;
    int items, looks; /* of each producer, and of each consumer */
    unsigned first_bits, last_bits;
    uint32_t
        laps_left; /* to the lap in which the sequence overflows; 0: start with the first lap */
    int deaths, preemptions;
    bool longer;
};

static const struct variant *variant;
static struct ring ring;
static _Atomic uint64_t *claims;
/* What came of a push that returned; of one producer each. */
static enum { NOT_YET, IN, REFUSED } pushed[EXPLORE_PROCESSES * ITEMS_MAX];

/* As if the ring had been in use for long: in the lap that is so far from the overflow, all
 * cells but the last are done with. */
static void wind_on(uint32_t laps_left)
{
    struct ring_level *words = &header_of(&ring)->level[0];
    uint64_t size = (uint64_t)1 << level_bits(&ring, 0);
    uint64_t position = ((UINT64_C(1) << 31) - laps_left) * size + size - 1, i;

    for (i = 0; i < size; i++)
        shared_store(cell_at(&ring, 0, i),
                     empty_sequence(&ring, 0, i == size - 1 ? position : position + size), RELAXED);
    shared_store(&words->head, position, RELAXED);
    shared_store(&words->tail, position, RELAXED);
}

static void setup(void)
{
    static struct segment segment;

    memset(pushed, 0, sizeof pushed);
    segment_init(&segment, EXPLORE_MEMORY);
    ring_plan(&ring, &segment, variant->first_bits, variant->last_bits);
    claims = segment_at(&segment,
                        segment_reserve(&segment, sizeof *claims * EXPLORE_PROCESSES * ITEMS_MAX));
    ring_start(&ring);
    if (variant->laps_left)
        wind_on(variant->laps_left);
}

static void produce(int process)
{
    uint64_t refused = 0;
    int i;

    for (i = 0; i < variant->items; i++) {
        uint32_t item = (uint32_t)(process * ITEMS_MAX + i);
        int error;

        explore_forget((uint64_t)i << 32 | refused);
        error = ring_push(&ring, item);
        if (error && error != -ENOMEM)
            explore_fail("a push failed in a way that it can't");
        if (error && variant->last_bits > 2)
            explore_fail("a push was refused, and there is room to grow");
        pushed[item] = error ? REFUSED : IN;
        refused |= (uint64_t)(error != 0) << i;
    }
}

/* Takes the item at the front, if there is one; who is done with it already counts as well. */
static bool pop(uint64_t who)
{
    struct ring_cursor cursor;
    uint64_t unclaimed = 0;
    int i;

    if (!ring_peek(&ring, &cursor))
        return false;
    if (cursor.item >= (uint32_t)variant->producers * ITEMS_MAX ||
        cursor.item % ITEMS_MAX >= (uint32_t)variant->items)
        explore_fail("an item that nobody has pushed");
    if (pushed[cursor.item] == REFUSED)
        explore_fail("an item whose push was refused");
    if (shared_cas(&claims[cursor.item], &unclaimed, who, ACQ_REL)) {
        for (i = (int)(cursor.item % ITEMS_MAX); i > 0; i--)
            if (pushed[cursor.item - (uint32_t)i] == IN && !claims[cursor.item - (uint32_t)i])
                explore_fail("an item overtook an earlier one of the same producer");
    } else if (variant->consumers == 1 && who != UINT64_MAX) {
        explore_fail("an item came twice");
    }
    ring_discard(&ring, &cursor);
    return true;
}

static void body(int process)
{
    int i;

    if (process < variant->producers)
        produce(process);
    else
        for (i = 0; i < variant->looks; i++) {
            explore_forget((uint64_t)i);
            pop((uint64_t)process + 1);
        }
}

/* Whether the cell of `position` has been brought at least so far in its lap: 1 filled, 2 done. */
static bool came_to(uint32_t level, uint64_t position, int32_t progress)
{
    uint64_t cell = *cell_at(&ring, level, position);

    return cell == SEALED ||
           (int32_t)(cell_sequence(cell) - empty_sequence(&ring, level, position)) >= progress;
}

/* The hints are never ahead of the truth. */
static void observe(void)
{
    struct ring_header *header = header_of(&ring);
    uint32_t level;

    if (header->consumer > header->producer || header->producer >= ring.levels)
        explore_fail("the consumers' level is ahead of the producers'");
    for (level = 0; level < ring.levels; level++) {
        struct ring_level *words = &header->level[level];

        if (words->tail && !came_to(level, words->tail - 1, 1))
            explore_fail("the tail is past a cell that was not filled");
        if (words->head && !came_to(level, words->head - 1, 2))
            explore_fail("the head is past a cell that is not done with");
    }
}

static void check(void)
{
    struct ring_cursor cursor;
    int item;

    while (pop(UINT64_MAX))
        ;
    for (item = 0; item < variant->producers * ITEMS_MAX; item++) {
        if (pushed[item] == IN && !claims[item])
            explore_fail("an item whose push had returned is lost");
        if (pushed[item] == NOT_YET && item % ITEMS_MAX < variant->items && !explore_deaths())
            explore_fail("a push did not return");
    }
    if (ring_push(&ring, 0) != 0 || !ring_peek(&ring, &cursor))
        explore_fail("an empty ring takes nothing");
}

static void explore_variant(const struct variant *what)
{
    struct explore_scenario scenario = {.name = what->name,
                                        .processes = what->producers + what->consumers,
                                        .setup = setup,
                                        .body = body,
                                        /* With a death what matters is what comes of it. */
                                        .observe = what->deaths ? NULL : observe,
                                        .check = check,
                                        .mortal = ~0U,
                                        .deaths = what->deaths,
                                        .repairer = -1,
                                        .preemptions = what->preemptions,
                                        .operation = 60};

    variant = what;
    explore_report(&scenario, what->longer);
}

int main(int argc, char **argv)
{
    static const struct variant variants[] = {
        {"1 + 1, 2 cells, full", 1, 1, 4, 4, 1, 1, 0, 0, -1, false},
        {"2 + 1, 2 cells, full", 2, 1, 2, 3, 1, 1, 0, 0, -1, false},
        {"1 + 2, 2 cells, full", 1, 2, 3, 2, 1, 1, 0, 0, -1, false},
        {"2 + 2, 2 cells, full", 2, 2, 2, 2, 1, 1, 0, 0, 3, false},
        {"2 + 1, 4 cells", 2, 1, 2, 4, 2, 2, 0, 0, -1, false},
        {"1 + 1, 2 cells, wraps", 1, 1, 4, 4, 1, 1, 1, 0, -1, false},
        {"2 + 1, 2 cells, wraps", 2, 1, 2, 3, 1, 1, 1, 0, -1, false},
        {"1 + 1, 2 cells, grows", 1, 1, 7, 3, 1, 3, 0, 0, -1, false},
        {"2 + 1, 2 cells, grows", 2, 1, 2, 3, 1, 3, 0, 0, -1, false},
        {"1 + 2, 2 cells, grows", 1, 2, 3, 2, 1, 3, 0, 0, -1, false},
        {"2 + 2, 2 cells, grows", 2, 2, 2, 2, 1, 3, 0, 0, 3, false},
        {"2 + 1, 2 cells, grows and wraps", 2, 1, 2, 3, 1, 3, 1, 0, -1, false},
        {"1 + 2, 2 cells, grows, then wraps", 1, 2, 4, 3, 1, 3, 2, 0, -1, false},
        {"1 + 1, 2 cells, full; 2 deaths", 1, 1, 4, 4, 1, 1, 0, 2, -1, false},
        {"2 + 1, 2 cells, full; a death", 2, 1, 2, 3, 1, 1, 0, 1, -1, false},
        {"1 + 2, 2 cells, full; a death", 1, 2, 3, 2, 1, 1, 0, 1, -1, false},
        {"2 + 2, 2 cells, full; a death", 2, 2, 2, 2, 1, 1, 0, 1, 2, false},
        {"1 + 1, 2 cells, grows; 2 deaths", 1, 1, 7, 3, 1, 3, 0, 2, -1, false},
        {"2 + 1, 2 cells, grows; a death", 2, 1, 2, 3, 1, 3, 0, 1, 3, false},
        {"1 + 2, 2 cells, grows; a death", 1, 2, 3, 2, 1, 3, 0, 1, -1, false},
        {"2 + 2, 2 cells, grows; a death", 2, 2, 2, 2, 1, 3, 0, 1, 2, false},
        {"every 2 + 2, 2 cells, full", 2, 2, 2, 2, 1, 1, 0, 0, -1, true},
        {"every 2 + 2, 2 cells, grows", 2, 2, 2, 2, 1, 3, 0, 0, -1, true},
        {"every 2 + 1, 2 cells, grows; a death", 2, 1, 2, 3, 1, 3, 0, 1, -1, true},
        {"every 2 + 2, 2 cells, full; a death", 2, 2, 2, 2, 1, 1, 0, 1, -1, true},
        {"more 2 + 2, 2 cells, grows; 2 deaths", 2, 2, 2, 2, 1, 3, 0, 2, 3, true},
    };
    size_t i;

    explore_arguments(argc, argv);
    for (i = 0; i < sizeof variants / sizeof *variants; i++)
        explore_variant(&variants[i]);
    return explore_finish();
}
