/* Telling the program what happens in the pool. */
#ifndef POOL_LOG_H
#define POOL_LOG_H

#include "internal.h"

/* Formats, and calls the program's function, if it has given one. In the fork of a process with
 * threads: nothing here takes a lock. */
__attribute__((format(printf, 3, 4))) void
log_say(const struct pool *pool, enum pool_log_level level, const char *format, ...);
/* How a process ended, by its wait status, as text. */
const char *log_ending(int wait_status, char *text, size_t room);

#endif
