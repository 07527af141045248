/* Every interleaving of small programs over the real shared-memory layers.
 *
 * The layers are compiled with POOL_EXPLORE, so that each atomic operation first calls
 * explore_step(). A simulated process is a coroutine that stops there; the explorer decides who
 * takes the next step, or dies before it, and tries all decisions, depth first, by running the
 * scenario again from its start with another choice at the end (stateless model checking).
 *
 * Decisions that lead to the same state are followed once. A state is the atomic words of the
 * shared memory and, for each process, what it has read so far, which determines what it will do.
 * So a scenario has to keep to this:
 *   - A process learns of the others by atomic operations. What it reads by plain loads is checked
 *     at once (every step is taken from every state, so such a check is never skipped) or told to
 *     explore_remember().
 *   - What the scenario notes outside the shared memory, for its checks, must follow from what each
 *     process has read, in whatever order they ran: counts, and notes of one process each.
 *
 * Where there are too many states, the number of pre-emptions is bounded (Musuvathi and Qadeer,
 * PLDI 2007): at most so many times is a process that could go on made to wait.
 *
 * Sequentially consistent interleavings only: a missing barrier is not seen here, but by
 * ThreadSanitizer and by review.
 */
#ifndef EXPLORE_H
#define EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPLORE_PROCESSES 6
#define EXPLORE_MEMORY (32 * 1024)

struct explore_scenario {
    const char *name;
    int processes;
    /* Sets the shared memory to its beginning; it is zero before. No steps. */
    void (*setup)(void);
    /* What a process does. */
    void (*body)(int process);
    /* True if only `process` itself uses this word while it lives. Then a step on it can be taken
     * at once, with no other process tried before it, only the process's own death. May be NULL:
     * no word is private. */
    bool (*private)(int process, const volatile void *address);
    /* Called after each step, to look at the state. May be NULL. No steps. */
    void (*observe)(void);
    /* Called when no process can go on. It may call the layers: then these make no steps. */
    void (*check)(void);

    /* A process whose bit is in `mortal` may die before each of its steps and in its sleep; at most
     * `deaths` processes in one execution do. The first death makes process `repairer` begin, the
     * second the process after that, but not before the first repair is done, and so on: there is
     * one supervisor, and these are the stretches of its life. Until its repair is done, such a
     * process does not die. -1: nobody repairs. */
    unsigned mortal;
    int deaths;
    int repairer;

    int preemptions;   /* the bound; -1: none */
    unsigned sleepers; /* bits of the processes that may still sleep at the end */
    /* The most steps that a process may need for one operation, whatever the others do meanwhile.
     * A process that waits for somebody who does not run exceeds any bound. 0: 1000 steps. */
    int operation;
};

struct explore_result {
    uint64_t executions, states, steps;
    int operation;       /* the most steps that an operation needed */
    const char *failure; /* NULL: none */
    bool cut_short;      /* the time was over before all was explored */
};

/* The shared memory, aligned to 128 bytes. */
extern unsigned char explore_memory[EXPLORE_MEMORY];

/* Explores it all, or until a failure, or for so many seconds (0: as long as it takes). */
struct explore_result explore(const struct explore_scenario *scenario, unsigned seconds);

/* ---- For the code that runs in the scenario ---- */

_Noreturn void explore_fail(const char *what);
/* The process whose code runs now; -1: none. */
int explore_running(void);

/* An operation begins: the steps that it may take are counted from here. Waking up is one, too. */
void explore_operation(void);
/* The same, and what the process has read before no longer matters to what it will do: only
 * `remembered` does, from which all that it still knows must follow. Fewer states differ then. */
void explore_forget(uint64_t remembered);
/* The process has learnt `value` by plain loads, and acts on it. */
void explore_remember(uint64_t value);

/* The process dies here, of a signal that it waited for: not one of `deaths`, but repaired
 * alike. */
_Noreturn void explore_die(void);

/* In a repairing process: which process's death it is to repair. */
int explore_dead(void);
/* ... and it has done so: the next death may be repaired. */
void explore_repaired(void);
/* How many have died in this execution. */
int explore_deaths(void);

/* For observe() and check(): whether a process sleeps, and whether it has died. */
bool explore_sleeping(int process);
bool explore_has_died(int process);

/* The kernel's part: a process that waits is not run until it is woken. */
int explore_futex_wait(const volatile void *word, uint32_t expected);
void explore_futex_wake(const volatile void *word, int count);

/* ---- The programs ---- */

/* Takes the command line: --long for scenarios that take minutes or hours, each for at most
 * --seconds N; a name for that one alone. */
void explore_arguments(int argc, char **argv);
/* Explores it, if the command line asks for it, and prints a line; for a failure also how it came
 * about. `longer`: only with --long. */
void explore_report(const struct explore_scenario *scenario, bool longer);
/* Prints the sums: EXIT_SUCCESS, if there was a scenario and no failure. */
int explore_finish(void);

#endif
