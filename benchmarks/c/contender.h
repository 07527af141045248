/* What every pool that takes part in the comparison provides. To add one: write
 * contender_NAME.c, list it in pool_bench.c, and in CMakeLists.txt if it needs anything. */
#ifndef CONTENDER_H
#define CONTENDER_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct contender {
    const char *name;
    /* A pool with that many workers, or NULL. */
    void *(*open)(int workers);
    /* Submits one job that does nothing and waits for it. False: something failed. NULL where the
     * thread that waits would run the job itself: nothing would go from one thread to another. */
    bool (*round_trip)(void *pool);
    /* Submits `count` such jobs one after the other, then waits for all of them: for each one's
     * future, in order, where the pool has such a thing. */
    bool (*burst)(void *pool, size_t count);
    void (*close)(void *pool);
};

extern const struct contender contender_libpool;
extern const struct contender contender_condition;
extern const struct contender contender_glib;
extern const struct contender contender_openmp;
extern const struct contender contender_tbb;

#ifdef __cplusplus
}
#endif

#endif
