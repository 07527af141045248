/* Maps over arrays, containers and ranges. */
#include <array>
#include <atomic>
#include <csignal>
#include <forward_list>
#include <list>
#include <numeric>
#include <stdexcept>
#include <string>
#include <unistd.h>
#if __cplusplus >= 202002L
#include <ranges>
#include <span>
#endif

#include <libpool.hpp>

#include "check.hpp"

static long square(int x)
{
    return static_cast<long>(x) * x;
}

static std::vector<int> numbers(int count)
{
    std::vector<int> all(static_cast<std::size_t>(count));
    std::iota(all.begin(), all.end(), 0);
    return all;
}

TEST(maps_of_every_length_are_in_order)
{
    for (int workers : {1, 2, 5}) {
        libpool::pool pool(workers);
        for (int count : {0, 1, 2, 15, 16, 17, 1000, 100000}) {
            std::vector<int> items = numbers(count);
            std::vector<long> results = pool.map(square, items);
            CHECK(results.size() == items.size());
            bool right = true;
            for (std::size_t i = 0; i < items.size(); i++)
                right = right && results[i] == square(items[i]);
            CHECK(right);
        }
    }
}

TEST(any_range_can_be_mapped)
{
    libpool::pool pool(2);
    int add = 1;
    auto function = [add](int x) { return x + add; };
    const std::vector<int> wanted{2, 3, 4};
    int array[] = {1, 2, 3};
    CHECK(pool.map(function, array) == wanted);
    CHECK(pool.map(function, array, 3) == wanted);
    CHECK(pool.map(function, std::array<int, 3>{1, 2, 3}) == wanted);
    CHECK(pool.map(function, std::list<int>{1, 2, 3}) == wanted);
    CHECK(pool.map(function, std::forward_list<int>{1, 2, 3}) == wanted);
    CHECK(pool.map([](bool x) { return !x; }, std::vector<bool>{true, false}) ==
          std::vector<bool>{false, true});
    CHECK(pool.map([](char x) { return static_cast<char>(x + 1); }, std::string("HAL")) ==
          std::vector<char>{'I', 'B', 'M'});
#if __cplusplus >= 202002L && (!defined(__clang__) || __clang_major__ >= 16)
    CHECK(pool.map(function, std::span<int>(array)) == wanted);
    CHECK(pool.map(function, std::views::iota(1, 4)) == wanted);
    CHECK(pool.map(function, array | std::views::filter([](int x) { return x != 2; })) ==
          std::vector<int>{2, 4});
#endif
}

TEST(results_go_into_an_array)
{
    libpool::pool pool(2);
    std::vector<int> items = numbers(1000);
    std::vector<long> results(1001, -1);
    pool.map_into(square, items.data(), items.size(), results.data());
    CHECK(results[999] == 999 * 999);
    CHECK(results[1000] == -1);
}

TEST(a_function_without_a_result_is_mapped)
{
    libpool::pool pool(2);
    auto sums = pool.make_shared_array<std::atomic<long>>(1);
    auto add = [ref = sums.ref()](int x) { ref.lookup()[0] += x; };
    static_assert(std::is_void_v<decltype(pool.map(add, numbers(3)))>);
    pool.map(add, numbers(1001));
    CHECK(sums[0] == 500500);
}

TEST(functions_are_items_and_results)
{
    libpool::pool pool(1);
    long (*functions[])(int) = {square, [](int x) -> long { return -x; }};
    CHECK(pool.map([](long (*f)(int)) { return f(3); }, functions) == std::vector<long>{9, -3});
    auto same = pool.map([](long (*f)(int)) { return f; }, functions);
    CHECK(same[0] == functions[0] && same[1] == functions[1]);
}

TEST(the_first_exception_in_order_is_thrown)
{
    libpool::pool pool(2);
    auto picky = [](int x) {
        if (x % 100 == 70)
            throw std::domain_error(std::to_string(x));
        return x;
    };
    CHECK_THROWS(libpool::job_error, pool.map(picky, numbers(1000)),
                 [](const libpool::job_error &error) {
                     CHECK(error.type() == "std::domain_error");
                     CHECK(error.message() == "70");
                 });
    CHECK(pool.stats().jobs_waiting == 0);
    CHECK(pool.stats().jobs_running == 0);
    CHECK(pool.map(picky, numbers(70)).size() == 70);
}

TEST(what_waits_is_not_run_after_a_failure)
{
    libpool::pool pool(1);
    auto calls = pool.make_shared_array<std::atomic<int>>(1);
    auto fails = [ref = calls.ref()](int x) {
        ref.lookup()[0]++;
        usleep(1000);
        if (x == 0)
            throw std::runtime_error("the first");
    };
    CHECK_THROWS(libpool::job_error, pool.map(fails, numbers(1000)), ANY);
    CHECK(calls[0] < 800); /* all chunks but the first have 875 items */
}

TEST(a_worker_that_dies_ends_the_map)
{
    libpool::pool pool(2);
    auto deadly = [](int x) {
        if (x == 500)
            raise(SIGKILL);
        return x;
    };
    CHECK_THROWS(libpool::worker_died, pool.map(deadly, numbers(1000)),
                 [](const libpool::worker_died &error) { CHECK(error.signal() == SIGKILL); });
}

TEST(a_time_limit_is_for_each_item)
{
    using namespace std::chrono_literals;
    libpool::pool pool(1);
    libpool::options options;
    options.timeout = 150ms;
    /* The 21 items of a chunk together take longer than the limit. */
    auto slow = [](int x) { return usleep(10000), x; };
    CHECK(pool.map_with(options, slow, numbers(160)) == numbers(160));
    options.timeout = 20ms;
    auto stuck = [](int x) { return x == 3 ? pause() : x; };
    CHECK_THROWS(libpool::job_timeout, pool.map_with(options, stuck, numbers(24)), ANY);
}

TEST(a_map_in_a_job)
{
    libpool::pool pool(2);
    auto sum_of_squares = [](int count) {
        long sum = 0;
        for (long result : libpool::current().map(square, numbers(count)))
            sum += result;
        return sum;
    };
    CHECK(pool.submit(sum_of_squares, 100).get() == 328350);
}
