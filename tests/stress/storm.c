/* A kill storm: a full pool, whose workers are killed at random, hundreds a second.
 *
 * Each job that is submitted is accounted for: its right result, or one outcome that says what
 * happened and fits. Afterwards no slot or block is in use, no process or descriptor left. With
 * --no-kills several threads of the host use one pool in peace, for ThreadSanitizer to watch.
 *
 *     storm --seconds 60 --seed 1 --threads 2 --workers 4
 *
 * Prints what it did; exits with 1 if anything was wrong.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storm.h"
#include "system.h"

#define WINDOW 64 /* jobs that a thread has in flight */
#define THREADS_MAX 64

static const unsigned weights[KINDS] = {40, 8, 8, 6, 8, 8, 3, 4};

void storm_wrong(struct storm *storm, const char *format, ...)
{
    va_list arguments;

    if (atomic_fetch_add(&storm->wrong, 1) >= 20)
        return;
    va_start(arguments, format);
    printf("WRONG: ");
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

/* ---- One thread of the host ---- */

struct submitter {
    struct storm *storm;
    uint64_t random;
    struct job_record records[WINDOW];
    unsigned count;
};

static enum kind choose_kind(struct submitter *submitter)
{
    unsigned total = 0, place;
    int kind, kinds = submitter->storm->kills ? KINDS : KIND_LATE;

    for (kind = 0; kind < kinds; kind++)
        total += weights[kind];
    place = (unsigned)(storm_random(&submitter->random) % total);
    for (kind = 0; place >= weights[kind]; kind++)
        place -= weights[kind];
    return (enum kind)kind;
}

static void submit(struct submitter *submitter)
{
    struct storm *storm = submitter->storm;
    struct job_record *record = &submitter->records[submitter->count];
    int error;

    *record = (struct job_record){.kind = choose_kind(submitter)};
    record->work.number = atomic_fetch_add(&storm->numbers, 1);
    record->work.value = storm_random(&submitter->random) >> 8;
    if (!storm->kills)
        record->work.value &= ~UINT64_C(3); /* none is to end its worker */
    record->size = storm_random(&submitter->random) % 4 ? MEBIBYTE : 4096;
    error = storm_submit(storm->pool, record);
    atomic_fetch_add(&storm->submitted[record->kind], 1);
    if (error) {
        atomic_fetch_add(&storm->rejected, 1);
        storm_wrong(storm, "%s was rejected: %s", kind_names[record->kind], strerror(-error));
        return;
    }
    submitter->count++;
}

/* Whether the worker of such a job can have died like this. */
static bool death_fits(const struct storm *storm, const struct job_record *record, int status)
{
    if (!storm->kills)
        return false;
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGSEGV;
    /* A nested job waits while its worker runs others, one of which may have ended it. */
    return WEXITSTATUS(status) == EXIT_CODE &&
           (record->kind == KIND_EXITS || record->kind == KIND_RETRIED ||
            record->kind == KIND_NESTED);
}

static bool outcome_fits(struct storm *storm, struct job_record *record, int outcome, int detail)
{
    unsigned runs = atomic_load(&storm->runs[record->work.number % NUMBERS]);
    const void *data = NULL;
    size_t size = 0;
    int status;

    if (runs > 1 + (unsigned)record->retries)
        return false;
    /* One that waits to be run again can be cancelled, too. */
    if (record->cancelled)
        return outcome == POOL_CANCELLED && runs <= (unsigned)record->retries;
    switch (outcome) {
    case POOL_FINISHED:
        status = pool_future_result(&record->future, &data, &size);
        return runs > 0 && storm_result_right(record, data, size, status, storm->kills);
    case POOL_DIED:
        return death_fits(storm, record, detail);
    case POOL_CANCELLED:
        return record->killed;
    case POOL_TIMEOUT:
        return record->kind == KIND_LATE;
    default:
        return false;
    }
}

static void collect(struct submitter *submitter, unsigned place)
{
    struct storm *storm = submitter->storm;
    struct job_record *record = &submitter->records[place];
    int detail = 0, outcome, again;
    int error = pool_future_wait(&record->future, POOL_FOREVER); /* the watchdog sees a hang */

    outcome = error ? error : pool_future_outcome(&record->future, &detail);
    if (outcome < 0 || !outcome_fits(storm, record, outcome, detail))
        storm_wrong(storm, "job %llu, %s, ended as %d (%d) after %d runs; cancelled %d, killed %d",
                    (unsigned long long)record->work.number, kind_names[record->kind], outcome,
                    detail, (int)atomic_load(&storm->runs[record->work.number % NUMBERS]),
                    record->cancelled, record->killed);
    again = pool_future_outcome(&record->future, &detail);
    if (again != outcome)
        storm_wrong(storm, "ended twice: as %d, and then as %d", outcome, again);
    if (outcome >= 0)
        atomic_fetch_add(&storm->outcomes[outcome], 1);
    pool_future_release(&record->future);
    if (pool_future_outcome(&record->future, NULL) != -ESTALE)
        storm_wrong(storm, "released, and yet there");
    atomic_fetch_add(&storm->settled, 1);
    *record = submitter->records[--submitter->count];
}

/* Cancels or kills one of the jobs in flight, or waits a while for it. */
static void meddle(struct submitter *submitter)
{
    unsigned choice = (unsigned)(storm_random(&submitter->random) % 100);
    struct job_record *record =
        &submitter->records[storm_random(&submitter->random) % submitter->count];
    int error;

    if (choice < 5) {
        record->cancelled |= pool_future_cancel(&record->future) == 0;
    } else if (choice < 8 && submitter->storm->kills) {
        record->killed |= pool_future_kill(&record->future) == 0;
    } else if (choice < 12) {
        error = pool_future_wait(&record->future,
                                 (int64_t)(storm_random(&submitter->random) % MILLISECOND));
        if (error && error != -ETIMEDOUT)
            storm_wrong(submitter->storm, "waiting gave %d", error);
    } else if (choice < 16) {
        pool_future_notify(&record->future);
    }
}

static void step(struct submitter *submitter)
{
    struct storm *storm = submitter->storm;
    unsigned choice = (unsigned)(storm_random(&submitter->random) % 100);
    const char *mistake;

    if (choice == 0) {
        mistake = storm_map(storm->pool, &submitter->random, storm->kills);
        if (mistake)
            storm_wrong(storm, "%s", mistake);
        atomic_fetch_add(&storm->maps, 1);
        atomic_fetch_add(&storm->settled, 1);
    } else if (choice < 5) {
        if (storm_detach(storm->pool, atomic_fetch_add(&storm->numbers, 1), choice < 3))
            storm_wrong(storm, "a detached job was rejected");
        atomic_fetch_add(&storm->detached, 1);
    } else {
        submit(submitter);
    }
    if (submitter->count)
        meddle(submitter);
    if (submitter->count == WINDOW)
        collect(submitter, (unsigned)(storm_random(&submitter->random) % WINDOW));
}

static void *run_submitter(void *argument)
{
    struct submitter *submitter = argument;

    while (system_now() < submitter->storm->end)
        step(submitter);
    while (submitter->count)
        collect(submitter, submitter->count - 1);
    return NULL;
}

/* ---- The storm ---- */

struct options {
    double seconds;
    uint64_t seed;
    int threads, workers;
    bool kills;
};

/* The host may have a handler for it, a sanitizer's, which its workers inherit. */
static int begin_worker(void *context, struct pool *pool, unsigned worker)
{
    (void)context;
    (void)pool;
    (void)worker;
    signal(SIGSEGV, SIG_DFL);
    return 0;
}

static int create(struct storm *storm, const struct options *options)
{
    struct pool_host host = {.size = sizeof host, .start = begin_worker};
    struct pool_config config;

    storm->runs = mmap(NULL, NUMBERS, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (storm->runs == MAP_FAILED)
        return -errno;
    storm_jobs_init(storm->runs);
    pool_config_init(&config);
    config.workers = options->workers;
    config.shared_limit = 1024 * MEBIBYTE;
    config.host = &host;
    return pool_create(&storm->pool, &config);
}

static void check_runs(struct storm *storm)
{
    uint64_t number, numbers = atomic_load(&storm->numbers);

    for (number = 0; number < numbers && number < NUMBERS && numbers <= NUMBERS; number++)
        if (atomic_load(&storm->runs[number]) > 1 + RETRIES)
            storm_wrong(storm, "job %llu ran %d times", (unsigned long long)number,
                        (int)atomic_load(&storm->runs[number]));
}

static void report(struct storm *storm, const struct options *options)
{
    static const char *const names[] = {"pending",   "running", "finished", "died",
                                        "cancelled", "lost",    "late"};
    struct pool_stats stats = {.size = sizeof stats};
    int i;

    pool_get_stats(storm->pool, &stats);
    printf("seed      %llu, %.0f s, %d workers, %d threads\njobs     ",
           (unsigned long long)options->seed, options->seconds, options->workers, options->threads);
    for (i = 0; i < KINDS; i++)
        printf(" %s %llu,", kind_names[i], (unsigned long long)atomic_load(&storm->submitted[i]));
    printf(" maps %llu, detached %llu\noutcomes ", (unsigned long long)atomic_load(&storm->maps),
           (unsigned long long)atomic_load(&storm->detached));
    for (i = POOL_FINISHED; i <= POOL_TIMEOUT; i++)
        printf(" %s %llu%s", names[i], (unsigned long long)atomic_load(&storm->outcomes[i]),
               i < POOL_TIMEOUT ? "," : "\n");
    printf("kills     SIGKILL %llu, SIGSEGV %llu, SIGSTOP %llu\n",
           (unsigned long long)atomic_load(&storm->killed),
           (unsigned long long)atomic_load(&storm->crashed),
           (unsigned long long)atomic_load(&storm->stopped));
    printf("workers   %llu started, retried jobs %llu, %.0f MiB of shared memory\n",
           (unsigned long long)stats.workers_started, (unsigned long long)stats.jobs_retried,
           (double)stats.memory / (double)MEBIBYTE);
}

static void finish(struct storm *storm, const struct options *options, struct surroundings before)
{
    uint64_t jobs = 0, outcomes = 0;
    int i, error;

    pool_close(storm->pool);
    error = pool_join(storm->pool, HANG_SECONDS * SECOND);
    if (error)
        storm_wrong(storm, "pool_join() gave %d", error);
    else
        storm_check_memory(storm);
    check_runs(storm);
    report(storm, options);
    pool_destroy(storm->pool);
    munmap((void *)storm->runs, NUMBERS);
    storm_check_surroundings(storm, before);
    for (i = 0; i < KINDS; i++)
        jobs += atomic_load(&storm->submitted[i]);
    for (i = 0; i <= POOL_TIMEOUT; i++)
        outcomes += atomic_load(&storm->outcomes[i]);
    if (jobs != outcomes + atomic_load(&storm->rejected))
        storm_wrong(storm, "%llu jobs, %llu outcomes", (unsigned long long)jobs,
                    (unsigned long long)outcomes);
}

static int run(struct storm *storm, const struct options *options)
{
    struct surroundings before = surroundings_now();
    pthread_t threads[THREADS_MAX], killer, watchdog;
    struct submitter *submitters = calloc((size_t)options->threads, sizeof *submitters);
    int i, error = submitters ? create(storm, options) : -ENOMEM;

    if (error) {
        fprintf(stderr, "storm: no pool: %s\n", strerror(-error));
        free(submitters);
        return 1;
    }
    storm->end = system_now() + (int64_t)(options->seconds * 1e9);
    for (i = 0; i < options->threads; i++) {
        submitters[i].storm = storm;
        submitters[i].random = options->seed * 1000 + (uint64_t)i + 1;
        pthread_create(&threads[i], NULL, run_submitter, &submitters[i]);
    }
    pthread_create(&watchdog, NULL, storm_watch, storm);
    if (options->kills)
        pthread_create(&killer, NULL, storm_kill, storm);
    for (i = 0; i < options->threads; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&storm->over, true);
    pthread_join(watchdog, NULL);
    if (options->kills)
        pthread_join(killer, NULL);
    free(submitters);
    finish(storm, options, before);
    return atomic_load(&storm->wrong) != 0;
}

static bool parse(int argc, char **argv, struct options *options)
{
    int i;

    for (i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--no-kills") == 0) {
            options->kills = false;
            continue;
        }
        i++;
        if (strcmp(argv[i - 1], "--seconds") == 0)
            options->seconds = strtod(value, NULL);
        else if (strcmp(argv[i - 1], "--seed") == 0)
            options->seed = strtoull(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--threads") == 0)
            options->threads = atoi(value);
        else if (strcmp(argv[i - 1], "--workers") == 0)
            options->workers = atoi(value);
        else
            return false;
    }
    return options->threads >= 1 && options->threads <= THREADS_MAX && options->seconds > 0;
}

int main(int argc, char **argv)
{
    struct options options = {.seconds = 60,
                              .seed = (uint64_t)system_now() % 1000000,
                              .threads = 2,
                              .workers = 4,
                              .kills = true};
    static struct storm storm;
    int status;

    if (!parse(argc, argv, &options)) {
        fprintf(stderr, "usage: storm [--seconds N] [--seed S] [--threads N] [--workers N] "
                        "[--no-kills]\n");
        return 2;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* orphans come to this process */
    setvbuf(stdout, NULL, _IOLBF, 0);
    storm.seed = options.seed;
    storm.kills = options.kills;
    status = run(&storm, &options);
    printf("%s\n", status ? "something was wrong" : "all accounted for, nothing left");
    return status;
}
