/* The threads beside those that submit: one kills, one sees whether anything hangs. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic.h"
#include "internal.h"
#include "storm.h"
#include "system.h"

#define STOPPED_MAX 16

/* ---- Killing ---- */

static pid_t parent_of(pid_t pid)
{
    char path[64], text[512], *end;
    FILE *file;
    size_t length;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (!file)
        return -1;
    length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    end = strrchr(text, ')');
    return end && strlen(end) > 4 ? (pid_t)strtol(end + 4, NULL, 10) : -1;
}

/* A pidfd of a worker: never of another process that has got its number. */
static int open_worker(struct pool *pool, int worker)
{
    pid_t pid = pool_worker_pid(pool, worker);
    int fd = pid ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

    if (fd >= 0 && parent_of(pid) != pool->supervisor_pid) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool send_signal(int fd, int number)
{
    return syscall(SYS_pidfd_send_signal, fd, number, NULL, 0) == 0;
}

struct stopped {
    int fd[STOPPED_MAX];
    int64_t due[STOPPED_MAX];
    int count;
};

static void wake_stopped(struct stopped *stopped, int64_t now)
{
    int i = 0;

    while (i < stopped->count) {
        if (stopped->due[i] > now) {
            i++;
            continue;
        }
        send_signal(stopped->fd[i], SIGCONT);
        close(stopped->fd[i]);
        stopped->count--;
        stopped->fd[i] = stopped->fd[stopped->count];
        stopped->due[i] = stopped->due[stopped->count];
    }
}

static void strike(struct storm *storm, struct stopped *stopped, uint64_t *random)
{
    int worker = (int)(storm_random(random) % (uint64_t)storm->pool->workers);
    bool started = shared_load(&pool_process(storm->pool, worker)->started, ACQUIRE);
    unsigned choice = storm_random(random) % 11;
    int fd;

    /* One that has not begun is spared as a rule: a pool whose workers never do breaks. */
    if (!started && (choice > 5 || storm_random(random) % 5))
        return;
    fd = open_worker(storm->pool, worker);
    if (fd < 0)
        return;
    if (choice < 6 && send_signal(fd, SIGKILL)) {
        atomic_fetch_add(&storm->killed, 1);
    } else if (choice >= 6 && choice < 9 && send_signal(fd, SIGSEGV)) {
        atomic_fetch_add(&storm->crashed, 1);
    } else if (choice >= 9 && stopped->count < STOPPED_MAX && send_signal(fd, SIGSTOP)) {
        atomic_fetch_add(&storm->stopped, 1);
        stopped->fd[stopped->count] = fd;
        stopped->due[stopped->count++] =
            system_now() + (int64_t)(storm_random(random) % (20 * MILLISECOND));
        return;
    }
    close(fd);
}

void *storm_kill(void *argument)
{
    struct storm *storm = argument;
    struct stopped stopped = {.count = 0};
    uint64_t random = storm->seed * 2 + 1;

    while (!atomic_load(&storm->over)) {
        struct timespec pause = {.tv_nsec = (long)(storm_random(&random) % (4 * MILLISECOND))};

        wake_stopped(&stopped, system_now());
        strike(storm, &stopped, &random);
        nanosleep(&pause, NULL);
    }
    wake_stopped(&stopped, INT64_MAX);
    return NULL;
}

/* ---- Watching ---- */

static void show_stacks_of(pid_t pid)
{
    char number[16];
    pid_t child;

    snprintf(number, sizeof number, "%d", (int)pid);
    child = fork();
    if (child == 0) {
        execlp("gdb", "gdb", "-p", number, "-batch", "-ex", "thread apply all bt 20", (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
}

static void show_stacks(struct pool *pool)
{
    pid_t pids[POOL_MAX_WORKERS];
    int worker;

    /* Before the first fork, after which the pool is another process's. */
    for (worker = 0; worker < pool->workers; worker++)
        pids[worker] = pool_worker_pid(pool, worker);
    fprintf(stderr, "Host:\n");
    show_stacks_of(getpid());
    fprintf(stderr, "Supervisor:\n");
    show_stacks_of(pool->supervisor_pid);
    for (worker = 0; worker < pool->workers; worker++) {
        fprintf(stderr, "Worker %d:\n", worker);
        if (pids[worker])
            show_stacks_of(pids[worker]);
    }
}

void *storm_watch(void *argument)
{
    struct storm *storm = argument;
    uint64_t before = UINT64_MAX;
    int64_t since = system_now();

    while (!atomic_load(&storm->over)) {
        uint64_t now = atomic_load(&storm->settled);

        if (now != before) {
            before = now;
            since = system_now();
        } else if (system_now() - since > HANG_SECONDS * SECOND) {
            fprintf(stderr, "WRONG: nothing has ended for %d s, seed %llu\n", HANG_SECONDS,
                    (unsigned long long)storm->seed);
            show_stacks(storm->pool);
            _exit(1);
        }
        poll(NULL, 0, 100);
    }
    return NULL;
}
