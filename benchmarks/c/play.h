/* A pool whose host and workers are all played by this one process, in turn.
 *
 * The code is the library's own, as it is built into real pools. But nobody waits: each step comes
 * when what it would wait for is there. So two runs take the very same steps, which makes what they
 * cost countable: instructions (cycle.c, under callgrind) and moves of cache lines (lines.c).
 *
 * A job takes a number of 8 bytes and returns it. There are two plays:
 *
 *   lone   submit, wait, read, release, one job at a time. The worker spins when the job comes, and
 *          the host when the result comes.
 *   burst  PLAY_BATCH jobs are submitted; the workers run them, one each in turn; then the host
 *          waits for each, reads and releases it. Nobody ever waits.
 *
 * The functions are not inlined, so that a profiler can count inside one of them only.
 */
#ifndef PLAY_H
#define PLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "libpool.h"

#define PLAY_BATCH 256

/* Who plays now: 0 the host, 1.. the workers. */
extern int play_process;

/* The host's pool, or NULL. There is one at a time. */
struct pool *play_open(int workers);
void play_close(void);

/* So many jobs in one play; false: something failed. */
bool play_lone(uint64_t jobs);
bool play_burst(uint64_t batches);

/* The parts of a burst. */
bool play_submit_batch(void);
bool play_run_batch(void);
bool play_collect_batch(void);

#endif
