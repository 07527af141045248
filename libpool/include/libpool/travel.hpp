/* Part of libpool.hpp: how callables, arguments, results and exceptions travel, and the jobs
 * that run them in the workers. Not for programs. */
#ifndef LIBPOOL_TRAVEL_HPP
#define LIBPOOL_TRAVEL_HPP

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <cxxabi.h>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <libpool.h>
#include <libpool/errors.hpp>

namespace libpool
{

namespace detail
{

/* The status of a job that threw. None of the library's own. */
inline constexpr int threw = -EREMOTEIO;

template <class T>
inline constexpr bool is_function_pointer =
    std::is_pointer_v<T> && std::is_function_v<std::remove_pointer_t<T>>;

/* Values lie one after the other, wherever that is, and are copied out. A function travels as its
 * reference. */
template <class T>
inline constexpr std::size_t wire_size = is_function_pointer<T> ? sizeof(std::uint64_t) : sizeof(T);
template <> inline constexpr std::size_t wire_size<void> = 0;

/* What is trivially copyable but stands for memory of this process, and so is never meant. */
template <class T> inline constexpr bool is_reference = false;
template <class T> inline constexpr bool is_reference<std::reference_wrapper<T>> = true;
template <class C, class T> inline constexpr bool is_reference<std::basic_string_view<C, T>> = true;

template <class T> constexpr bool may_travel()
{
    static_assert(!is_reference<T>,
                  "libpool: a reference_wrapper or string_view names memory of this process, which "
                  "another one does not have. Send what it refers to, as a value");
    static_assert(
        !std::is_member_pointer_v<T>,
        "libpool: a pointer to a member can't be sent to another process. Call the member "
        "from a lambda");
    static_assert(std::is_void_v<T> || std::is_trivially_copyable_v<T>,
                  "libpool: callables with what they capture, arguments and results are sent to "
                  "another process as bytes, so they must be trivially copyable. std::string, "
                  "std::vector and the like are not: use arrays of fixed size, plain structs, or "
                  "libpool::shared_array");
    return true;
}

template <class T> void encode(::pool *pool, unsigned char *&at, const T &value)
{
    if constexpr (is_function_pointer<T>) {
        std::uint64_t reference;
        check(pool_refer(pool, reinterpret_cast<pool_any_function>(value), &reference),
              "pool_refer");
        std::memcpy(at, &reference, sizeof reference);
    } else {
        std::memcpy(at, std::addressof(value), sizeof(T));
    }
    at += wire_size<T>;
}

/* A value made of bytes, also of a type that can't be copied or made by default. */
template <class T> class received
{
  public:
    received(::pool *pool, const unsigned char *&at)
    {
        if constexpr (is_function_pointer<T>) {
            std::uint64_t reference;
            pool_any_function function;
            std::memcpy(&reference, at, sizeof reference);
            check(pool_resolve(pool, reference, &function), "pool_resolve");
            T found = reinterpret_cast<T>(function);
            std::memcpy(bytes_, &found, sizeof found);
        } else {
            std::memcpy(bytes_, at, sizeof(T));
        }
        at += wire_size<T>;
    }
    T &value() noexcept
    {
        return *std::launder(reinterpret_cast<T *>(bytes_));
    }

  private:
    alignas(T) unsigned char bytes_[sizeof(T)];
};

template <class F, class... A>
using result_t = std::decay_t<std::invoke_result_t<std::decay_t<F>, std::decay_t<A>...>>;

/* ---- In the worker ---- */

/* What a job that threw returns: this, then the two texts. */
struct thrown_header {
    std::uint32_t type_size, message_size;
};

inline int return_exception(::pool_job *job, const char *message) noexcept
{
    const std::type_info *type = abi::__cxa_current_exception_type();
    const char *mangled = type ? type->name() : "unknown";
    char *readable = abi::__cxa_demangle(mangled, nullptr, nullptr, nullptr);
    const char *name = readable ? readable : mangled;
    thrown_header header{static_cast<std::uint32_t>(strnlen(name, 1U << 12)),
                         static_cast<std::uint32_t>(strnlen(message, 1U << 16))};
    void *memory = pool_job_reserve(job, sizeof header + header.type_size + header.message_size);
    int status = memory ? threw : -errno;
    if (memory) {
        auto *at = static_cast<unsigned char *>(memory);
        std::memcpy(at, &header, sizeof header);
        std::memcpy(at + sizeof header, name, header.type_size);
        std::memcpy(at + sizeof header + header.type_size, message, header.message_size);
    }
    std::free(readable);
    return status;
}

/* C called us, and can't be unwound. */
template <class Body> int guarded(::pool_job *job, const Body &body) noexcept
{
    try {
        return body();
    } catch (const std::exception &exception) {
        return return_exception(job, exception.what());
    } catch (...) {
        return return_exception(job, "");
    }
}

/* The job of submit(). Argument: the callable, then its arguments. */
template <class F, class... A>
int run(::pool_job *job, const void *argument, std::size_t size) noexcept
{
    return guarded(job, [&] {
        if (size != (wire_size<F> + ... + wire_size<A>))
            return -EBADMSG;
        ::pool *pool = pool_current();
        auto *at = static_cast<const unsigned char *>(argument);
        /* In braces they are made from left to right. */
        std::tuple<received<F>, received<A>...> parts{received<F>(pool, at),
                                                      received<A>(pool, at)...};
        auto call = [](auto &function, auto &...arguments) -> decltype(auto) {
            return std::invoke(std::move(function.value()), std::move(arguments.value())...);
        };
        using R = result_t<F, A...>;
        if constexpr (std::is_void_v<R>) {
            std::apply(call, parts);
            return 0;
        } else {
            R result = std::apply(call, parts);
            auto *place = static_cast<unsigned char *>(pool_job_reserve(job, wire_size<R>));
            if (place == nullptr)
                return -errno;
            encode(pool, place, result);
            return 0;
        }
    });
}

/* A part of map(). Argument: the callable, the number of items, the items. */
template <class F, class T>
int run_chunk(::pool_job *job, const void *argument, std::size_t size) noexcept
{
    return guarded(job, [&] {
        constexpr std::size_t begin = wire_size<F> + wire_size<std::uint64_t>;
        if (size < begin)
            return -EBADMSG;
        ::pool *pool = pool_current();
        auto *at = static_cast<const unsigned char *>(argument);
        received<F> function(pool, at);
        std::uint64_t count = received<std::uint64_t>(pool, at).value();
        if (count != (size - begin) / wire_size<T>)
            return -EBADMSG;
        using R = result_t<F &, T>;
        unsigned char *place = nullptr;
        if constexpr (!std::is_void_v<R>) {
            place = static_cast<unsigned char *>(pool_job_reserve(job, count * wire_size<R>));
            if (place == nullptr)
                return -errno;
        }
        for (std::uint64_t i = 0; i < count; i++) {
            pool_job_part(job, static_cast<std::uint32_t>(i)); /* a time limit is for each item */
            received<T> item(pool, at);
            if constexpr (std::is_void_v<R>)
                std::invoke(function.value(), std::move(item.value()));
            else
                encode<R>(pool, place, std::invoke(function.value(), std::move(item.value())));
        }
        return 0;
    });
}

} // namespace detail

} // namespace libpool

#endif
