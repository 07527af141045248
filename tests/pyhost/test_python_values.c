/* Values on their way to Python and back. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

static struct pool *pool;
static struct pool_python_arguments *arguments;

static void begin(void)
{
    pool = python_pool(1, NULL);
    arguments = pool_python_arguments_create();
    REQUIRE(arguments != NULL, true);
}

static void end(void)
{
    pool_python_arguments_destroy(arguments);
    pool_destroy(pool);
}

/* ---- To Python ---- */

/* What arrives: the positional and the keyword arguments, as repr() shows them. */
static bool arrive_as(const char *wanted)
{
    struct pool_future future = call(pool, "echoes:show", arguments);

    pool_python_arguments_clear(arguments);
    return string_result(&future, wanted);
}

static void plain_values_arrive_as_they_are(void)
{
    begin();
    EXPECT(arrive_as("() {}"), true);
    EXPECT(pool_python_put_none(arguments), 0);
    EXPECT(pool_python_put_bool(arguments, true), 0);
    EXPECT(pool_python_put_bool(arguments, false), 0);
    EXPECT(pool_python_put_int64(arguments, -1), 0);
    EXPECT(pool_python_put_int64(arguments, (INT64_C(1) << 55) - 1), 0);
    EXPECT(pool_python_put_int64(arguments, INT64_C(1) << 55), 0);
    EXPECT(pool_python_put_int64(arguments, -(INT64_C(1) << 55)), 0);
    EXPECT(pool_python_put_int64(arguments, -(INT64_C(1) << 55) - 1), 0);
    EXPECT(pool_python_put_int64(arguments, INT64_MIN), 0);
    EXPECT(pool_python_put_int64(arguments, INT64_MAX), 0);
    EXPECT(pool_python_put_double(arguments, 0.1), 0);
    EXPECT(pool_python_put_double(arguments, -INFINITY), 0);
    EXPECT(arrive_as("(None, True, False, -1, 36028797018963967, 36028797018963968, "
                     "-36028797018963968, -36028797018963969, -9223372036854775808, "
                     "9223372036854775807, 0.1, -inf) {}"),
           true);
    EXPECT(pool_python_put_string(arguments, "h\xc3\xa9llo \xf0\x9f\x8e\x88"), 0);
    EXPECT(pool_python_put_text(arguments, "a\0b", 3), 0);
    EXPECT(pool_python_put_string(arguments, ""), 0);
    EXPECT(pool_python_put_bytes(arguments, "\0\xff", 2), 0);
    EXPECT(pool_python_put_bytes(arguments, NULL, 0), 0);
    EXPECT(pool_python_put_bytes(arguments, "12345678", 8), 0);
    EXPECT(arrive_as("('h\xc3\xa9llo \xf0\x9f\x8e\x88', 'a\\x00b', '', b'\\x00\\xff', b'', "
                     "b'12345678') {}"),
           true);
    end();
}

static void lists_tuples_and_dicts_arrive_with_what_is_in_them(void)
{
    begin();
    pool_python_begin_list(arguments);
    EXPECT(pool_python_end(arguments), 0);
    pool_python_begin_list(arguments);
    pool_python_put_int64(arguments, 1);
    pool_python_begin_tuple(arguments);
    pool_python_put_int64(arguments, 2);
    pool_python_begin_dict(arguments);
    EXPECT(pool_python_end(arguments), 0);
    EXPECT(pool_python_end(arguments), 0);
    pool_python_put_string(arguments, "x");
    EXPECT(pool_python_end(arguments), 0);
    pool_python_begin_dict(arguments);
    pool_python_put_string(arguments, "k");
    pool_python_begin_list(arguments);
    pool_python_put_none(arguments);
    pool_python_end(arguments);
    pool_python_begin_tuple(arguments);
    pool_python_put_int64(arguments, 5);
    pool_python_end(arguments);
    pool_python_put_double(arguments, 0.5);
    EXPECT(pool_python_end(arguments), 0);
    EXPECT(arrive_as("([], [1, (2, {}), 'x'], {'k': [None], (5,): 0.5}) {}"), true);
    end();
}

static void keywords_arrive_by_their_names(void)
{
    begin();
    pool_python_put_keyword(arguments, "first");
    pool_python_put_int64(arguments, 1);
    pool_python_put_string(arguments, "positional");
    EXPECT(pool_python_put_keyword(arguments, "n\xc3\xa4me"), 0);
    pool_python_begin_list(arguments);
    pool_python_put_int64(arguments, 2);
    pool_python_end(arguments);
    EXPECT(arrive_as("('positional',) {'first': 1, 'n\xc3\xa4me': [2]}"), true);
    end();
}

static void arguments_can_be_submitted_again_and_extended(void)
{
    struct pool_future first, second;

    begin();
    pool_python_put_int64(arguments, 1);
    first = call(pool, "echoes:show", arguments);
    pool_python_put_int64(arguments, 2);
    second = call(pool, "echoes:show", arguments);
    EXPECT(string_result(&first, "(1,) {}"), true);
    EXPECT(string_result(&second, "(1, 2) {}"), true);
    first = call(pool, "echoes:show", NULL);
    EXPECT(string_result(&first, "() {}"), true);
    end();
}

/* The error that putting together and submitting comes to; the arguments are empty afterwards. */
static int error_of(int last)
{
    struct pool_future future;
    int error = pool_python_submit(pool, NULL, "echoes:show", arguments, &future);

    if (last)
        EXPECT(last, error);
    if (error == 0)
        pool_future_release(&future);
    pool_python_arguments_clear(arguments);
    return error;
}

static void mistakes_are_errors_that_stick(void)
{
    static const char *const not_utf8[] = {
        "\x80",         "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xf0\x9f\x8e", "\xc3(",    "\xff"};
    size_t i;

    begin();
    for (i = 0; i < sizeof not_utf8 / sizeof *not_utf8; i++)
        EXPECT(error_of(pool_python_put_string(arguments, not_utf8[i])), -EILSEQ);
    pool_python_put_string(arguments, "\xff");
    EXPECT(error_of(pool_python_put_int64(arguments, 1)), -EILSEQ);
    EXPECT(error_of(pool_python_put_keyword(arguments, "\xff")), -EILSEQ);
    EXPECT(error_of(pool_python_end(arguments)), -EINVAL);
    pool_python_begin_list(arguments);
    EXPECT(error_of(0), -EINVAL); /* never ended */
    pool_python_put_keyword(arguments, "x");
    EXPECT(error_of(0), -EINVAL); /* no value */
    pool_python_put_keyword(arguments, "x");
    EXPECT(error_of(pool_python_put_keyword(arguments, "y")), -EINVAL);
    pool_python_begin_list(arguments);
    EXPECT(error_of(pool_python_put_keyword(arguments, "x")), -EINVAL);
    pool_python_begin_dict(arguments);
    pool_python_put_int64(arguments, 1);
    EXPECT(error_of(pool_python_end(arguments)), -EINVAL);
    for (i = 0; i < POOL_PYTHON_MAX_DEPTH; i++)
        EXPECT(pool_python_begin_list(arguments), 0);
    EXPECT(error_of(pool_python_begin_list(arguments)), -EOVERFLOW);
    EXPECT(error_of(0), 0);
    end();
}

static void a_key_that_can_not_be_hashed_is_an_exception(void)
{
    struct pool_future future;

    begin();
    pool_python_begin_dict(arguments);
    pool_python_begin_list(arguments);
    pool_python_end(arguments);
    pool_python_put_none(arguments);
    pool_python_end(arguments);
    future = call(pool, "echoes:show", arguments);
    EXPECT(raises(&future, "TypeError", "unhashable"), true);
    end();
}

/* ---- From Python ---- */

static struct pool_future future;

static struct pool_python_value value_of(const char *expression)
{
    struct pool_python_value value = {0};

    future = evaluate(pool, expression, NULL);
    EXPECT(finish(&future, &value), 0);
    return value;
}

static void plain_results_have_kind_and_value(void)
{
    struct pool_python_value value;
    const char *text = "";
    const void *data = "";
    int64_t number = 0;
    double real = 0;
    bool truth = false;
    size_t size = 0;

    begin();
    value = value_of("None");
    EXPECT(pool_python_kind(&value), POOL_PYTHON_KIND_NONE);
    EXPECT(pool_python_get_bool(&value, &truth), -EINVAL);
    EXPECT(pool_python_length(&value), -EINVAL);
    value = value_of("3 > 2");
    EXPECT(pool_python_kind(&value), POOL_PYTHON_KIND_BOOL);
    EXPECT(pool_python_get_bool(&value, &truth), 0);
    EXPECT(truth, true);
    EXPECT(pool_python_get_int64(&value, &number), -EINVAL);
    value = value_of("-2**63");
    EXPECT(pool_python_kind(&value), POOL_PYTHON_KIND_INT);
    EXPECT(pool_python_get_int64(&value, &number), 0);
    EXPECT(number, INT64_MIN);
    EXPECT(pool_python_get_double(&value, &real), 0);
    EXPECT(real == -9223372036854775808.0, true);
    value = value_of("1 / 4");
    EXPECT(pool_python_kind(&value), POOL_PYTHON_KIND_DOUBLE);
    EXPECT(pool_python_get_double(&value, &real), 0);
    EXPECT(real == 0.25, true);
    EXPECT(pool_python_get_string(&value, &text, NULL), -EINVAL);
    value = value_of("'\\u00fc\\0x'");
    EXPECT(pool_python_kind(&value), POOL_PYTHON_KIND_STRING);
    EXPECT(pool_python_get_string(&value, &text, &size), 0);
    EXPECT(size == 4 && memcmp(text, "\xc3\xbc\0x", 5) == 0, true);
    value = value_of("b'\\0\\1'");
    EXPECT(pool_python_kind(&value), POOL_PYTHON_KIND_BYTES);
    EXPECT(pool_python_get_bytes(&value, &data, &size), 0);
    EXPECT(size == 2 && memcmp(data, "\0\1", 2) == 0, true);
    EXPECT(pool_python_get_item(&value, 0, &value), -EINVAL);
    value = value_of("bytearray(b'abc')");
    EXPECT(pool_python_get_bytes(&value, &data, &size), 0);
    EXPECT(size == 3 && memcmp(data, "abc", 3) == 0, true);
    end();
}

static void containers_are_read_item_by_item(void)
{
    struct pool_python_value list, item, key;
    const char *text = "";
    int64_t number = 0;
    size_t i;

    begin();
    list = value_of("[10, [20, 'x'], (30,), {}, {'b': 1, 'a': 2, 3: 'c'}]");
    EXPECT(pool_python_kind(&list), POOL_PYTHON_KIND_LIST);
    EXPECT(pool_python_length(&list), 5);
    EXPECT(pool_python_get_item(&list, 5, &item), -ERANGE);
    EXPECT(pool_python_get_item(&list, 0, &item), 0);
    EXPECT(pool_python_get_int64(&item, &number), 0);
    EXPECT(number, 10);
    EXPECT(pool_python_get_item(&list, 1, &item), 0);
    EXPECT(pool_python_get_item(&item, 1, &item), 0); /* into itself */
    EXPECT(pool_python_get_string(&item, &text, NULL), 0);
    EXPECT_STRING(text, "x");
    EXPECT(pool_python_get_item(&list, 2, &item), 0);
    EXPECT(pool_python_kind(&item), POOL_PYTHON_KIND_TUPLE);
    EXPECT(pool_python_length(&item), 1);
    EXPECT(pool_python_get_item(&list, 3, &item), 0);
    EXPECT(pool_python_length(&item), 0);
    EXPECT(pool_python_find(&item, "a", &key), -ENOENT);
    EXPECT(pool_python_get_item(&list, 4, &list), 0);
    EXPECT(pool_python_kind(&list), POOL_PYTHON_KIND_DICT);
    EXPECT(pool_python_length(&list), 3);
    EXPECT(pool_python_get_item(&list, 0, &item), -EINVAL);
    for (i = 0; i < 2; i++) {
        EXPECT(pool_python_get_entry(&list, i, &key, &item), 0);
        EXPECT(pool_python_get_string(&key, &text, NULL), 0);
        EXPECT_STRING(text, i ? "a" : "b");
        EXPECT(pool_python_get_int64(&item, &number), 0);
        EXPECT(number, (int64_t)i + 1);
    }
    EXPECT(pool_python_get_entry(&list, 2, &key, NULL), 0);
    EXPECT(pool_python_get_int64(&key, &number), 0);
    EXPECT(number, 3);
    EXPECT(pool_python_get_entry(&list, 3, NULL, NULL), -ERANGE);
    EXPECT(pool_python_find(&list, "a", &item), 0);
    EXPECT(pool_python_get_int64(&item, &number), 0);
    EXPECT(number, 2);
    EXPECT(pool_python_find(&list, "c", &item), -ENOENT);
    end();
}

static void a_list_of_many_items_is_read_in_any_order(void)
{
    enum { ITEMS = 100000 };
    struct pool_python_value list, item;
    int64_t number = 0, wrong = 0;
    size_t i;

    begin();
    list = value_of("[*range(-100000, 100000, 2)]");
    EXPECT(pool_python_length(&list), ITEMS);
    for (i = ITEMS; i-- > 0;)
        wrong += pool_python_get_item(&list, i, &item) != 0 ||
                 pool_python_get_int64(&item, &number) != 0 || number != (int64_t)i * 2 - 100000;
    EXPECT(wrong, 0);
    end();
}

static void subclasses_and_scalars_are_what_they_stand_for(void)
{
    struct pool_python_value value, item;
    int64_t number = 0;
    double real = 0;

    begin();
    value = value_of("__import__('echoes').alike()");
    EXPECT(pool_python_length(&value), 5);
    EXPECT(pool_python_get_item(&value, 0, &item), 0);
    EXPECT(pool_python_kind(&item), POOL_PYTHON_KIND_DICT); /* OrderedDict */
    EXPECT(pool_python_get_item(&value, 1, &item), 0);
    EXPECT(pool_python_kind(&item), POOL_PYTHON_KIND_TUPLE); /* namedtuple */
    EXPECT(pool_python_get_item(&value, 2, &item), 0);
    EXPECT(pool_python_get_int64(&item, &number), 0); /* IntEnum */
    EXPECT(number, 7);
    EXPECT(pool_python_get_item(&value, 3, &item), 0);
    EXPECT(pool_python_get_int64(&item, &number), 0); /* has __index__ */
    EXPECT(number, 8);
    EXPECT(pool_python_get_item(&value, 4, &item), 0);
    EXPECT(pool_python_kind(&item), POOL_PYTHON_KIND_STRING);
    if (has_module(pool, "numpy")) {
        value = value_of("[__import__('numpy').float32(0.5), __import__('numpy').int16(-3), "
                         "__import__('numpy').bool_(True)]");
        EXPECT(pool_python_get_item(&value, 0, &item), 0);
        EXPECT(pool_python_get_double(&item, &real), 0);
        EXPECT(real == 0.5, true);
        EXPECT(pool_python_get_item(&value, 1, &item), 0);
        EXPECT(pool_python_get_int64(&item, &number), 0);
        EXPECT(number, -3);
        EXPECT(pool_python_get_item(&value, 2, &item), 0);
        EXPECT(pool_python_kind(&item), POOL_PYTHON_KIND_BOOL);
    }
    end();
}

static void large_strings_and_bytes_come_whole(void)
{
    enum { LARGE = 10000019 };
    static const size_t sizes[] = {4095, 4096, 4097, LARGE};
    struct pool_python_value value, item;
    const char *text = "";
    const void *data = "";
    size_t size = 0, i, j, wrong = 0;
    char *bytes = malloc(LARGE);

    begin();
    memset(bytes, 'b', LARGE);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pool_python_arguments_clear(arguments);
        pool_python_put_bytes(arguments, bytes, sizes[i]);
        pool_python_put_text(arguments, bytes, sizes[i]);
        future = evaluate(pool, "[args[0], args[1], bytearray(args[0]), args[1]]", arguments);
        EXPECT(finish(&future, &value), 0);
        for (j = 0; j < 4; j++) {
            EXPECT(pool_python_get_item(&value, j, &item), 0);
            if (j % 2) {
                EXPECT(pool_python_get_string(&item, &text, &size), 0);
                wrong += text[size] != 0 || memcmp(text, bytes, size) != 0;
            } else {
                EXPECT(pool_python_get_bytes(&item, &data, &size), 0);
                wrong += memcmp(data, bytes, size) != 0;
            }
            EXPECT(size, sizes[i]);
        }
        pool_future_release(&future);
    }
    EXPECT(wrong, 0);
    free(bytes);
    end();
}

static void results_without_a_form_in_c_are_exceptions_that_say_so(void)
{
    static const struct {
        const char *expression, *type, *text;
    } cases[] = {
        {"{1, 2}", "TypeError", "type set has no form in C"},
        {"[object()]", "TypeError", "type object has no form in C"},
        {"1j", "TypeError", "type complex"},
        {"{'x': range(3)}", "TypeError", "type range"},
        {"print", "TypeError", "builtin_function"},
        {"2**63", "OverflowError", "64 bits"},
        {"-2**63 - 1", "OverflowError", "64 bits"},
        {"'\\ud800'", "UnicodeEncodeError", "surrogates"},
        {"(lambda l: l.append(l) or l)([])", "ValueError", "200 levels"},
        {"eval('[' * 90 + ']' * 90) and None or __import__('echoes').nested(201)", "ValueError",
         "200 levels"},
        {"memoryview(b'ab').cast('c', (1, 2)).__class__", "TypeError", "type type"},
        {"__import__('ctypes').c_longdouble(1)", "TypeError", "elements of format"},
        {"__import__('echoes').bad_index()", "ZeroDivisionError", "division"},
    };
    struct pool_python_value value;
    size_t i;

    begin();
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        future = evaluate(pool, cases[i].expression, NULL);
        if (!EXPECT(raises(&future, cases[i].type, cases[i].text), true))
            fprintf(stderr, "%s\n", cases[i].expression);
    }
    value = value_of("__import__('echoes').nested(200)");
    for (i = 1; i < POOL_PYTHON_MAX_DEPTH; i++)
        EXPECT(pool_python_get_item(&value, 0, &value), 0);
    EXPECT(pool_python_length(&value), 0);
    end();
}

static void a_result_that_changes_while_it_is_encoded_does_no_harm(void)
{
    struct pool_python_value value, texts, item;
    const char *text = "";
    size_t i, size = 0;

    begin();
    value = value_of("__import__('echoes').changing()");
    EXPECT(pool_python_length(&value), 2);
    EXPECT(pool_python_get_item(&value, 0, &texts), 0);
    EXPECT(pool_python_length(&texts), 10);
    for (i = 0; i < 9; i++) {
        EXPECT(pool_python_get_item(&texts, i, &item), 0);
        EXPECT(pool_python_get_string(&item, &text, &size), 0);
        EXPECT(size, 5000);
        EXPECT(text[0] == '0' + (char)i && text[4999] == text[0], true);
    }
    EXPECT(pool_python_get_item(&value, 1, &item), 0);
    EXPECT(pool_python_length(&item), 1);
    end();
}

static void results_of_other_jobs_are_not_taken_for_values(void)
{
    struct pool_python_exception exception = {.size = sizeof exception};
    struct pool_python_value value;
    uint64_t words[4] = {1, 2, 3, 4};

    begin();
    future = harness_submit(pool, job_echo, words, sizeof words);
    EXPECT(finish(&future, &value), -EBADMSG);
    EXPECT(pool_python_kind(&value), -EINVAL);
    EXPECT(pool_python_exception(&future, &exception), -ENOENT);
    future = harness_submit(pool, job_nothing, NULL, 0);
    EXPECT(finish(&future, &value), -EBADMSG);
    pool_future_release(&future);
    EXPECT(pool_python_result(&future, &value), -ESTALE);
    EXPECT(pool_python_exception(&future, &exception), -ESTALE);
    future = evaluate(pool, "1", NULL);
    EXPECT(finish(&future, &value), 0);
    EXPECT(pool_python_exception(&future, &exception), -ENOENT);
    exception.size = 3;
    EXPECT(pool_python_exception(&future, &exception), -EINVAL);
    end();
}

static const struct harness_test tests[] = {
    TEST(plain_values_arrive_as_they_are),
    TEST(lists_tuples_and_dicts_arrive_with_what_is_in_them),
    TEST(keywords_arrive_by_their_names),
    TEST(arguments_can_be_submitted_again_and_extended),
    TEST(mistakes_are_errors_that_stick),
    TEST(a_key_that_can_not_be_hashed_is_an_exception),
    TEST(plain_results_have_kind_and_value),
    TEST(containers_are_read_item_by_item),
    TEST(a_list_of_many_items_is_read_in_any_order),
    TEST(subclasses_and_scalars_are_what_they_stand_for),
    TEST(large_strings_and_bytes_come_whole),
    TEST(results_without_a_form_in_c_are_exceptions_that_say_so),
    TEST(a_result_that_changes_while_it_is_encoded_does_no_harm),
    TEST(results_of_other_jobs_are_not_taken_for_values),
};

HARNESS_MAIN("libpool-python: values", tests)
