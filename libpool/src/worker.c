/* What a worker does between jobs, and how it runs one. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "atomic.h"
#include "internal.h"
#include "system.h"

/* How many unrelated jobs a waiting job may run on top of its own stack; further ones are left to
 * other workers. Jobs it waits for are not counted: that is plain recursion. */
#define NESTING_MAX 64

/* A worker is one process with one thread that runs jobs, and belongs to one pool. */
static struct pool *current_pool;
static int nesting;

struct pool *pool_current(void)
{
    return current_pool && pool_usable(current_pool) != -EXDEV ? current_pool : NULL;
}

int pool_worker_index(void)
{
    return pool_current() ? current_pool->self - 1 : -1;
}

/* ---- The running job's own calls ---- */

/* Where an inline result begins: after an inline argument. */
static size_t inline_offset(struct payload argument)
{
    return argument.kind == PAYLOAD_INLINE ? (argument.size + 7U) & ~7U : 0;
}

static void drop_result(struct pool_job *job)
{
    if (job->result.kind == PAYLOAD_BLOCK)
        arena_free_held(&job->pool->arena, job->result.block, job->pool->self);
    job->result = (struct payload){.kind = PAYLOAD_NONE};
}

void *pool_job_reserve(struct pool_job *job, size_t size)
{
    struct pool *pool = job->pool;
    struct job *slot = job_at(&pool->jobs, job->index);
    size_t offset;
    uint64_t length;
    void *memory;

    if (job->slice) {
        job->slice_overflow = size > job->slice_room;
        if (!job->slice_overflow)
            return job->slice;
        errno = EMSGSIZE;
        return NULL;
    }
    drop_result(job);
    offset = inline_offset(payload_unpack(shared_load(&slot->argument, RELAXED)));
    if (offset <= JOB_INLINE && size <= JOB_INLINE - offset) {
        job->result.kind = size ? PAYLOAD_INLINE : PAYLOAD_NONE;
        job->result.size = (uint8_t)size;
        return slot->data + (size ? offset : 0);
    }
    shared_store(&pool_process(pool, pool->self - 1)->touched, 1, RELEASE);
    if (arena_alloc(&pool->arena, pool->self, size, &job->result.block) != 0 ||
        arena_lookup(&pool->arena, job->result.block, &memory, &length) != 0) {
        errno = ENOMEM;
        return NULL;
    }
    job->result.kind = PAYLOAD_BLOCK;
    return memory;
}

int pool_job_return(struct pool_job *job, const void *data, size_t size)
{
    void *memory = pool_job_reserve(job, size);

    if (!memory)
        return -errno;
    if (size)
        memcpy(memory, data, size);
    return 0;
}

uint64_t pool_job_target(const struct pool_job *job)
{
    return job->target;
}

const void *pool_job_argument(const struct pool_job *job, size_t *size)
{
    if (size)
        *size = job->size;
    return job->argument;
}

/* ---- Running a job ---- */

static int run_function(struct pool_job *job, bool host)
{
    struct pool *pool = job->pool;
    pool_function function;
    int status;

    if (host) {
        if (!pool->host.run)
            return -ENOSYS;
        status = pool->host.run(pool->host.context, job);
    } else {
        status = function_resolve(&pool->functions, job->target, &function);
        if (status == 0)
            status = function(job, job->argument, job->size);
    }
    return status > 0 || status < -4095 ? -ERANGE : status;
}

/* Finds the argument; what the slot says is checked against the segment. */
static int find_argument(struct pool_job *job, struct payload payload)
{
    void *memory = job_at(&job->pool->jobs, job->index)->data;
    uint64_t size = payload.kind == PAYLOAD_INLINE ? payload.size : 0;

    if (payload.kind == PAYLOAD_BLOCK) {
        int error = arena_lookup(&job->pool->arena, payload.block, &memory, &size);
        if (error)
            return error;
    }
    if (payload.kind == PAYLOAD_INLINE && size > JOB_INLINE)
        return -EINVAL;
    job->argument = memory;
    job->size = size;
    return 0;
}

/* Runs a job that this worker has claimed, and ends it. */
static void run(struct pool *pool, uint32_t index, uint32_t generation)
{
    struct job *slot = job_at(&pool->jobs, index);
    struct payload argument = payload_unpack(shared_load(&slot->argument, RELAXED));
    struct pool_job job = {.pool = pool, .index = index, .generation = generation};
    int status;

    job.target = shared_load(&slot->function, RELAXED);
    status = find_argument(&job, argument);
    if (status == 0)
        status = run_function(&job, argument.host);
    job.result.extra = (uint16_t)(int16_t)status;
    /* First the slot names the block, then the block is the job's, then the job ends. Death in
     * between leaves a running job, whose result the repair frees: as held, or as attached. */
    shared_store(&slot->result, payload_pack(job.result), RELEASE);
    if (job.result.kind == PAYLOAD_BLOCK)
        arena_attach(&pool->arena, job.result.block, pool->self, index);
    if (!schedule_end(pool, index, generation, pool->self, JOB_FINISHED) &&
        job.result.kind == PAYLOAD_BLOCK)
        arena_free_attached(&pool->arena, job.result.block, index);
    schedule_pop(pool);
}

/* ---- Waiting for a job to run, or for one to end ---- */

struct watch {
    uint32_t index, generation;
    int64_t deadline; /* POOL_FOREVER: none */
};

static bool watch_ended(struct pool *pool, const struct watch *watch)
{
    uint64_t word;

    if (!watch)
        return false;
    word = shared_load(&job_at(&pool->jobs, watch->index)->word, ACQUIRE);
    return job_ended(word) || job_generation(word) != watch->generation;
}

static bool work_there(struct pool *pool)
{
    struct ring_cursor cursor;

    return ring_peek(&pool->ready, &cursor);
}

/* Not looking at the ring any more: if there is work left, another worker has to. */
static void leave_spin(struct pool *pool)
{
    if (!pool->spinning)
        return;
    pool->spinning = false;
    wake_busy(&pool_control(pool)->wake, pool->self - 1);
    if (work_there(pool))
        schedule_wake(pool, false);
}

/* Sleeps until somebody rings. `hungry`: for a job, too; else only for the watched one. */
static void park(struct pool *pool, const struct watch *watch, bool hungry)
{
    struct process *process = pool_process(pool, pool->self - 1);
    struct wake_words *words = &pool_control(pool)->wake;
    /* Read first: whatever rings after this makes the futex call return at once. */
    uint32_t bell = shared_load(&process->doorbell, ACQUIRE);
    int64_t timeout = POOL_FOREVER;

    if (watch && job_flag(&pool->jobs, watch->index, watch->generation, JOB_WAITED) != 0)
        return;
    if (watch && watch->deadline != POOL_FOREVER) {
        timeout = watch->deadline - system_now();
        if (timeout <= 0)
            return;
    }
    if (hungry) {
        wake_sleep(words, pool->self - 1);
        pool->spinning = false;
        if (work_there(pool) ||
            (!watch && shared_load(&pool_control(pool)->state, SEQ_CST) != CONTROL_RUNNING))
            timeout = 0;
    }
    if (timeout > 0) {
        if (pool->host.release)
            pool->host.release(pool->host.context);
        futex_wait(&process->doorbell, bell, timeout);
        if (pool->host.acquire)
            pool->host.acquire(pool->host.context);
    }
    /* A waker may have counted on us: then we spin, in its books, and owe a look at the ring. */
    if (hungry && (wake_busy(words, pool->self - 1) & wake_spinning(pool->self - 1))) {
        wake_spin(words, pool->self - 1);
        pool->spinning = true;
    }
}

/* Returns when there may be a job to take, or the watched one has ended, or it is time. */
static void idle(struct pool *pool, const struct watch *watch, bool hungry)
{
    struct wake_words *words = &pool_control(pool)->wake;
    struct spin_wait wait;
    bool found = false;

    spin_begin(&wait, &pool->spin);
    if (hungry && !pool->spinning && wake_count_spinning(words, pool->workers) < pool->spinners) {
        wake_spin(words, pool->self - 1);
        pool->spinning = true;
    }
    if (pool->spinning || !hungry)
        do
            found = (hungry && work_there(pool)) || watch_ended(pool, watch);
        while (!found && spin_round(&wait));
    if (!found)
        park(pool, watch, hungry);
    spin_end(&wait);
}

int worker_wait(struct pool *pool, uint32_t index, uint32_t generation, int64_t timeout)
{
    struct watch watch = {index, generation, POOL_FOREVER};
    int64_t now = system_now();

    if (timeout < POOL_FOREVER - now)
        watch.deadline = now + timeout;
    while (!watch_ended(pool, &watch)) {
        uint32_t other, its_generation;
        bool hungry = nesting < NESTING_MAX;

        if (schedule_claim(pool, index, generation)) {
            leave_spin(pool);
            run(pool, index, generation);
        } else if (hungry && schedule_take(pool, &other, &its_generation)) {
            leave_spin(pool);
            nesting++;
            run(pool, other, its_generation);
            nesting--;
        } else if (watch.deadline != POOL_FOREVER && system_now() >= watch.deadline) {
            break;
        } else {
            idle(pool, &watch, hungry);
        }
    }
    leave_spin(pool);
    if (!watch_ended(pool, &watch))
        return -ETIMEDOUT;
    return job_generation(shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE)) == generation
               ? 0
               : -ESTALE;
}

/* ---- The process ---- */

static void ignore_signal(int signal_number)
{
    (void)signal_number;
}

/* Ctrl-C goes to every process of the terminal; it is the host's to act on. A handler, and not
 * SIG_IGN, which programs started by a job would inherit. */
static void leave_interrupt_to_host(void)
{
    struct sigaction action = {.sa_handler = ignore_signal, .sa_flags = SA_RESTART};

    sigaction(SIGINT, &action, NULL);
}

_Noreturn void worker_main(struct pool *pool, int worker)
{
    struct process *process = pool_process(pool, worker);
    uint32_t index, generation;

    pool->role = ROLE_WORKER;
    pool->self = (uint16_t)(worker + 1);
    pool->forks = fork_count();
    pool->spinning = false;
    pool->slot_count = 0; /* those were another process's */
    spin_init(&pool->spin);
    current_pool = pool;
    /* The supervisor's only thread is our parent, so this fires when the supervisor ends. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != pool->supervisor_pid)
        _exit(1);
    leave_interrupt_to_host();
    if (pool->host.start && pool->host.start(pool->host.context, pool, (unsigned)worker) != 0)
        _exit(1);
    shared_store(&process->started, 1, RELEASE);
    for (;;) {
        if (schedule_take(pool, &index, &generation)) {
            leave_spin(pool);
            run(pool, index, generation);
        } else if (shared_load(&pool_control(pool)->state, SEQ_CST) != CONTROL_RUNNING) {
            break;
        } else {
            idle(pool, NULL, true);
        }
    }
    leave_spin(pool);
    if (pool->host.stop)
        pool->host.stop(pool->host.context);
    _exit(0);
}
