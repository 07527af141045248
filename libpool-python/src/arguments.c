/* The arguments of a call, put together in the host. */
#include "arguments.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct pool_python_arguments *pool_python_arguments_create(void)
{
    return calloc(1, sizeof(struct pool_python_arguments));
}

void pool_python_arguments_clear(struct pool_python_arguments *arguments)
{
    builder_clear(&arguments->builder);
    arguments->block_count = 0;
}

void pool_python_arguments_destroy(struct pool_python_arguments *arguments)
{
    if (!arguments)
        return;
    builder_destroy(&arguments->builder);
    free(arguments->blocks);
    free(arguments);
}

static int fail(struct pool_python_arguments *arguments, int error)
{
    if (arguments->builder.error == 0)
        arguments->builder.error = error;
    return arguments->builder.error;
}

/* ---- UTF-8 ---------------------------------------------------------------------------------- */

/* The length of the character that begins at `text`, of which `room` bytes are there; 0: it is
 * none. As Python sees it: no surrogates, and no longer forms than needed. */
static size_t character_size(const unsigned char *text, size_t room)
{
    unsigned char first = text[0], low = 0x80, high = 0xbf;
    size_t size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

    if (size == 1)
        return 1;
    if (first < 0xc2 || first > 0xf4 || room < size)
        return 0;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++)
        if (text[i] < 0x80 || text[i] > 0xbf)
            return 0;
    return size;
}

bool arguments_is_utf8(const char *text, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)text;

    for (size_t i = 0, length; i < size; i += length) {
        length = character_size(bytes + i, size - i);
        if (length == 0)
            return false;
    }
    return true;
}

/* ---- Values --------------------------------------------------------------------------------- */

int pool_python_put_none(struct pool_python_arguments *arguments)
{
    return builder_put(&arguments->builder, TAG_NONE, 0);
}

int pool_python_put_bool(struct pool_python_arguments *arguments, bool value)
{
    return builder_put(&arguments->builder, TAG_BOOL, value);
}

int pool_python_put_int64(struct pool_python_arguments *arguments, int64_t value)
{
    return builder_put_int(&arguments->builder, value);
}

int pool_python_put_double(struct pool_python_arguments *arguments, double value)
{
    return builder_put_double(&arguments->builder, value);
}

int pool_python_put_text(struct pool_python_arguments *arguments, const char *text, size_t size)
{
    if (!arguments_is_utf8(text, size))
        return fail(arguments, -EILSEQ);
    return builder_put_text(&arguments->builder, TAG_STRING, text, size);
}

int pool_python_put_string(struct pool_python_arguments *arguments, const char *text)
{
    return pool_python_put_text(arguments, text, strlen(text));
}

int pool_python_put_bytes(struct pool_python_arguments *arguments, const void *data, size_t size)
{
    return builder_put_text(&arguments->builder, TAG_BYTES, data, size);
}

int pool_python_put_keyword(struct pool_python_arguments *arguments, const char *name)
{
    size_t size = strlen(name);

    if (!arguments_is_utf8(name, size))
        return fail(arguments, -EILSEQ);
    return builder_put_text(&arguments->builder, TAG_KEYWORD, name, size);
}

int pool_python_begin_list(struct pool_python_arguments *arguments)
{
    return builder_begin(&arguments->builder, TAG_LIST);
}

int pool_python_begin_tuple(struct pool_python_arguments *arguments)
{
    return builder_begin(&arguments->builder, TAG_TUPLE);
}

int pool_python_begin_dict(struct pool_python_arguments *arguments)
{
    return builder_begin(&arguments->builder, TAG_DICT);
}

int pool_python_end(struct pool_python_arguments *arguments)
{
    return builder_end(&arguments->builder);
}

/* ---- Arrays --------------------------------------------------------------------------------- */

/* Notes the block, for the look at it when the pool is known. */
static int note_block(struct pool_python_arguments *arguments,
                      const struct pool_python_array *array, size_t size)
{
    if (arguments->block_count == arguments->block_room) {
        size_t room = arguments->block_room ? arguments->block_room * 2 : 8;
        struct block_use *blocks = realloc(arguments->blocks, room * sizeof *blocks);
        if (!blocks)
            return -ENOMEM;
        arguments->blocks = blocks;
        arguments->block_room = room;
    }
    arguments->blocks[arguments->block_count++] =
        (struct block_use){array->reference, array->offset, size};
    return 0;
}

int pool_python_put_array(struct pool_python_arguments *arguments,
                          const struct pool_python_array *array)
{
    struct pool_python_array copy = *array;
    size_t size;
    int error = 0;

    if (arguments->builder.error)
        return arguments->builder.error;
    if (array->size < sizeof *array ||
        !format_array_size(array->type, array->dimensions, array->shape, &size) ||
        (array->reference == 0 && !array->data && size > 0) ||
        (array->reference && array->offset % format_alignment(array->type)))
        return fail(arguments, -EINVAL);
    if (array->reference)
        error = note_block(arguments, array, size);
    else
        copy.readonly = true;
    if (error)
        return fail(arguments, error);
    return builder_put_array(&arguments->builder, &copy, NULL);
}

int arguments_check_blocks(const struct pool_python_arguments *arguments, struct pool *pool)
{
    for (size_t i = 0; i < arguments->block_count; i++) {
        const struct block_use *use = &arguments->blocks[i];
        void *memory;
        size_t size;
        int error = pool_lookup(pool, use->reference, &memory, &size);
        if (error)
            return error;
        if (use->offset > size || use->size > size - use->offset)
            return -EINVAL;
    }
    return 0;
}
