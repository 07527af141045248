/* Watching processes from outside: that they end, and that nothing is left of them. */
#ifndef WATCH_H
#define WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Once, before the first fork: from then on, who loses its parent becomes our child. */
void watch_begin(void);
/* fork() of a child that can be waited for. */
pid_t watch_fork(void);
/* Waits at most `timeout` ns for the child: its wait status. If it does not end, prints the stacks
 * of all processes and kills them: -1. */
int watch_wait(pid_t pid, int64_t timeout);
/* Waits at most `timeout` ns until there is no child any more: the time then (CLOCK_MONOTONIC). If
 * some are left, prints their stacks and kills them: -1. */
int64_t watch_others(int64_t timeout);
/* Whether there is a file of this process in /dev/shm. */
bool watch_left_files(pid_t pid);

#endif
