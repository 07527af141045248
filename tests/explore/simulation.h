/* A whole pool in the explorer: process 0 is the host, 1.. are workers, then come further
 * threads of the host, then the stretches of the supervisor's life that begin with a death. */
#ifndef SIMULATION_H
#define SIMULATION_H

#include "internal.h"

struct simulation {
    int workers;
    int threads;            /* further ones of the host */
    unsigned ring_bits;     /* of the first level */
    unsigned jobs;          /* at the same time, at most 64 */
    unsigned block_largest; /* bytes; 256 gives one class */
};

/* Lays the tables out in explore_memory and commits their beginnings: for setup(). */
void simulation_setup(const struct simulation *simulation);
/* A process's own view of the pool. */
struct pool *simulation_pool(int process);
/* What a repairing process does first: the supervisor's repair. Then it is the replacement. */
void simulation_repair(int process);
/* The host's end of the pool: closes it and rings everybody. */
void simulation_close(struct pool *pool);
/* A word of the shared memory that the pool does not use, 0 at the start. */
void *simulation_word(void);
/* Sleeps until such a word is 1, and makes it so. */
void simulation_await(_Atomic uint32_t *word);
void simulation_announce(_Atomic uint32_t *word);
/* If set: called when a process begins to wait. */
extern void (*simulation_idle)(void);
/* The host's wait for its eventfd, and the reading of it. */
void simulation_await_event(void);
/* A worker's slot is its own until it dies, but for the bell, and the depth of its stack, at which
 * others look: for struct explore_scenario. */
bool simulation_private(int process, const volatile void *address);
/* For check(): every block and slot is free, or kept by somebody who lives, and has its hint. */
void simulation_check_free(void);

#endif
