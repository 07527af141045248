/* Structs that begin with their size: older and newer programs. */
#include "sized.h"

#include <errno.h>
#include <string.h>

int sized_check(size_t known_size, const void *given, size_t least)
{
    const unsigned char *bytes = given;
    size_t size, i;

    memcpy(&size, given, sizeof size);
    if (size < least || size > SIZED_LONGEST)
        return -EINVAL;
    for (i = known_size; i < size; i++)
        if (bytes[i])
            return -EINVAL;
    return 0;
}

int sized_take(void *known, size_t known_size, const void *given, size_t least)
{
    size_t size;
    int error = sized_check(known_size, given, least);

    if (error)
        return error;
    memcpy(&size, given, sizeof size);
    memset(known, 0, known_size);
    memcpy(known, given, size < known_size ? size : known_size);
    memcpy(known, &known_size, sizeof known_size);
    return 0;
}

void sized_give(void *given, size_t given_size, const void *known, size_t known_size)
{
    memset(given, 0, given_size);
    memcpy(given, known, given_size < known_size ? given_size : known_size);
    memcpy(given, &given_size, sizeof given_size);
}
