/* The one door to atomic operations on shared memory.
 *
 * Every access to an atomic in the segment goes through these macros, so that a test can compile
 * the very same layers with POOL_EXPLORE and have a scheduler decide who takes the next step, or
 * dies before it; with POOL_CRASH have a real process die before a given one (crash.c); and with
 * POOL_TRACE learn which cache lines each process touches (benchmarks/c/lines.c). In any other
 * build they are the C11 operations and cost nothing.
 */
#ifndef POOL_ATOMIC_H
#define POOL_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RELAXED memory_order_relaxed
#define ACQUIRE memory_order_acquire
#define RELEASE memory_order_release
#define ACQ_REL memory_order_acq_rel
#define SEQ_CST memory_order_seq_cst

/* LOOK comes before what only reads, STEP before all else. */
#if defined(POOL_EXPLORE)
void explore_step(const volatile void *address, const char *file, int line);
#define ATOMIC_LOOK(address) explore_step(address, __FILE__, __LINE__)
#define ATOMIC_STEP(address) explore_step(address, __FILE__, __LINE__)
#elif defined(POOL_CRASH)
#include "crash.h"
#define ATOMIC_LOOK(address) ((void)0)
#define ATOMIC_STEP(address) crash_point(__FILE__, __LINE__)
#elif defined(POOL_TRACE)
void trace_access(const volatile void *address, const char *name, bool writes);
#define ATOMIC_LOOK(address) trace_access(address, #address, false)
#define ATOMIC_STEP(address) trace_access(address, #address, true)
#else
#define ATOMIC_LOOK(address) ((void)0)
#define ATOMIC_STEP(address) ((void)0)
#endif

#define shared_load(p, order) (ATOMIC_LOOK(p), atomic_load_explicit((p), (order)))
#define shared_store(p, v, order) (ATOMIC_STEP(p), atomic_store_explicit((p), (v), (order)))
#define shared_exchange(p, v, order) (ATOMIC_STEP(p), atomic_exchange_explicit((p), (v), (order)))
#define shared_add(p, v, order) (ATOMIC_STEP(p), atomic_fetch_add_explicit((p), (v), (order)))
#define shared_or(p, v, order) (ATOMIC_STEP(p), atomic_fetch_or_explicit((p), (v), (order)))
#define shared_and(p, v, order) (ATOMIC_STEP(p), atomic_fetch_and_explicit((p), (v), (order)))
/* Strong; on failure *expected is what was found, read with acquire. */
#define shared_cas(p, expected, desired, order)                                                    \
    (ATOMIC_STEP(p),                                                                               \
     atomic_compare_exchange_strong_explicit((p), (expected), (desired), (order), ACQUIRE))

/* Tells the core that this is a spin loop, so that it does not speculate ahead of the load. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
