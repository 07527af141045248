/* From Python objects to the argument of a native job. Two steps, as in submit.c: first everything
 * that may run Python code or fail, then, with the job's memory there, the writing. */
#ifndef LIBPOOL_NATIVE_PACK_H
#define LIBPOOL_NATIVE_PACK_H

#include "core.h"
#include "native.h"

typedef struct NativeFunction {
    PyObject_HEAD
    Core *core;
    pool_any_function function;
    PyObject *name;
    PyObject *library; /* str: where it lies, as the loader knows it; "" is the executable */
    uint64_t offset;   /* ... and how far from its beginning */
    PyObject *owner;   /* what keeps the library loaded */
    uint8_t result;    /* enum native_type */
    uint8_t arguments;
    uint8_t types[NATIVE_MAX_ARGUMENTS];
    uint8_t elements[NATIVE_MAX_ARGUMENTS]; /* what a pointer points to; NATIVE_VOID: anything */
} NativeFunction;

/* What a buffer contains that goes along. */
typedef struct Piece {
    Py_buffer view;
    size_t slot; /* where its struct native_buffer is */
} Piece;

typedef struct Pack {
    NativeFunction *function;
    /* Header, types and columns. */
    uint8_t *head;
    size_t head_size;
    uint8_t small[SMALL_PAYLOAD];
    size_t columns[NATIVE_MAX_ARGUMENTS]; /* offsets */
    size_t size;                          /* of all, at most */
    Piece *pieces;
    Py_ssize_t count, room; /* of pieces */
    PyObject *content;      /* of the future: a list that begins with the function */
} Pack;

/* Every function here: 0, or -1 with an exception. After pack_begin(), pack_end() is due, whatever
 * happens. */
int pack_begin(Pack *pack, NativeFunction *function, enum native_form form, size_t count);
void pack_end(Pack *pack);
/* The arguments of call number `row`. */
int pack_call(Pack *pack, size_t row, PyObject *const *values, Py_ssize_t count);
/* Argument number `index` of all calls: items of a buffer from `start` on, or a scalar for all. */
int pack_column(Pack *pack, unsigned index, PyObject *values, Py_ssize_t start);
/* The buffer that a NATIVE_ARRAY goes to: its items from `start` on. */
int pack_destination(Pack *pack, PyObject *buffer, Py_ssize_t start);
/* Future.content. Owned. */
PyObject *pack_content(const Pack *pack);
/* Writes to `size` bytes of memory; can't fail. */
void pack_write(Pack *pack, uint64_t function, uint8_t *memory);

#endif
