/* Copies that are larger than the caches.
 *
 * What is written there evicts what was written before, and before each line is written it is read
 * from memory, for nothing. Stores that go past the caches avoid both. The C library's memcpy()
 * does the same from a size on that it derives from the size of the last cache; a virtual machine
 * may tell it of all caches of a socket together, and then it begins ten times too late. */
#include "core.h"

#ifdef __SSE2__
#include <emmintrin.h>

/* Where the two ways take the same time, with a cache of 32 MiB for all cores. For smaller ones
 * memcpy() knows better, and there it is. */
#define LARGE ((size_t)32 << 20)
#define LINE 64

static void stream(uint8_t *to, const uint8_t *from, size_t lines)
{
    for (; lines > 0; lines--, to += LINE, from += LINE) {
        __m128i a = _mm_loadu_si128((const __m128i *)from);
        __m128i b = _mm_loadu_si128((const __m128i *)(from + 16));
        __m128i c = _mm_loadu_si128((const __m128i *)(from + 32));
        __m128i d = _mm_loadu_si128((const __m128i *)(from + 48));
        _mm_stream_si128((__m128i *)to, a);
        _mm_stream_si128((__m128i *)(to + 16), b);
        _mm_stream_si128((__m128i *)(to + 32), c);
        _mm_stream_si128((__m128i *)(to + 48), d);
    }
    /* These stores are ordered with no others, not even with the one that publishes the job. */
    _mm_sfence();
}

void copy_memory(void *to, const void *from, size_t size)
{
    size_t head = -(uintptr_t)to % LINE, lines;
    if (size < LARGE) {
        memcpy(to, from, size);
        return;
    }
    lines = (size - head) / LINE;
    memcpy(to, from, head);
    stream((uint8_t *)to + head, (const uint8_t *)from + head, lines);
    head += lines * LINE;
    memcpy((uint8_t *)to + head, (const uint8_t *)from + head, size - head);
}
#else
void copy_memory(void *to, const void *from, size_t size)
{
    memcpy(to, from, size);
}
#endif
