/* A worker process: how it begins and ends. */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "atomic.h"
#include "internal.h"
#include "log.h"
#include "system.h"

/* A worker is one process with one thread that runs jobs, and belongs to one pool. */
static struct pool *current_pool;

struct pool *pool_current(void)
{
    return current_pool && pool_usable(current_pool) != -EXDEV ? current_pool : NULL;
}

int pool_worker_index(void)
{
    return pool_current() ? current_pool->self - 1 : -1;
}

static void ignore_signal(int signal_number)
{
    (void)signal_number;
}

/* Ctrl-C goes to every process of the terminal; it is the host's to act on. A handler, and not
 * SIG_IGN, which programs started by a job would inherit. */
static void leave_interrupt_to_host(void)
{
    struct sigaction action = {.sa_handler = ignore_signal, .sa_flags = SA_RESTART};

    sigaction(SIGINT, &action, NULL);
}

void process_die_with_supervisor(struct pool *pool)
{
    /* The supervisor's only thread is our parent, so this fires when the supervisor ends. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != pool->supervisor_pid)
        _exit(1);
}

/* What this process can't say, the supervisor says for it: a signal needs no descriptor. */
static void ask_supervisor(struct pool *pool)
{
    shared_store(&pool_control(pool)->unheard, 1, SEQ_CST);
    if (getppid() == pool->supervisor_pid)
        kill(pool->supervisor_pid, SIGCHLD);
}

void process_raise(struct pool *pool, int fd)
{
    uint64_t one = 1;

    /* Full (EAGAIN) only after 2^64 - 1 unread events; the reader is awake then. */
    if (system_is_file(fd, pool->event_file) &&
        (write(fd, &one, sizeof one) == sizeof one || errno == EAGAIN))
        return;
    pool->deaf = true;
    if (pool->role == ROLE_WORKER)
        ask_supervisor(pool);
}

/* A CPU may have gone since the pool was made: a worker elsewhere is better than none. */
static void pin(const struct pool *pool, int worker)
{
    int cpu, error;

    if (pool->cpu_count == 0)
        return;
    cpu = pool->cpus[worker % pool->cpu_count];
    error = system_pin(cpu);
    if (error)
        log_say(pool, POOL_LOG_WARNING, "worker %d can't be pinned to CPU %d: errno %d", worker,
                cpu, -error);
}

_Noreturn void worker_main(struct pool *pool, int worker)
{
    struct process *process = pool_process(pool, worker);

    pool->role = ROLE_WORKER;
    pool->self = (uint16_t)(worker + 1);
    pool->forks = fork_count();
    pool->spinning = pool->deaf = false;
    pool->nesting = pool->timed = 0;
    pool->slot_count = 0; /* those were another process's */
    spin_init(&pool->spin);
    current_pool = pool;
    fork_register(pool); /* for the processes that jobs fork */
    process_die_with_supervisor(pool);
    pin(pool, worker);
    leave_interrupt_to_host();
    title_set_worker(pool, worker);
    /* The supervisor writes it too, perhaps only when this worker's first job has ended. */
    shared_store(&process->pid, (uint32_t)getpid(), RELEASE);
    if (pool->host.start && pool->host.start(pool->host.context, pool, (unsigned)worker) != 0)
        _exit(1);
    process_die_with_supervisor(pool);
    if (pool->memory_limit && limits_set_memory(pool->memory_limit) < 0)
        _exit(1);
    stats_begin(process, system_now());
    shared_store(&process->started, 1, RELEASE);
    worker_loop(pool);
    if (pool->host.stop)
        pool->host.stop(pool->host.context);
    _exit(0);
}
