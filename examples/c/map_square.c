/* The squares of an array with pool_map(): one call, results in order. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <libpool.h>

enum { COUNT = 1000 };

/* Runs in a worker, once for each item. A negative errno would make pool_map() return it. */
static int square(struct pool_job *job, const void *argument, size_t size)
{
    double x;
    if (size != sizeof x)
        return -EINVAL;
    memcpy(&x, argument, sizeof x);
    double result = x * x;
    return pool_job_return(job, &result, sizeof result);
}

int main(void)
{
    static double items[COUNT], results[COUNT];
    for (int i = 0; i < COUNT; i++)
        items[i] = i;

    struct pool *pool = NULL;
    int error = pool_create(&pool, NULL); /* NULL: one worker for each usable core */
    if (error == 0)
        error = pool_map(pool, square, items, sizeof *items, COUNT, results, sizeof *results);
    pool_destroy(pool);
    if (error) {
        fprintf(stderr, "map_square: %s\n", strerror(-error));
        return 1;
    }

    double sum = 0;
    for (int i = 0; i < COUNT; i++)
        sum += results[i];
    printf("The sum of the squares of 0 to %d is %.0f\n", COUNT - 1, sum);
    return 0;
}
