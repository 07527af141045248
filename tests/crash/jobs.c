/* The jobs of the scenario. */
#include "jobs.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "scenario.h"
#include "wake.h"

void argument_fill(unsigned char *bytes, size_t size, uint32_t number)
{
    memset(bytes, (int)(number + 1), size);
    memcpy(bytes, &number, sizeof number);
}

static uint32_t number_of(const void *argument)
{
    uint32_t number;

    memcpy(&number, argument, sizeof number);
    return number;
}

static int invert(const unsigned char *from, unsigned char *to, size_t size)
{
    size_t i;

    for (i = 0; to && i < size; i++)
        to[i] = from[i] ^ 0xff;
    return to ? 0 : -ENOMEM;
}

int job_invert(struct pool_job *job, const void *argument, size_t size)
{
    return invert(argument, pool_job_reserve(job, size), size);
}

bool argument_is_inverted(const void *data, size_t size, uint32_t number, size_t wanted)
{
    static unsigned char bytes[ARGUMENT_MAX];
    const unsigned char *result = data;
    size_t i;

    if (size != wanted)
        return false;
    argument_fill(bytes, size, number);
    for (i = 0; i < size; i++)
        if (result[i] != (bytes[i] ^ 0xff))
            return false;
    return true;
}

int job_nest(struct pool_job *job, const void *argument, size_t size)
{
    struct pool_future inner;
    const void *data;
    size_t length;
    int status;

    status = pool_submit(pool_current(), job_invert, argument, size, &inner);
    if (status)
        return status;
    status = pool_future_wait(&inner, PATIENCE);
    if (status == 0)
        status = pool_future_result(&inner, &data, &length);
    if (status == 0)
        status = pool_job_return(job, data, length);
    pool_future_release(&inner);
    return status;
}

int job_wait_at_gate(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    while (atomic_load(&tally->gate) == 0)
        if (futex_wait(&tally->gate, 0, PATIENCE) == -ETIMEDOUT)
            return -ETIMEDOUT;
    return 0;
}

int job_wait_for_ever(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)argument, (void)size;
    for (;;)
        pause();
    return 0;
}

int job_begin_and_wait(struct pool_job *job, const void *argument, size_t size)
{
    atomic_store(&tally->begun, 1);
    futex_wake(&tally->begun, 1);
    return job_wait_for_ever(job, argument, size);
}

int job_count(struct pool_job *job, const void *argument, size_t size)
{
    (void)job, (void)size;
    atomic_fetch_add(&tally->detached[number_of(argument) % SCENARIO_DETACHED], 1);
    return 0;
}

int job_triple(struct pool_job *job, const void *argument, size_t size)
{
    uint32_t item;

    memcpy(&item, argument, size);
    item *= 3;
    return pool_job_return(job, &item, sizeof item);
}

int job_read_shared(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t reference;
    void *memory;
    size_t length;
    int error;

    (void)size;
    memcpy(&reference, argument, sizeof reference);
    error = pool_lookup(pool_current(), reference, &memory, &length);
    return error ? error : pool_job_return(job, memory, length);
}

int job_keep(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t kept, own;
    void *memory;
    int error = pool_job_keep(job, &kept);

    if (error)
        return error;
    error = pool_alloc_own(pool_current(), size, &own, &memory);
    if (!error) {
        memcpy(memory, argument, size);
        error = invert(memory, pool_job_reserve_with(job, size, &own, 1), size);
        pool_drop(pool_current(), own);
    }
    pool_drop(pool_current(), kept);
    return error;
}

int job_hold_shared(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t reference;
    int error;

    memcpy(&reference, argument, sizeof reference);
    error = pool_hold(pool_current(), reference);
    if (!error)
        error = job_read_shared(job, argument, size);
    pool_drop(pool_current(), reference);
    return error;
}
