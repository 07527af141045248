/* The thread pool that every textbook shows: a list of jobs under one mutex, a condition for
 * "there is work" and one for "a job has ended". What libpool is measured against where no other
 * library is installed. Workers are threads, so nothing has to cross a process boundary. */
#include <pthread.h>
#include <stdlib.h>

#include "contender.h"

struct job {
    int (*function)(void *argument);
    void *argument;
    int status;
    bool ended;
    struct job *next;
};

struct thread_pool {
    pthread_mutex_t mutex; /* guards all that follows, and every job's `ended` and `status` */
    pthread_cond_t work;
    pthread_cond_t end;
    struct job *first;
    struct job **last;
    bool closed;
    int sleeping; /* workers in a wait for work */
    int waiting;  /* submitters in a wait for an end */
    int workers;
    pthread_t threads[];
};

static int nothing(void *argument)
{
    (void)argument;
    return 0;
}

static void *work(void *argument)
{
    struct thread_pool *pool = argument;
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        while (pool->first == NULL && !pool->closed) {
            pool->sleeping++;
            pthread_cond_wait(&pool->work, &pool->mutex);
            pool->sleeping--;
        }
        struct job *job = pool->first;
        if (job == NULL)
            break;
        pool->first = job->next;
        if (pool->first == NULL)
            pool->last = &pool->first;

        pthread_mutex_unlock(&pool->mutex);
        int status = job->function(job->argument);
        pthread_mutex_lock(&pool->mutex);

        job->status = status;
        job->ended = true;
        if (pool->waiting > 0)
            pthread_cond_broadcast(&pool->end);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static void submit(struct thread_pool *pool, struct job *job)
{
    *job = (struct job){.function = nothing};
    pthread_mutex_lock(&pool->mutex);
    *pool->last = job;
    pool->last = &job->next;
    if (pool->sleeping > 0)
        pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
}

static bool collect(struct thread_pool *pool, struct job *job)
{
    pthread_mutex_lock(&pool->mutex);
    while (!job->ended) {
        pool->waiting++;
        pthread_cond_wait(&pool->end, &pool->mutex);
        pool->waiting--;
    }
    pthread_mutex_unlock(&pool->mutex);
    return job->status == 0;
}

static void close_pool(void *opaque)
{
    struct thread_pool *pool = opaque;
    pthread_mutex_lock(&pool->mutex);
    pool->closed = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (int i = 0; i < pool->workers; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->end);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

static void *open_pool(int workers)
{
    struct thread_pool *pool = calloc(1, sizeof *pool + (size_t)workers * sizeof pool->threads[0]);
    if (pool == NULL)
        return NULL;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->end, NULL);
    pool->last = &pool->first;
    while (pool->workers < workers) {
        if (pthread_create(&pool->threads[pool->workers], NULL, work, pool)) {
            close_pool(pool);
            return NULL;
        }
        pool->workers++;
    }
    return pool;
}

static bool round_trip(void *pool)
{
    struct job job;
    submit(pool, &job);
    return collect(pool, &job);
}

static bool burst(void *pool, size_t count)
{
    struct job *jobs = malloc(count * sizeof *jobs);
    if (jobs == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        submit(pool, &jobs[i]);
    bool fine = true;
    for (size_t i = 0; i < count; i++)
        fine &= collect(pool, &jobs[i]);
    free(jobs);
    return fine;
}

const struct contender contender_condition = {"mutex and condition", open_pool, round_trip, burst,
                                              close_pool};
