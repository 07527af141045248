/* The job table: one 128-byte slot for each job there is, and the state machine of a job. */
#include "job.h"

#include <errno.h>
#include <string.h>

#include "atomic.h"

/* How many slots come into being at a time: two pages of them at least, and half as many as there
 * are at most. Each time takes a dozen system calls, which is much for a few jobs; and the first
 * touch of a page maps its neighbours as well, if they are there. */
#define BATCH_MIN 64
#define BATCH_MAX 4096

static inline _Atomic uint32_t *count_of(const struct job_table *table)
{
    return segment_at(table->segment, table->header);
}

void job_table_plan(struct job_table *table, struct segment *segment, struct arena *arena,
                    uint32_t entries)
{
    table->segment = segment;
    table->arena = arena;
    table->entries = entries;
    table->header = segment_reserve(segment, sizeof(_Atomic uint32_t));
    freemap_plan(&table->map, segment, entries);
    table->slots = segment_reserve(segment, entries * sizeof(struct job));
}

int job_table_start(struct job_table *table)
{
    return segment_commit(table->segment, table->header, sizeof(_Atomic uint32_t));
}

uint32_t job_table_count(const struct job_table *table)
{
    uint32_t count = shared_load(count_of(table), ACQUIRE);

    return count < table->entries ? count : table->entries;
}

uint32_t job_table_sweep_count(const struct job_table *table)
{
    uint64_t most = segment_committed(table->segment) / sizeof(struct job);
    uint32_t count = job_table_count(table);

    return count < most ? count : (uint32_t)most;
}

/* FREE -> HELD: one wins. Death right after: the slot is found by job_table_repair(). */
static bool hold(struct job_table *table, uint32_t index, uint16_t owner)
{
    struct job *job = job_at(table, index);
    uint64_t word = shared_load(&job->word, ACQUIRE);

    while (job_state(word) == JOB_FREE)
        if (shared_cas(&job->word, &word, job_word_make(job_generation(word), owner, 0, JOB_HELD),
                       ACQ_REL))
            return true;
    return false;
}

/* How many slots to add to `count`. */
static uint32_t batch_after(const struct job_table *table, uint32_t count)
{
    uint32_t batch = count / 2 / BATCH_MIN * BATCH_MIN;

    batch = batch < BATCH_MIN ? BATCH_MIN : batch < BATCH_MAX ? batch : BATCH_MAX;
    return table->entries - count < batch ? table->entries - count : batch;
}

static int commit_slots(struct job_table *table, uint32_t count, uint32_t more)
{
    uint64_t offset = table->slots + count * sizeof(struct job);
    int error = freemap_commit(&table->map, count + more);

    if (!error)
        error = segment_commit(table->segment, offset, more * sizeof(struct job));
    if (!error)
        segment_populate(table->segment, offset, more * sizeof(struct job));
    return error;
}

static int extend(struct job_table *table, uint16_t owner, uint32_t *index)
{
    uint32_t count = job_table_count(table);

    for (;;) {
        uint32_t more = batch_after(table, count), i;
        int error;

        if (more == 0)
            return -ENOMEM;
        error = commit_slots(table, count, more);
        if (error && more > BATCH_MIN) {
            more = BATCH_MIN; /* the last ones */
            error = commit_slots(table, count, more);
        }
        if (error) {
            uint32_t before = count;

            /* At the limit the memory may have gone to another process, for these very slots. */
            count = job_table_count(table);
            if (count == before)
                return error;
            continue;
        }
        /* The slots exist from here on. Death before: the next one does the same; right after:
         * they are free and have no hints until the repair. */
        if (!shared_cas(count_of(table), &count, count + more, ACQ_REL)) {
            count = job_table_count(table);
            continue;
        }
        for (i = 1; i < more; i++)
            freemap_set(&table->map, count + i);
        *index = count;
        if (hold(table, count, owner))
            return 0;
        count += more; /* a repair gave its hint, and somebody was quicker */
    }
}

int job_alloc(struct job_table *table, uint16_t owner, uint32_t *index)
{
    while (freemap_take(&table->map, index))
        if (hold(table, *index, owner))
            return 0;
    return extend(table, owner, index);
}

bool job_free_result(struct job_table *table, struct payload result, uint32_t index)
{
    uint64_t trailer = payload_trailer(result), length, ref;
    unsigned char *memory;
    void *begin;

    if (!arena_is_attached(table->arena, result.block, index))
        return false;
    /* The block that names the others goes last: whoever dies here leaves all of it to be done
     * again. A reference that is damaged frees nothing but what is this job's. */
    if (trailer && arena_lookup(table->arena, result.block, &begin, &length) == 0 &&
        trailer <= length)
        for (memory = begin; trailer > 8; trailer -= 8) {
            memcpy(&ref, memory + length - trailer + 8, sizeof ref);
            arena_free_attached(table->arena, ref, index);
        }
    return arena_free_attached(table->arena, result.block, index);
}

void job_drop_payloads(struct job_table *table, uint32_t index)
{
    struct job *job = job_at(table, index);
    struct payload argument = payload_unpack(shared_load(&job->argument, RELAXED));
    struct payload result = payload_unpack(shared_load(&job->result, RELAXED));

    /* Attached to this very job, or the block has been freed before and is somebody else's. */
    if (argument.kind == PAYLOAD_BLOCK)
        arena_free_attached(table->arena, argument.block, index);
    shared_store(&job->argument, 0, RELAXED);
    if (result.kind == PAYLOAD_BLOCK)
        job_free_result(table, result, index);
    shared_store(&job->result, 0, RELAXED);
}

void job_free(struct job_table *table, uint32_t index, uint16_t owner)
{
    struct job *job = job_at(table, index);
    uint64_t word = shared_load(&job->word, RELAXED);

    if (job_state(word) != JOB_HELD || job_owner(word) != owner)
        return;
    job_drop_payloads(table, index);
    /* HELD -> FREE, then the hint. Death between: the repair gives the hint. */
    if (shared_cas(&job->word, &word, job_word_make(job_generation(word), 0, 0, JOB_FREE), ACQ_REL))
        freemap_set(&table->map, index);
}

void job_queue(struct job_table *table, uint32_t index, unsigned flags)
{
    struct job *job = job_at(table, index);
    uint64_t word = shared_load(&job->word, RELAXED);

    /* HELD is ours alone, so a store will do. Release publishes function and argument. Death
     * right after: the job is QUEUED and in no ring; the repair puts it there. */
    shared_store(&job->word,
                 job_word_make(job_generation(word), job_owner(word), flags, JOB_QUEUED), RELEASE);
}

bool job_unqueue(struct job_table *table, uint32_t index, uint32_t generation, uint16_t owner)
{
    struct job *job = job_at(table, index);
    uint64_t word = shared_load(&job->word, ACQUIRE);

    while (job_state(word) == JOB_QUEUED && job_generation(word) == generation &&
           job_owner(word) == owner)
        if (shared_cas(&job->word, &word, job_word_make(generation, owner, 0, JOB_HELD), ACQ_REL))
            return true;
    return false;
}

bool job_renew(struct job_table *table, uint32_t index, uint32_t generation, uint16_t owner)
{
    uint64_t word = job_word_make(generation, owner, 0, JOB_HELD);

    return shared_cas(&job_at(table, index)->word, &word,
                      job_word_make(generation + 1, owner, 0, JOB_HELD), ACQ_REL);
}

bool job_claim(struct job_table *table, uint32_t index, uint64_t seen, uint16_t owner)
{
    /* QUEUED -> RUNNING: acquire shows what the submitter wrote. From here on the job dies with
     * us; before, it stays QUEUED and its cell in the ring. */
    return shared_cas(&job_at(table, index)->word, &seen,
                      job_word_make(job_generation(seen), owner, job_flags(seen), JOB_RUNNING),
                      ACQ_REL);
}

bool job_requeue(struct job_table *table, uint32_t index, uint64_t seen, uint16_t submitter)
{
    /* RUNNING -> QUEUED: whatever flags it has, it keeps. In no ring until the caller puts it
     * there. */
    return shared_cas(&job_at(table, index)->word, &seen,
                      job_word_make(job_generation(seen), submitter, job_flags(seen), JOB_QUEUED),
                      ACQ_REL);
}

int job_doom(struct job_table *table, uint32_t index, uint32_t generation, enum job_flag flag)
{
    struct job *job = job_at(table, index);
    uint64_t word = shared_load(&job->word, ACQUIRE);

    for (;;) {
        if (job_generation(word) != generation || job_state(word) < JOB_QUEUED)
            return -ESTALE;
        if (job_state(word) == JOB_QUEUED)
            return -EAGAIN;
        if (job_ended(word))
            return 1;
        if (job_flags(word) & JOB_DOOMED)
            return 0;
        /* RUNNING -> RUNNING and doomed: the worker's own end of the job fails from here on. */
        if (shared_cas(&job->word, &word, word | (uint64_t)flag << 8, ACQ_REL))
            return 0;
    }
}

int job_end(struct job_table *table, uint32_t index, uint32_t generation, uint16_t owner,
            enum job_state state, unsigned *flags)
{
    struct job *job = job_at(table, index);
    uint64_t word = shared_load(&job->word, RELAXED);

    while (job_state(word) == JOB_RUNNING && job_generation(word) == generation &&
           job_owner(word) == owner) {
        *flags = job_flags(word);
        if (state == JOB_FINISHED && (*flags & JOB_DOOMED))
            return -ECANCELED;
        /* RUNNING -> ended: release publishes the result. A flag set meanwhile makes it fail, so
         * that none is overlooked. Death before: the job DIED; right after: the repair announces
         * it, since the worker's stack still names it. */
        if (shared_cas(&job->word, &word, job_word_make(generation, owner, *flags, state), ACQ_REL))
            return 0;
    }
    return -ESTALE;
}

bool job_cancel(struct job_table *table, uint32_t index, uint32_t generation, enum job_state state,
                unsigned *flags)
{
    struct job *job = job_at(table, index);
    uint64_t word = shared_load(&job->word, ACQUIRE);

    while (job_state(word) == JOB_QUEUED && job_generation(word) == generation) {
        *flags = job_flags(word);
        /* QUEUED -> CANCELLED: its cell in the ring is stale from here on. */
        if (shared_cas(&job->word, &word, job_word_make(generation, job_owner(word), *flags, state),
                       ACQ_REL))
            return true;
    }
    return false;
}

int job_flag(struct job_table *table, uint32_t index, uint32_t generation, enum job_flag flag)
{
    struct job *job = job_at(table, index);
    uint64_t word = shared_load(&job->word, ACQUIRE);

    for (;;) {
        if (job_generation(word) != generation || job_state(word) < JOB_QUEUED)
            return -ESTALE;
        if (job_ended(word))
            return 1;
        if (job_flags(word) & flag)
            return 0;
        /* Acq_rel: whoever ends the job after this sees the flag, for it must swap this word. */
        if (shared_cas(&job->word, &word, word | (uint64_t)flag << 8, ACQ_REL))
            return 0;
    }
}

bool job_collect(struct job_table *table, uint32_t index, uint32_t generation, uint16_t owner)
{
    struct job *job = job_at(table, index);
    uint64_t word = shared_load(&job->word, ACQUIRE);

    while (job_ended(word) && job_generation(word) == generation)
        if (shared_cas(&job->word, &word, job_word_make(generation + 1, owner, 0, JOB_HELD),
                       ACQ_REL))
            return true;
    return false;
}

void job_table_repair(struct job_table *table, uint16_t owner,
                      void (*rescue)(void *context, uint32_t index), void *context)
{
    uint32_t index, count = job_table_sweep_count(table);

    for (index = 0; index < count; index++) {
        struct job *job = job_at(table, index);
        uint64_t word = shared_load(&job->word, ACQUIRE);
        struct payload argument = payload_unpack(shared_load(&job->argument, RELAXED));
        uint32_t generation = job_generation(word);

        if (job_state(word) == JOB_FREE) {
            freemap_set(&table->map, index);
        } else if (job_state(word) == JOB_HELD && job_owner(word) == owner) {
            job_free(table, index, owner);
        } else if (job_state(word) >= JOB_QUEUED && argument.extra == owner) {
            /* It ran out of a job that is gone, but it must run all the same. */
            if (job_flag(table, index, generation, JOB_DETACHED) == 1 &&
                job_collect(table, index, generation, owner))
                job_free(table, index, owner);
            else if (job_state(word) == JOB_QUEUED)
                rescue(context, index);
        }
    }
    freemap_repair(&table->map, count);
}
