/* Part of libpool.hpp: what is thrown. */
#ifndef LIBPOOL_ERRORS_HPP
#define LIBPOOL_ERRORS_HPP

#include <cerrno>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <system_error>
#include <utility>

namespace libpool
{

namespace detail
{

inline int check(int result, const char *call)
{
    if (result < 0)
        throw std::system_error(-result, std::generic_category(), call);
    return result;
}

} // namespace detail

/* Why there is no result of a job. The base of the classes below. */
class no_result : public std::runtime_error
{
    using std::runtime_error::runtime_error;
};

/* The job threw an exception. It can't be thrown again as what it was; type and text are there. */
class job_error : public no_result
{
  public:
    job_error(std::string type, std::string message)
        : no_result(type + (message.empty() ? "" : ": ") + message),
          thrown_(std::make_shared<const thrown>(thrown{std::move(type), std::move(message)}))
    {
    }
    /* The name of the exception's type, as "std::out_of_range". */
    const std::string &type() const noexcept
    {
        return thrown_->type;
    }
    /* Its what(), cut to 64 KiB; empty if it has none. what() here is "type: message". */
    const std::string &message() const noexcept
    {
        return thrown_->message;
    }

  private:
    struct thrown {
        std::string type, message;
    };
    std::shared_ptr<const thrown> thrown_; /* copying an exception must not throw */
};

/* The worker died under the job: a crash, a kill from outside, an exit(). */
class worker_died : public no_result
{
  public:
    explicit worker_died(int wait_status)
        : no_result(describe(wait_status)), wait_status_(wait_status)
    {
    }
    /* The signal that killed it, 0 if none did. */
    int signal() const noexcept
    {
        return WIFSIGNALED(wait_status_) ? WTERMSIG(wait_status_) : 0;
    }
    /* What it gave to exit(), -1 if a signal killed it. */
    int exit_status() const noexcept
    {
        return WIFEXITED(wait_status_) ? WEXITSTATUS(wait_status_) : -1;
    }

  private:
    static std::string describe(int wait_status)
    {
        return WIFSIGNALED(wait_status)
                   ? "the worker was killed by signal " + std::to_string(WTERMSIG(wait_status))
                   : "the worker exited with status " + std::to_string(WEXITSTATUS(wait_status));
    }
    int wait_status_;
};

/* The job was cancelled or killed, by its future or with its pool. */
class job_cancelled : public no_result
{
    using no_result::no_result;
};

/* It ran longer than it was allowed to. */
class job_timeout : public no_result
{
    using no_result::no_result;
};

/* The pool broke: its supervisor died, or its workers could not be started. */
class job_lost : public no_result
{
    using no_result::no_result;
};

} // namespace libpool

#endif
