/* The jobs of the scenario. An argument begins with its number (uint32_t), and goes on with bytes
 * that follow from it. */
#ifndef JOBS_H
#define JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libpool.h"

#define ARGUMENT_MAX 70000            /* bytes */
#define PATIENCE INT64_C(10000000000) /* ns; what takes longer hangs */

void argument_fill(unsigned char *bytes, size_t size, uint32_t number);
/* Whether `data` is the argument of this number and of `wanted` bytes, each byte inverted. */
bool argument_is_inverted(const void *data, size_t size, uint32_t number, size_t wanted);

/* Returns the argument, each byte inverted. */
int job_invert(struct pool_job *job, const void *argument, size_t size);
/* Has another job do that, and gives on what became of it. */
int job_nest(struct pool_job *job, const void *argument, size_t size);
/* Ends when tally->gate is open. */
int job_wait_at_gate(struct pool_job *job, const void *argument, size_t size);
/* Ends only with its worker. */
int job_wait_for_ever(struct pool_job *job, const void *argument, size_t size);
/* The same, and sets tally->begun. */
int job_begin_and_wait(struct pool_job *job, const void *argument, size_t size);
/* Counts in tally->detached. */
int job_count(struct pool_job *job, const void *argument, size_t size);
/* uint32_t -> uint32_t. */
int job_triple(struct pool_job *job, const void *argument, size_t size);
/* Returns what is in the shared block whose reference it is given. */
int job_read_shared(struct pool_job *job, const void *argument, size_t size);
/* The same, holding it meanwhile. */
int job_hold_shared(struct pool_job *job, const void *argument, size_t size);
/* As job_invert(), of a copy in a block of its own, which it gives with the result; keeps the
 * argument meanwhile. */
int job_keep(struct pool_job *job, const void *argument, size_t size);

#endif
