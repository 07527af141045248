/* Telling the program what happens in the pool. */
#include "log.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>

#define MESSAGE_MAX 256

void log_say(const struct pool *pool, enum pool_log_level level, const char *format, ...)
{
    char message[MESSAGE_MAX];
    va_list arguments;

    if (!pool->log)
        return;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    pool->log(pool->log_context, level, message);
}

/* Not strsignal(), which takes the lock of the translations. NULL: a rare one. */
static const char *signal_name(int number)
{
    switch (number) {
    case SIGABRT:
        return "SIGABRT";
    case SIGBUS:
        return "SIGBUS";
    case SIGFPE:
        return "SIGFPE";
    case SIGHUP:
        return "SIGHUP";
    case SIGILL:
        return "SIGILL";
    case SIGINT:
        return "SIGINT";
    case SIGKILL:
        return "SIGKILL";
    case SIGPIPE:
        return "SIGPIPE";
    case SIGSEGV:
        return "SIGSEGV";
    case SIGSYS:
        return "SIGSYS";
    case SIGTERM:
        return "SIGTERM";
    case SIGTRAP:
        return "SIGTRAP";
    case SIGXCPU:
        return "SIGXCPU";
    default:
        return NULL;
    }
}

const char *log_ending(int wait_status, char *text, size_t room)
{
    const char *name = WIFSIGNALED(wait_status) ? signal_name(WTERMSIG(wait_status)) : NULL;

    if (name)
        snprintf(text, room, "was ended by signal %d (%s)", WTERMSIG(wait_status), name);
    else if (WIFSIGNALED(wait_status))
        snprintf(text, room, "was ended by signal %d", WTERMSIG(wait_status));
    else
        snprintf(text, room, "ended with exit status %d", WEXITSTATUS(wait_status));
    return text;
}

int pool_set_log(struct pool *pool, pool_log_function log, void *context)
{
    if (!pool->attached || pool->forks != fork_count())
        return -EINVAL;
    pool->log = log;
    pool->log_context = context;
    return 0;
}
