/* pool_map(): a function over an array, in chunks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "atomic.h"
#include "internal.h"

/* Chunks for each worker: enough that a slow one does not leave the others without work. */
#define CHUNKS_PER_WORKER 8
/* Chunks that are submitted at the same time, for each worker; bounds the memory of a long map. */
#define AHEAD_PER_WORKER 16
/* The most bytes of items in one chunk. */
#define CHUNK_BYTES (1U << 20)

/* A chunk's argument: this, then the items. Its result: a struct chunk_result, then the results,
 * then an int32_t for each item, if `statuses` is 1. */
struct chunk {
    uint64_t function; /* an id */
    uint64_t item_size, result_size, count, statuses;
};

struct chunk_result {
    int64_t status; /* of the first item that failed, or 0 */
};

static size_t chunk_result_size(const struct chunk *chunk, uint64_t count)
{
    return sizeof(struct chunk_result) +
           count * (chunk->result_size + (chunk->statuses ? sizeof(int32_t) : 0));
}

/* Calls the function with item number i. `output` has room for its result. */
static int32_t run_item(struct pool_job *job, pool_function function, const struct chunk *chunk,
                        uint64_t i, unsigned char *output)
{
    const unsigned char *item = (const unsigned char *)(chunk + 1) + i * chunk->item_size;
    struct pool_job one = *job;
    int status;

    pool_job_part(job, (uint32_t)i);
    one.result = (struct payload){.kind = PAYLOAD_NONE};
    one.argument = item;
    one.size = chunk->item_size;
    one.slice = output;
    one.slice_room = chunk->result_size;
    one.slice_used = 0;
    status = function(&one, item, chunk->item_size);
    run_end_copy(job->pool);
    if (status > 0 || status < -4095)
        status = -ERANGE;
    if (status == 0 && one.slice_overflow)
        status = -EMSGSIZE;
    memset(output + one.slice_used, 0, chunk->result_size - one.slice_used);
    return status;
}

static int run_chunk(struct pool_job *job, const void *argument, size_t size)
{
    const struct chunk *chunk = argument;
    struct chunk_result *result;
    unsigned char *output, *statuses;
    pool_function function;
    uint64_t i;
    int error;

    if (size < sizeof *chunk || (chunk->item_size && chunk->count > size / chunk->item_size))
        return -EINVAL;
    error = function_resolve(&job->pool->functions, chunk->function, &function);
    if (error)
        return error;
    result = pool_job_reserve(job, chunk_result_size(chunk, chunk->count));
    if (!result)
        return -errno;
    result->status = 0;
    output = (unsigned char *)(result + 1);
    statuses = output + chunk->count * chunk->result_size;
    for (i = 0; i < chunk->count; i++) {
        int32_t status = run_item(job, function, chunk, i, output);

        if (status && !result->status)
            result->status = status;
        if (chunk->statuses)
            memcpy(statuses + i * sizeof status, &status, sizeof status);
        output += chunk->result_size;
    }
    if (result->status)
        pool_job_fail(job);
    return 0;
}

struct map {
    struct pool *pool;
    const struct pool_options *options;
    struct chunk chunk; /* of a full one */
    const unsigned char *items;
    unsigned char *results;
    int *statuses; /* or NULL */
    uint64_t run;  /* the id of run_chunk() */
    size_t count;
    int status;
};

static int submit_chunk(struct map *map, size_t begin, struct pool_future *future)
{
    struct chunk chunk = map->chunk;
    void *memory;
    int error;

    if (map->count - begin < chunk.count)
        chunk.count = map->count - begin;
    error = pool_prepare_with(map->pool, map->options, sizeof chunk + chunk.count * chunk.item_size,
                              future, &memory);
    if (error)
        return error;
    memcpy(memory, &chunk, sizeof chunk);
    if (chunk.item_size)
        memcpy((unsigned char *)memory + sizeof chunk, map->items + begin * chunk.item_size,
               chunk.count * chunk.item_size);
    /* Not pool_commit(): a map bounds itself, and has no limit of the queue. */
    error = submit_commit(future, map->run, false, 0, true);
    if (error)
        pool_abandon(future);
    return error;
}

/* `result`: of a chunk that has one, else `status` goes for each of its items. */
static void note_statuses(struct map *map, size_t begin, size_t count,
                          const struct chunk_result *result, int status)
{
    const unsigned char *statuses = (const unsigned char *)(result + 1);
    size_t i;

    for (i = 0; map->statuses && i < count; i++) {
        int32_t one = status;

        if (result)
            memcpy(&one, statuses + count * map->chunk.result_size + i * sizeof one, sizeof one);
        map->statuses[begin + i] = one;
    }
}

/* Waits also across signals: the items that the caller lent us must not be left in flight. */
static void collect_chunk(struct map *map, size_t begin, const struct pool_future *future)
{
    const struct chunk_result *result = NULL;
    size_t count = map->count - begin, size;
    const void *data;
    int status;

    if (count > map->chunk.count)
        count = map->chunk.count;
    while ((status = pool_future_wait(future, POOL_FOREVER)) == -EINTR)
        ;
    if (status == 0)
        status = pool_future_result(future, &data, &size);
    if (status == 0 && size != chunk_result_size(&map->chunk, count))
        status = -EBADMSG;
    if (status == 0) {
        result = data;
        status = (int)result->status;
        if (map->chunk.result_size)
            memcpy(map->results + begin * map->chunk.result_size, result + 1,
                   count * map->chunk.result_size);
    }
    note_statuses(map, begin, count, result, status);
    if (status && !map->status)
        map->status = status;
    pool_future_release(future);
}

/* `item_size`: the larger one of an item's and a result's. */
static size_t chunk_items(const struct pool *pool, size_t item_size, size_t count)
{
    size_t items = count / ((size_t)pool->workers * CHUNKS_PER_WORKER) + 1;
    size_t most = item_size && item_size < CHUNK_BYTES ? CHUNK_BYTES / item_size : 1;

    return item_size && items > most ? most : items;
}

static int check_map(const struct map *map, size_t item_size, size_t result_size)
{
    int error = pool_usable(map->pool);

    if (error && !(error == -ESHUTDOWN && map->pool->role == ROLE_WORKER))
        return error;
    if ((item_size && map->count && !map->items) || (result_size && map->count && !map->results) ||
        (item_size && map->count > SIZE_MAX / item_size) ||
        (result_size && map->count > SIZE_MAX / result_size))
        return -EINVAL;
    return item_size > SIZE_MAX / 2 || result_size > SIZE_MAX / 2 ? -E2BIG : 0;
}

int pool_map(struct pool *pool, pool_function function, const void *items, size_t item_size,
             size_t count, void *results, size_t result_size)
{
    return pool_map_with(pool, NULL, function, items, item_size, count, results, result_size, NULL);
}

int pool_map_with(struct pool *pool, const struct pool_options *options, pool_function function,
                  const void *items, size_t item_size, size_t count, void *results,
                  size_t result_size, int *statuses)
{
    struct map map = {.pool = pool,
                      .options = options,
                      .items = items,
                      .results = results,
                      .statuses = statuses,
                      .count = count};
    size_t ahead = (size_t)pool->workers * AHEAD_PER_WORKER, submitted = 0, collected = 0;
    size_t largest = item_size > result_size ? item_size : result_size;
    struct pool_future *futures;
    int error = check_map(&map, item_size, result_size);

    if (error)
        return error;
    if (statuses && largest < sizeof(int32_t))
        largest = sizeof(int32_t);
    error = function_id(&pool->functions, function, &map.chunk.function);
    if (!error)
        error = function_id(&pool->functions, run_chunk, &map.run);
    if (error)
        return error;
    map.chunk.item_size = item_size;
    map.chunk.result_size = result_size;
    map.chunk.statuses = statuses != NULL;
    map.chunk.count = chunk_items(pool, largest, count);
    futures = calloc(ahead, sizeof *futures);
    if (!futures)
        return -ENOMEM;
    while (collected < count) {
        size_t step = map.chunk.count;

        if (submitted < count && (submitted - collected) / step < ahead && !error) {
            error = submit_chunk(&map, submitted, &futures[submitted / step % ahead]);
            if (!error) {
                submitted += step;
                continue;
            }
            /* With chunks in flight there is memory to come. */
            if (error == -ENOMEM && submitted > collected)
                error = 0;
        }
        if (collected >= submitted)
            break; /* nothing in flight, and no more can be submitted */
        collect_chunk(&map, collected, &futures[collected / step % ahead]);
        collected += step;
    }
    free(futures);
    if (collected < count)
        note_statuses(&map, collected, count - collected, NULL, error);
    return map.status ? map.status : error;
}
