/* Arrays in shared memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

static struct pool *pool;
static struct pool_python_arguments *arguments;
static struct pool_future future;

static void begin(bool without_numpy)
{
    struct pool_python_config python;

    python_config(&python);
    python.without_numpy = without_numpy;
    pool = python_pool(1, &python);
    arguments = pool_python_arguments_create();
    REQUIRE(arguments != NULL, true);
}

static void end(void)
{
    pool_python_arguments_destroy(arguments);
    pool_destroy(pool);
}

static struct pool_python_array vector(enum pool_python_type type, size_t length)
{
    struct pool_python_array array = {
        .size = sizeof array, .type = type, .dimensions = 1, .shape = {length}};

    return array;
}

static struct pool_python_array result_array(void)
{
    struct pool_python_array array = {.size = sizeof array};
    struct pool_python_value value;

    REQUIRE(finish(&future, &value), 0);
    EXPECT(pool_python_kind(&value), POOL_PYTHON_KIND_ARRAY);
    REQUIRE(pool_python_get_array(&value, &array), 0);
    return array;
}

/* ---- In blocks ---- */

static void write_to_block(bool without_numpy)
{
    struct pool_python_array array = vector(POOL_PYTHON_FLOAT64, 1000);
    void *memory = NULL;
    double *numbers;
    size_t i, wrong = 0;

    begin(without_numpy);
    REQUIRE(pool_alloc(pool, 8 * 1100, &array.reference, &memory), 0);
    numbers = memory;
    for (i = 0; i < 1100; i++)
        numbers[i] = (double)i;
    array.offset = 8 * 50;
    EXPECT(pool_python_put_array(arguments, &array), 0);
    future = call(pool, "arrays:double", arguments);
    EXPECT(string_result(&future, without_numpy ? "memoryview d (1000,) False"
                                                : "ndarray float64 (1000,) False"),
           true);
    for (i = 0; i < 1100; i++)
        wrong += numbers[i] != (double)i * (i >= 50 && i < 1050 ? 2 : 1);
    EXPECT(wrong, 0);
    pool_free(pool, array.reference);
    end();
}

static void a_job_writes_to_the_program_s_block(void)
{
    write_to_block(true);
}

static void with_numpy_it_gets_an_ndarray(void)
{
    bool numpy;

    begin(false);
    numpy = has_module(pool, "numpy");
    end();
    if (numpy)
        write_to_block(false);
}

static void a_readonly_array_can_not_be_written(void)
{
    struct pool_python_array array = vector(POOL_PYTHON_UINT8, 10);
    void *memory = NULL;

    begin(true);
    REQUIRE(pool_alloc(pool, 10, &array.reference, &memory), 0);
    memset(memory, 7, 10);
    array.readonly = true;
    EXPECT(pool_python_put_array(arguments, &array), 0);
    future = call(pool, "arrays:set_first", arguments);
    EXPECT(raises(&future, "TypeError", "read-only"), true);
    EXPECT(*(char *)memory, 7);
    end();
}

static void a_view_of_an_argument_comes_back_as_part_of_the_block(void)
{
    struct pool_python_array array = vector(POOL_PYTHON_INT32, 100), result;
    void *memory = NULL;
    int *numbers, i;

    begin(true);
    REQUIRE(pool_alloc(pool, 400, &array.reference, &memory), 0);
    numbers = memory;
    for (i = 0; i < 100; i++)
        numbers[i] = i;
    EXPECT(pool_python_put_array(arguments, &array), 0);
    future = evaluate(pool, "args[0][10:20]", arguments);
    result = result_array();
    EXPECT(result.reference == array.reference, true);
    EXPECT(result.offset, 40);
    EXPECT(result.data == (void *)(numbers + 10), true);
    EXPECT(result.shape[0], 10);
    EXPECT(result.type, POOL_PYTHON_INT32);
    EXPECT(result.readonly, false);
    pool_future_release(&future);
    future = evaluate(pool, "args[0][::-2]", arguments); /* no part in C order: a copy */
    result = result_array();
    EXPECT(result.reference, 0);
    EXPECT(result.shape[0], 50);
    EXPECT(((int *)result.data)[0], 99);
    EXPECT(((int *)result.data)[49], 1);
    pool_future_release(&future);
    array.reference = 0; /* what was copied on the way in is no block of the program's */
    array.data = numbers;
    array.shape[0] = 90;
    EXPECT(pool_python_put_array(arguments, &array), 0);
    future = evaluate(pool, "args[1]", arguments);
    result = result_array();
    EXPECT(result.reference, 0);
    EXPECT(result.readonly, true);
    EXPECT(((int *)result.data)[89], 89);
    end();
}

static void a_job_that_keeps_an_array_holds_its_block(void)
{
    struct pool_python_array array = vector(POOL_PYTHON_INT64, 32 * 1024);
    void *memory = NULL, *other = NULL;
    uint64_t reference;
    int i;

    begin(true);
    REQUIRE(pool_alloc(pool, 8 * 32 * 1024, &array.reference, &memory), 0);
    *(int64_t *)memory = 4711;
    EXPECT(pool_python_put_array(arguments, &array), 0);
    for (i = 0; i < 3; i++) { /* several views of one block */
        future = call(pool, "arrays:keep", arguments);
        EXPECT(int_result(&future), i + 1);
    }
    pool_free(pool, array.reference);
    future = call(pool, "arrays:forget_one", NULL);
    EXPECT(int_result(&future), 2);
    for (i = 0; i < 4; i++) { /* what would take its place */
        REQUIRE(pool_alloc(pool, 8 * 32 * 1024, &reference, &other), 0);
        memset(other, 0xff, 8 * 32 * 1024);
        EXPECT(other != memory, true);
    }
    future = call(pool, "arrays:first_of_kept", NULL);
    EXPECT(int_result(&future), 4711);
    future = call(pool, "arrays:forget", NULL);
    EXPECT(int_result(&future), 0);
    REQUIRE(pool_alloc(pool, 8 * 32 * 1024, &reference, &other), 0);
    EXPECT(other == memory, true); /* it was let go */
    EXPECT(pool_python_submit(pool, NULL, "arrays:keep", arguments, &future), 0);
    EXPECT(int_result(&future), 1);
    end();
}

static void an_array_whose_block_was_freed_too_early_is_an_exception(void)
{
    struct pool_python_array array = vector(POOL_PYTHON_INT8, 100);
    struct gate *gate = harness_shared(sizeof *gate);
    void *memory;
    struct pool_future running;

    begin(true);
    running = harness_submit(pool, job_gate, &gate, sizeof gate);
    REQUIRE(pool_alloc(pool, 100, &array.reference, &memory), 0);
    EXPECT(pool_python_put_array(arguments, &array), 0);
    future = call(pool, "arrays:keep", arguments);
    pool_free(pool, array.reference);
    harness_raise(&gate->open);
    EXPECT(raises(&future, "ValueError", "no longer there"), true);
    EXPECT(harness_status(&running), 0);
    end();
}

static void arrays_that_are_not_within_a_block_are_refused(void)
{
    struct pool_python_array array = vector(POOL_PYTHON_FLOAT64, 32), bad;
    void *memory = NULL;
    uint64_t freed;
    int i;

    begin(true);
    REQUIRE(pool_alloc(pool, 8, &freed, &memory), 0);
    pool_free(pool, freed);
    REQUIRE(pool_alloc(pool, 256, &array.reference, &memory), 0);
    EXPECT(pool_python_put_array(arguments, &array), 0);
    future = evaluate(pool, "len(args[0])", arguments);
    EXPECT(int_result(&future), 32);
    for (i = 0; i < 9; i++) {
        int put = 0;
        bad = array;
        if (i == 0)
            bad.shape[0] = 1000000;
        else if (i == 1)
            bad.offset = 8;
        else if (i == 2)
            bad.offset = SIZE_MAX - 7;
        else if (i == 3)
            bad.reference = freed + 12345678;
        else if (i == 4)
            bad.offset = put = 4;
        else if (i == 5)
            bad.dimensions = put = 17;
        else if (i == 6)
            put = (int)(bad.type = (enum pool_python_type)99);
        else if (i == 7)
            bad.shape[0] = SIZE_MAX, put = 1;
        else
            bad.size = (size_t)(put = 8);
        pool_python_arguments_clear(arguments);
        EXPECT(pool_python_put_array(arguments, &bad), put ? -EINVAL : 0);
        EXPECT(pool_python_submit(pool, NULL, "arrays:keep", arguments, &future), -EINVAL);
    }
    end();
}

/* ---- Copied ---- */

static void an_array_of_the_program_is_copied_and_arrives_read_only(void)
{
    static const size_t lengths[] = {3, 100, 100000};
    struct pool_python_array array, result;
    size_t i, j, wrong = 0;
    float *numbers = malloc(100000 * sizeof *numbers);

    begin(true);
    for (i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        pool_python_arguments_clear(arguments);
        array = vector(POOL_PYTHON_FLOAT32, lengths[i]);
        array.data = numbers;
        for (j = 0; j < lengths[i]; j++)
            numbers[j] = (float)j;
        EXPECT(pool_python_put_array(arguments, &array), 0);
        EXPECT(pool_python_put_array(arguments, &array), 0);
        future = call(pool, "arrays:set_first", arguments);
        for (j = 0; j < lengths[i]; j++)
            numbers[j] = -1;
        EXPECT(raises(&future, "TypeError", "read-only"), true);
        for (j = 0; j < lengths[i]; j++)
            numbers[j] = (float)j;
        future = call(pool, "arrays:keep", arguments);
        EXPECT(int_result(&future), (int64_t)i + 1);
        future = evaluate(pool, "[args[0], args[1]][1]", arguments);
        for (j = 0; j < lengths[i]; j++)
            numbers[j] = -1;
        result = result_array();
        EXPECT(result.shape[0], lengths[i]);
        for (j = 0; j < lengths[i]; j++)
            wrong += ((float *)result.data)[j] != (float)j;
        pool_future_release(&future);
    }
    EXPECT(wrong, 0);
    /* Kept since the first round, while other arguments came and went. */
    future = evaluate(pool, "__import__('arrays').kept[1][99]", NULL);
    {
        struct pool_python_value value;
        double real = 0;
        EXPECT(finish(&future, &value), 0);
        EXPECT(pool_python_get_double(&value, &real), 0);
        EXPECT(real == 99.0, true);
    }
    free(numbers);
    end();
}

static void every_type_goes_both_ways(void)
{
    static const char *const formats[] = {NULL, "?", "b", "h", "i", "q",  "B", "H",
                                          "I",  "Q", "e", "f", "d", "Zf", "Zd"};
    static const size_t sizes[] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 8, 16};
    unsigned char bytes[64];
    struct pool_python_array result;
    unsigned type, i;

    for (i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i % 2);
    begin(true);
    EXPECT(pool_python_type_size((enum pool_python_type)0), 0);
    EXPECT(pool_python_type_size((enum pool_python_type)15), 0);
    for (type = POOL_PYTHON_BOOL; type <= POOL_PYTHON_COMPLEX128; type++) {
        struct pool_python_array array = vector((enum pool_python_type)type, 2);
        EXPECT(pool_python_type_size(array.type), sizes[type]);
        array.data = bytes;
        array.dimensions = 2;
        array.shape[1] = 2;
        pool_python_arguments_clear(arguments);
        EXPECT(pool_python_put_array(arguments, &array), 0);
        pool_python_put_string(arguments, formats[type]);
        future = call(pool, "arrays:check_format", arguments);
        result = result_array();
        EXPECT(result.type, type);
        EXPECT(result.dimensions, 2);
        EXPECT(result.shape[0] == 2 && result.shape[1] == 2, true);
        EXPECT(memcmp(result.data, bytes, 4 * sizes[type]), 0);
        pool_future_release(&future);
    }
    end();
}

static void empty_arrays_and_those_without_dimensions_are_fine(void)
{
    struct pool_python_array array = vector(POOL_PYTHON_INT16, 0), result;
    struct pool_python_value value;
    int64_t number = 0;

    begin(true);
    array.dimensions = 2;
    array.shape[1] = 5;
    EXPECT(pool_python_put_array(arguments, &array), 0);
    future = evaluate(pool, "args[0]", arguments);
    result = result_array();
    EXPECT(result.dimensions, 2);
    EXPECT(result.shape[0] == 0 && result.shape[1] == 5, true);
    pool_future_release(&future);
    pool_python_arguments_clear(arguments);
    array.dimensions = 0;
    array.data = &(int16_t){-5};
    EXPECT(pool_python_put_array(arguments, &array), 0);
    future = evaluate(pool, "args[0][()]", arguments);
    EXPECT(int_result(&future), -5);
    if (has_module(pool, "numpy")) {
        future = evaluate(pool, "__import__('numpy').array(7)", NULL);
        EXPECT(finish(&future, &value), 0);
        EXPECT(pool_python_get_int64(&value, &number), 0);
        EXPECT(number, 7);
    }
    end();
}

/* ---- Results ---- */

static void results_of_the_standard_library_are_arrays(void)
{
    struct pool_python_array result;

    begin(true);
    future = evaluate(pool, "__import__('array').array('d', [1, 2.5])", NULL);
    result = result_array();
    EXPECT(result.type, POOL_PYTHON_FLOAT64);
    EXPECT(((double *)result.data)[1] == 2.5, true);
    future = evaluate(pool, "memoryview(b'abcdef').cast('B', (2, 3))", NULL);
    result = result_array();
    EXPECT(result.type, POOL_PYTHON_UINT8);
    EXPECT(result.shape[0] == 2 && result.shape[1] == 3, true);
    EXPECT(memcmp(result.data, "abcdef", 6), 0);
    future = evaluate(pool, "memoryview(b'abcdef')[::-2]", NULL);
    result = result_array();
    EXPECT(memcmp(result.data, "fdb", 3), 0);
    end();
}

static void results_of_numpy_are_arrays(void)
{
    struct pool_python_array result;
    struct pool_python_value value;
    const char *text = "";
    size_t i, wrong = 0;

    begin(false);
    if (has_module(pool, "numpy")) {
        future = evaluate(pool, "__import__('numpy').arange(1e6).reshape(1000, 1000).T", NULL);
        result = result_array();
        EXPECT(result.type, POOL_PYTHON_FLOAT64);
        EXPECT((uintptr_t)result.data % 64, 0);
        for (i = 0; i < 1000000; i++)
            wrong += ((double *)result.data)[i] != (double)(i % 1000 * 1000 + i / 1000);
        EXPECT(wrong, 0);
        pool_future_release(&future);
        future = evaluate(pool, "__import__('numpy').zeros(3, '>f8')", NULL);
        EXPECT(raises(&future, "TypeError", ">d"), true);
        future = evaluate(pool, "__import__('numpy').array([None])", NULL);
        EXPECT(raises(&future, "TypeError", "format 'O'"), true);
        future = evaluate(pool, "__import__('numpy').zeros(2, 'datetime64[s]')", NULL);
        EXPECT(raises(&future, "ValueError", "dtype"), true);
        future = evaluate(pool, "__import__('numpy').datetime64('2020', 's')", NULL);
        EXPECT(raises(&future, "TypeError", "numpy.datetime64"), true);
        future = evaluate(pool, "__import__('numpy').zeros((1,) * 17)", NULL);
        EXPECT(raises(&future, "TypeError", "17 dimensions"), true);
        future = evaluate(pool, "str(__import__('numpy').str_('x'))", NULL);
        EXPECT(finish(&future, &value), 0);
        EXPECT(pool_python_get_string(&value, &text, NULL), 0);
    }
    end();
}

static void a_result_for_which_there_is_no_room_is_an_exception(void)
{
    begin(true);
    future = evaluate(pool, "bytes(400 << 20)", NULL); /* the pool has 256 MiB */
    EXPECT(raises(&future, "MemoryError", "no shared memory left for a result of"), true);
    future = evaluate(pool, "1", NULL);
    EXPECT(int_result(&future), 1);
    end();
}

static const struct harness_test tests[] = {
    TEST(a_job_writes_to_the_program_s_block),
    TEST(with_numpy_it_gets_an_ndarray),
    TEST(a_readonly_array_can_not_be_written),
    TEST(a_view_of_an_argument_comes_back_as_part_of_the_block),
    TEST(a_job_that_keeps_an_array_holds_its_block),
    TEST(an_array_whose_block_was_freed_too_early_is_an_exception),
    TEST(arrays_that_are_not_within_a_block_are_refused),
    TEST(an_array_of_the_program_is_copied_and_arrives_read_only),
    TEST(every_type_goes_both_ways),
    TEST(empty_arrays_and_those_without_dimensions_are_fine),
    TEST(results_of_the_standard_library_are_arrays),
    TEST(results_of_numpy_are_arrays),
    TEST(a_result_for_which_there_is_no_room_is_an_exception),
};

HARNESS_MAIN("libpool-python: arrays", tests)
