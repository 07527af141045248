/* The sum of all primes below n, for several n: one job each, results in order.
 *
 *     sum_primes [-w WORKERS] [N ...]
 *
 * The same program in Python is examples/python/sum_primes.py. It shows the whole life of a job:
 * submit with an argument block, wait, read the result, release. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpool.h>

static bool is_prime(uint64_t n)
{
    if (n < 2)
        return false;
    if (n % 2 == 0)
        return n == 2;
    for (uint64_t divisor = 3; divisor <= n / divisor; divisor += 2)
        if (n % divisor == 0)
            return false;
    return true;
}

static uint64_t sum_below(uint64_t n)
{
    uint64_t sum = 0;
    for (uint64_t candidate = 2; candidate < n; candidate++)
        if (is_prime(candidate))
            sum += candidate;
    return sum;
}

/* The job. It runs in a worker process: `argument` is the block given to pool_submit(), and what
 * pool_job_return() is given travels back. */
static int sum_primes(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t n;
    if (size != sizeof n)
        return -EINVAL;
    memcpy(&n, argument, sizeof n);
    uint64_t sum = sum_below(n);
    return pool_job_return(job, &sum, sizeof sum);
}

/* Waits for the job and copies its result. Returns 0 or a negative errno. */
static int collect(const struct pool_future *future, uint64_t *sum)
{
    int error;
    do
        error = pool_future_wait(future, POOL_FOREVER);
    while (error == -EINTR); /* a signal handler ran */
    if (error)
        return error;

    const void *data;
    size_t size;
    error = pool_future_result(future, &data, &size);
    if (error)
        return error;
    if (size != sizeof *sum)
        return -EBADMSG;
    memcpy(sum, data, sizeof *sum);
    return 0;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool parse(const char *text, uint64_t *number)
{
    char *end;
    errno = 0;
    uintmax_t value = strtoumax(text, &end, 10);
    *number = value;
    return errno == 0 && end != text && *end == '\0' && *text != '-';
}

static void compare(const uint64_t *numbers, size_t count, double parallel)
{
    uint64_t sum = 0;
    double start = now();
    for (size_t i = 0; i < count; i++)
        sum += sum_below(numbers[i]);
    double serial = now() - start;
    printf("Serially %.3f s: the pool is %.2f times as fast; all sums together are %" PRIu64 "\n",
           serial, serial / parallel, sum);
}

static int run(int workers, const uint64_t *numbers, size_t count)
{
    struct pool *pool = NULL;
    size_t submitted = 0;
    struct pool_future *futures = calloc(count, sizeof *futures);
    if (futures == NULL)
        return -ENOMEM;

    struct pool_config config;
    pool_config_init(&config);
    if (workers > 0)
        config.workers = workers;

    double start = now();
    int error = pool_create(&pool, &config);
    while (error == 0 && submitted < count) {
        error = pool_submit(pool, sum_primes, &numbers[submitted], sizeof numbers[submitted],
                            &futures[submitted]);
        if (error == 0)
            submitted++;
    }
    for (size_t i = 0; error == 0 && i < submitted; i++) {
        uint64_t sum;
        error = collect(&futures[i], &sum);
        if (error == 0)
            printf("The sum of all primes below %" PRIu64 " is %" PRIu64 "\n", numbers[i], sum);
    }
    if (error == 0) {
        double parallel = now() - start;
        printf("%zu jobs took %.3f s with %d workers\n", count, parallel, config.workers);
        compare(numbers, count, parallel);
    }

    for (size_t i = 0; i < submitted; i++)
        pool_future_release(&futures[i]);
    pool_destroy(pool);
    free(futures);
    return error;
}

int main(int argc, char **argv)
{
    static const uint64_t defaults[] = {100000, 100100, 100200, 100300,
                                        100400, 100500, 100600, 100700};
    uint64_t workers = 0; /* the default: one for each usable core */

    for (int option; (option = getopt(argc, argv, "w:")) != -1;) {
        if (option != 'w' || !parse(optarg, &workers) || workers < 1 ||
            workers > POOL_MAX_WORKERS) {
            fprintf(stderr, "usage: %s [-w WORKERS] [N ...]\n", argv[0]);
            return 2;
        }
    }

    int error;
    if (optind == argc) {
        error = run((int)workers, defaults, sizeof defaults / sizeof *defaults);
    } else {
        size_t count = (size_t)(argc - optind);
        uint64_t *numbers = calloc(count, sizeof *numbers);
        if (numbers == NULL) {
            fprintf(stderr, "sum_primes: %s\n", strerror(ENOMEM));
            return 1;
        }
        for (size_t i = 0; i < count; i++) {
            if (!parse(argv[optind + (int)i], &numbers[i])) {
                fprintf(stderr, "sum_primes: not a number: %s\n", argv[optind + (int)i]);
                free(numbers);
                return 2;
            }
        }
        error = run((int)workers, numbers, count);
        free(numbers);
    }
    if (error) {
        fprintf(stderr, "sum_primes: %s\n", strerror(-error));
        return 1;
    }
    return 0;
}
