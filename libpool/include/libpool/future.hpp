/* Part of libpool.hpp: futures. */
#ifndef LIBPOOL_FUTURE_HPP
#define LIBPOOL_FUTURE_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <libpool.h>
#include <libpool/errors.hpp>
#include <libpool/travel.hpp>

namespace libpool
{

namespace detail
{

using nanoseconds = std::chrono::duration<long double, std::nano>;

inline std::int64_t to_timeout(nanoseconds time)
{
    if (!(time.count() > 0))
        return 0;
    return time.count() < 9.2e18L ? static_cast<std::int64_t>(time.count()) : POOL_FOREVER;
}

/* Of what may run: the library refuses what is not positive. */
inline std::int64_t to_limit(std::chrono::nanoseconds time)
{
    return time == std::chrono::nanoseconds::max() ? POOL_FOREVER
                                                   : static_cast<std::int64_t>(time.count());
}

/* Calls wait(time left), again after each signal handler. False after the time-out. */
template <class Wait> bool until(std::int64_t timeout, const char *call, const Wait &wait)
{
    const auto begin = std::chrono::steady_clock::now();
    std::int64_t left = timeout;
    int error;
    while ((error = wait(left)) == -EINTR)
        if (timeout != POOL_FOREVER)
            left = to_timeout(nanoseconds(timeout) - (std::chrono::steady_clock::now() - begin));
    return error != -ETIMEDOUT && check(error, call) >= 0;
}

/* A job of this process, released with it. Keeps the pool's memory: a future may outlive its pool.
 */
class ticket
{
  public:
    ticket() noexcept = default;
    ticket(std::shared_ptr<::pool> pool, const pool_future &future) noexcept
        : pool_(std::move(pool)), future_(future)
    {
    }
    ticket(ticket &&other) noexcept : pool_(std::move(other.pool_)), future_(other.future_)
    {
    }
    ticket &operator=(ticket &&other) noexcept
    {
        if (this != &other) {
            release();
            pool_ = std::move(other.pool_);
            future_ = other.future_;
        }
        return *this;
    }
    ~ticket()
    {
        release();
    }

    bool valid() const noexcept
    {
        return pool_ != nullptr;
    }
    const pool_future &future() const
    {
        if (!pool_)
            throw std::future_error(std::future_errc::no_state);
        return future_;
    }

    /* False after the time-out. */
    bool wait(std::int64_t timeout) const
    {
        const pool_future &job = future();
        return until(timeout, "pool_future_wait",
                     [&](std::int64_t left) { return pool_future_wait(&job, left); });
    }

    /* The bytes of the result of a job that has ended. They live as long as the ticket. */
    const unsigned char *result(std::size_t expected) const
    {
        const void *data = nullptr;
        std::size_t size = 0;
        int status = pool_future_result(&future(), &data, &size);
        auto *bytes = static_cast<const unsigned char *>(data);
        if (status == threw)
            throw_again(bytes, size);
        if (status < 0)
            throw_outcome(status);
        if (size != expected)
            check(-EBADMSG, "result of a job");
        return bytes;
    }

  private:
    void release() noexcept
    {
        if (pool_)
            pool_future_release(&future_);
        pool_.reset();
    }

    [[noreturn]] static void throw_again(const unsigned char *bytes, std::size_t size)
    {
        thrown_header header;
        if (size < sizeof header)
            check(-EBADMSG, "exception of a job");
        std::memcpy(&header, bytes, sizeof header);
        size -= sizeof header;
        if (header.type_size > size || header.message_size != size - header.type_size)
            check(-EBADMSG, "exception of a job");
        auto *text = reinterpret_cast<const char *>(bytes + sizeof header);
        throw job_error(std::string(text, header.type_size),
                        std::string(text + header.type_size, header.message_size));
    }

    [[noreturn]] void throw_outcome(int status) const
    {
        int detail = 0;
        switch (pool_future_outcome(&future_, &detail)) {
        case POOL_DIED:
            throw worker_died(detail);
        case POOL_CANCELLED:
            throw job_cancelled("the job was cancelled");
        case POOL_TIMEOUT:
            throw job_timeout("the job ran longer than it was allowed to");
        case POOL_LOST:
            throw job_lost("the pool broke before the job had a result");
        default:
            throw std::system_error(-status, std::generic_category(), "job");
        }
    }

    std::shared_ptr<::pool> pool_; /* none: no job */
    pool_future future_{};
};

} // namespace detail

/* The result of a job, as std::future has that of a task. Move-only. When it is destroyed, a job
 * that has not ended still runs, and its result is dropped. It may outlive its pool. Used without
 * a job, as a moved one is, everything but valid() throws std::future_error with no_state. */
template <class T> class future
{
  public:
    future() noexcept = default;

    /* Waits for the job's end, and gives up the job: valid() is false then. Throws as no_result and
     * its derivatives say; std::system_error if the result could not be sent, for want of memory.
     */
    T get()
    {
        ticket_.wait(POOL_FOREVER);
        detail::ticket ticket = std::move(ticket_);
        const unsigned char *bytes = ticket.result(detail::wire_size<T>);
        if constexpr (!std::is_void_v<T>)
            return std::move(detail::received<T>(ticket.future().pool, bytes).value());
    }

    bool valid() const noexcept
    {
        return ticket_.valid();
    }

    /* Until the job has ended, however it ended. Also in a job, for those that it submitted: the
     * worker runs others meanwhile. */
    void wait() const
    {
        ticket_.wait(POOL_FOREVER);
    }
    template <class Rep, class Period>
    std::future_status wait_for(const std::chrono::duration<Rep, Period> &time) const
    {
        return ticket_.wait(detail::to_timeout(time)) ? std::future_status::ready
                                                      : std::future_status::timeout;
    }
    template <class Clock, class Duration>
    std::future_status wait_until(const std::chrono::time_point<Clock, Duration> &time) const
    {
        /* Once more if that clock went slower than ours. */
        for (;;) {
            auto left = time - Clock::now();
            if (wait_for(left) == std::future_status::ready)
                return std::future_status::ready;
            if (left <= left.zero())
                return std::future_status::timeout;
        }
    }

    /* Cancels the job if it waits for a worker. False: it runs, or has ended. */
    bool cancel()
    {
        return changed(pool_future_cancel(&ticket_.future()), "pool_future_cancel");
    }
    /* Also if it runs: its worker is killed and replaced. wait() tells when that is done. False: it
     * has ended. Not in a job. */
    bool kill()
    {
        return changed(pool_future_kill(&ticket_.future()), "pool_future_kill");
    }

    /* For the calls of libpool.h, such as pool_future_notify(). It stays ours. */
    const pool_future &native_handle() const
    {
        return ticket_.future();
    }

  private:
    friend class pool_view;
    explicit future(detail::ticket &&ticket) noexcept : ticket_(std::move(ticket))
    {
    }
    static bool changed(int error, const char *call)
    {
        return error != -EBUSY && detail::check(error, call) == 0;
    }

    detail::ticket ticket_;
};

namespace detail
{

/* Those without a job as the library passes them over. */
template <class Range> std::vector<pool_future> natives(const Range &futures)
{
    std::vector<pool_future> jobs;
    for (const auto &future : futures)
        jobs.push_back(future.valid() ? future.native_handle() : pool_future{});
    return jobs;
}

} // namespace detail

/* Until all of `futures`, a container or range of them, have ended. Here and below, those that are
 * not valid() are passed over; also in a job. */
template <class Range> void wait_all(const Range &futures)
{
    wait_all_for(futures, std::chrono::nanoseconds::max());
}
/* False after the time-out. */
template <class Range, class Rep, class Period>
bool wait_all_for(const Range &futures, const std::chrono::duration<Rep, Period> &time)
{
    const std::vector<pool_future> jobs = detail::natives(futures);
    return detail::until(detail::to_timeout(time), "pool_wait_all", [&](std::int64_t left) {
        return pool_wait_all(jobs.data(), jobs.size(), left);
    });
}

/* Until one of them has ended: its index. To go on with the others, get() it, or move it away.
 * std::system_error, EINVAL: none is valid(), or they are of different pools. */
template <class Range> std::size_t wait_any(const Range &futures)
{
    return *wait_any_for(futures, std::chrono::nanoseconds::max());
}
/* Nothing after the time-out. */
template <class Range, class Rep, class Period>
std::optional<std::size_t> wait_any_for(const Range &futures,
                                        const std::chrono::duration<Rep, Period> &time)
{
    const std::vector<pool_future> jobs = detail::natives(futures);
    std::size_t index = 0;
    bool ended = detail::until(detail::to_timeout(time), "pool_wait_any", [&](std::int64_t left) {
        const std::int64_t found = pool_wait_any(jobs.data(), jobs.size(), left);
        index = found < 0 ? 0 : static_cast<std::size_t>(found);
        return found < 0 ? static_cast<int>(found) : 0;
    });
    return ended ? std::optional<std::size_t>(index) : std::nullopt;
}

} // namespace libpool

#endif
