/* Calls a C function whose signature is known at run time only.
 *
 * This rests on the calling conventions of x86-64 (System V ABI) and of 64-bit ARM (AAPCS64).
 * Integers and pointers go into one row of registers, floating-point numbers into another, each
 * kind counted by itself, and what is left goes on the stack, in order and in 8 bytes each, which
 * the caller clears. So a function that takes any scalars may be called as one that takes all the
 * registers, and some stack: it looks at those that it knows of.
 *
 * libffi would do the same for more machines and for structures, and would have to be there with
 * its headers wherever libpool is built; this is all that scalars and buffers need of it. */
#include "native.h"

#include <string.h>

static bool is_float(uint8_t type)
{
    return type == NATIVE_FLOAT || type == NATIVE_DOUBLE;
}

unsigned native_stack_needed(const uint8_t *types, unsigned count)
{
    unsigned floats = 0, integers, stack = 0;
    for (unsigned i = 0; i < count; i++)
        floats += is_float(types[i]);
    integers = count - floats;
    if (floats > NATIVE_FLOATS)
        stack += floats - NATIVE_FLOATS;
    if (integers > NATIVE_INTEGERS)
        stack += integers - NATIVE_INTEGERS;
    return stack;
}

void native_push_integer(struct native_frame *frame, uint64_t value)
{
    if (frame->used_integers < NATIVE_INTEGERS)
        frame->integers[frame->used_integers++] = value;
    else if (frame->used_stack < NATIVE_STACK)
        frame->stack[frame->used_stack++] = value;
}

void native_push_float(struct native_frame *frame, uint64_t bits)
{
    if (frame->used_floats < NATIVE_FLOATS)
        memcpy(&frame->floats[frame->used_floats++], &bits, sizeof bits);
    else if (frame->used_stack < NATIVE_STACK)
        frame->stack[frame->used_stack++] = bits;
}

#ifdef NATIVE_ABI

#define TWO(array, i) array[i], array[(i) + 1]
#define EIGHT(array, i) TWO(array, i), TWO(array, (i) + 2), TWO(array, (i) + 4), TWO(array, (i) + 6)
#if NATIVE_INTEGERS == 6
#define INTEGER_TYPES uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t
#define INTEGERS(array) TWO(array, 0), TWO(array, 2), TWO(array, 4)
#else
#define INTEGER_TYPES EIGHT_INTEGERS
#define INTEGERS(array) EIGHT(array, 0)
#endif
#define EIGHT_INTEGERS                                                                             \
    uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t
#define FLOAT_TYPES double, double, double, double, double, double, double, double

#define REGISTER_TYPES INTEGER_TYPES, FLOAT_TYPES
#define REGISTERS(frame) INTEGERS((frame)->integers), EIGHT((frame)->floats, 0)
#define STACK_TYPES EIGHT_INTEGERS, EIGHT_INTEGERS
#define STACK(frame) EIGHT((frame)->stack, 0), EIGHT((frame)->stack, 8)

/* Calls `function` as one that returns `type`. */
#define INVOKE(type, function, frame)                                                              \
    ((frame)->used_stack                                                                           \
         ? ((type (*)(REGISTER_TYPES, STACK_TYPES))(function))(REGISTERS(frame), STACK(frame))     \
         : ((type (*)(REGISTER_TYPES))(function))(REGISTERS(frame)))

union native_value native_invoke(const struct native_frame *frame, pool_any_function function,
                                 enum native_type result)
{
    union native_value value = {0};
    switch (result) {
    case NATIVE_FLOAT:
        value.single = INVOKE(float, function, frame);
        return value;
    case NATIVE_DOUBLE:
        value.number = INVOKE(double, function, frame);
        return value;
    default: /* void too: then what is in the register means nothing */
        value.integer = INVOKE(uint64_t, function, frame);
        return value;
    }
}

#else

union native_value native_invoke(const struct native_frame *frame, pool_any_function function,
                                 enum native_type result)
{
    (void)frame, (void)function, (void)result;
    return (union native_value){0}; /* no NativeFunction can be made here */
}

#endif
