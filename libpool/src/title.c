/* What ps and top show of the processes of a pool: a name (comm) and a command line.
 *
 *   libpool-3           libpool worker 3: python script.py
 *   libpool-watch       libpool supervisor: python script.py
 *
 * The command line that the kernel shows is a range of the process's own memory. PR_SET_MM_MAP
 * moves it elsewhere, without privileges; the kernel wants the whole layout with it, and gives it
 * in /proc/self/stat. Where it can't be moved the range is overwritten, as far as it goes. The
 * host's own memory is another copy. All of this is for people who look: failure changes nothing.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"
#include "system.h"

#define TITLE_ROOM 512
#define COMM_ROOM 16

/* The kernel shows this memory as long as the process lives, if it is no part of a file's mapping,
 * as a static array of a library may be. Made by the supervisor, for itself and the workers. */
static char *title;

/* Fields of /proc/self/stat, by their numbers in proc(5). */
enum {
    START_CODE = 26,
    END_CODE = 27,
    START_STACK = 28,
    START_DATA = 45,
    END_DATA = 46,
    START_BRK = 47,
    ARG_START = 48,
    ARG_END = 49,
    ENV_START = 50,
    ENV_END = 51,
    FIELDS = 52
};

/* The supervisor's layout, which its forks have as well. */
static uint64_t fields[FIELDS];
static bool layout_known;

static bool read_layout(void)
{
    char text[2048];
    char *word, *save = NULL;
    int number = 3; /* what follows the name, which may contain anything */

    if (system_read("/proc/self/stat", text, sizeof text) < 0 || !(word = strrchr(text, ')')))
        return false;
    for (word = strtok_r(word + 1, " \n", &save); word && number < FIELDS;
         word = strtok_r(NULL, " \n", &save))
        fields[number++] = strtoull(word, NULL, 10);
    return number == FIELDS && fields[ARG_START] < fields[ARG_END];
}

static bool move(size_t length)
{
    struct prctl_mm_map map = {
        .start_code = fields[START_CODE],
        .end_code = fields[END_CODE],
        .start_data = fields[START_DATA],
        .end_data = fields[END_DATA],
        .start_brk = fields[START_BRK],
        .brk = (uint64_t)syscall(SYS_brk, 0),
        .start_stack = fields[START_STACK],
        .arg_start = (uintptr_t)title,
        .arg_end = (uintptr_t)title + length + 1,
        .env_start = fields[ENV_START],
        .env_end = fields[ENV_END],
        .exe_fd = (uint32_t)-1,
    };

    return prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) == 0;
}

__attribute__((format(printf, 2, 3))) static void show(const char *comm, const char *format, ...)
{
    size_t length, room;
    va_list arguments;

    prctl(PR_SET_NAME, comm);
    if (!title)
        return;
    va_start(arguments, format);
    vsnprintf(title, TITLE_ROOM, format, arguments);
    va_end(arguments);
    length = strlen(title);
    if (!layout_known || move(length))
        return;
    /* Under valgrind that range is valgrind's own. */
    if (fields[ARG_START] != (uintptr_t)program_invocation_name)
        return;
    room = fields[ARG_END] - fields[ARG_START];
    /* A zero at the end says that this is all: else the kernel would read on in the environment. */
    memset((char *)(uintptr_t)fields[ARG_START], 0, room);
    memcpy((char *)(uintptr_t)fields[ARG_START], title, length < room ? length : room - 1);
}

/* Reads what the workers' titles need as well, once for all of them. */
void title_set_supervisor(struct pool *pool)
{
    char comm[COMM_ROOM];
    ssize_t length = system_read("/proc/self/cmdline", pool->command, sizeof pool->command), i;

    while (length > 0 && pool->command[length - 1] == '\0')
        length--;
    for (i = 0; i < length; i++)
        if (pool->command[i] == '\0')
            pool->command[i] = ' ';
    pool->command[length > 0 ? length : 0] = '\0';
    if (!title) {
        title = mmap(NULL, TITLE_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (title == MAP_FAILED)
            title = NULL;
    }
    layout_known = read_layout();
    snprintf(comm, sizeof comm, "%.9s-watch", pool->name);
    show(comm, "%s supervisor: %s", pool->name, pool->command);
}

void title_set_worker(const struct pool *pool, int worker)
{
    char comm[COMM_ROOM], number[8];

    snprintf(number, sizeof number, "-%d", worker);
    snprintf(comm, sizeof comm, "%.*s%s", (int)(sizeof comm - 1 - strlen(number)), pool->name,
             number);
    show(comm, "%s worker %d: %s", pool->name, worker, pool->command);
}
