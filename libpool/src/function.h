/* C functions named in a way that holds in another process: module and offset.
 *
 * Modules are the executable and the shared libraries that the functions lie in; their names stand
 * in a table in the segment. An id is [module + 1:16][offset:48], never 0.
 */
#ifndef POOL_FUNCTION_H
#define POOL_FUNCTION_H

#include <pthread.h>
#include <stdint.h>

#include "libpool.h"
#include "segment.h"

#define FUNCTION_CACHE 256

struct function_table {
    struct segment *segment;
    uint64_t modules; /* offset of the module table */
    /* What the table calls the executable of this process: "" if it is that of the host. */
    const char *executable;
    /* Private: pairs seen before, open addressing, entries are added and never changed, so that
     * readers need no lock. */
    struct {
        _Atomic uint64_t id;
        _Atomic uintptr_t address; /* 0: none */
    } cache[FUNCTION_CACHE];
    pthread_mutex_t lock; /* for adding */
};

void function_table_plan(struct function_table *table, struct segment *segment);
int function_table_start(struct function_table *table);
/* In a new process: the lock may have been held by a thread that is not there. */
void function_table_forked(struct function_table *table);

/* The id of a function. -EINVAL: it lies in no loaded object; -ENOSPC: more modules than the
 * table takes, or a longer name. */
int function_id(struct function_table *table, pool_function function, uint64_t *id);

/* The function of an id, loading its library if need be. -EINVAL: no such module here, or the
 * address is none of its code. */
int function_resolve(struct function_table *table, uint64_t id, pool_function *function);

#endif
