/* Tasks of OpenMP. There is no pool to open: the runtime keeps its threads from one parallel region
 * to the next. The thread that makes the tasks runs some of them itself, when it waits. */
#include <stdlib.h>

#include "contender.h"

struct openmp_pool {
    int workers;
};

static void *open_pool(int workers)
{
    struct openmp_pool *pool = malloc(sizeof *pool);
    if (pool != NULL)
        pool->workers = workers;
    return pool;
}

static bool burst(void *opaque, size_t count)
{
    const struct openmp_pool *pool = opaque;
    /* What each task writes, so that none can be left out. */
    char *ended = calloc(count, 1);
    if (ended == NULL)
        return false;
#pragma omp parallel num_threads(pool->workers)
#pragma omp single
    {
        for (size_t i = 0; i < count; i++) {
#pragma omp task firstprivate(i) shared(ended)
            ended[i] = 1;
        }
#pragma omp taskwait
    }
    bool fine = true;
    for (size_t i = 0; i < count; i++)
        fine &= ended[i] == 1;
    free(ended);
    return fine;
}

static void close_pool(void *pool)
{
    free(pool);
}

const struct contender contender_openmp = {"OpenMP tasks", open_pool, NULL, burst, close_pool};
