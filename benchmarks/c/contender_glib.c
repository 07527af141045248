/* GThreadPool of GLib. It has no futures; whoever wants to wait for a job adds a mutex and a
 * condition, of which there are here one for all jobs. */
#include <glib.h>

#include "contender.h"

struct glib_pool {
    GThreadPool *threads;
    GMutex mutex; /* guards every job's `ended` */
    GCond end;
    int waiting; /* submitters in a wait for an end */
};

struct job {
    bool ended;
};

static void run(gpointer data, gpointer user_data)
{
    struct job *job = data;
    struct glib_pool *pool = user_data;
    g_mutex_lock(&pool->mutex);
    job->ended = true;
    if (pool->waiting > 0)
        g_cond_broadcast(&pool->end);
    g_mutex_unlock(&pool->mutex);
}

static void *open_pool(int workers)
{
    struct glib_pool *pool = g_new0(struct glib_pool, 1);
    g_mutex_init(&pool->mutex);
    g_cond_init(&pool->end);
    /* Exclusive: the threads are started now and stay. */
    pool->threads = g_thread_pool_new(run, pool, workers, TRUE, NULL);
    return pool;
}

static void collect(struct glib_pool *pool, const struct job *job)
{
    g_mutex_lock(&pool->mutex);
    pool->waiting++;
    while (!job->ended)
        g_cond_wait(&pool->end, &pool->mutex);
    pool->waiting--;
    g_mutex_unlock(&pool->mutex);
}

static bool round_trip(void *opaque)
{
    struct glib_pool *pool = opaque;
    struct job job = {false};
    if (!g_thread_pool_push(pool->threads, &job, NULL))
        return false;
    collect(pool, &job);
    return true;
}

static bool burst(void *opaque, size_t count)
{
    struct glib_pool *pool = opaque;
    struct job *jobs = g_new0(struct job, count);
    size_t submitted = 0;
    while (submitted < count && g_thread_pool_push(pool->threads, &jobs[submitted], NULL))
        submitted++;
    for (size_t i = 0; i < submitted; i++)
        collect(pool, &jobs[i]);
    g_free(jobs);
    return submitted == count;
}

static void close_pool(void *opaque)
{
    struct glib_pool *pool = opaque;
    g_thread_pool_free(pool->threads, FALSE, TRUE);
    g_cond_clear(&pool->end);
    g_mutex_clear(&pool->mutex);
    g_free(pool);
}

const struct contender contender_glib = {"GThreadPool", open_pool, round_trip, burst, close_pool};
