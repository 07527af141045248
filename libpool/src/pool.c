/* How a pool stands, and its end: what the host does. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic.h"
#include "internal.h"
#include "log.h"
#include "system.h"

#define TERMINATE_MS 1000

const char *pool_version(void)
{
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
    return TEXT(POOL_VERSION_MAJOR) "." TEXT(POOL_VERSION_MINOR) "." TEXT(POOL_VERSION_PATCH);
}

/* ---- How it stands ---- */

int pool_usable(struct pool *pool)
{
    if (pool->forks != fork_count())
        return -EXDEV;
    /* Seq_cst: after a job has been queued, these are read after it can be seen. */
    if (atomic_load_explicit(&pool->broken, SEQ_CST))
        return -EOWNERDEAD;
    return shared_load(&pool_control(pool)->state, SEQ_CST) == CONTROL_RUNNING ? 0 : -ESHUTDOWN;
}

/* Ends every job that has not ended, when no worker will. */
static void end_jobs(struct pool *pool, enum job_state state)
{
    uint32_t index, count = job_table_sweep_count(&pool->jobs);

    for (index = 0; index < count; index++) {
        uint64_t word = shared_load(&job_at(&pool->jobs, index)->word, SEQ_CST);

        if (job_state(word) == JOB_QUEUED)
            schedule_cancel(pool, index, job_generation(word), state);
        /* It may have been claimed in between. */
        word = shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE);
        if (job_state(word) == JOB_RUNNING)
            schedule_end(pool, index, job_generation(word), job_owner(word), state);
    }
    schedule_notify_host(pool);
}

/* True if the supervisor has ended, and its exit is reaped. With the lock. */
static bool reap_supervisor(struct pool *pool, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = pool->supervisor_fd, .events = POLLIN};
    int worker;

    if (atomic_load_explicit(&pool->gone, ACQUIRE))
        return true;
    if (poll(&poll_fd, 1, timeout_ms) <= 0)
        return false;
    /* The program may have reaped it itself, with wait() for any child: that is fine. */
    while (waitpid(pool->supervisor_pid, &pool->supervisor_status, 0) < 0 && errno == EINTR)
        ;
    atomic_store_explicit(&pool->gone, true, RELEASE);
    for (worker = 0; worker < pool->workers; worker++)
        stats_end(pool_process(pool, worker), system_now());
    return true;
}

bool host_supervisor_alive(struct pool *pool)
{
    struct pollfd poll_fd = {.fd = pool->supervisor_fd, .events = POLLIN};

    return !atomic_load_explicit(&pool->gone, ACQUIRE) && poll(&poll_fd, 1, 0) <= 0;
}

enum job_state host_end_state(struct pool *pool)
{
    return shared_load(&pool_control(pool)->state, ACQUIRE) == CONTROL_TERMINATING ? JOB_CANCELLED
                                                                                   : JOB_LOST;
}

/* The supervisor has ended. If nobody asked it to, every job without a result is lost. The workers
 * end by themselves, when their parent does. */
void host_break(struct pool *pool)
{
    bool gone, ended, broken;
    char ending[64];

    pthread_mutex_lock(&pool->lock);
    gone = atomic_load_explicit(&pool->gone, ACQUIRE);
    ended = reap_supervisor(pool, 0);
    broken = ended && !gone && shared_load(&pool_control(pool)->state, ACQUIRE) == CONTROL_RUNNING;
    if (broken)
        atomic_store_explicit(&pool->broken, true, SEQ_CST);
    pthread_mutex_unlock(&pool->lock);
    if (broken)
        log_say(pool, POOL_LOG_ERROR, "the pool is broken: its supervisor %s",
                log_ending(pool->supervisor_status, ending, sizeof ending));
    /* Each time: a worker that was just dying may have claimed a job since. */
    if (ended)
        end_jobs(pool, host_end_state(pool));
}

int pool_check(struct pool *pool)
{
    int error = pool_usable(pool);

    if (error == 0 && !host_supervisor_alive(pool)) {
        host_break(pool);
        error = pool_usable(pool);
    }
    return error;
}

/* ---- Ending ---- */

static void advance_state(struct pool *pool, uint32_t state)
{
    _Atomic uint32_t *shared = &pool_control(pool)->state;
    uint32_t now = shared_load(shared, ACQUIRE);

    while (now < state && !shared_cas(shared, &now, state, SEQ_CST))
        ;
    schedule_kick_supervisor(pool);
}

int pool_close(struct pool *pool)
{
    int error = pool_usable(pool);

    if (error == -EXDEV)
        return error;
    advance_state(pool, CONTROL_CLOSING);
    return 0;
}

/* The supervisor is stopped, or starved. Its workers end with it; waits for that, too. The pids are
 * what the shared memory says, so nothing is done to them but waiting, and not for long. */
static void kill_supervisor(struct pool *pool)
{
    struct pollfd *workers = calloc((size_t)pool->workers, sizeof *workers);
    int64_t deadline;
    int i;

    for (i = 0; workers && i < pool->workers; i++) {
        workers[i].fd = create_pidfd(pool_worker_pid(pool, i));
        workers[i].events = POLLIN;
    }
    syscall(SYS_pidfd_send_signal, pool->supervisor_fd, SIGKILL, NULL, 0);
    reap_supervisor(pool, -1);
    deadline = system_now() + TERMINATE_MS * INT64_C(1000000);
    for (i = 0; workers && i < pool->workers; i++) {
        int64_t left = (deadline - system_now()) / 1000000;

        if (workers[i].fd < 0)
            continue;
        poll(&workers[i], 1, left > 0 ? (int)left : 0);
        close(workers[i].fd);
    }
    free(workers);
}

int pool_terminate(struct pool *pool)
{
    if (pool_usable(pool) == -EXDEV)
        return -EXDEV;
    advance_state(pool, CONTROL_TERMINATING);
    pthread_mutex_lock(&pool->lock);
    if (!reap_supervisor(pool, TERMINATE_MS))
        kill_supervisor(pool);
    pthread_mutex_unlock(&pool->lock);
    end_jobs(pool, JOB_CANCELLED);
    return 0;
}

int pool_join(struct pool *pool, int64_t timeout)
{
    struct pollfd poll_fd = {.fd = pool->supervisor_fd, .events = POLLIN};
    struct timespec limit = {.tv_sec = (time_t)(timeout / 1000000000),
                             .tv_nsec = (long)(timeout % 1000000000)};
    int error = pool_usable(pool), ready = 1;

    if (error == -EXDEV)
        return error;
    if (error == 0)
        return -EBUSY;
    if (timeout < 0)
        return -EINVAL;
    if (!atomic_load_explicit(&pool->gone, ACQUIRE))
        ready = ppoll(&poll_fd, 1, timeout == POOL_FOREVER ? NULL : &limit, NULL);
    if (ready < 0)
        return -errno;
    if (ready == 0)
        return -ETIMEDOUT;
    /* An orderly end left no job; after a supervisor's death those that are left are lost. */
    host_break(pool);
    return 0;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    if (pool->forks == fork_count()) {
        if (!atomic_load_explicit(&pool->gone, ACQUIRE))
            pool_terminate(pool);
        fork_unregister(pool);
    }
    create_undo(pool);
}
