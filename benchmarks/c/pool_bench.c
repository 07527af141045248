/* Jobs that do nothing, through libpool and through the pools it is compared with.
 *
 *     pool_bench [-w WORKERS] [-r ROUNDS] [-n JOBS]
 *
 * Prints one line for each round, pool and row: row, pool, round, seconds, separated by tabs; and
 * before these "missing", pool, what it needs, for each that this program was built without. The
 * pools take turns within a round, and each is made anew, so that none of them runs beside
 * another. benchmarks/native.py makes medians and ratios of the lines.
 *
 *   round trip  the median time from submitting a job to having its result, over JOBS / 10 jobs
 *   burst       the time for JOBS jobs, all submitted before the first is waited for; the second
 *               time this pool does it, with the memory that the first time made it take */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "contender.h"

static const struct contender *const contenders[] = {
    &contender_condition, &contender_libpool,
#ifdef HAVE_GLIB
    &contender_glib,
#endif
#ifdef HAVE_OPENMP
    &contender_openmp,
#endif
#ifdef HAVE_TBB
    &contender_tbb,
#endif
};

enum { CONTENDERS = sizeof contenders / sizeof *contenders };

/* Those that this program was built without, and what to install for them. */
static const char *const missing[][2] = {
#ifndef HAVE_GLIB
    {"GThreadPool", "libglib2.0-dev"},
#endif
#ifndef HAVE_OPENMP
    {"OpenMP tasks", "a compiler with OpenMP"},
#endif
#ifndef HAVE_TBB
    {"oneTBB task_group", "g++ and libtbb-dev"},
#endif
    {NULL, NULL},
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static bool median_round_trip(const struct contender *contender, void *pool, size_t count,
                              double *median)
{
    double *times = malloc(count * sizeof *times);
    if (times == NULL)
        return false;
    bool fine = true;
    for (size_t i = 0; i < count && fine; i++) {
        double start = now();
        fine = contender->round_trip(pool);
        times[i] = now() - start;
    }
    if (fine) {
        qsort(times, count, sizeof *times, compare);
        *median = times[count / 2];
    }
    free(times);
    return fine;
}

static bool measure(const struct contender *contender, int workers, int round, size_t jobs)
{
    void *pool = contender->open(workers);
    if (pool == NULL)
        return false;

    double median = 0;
    bool fine = contender->burst(pool, jobs);
    if (contender->round_trip != NULL)
        fine = fine && median_round_trip(contender, pool, jobs / 10 + 1, &median);
    double start = now();
    fine = fine && contender->burst(pool, jobs);
    double end = now();
    contender->close(pool);

    if (fine) {
        if (contender->round_trip != NULL)
            printf("round trip\t%s\t%d\t%.9f\n", contender->name, round, median);
        printf("burst\t%s\t%d\t%.9f\n", contender->name, round, end - start);
        fflush(stdout);
    }
    return fine;
}

static long number(const char *text, long highest)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    return errno == 0 && *end == '\0' && value >= 1 && value <= highest ? value : 0;
}

int main(int argc, char **argv)
{
    long workers = 2, rounds = 5, jobs = 100000;
    bool understood = true;

    for (int option; (option = getopt(argc, argv, "w:r:n:")) != -1;) {
        long *setting = option == 'w' ? &workers : option == 'r' ? &rounds : &jobs;
        long highest = option == 'n' ? 100000000 : 1000;
        *setting = option == '?' ? 0 : number(optarg, highest);
        understood &= *setting > 0;
    }
    if (!understood || optind != argc) {
        fprintf(stderr, "usage: %s [-w WORKERS] [-r ROUNDS] [-n JOBS]\n", argv[0]);
        return 2;
    }

    for (int i = 0; missing[i][0] != NULL; i++)
        printf("missing\t%s\t%s\n", missing[i][0], missing[i][1]);
    for (int round = 0; round < (int)rounds; round++) {
        for (int turn = 0; turn < CONTENDERS; turn++) {
            const struct contender *contender = contenders[(round + turn) % CONTENDERS];
            if (!measure(contender, (int)workers, round, (size_t)jobs)) {
                fprintf(stderr, "pool_bench: %s failed\n", contender->name);
                return 1;
            }
        }
    }
    return 0;
}
