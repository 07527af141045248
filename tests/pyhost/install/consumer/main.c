/* A program that knows libpool-python only as it is installed. */
#include <libpool-python.h>
#include <stdio.h>

int main(void)
{
    struct pool_config config;
    struct pool *pool;
    struct pool_python_arguments *arguments = pool_python_arguments_create();
    struct pool_future future;
    struct pool_python_value value;
    int64_t result = 0;

    pool_config_init(&config);
    config.workers = 1;
    if (pool_python_create(&pool, &config, NULL) != 0)
        return 1;
    pool_python_put_int64(arguments, 1000);
    if (pool_python_submit(pool, NULL, "math:isqrt", arguments, &future) != 0 ||
        pool_future_wait(&future, 10 * INT64_C(1000000000)) != 0 ||
        pool_python_result(&future, &value) != 0 || pool_python_get_int64(&value, &result) != 0)
        return 1;
    printf("libpool %s: isqrt(1000) = %d\n", pool_version(), (int)result);
    pool_future_release(&future);
    pool_python_arguments_destroy(arguments);
    pool_destroy(pool);
    return 0;
}
