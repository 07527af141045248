/* Shared blocks: memory that every process of the pool sees, by reference. */
#include <errno.h>

#include "internal.h"

/* A block HELD by this process. */
static int allocate(struct pool *pool, size_t size, block_ref *ref, void **memory)
{
    uint64_t length;
    int error = submit_allowed(pool);

    if (error)
        return error;
    submit_touch(pool);
    error = arena_alloc(&pool->arena, pool->self, size, ref);
    if (error == -ENOMEM && submit_make_room(pool))
        error = arena_alloc(&pool->arena, pool->self, size, ref);
    if (error)
        return error;
    error = arena_lookup(&pool->arena, *ref, memory, &length);
    if (error)
        arena_free_held(&pool->arena, *ref, pool->self);
    return error;
}

int pool_alloc(struct pool *pool, size_t size, uint64_t *reference, void **memory)
{
    block_ref ref;
    int error = allocate(pool, size, &ref, memory);

    if (error)
        return error;
    arena_share(&pool->arena, ref, pool->self);
    *reference = ref;
    return 0;
}

int pool_alloc_own(struct pool *pool, size_t size, uint64_t *reference, void **memory)
{
    block_ref ref;
    int error = allocate(pool, size, &ref, memory);

    if (error)
        return error;
    arena_keep(&pool->arena, ref, pool->self);
    *reference = ref;
    return 0;
}

void pool_free(struct pool *pool, uint64_t reference)
{
    if (pool_usable(pool) == -EXDEV)
        return;
    submit_touch(pool);
    arena_free_shared(&pool->arena, reference);
}

int pool_lookup(struct pool *pool, uint64_t reference, void **memory, size_t *size)
{
    uint64_t length;
    int error = pool_usable(pool) == -EXDEV ? -EXDEV : 0;

    if (!error && !arena_is_shared(&pool->arena, reference) &&
        !arena_is_held(&pool->arena, reference, pool->self))
        error = -EINVAL;
    if (!error)
        error = arena_lookup(&pool->arena, reference, memory, &length);
    if (!error && size)
        *size = length;
    return error;
}

int pool_hold(struct pool *pool, uint64_t reference)
{
    if (pool_usable(pool) == -EXDEV)
        return -EXDEV;
    submit_touch(pool); /* before: if we die, the repair looks for what we hold */
    return arena_hold(&pool->arena, reference, pool->self) ? 0 : -EINVAL;
}

void pool_drop(struct pool *pool, uint64_t reference)
{
    if (pool_usable(pool) != -EXDEV)
        arena_drop(&pool->arena, reference, pool->self);
}

uint64_t pool_find(struct pool *pool, const void *address, size_t *offset)
{
    block_ref ref = pool_usable(pool) == -EXDEV ? 0 : arena_find(&pool->arena, address);
    uint64_t length;
    size_t distance;
    void *memory;

    if (ref == 0 || arena_lookup(&pool->arena, ref, &memory, &length) != 0)
        return 0;
    distance = (size_t)((const unsigned char *)address - (const unsigned char *)memory);
    if (distance > length)
        return 0;
    if (offset)
        *offset = distance;
    return ref;
}
