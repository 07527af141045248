/* Scribbling: every word of the segment that a worker can write, with values likely to hurt. */
#include <string.h>

#include "atomic.h"
#include "fuzz.h"

struct range {
    uint64_t offset, length;
};

#define RANGES 160

/* The tables' beginnings, which are what is used; and all of them, where nothing is yet. */
static unsigned list_ranges(const struct pool *pool, struct range *ranges)
{
    const struct arena *arena = &pool->arena;
    uint64_t processes = (uint64_t)pool->workers * sizeof(struct process);
    unsigned i, count = 0;

    ranges[count++] = (struct range){pool->control, sizeof(struct control)};
    ranges[count++] = (struct range){pool->processes, processes};
    ranges[count++] = (struct range){pool->functions.modules, 4096};
    ranges[count++] = (struct range){pool->ready.header, 4096};
    ranges[count++] = (struct range){pool->ready.cells, 16384};
    ranges[count++] = (struct range){pool->completed.header, 4096};
    ranges[count++] = (struct range){pool->completed.cells, 4096};
    ranges[count++] = (struct range){pool->jobs.header, 8};
    ranges[count++] = (struct range){pool->jobs.slots, 16384};
    ranges[count++] = (struct range){pool->jobs.slots, 1024};
    for (i = 0; i < 3; i++)
        ranges[count++] = (struct range){pool->jobs.map.level[i], 64};
    ranges[count++] = (struct range){arena->header, ARENA_CLASSES * 4};
    for (i = 0; i < arena->classes && count + 6 < RANGES; i++) {
        ranges[count++] = (struct range){arena->size_class[i].words, 256};
        ranges[count++] = (struct range){arena->size_class[i].details, 256};
        ranges[count++] = (struct range){arena->size_class[i].map.level[0], 16};
        ranges[count++] = (struct range){arena->size_class[i].map.level[1], 8};
        ranges[count++] = (struct range){arena->size_class[i].map.level[2], 8};
        ranges[count++] = (struct range){arena->size_class[i].blocks, 256};
    }
    ranges[count++] = (struct range){0, pool->segment.size};
    return count;
}

static uint64_t *pick_word(const struct pool *pool, struct chance *chance)
{
    struct range ranges[RANGES];
    unsigned count = list_ranges(pool, ranges);
    /* The last one is the whole segment, where each word costs a page: not often. */
    struct range *range =
        &ranges[chance_below(chance, chance_below(chance, 64) ? count - 1 : count)];

    return segment_at(&pool->segment,
                      (range->offset + chance_below(chance, range->length) / 8 * 8));
}

/* A function id that is off by some bytes would make a worker jump into the middle of some code, of
 * which it could do anything at all, as it could without us. So those words become what resolves to
 * nothing. */
static bool is_function(const struct pool *pool, const uint64_t *word)
{
    uint64_t offset = (uint64_t)((const unsigned char *)word - pool->segment.base);

    return offset >= pool->jobs.slots &&
           offset < pool->jobs.slots + (uint64_t)pool->jobs.entries * sizeof(struct job) &&
           (offset - pool->jobs.slots) % sizeof(struct job) == offsetof(struct job, function);
}

static uint64_t near_a_bound(const struct pool *pool, struct chance *chance)
{
    const uint64_t bounds[] = {
        0,
        pool->jobs.entries,
        pool->arena.classes,
        pool->ready.levels,
        PROCESS_STACK,
        JOB_INLINE,
        pool->segment.size,
        pool->segment.limit,
        pool->segment.page,
        UINT32_MAX,
        UINT16_MAX,
        INT64_MAX,
        (uint64_t)pool->workers,
        pool->arena.size_class[0].entries,
        (uint64_t)1 << chance_below(chance, 64),
    };
    uint64_t value = bounds[chance_below(chance, sizeof bounds / sizeof *bounds)];

    return (value + chance_below(chance, 5) - 2) << (chance_below(chance, 3) ? 0 : 32);
}

/* A job word, or a packed payload, whose fields make sense one by one. */
static uint64_t likely_word(const struct pool *pool, struct chance *chance)
{
    struct payload payload = {
        .kind = (enum payload_kind)chance_below(chance, 4),
        .options = chance_below(chance, 2),
        .host = chance_below(chance, 2),
        .size = (uint8_t)chance_below(chance, 128),
        .extra = (uint16_t)chance_below(chance, (uint64_t)pool->workers + 3),
        .block =
            block_ref_make((unsigned)chance_below(chance, 32), (uint32_t)chance_below(chance, 4)),
    };

    if (chance_below(chance, 2))
        return payload_pack(payload);
    return job_word_make((uint32_t)chance_below(chance, 4),
                         (uint16_t)chance_below(chance, (uint64_t)pool->workers + 3),
                         (unsigned)chance_below(chance, 32),
                         (enum job_state)chance_below(chance, 12));
}

static uint64_t pick_value(const struct pool *pool, struct chance *chance, uint64_t old)
{
    switch (chance_below(chance, 9)) {
    case 0:
        return chance_next(chance);
    case 1:
        return chance_next(chance) >> chance_below(chance, 64);
    case 2:
        return old ^ (uint64_t)1 << chance_below(chance, 64);
    case 3:
        return near_a_bound(pool, chance);
    case 4:
        return chance_below(chance, 16);
    case 5:
        return old + chance_below(chance, 5) - 2;
    case 6:
        return *(volatile uint64_t *)pick_word(pool, chance);
    case 7:
        return likely_word(pool, chance);
    default:
        return (uint64_t)fuzz_shared->bystander << (chance_below(chance, 2) ? 0 : 32) |
               (chance_below(chance, 2) ? old & UINT32_MAX : 0);
    }
}

void fuzz_scribble(const struct pool *pool, struct chance *chance, unsigned count)
{
    unsigned i;

    for (i = 0; i < count; i++) {
        uint64_t *word = pick_word(pool, chance), value = pick_value(pool, chance, *word);

        if (is_function(pool, word))
            value &= UINT32_MAX;
        atomic_store_explicit((_Atomic uint64_t *)word, value, RELAXED);
    }
    atomic_fetch_add(&fuzz_shared->scribbles, count);
}
