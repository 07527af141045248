/* A real pool, one of whose processes dies before each of its steps in turn.
 *
 *   test_crash [--rounds N] [VICTIM [POINT]]
 *
 * For each victim the scenario runs again and again, and each time the victim is killed one point
 * later, until the scenario comes to its end without reaching the point. What came of it is looked
 * at from outside. Processes overtake each other in other ways each time, so more rounds see more.
 * The points are shared out to some walkers, processes that run the scenario beside each other: a
 * supervisor's death takes a tenth of a second to be noticed, in which nobody has anything to do.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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
#define WALKERS 8
#define POINTS_MAX 16384

/* One run, in memory that its processes share. */
struct shared {
    struct crash_plan plan;
    struct tally tally;
};

struct victim {
    const char *name;
    struct crash_death death;  /* the point is what is walked through */
    struct crash_death before; /* another one that dies in each run */
    int rounds;                /* unless the command line says how many */
};

/* The worker that dies first, where a death is what makes its replacement, or a repair: in the
 * middle of its jobs. */
#define FIRST_WORKER {.role = CRASH_WORKER, .point = 40}
#define NOBODY {.role = CRASH_ROLES}

static const struct victim victims[] = {
    {"worker", {.role = CRASH_WORKER}, NOBODY, 4},
    {"replacement", {.role = CRASH_WORKER, .incarnation = 2}, FIRST_WORKER, 4},
    {"supervisor", {.role = CRASH_SUPERVISOR}, NOBODY, 1},
    {"supervisor after a worker", {.role = CRASH_SUPERVISOR}, FIRST_WORKER, 1},
    {"host", {.role = CRASH_HOST}, NOBODY, 2},
    {"host after a worker", {.role = CRASH_HOST}, FIRST_WORKER, 2},
};

struct place { /* in the source */
    const char *file;
    int line;
};

/* What a walker saw, or all of them. */
struct walk {
    uint32_t kills;
    bool failed;
    int died, lost;  /* jobs */
    int64_t slowest; /* ns, from a death to the end */
};

/* In memory that all walkers share. */
struct findings {
    struct walk walk[WALKERS];
    struct place place[POINTS_MAX]; /* where the victim died, by point; file is NULL: it did not */
};

static struct shared *shared;
static struct findings *findings;

/* ---- One run ---- */

static void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        perror("mmap");
        exit(EXIT_FAILURE);
    }
    return memory;
}

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

/* Runs the scenario, with a death or not, and books what came of it. */
static void run(const struct victim *victim, uint32_t point, struct walk *walk)
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
    walk->failed |= trouble != NULL;
    walk->died += shared->tally.died;
    walk->lost += shared->tally.lost + shared->tally.refused;
    end = host_died ? gone : shared->tally.end;
    if (death->reached && death->role != CRASH_WORKER && end - death->time > walk->slowest)
        walk->slowest = end - death->time;
}

/* A process of its own, since what the host's processes leave behind becomes its child. */
static void begin_walker(void)
{
    shared = shared_memory(sizeof *shared);
    crash_plan = &shared->plan;
    tally = &shared->tally;
    watch_begin();
}

/* ---- All points ---- */

/* Tries each WALKERS'th point from `first`, or `last` only. */
static void walk_alone(const struct victim *victim, uint32_t first, uint32_t last,
                       struct walk *walk)
{
    const struct crash_death *death;
    uint32_t point;
    int misses = 0;

    begin_walker();
    death = &shared->plan.death[0];
    for (point = first; point <= last && misses < MISSES; point += WALKERS) {
        run(victim, point, walk);
        misses = death->reached ? 0 : misses + 1;
        if (!death->reached)
            continue;
        walk->kills++;
        findings->place[point].file = death->file;
        findings->place[point].line = death->line;
    }
}

/* `point`: only that one; POINTS_MAX: all. Returns whether all walkers came to their end. */
static bool walk_together(const struct victim *victim, uint32_t point)
{
    uint32_t i, walkers = point < POINTS_MAX ? 1 : WALKERS;
    pid_t pids[WALKERS], parent = getpid();
    bool ended = true;
    int status;

    memset(findings->walk, 0, sizeof findings->walk);
    for (i = 0; i < walkers; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent)
                _exit(EXIT_FAILURE);
            walk_alone(victim, walkers > 1 ? i : point, walkers > 1 ? POINTS_MAX - 1 : point,
                       &findings->walk[i]);
            _exit(EXIT_SUCCESS);
        }
    }
    for (i = 0; i < walkers; i++)
        ended &= pids[i] > 0 && waitpid(pids[i], &status, 0) == pids[i] && status == 0;
    return ended;
}

static void add(struct walk *sum, const struct walk *walk)
{
    sum->kills += walk->kills;
    sum->failed |= walk->failed;
    sum->died += walk->died;
    sum->lost += walk->lost;
    if (walk->slowest > sum->slowest)
        sum->slowest = walk->slowest;
}

/* How many different places a role has died at so far, with what `findings` now has. */
static uint32_t count_places(enum crash_role role)
{
    static struct place seen[CRASH_ROLES][1024];
    static uint32_t count[CRASH_ROLES];
    uint32_t point, i;

    for (point = 0; point < POINTS_MAX; point++) {
        const struct place *place = &findings->place[point];

        if (!place->file)
            continue;
        for (i = 0; i < count[role]; i++)
            if (seen[role][i].line == place->line && strcmp(seen[role][i].file, place->file) == 0)
                break;
        if (i == count[role] && i < sizeof *seen / sizeof **seen)
            seen[role][count[role]++] = *place;
    }
    return count[role];
}

/* Returns how often the victim was killed; 0: something is not as it should be. */
static uint32_t walk_through(const struct victim *victim, int rounds, uint32_t only)
{
    struct walk sum = {0};
    uint32_t each = 0, points = 0, places = 0, point, i;
    int round;

    memset(findings->place, 0, sizeof findings->place);
    for (round = 0; round < rounds; round++) {
        sum.failed |= !walk_together(victim, only);
        for (i = 0; i < WALKERS; i++)
            add(&sum, &findings->walk[i]);
        places = count_places(victim->death.role);
    }
    while (each < POINTS_MAX && findings->place[each].file)
        each++;
    for (point = 0; point < POINTS_MAX; point++)
        if (findings->place[point].file)
            points = point + 1;
    sum.failed |= sum.kills == 0;
    printf("%-26s killed %5u times, at each of its first %4u points and up to point %4u, at %3u "
           "places; %5d jobs died, %6d lost or refused; slowest end %3lld ms: %s\n",
           victim->name, sum.kills, each, points, places, sum.died, sum.lost,
           (long long)(sum.slowest / 1000000), sum.failed ? "FAILED" : "ok");
    fflush(stdout);
    return sum.failed ? 0 : sum.kills;
}

/* ---- A plan in the environment ---- */

/* The scenario with such a plan and none in memory: the process of that role dies. */
static bool dies_by_environment(enum crash_role role)
{
    char plan[32];
    pid_t host;
    int status;

    memset(shared, 0, sizeof *shared);
    crash_plan = NULL;
    snprintf(plan, sizeof plan, "%d 0 100", (int)role);
    setenv("LIBPOOL_CRASH", plan, 1);
    host = watch_fork();
    if (host == 0) {
        scenario_run();
        _exit(scenario_has_died(role) == 1 && !tally->trouble[0] ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    status = watch_wait(host, DEADLINE);
    if (watch_others(PROMISE) < 0)
        return false;
    if (role == CRASH_HOST)
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

static bool check_environment(void)
{
    pid_t walker = fork();
    int status;

    if (walker == 0) {
        bool good;

        begin_walker();
        good = dies_by_environment(CRASH_HOST) && dies_by_environment(CRASH_SUPERVISOR) &&
               dies_by_environment(CRASH_WORKER);
        _exit(good ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    status = -1;
    if (walker > 0)
        waitpid(walker, &status, 0);
    printf("a plan in LIBPOOL_CRASH: %s\n", status == 0 ? "ok" : "FAILED");
    fflush(stdout);
    return status == 0;
}

int main(int argc, char **argv)
{
    uint32_t only = POINTS_MAX, kills, all = 0;
    int rounds = 0;
    bool good = true;
    size_t i;

    if (argc > 2 && strcmp(argv[1], "--rounds") == 0) {
        rounds = atoi(argv[2]);
        argc -= 2, argv += 2;
    }
    if (argc > 2)
        only = (uint32_t)strtoul(argv[2], NULL, 10);
    findings = shared_memory(sizeof *findings);
    if (argc == 1)
        good = check_environment();
    for (i = 0; i < sizeof victims / sizeof *victims; i++) {
        if (argc > 1 && strcmp(argv[1], victims[i].name) != 0)
            continue;
        kills = walk_through(&victims[i], rounds ? rounds : victims[i].rounds, only);
        good &= kills > 0;
        all += kills;
    }
    printf("test_crash: %u kills\n", all);
    return good && all ? EXIT_SUCCESS : EXIT_FAILURE;
}
