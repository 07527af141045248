/* What the explorer decided, step by step, in its last execution. */
#ifndef DECISION_H
#define DECISION_H

#include <stdint.h>

struct decision {
    uint8_t option, options; /* which of how many was taken */
    int8_t process;          /* that took the step; ~process: that died */
    int line;                /* where the step is in the layers */
    const char *file;        /* NULL: in none */
};

const struct decision *explore_decisions(int *count);

#endif
