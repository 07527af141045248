/* Waking: the words that say who sleeps and spins, futexes, spinning, and no wake-up lost. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "atomic.h"
#include "harness.h"
#include "system.h"
#include "wake.h"

static struct wake_words words;

static void reset(void)
{
    memset((void *)&words, 0, sizeof words);
}

/* ---- The words ---- */

static void a_worker_goes_from_busy_to_spinning_to_sleeping_and_back(void)
{
    static const int workers[] = {0, 1, 31, 32, 33, 63, 64, POOL_MAX_WORKERS - 1};
    unsigned i;

    reset();
    for (i = 0; i < sizeof workers / sizeof *workers; i++) {
        int worker = workers[i];

        EXPECT(wake_busy(&words, worker), 0);
        wake_spin(&words, worker);
        EXPECT(wake_count_spinning(&words, POOL_MAX_WORKERS), 1);
        EXPECT(wake_choose(&words, POOL_MAX_WORKERS, true), -1);
        wake_sleep(&words, worker);
        EXPECT(wake_count_spinning(&words, POOL_MAX_WORKERS), 0);
        EXPECT(wake_busy(&words, worker), wake_sleeping(worker));
        wake_sleep(&words, worker);
        EXPECT(wake_choose(&words, POOL_MAX_WORKERS, false), worker);
        EXPECT(wake_busy(&words, worker), wake_spinning(worker)); /* on behalf of the waker */
        EXPECT(wake_busy(&words, worker), 0);
    }
}

static void workers_do_not_touch_each_others_bits(void)
{
    int worker;

    reset();
    for (worker = 0; worker < 70; worker += 2)
        wake_spin(&words, worker);
    for (worker = 1; worker < 70; worker += 2)
        wake_sleep(&words, worker);
    EXPECT(wake_count_spinning(&words, 70), 35);
    for (worker = 0; worker < 70; worker++)
        EXPECT(wake_busy(&words, worker),
               worker % 2 ? wake_sleeping(worker) : wake_spinning(worker));
}

static void nobody_is_chosen_while_somebody_spins_unless_by_force(void)
{
    reset();
    wake_sleep(&words, 3);
    wake_sleep(&words, 40);
    wake_spin(&words, 70);
    EXPECT(wake_choose(&words, 100, false), -1);
    EXPECT(wake_choose(&words, 100, true), 3);
    EXPECT(wake_choose(&words, 100, true), 40);
    EXPECT(wake_choose(&words, 100, true), -1);
    EXPECT(wake_count_spinning(&words, 100), 3);
}

static void a_burst_chooses_each_sleeper_once(void)
{
    int worker;

    reset();
    for (worker = 0; worker < 100; worker++)
        wake_sleep(&words, worker);
    for (worker = 0; worker < 100; worker++)
        EXPECT(wake_choose(&words, 100, true), worker);
    EXPECT(wake_choose(&words, 100, true), -1);
    /* Without force the one that was chosen is on its way to the ring, and enough. */
    reset();
    for (worker = 0; worker < 100; worker++)
        wake_sleep(&words, worker);
    EXPECT(wake_choose(&words, 100, false), 0);
    EXPECT(wake_choose(&words, 100, false), -1);
}

static void one_worker_is_woken_only_if_it_sleeps(void)
{
    reset();
    wake_sleep(&words, 3);
    wake_sleep(&words, 40);
    wake_spin(&words, 41);
    EXPECT(wake_asleep(&words, 40), true);
    EXPECT(wake_asleep(&words, 41), false);
    EXPECT(wake_one(&words, 40), true);
    EXPECT(wake_asleep(&words, 40), false);
    EXPECT(wake_one(&words, 40), false);
    EXPECT(wake_one(&words, 41), false);
    EXPECT(wake_one(&words, 42), false);
    EXPECT(wake_busy(&words, 40), wake_spinning(40));
    EXPECT(wake_asleep(&words, 3), true);
}

static void a_worker_that_there_is_not_is_never_chosen(void)
{
    reset();
    memset((void *)&words, 0xff, sizeof words); /* scribbled over */
    EXPECT(wake_choose(&words, 5, false), -1);
    EXPECT(wake_choose(&words, 5, true), 0);
    reset();
    wake_sleep(&words, 5);
    wake_sleep(&words, 31);
    EXPECT(wake_choose(&words, 5, true), -1);
    EXPECT(wake_choose(&words, 5, false), -1);
}

static _Atomic uint32_t chosen[POOL_MAX_WORKERS];

static void choose_until_none_is_left(void *context, unsigned thread)
{
    int worker;

    (void)context;
    (void)thread;
    while ((worker = wake_choose(&words, 200, true)) >= 0)
        chosen[worker]++;
}

static void threads_choose_each_sleeper_once(void)
{
    unsigned round, rounds = HARNESS_SANITIZED ? 50 : 300, wrong = 0;
    int worker;

    for (round = 0; round < rounds; round++) {
        reset();
        memset((void *)chosen, 0, sizeof chosen);
        for (worker = 0; worker < 200; worker++)
            wake_sleep(&words, worker);
        harness_threads(3, choose_until_none_is_left, NULL);
        for (worker = 0; worker < POOL_MAX_WORKERS; worker++)
            wrong += chosen[worker] != (worker < 200);
    }
    EXPECT(wrong, 0);
}

/* ---- Futexes ---- */

static void a_futex_wait_ends_at_once_if_the_word_differs(void)
{
    _Atomic uint32_t word = 5;

    EXPECT(futex_wait(&word, 4, POOL_FOREVER), 0);
    EXPECT(futex_wait(&word, 4, 0), 0);
}

static void a_futex_wait_ends_in_time(void)
{
    _Atomic uint32_t word = 5;
    int64_t start = system_now();

    EXPECT(futex_wait(&word, 5, 20 * MILLISECOND), -ETIMEDOUT);
    EXPECT(system_now() - start >= 20 * MILLISECOND, true);
    EXPECT(futex_wait(&word, 5, 0), -ETIMEDOUT);
}

static _Atomic uint32_t bell, answers, here;

static void wait_for_bell(void *context, unsigned thread)
{
    static const int64_t timeouts[] = {POOL_FOREVER, POOL_FOREVER - 1, 20 * SECOND};

    (void)context;
    if (thread == 3) { /* rings, when all are on their way */
        EXPECT(harness_await(&here, 3), true);
        atomic_store(&bell, 1);
        futex_wake(&bell, INT_MAX);
        return;
    }
    harness_raise(&here);
    while (atomic_load(&bell) == 0)
        EXPECT(futex_wait(&bell, 0, timeouts[thread]), 0);
    answers++;
}

static void a_futex_wake_reaches_all_that_wait_also_with_huge_time_outs(void)
{
    bell = answers = here = 0;
    harness_threads(4, wait_for_bell, NULL);
    EXPECT(answers, 3);
}

static void do_nothing(int signal_number)
{
    (void)signal_number;
}

static pthread_t waiter;
static _Atomic uint32_t interrupted;

static void wait_or_interrupt(void *context, unsigned thread)
{
    _Atomic uint32_t *word = context;

    if (thread == 0) {
        waiter = pthread_self();
        harness_raise(&here);
        EXPECT(futex_wait(word, 0, 20 * SECOND), -EINTR);
        atomic_store(&interrupted, 1);
        return;
    }
    EXPECT(harness_await(&here, 1), true);
    while (!atomic_load(&interrupted)) { /* it may not sleep yet */
        pthread_kill(waiter, SIGUSR1);
        poll(NULL, 0, 1);
    }
}

static void a_signal_interrupts_a_futex_wait(void)
{
    struct sigaction action = {.sa_handler = do_nothing}, before;
    _Atomic uint32_t word = 0;

    here = interrupted = 0;
    sigaction(SIGUSR1, &action, &before);
    harness_threads(2, wait_or_interrupt, (void *)&word);
    sigaction(SIGUSR1, &before, NULL);
}

/* ---- Spinning ---- */

/* The time that one spin takes when nothing comes. */
static int64_t spin_out(struct spin *spin, unsigned *rounds)
{
    struct spin_wait wait;
    int64_t start = system_now();

    spin_begin(&wait, spin);
    while (spin_round(&wait) && system_now() - start < SECOND)
        ;
    if (rounds)
        *rounds = wait.round;
    return system_now() - start;
}

static void spinning_ends(void)
{
    struct spin spin;

    spin_init(&spin);
    EXPECT(spin_out(&spin, NULL) < SECOND / 2, true);
}

static void a_wait(struct spin *spin, int64_t took)
{
    struct spin_wait wait;
    int i;

    spin_begin(&wait, spin);
    for (i = 0; i < 100; i++)
        spin_round(&wait);
    wait.start -= took;
    spin_end(&wait);
}

static void spinning_that_does_not_pay_becomes_short_and_again_long_when_it_does(void)
{
    struct spin spin;
    int64_t first;
    int i;

    spin_init(&spin);
    first = spin.budget;
    for (i = 0; i < 30; i++)
        a_wait(&spin, SECOND);
    EXPECT(spin.budget < first / 10, true);
    EXPECT(spin.budget > 0, true);
    for (i = 0; i < 300 && spin.budget < SPIN_MAX; i++)
        a_wait(&spin, 0); /* a busy machine may need more than one that is quick */
    EXPECT(spin.budget, SPIN_MAX);
    EXPECT(spin_out(&spin, NULL) < SECOND / 2, true);
}

static void a_crowded_machine_is_not_spun_on_for_some_waits(void)
{
    struct spin spin;
    unsigned rounds, i;

    spin_init(&spin);
    spin.crowded = 3;
    spin_out(&spin, &rounds);
    EXPECT(rounds <= 16, true);
    for (i = 0; i < 1000 && spin.crowded > 0; i++)
        a_wait(&spin, SECOND);
    EXPECT(spin.crowded, 0);
}

/* ---- The protocol: who sleeps announces it and then looks; who pushes looks afterwards ---- */

#define WORKERS 2
#define PUSHES (HARNESS_SANITIZED ? 5000U : 30000U)

struct protocol {
    struct wake_words words;
    _Atomic uint32_t items; /* in place of the ring */
    _Atomic uint32_t bells[WORKERS];
    _Atomic uint32_t taken, done, sleeps;
    bool lost;
};

static void ring(struct protocol *protocol, int worker)
{
    if (worker < 0)
        return;
    shared_add(&protocol->bells[worker], 1, RELEASE);
    futex_wake(&protocol->bells[worker], INT_MAX);
}

static bool take(struct protocol *protocol)
{
    uint32_t items = shared_load(&protocol->items, SEQ_CST);

    while (items > 0)
        if (shared_cas(&protocol->items, &items, items - 1, SEQ_CST))
            return true;
    return false;
}

/* As worker.c does it: returns whether it spins now, by its own or a waker's doing. */
static bool park(struct protocol *protocol, int worker)
{
    uint32_t heard = shared_load(&protocol->bells[worker], ACQUIRE);

    wake_sleep(&protocol->words, worker);
    if (shared_load(&protocol->items, SEQ_CST) == 0 && !shared_load(&protocol->done, SEQ_CST)) {
        protocol->sleeps++;
        futex_wait(&protocol->bells[worker], heard, POOL_FOREVER);
    }
    if (!(wake_busy(&protocol->words, worker) & wake_spinning(worker)))
        return false;
    wake_spin(&protocol->words, worker);
    return true;
}

static void work(struct protocol *protocol, int worker)
{
    uint64_t random = (uint64_t)worker + 1;
    bool spinning = false;
    uint64_t looks;

    while (!shared_load(&protocol->done, SEQ_CST)) {
        if (take(protocol)) {
            if (spinning) {
                wake_busy(&protocol->words, worker);
                if (shared_load(&protocol->items, SEQ_CST))
                    ring(protocol, wake_choose(&protocol->words, WORKERS, false));
                spinning = false;
            }
            harness_raise(&protocol->taken);
            continue;
        }
        if (!spinning && wake_count_spinning(&protocol->words, WORKERS) < 1) {
            wake_spin(&protocol->words, worker);
            spinning = true;
        }
        looks = spinning ? harness_random(&random) % 64 : 0;
        while (looks-- && shared_load(&protocol->items, SEQ_CST) == 0)
            cpu_relax();
        if (shared_load(&protocol->items, SEQ_CST) == 0)
            spinning = park(protocol, worker);
    }
}

static void push(struct protocol *protocol)
{
    uint64_t random = 99;
    uint32_t pushed = 0;
    int worker;

    while (pushed < PUSHES && !protocol->lost) {
        uint32_t burst = harness_random(&random) % 3 + 1;

        pushed += burst;
        while (burst--) {
            shared_add(&protocol->items, 1, SEQ_CST);
            ring(protocol, wake_choose(&protocol->words, WORKERS, false));
        }
        protocol->lost = !harness_await(&protocol->taken, pushed);
    }
    shared_store(&protocol->done, 1, SEQ_CST);
    for (worker = 0; worker < WORKERS; worker++)
        ring(protocol, worker);
}

/* Waits of a worker that shares its core: enough for it to look for another. */
static void shared_waits(struct spin *spin)
{
    struct spin_wait wait = {.spin = spin, .taken = true};
    int i;

    for (i = 0; i < 100; i++) {
        wait.end = system_now();
        spin_spread(&wait);
    }
    EXPECT(spin->next_look > 0, true); /* it has looked */
}

static void a_worker_that_shares_its_core_may_run_afterwards_where_it_might_before(void)
{
    cpu_set_t before, after;
    struct spin spin;

    spin_init(&spin);
    REQUIRE(sched_getaffinity(0, sizeof before, &before), 0);
    shared_waits(&spin);
    REQUIRE(sched_getaffinity(0, sizeof after, &after), 0);
    EXPECT(CPU_EQUAL(&before, &after), true);
}

static void pinned(void *context)
{
    cpu_set_t one, after;
    struct spin spin;

    (void)context;
    spin_init(&spin);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one), 0);
    shared_waits(&spin);
    REQUIRE(sched_getaffinity(0, sizeof after, &after), 0);
    EXPECT(CPU_EQUAL(&one, &after), true);
}

static void a_worker_that_is_pinned_to_its_core_stays_there(void)
{
    EXPECT(harness_fork(pinned, NULL, 20), 0);
}

static void a_wait_in_which_nobody_ran_on_the_core_is_no_sign_of_sharing_it(void)
{
    struct spin_wait wait = {.taken = true};
    struct spin spin;
    int i;

    spin_init(&spin);
    wait.spin = &spin;
    wait.end = system_now();
    for (i = 0; i < 100; i++) {
        wait.taken = i % 10 != 0;
        spin_spread(&wait);
    }
    EXPECT(spin.next_look, 0);
}

static void work_or_push(void *context, unsigned thread)
{
    if (thread < WORKERS)
        work(context, (int)thread);
    else
        push(context);
}

static void no_wake_up_is_lost(void)
{
    static struct protocol protocol;

    memset((void *)&protocol, 0, sizeof protocol);
    harness_threads(WORKERS + 1, work_or_push, &protocol);
    EXPECT(protocol.lost, false);
    EXPECT(protocol.items, 0);
    EXPECT(protocol.sleeps > PUSHES / 100, true); /* they slept, or this has shown nothing */
}

static const struct harness_test tests[] = {
    TEST(a_worker_goes_from_busy_to_spinning_to_sleeping_and_back),
    TEST(workers_do_not_touch_each_others_bits),
    TEST(nobody_is_chosen_while_somebody_spins_unless_by_force),
    TEST(a_burst_chooses_each_sleeper_once),
    TEST(one_worker_is_woken_only_if_it_sleeps),
    TEST(a_worker_that_there_is_not_is_never_chosen),
    TEST(threads_choose_each_sleeper_once),
    TEST(a_futex_wait_ends_at_once_if_the_word_differs),
    TEST(a_futex_wait_ends_in_time),
    TEST(a_futex_wake_reaches_all_that_wait_also_with_huge_time_outs),
    TEST(a_signal_interrupts_a_futex_wait),
    TEST(spinning_ends),
    TEST(spinning_that_does_not_pay_becomes_short_and_again_long_when_it_does),
    TEST(a_crowded_machine_is_not_spun_on_for_some_waits),
    TEST(a_worker_that_shares_its_core_may_run_afterwards_where_it_might_before),
    TEST(a_worker_that_is_pinned_to_its_core_stays_there),
    TEST(a_wait_in_which_nobody_ran_on_the_core_is_no_sign_of_sharing_it),
    TEST(no_wake_up_is_lost),
};

HARNESS_MAIN("wake", tests)
