/* Waiting: spin for a while, then sleep in the kernel. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"
#include "system.h"
#include "wake.h"

int futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout)
{
    struct timespec relative, *limit = NULL;

    if (timeout != POOL_FOREVER) {
        relative.tv_sec = (time_t)(timeout / 1000000000);
        relative.tv_nsec = (long)(timeout % 1000000000);
        limit = &relative;
    }
    /* The kernel compares and goes to sleep in one step, so a change right before is not missed. */
    if (syscall(SYS_futex, word, FUTEX_WAIT, expected, limit, NULL, 0) == 0 || errno == EAGAIN)
        return 0;
    return -errno;
}

void futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

/* Pauses between two looks at the clock; a pause is 10 to 40 ns. */
#define PAUSES 16
#define BUDGET_FIRST 20000
#define BUDGET_MIN 500
#define PATIENCE 4000
/* A yield that takes longer than this let somebody else run: perhaps the one we wait for, so
 * from then on the core is offered at once. Longer than that, and it was somebody with work of
 * his own. */
#define YIELD_SWITCHED 1500
#define YIELD_CROWDED 100000
#define CROWDED_WAITS 64

void spin_init(struct spin *spin)
{
    atomic_init(&spin->budget, BUDGET_FIRST);
    atomic_init(&spin->patience, PATIENCE);
    atomic_init(&spin->crowded, 0);
    spin->shared = 0;
    spin->next_look = 0;
}

void spin_begin(struct spin_wait *wait, struct spin *spin)
{
    wait->spin = spin;
    wait->start = wait->end = system_now();
    wait->round = 0;
    wait->taken = false;
}

/* Offers the core: the time then. */
static int64_t offer_core(struct spin_wait *wait, int64_t now)
{
    struct spin *spin = wait->spin;
    int64_t after;

    sched_yield();
    after = system_now();
    wait->taken = after - now > YIELD_SWITCHED && after - now <= YIELD_CROWDED;
    atomic_store_explicit(&spin->patience, after - now > YIELD_SWITCHED ? 0 : PATIENCE, RELAXED);
    if (after - now > YIELD_CROWDED)
        atomic_store_explicit(&spin->crowded, CROWDED_WAITS, RELAXED);
    return after;
}

bool spin_round(struct spin_wait *wait)
{
    struct spin *spin = wait->spin;
    int64_t now;

    wait->taken = false;
    cpu_relax();
    /* Sharing a core with the one we wait for, each pause is one that he has to wait for, too. */
    if (++wait->round % PAUSES && atomic_load_explicit(&spin->patience, RELAXED) > 0)
        return true;
    if (atomic_load_explicit(&spin->crowded, RELAXED) > 0)
        return false;
    now = system_now();
    if (now - wait->start > atomic_load_explicit(&spin->patience, RELAXED))
        now = offer_core(wait, now);
    return now - wait->start < atomic_load_explicit(&spin->budget, RELAXED);
}

void spin_end(struct spin_wait *wait)
{
    struct spin *spin = wait->spin;
    int64_t budget = atomic_load_explicit(&spin->budget, RELAXED);
    int32_t crowded = atomic_load_explicit(&spin->crowded, RELAXED);

    if (wait->round == 0)
        return;
    /* A wait that spinning to the maximum would have covered: spin so long. Others: half as long
     * each time, down to a look or two. */
    wait->end = system_now();
    if (wait->end - wait->start < SPIN_MAX)
        budget = SPIN_MAX;
    else if (budget > BUDGET_MIN)
        budget /= 2;
    atomic_store_explicit(&spin->budget, budget, RELAXED);
    if (crowded > 0)
        atomic_store_explicit(&spin->crowded, crowded - 1, RELAXED);
}

/* As many waits in a row are no accident; and how often to look for a free core (ns), which costs
 * some microseconds. */
#define SHARED_WAITS 16
#define LOOK_INTERVAL 2000000

/* Lets this thread run on the cores that are `allowed` again. Where these are all that it could
 * have, it gets a mask of all cores, as it had before: then it may also run on those that the
 * machine or container gets later. */
static void restore_cores(const cpu_set_t *allowed)
{
    cpu_set_t all, now;

    memset(&all, 0xff, sizeof all);
    if (sched_setaffinity(0, sizeof all, &all) == 0 &&
        sched_getaffinity(0, sizeof now, &now) == 0 && CPU_EQUAL(&now, allowed))
        return;
    sched_setaffinity(0, sizeof *allowed, allowed);
}

/* Moves to another core of those that this thread may use. The mask is the thread's own, and what
 * it was again at once; death in between leaves nothing behind. */
static void leave_core(void)
{
    cpu_set_t allowed, others;
    int core = sched_getcpu();

    if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    others = allowed;
    CPU_CLR((size_t)core, &others);
    system_keep_near(core, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
        restore_cores(&allowed);
}

static void look_for_core(struct spin *spin, int64_t now)
{
    spin->next_look = now + LOOK_INTERVAL;
    if (system_has_free_cores())
        leave_core();
}

void spin_spread(struct spin_wait *wait)
{
    struct spin *spin = wait->spin;

    /* It was the one we waited for that ran here: there is work as soon as we have the core. */
    spin->shared = wait->taken ? spin->shared + 1 : 0;
    if (spin->shared < SHARED_WAITS || wait->end < spin->next_look)
        return;
    spin->shared = 0;
    look_for_core(spin, wait->end);
}

void spin_note_core(_Atomic uint32_t *place)
{
    atomic_store_explicit(place, (uint32_t)sched_getcpu(), RELAXED);
}

void spin_woken(struct spin *spin, _Atomic uint32_t *place)
{
    int64_t now;

    if (atomic_load_explicit(place, RELAXED) != (uint32_t)sched_getcpu())
        return;
    now = system_now();
    if (now >= spin->next_look)
        look_for_core(spin, now);
}
