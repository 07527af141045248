/* Pi by sampling: the share of random points of a square that lie in the circle in it.
 *
 *     pi [-w WORKERS] [-n MILLIONS]
 *
 * Many equal jobs are submitted in one call, and their results added up as they come. Each job has
 * a sequence of random numbers of its own, which its argument begins: so the sum is the same,
 * however many workers there are, and whichever is first. */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpool.h>

enum { JOBS = 64 };

struct sampling {
    uint64_t seed, points;
};

/* splitmix64 (Steele, Lea and Flood, 2014) */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t count_inside(struct sampling sampling)
{
    uint64_t inside = 0;
    for (uint64_t i = 0; i < sampling.points; i++) {
        double x = (double)(next_random(&sampling.seed) >> 11) * 0x1p-53;
        double y = (double)(next_random(&sampling.seed) >> 11) * 0x1p-53;
        inside += x * x + y * y < 1;
    }
    return inside;
}

/* The job. */
static int sample(struct pool_job *job, const void *argument, size_t size)
{
    struct sampling sampling;
    if (size != sizeof sampling)
        return -EINVAL;
    memcpy(&sampling, argument, sizeof sampling);
    uint64_t inside = count_inside(sampling);
    return pool_job_return(job, &inside, sizeof inside);
}

/* Adds the result of a job that has ended. */
static int add(const struct pool_future *future, uint64_t *sum)
{
    const void *data;
    size_t size;
    int error = pool_future_result(future, &data, &size);
    if (error)
        return error;
    uint64_t inside;
    if (size != sizeof inside)
        return -EBADMSG;
    memcpy(&inside, data, sizeof inside);
    *sum += inside;
    return 0;
}

static int sample_in_pool(struct pool *pool, const struct sampling *samplings, uint64_t *inside)
{
    struct pool_future futures[JOBS];
    int64_t submitted =
        pool_submit_many(pool, NULL, sample, samplings, sizeof *samplings, JOBS, futures);
    if (submitted < 0)
        return (int)submitted;

    int error = submitted < JOBS ? -EAGAIN : 0;
    for (int64_t left = submitted; error == 0 && left > 0; left--) {
        int64_t ended; /* the index of one that has */
        do
            ended = pool_wait_any(futures, (size_t)submitted, POOL_FOREVER);
        while (ended == -EINTR); /* a signal handler ran */
        if (ended < 0) {
            error = (int)ended;
            break;
        }
        error = add(&futures[ended], inside);
        pool_future_release(&futures[ended]);
        futures[ended].pool = NULL; /* from now on it is passed over */
    }
    for (int64_t i = 0; i < submitted; i++)
        if (futures[i].pool != NULL)
            pool_future_release(&futures[i]);
    return error;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int run(const struct pool_config *config, uint64_t points)
{
    struct sampling samplings[JOBS];
    for (uint64_t i = 0; i < JOBS; i++)
        samplings[i] = (struct sampling){.seed = i, .points = points / JOBS};

    struct pool *pool;
    int error = pool_create(&pool, config);
    if (error)
        return error;
    uint64_t inside = 0, serially = 0;
    double start = now();
    error = sample_in_pool(pool, samplings, &inside);
    double parallel = now() - start;
    pool_destroy(pool);
    if (error)
        return error;

    start = now();
    for (int i = 0; i < JOBS; i++)
        serially += count_inside(samplings[i]);
    double serial = now() - start;

    double share = (double)inside / (double)(points / JOBS * JOBS);
    printf("%" PRIu64 " million points: pi is about %.5f, which is %+.5f off\n", points / 1000000,
           4 * share, 4 * share - 3.141592653589793);
    printf("serially %.3f s, with %d workers %.3f s: %.2f times as fast, the same number: %s\n",
           serial, config->workers, parallel, serial / parallel, inside == serially ? "yes" : "NO");
    return inside == serially ? 0 : -EBADMSG;
}

int main(int argc, char **argv)
{
    struct pool_config config;
    pool_config_init(&config); /* one worker for each usable core */
    int millions = 50;
    for (int option; (option = getopt(argc, argv, "w:n:")) != -1;) {
        if (option == 'w') {
            config.workers = atoi(optarg); /* pool_create() says if it is no good */
        } else if (option == 'n' && atoi(optarg) > 0) {
            millions = atoi(optarg);
        } else {
            fprintf(stderr, "usage: %s [-w WORKERS] [-n MILLIONS]\n", argv[0]);
            return 2;
        }
    }
    int error = run(&config, (uint64_t)millions * 1000000);
    if (error) {
        fprintf(stderr, "pi: %s\n", strerror(-error));
        return 1;
    }
    return 0;
}
