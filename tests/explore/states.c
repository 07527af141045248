/* The states that the explorer has come to: an open hash set. */
#include "states.h"

#include <stdlib.h>

static uint64_t *table;
static size_t count, room;

void states_clear(void)
{
    free(table);
    table = NULL;
    count = room = 0;
}

size_t states_count(void)
{
    return count;
}

/* Where a state is, or would be. */
static uint64_t *place_of(uint64_t state)
{
    size_t slot = state & (room - 1);

    while (table[slot] && table[slot] != state)
        slot = (slot + 1) & (room - 1);
    return &table[slot];
}

static void grow(void)
{
    uint64_t *old = table;
    size_t i, old_room = room;

    room = room ? room * 2 : 1 << 16;
    table = calloc(room, sizeof *table);
    if (!table)
        abort();
    for (i = 0; i < old_room; i++)
        if (old[i])
            *place_of(old[i]) = old[i];
    free(old);
}

bool states_add(uint64_t state)
{
    uint64_t *place;

    if (count * 4 >= room * 3)
        grow();
    state += state == 0; /* 0 is an empty place */
    place = place_of(state);
    if (*place)
        return false;
    *place = state;
    count++;
    return true;
}
