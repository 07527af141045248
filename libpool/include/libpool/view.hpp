/* Part of libpool.hpp: what may be done with a pool by those who do not own it. */
#ifndef LIBPOOL_VIEW_HPP
#define LIBPOOL_VIEW_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <libpool.h>
#include <libpool/errors.hpp>
#include <libpool/future.hpp>
#include <libpool/shared.hpp>
#include <libpool/travel.hpp>

namespace libpool
{

/* What may be asked for a job; what is not set is as the pool has it. */
struct options {
    /* How long it may run, not counting the time that it waits for a worker. */
    std::optional<std::chrono::nanoseconds> timeout;
    /* How often it is run again after its worker died under it, 0 to 255. */
    std::optional<int> retries;
};

/* A pool as those see it who submit to it and do not own it: copies name the same pool. What is
 * made by default, and current() outside of a job, is none: only `if (view)` may ask it. */
class pool_view
{
  public:
    pool_view() noexcept = default;

    explicit operator bool() const noexcept
    {
        return pool_ != nullptr;
    }
    /* For the calls of libpool.h. */
    ::pool *native_handle() const noexcept
    {
        return pool_.get();
    }

    /* Has a worker call function(arguments...), as std::async() has a thread. The function is a
     * lambda, another callable object, or a free function. Never blocks on the workers.
     * std::system_error as of pool_submit(): ESHUTDOWN, EOWNERDEAD, ENOMEM, E2BIG, EINVAL. */
    template <class F, class... A>
    future<detail::result_t<F, A...>> submit(F &&function, A &&...arguments) const
    {
        return submit_with({}, std::forward<F>(function), std::forward<A>(arguments)...);
    }
    template <class F, class... A>
    future<detail::result_t<F, A...>> submit_with(const options &options, F &&function,
                                                  A &&...arguments) const
    {
        static_assert(detail::may_travel<detail::result_t<F, A...>>());
        return future<detail::result_t<F, A...>>(
            start(options, std::forward<F>(function), std::forward<A>(arguments)...));
    }

    /* submit() without a future: nobody learns how it ended. */
    template <class F, class... A> void post(F &&function, A &&...arguments) const
    {
        submit(std::forward<F>(function), std::forward<A>(arguments)...);
    }

    /* Submits a job function(item) for each of `items`, a container or range, in order; returns a
     * vector of the futures. Quicker than as many calls of submit(): workers are woken once. Where
     * a submission fails, the jobs before it run, and their results are dropped. */
    template <class F, class Range> auto submit_many(F &&function, Range &&items) const
    {
        return submit_many_with({}, std::forward<F>(function), items);
    }
    template <class F, class Range>
    auto submit_many_with(const options &options, F &&function, Range &&items) const;

    /* Calls function(item) for each of `items`, a container or range, in parallel; returns a vector
     * of the results, in order, or nothing where the function returns nothing. Items travel in
     * chunks, each with a copy of the function. Where one throws, or a worker dies, what waits
     * is cancelled, and the error of the first in order is thrown once no job is left. */
    template <class F, class Range> auto map(F &&function, Range &&items) const
    {
        return map_with({}, std::forward<F>(function), items);
    }
    template <class F, class T> auto map(F &&function, const T *items, std::size_t count) const
    {
        return map_with({}, std::forward<F>(function), items, count);
    }
    /* A time limit is for each item; retries are for each chunk. */
    template <class F, class Range>
    auto map_with(const options &options, F &&function, Range &&items) const
    {
        auto count = static_cast<std::size_t>(std::distance(std::begin(items), std::end(items)));
        if constexpr (is_contiguous<Range>::value)
            return map_vector(options, std::forward<F>(function), std::data(items), count);
        else
            return map_vector(options, std::forward<F>(function), std::begin(items), count);
    }
    template <class F, class T>
    auto map_with(const options &options, F &&function, const T *items, std::size_t count) const
    {
        return map_vector(options, std::forward<F>(function), items, count);
    }
    /* The same with room for `count` results at `results`, which is void where map() throws. */
    template <class F, class T, class R>
    void map_into(F &&function, const T *items, std::size_t count, R *results) const
    {
        static_assert(std::is_same_v<R, detail::result_t<F, T>>,
                      "libpool: the results are of another type than what the function returns");
        for_chunks(
            {}, std::forward<F>(function), items, count,
            [&results, pool = native_handle()](const unsigned char *bytes, std::size_t number) {
                for (std::size_t i = 0; i < number; i++)
                    *results++ = std::move(detail::received<R>(pool, bytes).value());
            });
    }

    /* An array of `size` elements, value-initialised: zeros for numbers. Also in a job, which it
     * outlives. */
    template <class T> shared_array<T> make_shared_array(std::size_t size) const
    {
        shared_array<T> array = make_shared_array_for_overwrite<T>(size);
        for (T &element : array)
            ::new (static_cast<void *>(&element)) T();
        return array;
    }
    /* With whatever is in that memory. */
    template <class T> shared_array<T> make_shared_array_for_overwrite(std::size_t size) const
    {
        static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 256,
                      "libpool: elements of shared arrays must be trivially copyable");
        if (size > SIZE_MAX / sizeof(T))
            throw std::bad_array_new_length();
        auto block = std::make_shared<typename shared_array<T>::block>();
        void *memory;
        detail::check(
            pool_alloc(pool_.get(), size ? size * sizeof(T) : 1, &block->reference, &memory),
            "pool_alloc");
        block->pool = pool_;
        block->state = block->OWNED;
        return {std::move(block), static_cast<T *>(memory), size};
    }

    /* Cancels all jobs of this process that wait; returns how many. */
    std::int64_t cancel_waiting() const
    {
        std::int64_t count = pool_cancel_waiting(pool_.get());
        if (count < 0)
            detail::check(static_cast<int>(count), "pool_cancel_waiting");
        return count;
    }

    pool_stats stats() const
    {
        pool_stats stats;
        stats.size = sizeof stats;
        detail::check(pool_get_stats(pool_.get(), &stats), "pool_get_stats");
        return stats;
    }

  protected:
    explicit pool_view(std::shared_ptr<::pool> pool) noexcept : pool_(std::move(pool))
    {
    }

  private:
    friend pool_view current() noexcept;
    template <class T> friend class shared_ref;

    template <class Range, class = void> struct is_contiguous : std::false_type {};
    template <class Range>
    struct is_contiguous<Range, std::void_t<decltype(std::data(std::declval<Range &>()))>>
        : std::true_type {};

    pool_options to_native(const options &options) const
    {
        pool_options native;
        pool_options_init(pool_.get(), &native);
        if (options.timeout)
            native.timeout = detail::to_limit(*options.timeout);
        native.retries = options.retries.value_or(native.retries);
        return native;
    }

    /* A job with room for `size` bytes of argument, which `fill` writes. */
    template <class Fill>
    detail::ticket send(const options &options, pool_function function, std::size_t size,
                        const Fill &fill) const
    {
        pool_options native = to_native(options);
        pool_future job;
        void *memory;
        detail::check(pool_prepare_with(pool_.get(), &native, size, &job, &memory), "pool_submit");
        try {
            fill(static_cast<unsigned char *>(memory));
            detail::check(pool_commit(&job, function), "pool_submit");
        } catch (...) {
            pool_abandon(&job);
            throw;
        }
        return {pool_, job};
    }

    template <class F, class... A>
    detail::ticket start(const options &options, F &&function, A &&...arguments) const
    {
        static_assert((detail::may_travel<std::decay_t<F>>() && ... &&
                       detail::may_travel<std::decay_t<A>>()));
        constexpr std::size_t size =
            (detail::wire_size<std::decay_t<F>> + ... + detail::wire_size<std::decay_t<A>>);
        return send(options, detail::run<std::decay_t<F>, std::decay_t<A>...>, size,
                    [&](unsigned char *at) {
                        detail::encode<std::decay_t<F>>(pool_.get(), at, function);
                        (detail::encode<std::decay_t<A>>(pool_.get(), at, arguments), ...);
                    });
    }

    template <class F, class Iterator>
    auto map_vector(const options &options, F &&function, Iterator items, std::size_t count) const
    {
        using T = typename std::iterator_traits<Iterator>::value_type;
        using R = detail::result_t<std::decay_t<F> &, T>;
        if constexpr (std::is_void_v<R>) {
            for_chunks(options, std::forward<F>(function), items, count,
                       [](const unsigned char *, std::size_t) {});
        } else {
            std::vector<R> results;
            results.reserve(count);
            for_chunks(options, std::forward<F>(function), items, count,
                       [&](const unsigned char *bytes, std::size_t number) {
                           for (std::size_t i = 0; i < number; i++)
                               results.push_back(
                                   std::move(detail::received<R>(native_handle(), bytes).value()));
                       });
            return results;
        }
    }

    template <class F, class Iterator, class Store>
    void for_chunks(const options &options, F &&function, Iterator items, std::size_t count,
                    const Store &store) const;

    std::shared_ptr<::pool> pool_;
};

/* The pool that runs this job, none outside of a job: a job may submit to it, and wait. */
inline pool_view current() noexcept
{
    /* A worker has its pool to its end: there is nothing to count. */
    return pool_view(std::shared_ptr<::pool>(std::shared_ptr<void>(), pool_current()));
}

/* The number of this worker, 0 to workers-1, or -1 in a process that is none. */
inline int worker_index() noexcept
{
    return pool_worker_index();
}

template <class T> span<T> shared_ref<T>::lookup(const pool_view &pool) const
{
    void *memory = nullptr;
    std::size_t bytes = 0;
    int error = pool ? pool_lookup(pool.native_handle(), reference_, &memory, &bytes) : -EINVAL;
    detail::check(error ? error : bytes / sizeof(T) < size_ ? -EINVAL : 0, "pool_lookup");
    return {static_cast<T *>(memory), size_};
}

template <class T> span<T> shared_ref<T>::lookup() const
{
    return lookup(current());
}

template <class T> shared_array<T> shared_ref<T>::hold(const pool_view &pool) const
{
    span<T> elements = lookup(pool);
    auto block = std::make_shared<typename shared_array<T>::block>();
    detail::holds::instance().hold(pool.native_handle(), reference_);
    block->pool = pool.pool_;
    block->reference = reference_;
    block->state = block->HELD;
    return {std::move(block), elements.data(), size_};
}

template <class T> shared_array<T> shared_ref<T>::hold() const
{
    return hold(current());
}

template <class F, class Range>
auto pool_view::submit_many_with(const options &options, F &&function, Range &&items) const
{
    using D = std::decay_t<F>;
    using T = typename std::iterator_traits<decltype(std::begin(items))>::value_type;
    using R = detail::result_t<D, T>;
    static_assert(detail::may_travel<D>() && detail::may_travel<T>() && detail::may_travel<R>());
    const auto count = static_cast<std::size_t>(std::distance(std::begin(items), std::end(items)));
    constexpr std::size_t size = detail::wire_size<D> + detail::wire_size<T>;
    std::vector<unsigned char> arguments(count * size);
    unsigned char *at = arguments.data();
    for (auto &&item : items) {
        detail::encode<D>(pool_.get(), at, function);
        detail::encode<T>(pool_.get(), at, item);
    }

    std::vector<future<R>> futures;
    futures.reserve(count);
    std::vector<pool_future> jobs(count);
    const pool_options native = to_native(options);
    while (futures.size() < count) {
        const std::size_t begin = futures.size();
        const std::int64_t submitted =
            pool_submit_many(pool_.get(), &native, detail::run<D, T>, &arguments[begin * size],
                             size, count - begin, &jobs[begin]);
        if (submitted < 0)
            detail::check(static_cast<int>(submitted), "pool_submit_many");
        for (std::size_t i = begin; i < begin + static_cast<std::size_t>(submitted); i++)
            futures.push_back(future<R>(detail::ticket(pool_, jobs[i])));
    }
    return futures;
}

/* Calls store(bytes, number) with the results of each chunk, in order. */
template <class F, class Iterator, class Store>
void pool_view::for_chunks(const options &options, F &&function, Iterator items, std::size_t count,
                           const Store &store) const
{
    using T = typename std::iterator_traits<Iterator>::value_type;
    using D = std::decay_t<F>;
    using R = detail::result_t<D &, T>;
    static_assert(detail::may_travel<D>() && detail::may_travel<T>() && detail::may_travel<R>());
    constexpr std::size_t item = detail::wire_size<T>, result = detail::wire_size<R>;

    /* As pool_map(): about eight chunks for each worker, so that a slow one does not leave the
     * others without work; at most 1 MiB each; and not all of a long map at once. */
    const auto workers = static_cast<std::size_t>(stats().workers);
    const std::size_t largest = std::max<std::size_t>({item, result, 1});
    const std::size_t most = std::max<std::size_t>((std::size_t{1} << 20) / largest, 1);
    const std::size_t step = std::min(count / (workers * 8) + 1, most);
    struct chunk {
        detail::ticket ticket;
        std::size_t count;
    };
    std::deque<chunk> flying;
    std::exception_ptr failure;

    while (count > 0 || !flying.empty()) {
        if (count > 0 && flying.size() < workers * 16) {
            std::uint64_t number = std::min(step, count);
            auto fill = [&](unsigned char *at) {
                detail::encode<D>(pool_.get(), at, function);
                detail::encode(pool_.get(), at, number);
                for (std::uint64_t i = 0; i < number; i++, ++items)
                    detail::encode<T>(pool_.get(), at, *items);
            };
            try {
                std::size_t size =
                    detail::wire_size<D> + sizeof number + static_cast<std::size_t>(number) * item;
                flying.push_back({send(options, detail::run_chunk<D, T>, size, fill),
                                  static_cast<std::size_t>(number)});
                count -= static_cast<std::size_t>(number);
                continue;
            } catch (...) {
                count = 0;
                if (!failure)
                    failure = std::current_exception();
            }
        }
        if (flying.empty())
            break;
        chunk first = std::move(flying.front());
        flying.pop_front();
        try {
            first.ticket.wait(POOL_FOREVER);
            const unsigned char *bytes = first.ticket.result(first.count * result);
            if (!failure)
                store(bytes, first.count);
        } catch (...) {
            if (!failure)
                failure = std::current_exception();
            count = 0;
            for (chunk &other : flying)
                pool_future_cancel(&other.ticket.future());
        }
    }
    if (failure)
        std::rethrow_exception(failure);
}

} // namespace libpool

#endif
