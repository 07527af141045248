/* Jobs a second through a real pool, for the model in benchmarks/model.py to be compared with.
 *
 *     throughput WORKERS JOBS NANOSECONDS ROUNDS
 *
 * A job keeps its core busy for NANOSECONDS, and takes and returns a number of 8 bytes. Prints for
 * each round the nanoseconds for one job, separated by tabs:
 *
 *   - JOBS are submitted before the first is waited for;
 *   - each is waited for before the next is submitted (the median);
 *   - JOBS that do nothing wait in the ring; the workers take and run them while the host sleeps.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include <libpool.h>

/* Shared with the workers. */
static struct board {
    _Atomic int held; /* workers that wait for the gate */
    _Atomic int open;
    _Atomic double end; /* when the last job of a drain was run; 0: not yet */
} *board;

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int keep_busy(struct pool_job *job, const void *argument, size_t size)
{
    double length = *(const double *)argument, start;

    if (length > 0)
        for (start = now(); now() - start < length;)
            ;
    return pool_job_return(job, argument, size);
}

static bool collect(const struct pool_future *future)
{
    const void *data;
    size_t size;
    bool fine = pool_future_wait(future, POOL_FOREVER) == 0 &&
                pool_future_result(future, &data, &size) == 0 && size == sizeof(double);

    pool_future_release(future);
    return fine;
}

static bool burst(struct pool *pool, struct pool_future *futures, size_t jobs, double length)
{
    bool fine = true;
    size_t i;

    for (i = 0; i < jobs && fine; i++)
        fine = pool_submit(pool, keep_busy, &length, sizeof length, &futures[i]) == 0;
    for (i = 0; i < jobs && fine; i++)
        fine = collect(&futures[i]);
    return fine;
}

static int hold(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)argument;
    (void)size;
    atomic_fetch_add(&board->held, 1);
    while (!atomic_load(&board->open))
        ;
    return 0;
}

static int run_in_drain(struct pool_job *job, const void *argument, size_t size)
{
    if (*(const double *)argument > 0)
        atomic_store(&board->end, now());
    return pool_job_return(job, argument, size);
}

static void rest(void)
{
    const struct timespec while_ = {.tv_nsec = 300000};

    nanosleep(&while_, NULL);
}

/* All workers are held at the gate while the jobs are submitted. */
static bool drain(struct pool *pool, int workers, struct pool_future *futures, size_t jobs,
                  double *time)
{
    struct pool_future held[POOL_MAX_WORKERS];
    bool fine = true;
    double start;
    size_t i;
    int k;

    atomic_store(&board->held, 0);
    atomic_store(&board->open, 0);
    atomic_store(&board->end, 0);
    for (k = 0; k < workers && fine; k++)
        fine = pool_submit(pool, hold, NULL, 0, &held[k]) == 0;
    while (fine && atomic_load(&board->held) < workers)
        rest();
    for (i = 0; i < jobs && fine; i++) {
        double last = i == jobs - 1;

        fine = pool_submit(pool, run_in_drain, &last, sizeof last, &futures[i]) == 0;
    }
    start = now();
    atomic_store(&board->open, 1);
    while (fine && atomic_load(&board->end) == 0)
        rest();
    *time = (atomic_load(&board->end) - start) / (double)jobs;
    for (i = 0; i < jobs && fine; i++)
        fine = collect(&futures[i]);
    for (k = 0; k < workers && fine; k++) {
        fine = pool_future_wait(&held[k], POOL_FOREVER) == 0;
        pool_future_release(&held[k]);
    }
    return fine;
}

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static bool round_trips(struct pool *pool, double *times, size_t jobs, double length)
{
    struct pool_future future;
    size_t i;

    for (i = 0; i < jobs; i++) {
        double start = now();

        if (pool_submit(pool, keep_busy, &length, sizeof length, &future) != 0 || !collect(&future))
            return false;
        times[i] = now() - start;
    }
    qsort(times, jobs, sizeof *times, compare);
    return true;
}

static bool measure(struct pool *pool, int workers, size_t jobs, double length, long rounds)
{
    struct pool_future *futures = calloc(jobs, sizeof *futures);
    double *times = calloc(jobs, sizeof *times), start, end, drained;
    /* The first burst makes the pool take its memory. */
    bool fine = futures && times && burst(pool, futures, jobs, length);

    while (fine && rounds-- > 0) {
        start = now();
        fine = burst(pool, futures, jobs, length);
        end = now();
        fine = fine && round_trips(pool, times, jobs, length) &&
               drain(pool, workers, futures, jobs, &drained);
        if (fine)
            printf("%.2f\t%.2f\t%.2f\n", (end - start) / (double)jobs, times[jobs / 2], drained);
    }
    free(futures);
    free(times);
    return fine;
}

int main(int argc, char **argv)
{
    struct pool_config config;
    struct pool *pool;
    double length;
    long jobs, rounds;
    bool fine;

    if (argc != 5) {
        fprintf(stderr, "usage: %s WORKERS JOBS NANOSECONDS ROUNDS\n", argv[0]);
        return 2;
    }
    pool_config_init(&config);
    config.workers = atoi(argv[1]);
    jobs = strtol(argv[2], NULL, 10);
    length = strtod(argv[3], NULL);
    rounds = strtol(argv[4], NULL, 10);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (jobs < 1 || board == MAP_FAILED || pool_create(&pool, &config) != 0) {
        fprintf(stderr, "%s: no pool\n", argv[0]);
        return 1;
    }
    fine = measure(pool, config.workers, (size_t)jobs, length, rounds);
    pool_destroy(pool);
    if (!fine)
        fprintf(stderr, "%s: a job failed\n", argv[0]);
    return !fine;
}
