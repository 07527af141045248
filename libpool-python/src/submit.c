/* Submitting calls: they are written straight to the memory of the job. */
#include "arguments.h"

#include <errno.h>
#include <string.h>

struct call {
    enum format_target target;
    const char *function, *source;
    size_t function_size, source_size;
};

static const struct pool_python_arguments no_arguments;

static void write_call(const struct call *call, const struct builder *builder, size_t prefix,
                       unsigned char *memory)
{
    struct preamble preamble = {.magic = FORMAT_CALL,
                                .function_size = (uint32_t)call->function_size,
                                .source_size = (uint32_t)call->source_size};
    size_t texts = call->function_size + call->source_size + 2;
    unsigned char *at = memory + sizeof preamble;
    uint64_t root[2] = {(uint64_t)TAG_CALL | (uint64_t)builder->values << 8, builder->used};

    memset(memory + prefix - sizeof root - FORMAT_WORD, 0, FORMAT_WORD);
    if (call->function_size)
        memcpy(at, call->function, call->function_size);
    at[call->function_size] = 0;
    if (call->source_size)
        memcpy(at + call->function_size + 1, call->source, call->source_size);
    at[texts - 1] = 0;
    memcpy(memory + prefix - sizeof root, root, sizeof root);
    preamble.area = builder_write(builder, prefix, memory, NULL);
    memcpy(memory, &preamble, sizeof preamble);
}

static int submit(struct pool *pool, const struct pool_options *options, const struct call *call,
                  const struct pool_python_arguments *arguments, struct pool_future *future)
{
    const struct pool_python_arguments *given = arguments ? arguments : &no_arguments;
    const struct builder *builder = &given->builder;
    struct pool_future own;
    void *memory;

    if (call->source_size >= UINT32_MAX || call->function_size >= UINT32_MAX)
        return -E2BIG;
    if (builder->error)
        return builder->error;
    if (builder->depth || builder->has_keyword)
        return -EINVAL;
    int error = arguments_check_blocks(given, pool);
    if (error)
        return error;
    size_t prefix = sizeof(struct preamble) +
                    format_round(call->function_size + call->source_size + 2, FORMAT_WORD) +
                    2 * FORMAT_WORD;
    error = pool_prepare_with(pool, options, builder_size(builder, prefix), &own, &memory);
    if (error)
        return error;
    write_call(call, builder, prefix, memory);
    error = pool_commit_host(&own, (uint64_t)call->target);
    if (error)
        pool_abandon(&own);
    else if (future)
        *future = own;
    else
        pool_future_release(&own);
    return error;
}

int pool_python_submit(struct pool *pool, const struct pool_options *options, const char *function,
                       const struct pool_python_arguments *arguments, struct pool_future *future)
{
    const char *colon = function ? strchr(function, ':') : NULL;

    if (!colon || colon == function || !colon[1])
        return -EINVAL;
    struct call call = {.target = TARGET_FUNCTION, .function = function};
    call.function_size = strlen(function);
    if (!arguments_is_utf8(function, call.function_size))
        return -EILSEQ;
    return submit(pool, options, &call, arguments, future);
}

int pool_python_submit_source(struct pool *pool, const struct pool_options *options,
                              const char *source, const char *function,
                              const struct pool_python_arguments *arguments,
                              struct pool_future *future)
{
    if (!source || (function && !*function))
        return -EINVAL;
    struct call call = {.target = function ? TARGET_SOURCE : TARGET_EXPRESSION,
                        .function = function,
                        .source = source};
    call.function_size = function ? strlen(function) : 0;
    call.source_size = strlen(source);
    if (!arguments_is_utf8(source, call.source_size) ||
        (function && !arguments_is_utf8(function, call.function_size)))
        return -EILSEQ;
    return submit(pool, options, &call, arguments, future);
}
