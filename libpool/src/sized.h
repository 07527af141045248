/* Structs that begin with their size, and that programs and library may know in other lengths. */
#ifndef POOL_SIZED_H
#define POOL_SIZED_H

#include <stddef.h>

/* No struct of this library will be longer: a size beyond is no size. */
#define SIZED_LONGEST 4096

/* Copies what a program has given to `known`, and sets to 0 what it did not give. -EINVAL: it is
 * shorter than the first version, of `least` bytes, or has a member set that is not known here. */
int sized_take(void *known, size_t known_size, const void *given, size_t least);
/* Only the check. */
int sized_check(size_t known_size, const void *given, size_t least);
/* Gives `known` to a program, as much of it as there is room for; sets to 0 what it knows and we do
 * not. The size stays as it is. */
void sized_give(void *given, size_t given_size, const void *known, size_t known_size);

#endif
