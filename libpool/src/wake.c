/* Who sleeps and who spins: the wake words. */
#include "wake.h"

#include "atomic.h"

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

bool wake_asleep(struct wake_words *words, int worker)
{
    /* Seq_cst: as in wake_sleep(), a sleeper that is not seen here looks at the ring later. */
    return shared_load(word_of(words, worker), SEQ_CST) & wake_sleeping(worker);
}

bool wake_one(struct wake_words *words, int worker)
{
    uint64_t found = shared_load(word_of(words, worker), RELAXED), woken;

    /* Sleeping -> spinning, as in wake_choose(), and death right after is as harmless. */
    while (found & wake_sleeping(worker)) {
        woken = (found & ~wake_sleeping(worker)) | wake_spinning(worker);
        if (shared_cas(word_of(words, worker), &found, woken, SEQ_CST))
            return true;
    }
    return false;
}
