/* What this machine or container grants: cores and memory. */
#ifndef POOL_SYSTEM_H
#define POOL_SYSTEM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes of memory this process could ever have: RAM, capped by the cgroup's limit. */
uint64_t system_memory(void);
/* Bytes that can be had now without pushing the machine, or the cgroup, out of memory. */
uint64_t system_memory_available(void);
/* Reads a small file as text: its length, or -1. */
ssize_t system_read(const char *path, char *text, size_t room);
/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t system_now(void);

#endif
