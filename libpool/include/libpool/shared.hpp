/* Part of libpool.hpp: arrays in memory that all processes of a pool see. */
#ifndef LIBPOOL_SHARED_HPP
#define LIBPOOL_SHARED_HPP

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <utility>

#include <libpool.h>
#include <libpool/errors.hpp>

namespace libpool
{

namespace detail
{

/* To the library, holding a block twice is as holding it once: so we count. Its mutex is never
 * held by another thread where the pool forks, or a worker could not take it. */
class holds
{
  public:
    static holds &instance()
    {
        static holds *all = new holds; /* never destroyed: holders may be global variables */
        return *all;
    }
    void hold(::pool *pool, std::uint64_t reference)
    {
        std::lock_guard<std::mutex> lock(mutex_);
        std::size_t &count = counts_[{pool, reference}];
        int error = count ? 0 : pool_hold(pool, reference);
        if (error)
            counts_.erase({pool, reference});
        check(error, "pool_hold");
        count++;
    }
    void drop(::pool *pool, std::uint64_t reference) noexcept
    {
        std::lock_guard<std::mutex> lock(mutex_);
        auto found = counts_.find({pool, reference});
        if (--found->second == 0) {
            counts_.erase(found);
            pool_drop(pool, reference);
        }
    }

  private:
    holds()
    {
        auto lock = +[] { instance().mutex_.lock(); };
        auto unlock = +[] { instance().mutex_.unlock(); };
        check(-pthread_atfork(lock, unlock, unlock), "pthread_atfork");
    }
    std::mutex mutex_;
    std::map<std::pair<::pool *, std::uint64_t>, std::size_t> counts_;
};

} // namespace detail

/* Elements that lie one after the other, and belong to somebody else. */
template <class T> class span
{
  public:
    span(T *data, std::size_t size) noexcept : data_(data), size_(size)
    {
    }
    T *data() const noexcept
    {
        return data_;
    }
    std::size_t size() const noexcept
    {
        return size_;
    }
    T *begin() const noexcept
    {
        return data_;
    }
    T *end() const noexcept
    {
        return data_ + size_;
    }
    T &operator[](std::size_t i) const noexcept
    {
        return data_[i];
    }

  private:
    T *data_;
    std::size_t size_;
};

class pool_view;
template <class T> class shared_array;

/* Names a shared array in arguments, results and captured state. The array has to live until the
 * job has called lookup() or hold(), and, without hold(), until the job ends. */
template <class T> class shared_ref
{
  public:
    /* The elements, in this process. std::system_error, EINVAL: there is no such array any more, or
     * this is no job and `pool` was not given. */
    span<T> lookup() const;
    span<T> lookup(const pool_view &pool) const;
    /* The same, and they stay there as long as a copy of what is returned. */
    shared_array<T> hold() const;
    shared_array<T> hold(const pool_view &pool) const;

    std::size_t size() const noexcept
    {
        return size_;
    }

  private:
    friend class shared_array<T>;
    shared_ref(std::uint64_t reference, std::size_t size) noexcept
        : reference_(reference), size_(size)
    {
    }
    std::uint64_t reference_;
    std::size_t size_; /* elements */
};

/* An array that all processes of the pool see, at once and without copies: who writes and who reads
 * has to be settled by them. Copies of this object share the array, and so do other processes by
 * shared_ref::hold(). It is freed with the last that has it; what a worker has, also with the
 * worker. It keeps the pool's memory, though not its workers. */
template <class T> class shared_array : public span<T>
{
  public:
    /* To be given to jobs. */
    shared_ref<T> ref() const noexcept
    {
        return {block_->reference, this->size()};
    }

  private:
    friend class pool_view;
    friend class shared_ref<T>;
    struct block {
        std::shared_ptr<::pool> pool;
        std::uint64_t reference = 0;
        enum { NOTHING, OWNED, HELD } state = NOTHING;

        block() = default;
        block(const block &) = delete;
        block &operator=(const block &) = delete;
        ~block()
        {
            if (state == OWNED)
                pool_free(pool.get(), reference);
            else if (state == HELD)
                detail::holds::instance().drop(pool.get(), reference);
        }
    };
    shared_array(std::shared_ptr<const block> its_block, T *data, std::size_t size) noexcept
        : span<T>(data, size), block_(std::move(its_block))
    {
    }
    std::shared_ptr<const block> block_;
};

} // namespace libpool

#endif
