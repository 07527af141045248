/* The states that the explorer has come to, as hashes: a set that grows. */
#ifndef STATES_H
#define STATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void states_clear(void);
/* True if it was not there. */
bool states_add(uint64_t state);
size_t states_count(void);

#endif
