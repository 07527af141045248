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

/* A chunk's argument: this, then the items. Its result: a struct chunk_result, then the results. */
struct chunk {
    uint64_t function; /* an id */
    uint64_t item_size, result_size, count;
};

struct chunk_result {
    int64_t status; /* of the first item that failed, or 0 */
};

static int run_chunk(struct pool_job *job, const void *argument, size_t size)
{
    const struct chunk *chunk = argument;
    const unsigned char *item = (const unsigned char *)(chunk + 1);
    struct chunk_result *result;
    unsigned char *output;
    pool_function function;
    uint64_t i;
    int error;

    if (size < sizeof *chunk || (chunk->item_size && chunk->count > size / chunk->item_size))
        return -EINVAL;
    error = function_resolve(&job->pool->functions, chunk->function, &function);
    if (error)
        return error;
    result = pool_job_reserve(job, sizeof *result + chunk->count * chunk->result_size);
    if (!result)
        return -errno;
    result->status = 0;
    output = (unsigned char *)(result + 1);
    for (i = 0; i < chunk->count; i++) {
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
        if (status && !result->status)
            result->status = status;
        item += chunk->item_size;
        output += chunk->result_size;
    }
    return 0;
}

struct map {
    struct pool *pool;
    struct chunk chunk; /* of a full one */
    const unsigned char *items;
    unsigned char *results;
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
    error = pool_prepare(map->pool, sizeof chunk + chunk.count * chunk.item_size, future, &memory);
    if (error)
        return error;
    memcpy(memory, &chunk, sizeof chunk);
    if (chunk.item_size)
        memcpy((unsigned char *)memory + sizeof chunk, map->items + begin * chunk.item_size,
               chunk.count * chunk.item_size);
    error = pool_commit(future, run_chunk);
    if (error)
        pool_abandon(future);
    return error;
}

/* Waits also across signals: the items that the caller lent us must not be left in flight. */
static void collect_chunk(struct map *map, size_t begin, const struct pool_future *future)
{
    const struct chunk_result *result;
    size_t count = map->count - begin, size;
    const void *data;
    int status;

    if (count > map->chunk.count)
        count = map->chunk.count;
    while ((status = pool_future_wait(future, POOL_FOREVER)) == -EINTR)
        ;
    if (status == 0)
        status = pool_future_result(future, &data, &size);
    if (status == 0 && size != sizeof *result + count * map->chunk.result_size)
        status = -EBADMSG;
    if (status == 0) {
        result = data;
        status = (int)result->status;
        if (map->chunk.result_size)
            memcpy(map->results + begin * map->chunk.result_size, result + 1,
                   count * map->chunk.result_size);
    }
    if (status && !map->status)
        map->status = status;
    pool_future_release(future);
}

static size_t chunk_items(const struct pool *pool, size_t item_size, size_t count)
{
    size_t items = count / ((size_t)pool->workers * CHUNKS_PER_WORKER) + 1;
    size_t most = item_size && item_size < CHUNK_BYTES ? CHUNK_BYTES / item_size : 1;

    return item_size && items > most ? most : items;
}

int pool_map(struct pool *pool, pool_function function, const void *items, size_t item_size,
             size_t count, void *results, size_t result_size)
{
    struct map map = {.pool = pool, .items = items, .results = results, .count = count};
    size_t ahead = (size_t)pool->workers * AHEAD_PER_WORKER, submitted = 0, collected = 0;
    struct pool_future *futures;
    int error = pool_usable(pool);

    if (error && !(error == -ESHUTDOWN && pool->role == ROLE_WORKER))
        return error;
    if ((item_size && count && !items) || (result_size && count && !results) ||
        (item_size && count > SIZE_MAX / item_size) ||
        (result_size && count > SIZE_MAX / result_size))
        return -EINVAL;
    if (item_size > SIZE_MAX / 2 || result_size > SIZE_MAX / 2)
        return -E2BIG;
    error = function_id(&pool->functions, function, &map.chunk.function);
    if (error)
        return error;
    map.chunk.item_size = item_size;
    map.chunk.result_size = result_size;
    map.chunk.count = chunk_items(pool, item_size > result_size ? item_size : result_size, count);
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
    return map.status ? map.status : error;
}
