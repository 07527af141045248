/* A whole pool in the explorer: process 0 is the host, 1.. are workers, the last one repairs. */
#ifndef SIMULATION_H
#define SIMULATION_H

#include "internal.h"

struct simulation {
    int workers;
    unsigned ring_bits;    /* of the first level */
    unsigned block_largest; /* bytes; 256 gives one class */
};

/* Lays the tables out in explore_memory and commits their beginnings: for setup(). */
void simulation_setup(const struct simulation *simulation);
/* A process's own view of the pool. */
struct pool *simulation_pool(int process);
/* What the repairing process does: the supervisor's repair, then the replacement's life. */
void simulation_repair(int process);
/* The host's end of the pool: closes it and rings everybody. */
void simulation_close(struct pool *pool);
/* The host's wait for its eventfd, and the reading of it. */
void simulation_await_event(void);
/* A worker's slot, but for the bell, is its own until it dies: for struct explore_scenario. */
bool simulation_private(int process, const volatile void *address);
/* For check(): every block and slot is free, each has its hint, exactly once. */
void simulation_check_free(void);

#endif
