/* The explorer: coroutines and decisions. */
#include "explore.h"

#include <setjmp.h>
#include <stdalign.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

#include "atomic.h"
#include "decision.h"
#include "states.h"

#define STACK (64 * 1024)
#define DEPTH_MAX 4096
#define OPTIONS_MAX (2 * EXPLORE_PROCESSES)
#define OPERATION_MAX 1000

enum status { READY, BLOCKED, DONE, DEAD, DORMANT };

struct process {
    enum status status;
    uint64_t history;             /* hash of all that it has read and not forgotten */
    const volatile void *pending; /* the word of its next step; NULL: it is not there yet */
    const volatile void *sleeps;  /* on this word */
    int steps;                    /* of its operation */
    bool started;
    jmp_buf context;
    alignas(16) unsigned char stack[STACK];
};

alignas(128) unsigned char explore_memory[EXPLORE_MEMORY];

static struct process processes[EXPLORE_PROCESSES];
static const struct explore_scenario *scenario;
static struct explore_result result;
static struct decision decisions[DEPTH_MAX];
static int depth, prefix; /* decisions made in this execution; those that are given */
static int running = -1;  /* the process whose code runs, or -1: the explorer */
static int last;          /* the process that took the last step; -1: none yet */
static int preemptions, repairs;
static int deaths, dead[EXPLORE_PROCESSES]; /* all; of these the explorer decided on so many: */
static int chosen;
static int outside; /* steps in setup, or in check */
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

/* ---- Coroutines ---- */

static void process_entry(int index)
{
    scenario->body(index);
    processes[index].status = DONE;
    _longjmp(explorer, 1);
}

/* Runs a process through its pending step, to the next one, its sleep or its end. */
static void resume(int index)
{
    struct process *process = &processes[index];
    ucontext_t context;

    running = index;
    if (_setjmp(explorer) == 0) {
        if (process->started)
            _longjmp(process->context, 1);
        process->started = true;
        getcontext(&context);
        context.uc_stack.ss_sp = process->stack;
        context.uc_stack.ss_size = STACK;
        context.uc_link = NULL;
        makecontext(&context, (void (*)(void))process_entry, 1, index);
        setcontext(&context);
    }
    running = -1;
}

/* Brings those who have begun, or woken up, to their first step: on the way they meet nobody, so
 * that it makes no difference when they go. */
static void bring_to_step(void)
{
    int i;

    for (i = 0; i < EXPLORE_PROCESSES; i++)
        if (processes[i].status == READY && !processes[i].pending)
            resume(i);
}

static void yield_to_explorer(struct process *process)
{
    if (_setjmp(process->context) == 0)
        _longjmp(explorer, 1);
}

/* Folds what the last step changed into the hash of the memory. */
static void settle_memory(void)
{
    if (touched && *touched != before) {
        uint64_t place = (uint64_t)((const volatile unsigned char *)touched - explore_memory);

        memory_hash ^= mix(place, before) ^ mix(place, *touched);
    }
    touched = NULL;
}

static void count_step(struct process *process)
{
    int most = scenario->operation ? scenario->operation : OPERATION_MAX;

    if (++process->steps > result.operation)
        result.operation = process->steps;
    if (process->steps > most)
        explore_fail("an operation takes too many steps: it waits for somebody");
}

void explore_step(const volatile void *address, const char *file, int line)
{
    uint64_t place = (uint64_t)((const volatile unsigned char *)address - explore_memory);
    const volatile uint64_t *word =
        (const volatile uint64_t *)(explore_memory + place / sizeof(uint64_t) * sizeof(uint64_t));
    struct process *process;

    if (running < 0) { /* setup or check */
        if (++outside > DEPTH_MAX)
            explore_fail("no end, once all have ended: the memory is not as it should be");
        return;
    }
    if (place >= EXPLORE_MEMORY)
        explore_fail("an atomic operation outside the shared memory");
    process = &processes[running];
    process->pending = address;
    yield_to_explorer(process);
    decisions[depth - 1].file = file;
    decisions[depth - 1].line = line;
    process->history = mix(process->history, mix(place, *word));
    touched = word;
    before = *word;
    count_step(process);
}

int explore_futex_wait(const volatile void *word, uint32_t expected)
{
    struct process *process = &processes[running];

    explore_step(word, __FILE__, __LINE__);
    if (*(const volatile uint32_t *)word != expected)
        return 0;
    process->status = BLOCKED;
    process->sleeps = word;
    process->pending = NULL;
    yield_to_explorer(process);
    process->steps = 0;
    return 0;
}

void explore_futex_wake(const volatile void *word, int count)
{
    int i;

    if (running >= 0)
        explore_step(word, __FILE__, __LINE__);
    for (i = 0; i < EXPLORE_PROCESSES && count > 0; i++)
        if (processes[i].status == BLOCKED && processes[i].sleeps == word) {
            processes[i].status = READY;
            processes[i].history = mix(processes[i].history, 1);
            count--;
        }
}

bool explore_sleeping(int process)
{
    return processes[process].status == BLOCKED;
}

bool explore_has_died(int process)
{
    return processes[process].status == DEAD;
}

_Noreturn void explore_fail(const char *what)
{
    result.failure = what;
    running = -1;
    _longjmp(failed, 1);
}

int explore_running(void)
{
    return running;
}

void explore_operation(void)
{
    if (running >= 0)
        processes[running].steps = 0;
}

void explore_forget(uint64_t remembered)
{
    explore_operation();
    if (running >= 0)
        processes[running].history = mix((uint64_t)running + 1, remembered);
}

void explore_remember(uint64_t value)
{
    if (running >= 0)
        processes[running].history = mix(processes[running].history, value);
}

/* ---- Deaths ---- */

int explore_dead(void)
{
    return dead[running - scenario->repairer];
}

int explore_deaths(void)
{
    return deaths;
}

static void begin_repair(void)
{
    int process = scenario->repairer + repairs;

    if (scenario->repairer < 0 || repairs == deaths)
        return;
    if (process >= scenario->processes)
        explore_fail("there is no process to repair this");
    processes[process].status = READY;
}

void explore_repaired(void)
{
    repairs++;
    begin_repair();
}

static void die(int process)
{
    processes[process].status = DEAD;
    dead[deaths++] = process;
    if (repairs == deaths - 1)
        begin_repair();
}

_Noreturn void explore_die(void)
{
    die(running);
    _longjmp(explorer, 1);
}

/* ---- Decisions ---- */

static uint64_t state_hash(void)
{
    uint64_t hash = memory_hash;
    int i;

    for (i = 0; i < deaths; i++)
        hash = mix(hash, (uint64_t)dead[i] + 1);
    for (i = 0; i < EXPLORE_PROCESSES; i++)
        hash = mix(hash, mix(processes[i].history, (uint64_t)processes[i].status));
    /* Who ran last matters to nothing but the count of pre-emptions. That of a private step only
     * the one who ran last may be tried is no more than an order of what commutes. */
    if (scenario->preemptions >= 0)
        hash = mix(hash, (uint64_t)preemptions << 8 | (uint64_t)(last + 1));
    return hash;
}

static bool mortal(int process)
{
    /* While it repairs it is the supervisor, whose death is the pool's. */
    bool supervisor = scenario->repairer >= 0 && process >= scenario->repairer + repairs;

    return chosen < scenario->deaths && (scenario->mortal & 1U << process) && !supervisor;
}

/* What can happen next: processes that take a step, first the one that ran last, then deaths. A
 * death takes no pre-emption. */
static int list_options(int8_t options[OPTIONS_MAX])
{
    bool last_ready = last >= 0 && processes[last].status == READY;
    /* With two deaths to come, somebody else's, and its repair, may precede this process's. */
    bool alone = last_ready && scenario->private &&
                 scenario->private(last, processes[last].pending) &&
                 !(mortal(last) && scenario->deaths - chosen > 1);
    bool may_switch =
        !alone && (!last_ready || scenario->preemptions < 0 || preemptions < scenario->preemptions);
    int i, count = 0;

    if (last_ready)
        options[count++] = (int8_t)last;
    for (i = 0; i < EXPLORE_PROCESSES; i++)
        if (i != last && may_switch && processes[i].status == READY)
            options[count++] = (int8_t)i;
    for (i = 0; i < EXPLORE_PROCESSES; i++)
        if (mortal(i) && ((processes[i].status == READY && (i == last || may_switch)) ||
                          (processes[i].status == BLOCKED && !alone)))
            options[count++] = (int8_t)~i;
    return count;
}

static void take(int8_t option)
{
    if (option < 0) {
        chosen++;
        die(~option);
    } else {
        if (option != last && last >= 0 && processes[last].status == READY)
            preemptions++;
        last = option;
        result.steps++;
        resume(option);
        settle_memory();
    }
    bring_to_step();
    if (scenario->observe)
        scenario->observe();
}

static void begin_execution(void)
{
    int i;

    memset(explore_memory, 0, sizeof explore_memory);
    outside = 0;
    scenario->setup();
    memory_hash = 0;
    touched = NULL;
    last = -1;
    depth = preemptions = chosen = deaths = repairs = 0;
    for (i = 0; i < EXPLORE_PROCESSES; i++) {
        struct process *process = &processes[i];
        bool repairs_later = scenario->repairer >= 0 && i >= scenario->repairer;

        process->status = i >= scenario->processes ? DONE : repairs_later ? DORMANT : READY;
        process->started = false;
        process->history = (uint64_t)i + 1;
        process->sleeps = process->pending = NULL;
        process->steps = 0;
    }
    bring_to_step();
}

/* One execution: the given prefix, then the first option of each new decision. */
static void execute(void)
{
    int i;

    begin_execution();
    for (;;) {
        int8_t options[OPTIONS_MAX];
        int count = list_options(options);

        if (count == 0)
            break;
        if (depth >= DEPTH_MAX)
            explore_fail("no end: somebody makes no progress");
        if (depth >= prefix) {
            if (!states_add(state_hash()))
                return;
            decisions[depth].option = 0;
            decisions[depth].options = (uint8_t)count;
        }
        i = decisions[depth].option;
        decisions[depth++].process = options[i];
        take(options[i]);
    }
    for (i = 0; i < scenario->processes; i++)
        if (explore_sleeping(i) && !(scenario->sleepers & 1U << i))
            explore_fail("a process sleeps, and nobody will wake it");
    outside = 0;
    scenario->check();
}

struct explore_result explore(const struct explore_scenario *what, unsigned seconds)
{
    time_t end = time(NULL) + seconds;

    scenario = what;
    memset(&result, 0, sizeof result);
    states_clear();
    prefix = 0;
    if (_setjmp(failed) == 0)
        for (;;) {
            result.executions++;
            execute();
            while (depth > 0 && decisions[depth - 1].option + 1 >= decisions[depth - 1].options)
                depth--;
            if (depth == 0)
                break;
            if (seconds && result.executions % 1024 == 0 && time(NULL) >= end) {
                result.cut_short = true;
                break;
            }
            decisions[depth - 1].option++;
            prefix = depth;
        }
    result.states = states_count();
    return result;
}

const struct decision *explore_decisions(int *count)
{
    *count = depth;
    return decisions;
}
