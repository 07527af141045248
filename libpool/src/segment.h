/* One shared mapping: planned, mapped, committed part by part.
 *
 * Use: segment_init(); every layer reserves its regions with segment_reserve(), which only counts;
 * segment_map(); the layers commit what they use. The struct itself is private memory of each
 * process (a fork copies it), so no other process can alter the bounds in it.
 */
#ifndef POOL_SEGMENT_H
#define POOL_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "system.h"

struct segment {
    unsigned char *base; /* NULL until mapped */
    uint64_t size;       /* bytes of address space */
    uint64_t limit;      /* bytes that may be committed */
    uint64_t page;       /* bytes */
    int fd;
    struct file_identity file;
};

/* Starts a plan for a segment that may commit `limit` bytes. */
void segment_init(struct segment *segment, uint64_t limit);

/* Reserves `size` bytes of address space, aligned to a page: their offset. Before segment_map(). */
uint64_t segment_reserve(struct segment *segment, uint64_t size);

/* Maps what was reserved. -ENOMEM: no such address space; -EMFILE and the like. */
int segment_map(struct segment *segment);
/* The same for the file of a segment that another process has mapped, by the same plan; takes the
 * descriptor. -EINVAL: the file is another's, by its size. */
int segment_map_file(struct segment *segment, int fd);
/* A file without a name, close-on-exec: its descriptor or a negative errno. */
int segment_anonymous_file(void);
void segment_unmap(struct segment *segment);

/* Makes [offset, offset + length) usable. Harmless where some of it is so already, but near the
 * limit all of it counts as new; safe to be called by several processes at once. -ENOMEM: the
 * limit or the system's memory is reached; nothing was changed. -EINVAL: outside the segment.
 * -EBADF: the descriptor is not the segment's any more. */
int segment_commit(struct segment *segment, uint64_t offset, uint64_t length);

/* Maps [offset, offset + length), which is committed, in one go: each first touch of a page costs
 * more than that. Where the system can't do it, nothing happens. */
void segment_populate(const struct segment *segment, uint64_t offset, uint64_t length);

/* Gives the whole pages inside [offset, offset + length) back to the system; they read as zeros. */
int segment_release(struct segment *segment, uint64_t offset, uint64_t length);

/* Bytes committed now, as the kernel counts them. */
uint64_t segment_committed(const struct segment *segment);

static inline void *segment_at(const struct segment *segment, uint64_t offset)
{
    return segment->base + offset;
}

#endif
