/* The fuzzer's parts: who scribbles over the segment, and who goes on using the pool. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "internal.h"

#define MEBIBYTE (UINT64_C(1) << 20)
#define SECOND INT64_C(1000000000)
#define MILLISECOND INT64_C(1000000)

/* Decisions, from a seed; never 0. */
struct chance {
    uint64_t state;
};

uint64_t chance_next(struct chance *chance);
static inline uint64_t chance_below(struct chance *chance, uint64_t bound)
{
    return chance_next(chance) % bound;
}

/* Shared by all processes of the fuzzer. */
struct fuzz_shared {
    _Atomic(const char *) call; /* what the host is in */
    _Atomic uint32_t calls, errors, scribbles;
    pid_t bystander; /* not the pool's: nobody is to kill it */
};

extern struct fuzz_shared *fuzz_shared;

/* fuzz_scribble.c: writes `count` words of the segment, as any worker could. */
void fuzz_scribble(const struct pool *pool, struct chance *chance, unsigned count);

/* fuzz_host.c: one pool from its making to its end, in this process. */
void fuzz_once(struct chance *chance);

#endif
