/* A program that knows libpool only as it is installed; for C99 and later, and for C++17. */
#include <libpool.h>
#include <stdio.h>

static int multiply(struct pool_job *job, const void *argument, size_t size)
{
    const int *factors = (const int *)argument;
    int product = size == 2 * sizeof(int) ? factors[0] * factors[1] : 0;
    return pool_job_return(job, &product, sizeof product);
}

int main(void)
{
    struct pool_config config;
    struct pool_future future;
    struct pool *pool;
    const void *product = NULL;
    int factors[2] = {6, 7};
    size_t size = 0;
    int error;

    pool_config_init(&config);
    config.workers = 2;
    error = pool_create(&pool, &config);
    if (error == 0)
        error = pool_submit(pool, multiply, factors, sizeof factors, &future);
    if (error == 0)
        error = pool_future_wait(&future, 30 * INT64_C(1000000000));
    if (error == 0)
        error = pool_future_result(&future, &product, &size);
    if (error != 0 || size != sizeof(int)) {
        fprintf(stderr, "error %d\n", error);
        return 1;
    }
    printf("libpool %s: 6 * 7 = %d\n", pool_version(), *(const int *)product);
    pool_future_release(&future);
    pool_destroy(pool);
    return 0;
}
