/* A program that knows libpool only as it is installed. */
#include <libpool.h>
#include <stdio.h>
#include <stdlib.h>

/* The library has functions of these names inside. They are neither in the way nor called by it. */
void ring_push(void);
void futex_wait(void);
void ring_push(void)
{
    abort();
}
void futex_wait(void)
{
    abort();
}

static int multiply(struct pool_job *job, const void *argument, size_t size)
{
    const int *factors = argument;
    int product = factors[0] * factors[1];
    (void)size;
    return pool_job_return(job, &product, sizeof product);
}

int main(void)
{
    struct pool_config config;
    pool_config_init(&config);
    config.workers = 1;

    struct pool *pool;
    if (pool_create(&pool, &config) != 0)
        return 1;

    int factors[2] = {6, 7};
    struct pool_future future;
    const void *product = NULL;
    size_t size = 0;
    if (pool_submit(pool, multiply, factors, sizeof factors, &future) != 0 ||
        pool_future_wait(&future, 10 * INT64_C(1000000000)) != 0 ||
        pool_future_result(&future, &product, &size) != 0 || size != sizeof(int))
        return 1;
    printf("libpool %s: 6 * 7 = %d\n", pool_version(), *(const int *)product);

    pool_future_release(&future);
    pool_destroy(pool);
    return 0;
}
