/* Watching processes from outside: that they end, and that nothing is left of them. */
#include "watch.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "system.h"

static sigset_t child_signal, host_mask;

void watch_begin(void)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_signal, &host_mask);
}

pid_t watch_fork(void)
{
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0)
        sigprocmask(SIG_SETMASK, &host_mask, NULL);
    return pid;
}

/* ---- When something hangs ---- */

static void each_child(pid_t parent, void (*visit)(pid_t pid))
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;

    while (processes && (entry = readdir(processes))) {
        pid_t pid = (pid_t)atoi(entry->d_name), its_parent;
        char path[64], text[512], *end;
        FILE *file;

        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
        file = pid > 0 ? fopen(path, "re") : NULL;
        if (!file)
            continue;
        if (fgets(text, sizeof text, file) && (end = strrchr(text, ')')) &&
            sscanf(end + 1, " %*c %d", &its_parent) == 1 && its_parent == parent)
            visit(pid);
        fclose(file);
    }
    if (processes)
        closedir(processes);
}

static void print_stacks(pid_t pid)
{
    char number[16];
    pid_t gdb;

    each_child(pid, print_stacks);
    printf("---- process %d\n", (int)pid);
    fflush(stdout);
    snprintf(number, sizeof number, "%d", (int)pid);
    gdb = fork();
    if (gdb == 0) {
        alarm(30);
        dup2(STDOUT_FILENO, STDERR_FILENO);
        execlp("gdb", "gdb", "-p", number, "--batch", "-nx", "-ex", "thread apply all backtrace",
               (char *)NULL);
        _exit(127);
    }
    if (gdb > 0)
        waitpid(gdb, NULL, 0);
}

static void kill_tree(pid_t pid)
{
    each_child(pid, kill_tree);
    kill(pid, SIGKILL);
}

/* Sleeps until a child ends, or `deadline`: false. */
static bool await_child(int64_t deadline)
{
    int64_t left = deadline - system_now();
    struct timespec time = {.tv_sec = (time_t)(left / 1000000000),
                            .tv_nsec = (long)(left % 1000000000)};

    return left > 0 && (sigtimedwait(&child_signal, NULL, &time) >= 0 || errno == EINTR);
}

static void give_up(void)
{
    each_child(getpid(), print_stacks);
    each_child(getpid(), kill_tree);
    while (waitpid(-1, NULL, 0) > 0)
        ;
}

/* ---- Waiting ---- */

int watch_wait(pid_t pid, int64_t timeout)
{
    int64_t deadline = system_now() + timeout;
    pid_t found;
    int status;

    while ((found = waitpid(pid, &status, WNOHANG)) == 0)
        if (!await_child(deadline)) {
            give_up();
            return -1;
        }
    return found == pid ? status : -1;
}

int64_t watch_others(int64_t timeout)
{
    int64_t deadline = system_now() + timeout;
    pid_t found;

    while ((found = waitpid(-1, NULL, WNOHANG)) >= 0)
        if (found == 0 && !await_child(deadline)) {
            give_up();
            return -1;
        }
    return system_now();
}

bool watch_left_files(pid_t pid)
{
    DIR *files = opendir("/dev/shm");
    char prefix[64];
    struct dirent *entry;
    bool found = false;

    snprintf(prefix, sizeof prefix, "libpool-%ld-", (long)pid);
    while (files && (entry = readdir(files)))
        found |= strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    if (files)
        closedir(files);
    return found;
}
