/* The host of a pool whose memory is scribbled over: by a job while the host goes on, and between
 * its calls. Every public function is called. Each has to return in time, and may say anything;
 * what it says lies in the segment is to lie there. */
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atomic.h"
#include "fuzz.h"
#include "system.h"

#define FUTURES 12
#define CALL_SECONDS 30 /* under sanitizers, on a machine with other work */

struct fuzz_shared *fuzz_shared;

uint64_t chance_next(struct chance *chance)
{
    chance->state ^= chance->state >> 12;
    chance->state ^= chance->state << 25;
    chance->state ^= chance->state >> 27;
    return chance->state * UINT64_C(0x2545f4914f6cdd1d);
}

/* ---- Calls ---- */

static void enter(const char *call)
{
    atomic_store(&fuzz_shared->call, call);
    atomic_fetch_add(&fuzz_shared->calls, 1);
    alarm(CALL_SECONDS);
}

static int64_t leave(int64_t result)
{
    alarm(0);
    if (result < 0)
        atomic_fetch_add(&fuzz_shared->errors, 1);
    return result;
}

#define CALL(call) (enter(#call), leave(call))
#define CALL_VOID(call) (enter(#call), (call), (void)leave(0))

static void on_alarm(int number)
{
    void *frames[40];
    const char *call = atomic_load(&fuzz_shared->call);

    (void)number;
    (void)!write(2, "\nhangs in ", 10);
    (void)!write(2, call, strlen(call));
    (void)!write(2, "\n", 1);
    backtrace_symbols_fd(frames, backtrace(frames, 40), 2);
    _exit(3);
}

/* What the library says is a piece of the segment has to be one, and can be read. */
static void check_piece(const struct pool *pool, const void *data, size_t size)
{
    const volatile unsigned char *bytes = data;
    uint64_t offset = (uint64_t)(bytes - pool->segment.base);

    if (offset > pool->segment.size || size > pool->segment.size - offset) {
        fprintf(stderr, "\n%s: a piece outside of the segment\n", atomic_load(&fuzz_shared->call));
        abort();
    }
    if (size) {
        (void)bytes[0];
        (void)bytes[size - 1];
    }
}

/* ---- What workers do ---- */

/* No reports of the sanitizers about processes that are meant to go astray. */
static int begin_worker(void *context, struct pool *pool, unsigned worker)
{
    int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);

    (void)context;
    (void)pool;
    (void)worker;
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    signal(SIGALRM, SIG_DFL);
    alarm(60);
    dup2(nothing, 2);
    return 0;
}

/* Argument: a seed. */
static int job_scribble(struct pool_job *job, const void *argument, size_t size)
{
    struct chance chance = {.state = size >= 8 ? *(const uint64_t *)argument | 1 : 1};
    unsigned rounds = (unsigned)chance_below(&chance, 20), i;

    (void)job;
    for (i = 0; i < rounds; i++) {
        fuzz_scribble(pool_current(), &chance, (unsigned)chance_below(&chance, 2000));
        if (chance_below(&chance, 4) == 0)
            sched_yield();
    }
    if (chance_below(&chance, 8) == 0)
        raise(SIGKILL);
    return 0;
}

static int job_echo(struct pool_job *job, const void *argument, size_t size)
{
    return pool_job_return(job, argument, size);
}

static int job_nested(struct pool_job *job, const void *argument, size_t size)
{
    struct pool_future future;
    int error = pool_submit(pool_current(), job_echo, argument, size, &future);

    (void)job;
    if (!error)
        error = pool_future_wait(&future, 10 * MILLISECOND);
    pool_future_release(&future);
    return error;
}

/* Keeps its argument and a block of its own until it runs again. */
static int job_keep(struct pool_job *job, const void *argument, size_t size)
{
    static uint64_t kept[2];
    void *memory;

    pool_drop(pool_current(), kept[0]);
    pool_drop(pool_current(), kept[1]);
    pool_job_keep(job, &kept[0]);
    if (pool_alloc_own(pool_current(), size, &kept[1], &memory) == 0)
        memcpy(memory, argument, size);
    return 0;
}

static const pool_function functions[] = {job_echo, job_nested, job_keep, job_scribble};

/* ---- What the host does ---- */

struct host {
    struct pool *pool;
    struct chance *chance;
    struct pool_future futures[FUTURES];
    uint64_t references[4];
};

static size_t pick_size(struct chance *chance)
{
    return chance_below(chance, 20) ? chance_below(chance, 300)
                                    : chance_below(chance, 2 * MEBIBYTE);
}

static void submit(struct host *host, struct pool_future *future)
{
    struct pool_options options;
    size_t size = pick_size(host->chance);
    pool_function function = functions[chance_below(host->chance, 4)];
    void *memory;

    pool_options_init(host->pool, &options);
    if (chance_below(host->chance, 3) == 0)
        options.timeout = (int64_t)chance_below(host->chance, 20 * MILLISECOND) + 1;
    if (chance_below(host->chance, 3) == 0)
        options.retries = (int)chance_below(host->chance, 3);
    if (CALL(pool_prepare_with(host->pool, &options, size, future, &memory)) != 0)
        return;
    check_piece(host->pool, memory, size);
    memset(memory, (int)chance_below(host->chance, 256), size);
    if (chance_below(host->chance, 3) == 0)
        fuzz_scribble(host->pool, host->chance, 20);
    switch (chance_below(host->chance, 8)) {
    case 0:
        CALL_VOID(pool_abandon(future));
        break;
    case 1:
        CALL(pool_commit_host(future, chance_next(host->chance)));
        break;
    default:
        CALL(pool_commit(future, function));
    }
}

static void look_at(struct host *host, struct pool_future *future)
{
    const void *data = NULL;
    size_t size = 0;
    int detail;

    CALL(pool_future_outcome(future, &detail));
    CALL(pool_future_part(future));
    if (CALL(pool_future_result(future, &data, &size)) == 0)
        check_piece(host->pool, data, size);
}

static void use_future(struct host *host)
{
    struct pool_future *future = &host->futures[chance_below(host->chance, FUTURES)], other;
    int i;

    if (!future->pool) {
        submit(host, future);
        return;
    }
    switch (chance_below(host->chance, 9)) {
    case 0:
        CALL(pool_future_cancel(future));
        break;
    case 1:
        CALL(pool_future_kill(future));
        break;
    case 2:
        CALL(pool_future_notify(future));
        break;
    case 3:
    case 4:
        CALL(pool_future_wait(future, (int64_t)chance_below(host->chance, 4 * MILLISECOND)));
        break;
    case 5:
        for (i = 0; i < 200 && CALL(pool_next_completed(host->pool, &other)) == 1; i++)
            look_at(host, &other);
        break;
    case 6:
        CALL_VOID(pool_future_release(future));
        future->pool = NULL;
        break;
    default:
        look_at(host, future);
    }
}

static void use_blocks(struct host *host)
{
    uint64_t *reference = &host->references[chance_below(host->chance, 4)];
    void *memory = NULL;
    size_t size = pick_size(host->chance), offset;

    switch (chance_below(host->chance, 8)) {
    case 0:
        if (CALL(pool_alloc(host->pool, size, reference, &memory)) != 0)
            break;
        check_piece(host->pool, memory, size);
        memset(memory, 1, size);
        break;
    case 3:
        if (CALL(pool_alloc_own(host->pool, size, reference, &memory)) != 0)
            break;
        check_piece(host->pool, memory, size);
        memset(memory, 1, size);
        break;
    case 4:
        CALL(pool_hold(host->pool, *reference));
        break;
    case 5:
        CALL_VOID(pool_drop(host->pool, *reference));
        break;
    case 6:
        memory = host->pool->segment.base + chance_next(host->chance) % host->pool->segment.size;
        if (CALL((int64_t)pool_find(host->pool, memory, &offset)) != 0)
            check_piece(host->pool, (unsigned char *)memory - offset, offset);
        break;
    case 1:
        CALL_VOID(pool_free(host->pool, *reference));
        break;
    case 2:
        *reference = chance_next(host->chance) >> chance_below(host->chance, 64);
        break;
    default:
        if (CALL(pool_lookup(host->pool, *reference, &memory, &size)) == 0)
            check_piece(host->pool, memory, size);
    }
}

/* What waits without limit ends at the latest when another thread ends the pool. */
struct rescue {
    struct pool *pool;
    int pipe[2];
};

static void *terminate_later(void *argument)
{
    struct rescue *rescue = argument;
    struct pollfd poll_fd = {.fd = rescue->pipe[0], .events = POLLIN};

    if (poll(&poll_fd, 1, 100) == 0)
        pool_terminate(rescue->pool);
    return NULL;
}

static void wait_without_limit(struct host *host)
{
    struct rescue rescue = {.pool = host->pool};
    struct pool_future *future = &host->futures[chance_below(host->chance, FUTURES)];
    static uint64_t items[500], results[500];
    static int statuses[500];
    pthread_t thread;

    if (pipe2(rescue.pipe, O_CLOEXEC) < 0)
        return;
    pthread_create(&thread, NULL, terminate_later, &rescue);
    if (future->pool && chance_below(host->chance, 3) == 0)
        CALL(pool_future_wait(future, POOL_FOREVER));
    else if (chance_below(host->chance, 2))
        CALL((int)pool_wait_any(host->futures, FUTURES, POOL_FOREVER));
    else
        CALL(pool_map_with(host->pool, NULL, job_echo, items, 8, chance_below(host->chance, 500),
                           results, 8, statuses));
    close(rescue.pipe[1]);
    pthread_join(thread, NULL);
    close(rescue.pipe[0]);
}

static void use_pool(struct host *host)
{
    struct pool_stats stats = {.size = sizeof stats};

    switch (chance_below(host->chance, 10)) {
    case 0:
        CALL(pool_cancel_waiting(host->pool));
        break;
    case 1:
        CALL(pool_get_stats(host->pool, &stats));
        break;
    case 2:
        CALL(pool_check(host->pool));
        break;
    case 3:
        CALL(pool_worker_pid(host->pool, (int)chance_below(host->chance, 4) - 1));
        break;
    case 4:
        wait_without_limit(host);
        break;
    case 5:
        CALL(pool_submit(host->pool, job_echo, &stats, sizeof stats, NULL));
        break;
    case 6:
        if (chance_below(host->chance, 4) == 0)
            CALL(pool_close(host->pool));
        break;
    default:
        use_blocks(host);
    }
}

static void end(struct host *host)
{
    uint64_t choice = chance_below(host->chance, 4);

    if (choice == 0) {
        CALL(pool_close(host->pool));
        CALL(pool_join(host->pool, 20 * MILLISECOND));
    } else if (choice == 1) {
        CALL(pool_terminate(host->pool));
    } else if (choice == 2) {
        fuzz_scribble(host->pool, host->chance, 3000);
    }
    CALL_VOID(pool_destroy(host->pool));
}

void fuzz_once(struct chance *chance)
{
    struct pool_host hooks = {.size = sizeof hooks, .start = begin_worker};
    struct host host = {.chance = chance};
    struct pool_config config;
    uint64_t rounds, seed;

    signal(SIGALRM, on_alarm);
    pool_config_init(&config);
    config.workers = 1 + (int)chance_below(chance, 2);
    config.shared_limit = 64 * MEBIBYTE;
    config.host = &hooks;
    if (CALL(pool_create(&host.pool, &config)) != 0)
        abort();
    for (rounds = chance_below(chance, 150); rounds > 0; rounds--) {
        switch (chance_below(chance, 12)) {
        case 0:
            fuzz_scribble(host.pool, chance, (unsigned)chance_below(chance, 300));
            break;
        case 1:
            fuzz_scribble(host.pool, chance, 1);
            break;
        case 2:
            seed = chance_next(chance);
            CALL(pool_submit(host.pool, job_scribble, &seed, sizeof seed, NULL));
            break;
        case 3:
        case 4:
            use_pool(&host);
            break;
        default:
            use_future(&host);
        }
    }
    end(&host);
}
