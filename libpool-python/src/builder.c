/* Writing messages. */
#include "builder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void builder_clear(struct builder *builder)
{
    builder->used = builder->piece_count = builder->apart = builder->entry_count = 0;
    builder->values = 0;
    builder->depth = builder->error = 0;
    builder->has_keyword = false;
}

/* Not `open`, which is large, and written before it is read. */
void builder_init(struct builder *builder)
{
    builder->data = NULL;
    builder->pieces = NULL;
    builder->table = NULL;
    builder->room = builder->piece_room = builder->entry_room = 0;
    builder_clear(builder);
}

void builder_destroy(struct builder *builder)
{
    free(builder->data);
    free(builder->pieces);
    free(builder->table);
}

static int fail(struct builder *builder, int error)
{
    if (builder->error == 0)
        builder->error = error;
    return builder->error;
}

/* Room for `count` more elements; NULL: there is none, and that is the builder's error now. */
static void *make_room(struct builder *builder, void **array, size_t used, size_t *room,
                       size_t count, size_t element)
{
    if (count > *room - used) {
        size_t larger = *room ? *room * 2 : 256 / element;
        while (larger - used < count && larger <= SIZE_MAX / 4)
            larger *= 2;
        void *memory = larger <= SIZE_MAX / 4 / element ? realloc(*array, larger * element) : NULL;
        if (!memory) {
            fail(builder, -ENOMEM);
            return NULL;
        }
        *array = memory;
        *room = larger;
    }
    return (unsigned char *)*array + used * element;
}

static unsigned char *extend(struct builder *builder, size_t size)
{
    void *array = builder->data;
    unsigned char *memory = make_room(builder, &array, builder->used, &builder->room, size, 1);

    builder->data = array;
    if (memory)
        builder->used += size;
    return memory;
}

/* Notes in the table of the open container where the next item, or key, begins. */
static void note_item(struct builder *builder, struct open_container *container)
{
    size_t words = (builder->used - container->at) / FORMAT_WORD;
    void *array = builder->table;

    if (words > UINT32_MAX) {
        fail(builder, -E2BIG);
        return;
    }
    uint32_t *entry =
        make_room(builder, &array, builder->entry_count, &builder->entry_room, 1, sizeof *entry);
    builder->table = array;
    if (entry) {
        *entry = (uint32_t)words;
        builder->entry_count++;
    }
}

/* Where a node of `words` words goes, which is a value; NULL after an error. */
static uint64_t *begin_value(struct builder *builder, size_t words)
{
    struct open_container *container = builder->depth ? &builder->open[builder->depth - 1] : NULL;

    if (builder->error)
        return NULL;
    if (container) {
        if (container->tag != TAG_DICT || container->nodes % 2 == 0)
            note_item(builder, container);
        container->nodes++;
    } else {
        builder->values += !builder->has_keyword;
        builder->has_keyword = false;
    }
    return builder->error ? NULL : (uint64_t *)(void *)extend(builder, words * FORMAT_WORD);
}

static uint64_t head(enum format_tag tag, uint64_t extra)
{
    return (uint64_t)tag | extra << 8;
}

int builder_put(struct builder *builder, enum format_tag tag, uint64_t extra)
{
    uint64_t *words = begin_value(builder, 1);

    if (words)
        words[0] = head(tag, extra);
    return builder->error;
}

int builder_put_int(struct builder *builder, int64_t value)
{
    bool small = value >= -(INT64_C(1) << 55) && value < INT64_C(1) << 55;

    if (small)
        return builder_put(builder, TAG_SMALL, (uint64_t)value);
    uint64_t *words = begin_value(builder, 2);
    if (words) {
        words[0] = head(TAG_INT, 0);
        words[1] = (uint64_t)value;
    }
    return builder->error;
}

int builder_put_double(struct builder *builder, double value)
{
    uint64_t *words = begin_value(builder, 2);

    if (words) {
        words[0] = head(TAG_DOUBLE, 0);
        memcpy(&words[1], &value, sizeof value);
    }
    return builder->error;
}

int builder_put_text(struct builder *builder, enum format_tag tag, const void *data, size_t size)
{
    size_t words = size / FORMAT_WORD + 1; /* at least one 0 */
    uint64_t *memory;

    if (size > SIZE_MAX / 4)
        return fail(builder, -ENOMEM);
    if (tag != TAG_KEYWORD) {
        memory = begin_value(builder, 1 + words);
    } else {
        if (builder->depth || builder->has_keyword)
            return fail(builder, -EINVAL);
        memory = builder->error ? NULL : (void *)extend(builder, (1 + words) * FORMAT_WORD);
        builder->has_keyword = true;
    }
    if (memory) {
        memory[0] = head(tag, size);
        memory[words] = 0;
        if (size)
            memcpy(&memory[1], data, size);
    }
    return builder->error;
}

/* Its offset in the area. */
static size_t add_piece(struct builder *builder, const void *data, size_t size, size_t zero,
                        void *context)
{
    void *array = builder->pieces;

    if (size > SIZE_MAX / 4 - builder->apart) {
        fail(builder, -ENOMEM);
        return 0;
    }
    struct piece *piece =
        make_room(builder, &array, builder->piece_count, &builder->piece_room, 1, sizeof *piece);
    builder->pieces = array;
    if (!piece)
        return 0;
    *piece = (struct piece){builder->apart, data, size, context};
    builder->piece_count++;
    builder->apart = format_round(builder->apart + size + zero, FORMAT_UNIT);
    return piece->offset;
}

int builder_put_apart(struct builder *builder, enum format_tag tag, const void *data, size_t size,
                      void *context)
{
    uint64_t *words = begin_value(builder, 2);

    if (words) {
        words[0] = head(tag, size);
        words[1] = add_piece(builder, data, size, 1, context);
    }
    return builder->error;
}

int builder_put_array(struct builder *builder, const struct pool_python_array *array, void *context)
{
    size_t size, count = (size_t)array->dimensions;
    unsigned flags = array->reference ? 0 : FORMAT_APART;

    if (!format_array_size(array->type, array->dimensions, array->shape, &size))
        return fail(builder, -EINVAL);
    uint64_t *words = begin_value(builder, 3 + count);
    if (!words)
        return builder->error;
    if (array->readonly)
        flags |= FORMAT_READONLY;
    words[0] = head(TAG_ARRAY, format_array_extra(array->type, array->dimensions, flags));
    for (size_t i = 0; i < count; i++)
        words[1 + i] = array->shape[i];
    words[1 + count] =
        array->reference ? array->offset : add_piece(builder, array->data, size, 0, context);
    words[2 + count] = array->reference;
    return builder->error;
}

int builder_begin(struct builder *builder, enum format_tag tag)
{
    size_t at = builder->used;
    uint64_t *words;

    if (builder->depth == POOL_PYTHON_MAX_DEPTH)
        return fail(builder, -EOVERFLOW);
    words = begin_value(builder, 2);
    if (words) {
        words[0] = head(tag, 0);
        builder->open[builder->depth++] =
            (struct open_container){.tag = tag, .at = at, .first_entry = builder->entry_count};
    }
    return builder->error;
}

int builder_end(struct builder *builder)
{
    if (builder->error)
        return builder->error;
    if (builder->depth == 0)
        return fail(builder, -EINVAL);
    const struct open_container *container = &builder->open[builder->depth - 1];
    size_t entries = builder->entry_count - container->first_entry;
    size_t items = builder->used - container->at - 2 * FORMAT_WORD;
    size_t table = entries * sizeof(uint32_t), padded = format_round(table, FORMAT_WORD);
    if (container->tag == TAG_DICT && container->nodes % 2)
        return fail(builder, -EINVAL);
    unsigned char *memory = extend(builder, padded);
    if (!memory)
        return builder->error;
    if (padded) {
        memset(memory + padded - FORMAT_WORD, 0, FORMAT_WORD);
        memcpy(memory, builder->table + container->first_entry, table);
    }
    uint64_t *words = (uint64_t *)(void *)(builder->data + container->at);
    words[0] = head(container->tag, entries);
    words[1] = items;
    builder->entry_count = container->first_entry;
    builder->depth--;
    return 0;
}

size_t builder_size(const struct builder *builder, size_t prefix)
{
    size_t size = prefix + builder->used;

    if (builder->apart)
        size = format_round(size, FORMAT_UNIT) + builder->apart;
    return size;
}

uint32_t builder_write(const struct builder *builder, size_t prefix, unsigned char *memory,
                       void (*copy)(void *destination, const struct piece *piece))
{
    size_t area = format_round(prefix + builder->used, FORMAT_UNIT);

    if (builder->used)
        memcpy(memory + prefix, builder->data, builder->used);
    if (builder->apart == 0)
        return 0;
    memset(memory + prefix + builder->used, 0, area - prefix - builder->used);
    for (size_t i = 0; i < builder->piece_count; i++) {
        const struct piece *piece = &builder->pieces[i];
        unsigned char *destination = memory + area + piece->offset;
        size_t end = i + 1 < builder->piece_count ? piece[1].offset : builder->apart;
        if (piece->context && copy)
            copy(destination, piece);
        else if (piece->size)
            memcpy(destination, piece->data, piece->size);
        memset(destination + piece->size, 0, end - piece->offset - piece->size);
    }
    return (uint32_t)(area / FORMAT_UNIT);
}
