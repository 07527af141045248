/* What this machine or container grants: cores and memory.
 *
 * Reads /proc and /sys/fs/cgroup. A file that is missing or says "max" sets no bound. Both cgroup
 * versions nest: the tightest limit on the way to the root counts.
 */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libpool.h"

#define CGROUP_ROOT "/sys/fs/cgroup"
/* Large enough for any machine there is; a kernel with more CPUs than that says EINVAL. */
#define CPUS_MAX 8192

int64_t system_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct file_identity system_file(int fd)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return (struct file_identity){0};
    return (struct file_identity){.device = status.st_dev, .inode = status.st_ino};
}

bool system_is_file(int fd, struct file_identity identity)
{
    struct file_identity found = system_file(fd);

    return found.inode && found.device == identity.device && found.inode == identity.inode;
}

ssize_t system_read(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length;

    if (fd < 0)
        return -1;
    length = read(fd, text, room - 1);
    close(fd);
    if (length >= 0)
        text[length] = '\0';
    return length;
}

/* Where this process is, as /proc/self/cgroup says it: read once for all that is asked about it. */
struct cgroups {
    char text[4096];
};

static void cgroups_read(struct cgroups *groups)
{
    if (system_read("/proc/self/cgroup", groups->text, sizeof groups->text) < 0)
        groups->text[0] = '\0';
}

/* The path in the hierarchy of `controller` ("" for version 2), or -1. */
static int cgroup_path(const struct cgroups *groups, const char *controller, char *path,
                       size_t room)
{
    char text[sizeof groups->text];
    char *line, *save = NULL;

    memcpy(text, groups->text, sizeof text);
    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *names = strchr(line, ':');
        char *where = names ? strchr(names + 1, ':') : NULL;

        if (!where)
            continue;
        *where++ = '\0';
        names++;
        /* Version 1 lists its controllers by name, "cpu,cpuacct"; version 2 has none. */
        if (*controller ? strstr(names, controller) != NULL : *names == '\0') {
            if ((size_t)snprintf(path, room, "%s", where) >= room)
                return -1;
            return 0;
        }
    }
    return -1;
}

/* Calls `visit` for `file` in each cgroup from this process's own to the root. */
static void cgroup_walk(const struct cgroups *groups, const char *controller, const char *file,
                        void (*visit)(const char *directory, const char *text, void *context),
                        void *context)
{
    char path[PATH_MAX / 2];
    char name[PATH_MAX], directory[PATH_MAX], text[128];

    if (cgroup_path(groups, controller, path, sizeof path) < 0)
        return;
    for (;;) {
        char *slash;

        snprintf(directory, sizeof directory, "%s%s%s%s", CGROUP_ROOT, *controller ? "/" : "",
                 controller, strcmp(path, "/") == 0 ? "" : path);
        if ((size_t)snprintf(name, sizeof name, "%s/%s", directory, file) < sizeof name &&
            system_read(name, text, sizeof text) > 0)
            visit(directory, text, context);
        slash = strrchr(path, '/');
        if (!slash || path[1] == '\0')
            return;
        slash[slash == path ? 1 : 0] = '\0';
    }
}

bool system_has_free_cores(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN), running;
    char text[128];

    /* Three averages, then how many tasks can run now, on all cores together. */
    if (system_read("/proc/loadavg", text, sizeof text) <= 0 ||
        sscanf(text, "%*s %*s %*s %ld/", &running) != 1)
        return false;
    return running > 1 && 2 * (cores - (running - 1)) >= cores;
}

/* The cores in a list as the kernel writes them, "0-15,32-47". */
static void parse_cores(const char *text, cpu_set_t *cores)
{
    int first, last, length;

    CPU_ZERO(cores);
    while (sscanf(text, "%d%n", &first, &length) == 1) {
        text += length;
        last = first;
        if (sscanf(text, "-%d%n", &last, &length) == 1)
            text += length;
        for (; first >= 0 && first <= last && first < CPU_SETSIZE; first++)
            CPU_SET((size_t)first, cores);
        if (*text++ != ',')
            return;
    }
}

void system_keep_near(int core, cpu_set_t *cores)
{
    char name[128], text[1024];
    cpu_set_t near;

    snprintf(name, sizeof name, "/sys/devices/system/cpu/cpu%d/cache/index3/shared_cpu_list", core);
    if (system_read(name, text, sizeof text) <= 0)
        return;
    parse_cores(text, &near);
    CPU_AND(&near, &near, cores);
    if (CPU_COUNT(&near) > 0)
        *cores = near;
}

/* "quota period" in microseconds, or "max period". */
static void visit_cpu_max(const char *directory, const char *text, void *context)
{
    long long quota, period;
    int *cores = context;

    (void)directory;
    if (sscanf(text, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
        long long whole = (quota + period - 1) / period;
        if (whole < *cores)
            *cores = (int)whole;
    }
}

static void visit_cfs_quota(const char *directory, const char *text, void *context)
{
    char name[PATH_MAX], period[128], both[300];

    if ((size_t)snprintf(name, sizeof name, "%s/cpu.cfs_period_us", directory) < sizeof name &&
        system_read(name, period, sizeof period) > 0) {
        snprintf(both, sizeof both, "%s %s", text, period);
        visit_cpu_max(directory, both, context);
    }
}

int system_pin(int cpu)
{
    size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
    cpu_set_t *set;
    int error = 0;

    if (cpu < 0 || cpu >= CPUS_MAX)
        return -EINVAL;
    set = CPU_ALLOC(CPUS_MAX);
    if (!set)
        return -ENOMEM;
    CPU_ZERO_S(size, set);
    CPU_SET_S((size_t)cpu, size, set);
    if (sched_setaffinity(0, size, set) < 0)
        error = -errno;
    CPU_FREE(set);
    return error;
}

bool system_may_use(const int *cpus, int count)
{
    size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
    cpu_set_t *before = count ? CPU_ALLOC(CPUS_MAX) : NULL;
    bool may = before && sched_getaffinity(0, size, before) == 0;
    int i;

    /* Tried, since no one tells: a thread's affinity is often less than its process may have. */
    for (i = 0; may && i < count; i++)
        may = system_pin(cpus[i]) == 0;
    if (i > 0)
        sched_setaffinity(0, size, before);
    if (before)
        CPU_FREE(before);
    return may || count == 0;
}

int pool_cpu_count(void)
{
    int cores = 0;
    struct cgroups groups;
    size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
    cpu_set_t *set = CPU_ALLOC(CPUS_MAX);

    if (set) {
        if (sched_getaffinity(0, size, set) == 0)
            cores = CPU_COUNT_S(size, set);
        CPU_FREE(set);
    }
    if (cores < 1)
        cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (cores < 1)
        cores = 1;
    cgroups_read(&groups);
    cgroup_walk(&groups, "", "cpu.max", visit_cpu_max, &cores);
    cgroup_walk(&groups, "cpu", "cpu.cfs_quota_us", visit_cfs_quota, &cores);
    return cores;
}

static void visit_memory_limit(const char *directory, const char *text, void *context)
{
    uint64_t *bound = context;
    unsigned long long limit;

    (void)directory;
    if (sscanf(text, "%llu", &limit) == 1 && limit < *bound)
        *bound = limit;
}

/* What is left below a limit: `usage` names the file beside it that says how much is used. */
static void visit_left(const char *directory, const char *text, const char *usage, uint64_t *left)
{
    char name[PATH_MAX], used[128];
    unsigned long long limit, now;

    if (sscanf(text, "%llu", &limit) != 1 ||
        (size_t)snprintf(name, sizeof name, "%s/%s", directory, usage) >= sizeof name ||
        system_read(name, used, sizeof used) <= 0 || sscanf(used, "%llu", &now) != 1)
        return;
    now = now < limit ? limit - now : 0;
    if (now < *left)
        *left = now;
}

static void visit_left_v2(const char *directory, const char *text, void *context)
{
    visit_left(directory, text, "memory.current", context);
}

static void visit_left_v1(const char *directory, const char *text, void *context)
{
    visit_left(directory, text, "memory.usage_in_bytes", context);
}

uint64_t system_memory(void)
{
    uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    struct cgroups groups;

    cgroups_read(&groups);
    cgroup_walk(&groups, "", "memory.max", visit_memory_limit, &bytes);
    cgroup_walk(&groups, "memory", "memory.limit_in_bytes", visit_memory_limit, &bytes);
    return bytes;
}

uint64_t system_memory_available(void)
{
    char text[4096];
    uint64_t bytes = UINT64_MAX;
    unsigned long long kib;
    const char *line;
    struct cgroups groups;

    if (system_read("/proc/meminfo", text, sizeof text) > 0 &&
        (line = strstr(text, "MemAvailable:")) != NULL &&
        sscanf(line, "MemAvailable: %llu", &kib) == 1)
        bytes = kib * 1024;
    cgroups_read(&groups);
    cgroup_walk(&groups, "", "memory.max", visit_left_v2, &bytes);
    cgroup_walk(&groups, "memory", "memory.limit_in_bytes", visit_left_v1, &bytes);
    return bytes;
}
