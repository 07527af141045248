/* The kill storm's parts: what jobs do, who kills, and what has to hold afterwards. */
#ifndef STORM_H
#define STORM_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libpool.h"

#define MEBIBYTE (UINT64_C(1) << 20)
#define SECOND INT64_C(1000000000)
#define MILLISECOND INT64_C(1000000)
#define EXIT_CODE 7 /* of the jobs that end their worker themselves */
#define RETRIES 3
#define HANG_SECONDS 60
#define NUMBERS (1U << 24) /* of jobs; more come round again */

enum kind {
    KIND_TINY,
    KIND_LARGE,
    KIND_NESTED,
    KIND_FAILS,   /* its status is an error */
    KIND_RETRIED, /* ends its worker up to RETRIES times */
    KIND_LIMITED, /* tiny, with a time limit that it does not come near */
    KIND_LATE,    /* never ends, but has a time limit */
    KIND_EXITS,   /* ends its worker */
    KINDS
};

extern const char *const kind_names[KINDS];

struct storm {
    struct pool *pool;
    bool kills;
    uint64_t seed;
    int64_t end; /* when the threads stop submitting (ns) */
    _Atomic uint64_t numbers, submitted[KINDS], maps, detached, rejected;
    _Atomic uint64_t outcomes[POOL_TIMEOUT + 1];
    _Atomic uint64_t killed, crashed, stopped; /* signals sent */
    _Atomic uint64_t wrong;
    _Atomic uint64_t settled; /* grows while nothing hangs */
    _Atomic bool over;        /* for killer and watchdog */
    _Atomic uint8_t *runs;    /* for each job number, shared with the workers */
};

/* Prints, and counts as a mistake. */
void storm_wrong(struct storm *storm, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

uint64_t storm_random(uint64_t *state);

/* ---- storm_jobs.c ---- */

/* The argument of every job but large ones, which have more after it. */
struct work {
    uint64_t number;
    uint64_t value;
};

struct job_record {
    struct pool_future future;
    enum kind kind;
    int retries;
    bool cancelled, killed;
    struct work work;
    size_t size; /* of argument and result, for large ones */
};

void storm_jobs_init(_Atomic uint8_t *runs);
/* Submits a job as the record says: kind, work and size. */
int storm_submit(struct pool *pool, struct job_record *record);
/* A job that nobody waits for. */
int storm_detach(struct pool *pool, uint64_t number, bool with_future);
/* Whether the result is that of this job. */
bool storm_result_right(const struct job_record *record, const void *data, size_t size, int status,
                        bool kills);
/* Maps over some items: what is wrong, or NULL. */
const char *storm_map(struct pool *pool, uint64_t *random, bool kills);

/* ---- storm_killer.c ---- */

/* Thread functions; the argument is the storm. */
void *storm_kill(void *storm);
/* Ends the process if nothing happens any more. */
void *storm_watch(void *storm);

/* ---- storm_check.c ---- */

struct surroundings {
    int descriptors, files;
};

struct surroundings surroundings_now(void);
/* Once all jobs have been collected and the pool is joined: that no slot and no block is in use,
 * and that each free one can be found. */
void storm_check_memory(struct storm *storm);
void storm_check_surroundings(struct storm *storm, struct surroundings before);

#endif
