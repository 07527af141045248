/* A pool whose host and workers are all played by this one process, in turn. */
#include "play.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/* A play that stands still for so long has lost its cue; see play_cue(). */
#define PATIENCE_SECONDS 120

int play_process;

static struct pool *host;
static struct pool *workers;
static struct pool_future futures[PLAY_BATCH];
static uint64_t left; /* jobs of a lone play that are still to be submitted */
static bool waiting;  /* in a lone play: the host waits for futures[0] */
static bool playing_lone, fine;
static pid_t supervisor;

/* pool_create() forks the supervisor: it gets one that does nothing. */
static pid_t fork_nobody(void *context)
{
    pid_t pid = fork();

    (void)context;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    supervisor = pid;
    return pid;
}

static void stand_still(int signal_number)
{
    static const char text[] = "the play stands still: does a worker that waits look at the clock, "
                               "as play_cue() expects?\n";

    (void)signal_number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(2);
    _exit(1);
}

static struct pool make_worker(int number)
{
    struct pool worker = *host;

    worker.role = ROLE_WORKER;
    worker.self = (uint16_t)(number + 1);
    worker.slots = NULL;
    worker.slot_count = worker.slot_room = 0;
    worker.next = NULL;
    spin_init(&worker.spin);
    pthread_mutex_init(&worker.lock, NULL);
    return worker;
}

struct pool *play_open(int count)
{
    struct pool_host hooks = {.size = sizeof hooks, .fork = fork_nobody};
    struct pool_config config;
    int i;

    pool_config_init(&config);
    config.workers = count;
    config.host = &hooks;
    workers = calloc((size_t)count, sizeof *workers);
    if (!workers || pool_create(&host, &config) != 0)
        return NULL;
    for (i = 0; i < count; i++)
        workers[i] = make_worker(i);
    signal(SIGALRM, stand_still);
    alarm(PATIENCE_SECONDS);
    return host;
}

void play_close(void)
{
    alarm(0);
    kill(supervisor, SIGKILL);
    pool_destroy(host);
    free(workers);
    host = NULL;
}

static int echo(struct pool_job *job, const void *argument, size_t size)
{
    return pool_job_return(job, argument, size);
}

static bool submit(struct pool_future *future, uint64_t number)
{
    return pool_submit(host, echo, &number, sizeof number, future) == 0;
}

static bool collect(const struct pool_future *future, uint64_t number)
{
    const void *data;
    size_t size;
    bool right = pool_future_wait(future, POOL_FOREVER) == 0 &&
                 pool_future_result(future, &data, &size) == 0 && size == sizeof number &&
                 memcmp(data, &number, size) == 0;

    pool_future_release(future);
    return right;
}

/* ---- Lone ---- */

/* The host has its result, and submits the next job; after the last one it closes the pool. */
__attribute__((noinline)) static void play_host(void)
{
    if (waiting)
        fine = fine && collect(&futures[0], left);
    waiting = false;
    if (left == 0)
        pool_close(host);
    else
        waiting = submit(&futures[0], --left);
}

/* A worker that begins to wait looks at the clock: that is the host's cue, if its job has ended. */
__attribute__((noinline)) static void play_cue(void)
{
    bool ended;

    playing_lone = false; /* the host looks at the clock as well */
    play_process = -1;
    ended = !waiting || pool_future_outcome(&futures[0], NULL) == POOL_FINISHED;
    play_process = 0;
    if (ended)
        play_host();
    play_process = 1;
    playing_lone = true;
}

int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);

int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    if (playing_lone)
        play_cue();
    return __real_clock_gettime(clock, time);
}

bool play_lone(uint64_t jobs)
{
    left = jobs;
    playing_lone = fine = true;
    play_process = 1;
    worker_loop(&workers[0]); /* until the pool is closed */
    playing_lone = false;
    play_process = 0;
    return fine && left == 0 && !waiting;
}

/* ---- Burst ---- */

__attribute__((noinline)) bool play_submit_batch(void)
{
    uint64_t i;

    play_process = 0;
    for (i = 0; i < PLAY_BATCH; i++)
        if (!submit(&futures[i], i))
            return false;
    return true;
}

__attribute__((noinline)) bool play_run_batch(void)
{
    uint32_t index, generation;
    int i;

    for (i = 0; i < PLAY_BATCH; i++) {
        struct pool *worker = &workers[i % host->workers];

        play_process = worker->self;
        if (!schedule_take(worker, false, &index, &generation))
            return false;
        worker_run(worker, index, generation);
    }
    return true;
}

__attribute__((noinline)) bool play_collect_batch(void)
{
    uint64_t i;

    play_process = 0;
    for (i = 0; i < PLAY_BATCH; i++)
        if (!collect(&futures[i], i))
            return false;
    return true;
}

bool play_burst(uint64_t batches)
{
    while (batches-- > 0)
        if (!play_submit_batch() || !play_run_batch() || !play_collect_batch())
            return false;
    return true;
}
