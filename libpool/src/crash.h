/* Death at a chosen place in a real process: for tests, in builds with POOL_CRASH.
 *
 * Before each change of shared memory a process comes to a crash point (atomic.h; a test may add
 * points before system calls). Points are counted for each process. A plan says which process dies
 * by SIGKILL before which of its points. Reads are no points: to others, death before a read is
 * death before whatever the process would change next.
 */
#ifndef POOL_CRASH_H
#define POOL_CRASH_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

/* A process's role is the number of forks between it and the first one that came to a point. */
enum crash_role { CRASH_HOST, CRASH_SUPERVISOR, CRASH_WORKER, CRASH_ROLES };

/* Which process dies where, and that it has done so. */
struct crash_death {
    /* The incarnation'th process of this role, from 0 in the order of their first points, dies
     * before its point'th point. Role CRASH_ROLES: nobody does. */
    enum crash_role role;
    uint32_t incarnation, point;
    /* How many points that process has passed. */
    _Atomic uint32_t passed;
    /* Written by the process right before it dies. */
    _Atomic uint32_t reached; /* 1: the members below are set */
    pid_t pid;
    int64_t time;     /* ns of CLOCK_MONOTONIC */
    const char *file; /* the same address in each process, since they are forks of one */
    int line;
};

#define CRASH_DEATHS 2

/* In memory that all the processes share. `death` is set before the first of them comes to a
 * point. */
struct crash_plan {
    struct crash_death death[CRASH_DEATHS];
    /* How many processes of each role have come to a point. */
    _Atomic uint32_t begun[CRASH_ROLES];
};

/* Set by a test before it forks. If it is not, the first process to come to a point takes one death
 * from the environment, LIBPOOL_CRASH="role incarnation point" in numbers, or plans none. */
extern struct crash_plan *crash_plan;

/* One thread of a process only. */
void crash_point(const char *file, int line);

#endif
