/* Reading messages; writing them is builder.c. */
#include "format.h"

#include <errno.h>
#include <string.h>

size_t pool_python_type_size(enum pool_python_type type)
{
    static const unsigned char sizes[] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 8, 16};

    return (unsigned)type < sizeof sizes ? sizes[type] : 0;
}

bool format_array_size(enum pool_python_type type, int dimensions, const size_t *shape,
                       size_t *size)
{
    /* An array with a length of 0 takes nothing, but the other lengths have to be such that NumPy
     * can multiply them. */
    size_t product = pool_python_type_size(type), taken = product;

    if (product == 0 || dimensions < 0 || dimensions > POOL_PYTHON_MAX_DIMENSIONS)
        return false;
    for (int i = 0; i < dimensions; i++) {
        size_t length = shape[i] ? shape[i] : 1;
        if (length > (size_t)PTRDIFF_MAX / product)
            return false;
        product *= length;
        taken = shape[i] ? taken * shape[i] : 0;
    }
    *size = taken;
    return true;
}

int format_open(struct view *view, uint32_t magic, const void *data, size_t size,
                struct preamble *preamble, size_t *root)
{
    *view = (struct view){.base = data, .size = size / FORMAT_WORD * FORMAT_WORD};
    if (size < sizeof *preamble || (uintptr_t)data % FORMAT_WORD)
        return -EBADMSG;
    uint64_t words[2] = {format_load(view, 0), format_load(view, FORMAT_WORD)};
    memcpy(preamble, words, sizeof *preamble);
    if (preamble->magic != magic)
        return -EBADMSG;
    if (preamble->function_size > view->size || preamble->source_size > view->size ||
        preamble->area > view->size / FORMAT_UNIT)
        return -EBADMSG;
    *root = sizeof *preamble;
    if (magic == FORMAT_CALL)
        *root +=
            format_round((size_t)preamble->function_size + preamble->source_size + 2, FORMAT_WORD);
    if (*root > view->size)
        return -EBADMSG;
    view->area = (size_t)preamble->area * FORMAT_UNIT;
    return 0;
}

/* A string, or bytes, that lie apart. */
static int find_apart(const struct view *view, uint64_t offset, uint64_t size, const void **data)
{
    size_t room = view->size - view->area;

    if (offset > room || size > room - offset)
        return -EBADMSG;
    *data = view->base + view->area + offset;
    return 0;
}

static int read_text(const struct view *view, size_t end, struct node *node)
{
    bool apart = node->tag == TAG_STRING_APART || node->tag == TAG_BYTES_APART;
    size_t body = node->at + FORMAT_WORD, room = end - body;

    node->size = node->extra;
    if (apart) {
        if (room < FORMAT_WORD ||
            find_apart(view, format_load(view, body), node->extra + 1, &node->data) < 0)
            return -EBADMSG;
        node->next = body + FORMAT_WORD;
    } else {
        if (node->extra >= room)
            return -EBADMSG;
        node->data = view->base + body;
        node->next = body + format_round(node->size + 1, FORMAT_WORD);
    }
    return ((const volatile unsigned char *)node->data)[node->size] == 0 ? 0 : -EBADMSG;
}

static int read_container(const struct view *view, size_t end, struct node *node)
{
    size_t body = node->at + FORMAT_WORD, room = end - body;

    if (room < FORMAT_WORD)
        return -EBADMSG;
    uint64_t size = format_load(view, body);
    room -= FORMAT_WORD;
    if (size % FORMAT_WORD || size > room || node->extra > size / FORMAT_WORD)
        return -EBADMSG;
    node->items = body + FORMAT_WORD;
    node->table = node->items + size;
    node->next = node->table;
    if (node->tag != TAG_CALL) {
        size_t table = format_round(node->extra * sizeof(uint32_t), FORMAT_WORD);
        if (table > room - size)
            return -EBADMSG;
        node->next += table;
    }
    return 0;
}

static int read_array(size_t end, struct node *node)
{
    size_t body = node->at + FORMAT_WORD, words = (size_t)format_dimensions(node) + 2;

    if (format_dimensions(node) > POOL_PYTHON_MAX_DIMENSIONS || (end - body) / FORMAT_WORD < words)
        return -EBADMSG;
    node->next = body + words * FORMAT_WORD;
    return 0;
}

int format_read(const struct view *view, size_t at, size_t end, struct node *node)
{
    if (end > view->size || at >= end || at % FORMAT_WORD)
        return -EBADMSG;
    uint64_t head = format_load(view, at);
    *node = (struct node){.tag = (enum format_tag)(head & 0xff),
                          .extra = head >> 8,
                          .at = at,
                          .next = at + FORMAT_WORD};
    switch (node->tag) {
    case TAG_NONE:
    case TAG_BOOL:
        return 0;
    case TAG_SMALL: /* its sign is that of the word */
        node->number = head >> 63 ? node->extra | UINT64_C(0xff) << 56 : node->extra;
        return 0;
    case TAG_INT:
    case TAG_DOUBLE:
        if (end - node->next < FORMAT_WORD)
            return -EBADMSG;
        node->number = format_load(view, node->next);
        node->next += FORMAT_WORD;
        return 0;
    case TAG_STRING:
    case TAG_BYTES:
    case TAG_KEYWORD:
    case TAG_STRING_APART:
    case TAG_BYTES_APART:
        return read_text(view, end, node);
    case TAG_LIST:
    case TAG_TUPLE:
    case TAG_DICT:
    case TAG_CALL:
        return read_container(view, end, node);
    case TAG_ARRAY:
        return read_array(end, node);
    }
    return -EBADMSG;
}

int format_item(const struct view *view, const struct node *container, size_t index,
                struct node *item)
{
    size_t entry = container->table + index * sizeof(uint32_t);
    uint32_t words = atomic_load_explicit(
        (const _Atomic uint32_t *)(const void *)(view->base + entry), memory_order_relaxed);
    size_t at = container->at + (size_t)words * FORMAT_WORD;

    if (at < container->items)
        return -EBADMSG;
    return format_read(view, at, container->table, item);
}

int format_array(const struct view *view, const struct node *node, struct pool_python_array *array,
                 size_t *size)
{
    size_t at = node->at + FORMAT_WORD;
    unsigned flags = (unsigned)(node->extra >> 16 & 0xff);
    const void *data = NULL;

    array->type = (enum pool_python_type)(node->extra & 0xff);
    array->dimensions = format_dimensions(node);
    for (int i = 0; i < array->dimensions; i++, at += FORMAT_WORD) {
        uint64_t length = format_load(view, at);
        if (length > (uint64_t)PTRDIFF_MAX)
            return -EBADMSG;
        array->shape[i] = (size_t)length;
    }
    if (!format_array_size(array->type, array->dimensions, array->shape, size))
        return -EBADMSG;
    array->readonly = flags & FORMAT_READONLY;
    array->offset = format_load(view, at);
    array->reference = format_load(view, at + FORMAT_WORD);
    if (array->offset % format_alignment(array->type))
        return -EBADMSG;
    if (flags & FORMAT_APART) {
        if (find_apart(view, array->offset, *size, &data) < 0)
            return -EBADMSG;
        array->offset = 0;
        array->reference = 0;
    } else if (array->reference == 0) {
        return -EBADMSG;
    }
    array->data = (void *)(uintptr_t)data;
    return 0;
}
