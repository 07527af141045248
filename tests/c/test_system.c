/* What the machine or container grants. */
#include <sched.h>
#include <unistd.h>

#include "harness.h"
#include "system.h"

static void the_core_count_is_at_least_one_and_at_most_what_is_online(void)
{
    int cores = pool_cpu_count();

    EXPECT(cores >= 1, true);
    EXPECT(cores <= sysconf(_SC_NPROCESSORS_ONLN), true);
}

static void restrict_to_one_core(void *context)
{
    cpu_set_t now, one;
    int core = 0;

    (void)context;
    REQUIRE(sched_getaffinity(0, sizeof now, &now), 0);
    while (!CPU_ISSET(core, &now))
        core++;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT(pool_cpu_count(), 1);
}

static void the_core_count_follows_the_affinity_of_the_process(void)
{
    int before = pool_cpu_count();

    EXPECT(harness_fork(restrict_to_one_core, NULL, 20), 0);
    EXPECT(pool_cpu_count(), before);
}

static void near_cores_are_some_of_those_asked_for(void)
{
    cpu_set_t cores, near, none;
    int core = sched_getcpu();

    REQUIRE(sched_getaffinity(0, sizeof cores, &cores), 0);
    near = cores;
    system_keep_near(core, &near);
    EXPECT(CPU_ISSET((size_t)core, &near) != 0, true);
    CPU_OR(&near, &near, &cores);
    EXPECT(CPU_EQUAL(&near, &cores) != 0, true);
    system_keep_near(CPU_SETSIZE, &near); /* no such core: nothing is known of it */
    EXPECT(CPU_EQUAL(&near, &cores) != 0, true);
    CPU_ZERO(&none);
    system_keep_near(core, &none);
    EXPECT(CPU_COUNT(&none), 0);
}

static void memory_is_what_a_machine_can_have(void)
{
    uint64_t memory = system_memory(), available = system_memory_available();

    EXPECT(memory >= 16 * MEBIBYTE, true);
    EXPECT(memory < UINT64_C(1) << 50, true);
    EXPECT(available > 0, true);
    EXPECT(available <= memory, true);
}

static void the_default_configuration_is_a_worker_for_each_core(void)
{
    struct pool_config config;

    pool_config_init(&config);
    EXPECT(config.size, sizeof config);
    EXPECT(config.workers, pool_cpu_count());
    EXPECT(config.shared_limit, 0);
    EXPECT(config.host == NULL, true);
}

static void time_does_not_go_back(void)
{
    int64_t before = system_now(), now;
    int i;

    EXPECT(before > 0, true);
    for (i = 0; i < 1000; i++) {
        now = system_now();
        EXPECT(now >= before, true);
        before = now;
    }
}

static const struct harness_test tests[] = {
    TEST(the_core_count_is_at_least_one_and_at_most_what_is_online),
    TEST(the_core_count_follows_the_affinity_of_the_process),
    TEST(near_cores_are_some_of_those_asked_for),
    TEST(memory_is_what_a_machine_can_have),
    TEST(the_default_configuration_is_a_worker_for_each_core),
    TEST(time_does_not_go_back),
};

HARNESS_MAIN("system", tests)
