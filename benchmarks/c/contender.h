/* What every pool that takes part in the comparison provides. To add one: write
 * contender_NAME.c, list it in pool_bench.c, and in CMakeLists.txt if it links anything. */
#ifndef CONTENDER_H
#define CONTENDER_H

#include <stdbool.h>
#include <stddef.h>

struct contender {
    const char *name;
    /* A pool with that many workers, or NULL. */
    void *(*open)(int workers);
    /* Submits one job that does nothing and waits for it. False: something failed. */
    bool (*round_trip)(void *pool);
    /* Submits `count` such jobs, each with a future of its own, then waits for each, in order. */
    bool (*burst)(void *pool, size_t count);
    void (*close)(void *pool);
};

extern const struct contender contender_libpool;
extern const struct contender contender_condition;

#endif
