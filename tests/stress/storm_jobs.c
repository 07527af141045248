/* What the workers run in the kill storm, and what has to come of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storm.h"

#define CHILDREN 3

const char *const kind_names[KINDS] = {"tiny",    "large",   "nested", "fails",
                                       "retried", "limited", "late",   "exits"};

static _Atomic uint8_t *all_runs;

void storm_jobs_init(_Atomic uint8_t *runs)
{
    all_runs = runs;
}

uint64_t storm_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static void begin(const struct work *work)
{
    atomic_fetch_add(&all_runs[work->number % NUMBERS], 1);
}

/* ---- Jobs ---- */

static uint64_t answer(uint64_t value)
{
    return value * 3 + 1;
}

static int job_tiny(struct pool_job *job, const void *argument, size_t size)
{
    const struct work *work = argument;
    uint64_t result = answer(work->value);

    (void)size;
    begin(work);
    return pool_job_return(job, &result, sizeof result);
}

/* Ends its worker as often as the last two bits of its value say, and is then like a tiny one. */
static int job_retried(struct pool_job *job, const void *argument, size_t size)
{
    const struct work *work = argument;

    if (atomic_load(&all_runs[work->number % NUMBERS]) < work->value % 4) {
        begin(work);
        _exit(EXIT_CODE);
    }
    return job_tiny(job, argument, size);
}

static int job_large(struct pool_job *job, const void *argument, size_t size)
{
    const uint64_t *words = argument;
    uint64_t *results;
    size_t i;

    begin(argument);
    results = pool_job_reserve(job, size);
    if (!results)
        return -ENOMEM;
    for (i = 0; i < size / sizeof *words; i++)
        results[i] = answer(words[i]);
    return 0;
}

static int job_inner(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t result = answer(*(const uint64_t *)argument) + size;

    return pool_job_return(job, &result, sizeof result);
}

static size_t inner_size(uint64_t value, int child)
{
    return child == 0 ? 8 + value % (MEBIBYTE / 8) : 8;
}

static uint64_t inner_sum(uint64_t value)
{
    uint64_t sum = 0;
    int i;

    for (i = 0; i < CHILDREN; i++)
        sum += answer(value + (uint64_t)i) + inner_size(value, i);
    return sum;
}

/* Submits to its own pool and waits. A child's failure is its own. */
static int job_nested(struct pool_job *job, const void *argument, size_t size)
{
    const struct work *work = argument;
    struct pool_future futures[CHILDREN];
    uint64_t sum = 0;
    int i, status = 0;

    (void)size;
    begin(work);
    for (i = 0; i < CHILDREN; i++) {
        void *memory;
        uint64_t value = work->value + (uint64_t)i;
        int error = pool_prepare(pool_current(), inner_size(work->value, i), &futures[i], &memory);

        if (error)
            return error; /* those before it run on, and are freed when this worker ends */
        memcpy(memory, &value, sizeof value);
        error = pool_commit(&futures[i], job_inner);
        if (error)
            return error;
    }
    for (i = 0; i < CHILDREN; i++) {
        const void *data;
        size_t length;
        int error = pool_future_wait(&futures[i], POOL_FOREVER);

        if (!error)
            error = pool_future_result(&futures[i], &data, &length);
        if (!error)
            sum += *(const uint64_t *)data;
        else if (!status)
            status = error;
        pool_future_release(&futures[i]);
    }
    return status ? status : pool_job_return(job, &sum, sizeof sum);
}

static int job_fails(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)size;
    begin(argument);
    return -EDOM;
}

static int job_late(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)size;
    begin(argument);
    while (pause() < 0)
        ;
    return 0;
}

static int job_exits(struct pool_job *job, const void *argument, size_t size)
{
    (void)job;
    (void)size;
    begin(argument);
    _exit(EXIT_CODE);
    return 0;
}

static int job_square(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t value = *(const uint64_t *)argument, result = value * value + 1;

    (void)size;
    return pool_job_return(job, &result, sizeof result);
}

/* ---- Submitting and checking ---- */

static const pool_function functions[KINDS] = {job_tiny,    job_large, job_nested, job_fails,
                                               job_retried, job_tiny,  job_late,   job_exits};

int storm_submit(struct pool *pool, struct job_record *record)
{
    struct pool_options options;
    uint64_t *memory;
    size_t size = record->kind == KIND_LARGE ? record->size : sizeof record->work, i;
    int error;

    pool_options_init(pool, &options);
    if (record->kind == KIND_RETRIED)
        options.retries = record->retries = RETRIES;
    if (record->kind == KIND_LIMITED)
        options.timeout = 600 * SECOND;
    if (record->kind == KIND_LATE)
        options.timeout = 20 * MILLISECOND;
    if (record->kind == KIND_TINY)
        return pool_submit(pool, job_tiny, &record->work, size, &record->future);
    error = pool_prepare_with(pool, &options, size, &record->future, (void **)&memory);
    if (error)
        return error;
    memcpy(memory, &record->work, sizeof record->work);
    for (i = 2; i < size / sizeof *memory; i++)
        memory[i] = record->work.value + i;
    error = pool_commit(&record->future, functions[record->kind]);
    if (error)
        pool_abandon(&record->future);
    return error;
}

int storm_detach(struct pool *pool, uint64_t number, bool with_future)
{
    struct work work = {number, number};
    struct pool_future future;
    int error = pool_submit(pool, job_tiny, &work, sizeof work, with_future ? &future : NULL);

    if (!error && with_future)
        pool_future_release(&future);
    return error;
}

static bool large_right(const struct job_record *record, const uint64_t *words, size_t size)
{
    size_t i;

    if (size != record->size || words[0] != answer(record->work.number) ||
        words[1] != answer(record->work.value))
        return false;
    for (i = 2; i < size / sizeof *words; i++)
        if (words[i] != answer(record->work.value + i))
            return false;
    return true;
}

bool storm_result_right(const struct job_record *record, const void *data, size_t size, int status,
                        bool kills)
{
    uint64_t result;

    if (record->kind == KIND_FAILS)
        return status == -EDOM;
    if (record->kind == KIND_NESTED && status == -EOWNERDEAD)
        return kills; /* a child's worker died */
    if (status || record->kind == KIND_LATE || record->kind == KIND_EXITS)
        return false;
    if (record->kind == KIND_LARGE)
        return large_right(record, data, size);
    if (size != sizeof result)
        return false;
    memcpy(&result, data, sizeof result);
    return result == (record->kind == KIND_NESTED ? inner_sum(record->work.value)
                                                  : answer(record->work.value));
}

const char *storm_map(struct pool *pool, uint64_t *random, bool kills)
{
    uint64_t items[200] = {0}, results[200] = {0};
    size_t i, count = storm_random(random) % 200;
    int status;

    for (i = 0; i < count; i++)
        items[i] = storm_random(random);
    status = pool_map(pool, job_square, items, sizeof *items, count, results, sizeof *results);
    if (status && !(kills && status == -EOWNERDEAD))
        return "map: a status that does not fit";
    for (i = 0; i < count; i++)
        if (results[i] != items[i] * items[i] + 1 && (results[i] != 0 || status == 0))
            return "map: a wrong result";
    return NULL;
}
