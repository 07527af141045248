// Integrals with the C++ wrapper: lambdas with state as jobs, a map, a shared array, exceptions,
// and a crash that costs one job.
//
//     integrate [WORKERS]
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <vector>

#include <libpool.hpp>

// Simpson's rule, for any function of a real number.
template <class Function> double integrate(Function function, double begin, double end, int steps)
{
    double width = (end - begin) / steps, sum = function(begin) + function(end);
    for (int i = 1; i < steps; i++)
        sum += function(begin + i * width) * (i % 2 ? 4 : 2);
    return sum * width / 3;
}

struct interval {
    double begin, end;
};

static double seconds_of(std::chrono::steady_clock::time_point begin)
{
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The same pieces, one after the other and by the pool.
static void compare(const libpool::pool &pool)
{
    std::vector<interval> pieces;
    for (int i = 0; i < 200; i++)
        pieces.push_back({i / 20.0, (i + 1) / 20.0});

    double damping = 0.1; // captured, and so sent with each job
    auto integral = [damping](interval piece) {
        auto wave = [damping](double x) { return std::exp(-damping * x) * std::sin(x * x); };
        return integrate(wave, piece.begin, piece.end, 50000);
    };

    auto begin = std::chrono::steady_clock::now();
    double serially = 0, in_pool = 0;
    for (interval each : pieces)
        serially += integral(each);
    double serial = seconds_of(begin);

    begin = std::chrono::steady_clock::now();
    for (double part : pool.map(integral, pieces))
        in_pool += part;
    double parallel = seconds_of(begin);
    std::printf("the integral is %.9f, serially %.9f\n", in_pool, serially);
    std::printf("serially %.3f s, with %d workers %.3f s: %.2f times as fast\n", serial,
                pool.stats().workers, parallel, serial / parallel);
    if (in_pool != serially)
        throw std::logic_error("the pool calculates something else");
}

// Jobs write into memory that this process sees as well; a reference to it is all that is sent.
static void fill_table(const libpool::pool &pool)
{
    auto table = pool.make_shared_array<double>(1000);
    std::vector<libpool::future<void>> futures;
    for (std::size_t begin = 0; begin < table.size(); begin += 250)
        futures.push_back(pool.submit([table = table.ref(), begin] {
            auto elements = table.lookup();
            for (std::size_t i = begin; i < begin + 250; i++)
                elements[i] = std::sqrt(static_cast<double>(i));
        }));
    for (auto &future : futures)
        future.get(); // throws what went wrong, if something did
    std::printf("the square root of 961 is %g\n", table[961]);
}

static void go_wrong(const libpool::pool &pool)
{
    auto root = [](double x) {
        if (x < 0)
            throw std::domain_error("no root of a negative number");
        return std::sqrt(x);
    };
    try {
        pool.submit(root, -1.0).get();
    } catch (const libpool::job_error &error) {
        std::printf("a job threw %s: %s\n", error.type().c_str(), error.message().c_str());
    }

    auto crash = pool.submit([] { std::raise(SIGKILL); });
    auto other = pool.submit(root, 1764.0);
    try {
        crash.get();
    } catch (const libpool::worker_died &death) {
        std::printf("a worker died by signal %d; the other job's result is %g\n", death.signal(),
                    other.get());
    }
}

int main(int argc, char **argv)
{
    try {
        libpool::pool pool(argc > 1 ? std::atoi(argv[1]) : pool_cpu_count());
        compare(pool);
        fill_table(pool);
        go_wrong(pool);
    } catch (const std::exception &exception) {
        std::fprintf(stderr, "integrate: %s\n", exception.what());
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
