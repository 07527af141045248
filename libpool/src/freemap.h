/* Which entries of a table are perhaps free: a bitmap with two levels of summary.
 *
 * A set bit is a hint and no claim: who takes one must still claim the entry by the entry's own
 * word, and drops the hint if that fails. Setting a bit that is set does nothing, so a repair can
 * give all hints again without knowing which were lost.
 */
#ifndef POOL_FREEMAP_H
#define POOL_FREEMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "segment.h"

#define FREEMAP_MAX (UINT32_C(1) << 24)

struct freemap {
    struct segment *segment;
    uint64_t level[3]; /* offsets: bits; words with bits in them; words of those */
    uint32_t entries;
};

void freemap_plan(struct freemap *map, struct segment *segment, uint32_t entries);
/* Commits what is needed for entries below `count`; before any of them is set. */
int freemap_commit(struct freemap *map, uint32_t count);

void freemap_set(struct freemap *map, uint32_t index);

/* Takes the lowest hint that it finds: true and *index. */
bool freemap_take(struct freemap *map, uint32_t *index);

/* After a death: makes every set bit below `count` findable again. */
void freemap_repair(struct freemap *map, uint32_t count);

#endif
