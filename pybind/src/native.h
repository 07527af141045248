/* Native jobs: C functions that take and return C scalars and buffers, run by a worker without its
 * interpreter.
 *
 *   native.c         NativeFunction: the type, submitting
 *   native_pack.c    from Python objects to a job's argument
 *   native_run.c     the worker's side
 *   native_abi.c     calls a function of any such signature
 *   native_result.c  from a result to Python objects
 *
 * A job's argument, all of it in C types as the function takes them:
 *
 *   struct native_header
 *   the type of each argument, one byte each, padded to 8
 *   for each argument a column with `count` values, padded to 8; of a pointer: struct native_buffer
 *   what the buffers contain, aligned
 *
 * Its result:
 *
 *   struct native_result
 *   what the function wrote to the buffers that are out, in the order of calls, aligned
 *   padding to 8, `count` values
 *
 * Aligned is the address, which in all processes is the same but for whole pages. */
#ifndef LIBPOOL_NATIVE_H
#define LIBPOOL_NATIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libpool.h"

enum native_type {
    NATIVE_VOID,
    NATIVE_BOOL,
    NATIVE_CHAR,
    NATIVE_INT8,
    NATIVE_UINT8,
    NATIVE_INT16,
    NATIVE_UINT16,
    NATIVE_INT32,
    NATIVE_UINT32,
    NATIVE_INT64,
    NATIVE_UINT64,
    NATIVE_FLOAT,
    NATIVE_DOUBLE,
    NATIVE_POINTER,
    NATIVE_TYPES,
};

#define NATIVE_MAX_ARGUMENTS 32

/* What becomes of the values that the calls return. */
enum native_form {
    NATIVE_VALUE, /* of the one call */
    NATIVE_LIST,
    NATIVE_ARRAY, /* they go, as they are, into a buffer of the submitter's */
};

struct native_header {
    uint64_t function; /* as pool_refer() gave it; 0 in a call without a pool */
    uint32_t count;    /* of calls */
    uint8_t form;
    uint8_t result; /* enum native_type */
    uint8_t arguments;
    uint8_t padding;
};

enum native_way { NATIVE_NULL, NATIVE_IN, NATIVE_OUT, NATIVE_INOUT };

struct native_buffer {
    uint64_t way;    /* enum native_way */
    uint64_t offset; /* of what it contains, from the header; NATIVE_IN and NATIVE_INOUT */
    uint64_t size;
};

struct native_result {
    uint8_t tag; /* TAG_NATIVE */
    uint8_t form;
    uint8_t type;
    uint8_t padding;
    uint32_t count;
};

static inline size_t native_align(size_t size, size_t alignment)
{
    return (size + alignment - 1) & ~(alignment - 1);
}

/* What malloc() gives, and for longer ones a cache line, which no vector instruction exceeds. */
static inline size_t native_alignment(uint64_t size)
{
    return size < 64 ? 16 : 64;
}

/* Bytes that a value of the type takes in a column. Not 0 for void, so that a count of values that
 * the memory has no room for is known as a lie. */
size_t native_size(enum native_type type);

/* A job's argument that was looked through: nothing in it leads outside. */
struct native_call {
    struct native_header header;
    uint8_t types[NATIVE_MAX_ARGUMENTS];
    const uint8_t *argument;
    const uint8_t *columns[NATIVE_MAX_ARGUMENTS];
    size_t result_size; /* that it may take */
    pool_any_function function;
};

/* 0; -EBADMSG: it is no such argument; -EOVERFLOW: its result would be larger than memory is. */
int native_read(struct native_call *call, const void *argument, size_t size);
/* Calls the function, for each value of the columns, and writes the result. `job` may be NULL. */
void native_run(const struct native_call *call, uint8_t *result, struct pool_job *job);

/* ---- native_abi.c ---- */

/* How arguments lie when a function is called: the first ones of each kind in registers, what is
 * left on the stack. */
#if defined(__x86_64__) && defined(__LP64__)
#define NATIVE_ABI "x86-64"
#define NATIVE_INTEGERS 6
#elif defined(__aarch64__) && defined(__LP64__) && defined(__AARCH64EL__)
#define NATIVE_ABI "AArch64"
#define NATIVE_INTEGERS 8
#else
#define NATIVE_INTEGERS 1
#endif
#define NATIVE_FLOATS 8
#define NATIVE_STACK 16

struct native_frame {
    uint64_t integers[NATIVE_INTEGERS];
    double floats[NATIVE_FLOATS];
    uint64_t stack[NATIVE_STACK];
    unsigned used_integers, used_floats, used_stack;
};

/* A returned value, in the low bytes. */
union native_value {
    uint64_t integer;
    float single;
    double number;
};

/* How many of these arguments have to go on the stack. */
unsigned native_stack_needed(const uint8_t *types, unsigned count);
void native_push_integer(struct native_frame *frame, uint64_t value);
/* `bits` is a double's, or in its low half a float's. */
void native_push_float(struct native_frame *frame, uint64_t bits);
union native_value native_invoke(const struct native_frame *frame, pool_any_function function,
                                 enum native_type result);

#endif
