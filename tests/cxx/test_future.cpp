/* Futures, and waiting for several. */
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>
#include <type_traits>
#include <unistd.h>

#include <libpool.hpp>

#include "check.hpp"

using namespace std::chrono_literals;

static_assert(std::is_nothrow_move_constructible_v<libpool::future<int>>);
static_assert(std::is_nothrow_move_assignable_v<libpool::future<int>>);
static_assert(!std::is_copy_constructible_v<libpool::future<int>>);
static_assert(std::is_nothrow_destructible_v<libpool::future<int>>);
static_assert(std::is_nothrow_copy_constructible_v<libpool::job_error>);

/* A job that ends when its gate is opened, and says when it has come there. */
struct gate {
    explicit gate(const libpool::pool &pool) : words(pool.make_shared_array<std::atomic<int>>(2))
    {
    }
    auto job() const
    {
        return [ref = words.ref()] {
            auto at_gate = ref.lookup();
            at_gate[0] = 1;
            while (at_gate[1] == 0)
                std::this_thread::sleep_for(100us);
            return 42;
        };
    }
    void await() const
    {
        while (words[0] == 0)
            std::this_thread::sleep_for(100us);
    }
    void open() const
    {
        words[1] = 1;
    }
    libpool::shared_array<std::atomic<int>> words;
};

TEST(get_gives_the_job_up)
{
    libpool::pool pool(1);
    libpool::future<int> none;
    CHECK(!none.valid());
    CHECK_THROWS(std::future_error, none.get(), ANY);
    CHECK_THROWS(std::future_error, none.wait(), ANY);
    CHECK_THROWS(std::future_error, none.cancel(), ANY);
    auto future = pool.submit([] { return 42; });
    CHECK(future.valid());
    auto moved = std::move(future);
    CHECK(!future.valid());
    CHECK(moved.get() == 42);
    CHECK(!moved.valid());
    CHECK_THROWS(std::future_error, moved.get(), ANY);
}

TEST(waiting_ends_in_time)
{
    libpool::pool pool(1);
    gate gate(pool);
    auto future = pool.submit(gate.job());
    gate.await();
    CHECK(future.wait_for(1ms) == std::future_status::timeout);
    CHECK(future.wait_for(0s) == std::future_status::timeout);
    CHECK(future.wait_for(-1s) == std::future_status::timeout);
    CHECK(future.wait_until(std::chrono::steady_clock::now() + 1ms) == std::future_status::timeout);
    CHECK(future.wait_until(std::chrono::system_clock::now() + 1ms) == std::future_status::timeout);
    CHECK(future.wait_until(std::chrono::system_clock::time_point()) ==
          std::future_status::timeout);
    gate.open();
    CHECK(future.wait_for(std::chrono::hours::max()) == std::future_status::ready);
    CHECK(future.wait_for(1.5s) == std::future_status::ready);
    CHECK(future.wait_until(std::chrono::system_clock::now()) == std::future_status::ready);
    CHECK(future.get() == 42);
}

TEST(a_signal_handler_does_not_end_a_wait)
{
    struct sigaction action{};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    libpool::pool pool(1);
    gate gate(pool);
    auto future = pool.submit(gate.job());
    gate.await();
    /* As long as the wait goes on: it ends all the same. */
    std::atomic<bool> done = false;
    std::thread disturber([&done, thread = pthread_self()] {
        while (!done) {
            std::this_thread::sleep_for(1ms);
            pthread_kill(thread, SIGUSR1);
        }
    });
    auto begin = std::chrono::steady_clock::now();
    CHECK(future.wait_for(50ms) == std::future_status::timeout);
    CHECK(std::chrono::steady_clock::now() - begin >= 50ms);
    done = true;
    disturber.join();
    gate.open();
    CHECK(future.get() == 42);
}

TEST(what_waits_is_cancelled_and_what_runs_is_killed)
{
    libpool::pool pool(1);
    gate gate(pool);
    auto running = pool.submit(gate.job());
    gate.await();
    auto waiting = pool.submit([] { return 1; });
    CHECK(waiting.cancel());
    CHECK(!waiting.cancel());
    CHECK_THROWS(libpool::job_cancelled, waiting.get(), ANY);
    CHECK(!running.cancel());
    CHECK(running.kill());
    CHECK_THROWS(libpool::job_cancelled, running.get(), ANY);
    CHECK(pool.submit([] { return 42; }).get() == 42);
    auto ended = pool.submit([] {});
    ended.wait();
    CHECK(!ended.kill());
    CHECK(!ended.cancel());
    ended.get();
}

TEST(all_that_waits_is_cancelled)
{
    libpool::pool pool(1);
    gate gate(pool);
    auto running = pool.submit(gate.job());
    gate.await();
    auto waiting = pool.submit_many([](int i) { return i; }, std::array<int, 5>{});
    CHECK(pool.cancel_waiting() == 5);
    for (auto &future : waiting)
        CHECK_THROWS(libpool::job_cancelled, future.get(), ANY);
    gate.open();
    CHECK(running.get() == 42);
}

TEST(a_dropped_future_does_not_end_its_job)
{
    libpool::pool pool(1);
    gate gate(pool);
    {
        auto future = pool.submit(gate.job());
        gate.await();
    }
    gate.open();
    pool.close();
    pool.join();
    CHECK(pool.stats().jobs_done == 1);
}

TEST(a_future_may_outlive_its_pool)
{
    libpool::future<int> ended, waiting;
    libpool::shared_array<int> array = [&] {
        libpool::pool pool(1);
        ended = pool.submit([] { return 42; });
        ended.wait();
        waiting = pool.submit([] {
            pause();
            return 0;
        });
        return pool.make_shared_array<int>(10);
    }();
    CHECK(ended.get() == 42);
    CHECK_THROWS(libpool::job_cancelled, waiting.get(), ANY);
    array[9] = 1;
    CHECK(array[0] == 0);
}

TEST(one_of_several_is_awaited)
{
    libpool::pool pool(2);
    gate gate(pool);
    std::vector<libpool::future<int>> futures;
    futures.push_back(pool.submit(gate.job()));
    CHECK(!libpool::wait_any_for(futures, 1ms));
    futures.push_back(pool.submit([] { return 7; }));
    CHECK(libpool::wait_any(futures) == 1);
    CHECK(futures[1].get() == 7);
    CHECK(!libpool::wait_all_for(futures, 1ms));
    gate.open();
    CHECK(libpool::wait_any(futures) == 0);
    libpool::wait_all(futures);
    CHECK(libpool::wait_all_for(futures, 0s));
    CHECK(futures[0].get() == 42);
    CHECK_THROWS(std::system_error, libpool::wait_any(futures), HAS_CODE(invalid_argument));
}

TEST(a_job_that_is_lost_says_so)
{
    libpool::pool pool(1);
    auto future = pool.submit(pause);
    kill(pool.stats().supervisor, SIGKILL);
    CHECK_THROWS(libpool::job_lost, future.get(), ANY);
    CHECK_THROWS(std::system_error, pool.submit(pause),
                 [](const std::system_error &error) { CHECK(error.code().value() == EOWNERDEAD); });
}
