/* Functions by module and offset: there and back, hostile ids, more of them than the cache
 * takes. */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
/* The source itself: some tests forge what a hostile process writes. */
#include "function.c"

/* Two tables over one segment are two processes: nothing but the segment is common to them. */
struct fixture {
    struct segment segment;
    struct function_table host, worker;
};

static void make(struct fixture *fixture)
{
    segment_init(&fixture->segment, MEBIBYTE);
    function_table_plan(&fixture->host, &fixture->segment);
    REQUIRE(segment_map(&fixture->segment), 0);
    REQUIRE(function_table_start(&fixture->host), 0);
    fixture->worker = fixture->host;
    function_table_forked(&fixture->worker);
}

static void unmake(struct fixture *fixture)
{
    segment_unmap(&fixture->segment);
}

static pool_function address_to_function(uintptr_t address)
{
    return (pool_function)address;
}

/* The id that the host gives and the worker finds the same function by. */
static uint64_t round_trip(struct fixture *fixture, pool_function function)
{
    pool_function found = NULL;
    uint64_t id = 0, again = 0;

    EXPECT(function_id(&fixture->host, function, &id), 0);
    EXPECT(id != 0, true);
    EXPECT(function_id(&fixture->host, function, &again), 0);
    EXPECT(again, id);
    EXPECT(function_resolve(&fixture->worker, id, &found), 0);
    EXPECT(found == function, true);
    EXPECT(function_resolve(&fixture->worker, id, &found), 0); /* now from its cache */
    EXPECT(found == function, true);
    return id;
}

static uint64_t module_of(uint64_t id)
{
    return id >> OFFSET_BITS;
}

static void a_function_of_the_executable_is_found_in_another_process(void)
{
    struct fixture fixture;
    uint64_t first, second;

    make(&fixture);
    first = round_trip(&fixture, job_nothing);
    second = round_trip(&fixture, job_echo);
    EXPECT(first != second, true);
    EXPECT(module_of(first), module_of(second));
    unmake(&fixture);
}

static void a_function_of_a_shared_library_is_found_in_another_process(void)
{
    void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
    struct fixture fixture;
    uint64_t math, libc, own;

    REQUIRE(library != NULL, true);
    make(&fixture);
    math = round_trip(&fixture, address_to_function((uintptr_t)dlsym(library, "fegetround")));
    libc = round_trip(&fixture, address_to_function((uintptr_t)dlsym(RTLD_DEFAULT, "getppid")));
    own = round_trip(&fixture, job_nothing);
#if defined(__GLIBC__) /* musl's libm is its libc */
    EXPECT(module_of(math) != module_of(libc), true);
#else
    EXPECT(libc != math, true);
#endif
    EXPECT(module_of(math) != module_of(own), true);
    unmake(&fixture);
    dlclose(library);
}

static void a_library_that_is_not_loaded_yet_is_loaded(void)
{
    void *library = dlopen("libcrypt.so.1", RTLD_NOW | RTLD_LOCAL);
    pool_function found = NULL;
    struct fixture fixture;
    uint64_t id;

    if (!library)
        return; /* not on this machine */
    make(&fixture);
    EXPECT(function_id(&fixture.host, address_to_function((uintptr_t)dlsym(library, "crypt")), &id),
           0);
    dlclose(library);
    EXPECT(function_resolve(&fixture.worker, id, &found), 0);
    library = dlopen("libcrypt.so.1", RTLD_NOW | RTLD_LOCAL);
    EXPECT((uintptr_t)found == (uintptr_t)dlsym(library, "crypt"), true);
    dlclose(library);
    unmake(&fixture);
}

static void what_is_no_function_is_einval(void)
{
    static int data;
    struct fixture fixture;
    void *heap = malloc(16);
    uint64_t id;
    int stack;

    make(&fixture);
    EXPECT(function_id(&fixture.host, NULL, &id), -EINVAL);
    EXPECT(function_id(&fixture.host, address_to_function((uintptr_t)&data), &id), -EINVAL);
    EXPECT(function_id(&fixture.host, address_to_function((uintptr_t)&stack), &id), -EINVAL);
    EXPECT(function_id(&fixture.host, address_to_function((uintptr_t)heap), &id), -EINVAL);
    EXPECT(function_id(&fixture.host, address_to_function(1), &id), -EINVAL);
    EXPECT(function_id(&fixture.host, address_to_function(UINTPTR_MAX), &id), -EINVAL);
    free(heap);
    unmake(&fixture);
}

static void hostile_ids_are_einval(void)
{
    static int data;
    pool_function found;
    struct fixture fixture;
    uint64_t good, random = 8, base;
    unsigned i;

    make(&fixture);
    good = round_trip(&fixture, job_nothing);
    base = (uintptr_t)job_nothing - (good & ((UINT64_C(1) << OFFSET_BITS) - 1));
    EXPECT(function_resolve(&fixture.worker, 0, &found), -EINVAL);
    EXPECT(function_resolve(&fixture.worker, UINT64_MAX, &found), -EINVAL);
    EXPECT(function_resolve(&fixture.worker, good + (UINT64_C(1) << OFFSET_BITS), &found), -EINVAL);
    EXPECT(function_resolve(&fixture.worker, UINT64_C(129) << OFFSET_BITS, &found), -EINVAL);
    /* The right module; its data, its header, before it and behind it. */
    EXPECT(function_resolve(&fixture.worker,
                            module_of(good) << OFFSET_BITS | ((uintptr_t)&data - base), &found),
           -EINVAL);
    EXPECT(function_resolve(&fixture.worker, module_of(good) << OFFSET_BITS, &found), -EINVAL);
    EXPECT(function_resolve(&fixture.worker, good + (UINT64_C(1) << 40), &found), -EINVAL);
    EXPECT(function_resolve(&fixture.worker, (good + (UINT64_C(1) << 32)), &found), -EINVAL);
    for (i = 0; i < 10000; i++) {
        uint64_t id = harness_random(&random) >> (i % 32);

        if (module_of(id) != module_of(good))
            EXPECT(function_resolve(&fixture.worker, id, &found), -EINVAL);
    }
    unmake(&fixture);
}

static void a_scribbled_module_name_is_einval(void)
{
    pool_function found;
    struct fixture fixture;
    uint64_t id;

    make(&fixture);
    EXPECT(function_id(&fixture.host, job_nothing, &id), 0);
    memset(module_at(&fixture.host, 0)->name, 'x', NAME_ROOM); /* without an end */
    EXPECT(function_resolve(&fixture.worker, id, &found), -EINVAL);
    strcpy(module_at(&fixture.host, 0)->name, "/nonexistent/library.so");
    EXPECT(function_resolve(&fixture.worker, id, &found), -EINVAL);
    strcpy(module_at(&fixture.host, 0)->name, "/etc/passwd");
    EXPECT(function_resolve(&fixture.worker, id, &found), -EINVAL);
    unmake(&fixture);
}

static void a_full_module_table_is_enospc_for_new_modules_only(void)
{
    struct fixture fixture;
    uint64_t id;
    unsigned i;

    make(&fixture);
    round_trip(&fixture, job_nothing);
    for (i = 1; i < MODULES; i++) { /* half written by processes that died */
        strcpy(module_at(&fixture.host, i)->name, "another");
        module_at(&fixture.host, i)->state = i % 2 ? MODULE_READY : MODULE_BUSY;
    }
    round_trip(&fixture, job_echo);
    EXPECT(function_id(&fixture.host,
                       address_to_function((uintptr_t)dlsym(RTLD_DEFAULT, "getppid")), &id),
           -ENOSPC);
    unmake(&fixture);
}

/* Any address in code will do. */
static pool_function nth_function(unsigned n)
{
    return address_to_function((uintptr_t)function_resolve + n);
}

static void more_functions_than_the_cache_takes_are_all_found(void)
{
    struct fixture fixture;
    unsigned n;

    make(&fixture);
    for (n = 0; n < 3 * FUNCTION_CACHE; n++)
        round_trip(&fixture, nth_function(n % 600));
    unmake(&fixture);
}

static _Atomic uint32_t wrong;

static void resolve_many(void *context, unsigned thread)
{
    struct fixture *fixture = context;
    unsigned i, rounds = HARNESS_SANITIZED ? 2000 : 10000;

    for (i = 0; i < rounds; i++) {
        pool_function function = nth_function((i * (thread + 1)) % 200), found = NULL;
        uint64_t id;

        if (function_id(&fixture->host, function, &id) != 0 ||
            function_resolve(&fixture->host, id, &found) != 0 || found != function)
            wrong++;
    }
}

static void threads_share_a_cache(void)
{
    struct fixture fixture;

    wrong = 0;
    make(&fixture);
    harness_threads(4, resolve_many, &fixture);
    EXPECT(wrong, 0);
    unmake(&fixture);
}

static const struct harness_test tests[] = {
    TEST(a_function_of_the_executable_is_found_in_another_process),
    TEST(a_function_of_a_shared_library_is_found_in_another_process),
    TEST(a_library_that_is_not_loaded_yet_is_loaded),
    TEST(what_is_no_function_is_einval),
    TEST(hostile_ids_are_einval),
    TEST(a_scribbled_module_name_is_einval),
    TEST(a_full_module_table_is_enospc_for_new_modules_only),
    TEST(more_functions_than_the_cache_takes_are_all_found),
    TEST(threads_share_a_cache),
};

HARNESS_MAIN("function", tests)
