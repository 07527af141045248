#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include "builder.h"

/* A part of a block that an array names. */
struct block_use {
    uint64_t reference;
    size_t offset, size;
};

struct pool_python_arguments {
    struct builder builder;
    struct block_use *blocks;
    size_t block_count, block_room;
};

bool arguments_is_utf8(const char *text, size_t size);
/* -EINVAL: a block of an array is not there, or the array not within it. */
int arguments_check_blocks(const struct pool_python_arguments *arguments, struct pool *pool);

#endif
