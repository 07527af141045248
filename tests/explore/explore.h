/* Every interleaving of small programs over the real shared-memory layers.
 *
 * The layers are compiled with POOL_EXPLORE, so that each atomic operation first calls
 * explore_step(). A simulated process is a coroutine that stops there; the explorer decides who
 * takes the next step, or dies before it, and tries all decisions, depth first, by running the
 * scenario again from its start with another choice at the end (stateless model checking).
 *
 * Two decisions that lead to the same state are followed once: a state is the shared memory and, for
 * each process, what it has read so far, which determines what it will do. Where that is still too
 * much, the number of pre-emptions is bounded (Musuvathi and Qadeer, PLDI 2007): a
 * process that could go on is taken the processor away at most so many times.
 *
 * Sequentially consistent interleavings only: a missing barrier is not seen here, but by TSan and by review.
 */
#ifndef EXPLORE_H
#define EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPLORE_PROCESSES 5
#define EXPLORE_MEMORY (64 * 1024)

struct explore_scenario {
    const char *name;
    int processes;
    /* Sets the shared memory to its beginning; it is zero before. No steps. */
    void (*setup)(void);
    /* What a process does. */
    void (*body)(int process);
    /* Whether only `process` itself uses this word while it lives: then no other needs to be tried
     * before its step, only its death. NULL: none is. */
    bool (*private)(int process, const volatile void *address);
    /* After each step: complains by explore_fail(). May be NULL. No steps. */
    void (*observe)(void);
    /* When all have ended. No steps... but it may call the layers: they do not stop then. */
    void (*check)(void);
    /* Deaths: processes with their bit in `mortal` may die before any of their steps, at most
     * `deaths` in one execution, one at a time: the next when the repair of the last has been done, by
     * process `repairer`, which begins then and lives on in the place of the dead. explore_dead()
     * tells it who died. */
    unsigned mortal;
    int deaths;
    int repairer; /* -1: none */
    int preemptions; /* the bound, or -1: none */
};

struct explore_result {
    uint64_t executions, states, steps;
    const char *failure; /* NULL: none */
};

/* The shared memory, aligned to 128 bytes. */
extern unsigned char explore_memory[EXPLORE_MEMORY];

/* Explores it all, or until a failure, or until `limit` executions (0: none). */
struct explore_result explore(const struct explore_scenario *scenario, uint64_t limit);

_Noreturn void explore_fail(const char *what);
int explore_dead(void);
/* How many have died in this execution. */
int explore_deaths(void);
/* The process whose code runs now, -1: none. */
int explore_running(void);

/* The kernel's part: a process that waits is not run until it is woken. */
int explore_futex_wait(const volatile void *word, uint32_t expected);
void explore_futex_wake(const volatile void *word, int count);

/* Explores it, prints a line, and if it fails the decisions that led there. True: no failure. */
bool explore_report(const struct explore_scenario *scenario);

#endif
