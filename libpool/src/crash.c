/* Death at a chosen place in a real process. */
#include "crash.h"

#ifdef POOL_CRASH

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"
#include "system.h"

struct crash_plan *crash_plan;

/* This process, as far as it has come. */
static bool known;
static uint32_t forks, forks_first, incarnation, points;

static struct crash_plan *plan_of_environment(void)
{
    struct crash_plan *plan =
        mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *text = getenv("LIBPOOL_CRASH");
    unsigned role, which, point;

    if (plan == MAP_FAILED)
        abort(); /* a test could not mean anything without it */
    plan->role = CRASH_ROLES;
    if (text && sscanf(text, "%u %u %u", &role, &which, &point) == 3 && role < CRASH_ROLES) {
        plan->role = (enum crash_role)role;
        plan->incarnation = which;
        plan->point = point;
    }
    return plan;
}

/* The first point of a process. */
static void begin(void)
{
    uint32_t role;

    if (!known) {
        forks_first = fork_count();
        if (!crash_plan)
            crash_plan = plan_of_environment();
    }
    known = true;
    forks = fork_count();
    points = 0;
    role = forks - forks_first;
    if (role < CRASH_ROLES)
        incarnation = atomic_fetch_add(&crash_plan->begun[role], 1);
}

static _Noreturn void die(const char *file, int line)
{
    crash_plan->file = file;
    crash_plan->line = line;
    crash_plan->pid = getpid();
    crash_plan->time = system_now();
    atomic_store(&crash_plan->reached, 1);
    for (;;)
        raise(SIGKILL);
}

void crash_point(const char *file, int line)
{
    if (!known || forks != fork_count())
        begin();
    if (forks - forks_first != crash_plan->role || incarnation != crash_plan->incarnation)
        return;
    if (points == crash_plan->point)
        die(file, line);
    points++;
    atomic_store(&crash_plan->passed, points);
}

#endif
