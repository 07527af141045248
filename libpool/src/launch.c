/* The supervisor as a program of its own: the host's side, up to exec, and the program's, from
 * there on.
 *
 * What the program has to know stands in a file without a name, whose descriptor it is told as its
 * last argument. The other descriptors keep their numbers. The segment holds offsets only, so it
 * may lie anywhere; the program makes the same plan of it for itself. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"
#include "sized.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

#define MAGIC UINT64_C(0x6c6f6f706c6f6f70)

enum { FD_SEGMENT, FD_NOTIFY, FD_CONTROL, FD_HOST, FD_LIFE, FDS };

/* The file: this, then the payload, then the CPUs. Nobody but the host writes it. */
struct launch {
    uint64_t magic;
    char version[16];
    char name[32];
    uint64_t segment_size, limit, largest;
    int workers, spinners, retries, fds[FDS];
    int64_t timeout;
    uint64_t memory_limit, worker_jobs;
    dev_t device; /* of the host's executable */
    ino_t inode;
    pid_t host_pid;
    uint64_t payload_size;
    int cpu_count;
};

static void identify_executable(struct launch *launch)
{
    struct stat status;

    if (stat("/proc/self/exe", &status) < 0)
        return;
    launch->device = status.st_dev;
    launch->inode = status.st_ino;
}

static size_t cpus_size(const struct launch *launch)
{
    return (size_t)launch->cpu_count * sizeof(int);
}

/* ---- The host ---- */

static int write_all(int fd, const void *data, size_t size)
{
    const char *next = data;

    while (size > 0) {
        ssize_t written = write(fd, next, size);

        if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0) {
            next += written;
            size -= (size_t)written;
        }
    }
    return 0;
}

/* The descriptor of the file, or a negative errno. */
static int write_launch(const struct pool *pool, const struct pool_config *config, int life)
{
    struct launch launch = {
        .magic = MAGIC,
        .segment_size = pool->segment.size,
        .limit = pool->segment.limit,
        .largest = pool->largest,
        .workers = pool->workers,
        .spinners = pool->spinners,
        .retries = pool->retries,
        .fds = {pool->segment.fd, pool->notify_fd, pool->control_fd, pool->host_fd, life},
        .timeout = pool->timeout,
        .memory_limit = pool->memory_limit,
        .worker_jobs = pool->worker_jobs,
        .host_pid = pool->host_pid,
        .payload_size = config->payload_size,
        .cpu_count = config->cpu_count,
    };
    int error, fd = segment_anonymous_file();

    if (fd < 0)
        return fd;
    snprintf(launch.version, sizeof launch.version, "%s", pool_version());
    snprintf(launch.name, sizeof launch.name, "%s", pool->name);
    identify_executable(&launch);
    error = write_all(fd, &launch, sizeof launch);
    if (!error)
        error = write_all(fd, config->payload, config->payload_size);
    if (!error)
        error = write_all(fd, config->cpus, cpus_size(&launch));
    if (error)
        close(fd);
    return error ? error : fd;
}

struct child {
    const struct pool *pool;
    const struct pool_config *config;
    char *const *arguments;
    int launch, life;
    unsigned limit; /* one more than the highest descriptor */
    volatile int error;
};

static void keep_descriptor(int fd)
{
    fcntl(fd, F_SETFD, 0);
}

/* From a host with threads: descriptors that are not close-on-exec were not meant for us. */
static void keep_descriptors(const struct child *child)
{
    const struct pool *pool = child->pool;
    unsigned fd;
    int i;

    if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        for (fd = 3; fd < child->limit; fd++)
            fcntl((int)fd, F_SETFD, FD_CLOEXEC);
    keep_descriptor(child->launch);
    keep_descriptor(pool->segment.fd);
    keep_descriptor(pool->notify_fd);
    keep_descriptor(pool->control_fd);
    keep_descriptor(pool->host_fd);
    keep_descriptor(child->life);
    for (i = 0; i < child->config->keep_count; i++)
        keep_descriptor(child->config->keep[i]);
}

/* In the child of vfork(), on the host's memory: nothing but system calls. Its signals are its own,
 * and blocked; a handler of the host's must not run here. */
static _Noreturn void run_program(struct child *child)
{
    struct sigaction action = {.sa_handler = SIG_DFL}, found;
    int number;

    for (number = 1; number < NSIG; number++)
        if (sigaction(number, NULL, &found) == 0 && found.sa_handler != SIG_IGN)
            sigaction(number, &action, NULL);
    action.sa_handler = SIG_IGN; /* Ctrl-C is for the host */
    sigaction(SIGINT, &action, NULL);
    keep_descriptors(child);
    /* Until the program serves, the kernel kills it when the last write end of the pipe closes: the
     * host's, or, where the host has ended already, our own one, which exec closes. */
    fcntl(child->life, F_SETOWN, getpid());
    fcntl(child->life, F_SETSIG, SIGKILL);
    fcntl(child->life, F_SETFL, O_ASYNC);
    sigprocmask(SIG_SETMASK, &child->pool->host_mask, NULL);
    execv(child->arguments[0], child->arguments);
    child->error = errno;
    _exit(127);
}

/* Not fork(): it would run the fork handlers of libraries, and copy the page tables for nothing. */
static pid_t start_program(struct child *child)
{
    pid_t pid = vfork();

    if (pid == 0)
        run_program(child);
    if (pid < 0)
        return -errno;
    if (child->error) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return -child->error;
    }
    return pid;
}

pid_t launch_supervisor(struct pool *pool, const struct pool_config *config, const int life[2])
{
    struct child child = {.pool = pool, .config = config, .life = life[0]};
    struct rlimit limit = {.rlim_cur = 1024};
    size_t count = 0;
    char **arguments, number[16];
    pid_t pid;

    while (config->command[count])
        count++;
    arguments = calloc(count + 2, sizeof *arguments);
    if (!arguments)
        return -ENOMEM;
    child.launch = write_launch(pool, config, life[0]);
    if (child.launch < 0) {
        free(arguments);
        return child.launch;
    }
    snprintf(number, sizeof number, "%d", child.launch);
    /* execv() takes char *const[] for the sake of old programs, and changes nothing. */
    memcpy(arguments, config->command, count * sizeof *arguments);
    arguments[count] = number;
    child.arguments = arguments;
    getrlimit(RLIMIT_NOFILE, &limit);
    child.limit = (unsigned)(limit.rlim_cur < 1 << 20 ? limit.rlim_cur : 1 << 20);
    pid = start_program(&child);
    close(child.launch);
    free(arguments);
    return pid;
}

/* ---- The program ---- */

/* The file, mapped for good, or NULL. */
static const struct launch *map_launch(int fd)
{
    struct stat status;
    const struct launch *launch;
    size_t size;

    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) ||
        (size_t)status.st_size < sizeof *launch)
        return NULL;
    size = (size_t)status.st_size;
    launch = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (launch == MAP_FAILED)
        return NULL;
    if (launch->magic == MAGIC &&
        launch->payload_size == size - sizeof *launch - cpus_size(launch) &&
        strncmp(launch->version, pool_version(), sizeof launch->version) == 0)
        return launch;
    munmap((void *)(uintptr_t)launch, size);
    return NULL;
}

static int attach(struct pool *pool, const struct launch *launch)
{
    struct launch own = {0};
    int i, error;

    for (i = 0; i < FDS; i++)
        if (fcntl(launch->fds[i], F_SETFD, FD_CLOEXEC) < 0)
            return -EINVAL;
    pool->spinners = launch->spinners;
    pool->host_pid = launch->host_pid;
    create_plan(pool, launch->limit, launch->largest);
    if (pool->segment.size != launch->segment_size)
        return -EINVAL;
    error = segment_map_file(&pool->segment, launch->fds[FD_SEGMENT]);
    if (error)
        return error;
    pool->notify_fd = launch->fds[FD_NOTIFY];
    pool->event_file = system_file(pool->notify_fd);
    pool->control_fd = launch->fds[FD_CONTROL];
    pool->host_fd = launch->fds[FD_HOST];
    pool->life_fd = launch->fds[FD_LIFE];
    identify_executable(&own);
    if (own.device != launch->device || own.inode != launch->inode)
        pool->functions.executable = "(the supervisor's)";
    pool->attached = true;
    return 0;
}

/* NULL: no memory. */
static struct pool *create(const struct launch *launch)
{
    const unsigned char *payload = (const unsigned char *)(launch + 1);
    struct pool_config config;
    struct pool *pool;
    int *cpus = malloc(cpus_size(launch) + 1);

    if (!cpus)
        return NULL;
    memcpy(cpus, payload + launch->payload_size, cpus_size(launch));
    pool_config_init(&config);
    config.workers = launch->workers;
    config.timeout = launch->timeout;
    config.retries = launch->retries;
    config.memory_limit = launch->memory_limit;
    config.worker_jobs = launch->worker_jobs;
    config.name = launch->name;
    config.cpus = cpus;
    config.cpu_count = launch->cpu_count;
    pool = create_empty(&config);
    free(cpus);
    return pool;
}

int pool_attach(int descriptor, struct pool **out, const void **payload, size_t *size)
{
    const struct launch *launch = map_launch(descriptor);
    struct pool *pool;
    int error;

    *out = NULL;
    if (!launch)
        return -EINVAL;
    error = fork_watch();
    if (error)
        return error;
    pool = create(launch);
    if (!pool)
        return -ENOMEM;
    error = attach(pool, launch);
    if (error) {
        create_undo(pool);
        return error;
    }
    close(descriptor);
    *payload = launch + 1;
    *size = launch->payload_size;
    *out = pool;
    return 0;
}

int pool_serve(struct pool *pool, const struct pool_host *host)
{
    if (!pool->attached || pool->forks != fork_count() ||
        (host && sized_check(sizeof *host, host, sizeof *host) != 0))
        return -EINVAL;
    if (host)
        pool->host = *host;
    /* From here on we look at the pipe ourselves. */
    fcntl(pool->life_fd, F_SETFL, 0);
    sigprocmask(SIG_SETMASK, NULL, &pool->host_mask);
    supervisor_main(pool);
}
