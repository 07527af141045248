/* What the tests of the C++ wrapper share: they are plain functions, run one after the other by
 * main.cpp. A name on the command line runs only the tests whose names contain it. */
#ifndef CHECK_HPP
#define CHECK_HPP

#include <cstdio>
#include <exception>
#include <type_traits>
#include <vector>

struct test_case {
    const char *name;
    void (*run)();
};

inline std::vector<test_case> &all_tests()
{
    static std::vector<test_case> tests;
    return tests;
}

inline int failures;

inline bool report(bool held, const char *text, const char *file, int line)
{
    if (!held) {
        std::fprintf(stderr, "    %s:%d: not so: %s\n", file, line, text);
        failures++;
    }
    return held;
}

#define TEST(name)                                                                                 \
    static void name();                                                                            \
    static const bool name##_added = (all_tests().push_back({#name, name}), true);                 \
    static void name()

#define CHECK(...) report(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

/* Calls inspect(exception) for the exception that the expression throws. */
#define CHECK_THROWS(type, expression, inspect)                                                    \
    do {                                                                                           \
        bool thrown = false;                                                                       \
        try {                                                                                      \
            expression;                                                                            \
        } catch (const type &exception) {                                                          \
            thrown = true;                                                                         \
            inspect(exception);                                                                    \
        }                                                                                          \
        report(thrown, #expression " throws " #type, __FILE__, __LINE__);                          \
    } while (0)

/* For CHECK_THROWS(std::system_error, ...). */
#define HAS_CODE(wanted) [](const auto &error) { CHECK(error.code() == std::errc::wanted); }
#define ANY [](const auto &) {}

#endif
