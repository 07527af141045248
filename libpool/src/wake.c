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
/* From here on the core is offered to others now and then. */
#define YIELD_AFTER 4000
#define BUDGET_FIRST 20000
#define BUDGET_MIN 500

void spin_init(struct spin *spin)
{
    atomic_init(&spin->budget, BUDGET_FIRST);
}

void spin_learn(struct spin *spin, int64_t waited)
{
    int64_t budget = atomic_load_explicit(&spin->budget, RELAXED);

    /* A wait that spinning to the maximum would have covered: spin so long. Others: twice as
     * short each time, down to a look or two. */
    if (waited < SPIN_MAX)
        budget = SPIN_MAX;
    else if (budget > BUDGET_MIN)
        budget /= 2;
    atomic_store_explicit(&spin->budget, budget, RELAXED);
}

bool spin_round(struct spin *spin, int64_t start, unsigned *round)
{
    int64_t spent;

    cpu_relax();
    if (++*round % PAUSES)
        return true;
    spent = system_now() - start;
    if (spent > YIELD_AFTER)
        sched_yield();
    return spent < atomic_load_explicit(&spin->budget, RELAXED);
}
