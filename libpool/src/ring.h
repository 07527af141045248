/* The lock-free ring: a queue of 32-bit items, first in first out, that grows.
 *
 * Any number of processes push and peek. Nobody owns an item by having seen it: a consumer peeks,
 * claims the thing that the item names by that thing's own atomic word, and then discards the
 * cell. A cell is thus a hint: whoever finds one whose item needs no more care discards it.
 *
 * Lock-free: a process that stops at any instruction holds up nobody. Related to the bounded queue
 * of D. Vyukov (1024cores.net), from which it differs in that a cell is filled by one
 * compare-and-swap on the cell itself, where Vyukov's producer first wins an index and then fills
 * its cell, and blocks all others if it dies between.
 */
#ifndef POOL_RING_H
#define POOL_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "segment.h"

#define RING_MAX_LEVELS 24

struct ring {
    struct segment *segment;
    uint64_t header;     /* offset of struct ring_header */
    uint64_t cells;      /* offset of the cells of all levels, one level after the other */
    unsigned first_bits; /* level k has 2^(first_bits + k) cells */
    unsigned levels;
};

struct ring_cursor {
    uint64_t position;
    uint64_t cell;
    uint32_t level;
    uint32_t item;
};

/* Reserves a ring of levels from 2^first_bits to 2^last_bits cells. */
void ring_plan(struct ring *ring, struct segment *segment, unsigned first_bits, unsigned last_bits);
/* Commits the header and level 0. */
int ring_start(struct ring *ring);

/* Any item but UINT32_MAX. 0; -ENOMEM: a further level could not be committed, or all are full.
 * The operation that publishes the item is sequentially consistent: what the caller reads next
 * (who sleeps?) is read after the item can be seen. */
int ring_push(struct ring *ring, uint32_t item);

/* The oldest item, if there is one. It stays until ring_discard(). */
bool ring_peek(struct ring *ring, struct ring_cursor *cursor);

/* How many items there are, counted by the positions: where others push and discard meanwhile, or
 * have died at it, a few more or less. */
uint64_t ring_length(const struct ring *ring);
/* How many items `counts`, up to `most`. A look at each. */
uint64_t ring_count(const struct ring *ring, uint64_t most,
                    bool (*counts)(void *context, uint32_t item), void *context);

/* Removes what ring_peek() found. No effect if somebody has done so already. */
void ring_discard(struct ring *ring, const struct ring_cursor *cursor);

#endif
