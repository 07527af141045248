/* The lock-free ring: a queue of 32-bit items, first in first out, that grows. */
#include "ring.h"

#include <errno.h>
#include <stdalign.h>

#include "atomic.h"

/* One level. Positions count up for ever; position p uses cell p mod 2^bits in lap p / 2^bits.
 * Both words are hints: any process may move them forward, past positions that are done with.
 * They are never ahead of the truth, which is in the cells. */
struct ring_level {
    alignas(64) _Atomic uint64_t head; /* no item before this position */
    alignas(64) _Atomic uint64_t tail; /* every position before this has been filled */
};

struct ring_header {
    /* Which level producers and consumers work on. They only grow, consumer <= producer. */
    alignas(64) _Atomic uint32_t producer;
    alignas(64) _Atomic uint32_t consumer;
    struct ring_level level[RING_MAX_LEVELS];
};

/* A cell: [item:32][sequence:32]. In lap L the sequence is 2L when empty, 2L+1 when full; 2L+2
 * is both "done in lap L" and "empty in lap L+1". Zeroed memory is thus an empty ring. A level
 * in which nothing more may be put has SEALED at its tail. */
#define SEALED UINT64_MAX

static inline uint64_t cell_make(uint32_t item, uint32_t sequence)
{
    return (uint64_t)item << 32 | sequence;
}

static inline uint32_t cell_item(uint64_t cell)
{
    return (uint32_t)(cell >> 32);
}

static inline uint32_t cell_sequence(uint64_t cell)
{
    return (uint32_t)cell;
}

static inline struct ring_header *header_of(const struct ring *ring)
{
    return segment_at(ring->segment, ring->header);
}

static inline unsigned level_bits(const struct ring *ring, uint32_t level)
{
    return ring->first_bits + level;
}

/* Level k begins after the 2^first_bits * (2^k - 1) cells of those before. */
static inline uint64_t level_offset(const struct ring *ring, uint32_t level)
{
    return ring->cells + ((((uint64_t)1 << level) - 1) << ring->first_bits) * sizeof(uint64_t);
}

static inline _Atomic uint64_t *cell_at(const struct ring *ring, uint32_t level, uint64_t position)
{
    _Atomic uint64_t *cells = segment_at(ring->segment, level_offset(ring, level));

    return &cells[position & (((uint64_t)1 << level_bits(ring, level)) - 1)];
}

/* How far the sequence in a cell can be ahead of a hint that lags: done with, and filled again
 * in the next lap. Whoever sees more sees memory that was scribbled over, and must not follow it
 * for laps. */
#define AHEAD_MAX 3

/* The even sequence of an empty cell at `position`; it wraps together with the lap. */
static inline uint32_t empty_sequence(const struct ring *ring, uint32_t level, uint64_t position)
{
    return (uint32_t)(position >> level_bits(ring, level)) * 2;
}

void ring_plan(struct ring *ring, struct segment *segment, unsigned first_bits, unsigned last_bits)
{
    ring->segment = segment;
    ring->first_bits = first_bits;
    ring->levels = last_bits - first_bits + 1;
    ring->header = segment_reserve(segment, sizeof(struct ring_header));
    ring->cells = segment_reserve(segment, ((((uint64_t)1 << ring->levels) - 1) << first_bits) *
                                               sizeof(uint64_t));
}

static int commit_level(struct ring *ring, uint32_t level)
{
    return segment_commit(ring->segment, level_offset(ring, level),
                          ((uint64_t)1 << level_bits(ring, level)) * sizeof(uint64_t));
}

int ring_start(struct ring *ring)
{
    int error = segment_commit(ring->segment, ring->header, sizeof(struct ring_header));

    return error ? error : commit_level(ring, 0);
}

enum push { PUSHED, FULL };

static enum push push_level(struct ring *ring, uint32_t level, uint32_t item)
{
    struct ring_level *words = &header_of(ring)->level[level];
    uint64_t tail = shared_load(&words->tail, ACQUIRE);

    for (;;) {
        _Atomic uint64_t *cell = cell_at(ring, level, tail);
        uint32_t empty = empty_sequence(ring, level, tail);
        uint64_t found = shared_load(cell, ACQUIRE);
        uint32_t sequence = cell_sequence(found);

        if (sequence == empty) {
            /* EMPTY -> FULL: the item is in the ring from here on. Release publishes what it
             * names; seq_cst orders it before the caller's look at the sleepers. Death before:
             * nothing happened; after: the tail lags by one, and the next producer moves it. */
            if (!shared_cas(cell, &found, cell_make(item, empty + 1), SEQ_CST))
                continue;
            shared_cas(&words->tail, &tail, tail + 1, RELEASE);
            return PUSHED;
        }
        if (found == SEALED)
            return FULL;
        if (sequence - empty <= AHEAD_MAX) {
            /* Filled already by somebody whose move of the tail we may do: it lags. */
            if (shared_cas(&words->tail, &tail, tail + 1, ACQ_REL))
                tail++;
            continue;
        }
        /* Still full from the lap before. A tail that has moved meanwhile says look again. */
        found = shared_load(&words->tail, ACQUIRE);
        if (found == tail)
            return FULL;
        tail = found;
    }
}

int ring_push(struct ring *ring, uint32_t item)
{
    struct ring_header *header = header_of(ring);

    for (;;) {
        uint32_t level = shared_load(&header->producer, ACQUIRE);
        int error;

        if (level >= ring->levels)
            return -ENOMEM;
        if (push_level(ring, level, item) == PUSHED)
            return 0;
        if (level + 1 == ring->levels)
            return -ENOMEM;
        error = commit_level(ring, level + 1);
        /* At the limit the memory may have gone to another producer, for this very level. */
        if (error && shared_load(&header->producer, ACQUIRE) == level)
            return error;
        /* Moves all producers on. Death before: the next one does it, over the same memory. */
        shared_cas(&header->producer, &level, level + 1, ACQ_REL);
    }
}

enum peek { FOUND, EMPTY, DRAINED };

static enum peek peek_level(struct ring *ring, uint32_t level, struct ring_cursor *cursor)
{
    struct ring_header *header = header_of(ring);
    struct ring_level *words = &header->level[level];
    uint64_t head = shared_load(&words->head, ACQUIRE);

    for (;;) {
        _Atomic uint64_t *cell = cell_at(ring, level, head);
        uint32_t empty = empty_sequence(ring, level, head);
        /* Seq_cst pairs with the producer's: a worker announces its sleep, then looks here. */
        uint64_t found = shared_load(cell, SEQ_CST);
        uint32_t sequence = cell_sequence(found);

        if (found == SEALED) /* looks like a full cell of the last lap before the sequence wraps */
            return DRAINED;
        if (sequence == empty + 1) {
            cursor->position = head;
            cursor->cell = found;
            cursor->level = level;
            cursor->item = cell_item(found);
            return FOUND;
        }
        if (sequence != empty && sequence - empty <= AHEAD_MAX) {
            /* Done with by somebody whose move of the head we may do: it lags. */
            if (shared_cas(&words->head, &head, head + 1, ACQ_REL))
                head++;
            continue;
        }
        if (sequence != empty) {
            /* Our copy of the head is old, or somebody has scribbled. */
            found = shared_load(&words->head, ACQUIRE);
            if (found == head)
                return EMPTY;
            head = found;
            continue;
        }
        if (shared_load(&header->producer, SEQ_CST) <= level)
            return EMPTY;
        /* Nothing here, and producers have moved on: seal the place where a slow one could still
         * put its item. EMPTY -> SEALED; if it was quicker, there is an item after all. */
        if (shared_cas(cell, &found, SEALED, ACQ_REL))
            return DRAINED;
    }
}

bool ring_peek(struct ring *ring, struct ring_cursor *cursor)
{
    struct ring_header *header = header_of(ring);

    for (;;) {
        uint32_t level = shared_load(&header->consumer, ACQUIRE);

        if (level >= ring->levels)
            return false;
        switch (peek_level(ring, level, cursor)) {
        case FOUND:
            return true;
        case EMPTY:
            return false;
        case DRAINED:
            shared_cas(&header->consumer, &level, level + 1, ACQ_REL);
        }
    }
}

void ring_discard(struct ring *ring, const struct ring_cursor *cursor)
{
    struct ring_level *words = &header_of(ring)->level[cursor->level];
    uint64_t cell = cursor->cell;
    uint64_t head = cursor->position;

    /* FULL -> done. The sequence in the cell makes this fail if it was done before, whatever has
     * been put there since. Death before: the cell is found again, and its item is found to be
     * taken; after: the head lags by one, and the next consumer moves it. */
    shared_cas(cell_at(ring, cursor->level, cursor->position), &cell,
               cell_make(0, cell_sequence(cell) + 1), ACQ_REL);
    shared_cas(&words->head, &head, head + 1, RELEASE);
}

/* The positions of a level that may have items. Both words lag, the head behind what is done with,
 * the tail behind what is filled; and they may have been scribbled over. */
static void bounds(const struct ring *ring, uint32_t level, uint64_t *head, uint64_t *tail)
{
    const struct ring_level *words = &header_of(ring)->level[level];
    uint64_t cells = (uint64_t)1 << level_bits(ring, level);

    /* Head first: it only grows, and a later tail is not before it. */
    *head = shared_load(&words->head, ACQUIRE);
    *tail = shared_load(&words->tail, ACQUIRE);
    if (*tail - *head > cells)
        *tail = *tail > *head ? *head + cells : *head;
}

/* The levels that may have items: from *level on, so many. */
static uint32_t levels_in_use(const struct ring *ring, uint32_t *level)
{
    struct ring_header *header = header_of(ring);
    uint32_t last;

    *level = shared_load(&header->consumer, ACQUIRE);
    last = shared_load(&header->producer, ACQUIRE);
    if (last >= ring->levels)
        last = ring->levels - 1;
    return *level <= last ? last - *level + 1 : 0;
}

uint64_t ring_length(const struct ring *ring)
{
    uint64_t length = 0, head, tail;
    uint32_t level, levels = levels_in_use(ring, &level);

    for (; levels > 0; levels--, level++) {
        bounds(ring, level, &head, &tail);
        length += tail - head;
    }
    return length;
}

uint64_t ring_count(const struct ring *ring, uint64_t most,
                    bool (*counts)(void *context, uint32_t item), void *context)
{
    /* There can't be more cells than memory, whatever somebody has written into the words. */
    uint64_t left = segment_committed(ring->segment) / sizeof(uint64_t);
    uint64_t count = 0, head, tail;
    uint32_t level, levels = levels_in_use(ring, &level);

    for (; levels > 0; levels--, level++)
        for (bounds(ring, level, &head, &tail); head != tail && count < most && left > 0; head++) {
            uint64_t cell = shared_load(cell_at(ring, level, head), ACQUIRE);

            count += cell_sequence(cell) == empty_sequence(ring, level, head) + 1 &&
                     counts(context, cell_item(cell));
            left--;
        }
    return count;
}
