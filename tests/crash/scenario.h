/* One small life of a pool, with a bit of everything, and what came of it. */
#ifndef SCENARIO_H
#define SCENARIO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "crash.h"

#define SCENARIO_DETACHED 3

/* In memory shared by all processes; zero at the start. Counts of jobs, by the host. */
struct tally {
    int right, wrong;
    int died;          /* of these the worker was killed, */
    int nested;        /* and of these it had more than one at a time */
    int lost;          /* the pool broke first */
    int stopped;       /* cancelled, killed or out of time, as asked for */
    int refused;       /* submits, since the pool was broken */
    char trouble[200]; /* the first thing that must not be; empty: none */
    bool complete;     /* the host came to the end */
    int64_t end;       /* ns of CLOCK_MONOTONIC */

    /* By the jobs. */
    _Atomic uint32_t gate;                   /* 1: open */
    _Atomic uint32_t begun;                  /* 1: the job that will be killed runs */
    _Atomic int detached[SCENARIO_DETACHED]; /* how often each ran */
};

extern struct tally *tally;
/* In the host, and in what it forks. */
extern bool scenario_runs;

/* How many processes of a role have died as planned. */
int scenario_has_died(enum crash_role role);
/* The host's part. Returns when the pool is gone. */
void scenario_run(void);

#endif
