/* The end of pools that nobody waits for. Such a pool takes no more jobs, and what was submitted
 * runs; when its supervisor has ended somebody has to reap it, and to free the pool if nobody in
 * Python has it any more.
 *
 * A thread for each such pool does that. It is one of C: a thread of Python is started by Python
 * code, and so is all that a finalizer written in Python does; a signal handler may raise between
 * any two instructions of such code, and Python ignores that exception and drops the rest of the
 * finalizer. Nothing here runs Python code, with the exception of the wait at the interpreter's
 * end, so a pool that has begun to end can't be lost halfway. What is needed for it is allocated
 * when the pool is made, so that this can't fail either. */
#include "core.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

/* The thread only waits, and goes through the table of jobs. */
#define STACK_SIZE (256 << 10)

/* Of the process, not of a module's state: threads may outlive an interpreter. The fields change
 * with `lock` held; whoever holds it waits for nothing else. */
struct Lingering {
    struct pool *pool;
    const Core *core; /* whose interpreter waits for this pool at its end; only compared */
    bool finishes;    /* what was submitted runs even then; else the pool is terminated */
    bool listed;      /* in `pools`: neither the thread nor the interpreter has seen its end */
    bool abandoned;   /* there is no Handle any more: who sees the pool's end frees it */
    bool awaited;     /* by the interpreter, so it and not the thread frees the pool */
    bool ended;       /* the thread has seen it */
    bool has_thread;  /* it is to be joined, unless it frees the pool */
    pthread_t thread;
    struct Lingering *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Lingering *pools;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_error;

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork_parent(void)
{
    pthread_mutex_unlock(&lock);
}

/* The threads are not there, and the pools are none of the child's business. */
static void after_fork_child(void)
{
    pools = NULL;
    pthread_mutex_unlock(&lock);
}

static void register_handlers(void)
{
    once_error = pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

int reaper_init(void)
{
    pthread_once(&once, register_handlers);
    if (!once_error)
        return 0;
    errno = once_error;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

Lingering *lingering_new(void)
{
    return calloc(1, sizeof(Lingering));
}

static void unlist(Lingering *lingering)
{
    for (Lingering **link = &pools; *link; link = &(*link)->next)
        if (*link == lingering) {
            *link = lingering->next;
            break;
        }
    lingering->listed = false;
}

static void *see_the_end(void *argument)
{
    Lingering *lingering = argument;
    while (pool_join(lingering->pool, POOL_FOREVER) == -EINTR)
        ;
    pthread_mutex_lock(&lock);
    bool mine = lingering->abandoned && !lingering->awaited;
    if (!lingering->awaited)
        unlist(lingering);
    lingering->ended = true;
    pthread_mutex_unlock(&lock);
    if (mine) {
        pthread_detach(pthread_self());
        pool_destroy(lingering->pool);
        free(lingering);
    }
    return NULL;
}

/* With the lock. Where the system has no thread left, the next call tries again. */
static void start_thread(Lingering *lingering)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    sigfillset(&all); /* signals are for threads that run Python */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    lingering->has_thread =
        pthread_create(&lingering->thread, &attributes, see_the_end, lingering) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

void reaper_watch(Handle *handle)
{
    Lingering *lingering = handle->lingering;
    if (pool_join(handle->pool, 0) != -ETIMEDOUT)
        return; /* it has ended, or is another process's */
    pthread_mutex_lock(&lock);
    if (!lingering->listed) {
        lingering->pool = handle->pool;
        lingering->core = handle->core;
        lingering->finishes = handle->finishes_at_exit;
        lingering->listed = true;
        lingering->next = pools;
        pools = lingering;
    }
    for (lingering = pools; lingering; lingering = lingering->next)
        if (!lingering->has_thread && !lingering->awaited)
            start_thread(lingering);
    pthread_mutex_unlock(&lock);
}

/* With the thread's end no longer in question. */
static void join_thread(Lingering *lingering)
{
    if (lingering->has_thread)
        pthread_join(lingering->thread, NULL);
    lingering->has_thread = false;
}

void reaper_take(Handle *handle)
{
    Lingering *lingering = handle->lingering;
    struct pool *pool = handle->pool;
    if (!lingering || handle_inherited(handle)) {
        pool_destroy(pool); /* NULL, or this process's view of it */
        free(lingering);
        return;
    }
    /* Of a pool that has ended nothing is left when the last object that has it is gone. */
    bool ended = pool && pool_join(pool, 0) == 0;
    pthread_mutex_lock(&lock);
    bool left = lingering->listed && (!ended || lingering->awaited);
    if (!left)
        unlist(lingering);
    lingering->abandoned = left;
    pthread_mutex_unlock(&lock);
    if (left)
        return;
    join_thread(lingering);
    pool_destroy(pool);
    free(lingering);
}

/* ---- The end of the interpreter -------------------------------------------------------------- */

static Lingering *next_to_await(const Core *core)
{
    pthread_mutex_lock(&lock);
    Lingering *lingering = pools;
    while (lingering && (lingering->core != core || lingering->awaited))
        lingering = lingering->next;
    if (lingering)
        lingering->awaited = true;
    pthread_mutex_unlock(&lock);
    return lingering;
}

/* 0, or -1 with an exception, of a signal handler: the pool then lingers on. */
static int await_end(Lingering *lingering)
{
    if (!lingering->finishes) {
        Py_BEGIN_ALLOW_THREADS
        pool_terminate(lingering->pool);
        Py_END_ALLOW_THREADS
    }
    bool raised = handle_join(lingering->pool, POOL_FOREVER) == 1;
    pthread_mutex_lock(&lock);
    if (raised && !lingering->ended) {
        lingering->awaited = false;
        pthread_mutex_unlock(&lock);
        return -1;
    }
    pthread_mutex_unlock(&lock);
    Py_BEGIN_ALLOW_THREADS
    join_thread(lingering);
    pthread_mutex_lock(&lock);
    unlist(lingering);
    lingering->awaited = false;
    bool abandoned = lingering->abandoned;
    pthread_mutex_unlock(&lock);
    if (abandoned) {
        pool_destroy(lingering->pool);
        free(lingering);
    }
    Py_END_ALLOW_THREADS
    return raised ? -1 : 0;
}

int reaper_finish(Core *core)
{
    for (Lingering *lingering; (lingering = next_to_await(core));)
        if (await_end(lingering) < 0)
            return -1;
    return 0;
}
