/* The segment: reserve, map, commit within a limit, give back. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "segment.h"

/* A mapped segment of `pages` pages that may commit `limit` of them. */
static struct segment map_pages(uint64_t pages, uint64_t limit)
{
    struct segment segment;

    segment_init(&segment, 0);
    segment.limit = limit * segment.page;
    EXPECT(segment_reserve(&segment, pages * segment.page), 0);
    REQUIRE(segment_map(&segment), 0);
    return segment;
}

static void reserved_regions_are_page_aligned_and_do_not_overlap(void)
{
    struct segment segment;
    uint64_t first, second, third;

    segment_init(&segment, MEBIBYTE);
    first = segment_reserve(&segment, 1);
    second = segment_reserve(&segment, segment.page);
    third = segment_reserve(&segment, segment.page + 1);
    EXPECT(first, 0);
    EXPECT(second, segment.page);
    EXPECT(third, 2 * segment.page);
    EXPECT(segment.size, 4 * segment.page);
    REQUIRE(segment_map(&segment), 0);
    EXPECT(segment_committed(&segment), 0);
    segment_unmap(&segment);
}

static void a_committed_range_reads_as_zeros_and_keeps_what_is_written(void)
{
    struct segment segment = map_pages(8, 8);
    unsigned char *bytes = segment_at(&segment, segment.page);
    uint64_t i, sum = 0;

    REQUIRE(segment_commit(&segment, segment.page, 2 * segment.page), 0);
    for (i = 0; i < 2 * segment.page; i++)
        sum += bytes[i];
    EXPECT(sum, 0);
    memset(bytes, 0xa5, 2 * segment.page);
    REQUIRE(segment_commit(&segment, segment.page, 2 * segment.page), 0);
    EXPECT(bytes[0], 0xa5);
    EXPECT(bytes[2 * segment.page - 1], 0xa5);
    segment_unmap(&segment);
}

static void the_kernel_counts_what_is_committed(void)
{
    struct segment segment = map_pages(16, 16);

    EXPECT(segment_commit(&segment, 0, 3 * segment.page), 0);
    EXPECT(segment_committed(&segment), 3 * segment.page);
    /* Again, and overlapping by one page. */
    EXPECT(segment_commit(&segment, 0, 3 * segment.page), 0);
    EXPECT(segment_commit(&segment, 2 * segment.page, 2 * segment.page), 0);
    EXPECT(segment_committed(&segment), 4 * segment.page);
    /* One byte costs its page, two bytes over a border cost two. */
    EXPECT(segment_commit(&segment, 10 * segment.page + 5, 1), 0);
    EXPECT(segment_committed(&segment), 5 * segment.page);
    EXPECT(segment_commit(&segment, 13 * segment.page - 1, 2), 0);
    EXPECT(segment_committed(&segment), 7 * segment.page);
    EXPECT(segment_commit(&segment, 0, 0), 0);
    EXPECT(segment_committed(&segment), 7 * segment.page);
    segment_unmap(&segment);
}

static void beyond_the_limit_is_enomem_and_nothing_changes(void)
{
    struct segment segment = map_pages(16, 4);

    EXPECT(segment_commit(&segment, 0, 5 * segment.page), -ENOMEM);
    EXPECT(segment_committed(&segment), 0);
    EXPECT(segment_commit(&segment, 0, 3 * segment.page), 0);
    EXPECT(segment_commit(&segment, 8 * segment.page, 2 * segment.page), -ENOMEM);
    EXPECT(segment_committed(&segment), 3 * segment.page);
    /* What is left can still be had, and after a release more. */
    EXPECT(segment_commit(&segment, 8 * segment.page, segment.page), 0);
    EXPECT(segment_commit(&segment, 9 * segment.page, segment.page), -ENOMEM);
    EXPECT(segment_release(&segment, 0, 2 * segment.page), 0);
    EXPECT(segment_commit(&segment, 9 * segment.page, segment.page), 0);
    segment_unmap(&segment);
}

static void outside_the_segment_is_einval(void)
{
    struct segment segment = map_pages(4, 4);
    uint64_t size = segment.size;

    EXPECT(segment_commit(&segment, size + 1, 0), -EINVAL);
    EXPECT(segment_commit(&segment, size, 1), -EINVAL);
    EXPECT(segment_commit(&segment, size - 1, 2), -EINVAL);
    EXPECT(segment_commit(&segment, 0, size + 1), -EINVAL);
    EXPECT(segment_commit(&segment, 0, UINT64_MAX), -EINVAL);
    EXPECT(segment_commit(&segment, UINT64_MAX, 1), -EINVAL);
    EXPECT(segment_commit(&segment, UINT64_MAX - 1, UINT64_MAX), -EINVAL);
    EXPECT(segment_commit(&segment, segment.page, UINT64_MAX - segment.page + 1), -EINVAL);
    EXPECT(segment_committed(&segment), 0);
    EXPECT(segment_release(&segment, size, 1), -EINVAL);
    EXPECT(segment_release(&segment, 1, UINT64_MAX), -EINVAL);
    EXPECT(segment_commit(&segment, size - 1, 1), 0);
    segment_unmap(&segment);
}

static void release_gives_whole_pages_back_and_they_read_as_zeros(void)
{
    struct segment segment = map_pages(8, 8);
    unsigned char *bytes = segment_at(&segment, 0);

    REQUIRE(segment_commit(&segment, 0, 8 * segment.page), 0);
    memset(bytes, 1, 8 * segment.page);
    /* From the middle of page 1 to the middle of page 4: pages 2 and 3. */
    EXPECT(segment_release(&segment, segment.page + 100, 3 * segment.page), 0);
    EXPECT(segment_committed(&segment), 6 * segment.page);
    EXPECT(bytes[2 * segment.page - 1], 1);
    EXPECT(bytes[4 * segment.page], 1);
    REQUIRE(segment_commit(&segment, 2 * segment.page, 2 * segment.page), 0);
    EXPECT(bytes[2 * segment.page], 0);
    EXPECT(bytes[4 * segment.page - 1], 0);
    EXPECT(segment_release(&segment, 10, 20), 0);
    EXPECT(segment_committed(&segment), 8 * segment.page);
    segment_unmap(&segment);
}

struct growth {
    struct segment segment;
    struct gate *gate;
};

static void read_what_the_parent_commits(void *context)
{
    struct growth *growth = context;
    unsigned char *bytes = segment_at(&growth->segment, growth->segment.page);

    EXPECT(segment_committed(&growth->segment), 0);
    harness_raise(&growth->gate->reached);
    REQUIRE(harness_await(&growth->gate->open, 1), true);
    EXPECT(bytes[0], 17);
    bytes[1] = 18;
    EXPECT(segment_commit(&growth->segment, 0, 1), 0);
    *(unsigned char *)segment_at(&growth->segment, 0) = 19;
}

static void growth_is_seen_by_a_forked_process_that_has_mapped_nothing_again(void)
{
    struct growth growth = {map_pages(4, 4), harness_shared(sizeof(struct gate))};
    struct segment *segment = &growth.segment;
    unsigned char *bytes = segment_at(segment, segment->page);
    pid_t child = harness_spawn(read_what_the_parent_commits, &growth, 20);

    EXPECT(harness_await(&growth.gate->reached, 1), true);
    EXPECT(segment_commit(segment, segment->page, segment->page), 0);
    bytes[0] = 17;
    harness_raise(&growth.gate->open);
    EXPECT(harness_reap(child), 0);
    EXPECT(bytes[1], 18);
    EXPECT(*(unsigned char *)segment_at(segment, 0), 19);
    EXPECT(segment_committed(segment), 2 * segment->page);
    segment_unmap(segment);
}

static void nobody_can_shrink_or_grow_the_file(void)
{
    struct segment segment = map_pages(4, 4);
    struct stat status;

    EXPECT(segment_commit(&segment, 0, segment.size), 0);
    EXPECT(ftruncate(segment.fd, 0), -1);
    EXPECT(errno, EPERM);
    EXPECT(ftruncate(segment.fd, (off_t)segment.size - 1), -1);
    EXPECT(ftruncate(segment.fd, (off_t)segment.size * 2), -1);
    EXPECT(fcntl(segment.fd, F_ADD_SEALS, F_SEAL_WRITE), -1); /* nor seal it further */
    EXPECT(fstat(segment.fd, &status), 0);
    EXPECT(status.st_size, segment.size);
    segment_unmap(&segment);
}

/* The names in a directory that contain `part`. */
static int count_names(const char *directory, const char *part)
{
    DIR *names = opendir(directory);
    struct dirent *entry;
    int count = 0;

    while (names && (entry = readdir(names)))
        count += strstr(entry->d_name, part) != NULL;
    if (names)
        closedir(names);
    return count;
}

static void the_segment_has_no_name_and_does_not_outlive_exec(void)
{
    int before = count_names("/dev/shm", "libpool");
    struct segment segment = map_pages(4, 4);
    struct stat status;

    EXPECT(count_names("/dev/shm", "libpool"), before);
    EXPECT(fstat(segment.fd, &status), 0);
    EXPECT(status.st_nlink, 0);
    EXPECT(fcntl(segment.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    segment_unmap(&segment);
}

static void touch_everything(void *context)
{
    struct segment *segment = context;
    volatile unsigned char *bytes = segment_at(segment, 0);
    uint64_t i;

    for (i = 0; i < segment->size; i += segment->page)
        bytes[i] = (unsigned char)(bytes[i] + 1);
    bytes[segment->size - 1] = 1;
}

static void no_access_inside_is_sigbus_also_where_nothing_was_committed(void)
{
    struct segment segment = map_pages(64, 4);

    EXPECT(segment_commit(&segment, 0, 4 * segment.page), 0);
    EXPECT(harness_fork(touch_everything, &segment, 20), 0);
    segment_unmap(&segment);
}

static void address_space_that_cannot_be_had_is_an_error(void)
{
    struct segment segment;

    segment_init(&segment, MEBIBYTE);
    segment_reserve(&segment, UINT64_C(1) << 60);
    EXPECT(segment_map(&segment) < 0, true);
    EXPECT(segment.base == NULL, true);
    EXPECT(segment.fd, -1);
    segment_unmap(&segment); /* harmless */
}

static void unmap_closes_the_file_and_may_be_done_twice(void)
{
    int descriptors = count_names("/proc/self/fd", "");
    struct segment segment = map_pages(4, 4);

    segment_unmap(&segment);
    segment_unmap(&segment);
    EXPECT(count_names("/proc/self/fd", ""), descriptors);
}

static const struct harness_test tests[] = {
    TEST(reserved_regions_are_page_aligned_and_do_not_overlap),
    TEST(a_committed_range_reads_as_zeros_and_keeps_what_is_written),
    TEST(the_kernel_counts_what_is_committed),
    TEST(beyond_the_limit_is_enomem_and_nothing_changes),
    TEST(outside_the_segment_is_einval),
    TEST(release_gives_whole_pages_back_and_they_read_as_zeros),
    TEST(growth_is_seen_by_a_forked_process_that_has_mapped_nothing_again),
    TEST(nobody_can_shrink_or_grow_the_file),
    TEST(the_segment_has_no_name_and_does_not_outlive_exec),
    TEST(no_access_inside_is_sigbus_also_where_nothing_was_committed),
    TEST(address_space_that_cannot_be_had_is_an_error),
    TEST(unmap_closes_the_file_and_may_be_done_twice),
};

HARNESS_MAIN("segment", tests)
