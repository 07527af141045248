/* Blocks of shared memory for payloads that do not fit into a job slot.
 *
 * Power-of-two size classes from 256 bytes, each with address space of its own: no splitting and
 * merging, hence no operation that would have to change two words at once. A block commits the
 * pages it needs and not its class's size, and keeps them, warm, when it is freed.
 *
 * Who owns a block says its word: HELD by a process while that fills it, then ATTACHED to a job or
 * SHARED by reference. A process that dies loses what it HELD, and nothing else.
 *
 * A SHARED or ATTACHED block may have *holders*: one bit for each process that uses it. When it is
 * freed while there are some, it is RELEASED, and the last holder to let go makes it FREE. A bit
 * belongs to one process, so after a death it is known what to take back, which a count could not
 * say.
 */
#ifndef POOL_ARENA_H
#define POOL_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#include "freemap.h"
#include "segment.h"

#define ARENA_MIN_BITS 8
#define ARENA_CLASSES 32

/* [index:32][class:8] as in block_ref_make(); 0 is no block. */
typedef uint64_t block_ref;

struct arena_class {
    struct freemap map;
    uint64_t words;   /* offset of the block words */
    uint64_t details; /* offset of struct block_details for each */
    uint64_t holders; /* offset of the bits of those who hold each: holder_words words */
    uint64_t blocks;  /* offset of the blocks */
    uint32_t entries;
};

struct arena {
    struct segment *segment;
    uint64_t header; /* offset of struct arena_header */
    unsigned classes;
    unsigned holder_words; /* 64 processes each */
    struct arena_class size_class[ARENA_CLASSES];
};

static inline block_ref block_ref_make(unsigned size_class, uint32_t index)
{
    return (uint64_t)index << 8 | (size_class + 1);
}

/* `processes` is how many there are: their numbers are 0 to processes-1. */
void arena_plan(struct arena *arena, struct segment *segment, unsigned processes, uint64_t largest);
int arena_start(struct arena *arena);

/* A block of `size` bytes, HELD by process `owner`. -E2BIG: larger than the largest class;
 * -ENOMEM. */
int arena_alloc(struct arena *arena, uint16_t owner, uint64_t size, block_ref *ref);

/* The same, but only what is free and committed already: false where there is no such block. */
bool arena_take(struct arena *arena, uint16_t owner, uint64_t size, block_ref *ref);

/* Where a block is and how many bytes it has, or -EINVAL for a reference that can't be one.
 * Whatever the shared memory says, the bytes lie in the segment. */
int arena_lookup(const struct arena *arena, block_ref ref, void **memory, uint64_t *size);

/* Whether a reference is that of a block which is SHARED now. */
bool arena_is_shared(const struct arena *arena, block_ref ref);

bool arena_is_attached(const struct arena *arena, block_ref ref, uint32_t job);
/* Whether process `owner`, which asks, holds it. */
bool arena_is_held(const struct arena *arena, block_ref ref, uint16_t owner);

/* HELD by owner -> ATTACHED to job. Before the job's word says that it has the block. */
bool arena_attach(struct arena *arena, block_ref ref, uint16_t owner, uint32_t job);
/* HELD by owner -> SHARED. */
bool arena_share(struct arena *arena, block_ref ref, uint16_t owner);

/* HELD by owner -> RELEASED, held by owner: nobody else comes to hold it, and it is FREE when owner
 * drops it, or dies. */
bool arena_keep(struct arena *arena, block_ref ref, uint16_t owner);
/* RELEASED and held by owner, for who that is a block of its own -> ATTACHED to job, and held by
 * owner still. */
bool arena_give(struct arena *arena, block_ref ref, uint16_t owner, uint32_t job);

/* -> FREE, if it is what the name says. False if it was not. The latter two wait for those who
 * hold it. */
bool arena_free_held(struct arena *arena, block_ref ref, uint16_t owner);
bool arena_free_attached(struct arena *arena, block_ref ref, uint32_t job);
bool arena_free_shared(struct arena *arena, block_ref ref);

/* Process `owner` holds a SHARED, ATTACHED or RELEASED block from here on: it stays even when it is
 * freed. Nobody may be about to free it at this moment if it is ATTACHED. False: it is none. */
bool arena_hold(struct arena *arena, block_ref ref, uint16_t owner);
/* ... and does so no more. */
void arena_drop(struct arena *arena, block_ref ref, uint16_t owner);
/* The block in whose memory an address lies, if it is SHARED or held by process `owner`, which
 * asks; else 0. */
block_ref arena_find(const struct arena *arena, const void *address, uint16_t owner);

/* After the death of process `owner`: frees what it HELD, drops what it held of others, and
 * restores lost hints. */
void arena_repair(struct arena *arena, uint16_t owner);

/* Time goes on, for the age of free blocks. */
void arena_tick(struct arena *arena);
/* Gives the memory of blocks that have been free for `age` ticks back to the system, as process
 * `owner`, which holds each meanwhile: bytes given back. */
uint64_t arena_trim(struct arena *arena, uint16_t owner, uint32_t age);

#endif
