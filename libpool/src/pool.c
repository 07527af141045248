/* Making and ending pools: what the host does. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic.h"
#include "internal.h"
#include "system.h"

#define READY_BITS 10     /* cells of the ready ring's first level */
#define COMPLETED_BITS 8  /* and of the completion ring's */
#define RING_LAST_BITS 25 /* twice as many cells as there can be jobs */
#define MEMORY_MIN (UINT64_C(1) << 20)
#define TERMINATE_MS 1000

const char *pool_version(void)
{
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
    return TEXT(POOL_VERSION_MAJOR) "." TEXT(POOL_VERSION_MINOR) "." TEXT(POOL_VERSION_PATCH);
}

static int pidfd_open(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);

    return fd < 0 ? -errno : fd;
}

/* ---- Making ---- */

void pool_config_init(struct pool_config *config)
{
    memset(config, 0, sizeof *config);
    config->size = sizeof *config;
    config->workers = pool_cpu_count();
    config->timeout = POOL_FOREVER;
}

/* Reserves all regions. `largest` is that of the arena's blocks. */
static void plan(struct pool *pool, uint64_t limit, uint64_t largest)
{
    struct segment *segment = &pool->segment;
    uint64_t jobs = limit / sizeof(struct job);

    segment_init(segment, limit);
    pool->control = segment_reserve(segment, sizeof(struct control));
    pool->processes = segment_reserve(segment, (uint64_t)pool->workers * sizeof(struct process));
    function_table_plan(&pool->functions, segment);
    ring_plan(&pool->ready, segment, READY_BITS, RING_LAST_BITS);
    ring_plan(&pool->completed, segment, COMPLETED_BITS, RING_LAST_BITS);
    job_table_plan(&pool->jobs, segment, &pool->arena,
                   jobs < FREEMAP_MAX ? (uint32_t)jobs : FREEMAP_MAX);
    arena_plan(&pool->arena, segment, largest);
}

static int commit_start(struct pool *pool)
{
    struct segment *segment = &pool->segment;
    int error = segment_commit(segment, pool->control, sizeof(struct control));

    if (!error)
        error = segment_commit(segment, pool->processes,
                               (uint64_t)pool->workers * sizeof(struct process));
    if (!error)
        error = function_table_start(&pool->functions);
    if (!error)
        error = ring_start(&pool->ready);
    if (!error)
        error = ring_start(&pool->completed);
    if (!error)
        error = job_table_start(&pool->jobs);
    if (!error)
        error = arena_start(&pool->arena);
    return error;
}

/* Maps the segment. Where address space is short (ulimit -v), the largest block that can be had
 * becomes smaller before the pool becomes impossible. */
static int map_segment(struct pool *pool, uint64_t limit)
{
    uint64_t largest = MEMORY_MIN;
    int error;

    while (largest < limit)
        largest *= 2;
    for (;;) {
        plan(pool, limit, largest);
        error = segment_map(&pool->segment);
        if (error != -ENOMEM || largest <= MEMORY_MIN)
            break;
        largest /= 2;
    }
    if (!error)
        error = commit_start(pool);
    if (error)
        segment_unmap(&pool->segment);
    return error;
}

static int check_config(const struct pool_config *config)
{
    if (config->size != sizeof *config)
        return -EINVAL;
    if (config->workers < 1 || config->workers > POOL_MAX_WORKERS)
        return -EINVAL;
    if (config->shared_limit && config->shared_limit < MEMORY_MIN)
        return -EINVAL;
    if (config->timeout < 1 || config->retries < 0 || config->retries > 255)
        return -EINVAL;
    return config->host && config->host->size != sizeof *config->host ? -EINVAL : 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void free_pool(struct pool *pool)
{
    segment_unmap(&pool->segment);
    close_fd(&pool->supervisor_fd);
    close_fd(&pool->notify_fd);
    close_fd(&pool->control_fd);
    close_fd(&pool->host_fd);
    close_fd(&pool->life_fd);
    pthread_mutex_destroy(&pool->lock);
    free(pool->slots);
    free(pool);
}

static int open_descriptors(struct pool *pool)
{
    pool->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool->notify_fd < 0)
        return -errno;
    pool->control_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool->control_fd < 0)
        return -errno;
    pool->event_file = system_file(pool->notify_fd); /* the kernel has one inode for all eventfds */
    /* Opened by the host itself, so that it can't be another process's that got its number. */
    pool->host_fd = pidfd_open(getpid());
    return pool->host_fd < 0 ? pool->host_fd : 0;
}

/* The pidfd tells the supervisor that the host has ended, the pipe that it has become another
 * program by exec. No signal is taken in the child before it has made its own arrangements. */
static int fork_supervisor(struct pool *pool)
{
    sigset_t all;
    int life[2];
    pid_t pid;

    if (pipe2(life, O_CLOEXEC) < 0)
        return -errno;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &pool->host_mask);
    pid = fork_process(pool);
    if (pid == 0) {
        close(life[1]);
        pool->life_fd = life[0];
        supervisor_main(pool);
    }
    pthread_sigmask(SIG_SETMASK, &pool->host_mask, NULL);
    close(life[0]);
    pool->life_fd = life[1];
    if (pid < 0)
        return (int)pid;
    pool->supervisor_pid = pid;
    close_fd(&pool->host_fd);
    pool->supervisor_fd = pidfd_open(pid);
    if (pool->supervisor_fd < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return pool->supervisor_fd;
    }
    return 0;
}

int pool_create(struct pool **out, const struct pool_config *config)
{
    struct pool_config defaults;
    struct pool *pool;
    int error;

    *out = NULL;
    if (!config) {
        pool_config_init(&defaults);
        config = &defaults;
    }
    error = check_config(config);
    if (!error)
        error = fork_watch();
    if (error)
        return error;
    pool = calloc(1, sizeof *pool);
    if (!pool)
        return -ENOMEM;
    pool->workers = config->workers;
    pool->spinners = pool_cpu_count() > 3 ? pool_cpu_count() / 2 : 1;
    pool->timeout = config->timeout;
    pool->retries = config->retries;
    pool->memory_limit = config->memory_limit;
    pool->worker_jobs = config->worker_jobs;
    if (config->host)
        pool->host = *config->host;
    pool->self = JOB_HOST;
    pool->host_pid = getpid();
    pool->host_fd = pool->supervisor_fd = pool->notify_fd = pool->control_fd = pool->life_fd = -1;
    pool->segment.fd = -1;
    pool->scan = UINT32_MAX;
    spin_init(&pool->spin);
    pthread_mutex_init(&pool->lock, NULL);
    error = map_segment(pool, config->shared_limit ? config->shared_limit : system_memory());
    if (!error)
        error = open_descriptors(pool);
    if (!error) {
        shared_store(&pool_control(pool)->notify_armed, 1, RELAXED);
        pool->forks = fork_count();
        error = fork_supervisor(pool);
    }
    if (error) {
        free_pool(pool);
        return error;
    }
    fork_register(pool);
    *out = pool;
    return 0;
}

/* ---- How it stands ---- */

int pool_usable(struct pool *pool)
{
    if (pool->forks != fork_count())
        return -EXDEV;
    /* Seq_cst: after a job has been queued, these are read after it can be seen. */
    if (atomic_load_explicit(&pool->broken, SEQ_CST))
        return -EOWNERDEAD;
    return shared_load(&pool_control(pool)->state, SEQ_CST) == CONTROL_RUNNING ? 0 : -ESHUTDOWN;
}

/* Ends every job that has not ended, when no worker will. */
static void end_jobs(struct pool *pool, enum job_state state)
{
    uint32_t index, count = job_table_sweep_count(&pool->jobs);

    for (index = 0; index < count; index++) {
        uint64_t word = shared_load(&job_at(&pool->jobs, index)->word, SEQ_CST);

        if (job_state(word) == JOB_QUEUED)
            schedule_cancel(pool, index, job_generation(word), state);
        /* It may have been claimed in between. */
        word = shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE);
        if (job_state(word) == JOB_RUNNING)
            schedule_end(pool, index, job_generation(word), job_owner(word), state);
    }
    schedule_notify_host(pool);
}

/* True if the supervisor has ended, and its exit is reaped. With the lock. */
static bool reap_supervisor(struct pool *pool, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = pool->supervisor_fd, .events = POLLIN};

    if (atomic_load_explicit(&pool->gone, ACQUIRE))
        return true;
    if (poll(&poll_fd, 1, timeout_ms) <= 0)
        return false;
    /* The program may have reaped it itself, with wait() for any child: that is fine. */
    while (waitpid(pool->supervisor_pid, NULL, 0) < 0 && errno == EINTR)
        ;
    atomic_store_explicit(&pool->gone, true, RELEASE);
    return true;
}

bool host_supervisor_alive(struct pool *pool)
{
    struct pollfd poll_fd = {.fd = pool->supervisor_fd, .events = POLLIN};

    return !atomic_load_explicit(&pool->gone, ACQUIRE) && poll(&poll_fd, 1, 0) <= 0;
}

enum job_state host_end_state(struct pool *pool)
{
    return shared_load(&pool_control(pool)->state, ACQUIRE) == CONTROL_TERMINATING ? JOB_CANCELLED
                                                                                   : JOB_LOST;
}

/* The supervisor has ended. If nobody asked it to, every job without a result is lost. The workers
 * end by themselves, when their parent does. */
void host_break(struct pool *pool)
{
    bool gone, ended;

    pthread_mutex_lock(&pool->lock);
    gone = atomic_load_explicit(&pool->gone, ACQUIRE);
    ended = reap_supervisor(pool, 0);
    if (ended && !gone)
        atomic_store_explicit(&pool->broken,
                              shared_load(&pool_control(pool)->state, ACQUIRE) == CONTROL_RUNNING,
                              SEQ_CST);
    pthread_mutex_unlock(&pool->lock);
    /* Each time: a worker that was just dying may have claimed a job since. */
    if (ended)
        end_jobs(pool, host_end_state(pool));
}

int pool_check(struct pool *pool)
{
    int error = pool_usable(pool);

    if (error == 0 && !host_supervisor_alive(pool)) {
        host_break(pool);
        error = pool_usable(pool);
    }
    return error;
}

/* ---- Ending ---- */

static void advance_state(struct pool *pool, uint32_t state)
{
    _Atomic uint32_t *shared = &pool_control(pool)->state;
    uint32_t now = shared_load(shared, ACQUIRE);

    while (now < state && !shared_cas(shared, &now, state, SEQ_CST))
        ;
    schedule_kick_supervisor(pool);
}

int pool_close(struct pool *pool)
{
    int error = pool_usable(pool);

    if (error == -EXDEV)
        return error;
    advance_state(pool, CONTROL_CLOSING);
    return 0;
}

/* The supervisor is stopped, or starved. Its workers end with it; waits for that, too. The pids are
 * what the shared memory says, so nothing is done to them but waiting, and not for long. */
static void kill_supervisor(struct pool *pool)
{
    struct pollfd *workers = calloc((size_t)pool->workers, sizeof *workers);
    int64_t deadline;
    int i;

    for (i = 0; workers && i < pool->workers; i++) {
        workers[i].fd = pidfd_open(pool_worker_pid(pool, i));
        workers[i].events = POLLIN;
    }
    syscall(SYS_pidfd_send_signal, pool->supervisor_fd, SIGKILL, NULL, 0);
    reap_supervisor(pool, -1);
    deadline = system_now() + TERMINATE_MS * INT64_C(1000000);
    for (i = 0; workers && i < pool->workers; i++) {
        int64_t left = (deadline - system_now()) / 1000000;

        if (workers[i].fd < 0)
            continue;
        poll(&workers[i], 1, left > 0 ? (int)left : 0);
        close(workers[i].fd);
    }
    free(workers);
}

int pool_terminate(struct pool *pool)
{
    if (pool_usable(pool) == -EXDEV)
        return -EXDEV;
    advance_state(pool, CONTROL_TERMINATING);
    pthread_mutex_lock(&pool->lock);
    if (!reap_supervisor(pool, TERMINATE_MS))
        kill_supervisor(pool);
    pthread_mutex_unlock(&pool->lock);
    end_jobs(pool, JOB_CANCELLED);
    return 0;
}

int pool_join(struct pool *pool, int64_t timeout)
{
    struct pollfd poll_fd = {.fd = pool->supervisor_fd, .events = POLLIN};
    struct timespec limit = {.tv_sec = (time_t)(timeout / 1000000000),
                             .tv_nsec = (long)(timeout % 1000000000)};
    int error = pool_usable(pool), ready = 1;

    if (error == -EXDEV)
        return error;
    if (error == 0)
        return -EBUSY;
    if (timeout < 0)
        return -EINVAL;
    if (!atomic_load_explicit(&pool->gone, ACQUIRE))
        ready = ppoll(&poll_fd, 1, timeout == POOL_FOREVER ? NULL : &limit, NULL);
    if (ready < 0)
        return -errno;
    if (ready == 0)
        return -ETIMEDOUT;
    /* An orderly end left no job; after a supervisor's death those that are left are lost. */
    host_break(pool);
    return 0;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    if (pool->forks == fork_count()) {
        if (!atomic_load_explicit(&pool->gone, ACQUIRE))
            pool_terminate(pool);
        fork_unregister(pool);
    }
    free_pool(pool);
}

/* ---- Insight ---- */

int pool_get_stats(struct pool *pool, struct pool_stats *stats)
{
    int worker;

    if (pool_usable(pool) == -EXDEV)
        return -EXDEV;
    if (stats->size != sizeof *stats)
        return -EINVAL;
    memset(stats, 0, sizeof *stats);
    stats->size = sizeof *stats;
    stats->workers = pool->workers;
    stats->supervisor = host_supervisor_alive(pool) ? pool->supervisor_pid : 0;
    for (worker = 0; worker < pool->workers; worker++) {
        stats->alive += stats->supervisor && pool_worker_pid(pool, worker) != 0;
        stats->jobs_started += shared_load(&pool_process(pool, worker)->jobs_started, RELAXED);
    }
    stats->jobs_retried = shared_load(&pool_control(pool)->jobs_retried, RELAXED);
    stats->workers_started = shared_load(&pool_control(pool)->workers_started, RELAXED);
    stats->memory = segment_committed(&pool->segment);
    stats->shared_limit = pool->segment.limit;
    return 0;
}

pid_t pool_worker_pid(struct pool *pool, int worker)
{
    if (pool_usable(pool) == -EXDEV || worker < 0 || worker >= pool->workers ||
        atomic_load_explicit(&pool->gone, ACQUIRE))
        return 0;
    return (pid_t)shared_load(&pool_process(pool, worker)->pid, ACQUIRE);
}
