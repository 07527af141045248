/* Sleeping and waking across processes.
 *
 * Everybody sleeps on a futex word: a worker on the doorbell in its process slot, a thread of the
 * host on the low half of a job's word. Futexes and wake words carry wake-ups and never state: one
 * too many or too few costs time, not correctness.
 */
#ifndef POOL_WAKE_H
#define POOL_WAKE_H

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>

#include "libpool.h"

/* What each worker without a job does, 32 workers to a word: bit w says that worker w sleeps,
 * bit w + 32 that it spins, that is, will look at the ring before it sleeps. Busy workers have
 * neither. A worker changes its own bits. A waker turns sleeping into spinning, on behalf of the
 * worker whose bell it then rings; both bits are in one word, so that no one sees half of that.
 * The supervisor clears the bits of the dead. */
#define WAKE_WORKERS 32
#define WAKE_WORDS (POOL_MAX_WORKERS / WAKE_WORKERS)

struct wake_words {
    alignas(64) _Atomic uint64_t word[WAKE_WORDS];
};

static inline uint64_t wake_sleeping(int worker)
{
    return UINT64_C(1) << (worker % WAKE_WORKERS);
}

static inline uint64_t wake_spinning(int worker)
{
    return UINT64_C(1) << (worker % WAKE_WORKERS + WAKE_WORKERS);
}

/* Busy -> spinning, spinning -> sleeping, anything -> busy (returns the bits there were). */
void wake_spin(struct wake_words *words, int worker);
void wake_sleep(struct wake_words *words, int worker);
uint64_t wake_busy(struct wake_words *words, int worker);
/* How many workers spin. */
int wake_count_spinning(struct wake_words *words, int workers);
/* Turns one sleeping worker into a spinning one: its number, whose bell the caller must ring; -1:
 * none sleeps or, unless `force`, one spins already. */
int wake_choose(struct wake_words *words, int workers, bool force);
/* Whether this worker sleeps. */
bool wake_asleep(struct wake_words *words, int worker);
/* Turns this worker, if it sleeps, into a spinning one: true, and the caller must ring its bell. */
bool wake_one(struct wake_words *words, int worker);

/* Sleeps while *word is `expected`, at most `timeout` ns (POOL_FOREVER: without end). 0: woken, or
 * the word differs; -ETIMEDOUT; -EINTR: a signal handler ran. */
int futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout);
/* Wakes up to `count` sleepers. */
void futex_wake(_Atomic uint32_t *word, int count);

/* How long spinning is worth it, learnt from how long the waits turn out to be and from what
 * happens when the core is offered to others. One for each process that spins; the members are
 * private to it and approximate. */
struct spin {
    _Atomic int64_t budget;   /* ns to spin before sleeping */
    _Atomic int64_t patience; /* ns to spin before the core is offered to others */
    _Atomic int32_t crowded;  /* waits to come without any spinning: others need the core */
    /* Of a worker, which has one thread that waits: waits in a row that ended when the core had
     * been offered and taken, and when to ask again whether another core is free (ns). */
    int shared;
    int64_t next_look;
};

struct spin_wait {
    struct spin *spin;
    int64_t start; /* ns */
    int64_t end;   /* after spin_end(): when that was, or `start` if it was not worth a look */
    unsigned round;
    bool taken; /* the core was offered in the last round, and somebody ran on it */
};

#define SPIN_MAX 60000

void spin_init(struct spin *spin);
void spin_begin(struct spin_wait *wait, struct spin *spin);
/* One round: false when it is time to sleep. */
bool spin_round(struct spin_wait *wait);
/* The wait is over, by spinning or sleeping: learns from how long it took. */
void spin_end(struct spin_wait *wait);
/* For a worker, after spin_end(): where it turns out to share a core with whoever gives it work,
 * although another one is free, moves to another. */
void spin_spread(struct spin_wait *wait);
/* Notes which core this thread runs on. No step of any protocol: a note that is old or lost costs
 * nothing but time. */
void spin_note_core(_Atomic uint32_t *place);
/* As spin_spread(), for a worker that was woken by whoever wrote the note. */
void spin_woken(struct spin *spin, _Atomic uint32_t *place);

#endif
