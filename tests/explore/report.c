/* What the test programs have in common: the command line, a line for each scenario, the sums. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decision.h"
#include "explore.h"

static bool longer_too;
static const char *only;
static unsigned seconds; /* for each of the longer ones; 0: no limit */
static int reported, failures, cut_short;
static uint64_t executions, states, steps;

void explore_arguments(int argc, char **argv)
{
    int i;

    for (i = 1; i < argc; i++)
        if (strcmp(argv[i], "--long") == 0)
            longer_too = true;
        else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = (unsigned)strtoul(argv[++i], NULL, 10);
        else
            only = argv[i];
}

/* Where each step of the failed execution was, a line for each stretch of one process. */
static void print_trace(void)
{
    int i, count;
    const struct decision *decisions = explore_decisions(&count);

    for (i = 0; i < count; i++) {
        const struct decision *decision = &decisions[i];
        const char *name;

        if (decision->process < 0) {
            printf("\n    %d dies", ~decision->process);
            continue;
        }
        if (i == 0 || decisions[i - 1].process != decision->process)
            printf("\n    %d:", decision->process);
        if (!decision->file)
            continue;
        name = strrchr(decision->file, '/');
        printf(" %s:%d", name ? name + 1 : decision->file, decision->line);
    }
    printf("\n");
}

void explore_report(const struct explore_scenario *scenario, bool longer)
{
    struct explore_result found;
    char bound[32] = "every interleaving", deaths[32] = "no death";

    if (only ? strcmp(only, scenario->name) != 0 : longer && !longer_too)
        return;
    found = explore(scenario, longer ? seconds : 0);
    reported++;
    cut_short += found.cut_short;
    executions += found.executions;
    states += found.states;
    steps += found.steps;
    if (scenario->preemptions >= 0)
        snprintf(bound, sizeof bound, "%d pre-emptions", scenario->preemptions);
    if (scenario->deaths)
        snprintf(deaths, sizeof deaths,
                 scenario->deaths > 1 ? "%d deaths anywhere" : "a death anywhere",
                 scenario->deaths);
    printf("%-46s %-18s  %-17s %9llu executions %9llu states %10llu steps, "
           "%3d in an operation: %s\n",
           scenario->name, bound, deaths, (unsigned long long)found.executions,
           (unsigned long long)found.states, (unsigned long long)found.steps, found.operation,
           found.failure     ? found.failure
           : found.cut_short ? "ok, as far as it came in its time"
                             : "ok");
    if (found.failure) {
        failures++;
        print_trace();
    }
    fflush(stdout);
}

int explore_finish(void)
{
    printf("%s: %d scenarios, %llu executions, %llu states, %llu steps, %d cut short, "
           "%d failures\n",
           program_invocation_short_name, reported, (unsigned long long)executions,
           (unsigned long long)states, (unsigned long long)steps, cut_short, failures);
    return reported && !failures ? EXIT_SUCCESS : EXIT_FAILURE;
}
