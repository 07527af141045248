/* What the submitter of a job does with it: wait, look, read, cancel, be told. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "atomic.h"
#include "internal.h"
#include "log.h"
#include "system.h"

static inline struct job *job_of(const struct pool_future *future)
{
    return job_at(&future->pool->jobs, future->index);
}

/* Released, also if it has not ended, or not committed yet. */
static bool is_stale(const struct pool_future *future, uint64_t word)
{
    return job_generation(word) != future->generation || job_state(word) < JOB_QUEUED ||
           (job_flags(word) & JOB_DETACHED);
}

int future_ended(const struct pool_future *future)
{
    uint64_t word = shared_load(&job_of(future)->word, ACQUIRE);

    if (is_stale(future, word))
        return -ESTALE;
    return job_ended(word);
}

/* Whether the worker that the word names says that it has the job. */
static bool owner_has(const struct pool_future *future, uint16_t owner)
{
    struct pool *pool = future->pool;
    uint64_t id = job_id_make(future->generation, future->index);
    struct process *process;
    uint32_t depth, i;

    if (owner < 1 || owner > pool->workers)
        return false;
    process = pool_process(pool, owner - 1);
    depth = shared_load(&process->depth, ACQUIRE);
    for (i = 0; i < depth && i < PROCESS_STACK; i++)
        if (shared_load(&process->stack[i], RELAXED) == id)
            return true;
    return depth > PROCESS_STACK;
}

/* Should the worker that was to take it have been stopped, another is woken. Of a waiting job that
 * is in no ring, or a running one that nobody runs, the memory was scribbled over. */
void future_mend(const struct pool_future *future, uint64_t seen)
{
    struct pool *pool = future->pool;
    struct ring_cursor cursor;

    if (shared_load(&job_of(future)->word, ACQUIRE) != seen)
        return;
    if (job_state(seen) == JOB_QUEUED) {
        if (!ring_peek(&pool->ready, &cursor) && ring_push(&pool->ready, future->index) == 0)
            log_say(pool, POOL_LOG_WARNING, "a job that waits was in no queue: put back");
        schedule_wake(pool, true);
    } else if (job_state(seen) == JOB_RUNNING && !schedule_has_options(pool, future->index) &&
               !owner_has(future, job_owner(seen))) {
        /* Not one with options: a retry could bring back the very same word. */
        if (schedule_end(pool, future->index, future->generation, job_owner(seen), JOB_LOST) == 0)
            log_say(pool, POOL_LOG_WARNING,
                    "a job that no worker runs was said to run: it is lost");
    }
}

/* host_break() ends all jobs, but those beyond a count that was scribbled over. */
void future_give_up(const struct pool_future *future)
{
    struct pool *pool = future->pool;
    uint64_t word = shared_load(&job_of(future)->word, ACQUIRE);
    enum job_state state = host_end_state(pool);

    if (job_generation(word) != future->generation)
        return;
    if (job_state(word) == JOB_QUEUED)
        schedule_cancel(pool, future->index, future->generation, state);
    else if (job_state(word) == JOB_RUNNING)
        schedule_end(pool, future->index, future->generation, job_owner(word), state);
}

/* Sleeps on the job's word, one slice or until `deadline`. */
static int sleep_slice(const struct pool_future *future, int64_t deadline)
{
    struct pool *pool = future->pool;
    struct job *job = job_of(future);
    int64_t left = HOST_SLICE;
    uint64_t word;
    int error = job_flag(&pool->jobs, future->index, future->generation, JOB_WAITED);

    if (error)
        return error < 0 ? error : 0;
    word = shared_load(&job->word, ACQUIRE);
    if (job_ended(word) || job_generation(word) != future->generation)
        return 0;
    if (deadline != POOL_FOREVER) {
        left = deadline - system_now();
        if (left <= 0)
            return -ETIMEDOUT;
    }
    /* The flag is in the word that we sleep on: who ends the job after this load wakes us. */
    error = futex_wait((_Atomic uint32_t *)&job->word, (uint32_t)word,
                       left < HOST_SLICE ? left : HOST_SLICE);
    if (error != -ETIMEDOUT)
        return error;
    if (!host_supervisor_alive(pool)) {
        host_break(pool);
        future_give_up(future);
    } else {
        future_mend(future, word);
    }
    return deadline != POOL_FOREVER && system_now() >= deadline && future_ended(future) == 0
               ? -ETIMEDOUT
               : 0;
}

int pool_future_wait(const struct pool_future *future, int64_t timeout)
{
    struct pool *pool = future->pool;
    struct spin_wait wait;
    int64_t deadline;
    int done = future_check(future);

    if (!done && timeout < 0)
        done = -EINVAL;
    if (!done)
        done = future_ended(future);
    if (done)
        return done < 0 ? done : 0;
    if (pool->role == ROLE_WORKER)
        return (int)worker_wait(pool, future, 1, timeout);
    spin_begin(&wait, &pool->spin);
    deadline = system_deadline(wait.start, timeout);
    while (!(done = future_ended(future)) && spin_round(&wait))
        ;
    while (!done) {
        int error = sleep_slice(future, deadline);

        if (error)
            return error;
        done = future_ended(future);
    }
    spin_end(&wait);
    return done < 0 ? done : 0;
}

int pool_future_outcome(const struct pool_future *future, int *detail)
{
    struct payload result;
    uint64_t word;
    int error = future_check(future);

    if (error)
        return error;
    word = shared_load(&job_of(future)->word, ACQUIRE);
    if (is_stale(future, word))
        return -ESTALE;
    result = payload_unpack(shared_load(&job_of(future)->result, RELAXED));
    switch (job_state(word)) {
    case JOB_QUEUED:
        return POOL_PENDING;
    case JOB_RUNNING:
        return POOL_RUNNING;
    case JOB_FINISHED:
        if (detail)
            *detail = (int16_t)result.extra;
        return POOL_FINISHED;
    case JOB_DIED:
        if (detail)
            *detail = result.extra;
        return POOL_DIED;
    case JOB_CANCELLED:
        return POOL_CANCELLED;
    case JOB_LOST:
        return POOL_LOST;
    case JOB_TIMEOUT:
        return POOL_TIMEOUT;
    default:
        return -ESTALE;
    }
}

/* Where the result of a finished job is; checked against the segment. */
static int find_result(const struct pool_future *future, struct payload result, const void **data,
                       size_t *size)
{
    struct job *job = job_of(future);
    struct payload argument = payload_unpack(shared_load(&job->argument, RELAXED));
    uint64_t offset = argument.kind == PAYLOAD_INLINE ? (argument.size + 7U) & ~7U : 0;
    uint64_t length = result.kind == PAYLOAD_INLINE ? result.size : 0;
    void *memory = job->data + (offset <= JOB_INLINE ? offset : 0);
    int error;

    if (result.kind == PAYLOAD_INLINE && (offset > JOB_INLINE || length > JOB_INLINE - offset))
        return -EBADMSG;
    if (result.kind == PAYLOAD_BLOCK) {
        uint64_t trailer = payload_trailer(result), whole;

        error = arena_lookup(&future->pool->arena, result.block, &memory, &length);
        if (error || trailer > length)
            return -EBADMSG;
        whole = length - trailer;
        if (trailer)
            memcpy(&length, (unsigned char *)memory + whole, sizeof length);
        if (trailer && length > whole)
            return -EBADMSG;
    }
    if (data)
        *data = memory;
    if (size)
        *size = length;
    return 0;
}

int pool_future_result(const struct pool_future *future, const void **data, size_t *size)
{
    struct payload result;
    int error, status = 0, outcome = pool_future_outcome(future, &status);

    switch (outcome) {
    case POOL_PENDING:
    case POOL_RUNNING:
        return -EINPROGRESS;
    case POOL_FINISHED:
        result = payload_unpack(shared_load(&job_of(future)->result, RELAXED));
        error = find_result(future, result, data, size);
        return error ? error : status;
    case POOL_DIED:
    case POOL_LOST:
        return -EOWNERDEAD;
    case POOL_CANCELLED:
        return -ECANCELED;
    case POOL_TIMEOUT:
        return -ETIME;
    default:
        return outcome;
    }
}

int pool_future_hold(const struct pool_future *future, uint64_t reference)
{
    struct pool *pool = future->pool;
    int outcome = pool_future_outcome(future, NULL);

    if (outcome != POOL_FINISHED)
        return outcome < 0 ? outcome : -EINVAL;
    if (!arena_is_attached(&pool->arena, reference, future->index))
        return -EINVAL;
    submit_touch(pool); /* before: if we die, the repair looks for what we hold */
    return arena_hold(&pool->arena, reference, pool->self) ? 0 : -EINVAL;
}

int pool_future_cancel(const struct pool_future *future)
{
    int done = future_check(future);

    if (!done)
        done = future_ended(future);
    if (done < 0)
        return done;
    return schedule_cancel(future->pool, future->index, future->generation, JOB_CANCELLED) ? 0
                                                                                           : -EBUSY;
}

int pool_future_kill(const struct pool_future *future)
{
    struct pool *pool = future->pool;
    int error = future_check(future);

    if (!error && future_ended(future) < 0)
        error = -ESTALE;
    while (!error) {
        error = job_doom(&pool->jobs, future->index, future->generation, JOB_KILLED);
        if (error == 0) {
            schedule_kick_supervisor(pool);
            return 0;
        }
        if (error == 1)
            return -EBUSY;
        if (error == -EAGAIN) {
            if (schedule_cancel(pool, future->index, future->generation, JOB_CANCELLED))
                return 0;
            error = 0; /* claimed in between */
        }
    }
    return error;
}

int64_t pool_future_part(const struct pool_future *future)
{
    int error = future_check(future);

    if (!error && future_ended(future) < 0)
        error = -ESTALE;
    if (error)
        return error;
    if (!schedule_has_options(future->pool, future->index))
        return 0;
    return shared_load(&job_options(job_of(future))->part, RELAXED);
}

/* ---- Completions ---- */

int pool_notify_fd(struct pool *pool)
{
    return pool_usable(pool) == -EXDEV ? -EXDEV : pool->notify_fd;
}

int pool_supervisor_fd(struct pool *pool)
{
    return pool_usable(pool) == -EXDEV ? -EXDEV : pool->supervisor_fd;
}

int pool_future_notify(const struct pool_future *future)
{
    int error = future_check(future);

    if (!error && future_ended(future) < 0)
        error = -ESTALE;
    return error ? error
                 : job_flag(&future->pool->jobs, future->index, future->generation, JOB_NOTIFY);
}

static bool has_ended(struct pool *pool, uint32_t index)
{
    return job_ended(shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE));
}

static int announce(struct pool *pool, uint32_t index, struct pool_future *future)
{
    future->pool = pool;
    future->index = index;
    future->generation = job_generation(shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE));
    return 1;
}

/* After a completion that could not be announced: all ended jobs that are to be announced. */
static bool scan(struct pool *pool, uint32_t *index)
{
    for (; pool->scan < job_table_count(&pool->jobs); pool->scan++) {
        uint64_t word = shared_load(&job_at(&pool->jobs, pool->scan)->word, ACQUIRE);

        if (job_ended(word) && (job_flags(word) & JOB_NOTIFY)) {
            *index = pool->scan++;
            return true;
        }
    }
    pool->scan = UINT32_MAX;
    return false;
}

int pool_next_completed(struct pool *pool, struct pool_future *future)
{
    struct control *control = pool_control(pool);
    struct ring_cursor cursor;
    uint32_t index;
    bool armed = false;
    int error = pool_usable(pool);

    if (error == -EXDEV)
        return error;
    for (;;) {
        while (ring_peek(&pool->completed, &cursor)) {
            ring_discard(&pool->completed, &cursor);
            /* An announcement may be old, and the slot another job's, which has not ended. */
            if (cursor.item < job_table_count(&pool->jobs) && has_ended(pool, cursor.item))
                return announce(pool, cursor.item, future);
        }
        if (shared_exchange(&control->notify_overflow, 0, SEQ_CST))
            pool->scan = 0;
        if (pool->scan != UINT32_MAX && scan(pool, &index))
            return announce(pool, index, future);
        if (armed)
            return 0;
        /* Arm, and look once more: who announces does it the other way round. */
        shared_store(&control->notify_armed, 1, SEQ_CST);
        armed = true;
    }
}
