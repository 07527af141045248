/* The supervisor: forks the workers, reaps them, repairs what a death left, forks replacements.
 *
 * A process of its own, single-threaded for ever, and the workers' parent: a fork of the host, or
 * the program that the host named (launch.c). From here on it runs no user code, and takes no job.
 * It sleeps in ppoll() until the host ends, the host has news in control.state, or a worker ends
 * (SIGCHLD, which is open only inside ppoll(), so none is missed).
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic.h"
#include "internal.h"
#include "log.h"
#include "system.h"

/* How often free memory is looked at; it is given back when it has not been used for two ticks. */
#define TICK_MS 5000
#define IDLE_TICKS 2
/* So many workers in a row that end before they have started, for each one of the pool, and the
 * pool is broken: what fails so often will go on failing. */
#define FAILURES_MAX 3

struct supervisor {
    struct pool *pool;
    /* 0: none. Those in shared memory are for others to read, and can be written by anybody. */
    pid_t pids[POOL_MAX_WORKERS];
    int alive;
    int failures;
    bool begun;        /* each worker has been started once */
    int64_t next_tick; /* ns */
    sigset_t open_mask;
    struct sigaction host_actions[NSIG];
};

/* ---- Workers ---- */

/* Whether take_signals() sets it to something else: what is left alone costs no system call in each
 * process that starts. */
static bool has_own_action(int number, const struct sigaction *action)
{
    return action->sa_handler != SIG_DFL || number == SIGCHLD || number == SIGQUIT ||
           number == SIGPIPE;
}

/* A worker starts with the signal handlers and the mask that the host, or the program, had, except
 * for Ctrl-C, which stays ignored until worker.c has put its own handler there. */
static void restore_signals(struct supervisor *supervisor)
{
    int number;

    for (number = 1; number < NSIG; number++)
        if (number != SIGINT && has_own_action(number, &supervisor->host_actions[number]))
            sigaction(number, &supervisor->host_actions[number], NULL);
    sigprocmask(SIG_SETMASK, &supervisor->pool->host_mask, NULL);
}

static int start_worker(struct supervisor *supervisor, int worker)
{
    struct pool *pool = supervisor->pool;
    struct process *process = pool_process(pool, worker);
    _Atomic uint64_t *started = &pool_control(pool)->workers_started;
    pid_t pid;

    shared_store(&process->started, 0, RELAXED);
    /* Counted first, by the only process that counts: the worker itself notes its pid, with a
     * release, and whoever sees that sees that it has been started. */
    shared_add(started, 1, RELAXED);
    pid = fork_process(pool);
    if (pid == 0) {
        close(pool->host_fd);
        close(pool->life_fd);
        pool->host_fd = pool->life_fd = -1;
        restore_signals(supervisor);
        worker_main(pool, worker);
    }
    if (pid < 0) {
        shared_add(started, (uint64_t)-1, RELAXED);
        log_say(pool, POOL_LOG_WARNING, "worker %d can't be forked: errno %d", worker, (int)-pid);
        return (int)pid;
    }
    supervisor->pids[worker] = pid;
    shared_store(&process->pid, (uint32_t)pid, RELEASE);
    supervisor->alive++;
    if (supervisor->begun)
        log_say(pool, POOL_LOG_INFO, "worker %d is replaced: pid %d", worker, (int)pid);
    else
        log_say(pool, POOL_LOG_DEBUG, "worker %d begins: pid %d", worker, (int)pid);
    return 0;
}

static int find_worker(const struct supervisor *supervisor, pid_t pid)
{
    int worker;

    for (worker = 0; worker < supervisor->pool->workers; worker++)
        if (supervisor->pids[worker] == pid)
            return worker;
    return -1;
}

static _Noreturn void end_now(struct supervisor *supervisor, int status)
{
    int worker;

    for (worker = 0; worker < supervisor->pool->workers; worker++)
        if (supervisor->pids[worker])
            kill(supervisor->pids[worker], SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    for (worker = 0; worker < supervisor->pool->workers; worker++)
        stats_end(pool_process(supervisor->pool, worker), system_now());
    _exit(status);
}

static bool work_left(struct pool *pool)
{
    struct ring_cursor cursor;

    return ring_peek(&pool->ready, &cursor);
}

/* Keeps the pool at its number of workers while there is a use for them. */
static void start_missing(struct supervisor *supervisor)
{
    struct pool *pool = supervisor->pool;
    uint32_t state = shared_load(&pool_control(pool)->state, SEQ_CST);
    /* What a host does at the start of each worker is done also where the pool is closed at once.
     */
    bool closing = supervisor->begun ? state != CONTROL_RUNNING : state >= CONTROL_TERMINATING;
    int worker;

    for (worker = 0; worker < pool->workers; worker++) {
        if (supervisor->pids[worker])
            continue;
        if (closing && !work_left(pool))
            return;
        if (supervisor->failures >= FAILURES_MAX * pool->workers ||
            (start_worker(supervisor, worker) < 0 && supervisor->alive == 0)) {
            log_say(pool, POOL_LOG_ERROR, "the pool is given up: no worker can be started");
            shared_store(&pool_control(pool)->failed, 1, RELEASE);
            end_now(supervisor, 1);
        }
        /* Where others use the cores, a worker that waits for one before the next is forked is a
         * result that comes later. */
        if (!supervisor->begun)
            sched_yield();
    }
    supervisor->begun = true;
}

/* Before the repair, which forgets the jobs. */
static void report_end(const struct pool *pool, int worker, pid_t pid, int status)
{
    const struct process *process = pool_process(pool, worker);
    bool started = shared_load(&process->started, ACQUIRE);
    unsigned jobs = shared_load(&process->depth, ACQUIRE);
    char ending[64];

    log_ending(status, ending, sizeof ending);
    if (!started)
        log_say(pool, POOL_LOG_WARNING, "worker %d (pid %d) did not come to start: it %s", worker,
                (int)pid, ending);
    else if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        log_say(pool, POOL_LOG_DEBUG, "worker %d (pid %d) ends", worker, (int)pid);
    else
        log_say(pool, POOL_LOG_WARNING, "worker %d (pid %d) %s; jobs it had: %u", worker, (int)pid,
                ending, jobs);
}

static void reap(struct supervisor *supervisor)
{
    struct pool *pool = supervisor->pool;
    int status;
    bool repaired = false;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        int worker = find_worker(supervisor, pid);
        bool orderly = WIFEXITED(status) && WEXITSTATUS(status) == 0;

        if (worker < 0)
            continue; /* a child of some fork hook's */
        supervisor->alive--;
        supervisor->pids[worker] = 0;
        report_end(pool, worker, pid, status);
        if (shared_load(&pool_process(pool, worker)->started, ACQUIRE))
            supervisor->failures = 0;
        else if (WIFEXITED(status) && WEXITSTATUS(status) == POOL_EXIT_HOPELESS)
            supervisor->failures = FAILURES_MAX * pool->workers;
        else
            supervisor->failures++;
        repair_worker(pool, worker, status);
        repaired |= !orderly;
    }
    start_missing(supervisor);
    if (repaired)
        repair_ring_everybody(pool);
}

/* ---- The process ---- */

static void on_child(int signal_number)
{
    (void)signal_number;
}

/* The host's handlers would run the host's code here: keep them for the workers and take the
 * default. Ctrl-C and Ctrl-\ are for the host. */
static void take_signals(struct supervisor *supervisor)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t mask;
    int number;

    for (number = 1; number < NSIG; number++) {
        /* The two numbers that are the C library's own are refused, and stay zero: the default. */
        sigaction(number, NULL, &supervisor->host_actions[number]);
        if (supervisor->host_actions[number].sa_handler != SIG_IGN &&
            supervisor->host_actions[number].sa_handler != SIG_DFL)
            sigaction(number, &action, NULL);
    }
    action.sa_handler = SIG_IGN;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGQUIT, &action, NULL);
    sigaction(SIGPIPE, &action, NULL);
    action.sa_handler = on_child;
    sigaction(SIGCHLD, &action, NULL);
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    sigemptyset(&supervisor->open_mask);
}

/* Kills what is due, and returns for how long to sleep. */
static struct timespec enforce(struct supervisor *supervisor)
{
    struct pool *pool = supervisor->pool;
    struct timespec sleep = {0};
    int64_t now = system_now(), tick = now + TICK_MS * INT64_C(1000000), next = now, look;

    /* First we say when we shall look, then look: see start_clock() in run.c. What is due
     * earlier than we said, and was there before, makes us say it again. */
    do {
        look = next > now ? next : tick;
        shared_store(&pool_control(pool)->next_look, look, SEQ_CST);
        next = limits_enforce(pool, supervisor->pids, now);
    } while (next < look);
    sleep.tv_sec = (time_t)((look - now) / 1000000000);
    sleep.tv_nsec = (long)((look - now) % 1000000000);
    return sleep;
}

static void give_back_memory(struct supervisor *supervisor)
{
    struct pool *pool = supervisor->pool;

    arena_tick(&pool->arena);
    arena_trim(&pool->arena, pool->self, IDLE_TICKS);
    supervisor->next_tick = system_now() + TICK_MS * INT64_C(1000000);
}

_Noreturn void supervisor_main(struct pool *pool)
{
    static struct supervisor supervisor;
    struct pollfd fds[3];
    int cores;

    pool->role = ROLE_SUPERVISOR;
    pool->self = (uint16_t)(pool->workers + 1);
    pool->forks = fork_count();
    pool->supervisor_pid = getpid();
    pthread_mutex_init(&pool->lock, NULL);
    function_table_forked(&pool->functions);
    /* In a pool that a job made, this is a copy of the outer supervisor's, with its children. */
    memset(&supervisor, 0, sizeof supervisor);
    supervisor.pool = pool;
    take_signals(&supervisor);
    title_set_supervisor(pool);
    fds[0] = (struct pollfd){.fd = pool->host_fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = pool->control_fd, .events = POLLIN};
    fds[2] = (struct pollfd){.fd = pool->life_fd, .events = POLLIN};
    start_missing(&supervisor);
    cores = pool_cpu_count();
    shared_store(&pool_control(pool)->spinners, cores > 3 ? (uint32_t)cores / 2 : 1, RELAXED);
    for (;;) {
        struct timespec sleep = enforce(&supervisor);
        uint32_t state = shared_load(&pool_control(pool)->state, SEQ_CST);
        uint64_t events;
        int ready;

        if (state >= CONTROL_TERMINATING) /* more is nonsense that a worker wrote */
            end_now(&supervisor, 0);
        if (state == CONTROL_CLOSING && supervisor.alive == 0 && !work_left(pool))
            _exit(0);
        ready = ppoll(fds, 3, &sleep, &supervisor.open_mask);
        if (ready > 0 && (fds[0].revents || fds[2].revents))
            end_now(&supervisor, 0);
        if (ready > 0 && fds[1].revents &&
            read(pool->control_fd, &events, sizeof events) == sizeof events &&
            shared_load(&pool_control(pool)->state, SEQ_CST) != CONTROL_RUNNING)
            repair_ring_everybody(pool);
        if (shared_exchange(&pool_control(pool)->unheard, 0, SEQ_CST))
            repair_ring_everybody(pool);
        if (system_now() >= supervisor.next_tick)
            give_back_memory(&supervisor);
        reap(&supervisor);
    }
}
