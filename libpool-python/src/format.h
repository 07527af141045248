/* How calls and results look in shared memory.
 *
 * Both begin with a struct preamble. A call goes on with the name of its function and its source,
 * each ended by a 0 and together padded to 8 bytes. Then comes the root node, and last the area of
 * pieces that lie *apart*: large ones, which are copied once, from where they are to there.
 *
 * A node is a row of 64-bit words, in the machine's own byte order, since the reader is on the same
 * machine. The first has its tag in the low 8 bits, and above them `extra`:
 *
 *   NONE         0
 *   BOOL         0 or 1
 *   SMALL        a signed integer of 56 bits
 *   INT          0              then the integer
 *   DOUBLE       0              then the double
 *   STRING       its size       then the bytes, at least one 0, padded to 8
 *   BYTES        its size       as STRING
 *   KEYWORD      its size       as STRING; the name for the value that follows (in a call only)
 *   STRING_APART its size       then the offset of the bytes, and a 0, in the area
 *   BYTES_APART  its size       as STRING_APART
 *   LIST, TUPLE  items          then the bytes that they take, they, and a table of where each is
 *   DICT         entries        the same; the table has the keys, and each is followed by its item
 *   CALL         positionals    then the bytes that the arguments take, and they; no table
 *   ARRAY        type, dimensions and flags, 8 bits each
 *                               then the shape, an offset and a reference. APART: the offset is
 *                               that in the area; else it is that in the block of the reference
 *
 * A table has 32-bit numbers, padded to 8 bytes: how many words after the head of the container the
 * item begins. So it lies behind its container's head, and who follows tables comes to an end.
 *
 * What is read here may have been scribbled over, or be scribbled over right now: each word is
 * loaded once, and checked after that. */
#ifndef FORMAT_H
#define FORMAT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "libpool-python.h"

#define FORMAT_CALL UINT32_C(0x43795030)   /* "0PyC" */
#define FORMAT_RESULT UINT32_C(0x52795030) /* "0PyR" */
#define FORMAT_WORD 8
#define FORMAT_UNIT 64 /* pieces apart are aligned to it */
#define FORMAT_APART_MIN 4096
#define FORMAT_READONLY 1U
#define FORMAT_APART 2U

/* What the job's target says. */
enum format_target { TARGET_FUNCTION = 1, TARGET_SOURCE, TARGET_EXPRESSION };

enum format_tag {
    TAG_NONE = 1,
    TAG_BOOL,
    TAG_SMALL,
    TAG_INT,
    TAG_DOUBLE,
    TAG_STRING,
    TAG_BYTES,
    TAG_KEYWORD,
    TAG_STRING_APART,
    TAG_BYTES_APART,
    TAG_LIST,
    TAG_TUPLE,
    TAG_DICT,
    TAG_CALL,
    TAG_ARRAY
};

struct preamble {
    uint32_t magic;
    uint32_t function_size, source_size; /* without the 0; both 0 in a result */
    uint32_t area;                       /* where the area begins, in FORMAT_UNITs */
};

static inline size_t format_round(size_t size, size_t unit)
{
    return (size + unit - 1) / unit * unit;
}

/* A message as it lies in shared memory. */
struct view {
    const unsigned char *base; /* aligned to a word */
    size_t size;               /* a multiple of a word */
    size_t area;               /* at most size */
};

/* A node, taken apart. All that it says has been checked to lie within the view. */
struct node {
    enum format_tag tag;
    uint64_t extra;
    size_t at;        /* where its head is */
    size_t next;      /* behind it */
    uint64_t number;  /* SMALL, INT, DOUBLE: the bits */
    const void *data; /* strings and bytes */
    size_t size;      /* strings and bytes */
    size_t items;     /* containers: where the first item is */
    size_t table;     /* containers: behind the last item */
};

static inline uint64_t format_load(const struct view *view, size_t offset)
{
    return atomic_load_explicit((const _Atomic uint64_t *)(const void *)(view->base + offset),
                                memory_order_relaxed);
}

static inline uint64_t format_array_extra(enum pool_python_type type, int dimensions,
                                          unsigned flags)
{
    return (uint64_t)type | (uint64_t)dimensions << 8 | (uint64_t)flags << 16;
}

static inline int format_dimensions(const struct node *node)
{
    return (int)(node->extra >> 8 & 0xff);
}

/* -EBADMSG: this is no message of that kind (FORMAT_CALL, FORMAT_RESULT). `preamble` is a copy;
 * *root is where the root node begins. */
int format_open(struct view *view, uint32_t magic, const void *data, size_t size,
                struct preamble *preamble, size_t *root);

/* Reads the node at `at`, which has to end before `end`. -EBADMSG. */
int format_read(const struct view *view, size_t at, size_t end, struct node *node);

/* The item number `index` of a container, which has to have one. -EBADMSG. */
int format_item(const struct view *view, const struct node *container, size_t index,
                struct node *item);

/* Reads what an ARRAY node says. One that lies apart has `data` in the view; of another, offset and
 * reference are as they were found. *size is what it takes, in bytes. -EBADMSG. */
int format_array(const struct view *view, const struct node *node, struct pool_python_array *array,
                 size_t *size);

/* What an array's offset in a block has to be a multiple of. */
static inline size_t format_alignment(enum pool_python_type type)
{
    size_t size = pool_python_type_size(type);

    return size < FORMAT_WORD ? size : FORMAT_WORD;
}

/* The bytes that an array takes; false if its type or shape is none, or it is too large to be. */
bool format_array_size(enum pool_python_type type, int dimensions, const size_t *shape,
                       size_t *size);

#endif
