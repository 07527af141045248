/* Crash points before the system calls that others notice, and rings that are small at first, so
 * that processes die while they grow. Linked with --wrap for each of these functions. */
#include <stdarg.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"
#include "ring.h"
#include "scenario.h"

/* Not in the process that watches. */
#define EFFECT(name) (scenario_runs ? crash_point(name, 0) : (void)0)

/* clang-format off */
ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
pid_t __real_fork(void);
pid_t __wrap_fork(void);
int __real_kill(pid_t pid, int signal_number);
int __wrap_kill(pid_t pid, int signal_number);
int __real_fallocate(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length);
void __real_ring_plan(struct ring *ring, struct segment *segment, unsigned first, unsigned last);
void __wrap_ring_plan(struct ring *ring, struct segment *segment, unsigned first, unsigned last);
/* clang-format on */

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    EFFECT("write");
    return __real_write(fd, data, size);
}

/* Futexes and pidfds. */
long __wrap_syscall(long number, ...)
{
    long argument[6];
    va_list list;
    int i;

    va_start(list, number);
    for (i = 0; i < 6; i++)
        argument[i] = va_arg(list, long);
    va_end(list);
    EFFECT("syscall");
    return __real_syscall(number, argument[0], argument[1], argument[2], argument[3], argument[4],
                          argument[5]);
}

pid_t __wrap_fork(void)
{
    EFFECT("fork");
    return __real_fork();
}

int __wrap_kill(pid_t pid, int signal_number)
{
    EFFECT("kill");
    return __real_kill(pid, signal_number);
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t length)
{
    EFFECT("fallocate");
    return __real_fallocate(fd, mode, offset, length);
}

/* As few cells in the first level as the number of levels allows. */
void __wrap_ring_plan(struct ring *ring, struct segment *segment, unsigned first, unsigned last)
{
    unsigned least = last - RING_MAX_LEVELS + 1;

    __real_ring_plan(ring, segment, least < first ? least : first, last);
}
