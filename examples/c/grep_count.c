/* grep -c: how many lines of each file match; files, and parts of large ones, in parallel.
 *
 *     grep_count [-EFivhHt] [-w WORKERS] PATTERN FILE...
 *
 * Options, output and exit status are those of grep -c, as far as they go: -E extended regular
 * expressions, -F no expression but a string, -i ignore case, -v lines that do not match, -h and -H
 * without and with names. -t says on standard error how long it took, also without a pool. Files
 * are taken for text: a zero ends the line.
 *
 * Each job opens its file itself. What goes wrong with one file comes back as the status of its
 * jobs, and the others are counted all the same. */
#include <errno.h>
#include <inttypes.h>
#include <regex.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <libpool.h>

enum { PART = 1 << 20 }; /* bytes of a file in one job */

/* The argument of a job: this, then the name of the file after the pattern. A part's lines are
 * those that begin in it. */
struct task {
    int flags; /* of regcomp() */
    bool invert;
    int64_t begin, end;               /* end is -1 for "to the end of the file" */
    uint64_t pattern_size, name_size; /* bytes, with the zero at the end */
    char pattern_and_name[];
};

/* Here and below: the number of lines, or a negative errno. */
static int64_t count_lines(const struct task *task, const regex_t *expression, FILE *file)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t length = 0;
    int64_t count = 0, place = task->begin;

    /* From the byte before: the rest of a line that began there is the part's before this one. */
    if (place > 0 && fseeko(file, place - 1, SEEK_SET) != 0)
        return -errno;
    if (place > 0 && (length = getline(&line, &room, file)) > 0)
        place += length - 1;
    while (length >= 0 && (task->end < 0 || place < task->end) &&
           (length = getline(&line, &room, file)) >= 0) {
        place += length;
        if (length > 0 && line[length - 1] == '\n')
            line[length - 1] = '\0';
        count += (regexec(expression, line, 0, NULL, 0) == 0) != task->invert;
    }
    if (length < 0 && !feof(file))
        count = -errno;
    free(line);
    return count;
}

static int64_t count_part(const struct task *task)
{
    regex_t expression;
    if (regcomp(&expression, task->pattern_and_name, task->flags | REG_NOSUB) != 0)
        return -EINVAL; /* main() has tried it */
    FILE *file = fopen(task->pattern_and_name + task->pattern_size, "re");
    int64_t count = file != NULL ? count_lines(task, &expression, file) : -errno;
    if (file != NULL)
        fclose(file);
    regfree(&expression);
    return count;
}

/* The job. */
static int count_job(struct pool_job *job, const void *argument, size_t size)
{
    const struct task *task = argument;
    if (size < sizeof *task || size != sizeof *task + task->pattern_size + task->name_size)
        return -EINVAL;
    int64_t count = count_part(task);
    return count < 0 ? (int)count : pool_job_return(job, &count, sizeof count);
}

/* ---- The program ---- */

struct part {
    int file; /* number on the command line */
    struct task *task;
    size_t size;
    struct pool_future future;
};

struct search {
    const char *pattern;
    int flags;
    bool invert, timed;
    int names; /* 1: before each count; 0: not; -1: if there are several files */
    char **files;
    int file_count;
    struct part *parts;
    size_t part_count;
};

static bool add_part(struct search *search, int file, int64_t begin, int64_t end)
{
    size_t pattern_size = strlen(search->pattern) + 1, name_size = strlen(search->files[file]) + 1;
    struct part *parts = realloc(search->parts, (search->part_count + 1) * sizeof *parts);
    if (parts == NULL)
        return false;
    search->parts = parts;
    struct part *part = &parts[search->part_count];
    *part = (struct part){.file = file, .size = sizeof *part->task + pattern_size + name_size};
    part->task = malloc(part->size);
    if (part->task == NULL)
        return false;
    search->part_count++;
    *part->task = (struct task){.flags = search->flags,
                                .invert = search->invert,
                                .begin = begin,
                                .end = end,
                                .pattern_size = pattern_size,
                                .name_size = name_size};
    memcpy(part->task->pattern_and_name, search->pattern, pattern_size);
    memcpy(part->task->pattern_and_name + pattern_size, search->files[file], name_size);
    return true;
}

/* What can't be opened is a part as well: its job says why. */
static bool plan(struct search *search)
{
    bool done = true;
    for (int file = 0; done && file < search->file_count; file++) {
        struct stat status;
        int64_t begin = 0;
        if (stat(search->files[file], &status) == 0 && S_ISREG(status.st_mode))
            for (; done && begin + PART < status.st_size; begin += PART)
                done = add_part(search, file, begin, begin + PART);
        done = done && add_part(search, file, begin, -1);
    }
    return done;
}

static int64_t collect(const struct part *part)
{
    const void *data;
    size_t size;
    int64_t count;
    int error;
    do
        error = pool_future_wait(&part->future, POOL_FOREVER);
    while (error == -EINTR); /* a signal handler ran */
    if (error == 0)
        error = pool_future_result(&part->future, &data, &size);
    if (error == 0 && size != sizeof count)
        error = -EBADMSG;
    if (error)
        return error;
    memcpy(&count, data, sizeof count);
    return count;
}

/* Prints the counts in the order of the files: 0 if any line matched, 1 if none did, 2 after an
 * error, which does not keep the others from being counted. */
static int report(const struct search *search)
{
    bool any = false, failed = false;
    size_t next = 0;
    for (int file = 0; file < search->file_count; file++) {
        int64_t count = 0, error = 0;
        for (; next < search->part_count && search->parts[next].file == file; next++) {
            int64_t lines = collect(&search->parts[next]);
            if (lines < 0)
                error = lines;
            else
                count += lines;
        }
        failed = failed || error != 0;
        any = any || count > 0;
        if (error) {
            fflush(stdout);
            fprintf(stderr, "grep_count: %s: %s\n", search->files[file], strerror((int)-error));
        }
        if (error && error != -EISDIR)
            continue;
        if (search->names > 0 || (search->names < 0 && search->file_count > 1))
            printf("%s:", search->files[file]);
        printf("%" PRId64 "\n", count);
    }
    return failed ? 2 : any ? 0 : 1;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void time_serially(const struct search *search, double parallel, int workers)
{
    double start = now();
    for (size_t i = 0; i < search->part_count; i++)
        count_part(search->parts[i].task);
    double serial = now() - start;
    fprintf(stderr, "serially %.3f s, with %d workers %.3f s: %.2f times as fast\n", serial,
            workers, parallel, serial / parallel);
}

/* Returns the exit status. */
static int run(const struct pool_config *config, struct search *search)
{
    struct pool *pool = NULL;
    size_t submitted = 0;
    int status = 2;
    int error = plan(search) ? pool_create(&pool, config) : -ENOMEM;
    double start = now();

    while (error == 0 && submitted < search->part_count) {
        struct part *part = &search->parts[submitted];
        error = pool_submit(pool, count_job, part->task, part->size, &part->future);
        if (error == 0)
            submitted++;
    }
    if (error == 0)
        status = report(search);
    else
        fprintf(stderr, "grep_count: %s\n", strerror(-error));
    if (error == 0 && search->timed)
        time_serially(search, now() - start, config->workers);
    for (size_t i = 0; i < submitted; i++)
        pool_future_release(&search->parts[i].future);
    pool_destroy(pool);
    for (size_t i = 0; i < search->part_count; i++)
        free(search->parts[i].task);
    free(search->parts);
    return status;
}

/* For -F: a basic regular expression that matches nothing but `text`. */
static char *quote(const char *text)
{
    char *quoted = malloc(2 * strlen(text) + 1), *end = quoted;
    for (; quoted != NULL && *text != '\0'; text++) {
        if (strchr(".[]*^$\\", *text) != NULL)
            *end++ = '\\';
        *end++ = *text;
    }
    if (quoted != NULL)
        *end = '\0';
    return quoted;
}

int main(int argc, char **argv)
{
    struct search search = {.names = -1};
    struct pool_config config;
    bool fixed = false;
    pool_config_init(&config);
    for (int option; (option = getopt(argc, argv, "EFivhHtw:")) != -1;) {
        switch (option) {
        case 'E':
            search.flags |= REG_EXTENDED;
            break;
        case 'F':
            fixed = true;
            break;
        case 'i':
            search.flags |= REG_ICASE;
            break;
        case 'v':
            search.invert = true;
            break;
        case 'h':
            search.names = 0;
            break;
        case 'H':
            search.names = 1;
            break;
        case 't':
            search.timed = true;
            break;
        case 'w':
            config.workers = atoi(optarg);
            break; /* pool_create() says if it is no good */
        default:
            argc = 0;
            break;
        }
    }
    if (argc - optind < 2) {
        fprintf(stderr, "usage: grep_count [-EFivhHt] [-w WORKERS] PATTERN FILE...\n");
        return 2;
    }
    if (fixed)
        search.flags &= ~REG_EXTENDED;
    char *quoted = fixed ? quote(argv[optind]) : NULL;
    search.pattern = quoted != NULL ? quoted : argv[optind];
    search.files = argv + optind + 1;
    search.file_count = argc - optind - 1;

    regex_t expression;
    int error =
        fixed && quoted == NULL ? REG_ESPACE : regcomp(&expression, search.pattern, search.flags);
    if (error) {
        char text[200];
        regerror(error, &expression, text, sizeof text);
        fprintf(stderr, "grep_count: %s\n", text);
        free(quoted);
        return 2;
    }
    regfree(&expression);
    int status = run(&config, &search);
    free(quoted);
    return status;
}
