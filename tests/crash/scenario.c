/* One small life of a pool: inline and block payloads, jobs that wait and are cancelled, nested,
 * detached and announced jobs, jobs of which any is awaited, a map, a shared block, arguments that
 * are kept, jobs that are killed, run out of time or are run again; close, join, and a look at what
 * is left. The rings are small at first, and grow. */
#include "scenario.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "crash.h"
#include "internal.h"
#include "jobs.h"
#include "libpool.h"
#include "system.h"

#define PATIENCE_MS 10000
#define MAP_ITEMS 40

struct tally *tally;
bool scenario_runs;

#define TROUBLE(...)                                                                               \
    (tally->trouble[0] ? 0 : snprintf(tally->trouble, sizeof tally->trouble, __VA_ARGS__))

int scenario_has_died(enum crash_role role)
{
    int i, count = 0;

    for (i = 0; i < CRASH_DEATHS; i++)
        count += crash_plan->death[i].role == role && crash_plan->death[i].reached;
    return count;
}

/* ---- The host ---- */

static uint32_t jobs; /* numbers given so far */

struct sent {
    struct pool_future future;
    uint32_t number;
    size_t size;
    bool there; /* it was not refused */
};

static struct sent send_with(struct pool *pool, const struct pool_options *options,
                             pool_function function, size_t size)
{
    static unsigned char argument[ARGUMENT_MAX];
    struct sent sent = {.number = jobs++, .size = size};
    int error;

    argument_fill(argument, size, sent.number);
    error = pool_submit_with(pool, options, function, argument, size, &sent.future);
    sent.there = error == 0;
    tally->refused += error == -EOWNERDEAD;
    if (error && error != -EOWNERDEAD)
        TROUBLE("submit %u: %d", sent.number, error);
    return sent;
}

static struct sent send(struct pool *pool, pool_function function, size_t size)
{
    return send_with(pool, NULL, function, size);
}

/* Books how a job ended. `result`: it inverts its argument. */
static void settle(struct sent *sent, bool result)
{
    const void *data = NULL;
    size_t size = 0;
    int error, detail = 0, outcome;

    if (!sent->there)
        return;
    error = pool_future_wait(&sent->future, PATIENCE);
    if (error)
        TROUBLE("wait for %u: %d", sent->number, error);
    outcome = pool_future_outcome(&sent->future, &detail);
    if (outcome == POOL_FINISHED && detail == 0) {
        error = pool_future_result(&sent->future, &data, &size);
        if (error || (result && !argument_is_inverted(data, size, sent->number, sent->size)))
            tally->wrong++;
        else
            tally->right++;
    } else if (outcome == POOL_DIED || (outcome == POOL_FINISHED && detail == -EOWNERDEAD)) {
        /* Its own worker's death, or the nested job's. */
        if (outcome == POOL_DIED && detail != 9)
            TROUBLE("job %u died of %d", sent->number, detail);
        tally->died++;
    } else if (outcome == POOL_LOST) {
        tally->lost++;
    } else if (outcome == POOL_CANCELLED || outcome == POOL_TIMEOUT) {
        tally->stopped++;
    } else {
        TROUBLE("job %u: outcome %d, detail %d", sent->number, outcome, detail);
    }
    pool_future_release(&sent->future);
}

static void send_and_settle(struct pool *pool, const struct pool_options *options,
                            pool_function function, const size_t *sizes, int how_many)
{
    struct sent sent[8];
    int i;

    for (i = 0; i < how_many; i++)
        sent[i] = send_with(pool, options, function, sizes[i]);
    for (i = 0; i < how_many; i++)
        settle(&sent[i], true);
}

/* Jobs that are submitted at once, and settled in the order in which they end. */
static void settle_any(struct pool *pool)
{
    unsigned char arguments[3][8];
    struct pool_future futures[3];
    struct sent sent[3];
    int64_t i, left, done;

    for (i = 0; i < 3; i++) {
        sent[i] = (struct sent){.number = jobs++, .size = sizeof arguments[i], .there = true};
        argument_fill(arguments[i], sizeof arguments[i], sent[i].number);
    }
    done = pool_submit_many(pool, NULL, job_invert, arguments, sizeof arguments[0], 3, futures);
    tally->refused += done < 3;
    if (done < 0 && done != -EOWNERDEAD)
        TROUBLE("submit many: %d", (int)done);
    for (left = done; left > 0; left--) {
        i = pool_wait_any(futures, (size_t)done, PATIENCE);
        if (i < 0) {
            TROUBLE("wait for any: %d", (int)i);
            return;
        }
        sent[i].future = futures[i];
        settle(&sent[i], true);
        futures[i].pool = NULL;
    }
}

/* Jobs that wait behind others are cancelled; should a death have let one begin, it finishes. */
static void cancel_some(struct pool *pool)
{
    struct sent gates[2], waiting[2];
    int i, error;

    for (i = 0; i < 2; i++)
        gates[i] = send(pool, job_wait_at_gate, 8);
    for (i = 0; i < 2; i++)
        waiting[i] = send(pool, job_invert, i ? 1000 : 8);
    for (i = 0; i < 2; i++) {
        error = waiting[i].there ? pool_future_cancel(&waiting[i].future) : 0;
        if (error && error != -EBUSY)
            TROUBLE("cancel: %d", error);
    }
    atomic_store(&tally->gate, 1);
    futex_wake(&tally->gate, 2);
    for (i = 0; i < 2; i++)
        settle(&waiting[i], true);
    for (i = 0; i < 2; i++)
        settle(&gates[i], false);
}

/* A job that is killed, one that runs out of time, one that is run again if its worker dies. */
static void limit_some(struct pool *pool)
{
    struct pool_options options;
    struct sent killed, late, again;
    int right = tally->right, died;
    int64_t deadline = system_now() + PATIENCE;

    pool_options_init(pool, &options);
    options.timeout = 1000000;
    late = send_with(pool, &options, job_wait_for_ever, 8);
    pool_options_init(pool, &options);
    options.retries = 1;
    again = send_with(pool, &options, job_invert, 1000);
    killed = send(pool, job_begin_and_wait, 8);
    /* Until it runs, or has ended otherwise. */
    while (killed.there && atomic_load(&tally->begun) == 0 && pool_check(pool) == 0 &&
           pool_future_outcome(&killed.future, NULL) <= POOL_RUNNING && system_now() < deadline)
        futex_wait(&tally->begun, 0, PATIENCE / 1000);
    if (killed.there)
        pool_future_kill(&killed.future);
    settle(&killed, false);
    settle(&late, false);
    if (tally->right != right)
        TROUBLE("a job finished that does not end");
    died = tally->died;
    settle(&again, true);
    if (tally->died != died && scenario_has_died(CRASH_WORKER) < 2)
        TROUBLE("a job was not run again");
}

static bool still_awaited(struct sent *sent, int how_many)
{
    int i;

    for (i = 0; i < how_many; i++)
        if (sent[i].there && sent[i].number != UINT32_MAX)
            return true;
    return false;
}

/* Settles jobs as they are announced; also those that the pool left when it broke. */
static void be_told(struct pool *pool)
{
    struct sent sent[3], told;
    struct pollfd fds[2] = {{.fd = pool_notify_fd(pool), .events = POLLIN},
                            {.fd = pool_supervisor_fd(pool), .events = POLLIN}};
    struct pool_future future;
    uint64_t events;
    int i;

    for (i = 0; i < 3; i++) {
        sent[i] = send(pool, job_invert, 8);
        if (sent[i].there && pool_future_notify(&sent[i].future) == 1) {
            settle(&sent[i], true);
            sent[i].there = false;
        }
    }
    while (still_awaited(sent, 3)) {
        while (pool_next_completed(pool, &future) == 1)
            for (i = 0; i < 3; i++)
                if (sent[i].there && sent[i].future.index == future.index &&
                    sent[i].future.generation == future.generation) {
                    told = sent[i];
                    sent[i].there = false;
                    settle(&told, true);
                }
        if (!still_awaited(sent, 3))
            break;
        if (poll(fds, 2, PATIENCE_MS) <= 0) {
            TROUBLE("a job was not announced");
            break;
        }
        if (fds[0].revents && read(fds[0].fd, &events, sizeof events) < 0 && errno != EAGAIN)
            TROUBLE("the eventfd can't be read");
        if (fds[1].revents)
            break;
    }
    for (i = 0; i < 3; i++)
        settle(&sent[i], true);
}

static void map_some(struct pool *pool)
{
    uint32_t items[MAP_ITEMS], results[MAP_ITEMS] = {0}, i;
    int error, missing = 0;

    for (i = 0; i < MAP_ITEMS; i++)
        items[i] = i + 1;
    error = pool_map(pool, job_triple, items, sizeof *items, MAP_ITEMS, results, sizeof *results);
    for (i = 0; i < MAP_ITEMS; i++)
        missing += results[i] != 3 * items[i];
    if (error != 0 && error != -EOWNERDEAD)
        TROUBLE("map: %d", error);
    if (error == 0 && missing)
        tally->wrong++;
    else if (error == 0)
        tally->right++;
    else if (pool_check(pool) == 0)
        tally->died++;
    else
        tally->lost++;
    /* One death loses one chunk: with 2 workers, an item or a few of forty. */
    if (error && pool_check(pool) == 0 && missing > MAP_ITEMS / 8)
        TROUBLE("map lost %d items", missing);
}

static void share_block(struct pool *pool)
{
    struct sent sent = {.number = jobs++, .size = 300};
    uint64_t reference;
    void *memory;
    const void *data;
    size_t size;
    int error = pool_alloc(pool, 300, &reference, &memory);

    if (error) {
        tally->refused += error == -EOWNERDEAD;
        if (error != -EOWNERDEAD)
            TROUBLE("alloc: %d", error);
        return;
    }
    memset(memory, 7, 300);
    error = pool_submit(pool, job_hold_shared, &reference, sizeof reference, &sent.future);
    sent.there = error == 0;
    if (error && error != -EOWNERDEAD)
        TROUBLE("submit %u: %d", sent.number, error);
    if (sent.there && pool_future_wait(&sent.future, PATIENCE) == 0 &&
        pool_future_result(&sent.future, &data, &size) == 0 &&
        (size != 300 || *(const unsigned char *)data != 7))
        TROUBLE("what a job read from a shared block is wrong");
    settle(&sent, false);
    pool_free(pool, reference);
}

static void send_detached(struct pool *pool)
{
    uint32_t i;
    int error;

    for (i = 0; i < SCENARIO_DETACHED; i++) {
        error = pool_submit(pool, job_count, &i, sizeof i, NULL);
        tally->refused += error == -EOWNERDEAD;
        if (error && error != -EOWNERDEAD)
            TROUBLE("detached submit: %d", error);
        if (error)
            atomic_fetch_add(&tally->detached[i], 1); /* not expected any more */
    }
    jobs += SCENARIO_DETACHED;
}

/* A death costs the jobs that the worker was running: one, but where jobs wait for others. */
static void check_losses(void)
{
    int i, missing = 0, deaths = scenario_has_died(CRASH_WORKER);

    for (i = 0; i < SCENARIO_DETACHED; i++) {
        missing += tally->detached[i] == 0;
        if (tally->detached[i] > 1)
            TROUBLE("a detached job ran %d times", tally->detached[i]);
    }
    if (scenario_has_died(CRASH_SUPERVISOR)) {
        tally->lost += missing;
        return;
    }
    tally->died += missing;
    if (tally->died > (tally->nested > deaths ? tally->nested : deaths))
        TROUBLE("%d deaths cost %d jobs", deaths, tally->died);
}

/* ---- What is left ---- */

static bool kept(const struct pool *pool, uint32_t index)
{
    size_t i;

    for (i = 0; i < pool->slot_count; i++)
        if (pool->slots[i] == index)
            return true;
    return false;
}

/* All processes have gone, in an orderly way, and all futures are released: everything is free,
 * but for the slots that the host keeps for its next submission. */
static void check_tables(const struct pool *pool)
{
    const uint32_t *counts = segment_at(&pool->segment, pool->arena.header);
    uint32_t i, index;
    unsigned size_class;

    for (index = 0; index < job_table_count(&pool->jobs); index++) {
        uint64_t word = atomic_load(&job_at(&pool->jobs, index)->word);

        if (job_state(word) != JOB_FREE && !(job_state(word) == JOB_HELD && kept(pool, index)))
            TROUBLE("job slot %u is left as %d of process %d", index, job_state(word),
                    job_owner(word));
    }
    for (size_class = 0; size_class < pool->arena.classes; size_class++) {
        const struct arena_class *c = &pool->arena.size_class[size_class];
        const _Atomic uint64_t *words = segment_at(&pool->segment, c->words);

        for (i = 0; i < counts[size_class] && i < c->entries; i++)
            if (atomic_load(&words[i]) != 0)
                TROUBLE("block %u of class %u is left as %llx", i, size_class,
                        (unsigned long long)atomic_load(&words[i]));
    }
}

static void end_pool(struct pool *pool)
{
    int error = pool_close(pool);

    if (error)
        TROUBLE("close: %d", error);
    error = pool_join(pool, PATIENCE);
    if (error)
        TROUBLE("join: %d", error);
    if (!scenario_has_died(CRASH_SUPERVISOR))
        check_tables(pool);
    check_losses();
    pool_destroy(pool);
}

void scenario_run(void)
{
    static const size_t sizes[] = {8, 90, 1000, ARGUMENT_MAX, 8, 5000};
    static const size_t large[] = {1000, ARGUMENT_MAX};
    struct pool_config config;
    struct pool_options again;
    struct pool *pool;
    int error, died;

    scenario_runs = true;
    pool_config_init(&config);
    config.workers = 2;
    error = pool_create(&pool, &config);
    if (error) {
        TROUBLE("create: %d", error);
        return;
    }
    pool_options_init(pool, &again);
    again.retries = 1;
    send_and_settle(pool, &again, job_invert, sizes, 6);
    if (tally->died && scenario_has_died(CRASH_WORKER) < 2)
        TROUBLE("a job was not run again");
    settle_any(pool);
    cancel_some(pool);
    send_detached(pool);
    be_told(pool);
    died = tally->died;
    send_and_settle(pool, NULL, job_nest, sizes, 3);
    tally->nested = tally->died - died;
    map_some(pool);
    share_block(pool);
    send_and_settle(pool, NULL, job_keep, large, 2);
    limit_some(pool);
    send_and_settle(pool, NULL, job_invert, sizes, 4);
    end_pool(pool);
    tally->end = system_now();
    tally->complete = true;
}
