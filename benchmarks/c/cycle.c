/* What a job costs where nobody waits: the plays of play.h, for a clock or for callgrind.
 *
 *     cycle lone|burst WORKERS JOBS
 *
 * Prints for "lone" the nanoseconds that a job takes on both sides together, for "burst" those of
 * submitting, running and collecting. The best of some repetitions, so that JOBS runs often enough
 * to count: under callgrind (benchmarks/instructions.py) only what one JOBS more adds is of use. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "play.h"

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double lower(double left, double right)
{
    return left < right ? left : right;
}

static bool time_lone(uint64_t jobs)
{
    double start = now();

    if (!play_lone(jobs))
        return false;
    printf("both\t%.2f\n", (now() - start) / (double)jobs);
    return true;
}

static bool time_burst(uint64_t jobs)
{
    double best[3] = {1e18, 1e18, 1e18};
    uint64_t batch;

    for (batch = 0; batch * PLAY_BATCH < jobs; batch++) {
        double start = now(), submitted, ran, collected;

        if (!play_submit_batch())
            return false;
        submitted = now();
        if (!play_run_batch())
            return false;
        ran = now();
        if (!play_collect_batch())
            return false;
        collected = now();
        best[0] = lower(best[0], submitted - start);
        best[1] = lower(best[1], ran - submitted);
        best[2] = lower(best[2], collected - ran);
    }
    printf("submit\t%.2f\nrun\t%.2f\ncollect\t%.2f\n", best[0] / PLAY_BATCH, best[1] / PLAY_BATCH,
           best[2] / PLAY_BATCH);
    return true;
}

int main(int argc, char **argv)
{
    long workers = argc == 4 ? strtol(argv[2], NULL, 10) : 0;
    unsigned long long jobs = argc == 4 ? strtoull(argv[3], NULL, 10) : 0;
    bool lone = argc == 4 && strcmp(argv[1], "lone") == 0, done;

    if (workers < 1 || jobs < 1 || (!lone && strcmp(argv[1], "burst") != 0)) {
        fprintf(stderr, "usage: %s lone|burst WORKERS JOBS\n", argv[0]);
        return 2;
    }
    if (!play_open((int)workers)) {
        fprintf(stderr, "%s: no pool\n", argv[0]);
        return 1;
    }
    done = lone ? time_lone(jobs) : time_burst(jobs);
    play_close();
    if (!done)
        fprintf(stderr, "%s: a job failed\n", argv[0]);
    return !done;
}
