/* Knowing that one has been forked.
 *
 * A pool belongs to the process that made it, and to the supervisor and workers that libpool
 * forks. In any other process that inherits it through fork() it is inert: calls find that the
 * process was forked since, and the child holds none of the pool's descriptors.
 */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "internal.h"

static atomic_uint forks;
static pthread_mutex_t pools_lock = PTHREAD_MUTEX_INITIALIZER;
static struct pool *pools;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_error;

uint32_t fork_count(void)
{
    return atomic_load_explicit(&forks, memory_order_relaxed);
}

static void before_fork(void)
{
    pthread_mutex_lock(&pools_lock);
}

static void after_fork_parent(void)
{
    pthread_mutex_unlock(&pools_lock);
}

static void close_inherited(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Async-signal-safe. The mapping stays: objects of the child may be views of results. */
static void after_fork_child(void)
{
    struct pool *pool;

    atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
    for (pool = pools; pool; pool = pool->next) {
        close_inherited(&pool->segment.fd);
        close_inherited(&pool->supervisor_fd);
        close_inherited(&pool->notify_fd);
        close_inherited(&pool->control_fd);
        close_inherited(&pool->life_fd);
    }
    pools = NULL;
    pthread_mutex_unlock(&pools_lock);
}

static void register_handlers(void)
{
    once_error = -pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

int fork_watch(void)
{
    pthread_once(&once, register_handlers);
    return once_error;
}

void fork_register(struct pool *pool)
{
    pthread_mutex_lock(&pools_lock);
    pool->next = pools;
    pools = pool;
    pthread_mutex_unlock(&pools_lock);
}

void fork_unregister(struct pool *pool)
{
    struct pool **link;

    pthread_mutex_lock(&pools_lock);
    for (link = &pools; *link; link = &(*link)->next)
        if (*link == pool) {
            *link = pool->next;
            break;
        }
    pthread_mutex_unlock(&pools_lock);
}

pid_t fork_process(const struct pool *pool)
{
    pid_t pid = pool->host.fork ? pool->host.fork(pool->host.context) : fork();

    return pid < 0 ? -errno : pid;
}
