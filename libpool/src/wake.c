/* Sleeping and waking across processes. */
#include "wake.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"
#include "system.h"

int futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout)
{
    struct timespec relative, *limit = NULL;

    if (timeout != POOL_FOREVER) {
        relative.tv_sec = (time_t)(timeout / 1000000000);
        relative.tv_nsec = (long)(timeout % 1000000000);
        limit = &relative;
    }
    /* The kernel compares and goes to sleep in one step, so a change right before is not missed. */
    if (syscall(SYS_futex, word, FUTEX_WAIT, expected, limit, NULL, 0) == 0 || errno == EAGAIN)
        return 0;
    return -errno;
}

void futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

static inline _Atomic uint64_t *word_of(struct wake_words *words, int worker)
{
    return &words->word[worker / WAKE_WORKERS];
}

void wake_spin(struct wake_words *words, int worker)
{
    shared_or(word_of(words, worker), wake_spinning(worker), SEQ_CST);
}

void wake_sleep(struct wake_words *words, int worker)
{
    uint64_t found = shared_load(word_of(words, worker), RELAXED), wanted;

    /* Seq_cst: who sleeps announces it and then looks at the ring; who pushes does it the other
     * way round; one of them sees the other. */
    do
        wanted = (found & ~wake_spinning(worker)) | wake_sleeping(worker);
    while (!shared_cas(word_of(words, worker), &found, wanted, SEQ_CST));
}

uint64_t wake_busy(struct wake_words *words, int worker)
{
    uint64_t both = wake_spinning(worker) | wake_sleeping(worker);

    return shared_and(word_of(words, worker), ~both, SEQ_CST) & both;
}

int wake_count_spinning(struct wake_words *words, int workers)
{
    int worker, count = 0;

    for (worker = 0; worker < workers; worker += WAKE_WORKERS)
        count += __builtin_popcountll(shared_load(word_of(words, worker), RELAXED) >> WAKE_WORKERS);
    return count;
}

int wake_choose(struct wake_words *words, int workers, bool force)
{
    int worker;

    if (!force)
        for (worker = 0; worker < workers; worker += WAKE_WORKERS)
            if (shared_load(word_of(words, worker), SEQ_CST) >> WAKE_WORKERS)
                return -1;
    for (worker = 0; worker < workers; worker += WAKE_WORKERS) {
        uint64_t found = shared_load(word_of(words, worker), SEQ_CST);
        uint32_t sleeping;

        while ((sleeping = (uint32_t)found) != 0) {
            int chosen = worker + __builtin_ctz(sleeping);
            uint64_t woken = (found & ~wake_sleeping(chosen)) | wake_spinning(chosen);

            if (chosen >= workers)
                break; /* scribbled over */
            if (!force && found >> WAKE_WORKERS)
                return -1;
            /* Sleeping -> spinning. One waker wins, so a burst of jobs rings each bell once. Death
             * right after: the worker sleeps on, until the supervisor rings everybody. */
            if (shared_cas(word_of(words, worker), &found, woken, SEQ_CST))
                return chosen;
        }
    }
    return -1;
}

/* Pauses between two looks at the clock; a pause is 10 to 40 ns. */
#define PAUSES 16
#define BUDGET_FIRST 20000
#define BUDGET_MIN 500
#define PATIENCE 4000
/* A yield that takes longer than this let somebody else run: perhaps the one we wait for, so from
 * then on the core is offered at once. Longer than that, and it was somebody with work of his own. */
#define YIELD_SWITCHED 1500
#define YIELD_CROWDED 100000
#define CROWDED_WAITS 64

void spin_init(struct spin *spin)
{
    atomic_init(&spin->budget, BUDGET_FIRST);
    atomic_init(&spin->patience, PATIENCE);
    atomic_init(&spin->crowded, 0);
}

void spin_begin(struct spin_wait *wait, struct spin *spin)
{
    wait->spin = spin;
    wait->start = system_now();
    wait->round = 0;
}

/* Offers the core: the time then. */
static int64_t offer_core(struct spin *spin, int64_t now)
{
    int64_t after;

    sched_yield();
    after = system_now();
    atomic_store_explicit(&spin->patience, after - now > YIELD_SWITCHED ? 0 : PATIENCE, RELAXED);
    if (after - now > YIELD_CROWDED)
        atomic_store_explicit(&spin->crowded, CROWDED_WAITS, RELAXED);
    return after;
}

bool spin_round(struct spin_wait *wait)
{
    struct spin *spin = wait->spin;
    int64_t now;

    cpu_relax();
    if (++wait->round % PAUSES)
        return true;
    if (atomic_load_explicit(&spin->crowded, RELAXED) > 0)
        return false;
    now = system_now();
    if (now - wait->start > atomic_load_explicit(&spin->patience, RELAXED))
        now = offer_core(spin, now);
    return now - wait->start < atomic_load_explicit(&spin->budget, RELAXED);
}

void spin_end(struct spin_wait *wait)
{
    struct spin *spin = wait->spin;
    int64_t budget = atomic_load_explicit(&spin->budget, RELAXED);
    int32_t crowded = atomic_load_explicit(&spin->crowded, RELAXED);

    if (wait->round < PAUSES)
        return;
    /* A wait that spinning to the maximum would have covered: spin so long. Others: half as long
     * each time, down to a look or two. */
    if (system_now() - wait->start < SPIN_MAX)
        budget = SPIN_MAX;
    else if (budget > BUDGET_MIN)
        budget /= 2;
    atomic_store_explicit(&spin->budget, budget, RELAXED);
    if (crowded > 0)
        atomic_store_explicit(&spin->crowded, crowded - 1, RELAXED);
}
