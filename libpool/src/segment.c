/* One shared mapping: planned, mapped, committed part by part. */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system.h"

/* From this size on a commit first asks whether the machine has the memory: fallocate() itself
 * would take it from everybody, up to the OOM killer. Below, asking costs more than it saves. */
#define LARGE_COMMIT (UINT64_C(16) << 20)

void segment_init(struct segment *segment, uint64_t limit)
{
    segment->base = NULL;
    segment->size = 0;
    segment->limit = limit;
    segment->page = (uint64_t)sysconf(_SC_PAGESIZE);
    segment->fd = -1;
}

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

uint64_t segment_reserve(struct segment *segment, uint64_t size)
{
    uint64_t offset = segment->size;

    segment->size += round_up(size, segment->page);
    return offset;
}

/* A file without a name. shm_open() serves kernels and sandboxes without memfd_create(); its name
 * is gone before anybody else could want it. */
int segment_anonymous_file(void)
{
    char name[64];
    int fd, try;

    fd = memfd_create("libpool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM))
        return fd >= 0 ? fd : -errno;
    for (try = 0; try < 100; try++) {
        snprintf(name, sizeof name, "/libpool-%ld-%d", (long)getpid(), try);
        fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd >= 0) {
            shm_unlink(name);
            return fd;
        }
        if (errno != EEXIST)
            break;
    }
    return -errno;
}

static int map_file(struct segment *segment, int fd)
{
    void *base;

    if ((size_t)segment->size != segment->size)
        return -ENOMEM; /* no address space is so large here */
    base = mmap(NULL, segment->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    /* Valgrind says EINVAL where it has no such address space, and the kernel has no reason to. */
    if (base == MAP_FAILED)
        return errno == EINVAL ? -ENOMEM : -errno;
    /* A core dump of a crashed worker should not carry everybody's data. */
    (void)madvise(base, segment->size, MADV_DONTDUMP);
    segment->base = base;
    segment->fd = fd;
    segment->file = system_file(fd);
    return 0;
}

int segment_map(struct segment *segment)
{
    int error = 0, fd = segment_anonymous_file();

    if (fd < 0)
        return fd;
    if (ftruncate(fd, (off_t)segment->size) < 0)
        error = -errno;
    /* Nobody, by mistake or not, can cut the file and so turn an access into SIGBUS. A file from
     * shm_open() can't be sealed, but has no name either. */
    (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    if (!error)
        error = map_file(segment, fd);
    if (error)
        close(fd);
    return error;
}

int segment_map_file(struct segment *segment, int fd)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return -errno;
    if ((uint64_t)status.st_size != segment->size)
        return -EINVAL;
    return map_file(segment, fd);
}

void segment_unmap(struct segment *segment)
{
    if (segment->base)
        munmap(segment->base, segment->size);
    if (segment->fd >= 0)
        close(segment->fd);
    segment->base = NULL;
    segment->fd = -1;
}

uint64_t segment_committed(const struct segment *segment)
{
    struct stat status;

    if (fstat(segment->fd, &status) < 0 || status.st_dev != segment->file.device ||
        status.st_ino != segment->file.inode)
        return 0;
    return (uint64_t)status.st_blocks * 512;
}

int segment_commit(struct segment *segment, uint64_t offset, uint64_t length)
{
    uint64_t begin = offset / segment->page * segment->page;
    uint64_t end;
    uint64_t committed;

    if (offset > segment->size || length > segment->size - offset)
        return -EINVAL;
    if (length == 0)
        return 0;
    end = round_up(offset + length, segment->page);
    if (!system_is_file(segment->fd, segment->file))
        return -EBADF;
    /* The kernel's own count, so that no death between a count and an allocation can make them
     * differ. Several processes that commit at the same moment may overshoot by what they ask. */
    committed = segment_committed(segment);
    if (end - begin > segment->limit || committed > segment->limit - (end - begin))
        return -ENOMEM;
    if (end - begin >= LARGE_COMMIT && end - begin > system_memory_available())
        return -ENOMEM;
    while (fallocate(segment->fd, 0, (off_t)begin, (off_t)(end - begin)) < 0) {
        if (errno == EINTR)
            continue;
        if (errno == ENOSPC || errno == EFBIG || errno == ENOMEM)
            return -ENOMEM;
        return -errno;
    }
    return 0;
}

void segment_populate(const struct segment *segment, uint64_t offset, uint64_t length)
{
#ifdef MADV_POPULATE_WRITE /* Linux 5.14 */
    uint64_t begin = offset / segment->page * segment->page;

    madvise(segment->base + begin, round_up(offset + length, segment->page) - begin,
            MADV_POPULATE_WRITE);
#else
    (void)segment, (void)offset, (void)length;
#endif
}

int segment_release(struct segment *segment, uint64_t offset, uint64_t length)
{
    uint64_t begin = round_up(offset, segment->page);
    uint64_t end;

    if (offset > segment->size || length > segment->size - offset)
        return -EINVAL;
    end = (offset + length) / segment->page * segment->page;
    if (begin >= end)
        return 0;
    if (!system_is_file(segment->fd, segment->file))
        return -EBADF;
    if (fallocate(segment->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)begin,
                  (off_t)(end - begin)) < 0)
        return -errno;
    return 0;
}
