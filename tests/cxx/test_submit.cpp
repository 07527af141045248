/* What can be sent, and what comes back. */
#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <unistd.h>

#include <libpool.hpp>

#include "check.hpp"

static int twice(int x)
{
    return 2 * x;
}

TEST(a_lambda_is_sent_with_what_it_captures)
{
    libpool::pool pool(2);
    double scale = 3;
    std::array<int, 4> numbers{1, 2, 3, 4};
    auto add_scaled = [scale, numbers](int extra) {
        double sum = extra;
        for (int number : numbers)
            sum += scale * number;
        return sum;
    };
    CHECK(pool.submit(add_scaled, 12).get() == 42);
    scale = 4; /* the copy in the lambda is older */
    CHECK(pool.submit(add_scaled, 12).get() == 42);
}

TEST(free_functions_and_function_objects_are_called)
{
    libpool::pool pool(2);
    CHECK(pool.submit(twice, 21).get() == 42);
    CHECK(pool.submit(&twice, 21).get() == 42);
    CHECK(pool.submit(static_cast<double (*)(double)>(std::sqrt), 1764.0).get() == 42);
    CHECK(pool.submit(std::plus<int>(), 40, 2).get() == 42);
    auto apply = [](int (*function)(int), int x) { return function(x); };
    CHECK(pool.submit(apply, twice, 21).get() == 42);
    int (*returned)(int) = pool.submit([] { return &twice; }).get();
    CHECK(returned == twice);
}

TEST(a_mutable_lambda_changes_its_own_copy)
{
    libpool::pool pool(1);
    int count = 41;
    auto next = [count]() mutable { return ++count; };
    CHECK(pool.submit(next).get() == 42);
    CHECK(pool.submit(next).get() == 42);
    CHECK(count == 41);
}

TEST(jobs_run_in_other_processes)
{
    libpool::pool pool(1);
    CHECK(pool.submit(getpid).get() != getpid());
    CHECK(pool.submit([] { return libpool::worker_index(); }).get() == 0);
    CHECK(libpool::worker_index() == -1);
    static int variable = 1;
    pool.submit([] { variable = 2; }).get();
    CHECK(variable == 1);
}

/* Neither copied nor made by default; and aligned to more than the library aligns to. */
struct alignas(64) stubborn {
    explicit stubborn(int its_value) : value(its_value)
    {
    }
    stubborn(const stubborn &) = delete;
    stubborn(stubborn &&) = default;
    stubborn &operator=(const stubborn &) = delete;
    int value;
};
static_assert(std::is_trivially_copyable_v<stubborn>);

TEST(types_that_only_move_travel_both_ways)
{
    libpool::pool pool(1);
    auto function = [](stubborn in) {
        if (reinterpret_cast<std::uintptr_t>(&in) % 64 != 0)
            throw std::logic_error("not aligned");
        return stubborn(in.value * 2);
    };
    CHECK(pool.submit(function, stubborn(21)).get().value == 42);
    stubborn captured(40);
    auto with_state = [state = std::move(captured)](int x) { return state.value + x; };
    CHECK(pool.submit(with_state, 2).get() == 42);
    CHECK(pool.submit(std::move(with_state), 2).get() == 42);
}

struct large {
    unsigned char bytes[300000];
};

TEST(large_values_travel)
{
    libpool::pool pool(2);
    auto argument = std::make_unique<large>();
    for (std::size_t i = 0; i < sizeof argument->bytes; i++)
        argument->bytes[i] = static_cast<unsigned char>(i * 7);
    auto invert = [](const large &in) {
        large out = in;
        for (unsigned char &byte : out.bytes)
            byte = static_cast<unsigned char>(~byte);
        return out;
    };
    auto result = std::make_unique<large>(pool.submit(invert, *argument).get());
    bool same = true;
    for (std::size_t i = 0; i < sizeof argument->bytes; i++)
        same = same && result->bytes[i] == static_cast<unsigned char>(~argument->bytes[i]);
    CHECK(same);
}

TEST(a_returned_reference_is_a_copy)
{
    libpool::pool pool(1);
    static const int answer = 42;
    auto job = [](int unused) -> const int & { return (void)unused, answer; };
    static_assert(std::is_same_v<decltype(pool.submit(job, 1).get()), int>);
    CHECK(pool.submit(job, 1).get() == 42);
}

TEST(an_exception_arrives_with_its_type_and_text)
{
    libpool::pool pool(1);
    auto future =
        pool.submit([](int i) { return std::array<int, 3>{}.at(static_cast<std::size_t>(i)); }, 5);
    CHECK_THROWS(libpool::job_error, future.get(), [](const libpool::job_error &error) {
        CHECK(error.type() == "std::out_of_range");
        CHECK(error.message().find("5") != std::string::npos);
        CHECK(error.what() == error.type() + ": " + error.message());
    });
    CHECK(!future.valid());
    auto number = [] { throw 42; };
    CHECK_THROWS(
        libpool::no_result, pool.submit(number).get(),
        [](const libpool::no_result &error) { CHECK(std::string("int") == error.what()); });
    auto long_text = []() -> int { throw std::runtime_error(std::string(1000000, 'x')); };
    CHECK_THROWS(
        libpool::job_error, pool.submit(long_text).get(),
        [](const libpool::job_error &error) { CHECK(error.message() == std::string(65536, 'x')); });
    CHECK(pool.submit(twice, 21).get() == 42);
}

TEST(a_job_that_throws_counts_as_failed)
{
    libpool::pool pool(1);
    pool.submit([] { throw std::runtime_error(""); }).wait();
    pool.submit([] {}).wait();
    CHECK(pool.stats().jobs_failed == 1);
    CHECK(pool.stats().jobs_done == 1);
}

TEST(a_crash_says_by_which_signal_and_costs_one_job)
{
    libpool::pool pool(2);
    auto others = pool.submit_many([](int i) { return i; }, std::array<int, 3>{1, 2, 3});
    CHECK_THROWS(libpool::worker_died, pool.submit([] { raise(SIGKILL); }).get(),
                 [](const libpool::worker_died &error) {
                     CHECK(error.signal() == SIGKILL);
                     CHECK(error.exit_status() == -1);
                 });
    CHECK_THROWS(libpool::worker_died, pool.submit([] { _exit(3); }).get(),
                 [](const libpool::worker_died &error) {
                     CHECK(error.signal() == 0);
                     CHECK(error.exit_status() == 3);
                 });
    for (int i = 0; i < 3; i++)
        CHECK(others[static_cast<std::size_t>(i)].get() == i + 1);
}

TEST(a_job_that_is_late_or_can_be_run_again)
{
    using namespace std::chrono_literals;
    libpool::pool pool(1);
    libpool::options options;
    options.timeout = 20ms;
    CHECK_THROWS(libpool::job_timeout, pool.submit_with(options, pause).get(), ANY);

    auto tries = pool.make_shared_array<int>(1);
    options = {};
    options.retries = 2;
    auto second_time_lucky = [ref = tries.ref()] {
        if (++ref.lookup()[0] < 3)
            raise(SIGKILL);
        return 42;
    };
    CHECK(pool.submit_with(options, second_time_lucky).get() == 42);
    CHECK(tries[0] == 3);
    options.timeout = -1ns;
    CHECK_THROWS(std::system_error, pool.submit_with(options, pause), HAS_CODE(invalid_argument));
}

TEST(a_job_submits_to_its_own_pool)
{
    struct fibonacci {
        long operator()(int n) const
        {
            if (n < 10)
                return n < 2 ? n : (*this)(n - 1) + (*this)(n - 2);
            auto other = libpool::current().submit(*this, n - 1);
            long rest = (*this)(n - 2);
            return other.get() + rest;
        }
    };
    libpool::pool pool(2);
    CHECK(pool.submit(fibonacci(), 18).get() == 2584);
    CHECK(!libpool::current());
}

TEST(an_exception_goes_through_nested_jobs)
{
    libpool::pool pool(1);
    auto inner = [] { throw std::invalid_argument("deep"); };
    auto outer = [inner] { libpool::current().submit(inner).get(); };
    CHECK_THROWS(libpool::job_error, pool.submit(outer).get(), [](const libpool::job_error &error) {
        CHECK(error.type() == "libpool::job_error");
        CHECK(error.message() == "std::invalid_argument: deep");
    });
}

TEST(posted_jobs_run)
{
    libpool::pool pool(2);
    auto flags = pool.make_shared_array<int>(100);
    for (std::size_t i = 0; i < flags.size(); i++)
        pool.post([ref = flags.ref(), i] { ref.lookup()[i] = 1; });
    pool.close();
    pool.join();
    int sum = 0;
    for (int flag : flags)
        sum += flag;
    CHECK(sum == 100);
}

TEST(many_are_submitted_at_once_in_order)
{
    libpool::pool pool(2);
    int base = 1000;
    std::vector<int> items(3000);
    for (std::size_t i = 0; i < items.size(); i++)
        items[i] = static_cast<int>(i);
    auto futures = pool.submit_many([base](int x) { return base + x; }, items);
    CHECK(futures.size() == items.size());
    bool right = true;
    for (std::size_t i = 0; i < items.size(); i++)
        right = right && futures[i].get() == base + items[i];
    CHECK(right);
    CHECK(pool.submit_many(twice, std::vector<int>()).empty());
}
