/* What a worker may not exceed: the time of a job, and memory. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "atomic.h"
#include "internal.h"

/* One job on the stack of a worker: true if the worker is to be killed for it. */
static bool is_doomed(struct pool *pool, uint16_t owner, uint64_t id, int64_t now, int64_t *next)
{
    uint32_t index = (uint32_t)id, generation = (uint32_t)(id >> 32);
    struct job *job = job_at(&pool->jobs, index);
    uint64_t word = shared_load(&job->word, ACQUIRE);
    int64_t deadline;

    if (job_state(word) != JOB_RUNNING || job_owner(word) != owner ||
        job_generation(word) != generation)
        return false;
    if (job_flags(word) & JOB_DOOMED)
        return true;
    if (!schedule_has_options(pool, index))
        return false;
    deadline = shared_load(&job_options(job)->deadline, SEQ_CST);
    /* 0: claimed, and its clock is about to be started. */
    if (deadline > now || deadline == 0) {
        if (deadline && deadline < *next)
            *next = deadline;
        return false;
    }
    return job_doom(&pool->jobs, index, generation, JOB_LATE) == 0;
}

/* All jobs of a worker whose stack has more than the process slot can name. */
static bool any_doomed(struct pool *pool, uint16_t owner, int64_t now, int64_t *next)
{
    uint32_t index, count = job_table_sweep_count(&pool->jobs);
    bool doomed = false;

    for (index = 0; index < count; index++) {
        uint64_t word = shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE);

        if (job_state(word) == JOB_RUNNING && job_owner(word) == owner)
            doomed |= is_doomed(pool, owner, job_id_make(job_generation(word), index), now, next);
    }
    return doomed;
}

int64_t limits_enforce(struct pool *pool, const pid_t *pids, int64_t now)
{
    int64_t next = POOL_FOREVER;
    int worker;

    for (worker = 0; worker < pool->workers; worker++) {
        struct process *process = pool_process(pool, worker);
        pid_t pid = pids[worker];
        uint32_t depth = shared_load(&process->depth, ACQUIRE), i;
        bool doomed = false;

        if (pid && depth > PROCESS_STACK)
            doomed = any_doomed(pool, (uint16_t)(worker + 1), now, &next);
        for (i = 0; pid && i < depth && depth <= PROCESS_STACK; i++) {
            uint64_t id = shared_load(&process->stack[i], RELAXED);

            if ((uint32_t)id < job_table_count(&pool->jobs))
                doomed |= is_doomed(pool, (uint16_t)(worker + 1), id, now, &next);
        }
        /* Our child, and not reaped yet: the pid is still its own. */
        if (doomed)
            kill(pid, SIGKILL);
    }
    return next;
}

/* RLIMIT_DATA counts private writable memory only, so the segment is not in it; setting it lets
 * allocations fail, where a cgroup would have the process killed. */
int limits_set_memory(uint64_t bytes)
{
    struct rlimit limit;
    unsigned long long kib = 0;
    char line[256];
    FILE *status = fopen("/proc/self/status", "re");

    if (!status)
        return -errno;
    while (fgets(line, sizeof line, status))
        if (sscanf(line, "VmData: %llu", &kib) == 1)
            break;
    fclose(status);
    if (getrlimit(RLIMIT_DATA, &limit) < 0)
        return -errno;
    if (limit.rlim_cur > kib * 1024 && bytes < limit.rlim_cur - kib * 1024)
        limit.rlim_cur = kib * 1024 + bytes;
    return setrlimit(RLIMIT_DATA, &limit) < 0 ? -errno : 0;
}
