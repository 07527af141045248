/* The limits of this machine that a message between two processes runs into.
 *
 *     machine
 *
 * Two threads, each bound to a core of its own, for each pair of cores. Prints the two cores, what
 * was measured, the best of SAMPLES, and what a tenth of them is below, separated by tabs:
 *
 *   round trip  ns in which a number goes to and fro in one cache line: each waits until it is its
 *               turn and writes the next number. Half of it is what is published as the latency
 *               from core to core: the writer takes the reader's copy away, the reader has the line
 *               moved to it
 *   streamed    ns for each line when a thread reads and then swaps a word in each of LINES lines
 *               that the other has written just before: the cores have several on their way at once
 *   wake        ns that FUTEX_WAKE takes where the other thread sleeps
 *   copy        bytes that a core copies in a ns, warm; one of them at a time */
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"

#define SAMPLES 200
#define TURNS 500
#define LINES 256
#define COPY_BYTES 1000000
#define PAIRS_MAX 64

static struct {
    alignas(128) _Atomic unsigned turn;
    struct {
        alignas(128) _Atomic uint64_t word;
    } lines[LINES];
} shared;

enum kind { ROUND_TRIP, STREAMED, WAKE, COPY, KINDS };

static const char *const names[KINDS] = {"round trip", "streamed", "wake", "copy"};

struct player {
    int core;
    unsigned first; /* the turn that it waits for */
    double times[KINDS][SAMPLES];
    int error;
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int bind_to(int core)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(core, &set);
    return pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void await(unsigned turn)
{
    while (atomic_load_explicit(&shared.turn, memory_order_acquire) != turn)
        cpu_relax();
}

static void pass(unsigned turn)
{
    atomic_store_explicit(&shared.turn, turn + 1, memory_order_release);
}

static double go_round(unsigned *turn)
{
    double start = now();
    int i;

    for (i = 0; i < TURNS; i++, *turn += 2) {
        await(*turn);
        pass(*turn);
    }
    return (now() - start) / TURNS;
}

static double stream(unsigned *turn)
{
    double start;
    int i;

    await(*turn);
    start = now();
    for (i = 0; i < LINES; i++) {
        uint64_t found = atomic_load_explicit(&shared.lines[i].word, memory_order_acquire);

        atomic_compare_exchange_strong(&shared.lines[i].word, &found, found + 1);
    }
    start = (now() - start) / LINES;
    pass(*turn);
    *turn += 2;
    return start;
}

/* Gives the other time to fall asleep, and wakes it. */
static double wake(unsigned *turn)
{
    const struct timespec while_ = {.tv_nsec = 200000};
    double start;

    while (atomic_load(&shared.turn) != *turn)
        syscall(SYS_futex, &shared.turn, FUTEX_WAIT, *turn - 1, NULL, NULL, 0);
    nanosleep(&while_, NULL);
    pass(*turn);
    start = now();
    syscall(SYS_futex, &shared.turn, FUTEX_WAKE, 1, NULL, NULL, 0);
    start = now() - start;
    *turn += 2;
    return start;
}

static double copy(unsigned *turn)
{
    static unsigned char from[COPY_BYTES], to[COPY_BYTES];
    double start;

    await(*turn);
    start = now();
    memcpy(to, from, sizeof to);
    __asm__ volatile("" : : "r"(to) : "memory"); /* it is read, for all that the compiler knows */
    start = sizeof to / (now() - start);
    pass(*turn);
    *turn += 2;
    return start;
}

static double (*const measures[KINDS])(unsigned *turn) = {go_round, stream, wake, copy};

static void *play(void *context)
{
    struct player *player = context;
    unsigned turn = player->first;
    int kind, sample;

    player->error = bind_to(player->core);
    for (kind = 0; kind < KINDS; kind++)
        for (sample = 0; sample < SAMPLES; sample++)
            player->times[kind][sample] = measures[kind](&turn);
    return NULL;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static int measure(int one, int other)
{
    static struct player players[2];
    pthread_t thread;
    int kind;

    players[0] = (struct player){.core = one, .first = 0};
    players[1] = (struct player){.core = other, .first = 1};
    atomic_store(&shared.turn, 0);
    if (pthread_create(&thread, NULL, play, &players[1]) != 0)
        return -1;
    play(&players[0]);
    pthread_join(thread, NULL);
    if (players[0].error || players[1].error)
        return -1;
    for (kind = 0; kind < KINDS; kind++) {
        double *times = players[0].times[kind];
        /* Of bytes, the most are the best. */
        int best = kind == COPY ? SAMPLES - 1 : 0, tenth = kind == COPY ? -1 : 1;

        qsort(times, SAMPLES, sizeof *times, compare);
        printf("%d\t%d\t%s\t%.1f\t%.1f\n", one, other, names[kind], times[best],
               times[best + tenth * (SAMPLES / 10)]);
    }
    fflush(stdout);
    return 0;
}

int main(void)
{
    cpu_set_t set;
    int cores[CPU_SETSIZE], count = 0, i, k, pairs = 0;

    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    for (i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            cores[count++] = i;
    if (count < 2) {
        fprintf(stderr, "machine: one core only\n");
        return 1;
    }
    for (i = 0; i < count; i++)
        for (k = i + 1; k < count && pairs < PAIRS_MAX; k++, pairs++)
            if (measure(cores[i], cores[k]) != 0)
                return 1;
    return 0;
}
