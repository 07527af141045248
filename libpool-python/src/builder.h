/* Puts together the nodes of a message: for the arguments in the host, and for results in the
 * worker. Small things are copied at once; pieces that lie apart only when the message is written,
 * from where they are to shared memory. */
#ifndef BUILDER_H
#define BUILDER_H

#include "format.h"

struct piece {
    size_t offset; /* in the area */
    const void *data;
    size_t size;   /* a 0 that ends it included */
    void *context; /* the caller's, for `copy` of builder_write() */
};

/* A list, tuple or dict that has been begun. */
struct open_container {
    enum format_tag tag;
    size_t at;          /* where its head is */
    size_t first_entry; /* of its table */
    size_t nodes;
};

struct builder {
    unsigned char *data; /* the nodes so far */
    size_t used, room;
    struct piece *pieces;
    size_t piece_count, piece_room;
    size_t apart;    /* bytes of the area so far */
    uint32_t *table; /* the entries of all open containers, the innermost last */
    size_t entry_count, entry_room;
    struct open_container open[POOL_PYTHON_MAX_DEPTH];
    int depth;
    size_t values;    /* outside of all containers, without keywords */
    bool has_keyword; /* the next value belongs to it */
    int error;        /* the first one; then nothing is added any more */
};

/* All zero is such a builder too. */
void builder_init(struct builder *builder);
void builder_clear(struct builder *builder);
void builder_destroy(struct builder *builder);

/* All return builder->error. */
int builder_put(struct builder *builder, enum format_tag tag, uint64_t extra);
int builder_put_int(struct builder *builder, int64_t value);
int builder_put_double(struct builder *builder, double value);
/* TAG_STRING, TAG_BYTES or TAG_KEYWORD; copied. */
int builder_put_text(struct builder *builder, enum format_tag tag, const void *data, size_t size);
/* TAG_STRING_APART or TAG_BYTES_APART; `data` is only noted. */
int builder_put_apart(struct builder *builder, enum format_tag tag, const void *data, size_t size,
                      void *context);
/* An array with a reference, or one that lies apart: `array->data` is only noted. */
int builder_put_array(struct builder *builder, const struct pool_python_array *array,
                      void *context);
int builder_begin(struct builder *builder, enum format_tag tag);
int builder_end(struct builder *builder);

/* The size of a message with these nodes, after a preamble and texts of `prefix` bytes, a multiple
 * of a word. */
size_t builder_size(const struct builder *builder, size_t prefix);
/* Writes nodes and pieces to `memory`, which has builder_size(); the caller has written the
 * prefix. `copy` is memcpy() for pieces with a context; NULL: there are none. Returns where the
 * area begins, in FORMAT_UNITs. */
uint32_t builder_write(const struct builder *builder, size_t prefix, unsigned char *memory,
                       void (*copy)(void *destination, const struct piece *piece));

#endif
