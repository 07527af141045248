/* A whole pool in the explorer. */
#include "simulation.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "atomic.h"
#include "explore.h"

static struct pool views[EXPLORE_PROCESSES];
/* The host's eventfd: a word to sleep on. */
#define EVENT_FD (-7)
static _Atomic uint64_t *event_word, *spare_word;

struct pool *pool_current(void)
{
    return &views[explore_running()];
}

/* There is the host's eventfd only. */
void process_raise(struct pool *pool, int fd)
{
    (void)pool;
    if (fd != EVENT_FD)
        return;
    shared_add(event_word, 1, SEQ_CST);
    explore_futex_wake(event_word, 1);
}

void simulation_await_event(void)
{
    if (shared_exchange(event_word, 0, SEQ_CST) == 0) {
        explore_futex_wait(event_word, 0);
        shared_exchange(event_word, 0, SEQ_CST);
    }
}

struct pool *simulation_pool(int process)
{
    return &views[process];
}

void *simulation_word(void)
{
    return spare_word;
}

void simulation_await(_Atomic uint32_t *word)
{
    while (shared_load(word, ACQUIRE) == 0)
        explore_futex_wait(word, 0);
}

void simulation_announce(_Atomic uint32_t *word)
{
    shared_store(word, 1, SEQ_CST);
    explore_futex_wake(word, INT_MAX);
}

static void plan(struct pool *pool, const struct simulation *simulation)
{
    struct segment *segment = &pool->segment;

    segment_init(segment, EXPLORE_MEMORY);
    pool->control = segment_reserve(segment, sizeof(struct control));
    pool->processes = segment_reserve(segment, (uint64_t)pool->workers * sizeof(struct process));
    ring_plan(&pool->ready, segment, simulation->ring_bits, simulation->ring_bits + 3);
    ring_plan(&pool->completed, segment, 1, 3);
    job_table_plan(&pool->jobs, segment, &pool->arena, simulation->jobs);
    arena_plan(&pool->arena, segment, EXPLORE_PROCESSES, simulation->block_largest);
    event_word = segment_at(segment, segment_reserve(segment, sizeof *event_word));
    spare_word = segment_at(segment, segment_reserve(segment, sizeof *spare_word));
}

static enum role role_of(int process, const struct simulation *simulation)
{
    if (process == 0)
        return ROLE_HOST;
    if (process <= simulation->workers)
        return ROLE_WORKER;
    return process <= simulation->workers + simulation->threads ? ROLE_HOST : ROLE_SUPERVISOR;
}

void simulation_setup(const struct simulation *simulation)
{
    uint32_t index;
    int i;

    for (i = 0; i < EXPLORE_PROCESSES; i++) {
        struct pool *pool = &views[i];

        free(pool->slots); /* of the execution before */
        memset(pool, 0, sizeof *pool);
        pool->workers = simulation->workers;
        pool->role = role_of(i, simulation);
        pool->self = (uint16_t)(pool->role == ROLE_WORKER       ? i
                                : pool->role == ROLE_SUPERVISOR ? simulation->workers + 1
                                                                : JOB_HOST);
        pool->control_fd = pool->supervisor_fd = -1;
        pool->notify_fd = EVENT_FD;
        pool->scan = UINT32_MAX;
        pool->timeout = POOL_FOREVER;
        pthread_mutex_init(&pool->lock, NULL);
        plan(pool, simulation);
    }
    shared_store(&pool_control(&views[0])->notify_armed, 1, RELAXED);
    ring_start(&views[0].ready);
    ring_start(&views[0].completed);
    job_table_start(&views[0].jobs);
    arena_start(&views[0].arena);
    /* The slots exist, and have their hints. */
    job_alloc(&views[0].jobs, JOB_HOST, &index);
    job_free(&views[0].jobs, index, JOB_HOST);
}

void simulation_repair(int process)
{
    struct pool *pool = &views[process];
    int worker = views[explore_dead()].self - 1;

    views[explore_dead()].slot_count = 0; /* private memory dies with its process */
    repair_worker(pool, worker, 9);
    repair_ring_everybody(pool);
    explore_repaired();
    /* From here on the replacement, a fork of the supervisor in the dead worker's place. */
    pool->role = ROLE_WORKER;
    pool->self = (uint16_t)(worker + 1);
}

bool simulation_private(int process, const volatile void *address)
{
    const struct pool *pool = &views[process];
    const struct process *slot;
    const volatile unsigned char *at = address;

    if (pool->role != ROLE_WORKER)
        return false;
    slot = pool_process(pool, pool->self - 1);
    return at >= (const unsigned char *)slot && at < (const unsigned char *)(slot + 1) &&
           address != &slot->doorbell && address != &slot->depth;
}

void simulation_close(struct pool *pool)
{
    int worker;

    shared_store(&pool_control(pool)->state, CONTROL_CLOSING, SEQ_CST);
    for (worker = 0; worker < pool->workers; worker++)
        schedule_ring(pool, worker);
}

static void check_hint(struct freemap *map, uint32_t count, bool free_entries[64])
{
    uint32_t index, i;

    while (freemap_take(map, &index)) {
        if (index >= 64 || index >= count)
            explore_fail("a hint for an entry that is not there");
        free_entries[index] = false;
    }
    for (i = 0; i < 64 && i < count; i++)
        if (free_entries[i])
            explore_fail("a free entry has no hint: it is leaked");
}

/* Whether a process that lives has this job slot at hand for its next submission. */
static bool kept(uint32_t index, uint16_t owner)
{
    size_t i, k;

    for (i = 0; i < EXPLORE_PROCESSES; i++)
        for (k = 0; views[i].self == owner && k < views[i].slot_count; k++)
            if (views[i].slots[k] == index)
                return true;
    return false;
}

static void check_jobs_free(void)
{
    struct job_table *jobs = &views[0].jobs;
    bool free_entries[64] = {false};
    uint32_t i, count = job_table_count(jobs);

    for (i = 0; i < count; i++) {
        uint64_t word = shared_load(&job_at(jobs, i)->word, ACQUIRE);

        free_entries[i] = job_state(word) == JOB_FREE;
        if (!free_entries[i] && !(job_state(word) == JOB_HELD && kept(i, job_owner(word))))
            explore_fail("a job slot is not free at the end: it is leaked");
    }
    check_hint(&jobs->map, count, free_entries);
}

void simulation_check_free(void)
{
    struct pool *pool = &views[0];
    unsigned size_class;
    uint32_t i, count;
    bool free_entries[64];

    check_jobs_free();
    for (size_class = 0; size_class < pool->arena.classes; size_class++) {
        struct arena_class *c = &pool->arena.size_class[size_class];
        _Atomic uint64_t *words = segment_at(&pool->segment, c->words);
        uint32_t *counts = segment_at(&pool->segment, pool->arena.header);

        memset(free_entries, 0, sizeof free_entries);
        count = counts[size_class];
        for (i = 0; i < count; i++) {
            if (shared_load(&words[i], ACQUIRE) != 0)
                explore_fail("a block is not free at the end: it is leaked");
            free_entries[i] = true;
        }
        check_hint(&c->map, count, free_entries);
    }
}
