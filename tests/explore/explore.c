/* The explorer: coroutines, decisions, states seen. */
#include "explore.h"

#include <setjmp.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define STACK (64 * 1024)
#define DEPTH_MAX 4096
#define TRACE_OPTIONS (2 * EXPLORE_PROCESSES)

enum status { READY, BLOCKED, DONE, DEAD, DORMANT };

struct process {
    enum status status;
    uint64_t history;            /* hash of all that it has read */
    const volatile void *sleeps; /* on this word */
    const volatile void *pending; /* the word of its next step */
    bool started;
    jmp_buf context;
    alignas(16) unsigned char stack[STACK];
};

struct decision {
    uint8_t option, options;
    int8_t process; /* that took the step; ~process: that died */
};

alignas(128) unsigned char explore_memory[EXPLORE_MEMORY];
void explore_step(const volatile void *address);

static struct process processes[EXPLORE_PROCESSES];
static const struct explore_scenario *scenario;
static struct explore_result result;
static struct decision decisions[DEPTH_MAX];
static int depth, prefix; /* decisions made in this execution; those that are given */
static int running = -1;  /* the process whose code runs, or -1: the explorer */
static int last, preemptions, deaths, dead;
static jmp_buf explorer, failed;
static uint64_t memory_hash;

/* The word that the process now running may change, and what it was. */
static const volatile uint64_t *touched;
static uint64_t before;

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ (b + UINT64_C(0x9e3779b97f4a7c15) + (a << 6) + (a >> 2)));

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* ---- States seen: an open hash set that grows ---- */

static uint64_t *seen;
static size_t seen_count, seen_room;

static bool add_seen(uint64_t state)
{
    size_t slot;

    if (seen_count * 2 >= seen_room) {
        size_t i, room = seen_room ? seen_room * 2 : 1 << 16;
        uint64_t *bigger = calloc(room, sizeof *bigger);

        if (!bigger)
            abort();
        for (i = 0; i < seen_room; i++)
            if (seen[i]) {
                for (slot = seen[i] & (room - 1); bigger[slot]; slot = (slot + 1) & (room - 1))
                    ;
                bigger[slot] = seen[i];
            }
        free(seen);
        seen = bigger;
        seen_room = room;
    }
    state |= 1; /* 0 is an empty place */
    for (slot = state & (seen_room - 1); seen[slot]; slot = (slot + 1) & (seen_room - 1))
        if (seen[slot] == state)
            return false;
    seen[slot] = state;
    seen_count++;
    return true;
}

/* ---- Coroutines ---- */

static void process_entry(int index)
{
    scenario->body(index);
    processes[index].status = DONE;
    _longjmp(explorer, 1);
}

/* Runs a process until its next step, its sleep or its end. */
static void resume(int index)
{
    struct process *process = &processes[index];

    running = index;
    if (_setjmp(explorer) == 0) {
        if (process->started)
            _longjmp(process->context, 1);
        process->started = true;
        process->history = mix(process->history, 0); /* to its first step is a step, too */
        ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = process->stack;
        context.uc_stack.ss_size = STACK;
        context.uc_link = NULL;
        makecontext(&context, (void (*)(void))process_entry, 1, index);
        setcontext(&context);
    }
    running = -1;
}

static void yield_to_explorer(struct process *process)
{
    if (_setjmp(process->context) == 0)
        _longjmp(explorer, 1);
}

/* Folds what the last step changed into the hash of the memory. */
static void settle_memory(void)
{
    if (touched && *touched != before)
        memory_hash ^= mix((uintptr_t)touched, before) ^ mix((uintptr_t)touched, *touched);
    touched = NULL;
}

void explore_step(const volatile void *address)
{
    const volatile uint64_t *word = (const volatile uint64_t *)((uintptr_t)address & ~(uintptr_t)7);
    struct process *process;

    if (running < 0)
        return; /* setup or check */
    process = &processes[running];
    process->pending = address;
    yield_to_explorer(process);
    process->history = mix(process->history, mix((uintptr_t)address, *word));
    if ((const volatile unsigned char *)word >= explore_memory &&
        (const volatile unsigned char *)word < explore_memory + sizeof explore_memory) {
        touched = word;
        before = *word;
    }
}

int explore_futex_wait(const volatile void *word, uint32_t expected)
{
    struct process *process = &processes[running];

    explore_step(word);
    if (*(const volatile uint32_t *)word != expected)
        return 0;
    process->status = BLOCKED;
    process->sleeps = word;
    yield_to_explorer(process);
    return 0;
}

void explore_futex_wake(const volatile void *word, int count)
{
    int i;

    if (running >= 0)
        explore_step(word);
    for (i = 0; i < EXPLORE_PROCESSES && count > 0; i++)
        if (processes[i].status == BLOCKED && processes[i].sleeps == word) {
            processes[i].status = READY;
            processes[i].history = mix(processes[i].history, 1);
            count--;
        }
}

_Noreturn void explore_fail(const char *what)
{
    result.failure = what;
    running = -1;
    _longjmp(failed, 1);
}

int explore_dead(void)
{
    return dead;
}

int explore_deaths(void)
{
    return deaths;
}

int explore_running(void)
{
    return running;
}

/* ---- Decisions ---- */

static uint64_t state_hash(void)
{
    uint64_t hash = mix(memory_hash, (uint64_t)deaths);
    int i;

    for (i = 0; i < EXPLORE_PROCESSES; i++)
        hash = mix(hash, processes[i].history ^ (uint64_t)processes[i].status << 60);
    if (scenario->preemptions >= 0)
        hash = mix(hash, (uint64_t)preemptions << 8 | (uint64_t)last);
    return hash;
}

/* What can happen next: processes that take a step, first the one that ran last, then deaths. */
static int list_options(int8_t options[TRACE_OPTIONS])
{
    bool alone = processes[last].status == READY && processes[last].pending && scenario->private &&
                 scenario->private(last, processes[last].pending);
    bool may_switch = !alone && ( scenario->preemptions < 0 || preemptions < scenario->preemptions ||
                      processes[last].status != READY);
    int i, count = 0;

    if (processes[last].status == READY)
        options[count++] = (int8_t)last;
    for (i = 0; i < EXPLORE_PROCESSES; i++)
        if (i != last && may_switch && processes[i].status == READY)
            options[count++] = (int8_t)i;
    /* A sleeping process may die, too. A death takes no pre-emption. */
    for (i = 0; i < EXPLORE_PROCESSES && deaths < scenario->deaths; i++)
        if ((scenario->mortal & 1U << i) &&
            (processes[i].status == READY || processes[i].status == BLOCKED) &&
            (i == last || (!alone && processes[i].status == BLOCKED) || may_switch))
            options[count++] = (int8_t)~i;
    return count;
}

static void take(int8_t option)
{
    if (option < 0) {
        dead = ~option;
        processes[dead].status = DEAD;
        deaths++;
        if (scenario->repairer >= 0)
            processes[scenario->repairer].status = READY;
        return;
    }
    if (option != last && processes[last].status == READY)
        preemptions++;
    last = option;
    result.steps++;
    resume(option);
    settle_memory();
    if (scenario->observe)
        scenario->observe();
}

static void begin_execution(void)
{
    int i;

    memset(explore_memory, 0, sizeof explore_memory);
    scenario->setup();
    memory_hash = 0;
    touched = NULL;
    depth = preemptions = deaths = last = 0;
    dead = -1;
    for (i = 0; i < EXPLORE_PROCESSES; i++) {
        processes[i].status = i >= scenario->processes       ? DONE
                              : i == scenario->repairer ? DORMANT
                                                        : READY;
        processes[i].started = false;
        processes[i].history = (uint64_t)i + 1;
        processes[i].sleeps = processes[i].pending = NULL;
    }
}

/* One execution: the given prefix, then the first option of each new decision. */
static void execute(void)
{
    begin_execution();
    for (;;) {
        int8_t options[TRACE_OPTIONS];
        int i, count = list_options(options);

        if (count == 0)
            break;
        if (depth >= DEPTH_MAX)
            explore_fail("no end: somebody makes no progress");
        if (depth >= prefix) {
            if (!add_seen(state_hash()))
                return;
            decisions[depth].option = 0;
            decisions[depth].options = (uint8_t)count;
        }
        i = decisions[depth].option;
        decisions[depth++].process = options[i];
        take(options[i]);
    }
    for (int i = 0; i < scenario->processes; i++)
        if (processes[i].status == BLOCKED)
            explore_fail("a process sleeps, and nobody will wake it");
    scenario->check();
}

struct explore_result explore(const struct explore_scenario *what, uint64_t limit)
{
    scenario = what;
    memset(&result, 0, sizeof result);
    free(seen);
    seen = NULL;
    seen_count = seen_room = 0;
    prefix = 0;
    if (_setjmp(failed))
        return result;
    for (;;) {
        execute();
        result.executions++;
        result.states = seen_count;
        while (depth > 0 && decisions[depth - 1].option + 1 >= decisions[depth - 1].options)
            depth--;
        if (depth == 0 || (limit && result.executions >= limit))
            return result;
        decisions[depth - 1].option++;
        prefix = depth;
    }
}

static void print_trace(void)
{
    int i;

    for (i = 0; i < depth; i++)
        if (decisions[i].process < 0)
            printf(" [%d dies]", ~decisions[i].process);
        else
            printf(" %d", decisions[i].process);
    printf("\n");
}

bool explore_report(const struct explore_scenario *what)
{
    struct explore_result found = explore(what, 0);
    char bound[32] = "every interleaving";

    if (what->preemptions >= 0)
        snprintf(bound, sizeof bound, "%d pre-emptions", what->preemptions);
    printf("%-44s %-18s %s %9llu executions %9llu states %10llu steps  %s\n", what->name, bound,
           what->deaths ? "a death anywhere" : "no death        ",
           (unsigned long long)found.executions, (unsigned long long)found.states,
           (unsigned long long)found.steps, found.failure ? found.failure : "ok");
    if (found.failure)
        print_trace();
    fflush(stdout);
    return !found.failure;
}
