/* Which cache lines move between processes for each job, and how often.
 *
 *     lines lone|burst WORKERS
 *
 * The library, compiled so that each atomic operation says first which address it is about to read
 * or write (atomic.h), plays the plays of play.h. For each line of shared memory it is known who
 * has a copy, as the caches of a real machine keep it (MESI): who reads a line of which it has no
 * copy has it moved to it; who writes has every other copy taken away. In the steady state this
 * gives, for each job:
 *
 *   moves   a process touched a line of which it had no copy: it waited for the line to come
 *   claims  a process wrote to a line of which it had a copy, and others as well: it waited for
 *           their copies to go
 *
 * What the kernel touches (futexes, and only for sleepers) is not seen, nor are arguments and
 * results that lie outside the job's slot.
 *
 * Prints, separated by tabs: the process (host, workers), the line, moves and claims for each job,
 * the fields. Lines are sorted by what they cost together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "play.h"

#define LINE 64
#define LINES_MAX 65536
#define FIELDS_MAX 12
#define WARM_BATCHES 32 /* until each cell of the ring's first level has been used several times */
#define BATCHES 64
#define SIDES 2 /* the host, and all workers together */

struct line {
    uintptr_t number; /* 0: none */
    uint64_t copies;  /* a bit for each process */
    uint64_t moves[SIDES], claims[SIDES];
    const char *fields[FIELDS_MAX];
};

static struct line lines[LINES_MAX];
static struct pool *pool;
static bool counting;

static struct line *line_of(const volatile void *address)
{
    uintptr_t number = (uintptr_t)address / LINE;
    size_t i = number % LINES_MAX;

    while (lines[i].number && lines[i].number != number)
        i = (i + 1) % LINES_MAX;
    lines[i].number = number;
    return &lines[i];
}

static void note_field(struct line *line, const char *name)
{
    int i;

    for (i = 0; i < FIELDS_MAX && line->fields[i] && strcmp(line->fields[i], name) != 0; i++)
        ;
    if (i < FIELDS_MAX)
        line->fields[i] = name;
}

static bool is_shared(const volatile void *address)
{
    const volatile unsigned char *at = address;

    return pool && at >= pool->segment.base && at < pool->segment.base + pool->segment.size;
}

void trace_access(const volatile void *address, const char *name, bool writes)
{
    struct line *line;
    uint64_t self;
    int side;

    if (play_process < 0 || !is_shared(address))
        return;
    line = line_of(address);
    self = UINT64_C(1) << play_process;
    side = play_process > 0;
    if (counting) {
        note_field(line, name);
        if (!(line->copies & self))
            line->moves[side]++;
        else if (writes && line->copies != self)
            line->claims[side]++;
    }
    line->copies = writes ? self : line->copies | self;
}

/* ---- Names ---- */

struct region {
    const char *name;
    uint64_t offset, size, unit; /* elements of `unit` bytes: the line within one; 0: one thing */
};

static uint64_t freemap_bytes(const struct freemap *map, unsigned level)
{
    return (((uint64_t)map->entries >> (6 * (level + 1))) + 1) * sizeof(uint64_t);
}

/* What the line is in: the offset of the line in the region, or in its element, goes to *within. */
static const char *name_of(const struct line *line, uint64_t *within)
{
    const struct ring *ready = &pool->ready;
    const struct job_table *jobs = &pool->jobs;
    uint64_t offset = line->number * LINE - (uintptr_t)pool->segment.base;
    const struct region regions[] = {
        {"control", pool->control, sizeof(struct control), 0},
        {"wake words", pool->control + offsetof(struct control, wake), sizeof(struct wake_words),
         0},
        {"notices", pool->control + offsetof(struct control, notify_armed), LINE, 0},
        {"process slot", pool->processes, (uint64_t)pool->workers * sizeof(struct process),
         sizeof(struct process)},
        {"ring", ready->header, ready->cells - ready->header, 0},
        {"cells of the ring", ready->cells, UINT64_C(1) << 40, LINE},
        {"job table", jobs->header, sizeof(uint32_t), 0},
        {"free map of jobs", jobs->map.level[0], freemap_bytes(&jobs->map, 0), LINE},
        {"summary of the free map", jobs->map.level[1], freemap_bytes(&jobs->map, 1), LINE},
        {"top of the free map", jobs->map.level[2], freemap_bytes(&jobs->map, 2), LINE},
        {"job slot", jobs->slots, (uint64_t)jobs->entries * sizeof(struct job), sizeof(struct job)},
        {"table of functions", pool->functions.modules, UINT64_C(1) << 20, LINE},
    };
    const struct region *found = NULL;
    size_t i;

    /* Regions follow each other: the last that begins before is the one. */
    for (i = 0; i < sizeof regions / sizeof *regions; i++)
        if (offset >= regions[i].offset && (!found || regions[i].offset > found->offset))
            found = &regions[i];
    *within = offset;
    if (!found)
        return "?";
    *within = offset - found->offset;
    if (found->unit)
        *within %= found->unit;
    return found->name;
}

/* The field that an expression names: "stack" for "&process->stack[depth]", "cell" for
 * "cell_at(ring, level, head)". Returns its length. */
static size_t field_of(const char *expression, const char **field)
{
    const char *at;
    int depth = 0;
    size_t length;

    *field = expression + strspn(expression, "&*(");
    for (at = *field; *at; at++) {
        depth += (*at == '(') - (*at == ')');
        if (depth <= 0 && at[0] == '-' && at[1] == '>')
            *field = at + 2;
    }
    length = strcspn(*field, "[(),");
    if ((*field)[length] == '(' && length > 3) /* of a function, cell_at() or word_of() */
        length -= 3;
    return length;
}

static void add_field(char *text, size_t room, const char *expression)
{
    const char *field;
    size_t length = field_of(expression, &field), used = strlen(text);
    char *at;

    for (at = text; *at; at += strcspn(at, " ") + (at[strcspn(at, " ")] != '\0'))
        if (strncmp(at, field, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return; /* it stands there */
    snprintf(text + used, room - used, "%s%.*s", used ? ", " : "", (int)length, field);
}

/* ---- The table ---- */

struct row {
    const char *name;
    uint64_t within, moves[SIDES], claims[SIDES];
    char fields[256];
};

static int compare(const void *left, const void *right)
{
    const struct row *a = left, *b = right;
    uint64_t x = a->moves[0] + a->moves[1] + a->claims[0] + a->claims[1];
    uint64_t y = b->moves[0] + b->moves[1] + b->claims[0] + b->claims[1];

    return (x < y) - (x > y);
}

static size_t add_row(struct row *rows, size_t count, const struct line *line)
{
    struct row row = {.name = NULL};
    size_t i;
    int k;

    row.name = name_of(line, &row.within);
    for (i = 0; i < count; i++)
        if (strcmp(rows[i].name, row.name) == 0 && rows[i].within == row.within)
            break;
    if (i == count)
        rows[count++] = row;
    for (k = 0; k < SIDES; k++) {
        rows[i].moves[k] += line->moves[k];
        rows[i].claims[k] += line->claims[k];
    }
    for (k = 0; k < FIELDS_MAX && line->fields[k]; k++)
        add_field(rows[i].fields, sizeof rows[i].fields, line->fields[k]);
    return count;
}

static void print(double jobs)
{
    static const char *const sides[SIDES] = {"host", "workers"};
    static struct row rows[256];
    size_t count = 0, i;
    int side;

    for (i = 0; i < LINES_MAX && count < sizeof rows / sizeof *rows; i++)
        if (lines[i].number)
            count = add_row(rows, count, &lines[i]);
    qsort(rows, count, sizeof *rows, compare);
    for (i = 0; i < count; i++)
        for (side = 0; side < SIDES; side++)
            /* What happens at the end of a play only is not for each job. */
            if ((double)(rows[i].moves[side] + rows[i].claims[side]) >= jobs / 1000)
                printf("%s\t%s +%llu\t%.3f\t%.3f\t%s\n", sides[side], rows[i].name,
                       (unsigned long long)rows[i].within, (double)rows[i].moves[side] / jobs,
                       (double)rows[i].claims[side] / jobs, rows[i].fields);
}

int main(int argc, char **argv)
{
    long workers = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
    bool lone = argc == 3 && strcmp(argv[1], "lone") == 0, done;
    double jobs = BATCHES * PLAY_BATCH;

    if (workers < 1 || workers > 63 || (!lone && strcmp(argv[1], "burst") != 0)) {
        fprintf(stderr, "usage: %s lone|burst WORKERS (up to 63)\n", argv[0]);
        return 2;
    }
    pool = play_open((int)workers);
    if (!pool) {
        fprintf(stderr, "%s: no pool\n", argv[0]);
        return 1;
    }
    done =
        play_burst(WARM_BATCHES); /* a lone play ends the pool, so it is warmed up by this, too */
    counting = true;
    done = done && (lone ? play_lone((uint64_t)jobs) : play_burst(BATCHES));
    counting = false;
    print(jobs);
    play_close();
    if (!done)
        fprintf(stderr, "%s: a job failed\n", argv[0]);
    return !done;
}
