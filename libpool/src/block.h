/* How the arena keeps its blocks in the segment: what arena.c has to itself. */
#ifndef LIBPOOL_BLOCK_H
#define LIBPOOL_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "atomic.h"

/* A block word: [owner, job or stamp:32][version:24][state:8]. It changes by compare-and-swap only.
 * A block that is shared or released has the stamp of its allocation: who comes late with the last
 * step of freeing it can't take it for what it is later. */
enum block_state { BLOCK_FREE, BLOCK_HELD, BLOCK_ATTACHED, BLOCK_SHARED, BLOCK_RELEASED };

static inline uint64_t block_word(enum block_state state, uint32_t owner)
{
    return (uint64_t)owner << 32 | (uint64_t)state;
}

#define FREE_WORD UINT64_C(0)
#define VERSION_MASK UINT64_C(0xffffff00)

static inline uint64_t next_version(uint64_t word)
{
    return (word & ~VERSION_MASK) | ((word + 0x100) & VERSION_MASK);
}

static inline enum block_state word_state(uint64_t word)
{
    return (enum block_state)(word & 0xff);
}

struct block_details {
    /* Payload bytes. Written by the holder before it passes the block on; read by anybody, who
     * must check it. */
    _Atomic uint64_t size;
    /* Bytes committed from the block's start; for large classes. Written by the holder. */
    _Atomic uint64_t committed;
    /* The tick at which it was allocated or freed last. Written by who does. */
    _Atomic uint32_t used;
    /* How often it has been allocated. Written by the holder. */
    _Atomic uint32_t stamp;
};

struct arena_header {
    /* For each class: blocks that exist. Grows, by compare-and-swap after the memory has been
     * committed. */
    _Atomic uint32_t count[ARENA_CLASSES];
    /* Counted by the supervisor: the age of a free block is in ticks. */
    _Atomic uint32_t tick;
};

static inline unsigned class_bits(unsigned size_class)
{
    return ARENA_MIN_BITS + size_class;
}

static inline unsigned ref_class(block_ref ref)
{
    return (unsigned)(ref & 0xff) - 1;
}

static inline uint32_t ref_index(block_ref ref)
{
    return (uint32_t)(ref >> 8);
}

static inline bool ref_valid(const struct arena *arena, block_ref ref)
{
    return ref_class(ref) < arena->classes && ref >> 8 < arena->size_class[ref_class(ref)].entries;
}

static inline _Atomic uint32_t *tick_of(const struct arena *arena)
{
    return &((struct arena_header *)segment_at(arena->segment, arena->header))->tick;
}

static inline _Atomic uint32_t *count_of(const struct arena *arena, unsigned size_class)
{
    return &((struct arena_header *)segment_at(arena->segment, arena->header))->count[size_class];
}

/* Entries of a class, never more than there is room for, whatever the shared count says. */
static inline uint32_t checked_count(const struct arena *arena, unsigned size_class)
{
    uint32_t count = shared_load(count_of(arena, size_class), ACQUIRE);

    return count < arena->size_class[size_class].entries ? count
                                                         : arena->size_class[size_class].entries;
}

/* Whether a reference, whatever it says, is that of a block that there is. */
static inline bool block_exists(const struct arena *arena, block_ref ref)
{
    return ref_valid(arena, ref) && ref_index(ref) < checked_count(arena, ref_class(ref));
}

static inline _Atomic uint64_t *word_of(const struct arena *arena, unsigned size_class,
                                        uint32_t index)
{
    return (_Atomic uint64_t *)segment_at(arena->segment, arena->size_class[size_class].words) +
           index;
}

static inline struct block_details *details_of(const struct arena *arena, unsigned size_class,
                                               uint32_t index)
{
    return (struct block_details *)segment_at(arena->segment,
                                              arena->size_class[size_class].details) +
           index;
}

static inline uint32_t stamp_of(const struct arena *arena, block_ref ref)
{
    return shared_load(&details_of(arena, ref_class(ref), ref_index(ref))->stamp, RELAXED);
}

/* The word with the holder's bit of process `owner`, and that bit. */
static inline _Atomic uint64_t *holders_of(const struct arena *arena, unsigned size_class,
                                           uint32_t index)
{
    return (_Atomic uint64_t *)segment_at(arena->segment, arena->size_class[size_class].holders) +
           (uint64_t)index * arena->holder_words;
}

static inline uint64_t holder_bit(uint16_t owner)
{
    return UINT64_C(1) << owner % 64;
}

static inline uint64_t block_offset(const struct arena *arena, unsigned size_class, uint32_t index)
{
    return arena->size_class[size_class].blocks + ((uint64_t)index << class_bits(size_class));
}

#endif
