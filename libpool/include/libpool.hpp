/* libpool for C++17: pools, futures and shared arrays that clean up after themselves, and lambdas
 * as jobs. A header over libpool.h; link with -lpool.
 *
 *     libpool::pool pool;                                   // a worker for each usable core
 *     double scale = 3;
 *     libpool::future<double> future = pool.submit([scale](double x) { return scale * x; }, 14.0);
 *     double answer = future.get();                         // 42
 *
 * A job runs in another process. What travels there and back, that is callables with all they
 * capture, arguments and results, travels as bytes, so it has to be trivially copyable, which the
 * compiler checks. A pointer or reference in it is an address, and names what the *worker* has
 * there: a copy, as of the creation of the pool, of what this process had. Functions are the
 * exception: a function passed by itself, and not captured, is found in every process.
 *
 * Conventions, for everything here:
 *   - An error of the library is thrown as std::system_error whose code() is the errno value that
 *     libpool.h names; what() names the call. A job that has no result throws one of the classes
 *     derived from no_result.
 *   - No destructor throws, and no exception leaves a job: it arrives as a job_error.
 *   - Pools may be used from any thread at the same time. An object of another class here may be
 *     used by one thread at a time.
 *   - In a process that inherited a pool through fork(), calls throw std::system_error with EXDEV,
 *     and destructors leave the owner's workers alone.
 */
#ifndef LIBPOOL_HPP
#define LIBPOOL_HPP

#if __cplusplus < 201703L
#error "libpool.hpp needs C++17"
#endif
#if !defined(__cpp_exceptions) || !defined(__cpp_rtti)
#error "libpool.hpp needs exceptions and run-time type information"
#endif

#include <libpool/errors.hpp>
#include <libpool/future.hpp>
#include <libpool/pool.hpp>
#include <libpool/shared.hpp>
#include <libpool/view.hpp>

#endif
