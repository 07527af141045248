/* Pools, their options, and shared arrays. */
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <sched.h>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <libpool.hpp>

#include "check.hpp"

using namespace std::chrono_literals;

static_assert(std::is_nothrow_destructible_v<libpool::pool>);
static_assert(std::is_nothrow_move_constructible_v<libpool::pool>);
static_assert(!std::is_copy_constructible_v<libpool::pool>);
static_assert(std::is_nothrow_destructible_v<libpool::shared_array<int>>);
static_assert(std::is_trivially_copyable_v<libpool::shared_ref<int>>);

TEST(bad_options_are_errors)
{
    CHECK_THROWS(std::system_error, libpool::pool(0), HAS_CODE(invalid_argument));
    libpool::config config;
    config.shared_limit = 1;
    CHECK_THROWS(std::system_error, libpool::pool{config}, HAS_CODE(invalid_argument));
    config = {};
    config.timeout = -1s;
    CHECK_THROWS(std::system_error, libpool::pool{config}, HAS_CODE(invalid_argument));
}

TEST(a_pool_has_the_options_that_it_was_given)
{
    libpool::config config;
    config.workers = 3;
    config.timeout = 20ms;
    config.shared_limit = 64 << 20;
    config.name = "wrapped";
    config.queue_limit = 1000;
    libpool::pool pool(config);
    CHECK(pool.stats().workers == 3);
    CHECK(pool.stats().shared_limit == 64 << 20);
    CHECK_THROWS(libpool::job_timeout, pool.submit(pause).get(), ANY);
    auto has_name = [] {
        char comm[32] = {};
        int file = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
        bool right =
            read(file, comm, sizeof comm - 1) > 0 && std::strncmp(comm, "wrapped-", 8) == 0;
        close(file);
        return right;
    };
    CHECK(pool.submit(has_name).get());
    libpool::pool by_default;
    CHECK(by_default.stats().workers == pool_cpu_count());
}

TEST(a_full_queue_and_a_closed_pool_refuse)
{
    libpool::config config;
    config.workers = 1;
    config.queue_limit = 2;
    libpool::pool pool(config);
    auto refused = [&] {
        for (int i = 0; i < 10; i++)
            pool.post(pause);
    };
    CHECK_THROWS(std::system_error, refused(), HAS_CODE(resource_unavailable_try_again));
    pool.close();
    CHECK_THROWS(std::system_error, pool.submit(pause),
                 [](const std::system_error &error) { CHECK(error.code().value() == ESHUTDOWN); });
    CHECK(!pool.join_for(1ms));
}

TEST(jobs_that_were_collected_or_refused_leave_no_memory)
{
    libpool::config config;
    config.workers = 1;
    config.queue_limit = 100;
    libpool::pool pool(config);
    auto submit_some = [&pool] {
        for (int i = 0; i < 5000; i++)
            pool.submit([] { return 1; }).get();
    };
    auto refuse_some = [&pool] {
        int refused = 0;
        while (refused < 5000) {
            try {
                pool.post(pause);
            } catch (const std::system_error &) {
                refused++;
            }
        }
    };
    submit_some();
    auto before = pool.stats().memory;
    submit_some();
    CHECK(pool.stats().memory == before);
    refuse_some();
    before = pool.stats().memory;
    refuse_some();
    CHECK(pool.stats().memory == before);
}

TEST(workers_run_on_the_cpus_that_were_asked_for)
{
    cpu_set_t usable;
    sched_getaffinity(0, sizeof usable, &usable);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &usable))
        cpu++;
    libpool::config config;
    config.workers = 2;
    config.cpus = {cpu};
    libpool::pool pool(config);
    CHECK(pool.submit(sched_getcpu).get() == cpu);
}

TEST(hooks_run_in_the_workers)
{
    static int prepared = -1;
    libpool::config config;
    config.workers = 1;
    std::string text = "captured, and not trivially copyable";
    config.start = [text](int worker) { prepared = worker + static_cast<int>(text.size()); };
    int ends[2];
    CHECK(pipe(ends) == 0);
    config.stop = [ends] { (void)!write(ends[1], "x", 1); };
    {
        libpool::pool pool(config);
        CHECK(pool.submit([] { return prepared; }).get() == static_cast<int>(text.size()));
        pool.close();
        pool.join();
    }
    close(ends[1]);
    char byte = 0;
    CHECK(read(ends[0], &byte, 1) == 1 && byte == 'x');
    close(ends[0]);
    CHECK(prepared == -1);
}

TEST(workers_that_can_not_start_break_the_pool)
{
    libpool::config config;
    config.workers = 1;
    config.start = [](int) { throw std::runtime_error("no"); };
    libpool::pool pool(config);
    CHECK_THROWS(libpool::job_lost, pool.submit(pause).get(), ANY);
}

TEST(the_log_is_told_of_a_death)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    libpool::config config;
    config.workers = 1;
    config.log = [ends](pool_log_level level, const char *message) {
        if (level == POOL_LOG_WARNING)
            (void)!write(ends[1], message, std::strlen(message));
    };
    {
        libpool::pool pool(config);
        CHECK_THROWS(libpool::worker_died, pool.submit([] { raise(SIGKILL); }).get(), ANY);
    }
    close(ends[1]);
    char text[500] = {};
    CHECK(read(ends[0], text, sizeof text - 1) > 0);
    CHECK(std::strstr(text, "signal") != nullptr);
    close(ends[0]);
}

TEST(pools_move)
{
    libpool::pool first(1);
    auto future = first.submit([] { return 42; });
    libpool::pool second = std::move(first);
    CHECK(!first);
    CHECK(future.get() == 42);
    second = libpool::pool(2);
    CHECK(second.stats().workers == 2);
    libpool::pool_view view = second;
    CHECK(view.submit([] { return 42; }).get() == 42);
    second = std::move(first);
    CHECK(!second);
    CHECK_THROWS(std::system_error, view.submit(pause), ANY);
}

TEST(a_pool_ends_when_an_exception_passes)
{
    try {
        libpool::pool pool(1);
        auto future = pool.submit(pause);
        throw std::runtime_error("on the way out");
    } catch (const std::runtime_error &) {
    }
}

TEST(an_inherited_pool_is_inert)
{
    auto pool = std::make_unique<libpool::pool>(1);
    auto future = pool->submit([] { return 42; });
    pid_t child = fork();
    if (child == 0) {
        bool refused = false;
        try {
            pool->submit(pause);
        } catch (const std::system_error &error) {
            refused = error.code().value() == EXDEV;
        }
        future = {};
        pool.reset();
        _exit(refused ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(status == 0);
    CHECK(future.get() == 42);
    CHECK(pool->submit([] { return 43; }).get() == 43);
}

TEST(all_processes_see_a_shared_array_at_once)
{
    libpool::pool pool(2);
    auto array = pool.make_shared_array<double>(100000);
    CHECK(array[0] == 0 && array[99999] == 0);
    auto fill = [ref = array.ref()](std::size_t begin, std::size_t end) {
        auto elements = ref.lookup();
        for (std::size_t i = begin; i < end; i++)
            elements[i] = static_cast<double>(i);
        return elements.size();
    };
    auto first = pool.submit(fill, 0, 50000), second = pool.submit(fill, 50000, 100000);
    CHECK(first.get() == 100000 && second.get() == 100000);
    double sum = 0;
    for (double element : array)
        sum += element;
    CHECK(sum == 4999950000.0);
    CHECK(array.ref().lookup(pool).data() == array.data());
    CHECK_THROWS(std::system_error, array.ref().lookup(), HAS_CODE(invalid_argument));
}

TEST(a_shared_array_is_freed_with_its_last_copy)
{
    libpool::pool pool(1);
    auto array = pool.make_shared_array<char>(1000);
    auto ref = array.ref();
    {
        auto copy = array;
        array = pool.make_shared_array<char>(2000);
        CHECK(ref.lookup(pool).size() == 1000);
        CHECK(pool.submit([ref] { return ref.lookup().size(); }).get() == 1000);
    }
    CHECK_THROWS(std::system_error, ref.lookup(pool), HAS_CODE(invalid_argument));
    CHECK_THROWS(
        libpool::job_error, pool.submit([ref] { ref.lookup(); }).get(),
        [](const libpool::job_error &error) { CHECK(error.type() == "std::system_error"); });
}

TEST(a_worker_that_holds_an_array_keeps_it)
{
    static std::unique_ptr<libpool::shared_array<int>> kept, twice;
    libpool::pool pool(1);
    auto array = pool.make_shared_array<int>(1000);
    array[7] = 42;
    auto keep = [ref = array.ref()] {
        kept = std::make_unique<libpool::shared_array<int>>(ref.hold());
        twice = std::make_unique<libpool::shared_array<int>>(ref.hold());
    };
    pool.submit(keep).get();
    auto ref = array.ref();
    array = pool.make_shared_array<int>(1); /* the owner lets go */
    CHECK_THROWS(std::system_error, ref.lookup(pool), HAS_CODE(invalid_argument));
    CHECK(pool.submit([] { return (*kept)[7]; }).get() == 42);
    pool.submit([] { kept.reset(); }).get(); /* one of two */
    CHECK(pool.submit([ref] { return ref.lookup()[7]; }).get() == 42);
    pool.submit([] { twice.reset(); }).get();
    CHECK_THROWS(libpool::job_error, pool.submit([ref] { ref.lookup(); }).get(), ANY);
}

TEST(an_array_made_in_a_job_is_the_hosts_to_hold)
{
    static std::unique_ptr<libpool::shared_array<int>> made;
    libpool::pool pool(1);
    auto ref = pool.submit([] {
                       made = std::make_unique<libpool::shared_array<int>>(
                           libpool::current().make_shared_array<int>(100));
                       (*made)[50] = 42;
                       return made->ref();
                   })
                   .get();
    auto held = ref.hold(pool);
    pool.submit([] { made.reset(); }).get();
    CHECK(held[50] == 42);
    auto other = ref.hold(pool);
    CHECK(other.data() == held.data());
}

TEST(threads_use_one_pool_and_hold_one_array)
{
    libpool::pool pool(2);
    auto array = pool.make_shared_array<int>(1000);
    array[999] = 7;
    const libpool::shared_ref<int> ref = array.ref();
    std::atomic<int> right = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 200; i++) {
                auto held = ref.hold(pool);
                auto future = pool.submit([ref](int x) { return x + ref.lookup()[999]; }, t * i);
                right += future.get() == t * i + 7 && held[999] == 7;
            }
        });
    for (std::thread &thread : threads)
        thread.join();
    CHECK(right == 800);
    array = pool.make_shared_array<int>(1);
    CHECK_THROWS(std::system_error, ref.lookup(pool), HAS_CODE(invalid_argument));
}
