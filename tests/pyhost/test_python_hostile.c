/* Calls and results that have been scribbled over: neither the program nor the worker crashes, or
 * reads what is not theirs. The buffers here end where AddressSanitizer sees it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "builder.h"
#include "support.h"

static struct pool *pool;

/* ---- Messages ---- */

static void put_random_value(struct builder *builder, uint64_t *state, int depth)
{
    static const char text[5000] = "some text";
    static double numbers[64];
    struct pool_python_array array = {.type = POOL_PYTHON_FLOAT64, .dimensions = 2};
    uint64_t choice = harness_random(state) >> 8;
    size_t i, count = choice / 64 % 5;

    switch (choice % (depth < 5 ? 10 : 7)) {
    case 0:
        builder_put(builder, TAG_NONE, 0);
        break;
    case 1:
        builder_put(builder, TAG_BOOL, count % 2);
        break;
    case 2:
        builder_put_int(builder, (int64_t)harness_random(state) >> choice % 60);
        break;
    case 3:
        builder_put_double(builder, (double)choice);
        break;
    case 4:
        builder_put_text(builder, count % 2 ? TAG_STRING : TAG_BYTES, text, count * 5);
        break;
    case 5:
        builder_put_apart(builder, count % 2 ? TAG_STRING_APART : TAG_BYTES_APART, text,
                          count * 1000, NULL);
        break;
    case 6:
        array.shape[0] = count;
        array.shape[1] = 3;
        array.data = numbers;
        builder_put_array(builder, &array, NULL);
        break;
    default:
        builder_begin(builder, choice % 3 == 0 ? TAG_DICT : choice % 3 == 1 ? TAG_LIST : TAG_TUPLE);
        for (i = 0; i < count; i++) {
            if (choice % 3 == 0)
                builder_put_int(builder, (int64_t)i);
            put_random_value(builder, state, depth + 1);
        }
        builder_end(builder);
    }
}

/* A valid message, of exactly *size bytes, to be freed. */
static unsigned char *make_result(uint64_t *state, size_t *size)
{
    struct preamble preamble = {.magic = FORMAT_RESULT};
    struct builder builder;
    unsigned char *message;

    builder_init(&builder);
    put_random_value(&builder, state, 0);
    REQUIRE(builder.error, 0);
    *size = builder_size(&builder, sizeof preamble);
    message = malloc(*size);
    preamble.area = builder_write(&builder, sizeof preamble, message, NULL);
    memcpy(message, &preamble, sizeof preamble);
    builder_destroy(&builder);
    return message;
}

static void scribble(unsigned char *message, size_t size, uint64_t *state)
{
    size_t i, count = 1 + harness_random(state) % 4;

    for (i = 0; i < count; i++) {
        uint64_t random = harness_random(state);
        /* Mostly near the begin, where the nodes are. */
        size_t at = (size_t)(random >> 16) % (random % 4 ? size < 200 ? size : 200 : size);
        switch (random / 4 % 4) {
        case 0:
            message[at] = (unsigned char)(random >> 40);
            break;
        case 1:
            message[at] ^= (unsigned char)(1 << random / 64 % 8);
            break;
        case 2:
            message[at] = 0xff;
            break;
        default:
            if (at / 8 * 8 + 8 <= size)
                memset(message + at / 8 * 8, random / 64 % 2 ? 0xff : 0, 8);
        }
    }
}

/* ---- The program reads ---- */

static volatile unsigned char sink;

static void read_bytes(const void *data, size_t size)
{
    const unsigned char *bytes = data;

    if (size) {
        sink = bytes[0];
        sink = bytes[size - 1];
    }
}

/* All that can be read below a value. Gives up after many values, since tables that were scribbled
 * over may lead to the same item often. */
static void walk(const struct pool_python_value *value, int *budget, int *errors)
{
    struct pool_python_array array = {.size = sizeof array};
    struct pool_python_value key, item;
    const char *text;
    const void *data;
    int64_t number, i, length;
    size_t size;
    double real;
    bool truth;

    if (--*budget < 0)
        return;
    *errors += pool_python_kind(value) < 0;
    pool_python_get_bool(value, &truth);
    pool_python_get_int64(value, &number);
    pool_python_get_double(value, &real);
    if (pool_python_get_string(value, &text, &size) == 0)
        read_bytes(text, size + 1);
    if (pool_python_get_bytes(value, &data, &size) == 0)
        read_bytes(data, size);
    if (pool_python_get_array(value, &array) == 0) {
        EXPECT(format_array_size(array.type, array.dimensions, array.shape, &size), true);
        read_bytes(array.data, size);
    }
    pool_python_find(value, "some", &item);
    length = pool_python_length(value);
    for (i = 0; i < length && i < 50; i++) {
        if (pool_python_get_item(value, (size_t)i, &item) == 0)
            walk(&item, budget, errors);
        if (pool_python_get_entry(value, (size_t)i, &key, &item) == 0) {
            walk(&key, budget, errors);
            walk(&item, budget, errors);
        }
    }
}

static void the_program_reads_results_that_were_scribbled_over(void)
{
    enum { RUNS = HARNESS_SANITIZED ? 30000 : 200000 };
    uint64_t state = 4711;
    int run, errors = 0, whole = 0;

    pool = harness_pool(1, 64 * MEBIBYTE);
    for (run = 0; run < RUNS; run++) {
        struct pool_python_value value = {.pool = pool, .offset = sizeof(struct preamble)};
        size_t size;
        unsigned char *message = make_result(&state, &size), *cut;
        int budget = 200, found = 0;

        value.data = message;
        value.size = size;
        walk(&value, &budget, &found);
        whole += found;
        scribble(message, size, &state);
        if (harness_random(&state) % 8 == 0)
            size = harness_random(&state) % (size + 1);
        cut = malloc(size ? size : 1);
        memcpy(cut, message, size);
        free(message);
        value.data = cut;
        value.size = size;
        budget = 200;
        walk(&value, &budget, &errors);
        free(cut);
    }
    EXPECT(whole, 0);
    EXPECT(errors > RUNS / 20, true); /* or it would have missed */
    pool_destroy(pool);
}

/* A job whose result is this message; the builder is used up. */
static struct pool_future send_result(struct builder *builder)
{
    struct preamble preamble = {.magic = FORMAT_RESULT};
    size_t size = builder_size(builder, sizeof preamble);
    unsigned char *message = malloc(size);
    struct pool_future future;

    REQUIRE(builder->error, 0);
    preamble.area = builder_write(builder, sizeof preamble, message, NULL);
    memcpy(message, &preamble, sizeof preamble);
    future = harness_submit(pool, job_echo, message, size);
    builder_destroy(builder);
    free(message);
    return future;
}

/* One that is larger than its block. */
static struct pool_python_array make_array(void)
{
    struct pool_python_array array = {
        .size = sizeof array, .type = POOL_PYTHON_FLOAT64, .dimensions = 1, .shape = {1 << 20}};
    void *memory;

    REQUIRE(pool_alloc(pool, 256, &array.reference, &memory), 0);
    return array;
}

static void an_array_of_a_result_has_to_lie_in_its_block(void)
{
    struct pool_python_array array, found = {.size = sizeof found};
    struct pool_python_value value;
    struct pool_future future;
    struct builder builder;

    pool = harness_pool(1, 64 * MEBIBYTE);
    array = make_array();
    builder_init(&builder);
    builder_put_array(&builder, &array, NULL);
    future = send_result(&builder);
    EXPECT(finish(&future, &value), 0);
    EXPECT(pool_python_get_array(&value, &found), -EBADMSG);
    array.reference += 1000000;
    builder_init(&builder);
    builder_put_array(&builder, &array, NULL);
    future = send_result(&builder);
    EXPECT(finish(&future, &value), 0);
    EXPECT(pool_python_get_array(&value, &found), -EINVAL);
    pool_destroy(pool);
}

static void no_list_contains_itself(void)
{
    struct pool_python_value value, item;
    struct pool_future future;
    struct builder builder;
    uint32_t entry;

    pool = harness_pool(1, 64 * MEBIBYTE);
    for (entry = 0; entry < 5; entry++) { /* head, size, item, table */
        builder_init(&builder);
        builder_begin(&builder, TAG_LIST);
        builder_put_int(&builder, 5);
        builder_end(&builder);
        memcpy(builder.data + 3 * FORMAT_WORD, &entry, sizeof entry);
        future = send_result(&builder);
        EXPECT(finish(&future, &value), 0);
        EXPECT(pool_python_length(&value), 1);
        EXPECT(pool_python_get_item(&value, 0, &item), entry == 2 ? 0 : -EBADMSG);
    }
    pool_destroy(pool);
}

/* ---- The worker reads ---- */

/* A call as pool_python_submit() writes it, of random arguments; or of the array. */
static unsigned char *make_call(uint64_t *state, size_t *size, enum format_target target,
                                const struct pool_python_array *array)
{
    static const char *const functions[] = {"", "echoes:show", "show", ""};
    static const char *const sources[] = {"", "", "def show(*args, **k): return repr(args)",
                                          "repr(args) "};
    size_t function = strlen(functions[target]), source = strlen(sources[target]);
    size_t texts = format_round(function + source + 2, FORMAT_WORD);
    size_t prefix = sizeof(struct preamble) + texts + 2 * FORMAT_WORD;
    struct preamble preamble = {FORMAT_CALL, (uint32_t)function, (uint32_t)source, 0};
    struct builder builder;
    unsigned char *message;
    uint64_t root[2];
    int i;

    builder_init(&builder);
    for (i = 0; i < 4 && !array; i++) {
        if (i == 3)
            builder_put_text(&builder, TAG_KEYWORD, "name", 4);
        put_random_value(&builder, state, 0);
    }
    if (array)
        builder_put_array(&builder, array, NULL);
    *size = builder_size(&builder, prefix);
    message = calloc(1, *size);
    strcpy((char *)message + sizeof preamble, functions[target]);
    strcpy((char *)message + sizeof preamble + function + 1, sources[target]);
    root[0] = (uint64_t)TAG_CALL | (uint64_t)builder.values << 8;
    root[1] = builder.used;
    memcpy(message + prefix - sizeof root, root, sizeof root);
    preamble.area = builder_write(&builder, prefix, message, NULL);
    memcpy(message, &preamble, sizeof preamble);
    builder_destroy(&builder);
    return message;
}

static void workers_read_calls_that_were_scribbled_over(void)
{
    enum { RUNS = HARNESS_SANITIZED ? 2000 : 10000 };
    struct pool_stats stats = {.size = sizeof stats};
    uint64_t state = 4712;
    int run, counts[2] = {0, 0}, others = 0, whole = 0;

    pool = python_pool(2, NULL);
    for (run = 0; run < RUNS; run++) {
        enum format_target target = (enum format_target)(1 + run % 3);
        bool scribbled = run % 8 != 0;
        struct pool_python_value value;
        struct pool_future future;
        size_t size;
        unsigned char *message = make_call(&state, &size, target, NULL);
        void *memory;
        int error;

        if (scribbled)
            scribble(message, size, &state);
        if (scribbled && harness_random(&state) % 8 == 0)
            size = harness_random(&state) % (size + 1);
        REQUIRE(pool_prepare(pool, size, &future, &memory), 0);
        if (size)
            memcpy(memory, message, size);
        free(message);
        if (scribbled && harness_random(&state) % 16 == 0)
            target = (enum format_target)(harness_random(&state) % 5);
        EXPECT(pool_commit_host(&future, (uint64_t)target), 0);
        error = finish(&future, &value);
        if (error == 0 || error == -EREMOTEIO)
            counts[error == 0]++;
        else
            others++;
        if (!scribbled)
            whole += error != 0;
        pool_future_release(&future);
    }
    EXPECT(others, 0);
    EXPECT(whole, 0);
    EXPECT(counts[0] > RUNS / 20 && counts[1] > RUNS / 20, true);
    EXPECT(pool_get_stats(pool, &stats), 0);
    EXPECT(stats.workers_started, 2);
    pool_destroy(pool);
}

static void an_array_of_a_call_has_to_lie_in_its_block(void)
{
    struct pool_python_array array;
    struct pool_future future;
    unsigned char *message;
    void *memory;
    size_t size;

    pool = python_pool(1, NULL);
    array = make_array();
    message = make_call(NULL, &size, TARGET_FUNCTION, &array);
    REQUIRE(pool_prepare(pool, size, &future, &memory), 0);
    memcpy(memory, message, size);
    EXPECT(pool_commit_host(&future, TARGET_FUNCTION), 0);
    EXPECT(raises(&future, "ValueError", "does not lie within"), true);
    free(message);
    pool_destroy(pool);
}

static void no_call_of_python_at_all_is_an_exception(void)
{
    struct pool_future future;
    void *memory;

    pool = python_pool(1, NULL);
    REQUIRE(pool_prepare(pool, 0, &future, &memory), 0);
    EXPECT(pool_commit_host(&future, TARGET_FUNCTION), 0);
    EXPECT(raises(&future, "ValueError", "no call of Python"), true);
    pool_destroy(pool);
}

static const struct harness_test tests[] = {
    TEST(the_program_reads_results_that_were_scribbled_over),
    TEST(an_array_of_a_result_has_to_lie_in_its_block),
    TEST(no_list_contains_itself),
    TEST(an_array_of_a_call_has_to_lie_in_its_block),
    TEST(workers_read_calls_that_were_scribbled_over),
    TEST(no_call_of_python_at_all_is_an_exception),
};

HARNESS_MAIN("libpool-python: messages that were scribbled over", tests)
