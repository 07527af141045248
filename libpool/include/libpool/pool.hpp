/* Part of libpool.hpp: pools. */
#ifndef LIBPOOL_POOL_HPP
#define LIBPOOL_POOL_HPP

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <libpool.h>
#include <libpool/errors.hpp>
#include <libpool/future.hpp>
#include <libpool/view.hpp>

namespace libpool
{

/* As struct pool_config of libpool.h, which says more of each. */
struct config {
    int workers = pool_cpu_count();
    std::uint64_t shared_limit = 0; /* bytes; 0: the memory of this machine or container */
    std::chrono::nanoseconds timeout = std::chrono::nanoseconds::max(); /* of each job; no limit */
    int retries = 0;                                                    /* of each job */
    std::uint64_t memory_limit = 0; /* bytes, for each worker; 0: no limit */
    std::uint64_t worker_jobs = 0;  /* a worker is replaced after so many; 0: never */
    std::string name;               /* what ps and top show; empty: libpool */
    std::uint64_t queue_limit = 0;  /* submissions throw EAGAIN when so many wait; 0: no limit */
    std::vector<int> cpus;          /* worker i runs on CPU cpus[i % cpus.size()]; empty: any */
    /* Called in each new worker before its first job, with the number of the worker, and where it
     * ends in an orderly way. What they capture need not be trivially copyable: workers are copies
     * of this process. Where start() throws, the worker ends, and another one tries. */
    std::function<void(int worker)> start;
    std::function<void()> stop;
    /* Is told what happens, in the process that pool_log_function of libpool.h says; it must not
     * throw. */
    std::function<void(pool_log_level level, const char *message)> log;
};

/* A pool and its workers. Move-only; one that was moved may only be destroyed or assigned to. The
 * destructor terminates the pool, as terminate() does: to have all jobs run to their end, wait for
 * their futures, or call close() and join(). */
class pool : public pool_view
{
  public:
    /* A worker for each usable core. std::system_error, here and below, as of pool_create(). */
    pool() : pool(config())
    {
    }
    explicit pool(int workers) : pool(with_workers(workers))
    {
    }
    explicit pool(config config)
        : pool_view(create(std::make_unique<const libpool::config>(std::move(config))))
    {
    }
    /* With all that the C interface knows. */
    explicit pool(const pool_config &config) : pool_view(create(config))
    {
    }
    pool(pool &&) noexcept = default;
    pool &operator=(pool &&other) noexcept
    {
        if (this != &other) {
            end();
            pool_view::operator=(std::move(other));
        }
        return *this;
    }
    pool(const pool &) = delete;
    pool &operator=(const pool &) = delete;
    ~pool()
    {
        end();
    }

    /* No more submissions: they throw ESHUTDOWN. What was submitted runs. */
    void close()
    {
        detail::check(pool_close(native_handle()), "pool_close");
    }
    /* After close(): waits until every job has ended and all processes are gone. EBUSY: not closed.
     */
    void join()
    {
        join_until_ended(POOL_FOREVER);
    }
    /* False after the time-out. */
    template <class Rep, class Period> bool join_for(const std::chrono::duration<Rep, Period> &time)
    {
        return join_until_ended(detail::to_timeout(time));
    }
    /* Ends the pool now: waiting jobs are cancelled, running ones killed. Results that are there
     * can still be read. */
    void terminate()
    {
        detail::check(pool_terminate(native_handle()), "pool_terminate");
    }

  private:
    static config with_workers(int workers)
    {
        config config;
        config.workers = workers;
        return config;
    }
    static pool_config to_native(const config &config, pool_host &host)
    {
        pool_config native;
        pool_config_init(&native);
        native.workers = config.workers;
        native.shared_limit = config.shared_limit;
        native.timeout = detail::to_limit(config.timeout);
        native.retries = config.retries;
        native.memory_limit = config.memory_limit;
        native.worker_jobs = config.worker_jobs;
        native.name = config.name.empty() ? nullptr : config.name.c_str();
        native.queue_limit = config.queue_limit;
        native.cpus = config.cpus.data();
        native.cpu_count = static_cast<int>(config.cpus.size());
        native.host = config.start || config.stop ? &host : nullptr;
        host.size = sizeof host;
        host.context = native.log_context = const_cast<libpool::config *>(&config);
        if (config.start)
            host.start = [](void *context, ::pool *, unsigned worker) noexcept {
                try {
                    static_cast<const libpool::config *>(context)->start(static_cast<int>(worker));
                    return 0;
                } catch (...) {
                    return -1;
                }
            };
        if (config.stop)
            host.stop = [](void *context) noexcept {
                static_cast<const libpool::config *>(context)->stop();
            };
        if (config.log)
            native.log = [](void *context, pool_log_level level, const char *message) noexcept {
                static_cast<const libpool::config *>(context)->log(level, message);
            };
        return native;
    }
    static std::shared_ptr<::pool> create(const pool_config &config)
    {
        ::pool *made;
        detail::check(pool_create(&made, &config), "pool_create");
        return {made, pool_destroy};
    }
    /* The functions in the configuration are called as long as there is the pool. */
    static std::shared_ptr<::pool> create(std::unique_ptr<const config> config)
    {
        pool_host host{};
        const pool_config native = to_native(*config, host);
        ::pool *made;
        detail::check(pool_create(&made, &native), "pool_create");
        return {made, [kept = std::shared_ptr<const libpool::config>(std::move(config))](
                          ::pool *pool) { pool_destroy(pool); }};
    }
    bool join_until_ended(std::int64_t timeout)
    {
        return detail::until(timeout, "pool_join", [this](std::int64_t left) {
            return pool_join(native_handle(), left);
        });
    }
    /* The memory goes with the last future, view or shared array. In a process that inherited the
     * pool this does nothing. */
    void end() noexcept
    {
        if (native_handle() != nullptr)
            pool_terminate(native_handle());
    }
};

} // namespace libpool

#endif
