/* A real pool, one of whose processes dies before each of its steps in turn.
 *
 *   test_crash [--all] [--rounds N] [VICTIM [POINT]]
 *
 * For each victim the scenario runs again and again, and each time the victim is killed one point
 * later, until the scenario comes to its end without reaching the point. What came of it is looked
 * at from outside. Processes overtake each other in other ways each time, so more rounds see more.
 * The supervisor's points are many, and its death takes a tenth of a second to be noticed, so that
 * only with --all each of them is tried.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "crash.h"
#include "scenario.h"
#include "system.h"
#include "watch.h"

#define SECOND INT64_C(1000000000)
#define DEADLINE (30 * SECOND) /* for one run of the scenario */
/* From a death to the end of all that it ends. A loaded machine has twice the promised second. */
#define PROMISE (2 * SECOND)
/* So many runs in a row that did not come to their point: there are no more. */
#define MISSES 3

struct shared {
    struct crash_plan plan;
    struct tally tally;
};

struct victim {
    const char *name;
    struct crash_death death;  /* the point is what is walked through */
    struct crash_death before; /* another one that dies in each run */
    int rounds;                /* unless the command line says how many */
    /* From one point to the next; a prime, so that it comes to each place in a loop. */
    uint32_t step;
};

/* The worker that dies first, where a death is what makes its replacement, or a repair: in the
 * middle of its jobs. */
#define FIRST_WORKER                                                                               \
    {                                                                                              \
        .role = CRASH_WORKER, .point = 40                                                          \
    }
#define NOBODY                                                                                     \
    {                                                                                              \
        .role = CRASH_ROLES                                                                        \
    }

static const struct victim victims[] = {
    {"worker", {.role = CRASH_WORKER}, NOBODY, 4, 1},
    {"replacement", {.role = CRASH_WORKER, .incarnation = 2}, FIRST_WORKER, 4, 1},
    {"supervisor", {.role = CRASH_SUPERVISOR}, NOBODY, 1, 5},
    {"supervisor after a worker", {.role = CRASH_SUPERVISOR}, FIRST_WORKER, 1, 5},
    {"host", {.role = CRASH_HOST}, NOBODY, 2, 1},
    {"host after a worker", {.role = CRASH_HOST}, FIRST_WORKER, 2, 1},
};

struct walk {
    uint32_t tried, reached, points;
    uint32_t places; /* in the source */
    int died, lost;
    int64_t slowest; /* ns, from a death to the end */
};

static struct shared *shared;

/* ---- One run ---- */

static void report(const struct victim *victim, const char *what)
{
    const struct crash_death *death = &shared->plan.death[0];

    printf("FAILED  %s, point %u", victim->name, death->point);
    if (death->reached)
        printf(" (%s:%d)", strrchr(death->file, '/') ? strrchr(death->file, '/') + 1 : death->file,
               death->line);
    printf(": %s\n", what);
    fflush(stdout);
}

/* What the host says came of its jobs. */
static const char *check_tally(const struct tally *jobs, int status)
{
    const struct crash_death *death = &shared->plan.death[0];
    bool broken = scenario_has_died(CRASH_SUPERVISOR) > 0;

    if (jobs->trouble[0])
        return jobs->trouble;
    if (status != 0 || !jobs->complete)
        return "the host did not come to its end";
    if (jobs->wrong)
        return "a result is wrong";
    if ((jobs->lost || jobs->refused) && !broken)
        return "jobs were lost, and the supervisor lives";
    if (jobs->died && !scenario_has_died(CRASH_WORKER))
        return "a job died, and no worker did";
    if (broken && jobs->end - death->time > PROMISE)
        return "the host needed too long to see that the supervisor is dead";
    return NULL;
}

static pid_t start_host(const struct victim *victim, uint32_t point)
{
    struct crash_death *death = shared->plan.death;
    pid_t host;

    memset(shared, 0, sizeof *shared);
    death[0] = victim->death;
    death[0].point = point;
    death[1] = victim->before;
    host = watch_fork();
    if (host == 0) {
        scenario_run();
        _exit(0);
    }
    return host;
}

/* Runs the scenario, with a death or not. False: it is not as it should be. */
static bool run(const struct victim *victim, uint32_t point, struct walk *walk)
{
    const struct crash_death *death = &shared->plan.death[0];
    pid_t host = start_host(victim, point);
    int status = watch_wait(host, DEADLINE);
    bool host_died = scenario_has_died(CRASH_HOST) > 0;
    int64_t gone = watch_others(PROMISE), end;
    const char *trouble;

    if (status < 0 || gone < 0)
        trouble = status < 0 ? "it hangs" : "processes are left";
    else if (host_died)
        trouble = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? NULL : "the host lives";
    else
        trouble = check_tally(&shared->tally, status);
    if (!trouble && watch_left_files(host))
        trouble = "something is left in /dev/shm";
    if (trouble)
        report(victim, trouble);
    walk->tried++;
    walk->died += shared->tally.died;
    walk->lost += shared->tally.lost + shared->tally.refused;
    end = host_died ? gone : shared->tally.end;
    if (death->reached && death->role != CRASH_WORKER && end - death->time > walk->slowest)
        walk->slowest = end - death->time;
    return !trouble;
}

/* ---- All points ---- */

/* Notes the place where the victim died: true if it is a new one. */
static bool new_place(void)
{
    static struct {
        enum crash_role role;
        const char *file;
        int line;
    } seen[1024];
    static size_t count;
    const struct crash_death *death = &shared->plan.death[0];
    size_t i;

    for (i = 0; i < count; i++)
        if (seen[i].role == death->role && seen[i].file == death->file &&
            seen[i].line == death->line)
            return false;
    if (count < sizeof seen / sizeof *seen) {
        seen[count].role = death->role;
        seen[count].file = death->file;
        seen[count++].line = death->line;
    }
    return true;
}

static bool walk_through(const struct victim *victim, int rounds, uint32_t step)
{
    struct walk walk = {0};
    bool good = true;
    int round;

    for (round = 0; round < rounds; round++) {
        uint32_t point;
        int misses = 0;

        for (point = (uint32_t)round % step; misses < MISSES; point += step) {
            good &= run(victim, point, &walk);
            if (!shared->plan.death[0].reached) {
                misses++;
                continue;
            }
            misses = 0;
            walk.points = point + 1 > walk.points ? point + 1 : walk.points;
            walk.reached++;
            walk.places += new_place();
        }
    }
    printf("%-26s %4u points, killed %5u times, at %3u more places; %5d jobs died, "
           "%6d lost or refused; slowest end %3lld ms: %s\n",
           victim->name, walk.points, walk.reached, walk.places, walk.died, walk.lost,
           (long long)(walk.slowest / 1000000), good ? "ok" : "FAILED");
    fflush(stdout);
    return good;
}

int main(int argc, char **argv)
{
    int rounds = 0;
    bool good = true, any = false, all = false;
    size_t i;

    if (argc > 1 && strcmp(argv[1], "--all") == 0) {
        all = true;
        argc--, argv++;
    }
    if (argc > 2 && strcmp(argv[1], "--rounds") == 0) {
        rounds = atoi(argv[2]);
        argc -= 2, argv += 2;
    }
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return EXIT_FAILURE;
    crash_plan = &shared->plan;
    tally = &shared->tally;
    watch_begin();
    for (i = 0; i < sizeof victims / sizeof *victims; i++) {
        struct walk walk = {0};

        if (argc > 1 && strcmp(argv[1], victims[i].name) != 0)
            continue;
        any = true;
        if (argc > 2)
            good &= run(&victims[i], (uint32_t)strtoul(argv[2], NULL, 10), &walk);
        else
            good &= walk_through(&victims[i], rounds ? rounds : victims[i].rounds,
                                 all ? 1 : victims[i].step);
    }
    return any && good ? EXIT_SUCCESS : EXIT_FAILURE;
}
