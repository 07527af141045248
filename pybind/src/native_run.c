/* The worker's side of a native job. There is no Python in here: it runs without the GIL.
 *
 * What is read was written by the host, but other workers may have scribbled over it: it is checked
 * before the first call. Who scribbles later ends this worker at worst, as the function itself may.
 */
#include "core.h"
#include "native.h"

size_t native_size(enum native_type type)
{
    static const uint8_t sizes[NATIVE_TYPES] = {
        [NATIVE_VOID] = 1,   [NATIVE_BOOL] = 1,
        [NATIVE_CHAR] = 1,   [NATIVE_INT8] = 1,
        [NATIVE_UINT8] = 1,  [NATIVE_INT16] = 2,
        [NATIVE_UINT16] = 2, [NATIVE_INT32] = 4,
        [NATIVE_UINT32] = 4, [NATIVE_INT64] = 8,
        [NATIVE_UINT64] = 8, [NATIVE_FLOAT] = 4,
        [NATIVE_DOUBLE] = 8, [NATIVE_POINTER] = sizeof(struct native_buffer),
    };
    return sizes[type];
}

/* ---- Looking through the argument ------------------------------------------------------------ */

static struct native_buffer buffer_at(const struct native_call *call, unsigned column, size_t row)
{
    struct native_buffer buffer;
    memcpy(&buffer, call->columns[column] + row * sizeof buffer, sizeof buffer);
    return buffer;
}

/* Adds the buffers that are out to the size of the result. */
static int measure_buffers(struct native_call *call, unsigned column, size_t size)
{
    for (size_t row = 0; row < call->header.count; row++) {
        struct native_buffer buffer = buffer_at(call, column, row);
        if ((buffer.way == NATIVE_IN || buffer.way == NATIVE_INOUT) &&
            (buffer.offset > size || buffer.size > size - buffer.offset))
            return -EBADMSG;
        if (buffer.way != NATIVE_OUT && buffer.way != NATIVE_INOUT)
            continue;
        if (buffer.size > PTRDIFF_MAX - call->result_size - 64)
            return -EOVERFLOW;
        call->result_size += buffer.size + native_alignment(buffer.size) - 1;
    }
    return 0;
}

int native_read(struct native_call *call, const void *argument, size_t size)
{
    const struct native_header *header = &call->header;
    call->argument = argument;
    if (size < sizeof *header)
        return -EBADMSG;
    memcpy(&call->header, argument, sizeof *header);
    size_t position = sizeof *header + native_align(header->arguments, 8);
    if (header->arguments > NATIVE_MAX_ARGUMENTS || header->result >= NATIVE_POINTER ||
        position > size)
        return -EBADMSG;
    memcpy(call->types, call->argument + sizeof *header, header->arguments);
    for (unsigned i = 0; i < header->arguments; i++) {
        if (call->types[i] == NATIVE_VOID || call->types[i] >= NATIVE_TYPES)
            return -EBADMSG;
        size_t length = native_align(native_size(call->types[i]) * (size_t)header->count, 8);
        if (length > size - position)
            return -EBADMSG;
        call->columns[i] = call->argument + position;
        position += length;
    }
    call->result_size =
        sizeof(struct native_result) + native_size(header->result) * (size_t)header->count;
    size_t plain = call->result_size;
    for (unsigned i = 0; i < header->arguments; i++) {
        int error = call->types[i] == NATIVE_POINTER ? measure_buffers(call, i, size) : 0;
        if (error)
            return error;
    }
    if (call->result_size != plain)
        call->result_size += 7; /* the values are aligned */
    return 0;
}

/* ---- Calling --------------------------------------------------------------------------------- */

/* Widened to 64 bits, as the conventions want it, or at least allow. */
static uint64_t load(enum native_type type, const uint8_t *at)
{
    union {
        int8_t int8;
        int16_t int16;
        int32_t int32;
        uint64_t bits;
    } value = {.bits = 0};
    memcpy(&value, at, native_size(type));
    switch (type) {
    case NATIVE_INT8:
        return (uint64_t)(int64_t)value.int8;
    case NATIVE_INT16:
        return (uint64_t)(int64_t)value.int16;
    case NATIVE_INT32:
        return (uint64_t)(int64_t)value.int32;
    default:
        return value.bits;
    }
}

/* The address that the function gets. Buffers that are out lie in the result, one after the other:
 * *out is where the last one ended. */
static uint64_t place(const struct native_call *call, struct native_buffer buffer, uintptr_t *out)
{
    if (buffer.way == NATIVE_NULL)
        return 0;
    if (buffer.way == NATIVE_IN)
        return (uintptr_t)call->argument + buffer.offset;
    uintptr_t at = native_align(*out, native_alignment(buffer.size));
    if (buffer.way == NATIVE_INOUT)
        memcpy((void *)at, call->argument + buffer.offset, buffer.size);
    else
        memset((void *)at, 0, buffer.size); /* other jobs' data were here */
    *out = at + buffer.size;
    return at;
}

static void push(const struct native_call *call, struct native_frame *frame, size_t row,
                 uintptr_t *out)
{
    for (unsigned i = 0; i < call->header.arguments; i++) {
        enum native_type type = call->types[i];
        if (type == NATIVE_POINTER) {
            native_push_integer(frame, place(call, buffer_at(call, i, row), out));
            continue;
        }
        uint64_t value = load(type, call->columns[i] + row * native_size(type));
        if (type == NATIVE_FLOAT || type == NATIVE_DOUBLE)
            native_push_float(frame, value);
        else
            native_push_integer(frame, value);
    }
}

/* Where the values begin: behind all buffers. It takes a walk through them, since the first value
 * is there before the last buffer is in use. */
static uintptr_t find_values(const struct native_call *call, uintptr_t out)
{
    bool any = false;
    for (unsigned i = 0; i < call->header.arguments; i++)
        any = any || call->types[i] == NATIVE_POINTER;
    for (size_t row = 0; any && row < call->header.count; row++)
        for (unsigned i = 0; i < call->header.arguments; i++) {
            if (call->types[i] != NATIVE_POINTER)
                continue;
            struct native_buffer buffer = buffer_at(call, i, row);
            if (buffer.way == NATIVE_OUT || buffer.way == NATIVE_INOUT)
                out = native_align(out, native_alignment(buffer.size)) + buffer.size;
        }
    return native_align(out, 8);
}

void native_run(const struct native_call *call, uint8_t *result, struct pool_job *job)
{
    const struct native_header *header = &call->header;
    size_t size = native_size(header->result);
    uintptr_t out = (uintptr_t)result + sizeof(struct native_result);
    uint8_t *values = (uint8_t *)find_values(call, out);
    const struct native_result about = {
        .tag = TAG_NATIVE, .form = header->form, .type = header->result, .count = header->count};

    memcpy(result, &about, sizeof about);
    struct native_frame frame = {.used_stack = 0}; /* what a call has no use for stays as it is */
    for (uint32_t row = 0; row < header->count; row++) {
        frame.used_integers = frame.used_floats = frame.used_stack = 0;
        if (job && header->form != NATIVE_VALUE)
            pool_job_part(job, row);
        push(call, &frame, row, &out);
        union native_value value = native_invoke(&frame, call->function, header->result);
        memcpy(values + row * size, &value, size);
    }
}
