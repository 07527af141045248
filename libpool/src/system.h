/* What this machine or container grants: cores and memory. */
#ifndef POOL_SYSTEM_H
#define POOL_SYSTEM_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes of memory this process could ever have: RAM, capped by the cgroup's limit. */
uint64_t system_memory(void);
/* Bytes that can be had now without pushing the machine, or the cgroup, out of memory. */
uint64_t system_memory_available(void);
/* For a caller that shares a core with one other process that can run: whether at least half of the
 * machine's cores have nothing to run. False where that can't be told. */
bool system_has_free_cores(void);
/* Takes those out of *cores that share no third-level cache with `core`, unless none would be left.
 */
void system_keep_near(int core, cpu_set_t *cores);
/* Reads a small file as text: its length, or -1. */
ssize_t system_read(const char *path, char *text, size_t room);
/* Which file a descriptor is of. */
struct file_identity {
    dev_t device;
    ino_t inode;
};

/* The file that the descriptor is of now; no file's identity where it is closed. */
struct file_identity system_file(int fd);
/* Whether it still is. A job may close every descriptor that it finds, as daemons do, and the next
 * file that it opens has the number then. */
bool system_is_file(int fd, struct file_identity identity);
/* From now on this thread, and what it starts, run on this CPU only. */
int system_pin(int cpu);
/* Whether this thread could be pinned to each of these CPUs. */
bool system_may_use(const int *cpus, int count);
/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t system_now(void);
/* When `timeout` ns from `now` have passed; INT64_MAX: never, or later than can be said. */
static inline int64_t system_deadline(int64_t now, int64_t timeout)
{
    return timeout < INT64_MAX - now ? now + timeout : INT64_MAX;
}

#endif
