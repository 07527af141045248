/* C functions named in a way that holds in another process: module and offset. */
#include "function.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdalign.h>
#include <string.h>

#include "atomic.h"

#define MODULES 128
#define NAME_ROOM 504
#define OFFSET_BITS 48

enum module_state { MODULE_EMPTY, MODULE_BUSY, MODULE_READY };

/* Filled once: EMPTY -> BUSY by compare-and-swap, then the name, then READY. A process that dies in
 * between leaves one entry BUSY for ever, which everybody skips. */
struct module {
    alignas(8) _Atomic uint32_t state;
    char name[NAME_ROOM]; /* as the loader knows it; "" is the host's executable */
};

static struct module *module_at(const struct function_table *table, unsigned index)
{
    return (struct module *)segment_at(table->segment, table->modules) + index;
}

void function_table_plan(struct function_table *table, struct segment *segment)
{
    memset(table, 0, sizeof *table);
    table->segment = segment;
    table->executable = "";
    table->modules = segment_reserve(segment, MODULES * sizeof(struct module));
    pthread_mutex_init(&table->lock, NULL);
}

int function_table_start(struct function_table *table)
{
    return segment_commit(table->segment, table->modules, MODULES * sizeof(struct module));
}

void function_table_forked(struct function_table *table)
{
    pthread_mutex_init(&table->lock, NULL);
}

/* ---- What the loader knows ---- */

struct lookup {
    const char *executable; /* in: its name */
    uintptr_t address;      /* in: find the module of this address ... */
    const char *name;       /* ... or the one of this name */
    uintptr_t base;         /* out */
    bool found, code;
    bool begun; /* the executable has been visited */
};

/* glibc has an empty name for the executable; with musl, whose name for it is the path by which it
 * was run, it is the first. Not so in a namespace of glibc's dlmopen(). */
static bool is_executable(const struct dl_phdr_info *info, const struct lookup *lookup)
{
#if defined(__GLIBC__)
    (void)lookup;
    return info->dlpi_name[0] == '\0';
#else
    (void)info;
    return !lookup->begun;
#endif
}

static int visit_module(struct dl_phdr_info *info, size_t size, void *context)
{
    struct lookup *lookup = context;
    const char *name = is_executable(info, lookup) ? lookup->executable : info->dlpi_name;
    int i;

    (void)size;
    lookup->begun = true;
    if (lookup->name && strcmp(lookup->name, name) != 0)
        return 0;
    for (i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + segment->p_vaddr;

        if (segment->p_type == PT_LOAD && lookup->address - begin < segment->p_memsz) {
            lookup->found = true;
            lookup->code = segment->p_flags & PF_X;
        }
    }
    if (lookup->name)
        lookup->found = true;
    if (!lookup->found)
        return 0;
    lookup->base = info->dlpi_addr;
    lookup->name = name;
    return 1;
}

static bool is_code(const struct function_table *table, uintptr_t address, const char *name)
{
    struct lookup lookup = {.executable = table->executable, .address = address};

    return dl_iterate_phdr(visit_module, &lookup) && lookup.code && strcmp(lookup.name, name) == 0;
}

/* ---- The cache ---- */

static unsigned cache_slot(uint64_t key)
{
    return (unsigned)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 56) % FUNCTION_CACHE;
}

/* Host and worker look up by different keys, so a process that does both just fills it faster. */
static bool cache_find(struct function_table *table, uintptr_t *address, uint64_t *id)
{
    unsigned i, slot = cache_slot(*address ? *address : *id);

    for (i = 0; i < 8; i++, slot = (slot + 1) % FUNCTION_CACHE) {
        uintptr_t there = atomic_load_explicit(&table->cache[slot].address, ACQUIRE);
        uint64_t that = atomic_load_explicit(&table->cache[slot].id, RELAXED);

        if (!there)
            return false;
        if (*address ? there == *address : that == *id) {
            *address = there;
            *id = that;
            return true;
        }
    }
    return false;
}

static void cache_add(struct function_table *table, uint64_t key, uintptr_t address, uint64_t id)
{
    unsigned i, slot = cache_slot(key);

    pthread_mutex_lock(&table->lock);
    for (i = 0; i < 8; i++, slot = (slot + 1) % FUNCTION_CACHE)
        if (!atomic_load_explicit(&table->cache[slot].address, RELAXED)) {
            atomic_store_explicit(&table->cache[slot].id, id, RELAXED);
            atomic_store_explicit(&table->cache[slot].address, address, RELEASE);
            break;
        }
    pthread_mutex_unlock(&table->lock);
}

/* ---- The module table ---- */

static int module_index(struct function_table *table, const char *name)
{
    size_t length = strlen(name);
    unsigned i;

    if (length >= NAME_ROOM)
        return -ENOSPC;
    for (i = 0; i < MODULES; i++) {
        struct module *module = module_at(table, i);
        uint32_t state = shared_load(&module->state, ACQUIRE);

        if (state == MODULE_EMPTY && shared_cas(&module->state, &state, MODULE_BUSY, ACQ_REL)) {
            memcpy(module->name, name, length + 1);
            shared_store(&module->state, MODULE_READY, RELEASE);
            return (int)i;
        }
        /* Two processes that add the same name at once get an entry each, which does no harm. */
        if (state == MODULE_READY && strncmp(module->name, name, NAME_ROOM) == 0)
            return (int)i;
    }
    return -ENOSPC;
}

int function_id(struct function_table *table, pool_function function, uint64_t *id)
{
    uintptr_t address = (uintptr_t)function;
    struct lookup lookup = {.executable = table->executable, .address = address};
    int module;

    if (!address)
        return -EINVAL;
    if (cache_find(table, &address, id))
        return 0;
    if (!dl_iterate_phdr(visit_module, &lookup) || !lookup.code)
        return -EINVAL;
    module = module_index(table, lookup.name);
    if (module < 0)
        return module;
    *id = (uint64_t)(module + 1) << OFFSET_BITS | (address - lookup.base);
    cache_add(table, address, address, *id);
    return 0;
}

int function_resolve(struct function_table *table, uint64_t id, pool_function *function)
{
    uintptr_t address = 0;
    uint64_t module = (id >> OFFSET_BITS) - 1;
    char name[NAME_ROOM];
    struct lookup lookup = {.executable = table->executable, .name = name};

    if (cache_find(table, &address, &id)) {
        *function = (pool_function)address;
        return 0;
    }
    if (module >= MODULES ||
        shared_load(&module_at(table, (unsigned)module)->state, ACQUIRE) != MODULE_READY)
        return -EINVAL;
    memcpy(name, module_at(table, (unsigned)module)->name, NAME_ROOM);
    name[NAME_ROOM - 1] = '\0';
    if (!dl_iterate_phdr(visit_module, &lookup)) {
        /* Loaded in the host after this process was forked. It stays: jobs will come again. */
        if (!dlopen(name, RTLD_NOW | RTLD_LOCAL))
            return -EINVAL;
        lookup.name = name;
        lookup.begun = false;
        if (!dl_iterate_phdr(visit_module, &lookup))
            return -EINVAL;
    }
    address = lookup.base + (id & ((UINT64_C(1) << OFFSET_BITS) - 1));
    if (!is_code(table, address, name))
        return -EINVAL;
    cache_add(table, id, address, id);
    *function = (pool_function)address;
    return 0;
}
