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
    int i;

    if (plan == MAP_FAILED)
        abort(); /* a test could not mean anything without it */
    for (i = 0; i < CRASH_DEATHS; i++)
        plan->death[i].role = CRASH_ROLES;
    if (text && sscanf(text, "%u %u %u", &role, &which, &point) == 3 && role < CRASH_ROLES) {
        plan->death[0].role = (enum crash_role)role;
        plan->death[0].incarnation = which;
        plan->death[0].point = point;
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

static _Noreturn void die(struct crash_death *death, const char *file, int line)
{
    death->file = file;
    death->line = line;
    death->pid = getpid();
    death->time = system_now();
    atomic_store(&death->reached, 1);
    for (;;)
        raise(SIGKILL);
}

void crash_point(const char *file, int line)
{
    int i;

    if (!known || forks != fork_count())
        begin();
    for (i = 0; i < CRASH_DEATHS; i++) {
        struct crash_death *death = &crash_plan->death[i];

        if (forks - forks_first != death->role || incarnation != death->incarnation)
            continue;
        if (points == death->point)
            die(death, file, line);
        atomic_store(&death->passed, points + 1);
    }
    points++;
}

#endif
