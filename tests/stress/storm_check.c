/* What has to hold after the storm: everything free, findable, and nothing left behind. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic.h"
#include "internal.h"
#include "storm.h"
#include "system.h"

static bool bit_set(const struct freemap *map, unsigned level, uint32_t index)
{
    _Atomic uint64_t *words = segment_at(map->segment, map->level[level]);

    return shared_load(&words[index >> 6], ACQUIRE) >> (index & 63) & 1;
}

/* Whether freemap_take() would come to this entry. */
static bool findable(const struct freemap *map, uint32_t index)
{
    return bit_set(map, 0, index) && bit_set(map, 1, index >> 6) && bit_set(map, 2, index >> 12);
}

static void check_slots(struct storm *storm)
{
    struct pool *pool = storm->pool;
    uint32_t index, count = job_table_count(&pool->jobs), held = 0;

    for (index = 0; index < count; index++) {
        uint64_t word = shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE);

        if (job_state(word) == JOB_HELD && job_owner(word) == JOB_HOST)
            held++;
        else if (job_state(word) != JOB_FREE)
            storm_wrong(storm, "slot %u is left in state %d of process %d", index,
                        (int)job_state(word), (int)job_owner(word));
        else if (!findable(&pool->jobs.map, index))
            storm_wrong(storm, "slot %u is free, and nobody will find it", index);
    }
    if (held != pool->slot_count)
        storm_wrong(storm, "the host holds %u slots, and knows of %zu", held, pool->slot_count);
}

static void check_blocks(struct storm *storm)
{
    struct arena *arena = &storm->pool->arena;
    const _Atomic uint32_t *counts = segment_at(arena->segment, arena->header);
    unsigned size_class;

    for (size_class = 0; size_class < arena->classes; size_class++) {
        _Atomic uint64_t *words = segment_at(arena->segment, arena->size_class[size_class].words);
        uint32_t index, count = shared_load(&counts[size_class], ACQUIRE);

        for (index = 0; index < count; index++) {
            uint64_t word = shared_load(&words[index], ACQUIRE);

            if (word != 0)
                storm_wrong(storm, "block %u of class %u is left in state %d of %u", index,
                            size_class, (int)(word & 0xff), (unsigned)(word >> 32));
            else if (!findable(&arena->size_class[size_class].map, index))
                storm_wrong(storm, "block %u of class %u is free, and nobody will find it", index,
                            size_class);
        }
    }
}

void storm_check_memory(struct storm *storm)
{
    check_slots(storm);
    check_blocks(storm);
}

/* ---- Around the process ---- */

static int count_entries(const char *path, const char *prefix)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    int count = 0;

    if (!directory)
        return 0;
    while ((entry = readdir(directory)))
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(directory);
    return count;
}

struct surroundings surroundings_now(void)
{
    return (struct surroundings){
        .descriptors = count_entries("/proc/self/fd", ""),
        .files = count_entries("/dev/shm", "libpool"),
    };
}

void storm_check_surroundings(struct storm *storm, struct surroundings before)
{
    struct surroundings now = surroundings_now();
    int64_t deadline = system_now() + 5 * SECOND;
    pid_t pid;

    /* Orphans have come to us: workers, and what they started. */
    while ((pid = waitpid(-1, NULL, WNOHANG)) >= 0 && system_now() < deadline)
        ;
    if (pid >= 0)
        storm_wrong(storm, "a process is left");
    if (now.descriptors != before.descriptors)
        storm_wrong(storm, "%d descriptors are left", now.descriptors - before.descriptors);
    if (now.files > before.files)
        storm_wrong(storm, "%d files are left in /dev/shm", now.files - before.files);
}
