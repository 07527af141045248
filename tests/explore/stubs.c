/* What the explored layers stand on: memory without a kernel, a clock that stands still, sleep that
 * the explorer decides about. */
#include <errno.h>
#include <string.h>

#include "explore.h"
#include "internal.h"
#include "log.h"
#include "simulation.h"
#include "sized.h"
#include "system.h"

void segment_init(struct segment *segment, uint64_t limit)
{
    segment->base = explore_memory;
    segment->size = 0;
    segment->limit = limit;
    segment->page = 64;
    segment->fd = -1;
}

/* Cache-line alignment, so that all regions fit into the little memory. */
uint64_t segment_reserve(struct segment *segment, uint64_t size)
{
    uint64_t offset = segment->size;

    segment->size += (size + 127) / 128 * 128;
    return offset;
}

int segment_commit(struct segment *segment, uint64_t offset, uint64_t length)
{
    return offset + length <= segment->size ? 0 : -EINVAL;
}

int segment_release(struct segment *segment, uint64_t offset, uint64_t length)
{
    (void)segment, (void)offset, (void)length;
    return 0;
}

uint64_t segment_committed(const struct segment *segment)
{
    return segment->size;
}

int64_t system_now(void)
{
    return 0;
}

/* Jobs here do not fork. */
uint32_t fork_count(void)
{
    return 0;
}

void process_die_with_supervisor(struct pool *pool)
{
    (void)pool;
}

/* ---- No spinning: a spin is many looks, of which the last is the one that counts ---- */

void spin_init(struct spin *spin)
{
    (void)spin;
}

void (*simulation_idle)(void);

void spin_begin(struct spin_wait *wait, struct spin *spin)
{
    wait->spin = spin;
    wait->start = wait->end = 0;
    if (simulation_idle)
        simulation_idle();
}

bool spin_round(struct spin_wait *wait)
{
    (void)wait;
    return false;
}

void spin_end(struct spin_wait *wait)
{
    (void)wait;
}

void stats_wait(struct process *process, int64_t since)
{
    (void)process, (void)since;
}

void stats_resume(struct process *process, int64_t now)
{
    (void)process, (void)now;
}

void stats_end(struct process *process, int64_t now)
{
    (void)process, (void)now;
}

int futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout)
{
    (void)timeout;
    return explore_futex_wait(word, expected);
}

void futex_wake(_Atomic uint32_t *word, int count)
{
    explore_futex_wake(word, count);
}

/* ---- Nobody is told, and structs are those of this version ---- */

void log_say(const struct pool *pool, enum pool_log_level level, const char *format, ...)
{
    (void)pool, (void)level, (void)format;
}

int sized_check(size_t known_size, const void *given, size_t least)
{
    (void)known_size, (void)given, (void)least;
    return 0;
}

void sized_give(void *given, size_t given_size, const void *known, size_t known_size)
{
    memcpy(given, known, given_size < known_size ? given_size : known_size);
}

/* ---- Functions: an id is a number in a table of the scenario ---- */

int function_id(struct function_table *table, pool_function function, uint64_t *id)
{
    (void)table;
    *id = (uint64_t)(uintptr_t)function;
    return 0;
}

int function_resolve(struct function_table *table, uint64_t id, pool_function *function)
{
    (void)table;
    *function = (pool_function)(uintptr_t)id;
    return 0;
}

/* ---- The host's processes: all are there ---- */

int pool_usable(struct pool *pool)
{
    (void)pool;
    return 0;
}

bool host_supervisor_alive(struct pool *pool)
{
    (void)pool;
    return true;
}

enum job_state host_end_state(struct pool *pool)
{
    (void)pool;
    return JOB_LOST;
}

void host_break(struct pool *pool)
{
    (void)pool;
}
