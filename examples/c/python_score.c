/* A C program that scores text with a Python function, on all cores.
 *
 *     python_score [-w WORKERS] [FILE ...]
 *
 * The function is score() in python_score.py, pure Python. Without files it scores texts that it
 * makes up, with one worker and with two, in turns, and prints how much faster two are. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpool-python.h>

struct text {
    char *bytes;
    size_t size;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* ---- The pool ------------------------------------------------------------------------------- */

/* Workers that find python_score.py beside this program's source. Their interpreters start on
 * their own, and import it at once. */
static int make_pool(struct pool **pool, int workers)
{
    static const char *const paths[] = {EXAMPLE_FOLDER, NULL};
    struct pool_python_config python;
    pool_python_config_init(&python);
    python.paths = paths;
    python.source = "import python_score";

    struct pool_config config;
    pool_config_init(&config);
    if (workers > 0)
        config.workers = workers;
    return pool_python_create(pool, &config, &python);
}

/* One job for each text. Returns how many were submitted, or the error of the first. */
static int submit(struct pool *pool, const struct text *texts, int count,
                  struct pool_future *futures)
{
    struct pool_python_arguments *arguments = pool_python_arguments_create();
    int submitted = 0, error = arguments ? 0 : -ENOMEM;

    while (error == 0 && submitted < count) {
        pool_python_arguments_clear(arguments);
        pool_python_put_text(arguments, texts[submitted].bytes, texts[submitted].size);
        /* It also says what went wrong while the arguments were put together. */
        error =
            pool_python_submit(pool, NULL, "python_score:score", arguments, &futures[submitted]);
        if (error == 0)
            submitted++;
    }
    pool_python_arguments_destroy(arguments);
    return submitted ? submitted : error;
}

static int collect(const struct pool_future *future, double *ease, int64_t *words)
{
    int error;
    do
        error = pool_future_wait(future, POOL_FOREVER);
    while (error == -EINTR); /* a signal handler ran */

    struct pool_python_value result, item;
    if (error == 0)
        error = pool_python_result(future, &result);
    if (error == -EREMOTEIO) {
        struct pool_python_exception exception = {.size = sizeof exception};
        if (pool_python_exception(future, &exception) == 0)
            fprintf(stderr, "%s", exception.traceback);
    }
    if (error == 0)
        error = pool_python_find(&result, "ease", &item);
    if (error == 0)
        error = pool_python_get_double(&item, ease);
    if (error == 0)
        error = pool_python_find(&result, "words", &item);
    if (error == 0)
        error = pool_python_get_int64(&item, words);
    return error;
}

/* Scores the texts; names[i] is printed with the score of text i, unless names is NULL. */
static int score(struct pool *pool, const struct text *texts, int count, char *const *names,
                 double *total)
{
    struct pool_future *futures = calloc((size_t)count, sizeof *futures);
    if (futures == NULL)
        return -ENOMEM;

    int submitted = submit(pool, texts, count, futures);
    int error = submitted < 0 ? submitted : submitted < count ? -EIO : 0;
    *total = 0;
    for (int i = 0; i < submitted; i++) {
        double ease = 0;
        int64_t words = 0;
        if (error == 0)
            error = collect(&futures[i], &ease, &words);
        if (error == 0 && names)
            printf("%6.1f  %8" PRId64 " words  %s\n", ease, words, names[i]);
        *total += ease;
        pool_future_release(&futures[i]);
    }
    free(futures);
    return error;
}

/* ---- Texts ---------------------------------------------------------------------------------- */

static int read_file(const char *path, struct text *text)
{
    FILE *file = fopen(path, "rb");
    size_t room = 0;
    if (file == NULL)
        return -errno;
    for (size_t count = 1; count > 0; text->size += count) {
        if (room - text->size < 4096) {
            char *larger = realloc(text->bytes, room = room * 2 + 65536);
            if (larger == NULL) {
                fclose(file);
                return -ENOMEM;
            }
            text->bytes = larger;
        }
        count = fread(text->bytes + text->size, 1, room - text->size, file);
    }
    int error = ferror(file) ? -EIO : 0;
    fclose(file);
    return error;
}

/* Sentences of words of random letters. The same each time. */
static int make_up(struct text *text, size_t size, uint32_t seed)
{
    static const char letters[] = "etaoinshrdlucmfwypvbgkjqxz";
    text->bytes = malloc(size);
    if (text->bytes == NULL)
        return -ENOMEM;
    for (text->size = 0; text->size < size; text->size++) {
        seed = seed * 1664525 + 1013904223;
        uint32_t random = seed >> 16;
        text->bytes[text->size] =
            random % 6 == 0 ? (random % 66 == 0 ? '.' : ' ') : letters[random / 8 % 26];
    }
    return 0;
}

/* ---- The program ---------------------------------------------------------------------------- */

static int score_files(int workers, char *const *paths, int count)
{
    struct text *texts = calloc((size_t)count, sizeof *texts);
    struct pool *pool = NULL;
    double total;
    int error = texts ? 0 : -ENOMEM;

    for (int i = 0; error == 0 && i < count; i++) {
        error = read_file(paths[i], &texts[i]);
        if (error)
            fprintf(stderr, "python_score: %s: %s\n", paths[i], strerror(-error));
    }
    if (error == 0)
        error = make_pool(&pool, workers);
    if (error == 0)
        error = score(pool, texts, count, paths, &total);
    pool_destroy(pool);
    for (int i = 0; texts && i < count; i++)
        free(texts[i].bytes);
    free(texts);
    return error;
}

enum { TEXTS = 32, TEXT_SIZE = 40000, ROUNDS = 9 };

/* Each round scores all texts with one worker and with two; what counts is the best of each, since
 * other programs can only make it slower. */
static int compare(void)
{
    struct text texts[TEXTS] = {{NULL, 0}};
    struct pool *pools[2] = {NULL, NULL};
    double best[2] = {1e9, 1e9}, totals[2] = {0, 0};
    int error = 0;

    for (int i = 0; error == 0 && i < TEXTS; i++)
        error = make_up(&texts[i], TEXT_SIZE, (uint32_t)i + 1);
    for (int i = 0; error == 0 && i < 2; i++) {
        error = make_pool(&pools[i], i + 1);
        if (error == 0)
            error = score(pools[i], texts, 8, NULL, &totals[i]); /* the interpreters are up */
    }
    for (int round = 0; error == 0 && round < ROUNDS; round++) {
        for (int i = 0; error == 0 && i < 2; i++) {
            double start = now();
            error = score(pools[i], texts, TEXTS, NULL, &totals[i]);
            double took = now() - start;
            if (took < best[i])
                best[i] = took;
        }
    }
    if (error == 0 && totals[0] != totals[1])
        error = -EBADMSG;
    if (error == 0)
        printf("%d texts of %d bytes, mean reading ease %.1f, Python %.6s\n"
               "one worker: %.3f s, two workers: %.3f s, that is %.2f times as fast\n",
               TEXTS, TEXT_SIZE, totals[0] / TEXTS, pool_python_version(), best[0], best[1],
               best[0] / best[1]);
    for (int i = 0; i < 2; i++)
        pool_destroy(pools[i]);
    for (int i = 0; i < TEXTS; i++)
        free(texts[i].bytes);
    return error;
}

int main(int argc, char **argv)
{
    int workers = 0; /* one for each usable core */

    for (int option; (option = getopt(argc, argv, "w:")) != -1;) {
        workers = option == 'w' ? atoi(optarg) : 0;
        if (workers < 1 || workers > POOL_MAX_WORKERS) {
            fprintf(stderr, "usage: %s [-w WORKERS] [FILE ...]\n", argv[0]);
            return 2;
        }
    }
    int error = optind < argc ? score_files(workers, argv + optind, argc - optind) : compare();
    if (error)
        fprintf(stderr, "python_score: %s\n", strerror(-error));
    return error != 0;
}
