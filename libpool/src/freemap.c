/* Which entries of a table are perhaps free: a bitmap with two levels of summary.
 *
 * Invariant, kept by all who live: a word that is not zero has its bit set one level up, or
 * somebody is about to set it. A process that dies in between breaks it; freemap_repair() mends it.
 */
#include "freemap.h"

#include "atomic.h"

static inline _Atomic uint64_t *word_at(const struct freemap *map, unsigned level, uint32_t word)
{
    return (_Atomic uint64_t *)segment_at(map->segment, map->level[level]) + word;
}

static inline uint32_t words_at(const struct freemap *map, unsigned level)
{
    return (uint32_t)(((uint64_t)map->entries + ((uint64_t)1 << (6 * (level + 1))) - 1) >>
                      (6 * (level + 1)));
}

void freemap_plan(struct freemap *map, struct segment *segment, uint32_t entries)
{
    unsigned level;

    map->segment = segment;
    map->entries = entries;
    for (level = 0; level < 3; level++)
        map->level[level] = segment_reserve(segment, words_at(map, level) * sizeof(uint64_t));
}

int freemap_commit(struct freemap *map, uint32_t count)
{
    unsigned level;
    int error = 0;

    for (level = 0; level < 3 && !error; level++) {
        uint64_t words = ((uint64_t)count >> (6 * (level + 1))) + 1;

        if (words > words_at(map, level))
            words = words_at(map, level);
        error = segment_commit(map->segment, map->level[level], words * sizeof(uint64_t));
    }
    return error;
}

/* Sets the bits that lead to `word` of `level`. */
static void set_summary(struct freemap *map, unsigned level, uint32_t word)
{
    for (level++; level < 3; level++) {
        uint64_t bit = (uint64_t)1 << (word & 63);

        word >>= 6;
        if (shared_or(word_at(map, level, word), bit, SEQ_CST) & bit)
            return;
    }
}

void freemap_set(struct freemap *map, uint32_t index)
{
    uint64_t bit = (uint64_t)1 << (index & 63);
    uint64_t before;

    if (index >= map->entries)
        return;
    /* Release: who takes the bit sees the entry as it was left. */
    before = shared_or(word_at(map, 0, index >> 6), bit, SEQ_CST);
    if (before == 0)
        set_summary(map, 0, index >> 6);
}

/* Clears the bit that leads to an empty `word` of `level`, unless it has been filled meanwhile. */
static void clear_summary(struct freemap *map, unsigned level, uint32_t word)
{
    shared_and(word_at(map, level + 1, word >> 6), ~((uint64_t)1 << (word & 63)), SEQ_CST);
    /* Whoever filled the word before the bit went did not set it again: look, and do it. Both
     * sides are seq_cst, so either we see the word filled or its filler sees it was zero. */
    if (shared_load(word_at(map, level, word), SEQ_CST) != 0)
        set_summary(map, level, word);
}

bool freemap_take(struct freemap *map, uint32_t *index)
{
    uint32_t top = 0, tops = words_at(map, 2);

    while (top < tops) {
        uint64_t found = shared_load(word_at(map, 2, top), ACQUIRE);
        uint32_t middle, low;
        uint64_t bit;

        if (!found) {
            top++;
            continue;
        }
        middle = top * 64 + (uint32_t)__builtin_ctzll(found);
        if (middle >= words_at(map, 1))
            return false; /* scribbled over */
        found = shared_load(word_at(map, 1, middle), ACQUIRE);
        if (!found) {
            clear_summary(map, 1, middle);
            continue;
        }
        low = middle * 64 + (uint32_t)__builtin_ctzll(found);
        if (low >= words_at(map, 0))
            return false;
        found = shared_load(word_at(map, 0, low), ACQUIRE);
        if (!found) {
            clear_summary(map, 0, low);
            continue;
        }
        bit = found & -found;
        /* One wins the bit. Death after that: the entry is free and has no hint until the
         * repair. */
        if (shared_and(word_at(map, 0, low), ~bit, ACQ_REL) & bit) {
            *index = low * 64 + (uint32_t)__builtin_ctzll(bit);
            return *index < map->entries;
        }
    }
    return false;
}

void freemap_repair(struct freemap *map, uint32_t count)
{
    uint32_t word, words = count ? ((count - 1) >> 6) + 1 : 0;

    for (word = 0; word < words && word < words_at(map, 0); word++)
        if (shared_load(word_at(map, 0, word), ACQUIRE))
            set_summary(map, 0, word);
    /* set_summary() stops at a bit that is set; the level above it may be the one that is not. */
    for (word = 0; word < (words + 63) >> 6 && word < words_at(map, 1); word++)
        if (shared_load(word_at(map, 1, word), ACQUIRE))
            set_summary(map, 1, word);
}
