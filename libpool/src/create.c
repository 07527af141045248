/* Making pools: what the host does. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic.h"
#include "internal.h"
#include "sized.h"
#include "system.h"

#define READY_BITS 10     /* cells of the ready ring's first level */
#define COMPLETED_BITS 8  /* and of the completion ring's */
#define RING_LAST_BITS 25 /* twice as many cells as there can be jobs */
#define MEMORY_MIN (UINT64_C(1) << 20)
#define LARGEST_MAX (UINT64_C(1) << 47) /* no process has more address space */

int create_pidfd(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);

    return fd < 0 ? -errno : fd;
}

/* ---- Making ---- */

/* A program that was compiled before there was a limit of the queue has all up to that. */
#define CONFIG_LEAST offsetof(struct pool_config, queue_limit)

void pool_config_init_size(struct pool_config *config, size_t size)
{
    struct pool_config defaults = {
        .size = size, .workers = pool_cpu_count(), .timeout = POOL_FOREVER};

    sized_give(config, size, &defaults, sizeof defaults);
}

void create_plan(struct pool *pool, uint64_t limit, uint64_t largest)
{
    struct segment *segment = &pool->segment;
    uint64_t jobs = limit / sizeof(struct job);

    pool->largest = largest;
    segment_init(segment, limit);
    pool->control = segment_reserve(segment, sizeof(struct control));
    pool->processes = segment_reserve(segment, (uint64_t)pool->workers * sizeof(struct process));
    function_table_plan(&pool->functions, segment);
    ring_plan(&pool->ready, segment, READY_BITS, RING_LAST_BITS);
    ring_plan(&pool->completed, segment, COMPLETED_BITS, RING_LAST_BITS);
    job_table_plan(&pool->jobs, segment, &pool->arena,
                   jobs < FREEMAP_MAX ? (uint32_t)jobs : FREEMAP_MAX);
    arena_plan(&pool->arena, segment, (unsigned)pool->workers + 1, largest);
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

    while (largest < limit && largest < LARGEST_MAX)
        largest *= 2;
    for (;;) {
        create_plan(pool, limit, largest);
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
    if (config->workers < 1 || config->workers > POOL_MAX_WORKERS)
        return -EINVAL;
    if (config->shared_limit && config->shared_limit < MEMORY_MIN)
        return -EINVAL;
    if (config->command && (!config->command[0] || config->host))
        return -EINVAL;
    if (config->keep_count < 0 ||
        (!config->command && (config->payload_size || config->keep_count)))
        return -EINVAL;
    if (config->timeout < 1 || config->retries < 0 || config->retries > 255)
        return -EINVAL;
    if (config->cpu_count < 0 || (config->cpu_count && !config->cpus) ||
        !system_may_use(config->cpus, config->cpu_count))
        return -EINVAL;
    return config->host ? sized_check(sizeof *config->host, config->host, sizeof *config->host) : 0;
}

void create_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void create_undo(struct pool *pool)
{
    segment_unmap(&pool->segment);
    create_close(&pool->supervisor_fd);
    create_close(&pool->notify_fd);
    create_close(&pool->control_fd);
    create_close(&pool->host_fd);
    create_close(&pool->life_fd);
    pthread_mutex_destroy(&pool->lock);
    free(pool->slots);
    free(pool->cpus);
    free(pool);
}

/* Valgrind and some sandboxes have no pidfds. A pipe does instead, whose one end the host has and
 * the other the supervisor: each polls its own, and is told when the other's is closed. But where
 * the host's other threads fork just now, without a handler of ours, the child has both. */
static int open_pipe_for_pidfds(struct pool *pool)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pool->supervisor_fd = ends[0];
    pool->host_fd = ends[1];
    return 0;
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
    pool->host_fd = create_pidfd(getpid());
    if (pool->host_fd == -ENOSYS || pool->host_fd == -EPERM)
        return open_pipe_for_pidfds(pool);
    return pool->host_fd < 0 ? pool->host_fd : 0;
}

/* The pidfd tells the supervisor that the host has ended, the pipe that it has become another
 * program by exec. No signal is taken in the child before it has made its own arrangements. */
static int start_supervisor(struct pool *pool, const struct pool_config *config)
{
    sigset_t all;
    int life[2];
    pid_t pid;

    if (pipe2(life, O_CLOEXEC) < 0)
        return -errno;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &pool->host_mask);
    pid = config->command ? launch_supervisor(pool, config, life) : fork_process(pool);
    if (pid == 0) {
        close(life[1]);
        create_close(&pool->supervisor_fd);
        pool->life_fd = life[0];
        supervisor_main(pool);
    }
    pthread_sigmask(SIG_SETMASK, &pool->host_mask, NULL);
    close(life[0]);
    pool->life_fd = life[1];
    if (pid < 0)
        return (int)pid;
    pool->supervisor_pid = pid;
    create_close(&pool->host_fd);
    if (pool->supervisor_fd < 0)
        pool->supervisor_fd = create_pidfd(pid);
    if (pool->supervisor_fd < 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return pool->supervisor_fd;
    }
    return 0;
}

struct pool *create_empty(const struct pool_config *config)
{
    struct pool *pool = calloc(1, sizeof *pool);

    if (!pool)
        return NULL;
    if (config->cpu_count) {
        pool->cpus = calloc((size_t)config->cpu_count, sizeof *pool->cpus);
        if (!pool->cpus) {
            free(pool);
            return NULL;
        }
        memcpy(pool->cpus, config->cpus, (size_t)config->cpu_count * sizeof *pool->cpus);
        pool->cpu_count = config->cpu_count;
    }
    pool->workers = config->workers;
    pool->timeout = config->timeout;
    pool->retries = config->retries;
    pool->memory_limit = config->memory_limit;
    pool->worker_jobs = config->worker_jobs;
    pool->queue_limit = config->queue_limit;
    pool->log = config->log;
    pool->log_context = config->log_context;
    snprintf(pool->name, sizeof pool->name, "%s", config->name ? config->name : "libpool");
    if (config->host)
        pool->host = *config->host;
    pool->self = JOB_HOST;
    pool->host_pid = getpid();
    pool->host_fd = pool->supervisor_fd = pool->notify_fd = pool->control_fd = pool->life_fd = -1;
    pool->segment.fd = -1;
    pool->scan = UINT32_MAX;
    spin_init(&pool->spin);
    pthread_mutex_init(&pool->lock, NULL);
    pool->forks = fork_count();
    return pool;
}

static int take_config(struct pool_config *config, const struct pool_config *given)
{
    int error = 0;

    if (given)
        error = sized_take(config, sizeof *config, given, CONFIG_LEAST);
    else
        pool_config_init(config);
    return error ? error : check_config(config);
}

int pool_create(struct pool **out, const struct pool_config *given)
{
    struct pool_config taken, *config = &taken;
    struct pool *pool;
    int error;

    *out = NULL;
    error = take_config(config, given);
    if (!error)
        error = fork_watch();
    if (error)
        return error;
    pool = create_empty(config);
    if (!pool)
        return -ENOMEM;
    error = map_segment(pool, config->shared_limit ? config->shared_limit : system_memory());
    if (!error)
        error = open_descriptors(pool);
    if (!error) {
        shared_store(&pool_control(pool)->notify_armed, 1, RELAXED);
        error = start_supervisor(pool, config);
    }
    if (error) {
        create_undo(pool);
        return error;
    }
    fork_register(pool);
    *out = pool;
    /* Where others use the cores, the supervisor would wait for this one until the first job is
     * submitted and waited for. */
    sched_yield();
    return 0;
}
