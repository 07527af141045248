/* Runs the fuzzer: each run has a seed, and a process of its own, which this one looks after.
 *
 *     fuzz_host --runs 1000 --seed 1     seeds 1 to 1000
 *     fuzz_host --seconds 60             until the time is over
 *
 * A run fails if its process does not end by itself with 0 (a crash, a sanitizer's report, a call
 * that hangs), leaves a process behind, or has the bystander killed. The seed is printed then; with
 * `--runs 1 --seed N` the same run begins again. What a worker scribbles at the same time is not
 * the same each time.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuzz.h"
#include "system.h"

#define LEFT_SECONDS 5 /* in which the processes of a pool have to end after their host */

static pid_t start_bystander(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    return pid;
}

static bool bystander_lives(void)
{
    return waitpid(fuzz_shared->bystander, NULL, WNOHANG) == 0;
}

/* Reaps what has ended but the bystander: false if it was the only one there was. */
static bool reap_others(void)
{
    char path[64], children[256] = "", *rest;
    FILE *file;
    bool others = false;
    long pid;

    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    file = fopen(path, "re");
    if (!file)
        return false; /* a kernel that can't tell */
    (void)!fgets(children, sizeof children, file);
    fclose(file);
    for (rest = children; (pid = strtol(rest, &rest, 10)) > 0;)
        if (pid != fuzz_shared->bystander)
            others |= waitpid((pid_t)pid, NULL, WNOHANG) == 0;
    return others;
}

/* Orphans have come to this process. All have to end. */
static bool others_end(void)
{
    int64_t deadline = system_now() + LEFT_SECONDS * SECOND;

    while (reap_others())
        if (poll(NULL, 0, 1) < 0 || system_now() > deadline)
            return false;
    return !reap_others();
}

static bool run(uint64_t seed)
{
    int status = 0;
    bool lives, ended;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        struct chance chance = {.state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1};

        fuzz_once(&chance);
        exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    lives = bystander_lives();
    ended = lives && others_end();
    if (status || !lives || !ended)
        printf("FAILED: seed %llu: the host ended with %s %d in %s; bystander %s; %s\n",
               (unsigned long long)seed, WIFSIGNALED(status) ? "signal" : "status",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
               atomic_load(&fuzz_shared->call), lives ? "alive" : "KILLED",
               ended ? "no process left" : "processes left");
    return !status && lives && ended;
}

static bool parse(int argc, char **argv, uint64_t *runs, uint64_t *seed, double *seconds)
{
    int i;

    for (i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--runs") == 0)
            *runs = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            *seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            *seconds = strtod(argv[i + 1], NULL), *runs = UINT64_MAX;
        else
            return false;
    }
    return i == argc;
}

int main(int argc, char **argv)
{
    uint64_t runs = 200, seed = 1, done;
    double seconds = 1e9;
    int64_t start = system_now();
    int failed = 0;

    if (!parse(argc, argv, &runs, &seed, &seconds)) {
        fprintf(stderr, "usage: fuzz_host [--runs N] [--seed S] [--seconds N]\n");
        return 2;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    fuzz_shared =
        mmap(NULL, sizeof *fuzz_shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fuzz_shared == MAP_FAILED)
        return 2;
    atomic_store(&fuzz_shared->call, "main");
    fuzz_shared->bystander = start_bystander();
    for (done = 0; done < runs && failed < 5; done++) {
        if ((double)(system_now() - start) > seconds * 1e9)
            break;
        if (!run(seed + done)) {
            failed++;
            if (!bystander_lives())
                break;
        }
    }
    kill(fuzz_shared->bystander, SIGKILL);
    printf("%llu runs from seed %llu, %u calls, %u of them errors, %u words scribbled, %d failed\n",
           (unsigned long long)done, (unsigned long long)seed, atomic_load(&fuzz_shared->calls),
           atomic_load(&fuzz_shared->errors), atomic_load(&fuzz_shared->scribbles), failed);
    return failed != 0;
}
