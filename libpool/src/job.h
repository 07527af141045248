/* The job table: one 128-byte slot for each job there is, and the state machine of a job.
 *
 *   FREE -> HELD -> QUEUED -> RUNNING -> FINISHED | DIED | ... -> HELD (generation + 1) -> FREE
 *                     ^ \        | \--> QUEUED (retry)            ^
 *                     |  \-------|-----> CANCELLED | LOST --------/
 *
 * A job's word says everything about whose it is: generation, owner, flags, state. Each change is
 * one compare-and-swap of the whole word, so completion, death and cancellation race for it and
 * exactly one of them happens. The other members of a slot belong to whoever the word says.
 */
#ifndef POOL_JOB_H
#define POOL_JOB_H

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "freemap.h"
#include "segment.h"

enum job_state {
    JOB_FREE = 0, /* nobody's; has no blocks */
    JOB_HELD,     /* the owner's, who builds it or takes it apart */
    JOB_QUEUED,   /* may be claimed or cancelled; owner is the submitter */
    JOB_RUNNING,  /* the owner's, a worker that runs it */
    JOB_FINISHED, /* from here on: ended, the submitter's to collect */
    JOB_DIED,
    JOB_CANCELLED,
    JOB_LOST,
    JOB_TIMEOUT
};

enum job_flag {
    JOB_WAITED = 1,   /* somebody sleeps on the word */
    JOB_DETACHED = 2, /* nobody will collect: whoever ends the job frees it */
    JOB_NOTIFY = 4,   /* announce the end on the completion ring */
    /* Doomed: the worker is to be killed, and can't end the job any more. So it is certain that
     * the kill hits this job and not one that the worker began after it. */
    JOB_LATE = 8,    /* ends as TIMEOUT */
    JOB_KILLED = 16, /* ends as CANCELLED */
    JOB_ANY = 32     /* a thread of the host waits for any of several jobs: see control.any_ended */
};

#define JOB_DOOMED (JOB_LATE | JOB_KILLED)

#define JOB_HOST 0 /* the process number of the host; workers are 1.. */

#define JOB_INLINE 96

/* Where an argument or a result is, packed: [index:32][extra:16][options:1][inline size:7][class:5]
 * [host:1][kind:2]. One load gives a consistent view, which is then checked. */
enum payload_kind { PAYLOAD_NONE, PAYLOAD_INLINE, PAYLOAD_BLOCK };

struct payload {
    enum payload_kind kind;
    bool host;      /* argument: the job is for the interpreter host */
    bool options;   /* argument: the slot ends with struct job_options */
    uint8_t size;   /* inline; of a result in a block: how many blocks come with it */
    uint16_t extra; /* argument: the submitter; result: status (int16_t), or wait status */
    block_ref block;
};

/* A result with blocks ends with their references, and its own size before them. */
static inline uint64_t payload_trailer(struct payload result)
{
    return result.kind == PAYLOAD_BLOCK && result.size ? (1 + (uint64_t)result.size) * 8 : 0;
}

struct job {
    _Atomic uint64_t word;
    /* Written by the submitter while HELD; read by the worker. */
    _Atomic uint64_t function; /* a function id, or the host's target */
    _Atomic uint64_t argument;
    /* Written by the worker while RUNNING, by the supervisor before DIED; read by the submitter. */
    _Atomic uint64_t result;
    /* The argument, then, aligned to 8, the result: it never overwrites the argument, so that a job
     * can run again. A small one of each lie in the first cache line. */
    alignas(8) unsigned char data[JOB_INLINE];
};

_Static_assert(sizeof(struct job) == 128 && offsetof(struct job, data) == 32,
               "two cache lines, of which a job with little to say uses the first");

/* At the end of a slot's data, for jobs that have options. */
struct job_options {
    int64_t timeout;          /* ns; POOL_FOREVER: none. Written by the submitter while HELD */
    _Atomic int64_t deadline; /* written by the worker; read by the supervisor */
    _Atomic uint32_t retries; /* that are left; written by the submitter, then the supervisor */
    _Atomic uint32_t part;    /* written by the worker; read by the submitter */
};

struct job_table {
    struct segment *segment;
    struct arena *arena;
    uint64_t header; /* offset of the number of slots that exist */
    uint64_t slots;
    struct freemap map;
    uint32_t entries;
};

static inline uint64_t job_word_make(uint32_t generation, uint16_t owner, unsigned flags,
                                     enum job_state state)
{
    return (uint64_t)generation << 32 | (uint64_t)owner << 16 | (uint64_t)flags << 8 |
           (uint64_t)state;
}

static inline enum job_state job_state(uint64_t word)
{
    return (enum job_state)(word & 0xff);
}

static inline unsigned job_flags(uint64_t word)
{
    return (unsigned)(word >> 8) & 0xff;
}

static inline uint16_t job_owner(uint64_t word)
{
    return (uint16_t)(word >> 16);
}

static inline uint32_t job_generation(uint64_t word)
{
    return (uint32_t)(word >> 32);
}

static inline bool job_ended(uint64_t word)
{
    return job_state(word) >= JOB_FINISHED;
}

static inline uint64_t payload_pack(struct payload payload)
{
    return (payload.block >> 8) << 32 | (uint64_t)payload.extra << 16 |
           (uint64_t)payload.options << 15 | (uint64_t)payload.size << 8 |
           (payload.kind == PAYLOAD_BLOCK ? ((payload.block & 0xff) - 1) << 3 : 0) |
           (uint64_t)payload.host << 2 | (uint64_t)payload.kind;
}

static inline struct payload payload_unpack(uint64_t packed)
{
    struct payload payload = {
        .kind = (enum payload_kind)(packed & 3),
        .host = packed >> 2 & 1,
        .options = packed >> 15 & 1,
        .size = (uint8_t)(packed >> 8 & 127),
        .extra = (uint16_t)(packed >> 16),
    };

    if (payload.kind == PAYLOAD_BLOCK)
        payload.block = block_ref_make((unsigned)(packed >> 3 & 31), (uint32_t)(packed >> 32));
    return payload;
}

void job_table_plan(struct job_table *table, struct segment *segment, struct arena *arena,
                    uint32_t entries);
int job_table_start(struct job_table *table);
/* Slots that exist: every job's index is below. */
uint32_t job_table_count(const struct job_table *table);
/* The same for who looks at them all: no more than memory is committed for, whatever the shared
 * count says. */
uint32_t job_table_sweep_count(const struct job_table *table);

static inline struct job *job_at(const struct job_table *table, uint32_t index)
{
    return (struct job *)segment_at(table->segment, table->slots) + index;
}

/* FREE -> HELD by owner: any free slot. -ENOMEM. */
int job_alloc(struct job_table *table, uint16_t owner, uint32_t *index);
/* HELD by owner -> FREE, with its blocks. */
void job_free(struct job_table *table, uint32_t index, uint16_t owner);
/* Frees the blocks of a job that the caller holds. */
void job_drop_payloads(struct job_table *table, uint32_t index);
/* Frees the block of a job's result, if it is attached, and those that come with it. */
bool job_free_result(struct job_table *table, struct payload result, uint32_t index);

/* HELD by owner -> QUEUED. Publishes what the owner wrote to the slot. */
void job_queue(struct job_table *table, uint32_t index, unsigned flags);
/* QUEUED -> HELD by owner again, without flags, if nobody was quicker. */
bool job_unqueue(struct job_table *table, uint32_t index, uint32_t generation, uint16_t owner);
/* HELD by owner -> the same in the next generation: who has the number of this one has nothing. */
bool job_renew(struct job_table *table, uint32_t index, uint32_t generation, uint16_t owner);
/* QUEUED -> RUNNING by owner, if the word is still as it was `seen`. */
bool job_claim(struct job_table *table, uint32_t index, uint64_t seen, uint16_t owner);
static inline struct job_options *job_options(struct job *job)
{
    return (struct job_options *)(job->data + JOB_INLINE - sizeof(struct job_options));
}

/* Bytes of data for argument and result. */
static inline size_t job_room(struct payload argument)
{
    return argument.options ? JOB_INLINE - sizeof(struct job_options) : JOB_INLINE;
}

/* RUNNING by owner -> QUEUED again: its worker died. */
bool job_requeue(struct job_table *table, uint32_t index, uint64_t seen, uint16_t submitter);
/* Sets a flag of JOB_DOOMED on a running job: 0; 1: it has ended; -EAGAIN: it waits; -ESTALE. */
int job_doom(struct job_table *table, uint32_t index, uint32_t generation, enum job_flag flag);

/* RUNNING by owner -> `state`: 0, and *flags are those that the end has to act on. -ESTALE: it
 * is not running, or not the owner's. -ECANCELED: it is doomed, and so not to be FINISHED. */
int job_end(struct job_table *table, uint32_t index, uint32_t generation, uint16_t owner,
            enum job_state state, unsigned *flags);
/* QUEUED -> `state`, CANCELLED or LOST. */
bool job_cancel(struct job_table *table, uint32_t index, uint32_t generation, enum job_state state,
                unsigned *flags);
/* Sets a flag on a job that has not ended: 0; 1: it has ended; -ESTALE: another generation. */
int job_flag(struct job_table *table, uint32_t index, uint32_t generation, enum job_flag flag);
/* Ended -> HELD by owner in the next generation. One collector wins. */
bool job_collect(struct job_table *table, uint32_t index, uint32_t generation, uint16_t owner);

/* After the death of process `owner`, which may have submitted jobs: frees the slots that it held,
 * detaches the jobs that it waits for no more, and restores lost hints. `rescue` is called for
 * each job that is QUEUED: it may be in no ring. */
void job_table_repair(struct job_table *table, uint16_t owner,
                      void (*rescue)(void *context, uint32_t index), void *context);

#endif
