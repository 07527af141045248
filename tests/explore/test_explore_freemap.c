/* The free map alone: hints in different words, so that summaries come and go while they are
 * needed. Who takes a hint claims the entry's own word, and gives the hint again when it is done.
 */
#include <string.h>

#include "atomic.h"
#include "explore.h"
#include "freemap.h"

#define FREE_MAX 3

struct variant {
    const char *name;
    int processes, rounds;
    uint32_t entries;
    int free_count;
    uint32_t free[FREE_MAX]; /* the entries that are free at the start, all that there are */
    int deaths, preemptions;
    bool longer;
};

static const struct variant *variant;
static struct freemap map;
static _Atomic uint64_t *owners; /* of the free entries: 0, or a process + 1 */
static int misses[EXPLORE_PROCESSES];

static void setup(void)
{
    static struct segment segment;
    int i;

    memset(misses, 0, sizeof misses);
    segment_init(&segment, EXPLORE_MEMORY);
    freemap_plan(&map, &segment, variant->entries);
    owners = segment_at(&segment, segment_reserve(&segment, FREE_MAX * sizeof *owners));
    for (i = 0; i < variant->free_count; i++)
        freemap_set(&map, variant->free[i]);
}

/* Words of bits that lead to no free entry stay 0. */
static bool concerns_nobody(int process, const volatile void *address)
{
    const _Atomic uint64_t *words = segment_at(map.segment, map.level[0]);
    const volatile unsigned char *at = address;
    int i;

    (void)process;
    for (i = 0; i < variant->free_count; i++)
        if (at == (const unsigned char *)&words[variant->free[i] / 64])
            return false;
    return at >= (const unsigned char *)words &&
           at < (const unsigned char *)&words[variant->entries / 64];
}

static int number_of(uint32_t index)
{
    int i;

    for (i = 0; i < variant->free_count; i++)
        if (variant->free[i] == index)
            return i;
    explore_fail("a hint that nobody gave");
}

static void take_and_give(int process)
{
    int round;

    for (round = 0; round < variant->rounds; round++) {
        uint64_t nobody = 0;
        uint32_t index;
        int number;

        explore_forget((uint64_t)round << 8 | (uint64_t)misses[process]);
        if (!freemap_take(&map, &index)) {
            misses[process]++;
            /* Each of the others has one entry at most. */
            if (variant->free_count >= variant->processes && !variant->deaths)
                explore_fail("an entry is free, and was not found");
            continue;
        }
        number = number_of(index);
        if (!shared_cas(&owners[number], &nobody, (uint64_t)process + 1, ACQ_REL))
            continue;
        explore_operation();
        shared_store(&owners[number], 0, RELEASE);
        freemap_set(&map, index);
    }
}

static void repair(void)
{
    uint64_t dead = (uint64_t)explore_dead() + 1;
    int i;

    for (i = 0; i < variant->free_count; i++) {
        uint64_t owner = shared_load(&owners[i], ACQUIRE);

        if (owner == dead)
            shared_store(&owners[i], 0, RELEASE);
        if (owner == dead || owner == 0)
            freemap_set(&map, variant->free[i]);
    }
    freemap_repair(&map, variant->entries);
    explore_repaired();
}

static void body(int process)
{
    if (process < variant->processes)
        take_and_give(process);
    else
        repair();
}

static void check(void)
{
    uint32_t index;
    int i;

    for (i = 0; i < variant->free_count; i++)
        if (owners[i])
            explore_fail("an entry is still somebody's");
    for (i = 0; i < variant->free_count; i++)
        if (!freemap_take(&map, &index))
            explore_fail("a free entry can't be found");
    if (freemap_take(&map, &index))
        explore_fail("a hint came twice");
}

static void explore_variant(const struct variant *what)
{
    struct explore_scenario scenario = {.name = what->name,
                                        .processes = what->processes + what->deaths,
                                        .setup = setup,
                                        .body = body,
                                        .private = concerns_nobody,
                                        .check = check,
                                        .mortal = (1U << what->processes) - 1,
                                        .deaths = what->deaths,
                                        .repairer = what->deaths ? what->processes : -1,
                                        .preemptions = what->preemptions,
                                        .operation = 60 + (int)what->entries / 64};

    variant = what;
    explore_report(&scenario, what->longer);
}

int main(int argc, char **argv)
{
    static const struct variant variants[] = {
        {"2 processes, 1 word", 2, 2, 64, 2, {0, 1}, 0, -1, false},
        {"2 processes, 2 words", 2, 2, 128, 2, {0, 64}, 0, -1, false},
        {"3 processes, 2 words", 3, 1, 128, 2, {0, 64}, 0, -1, false},
        {"2 processes, 2 summary words", 2, 2, 8192, 2, {0, 4096}, 0, -1, false},
        {"3 processes, 2 summary words", 3, 1, 8192, 2, {0, 4096}, 0, 4, false},
        {"2 processes, 3 words of 2 summaries", 2, 2, 8192, 3, {0, 64, 4096}, 0, 5, false},
        {"2 processes, 2 words; a death", 2, 2, 128, 2, {0, 64}, 1, 3, false},
        {"2 processes, 2 summary words; a death", 2, 1, 8192, 2, {0, 4096}, 1, 3, false},
    };
    size_t i;

    explore_arguments(argc, argv);
    for (i = 0; i < sizeof variants / sizeof *variants; i++)
        explore_variant(&variants[i]);
    return explore_finish();
}
