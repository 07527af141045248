/* Functions of every signature, for test_native.py. */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define SAME(type, name)                                                                           \
    type same_##name(type value)                                                                   \
    {                                                                                              \
        return value;                                                                              \
    }

SAME(_Bool, bool)
SAME(char, char)
SAME(int8_t, int8)
SAME(uint8_t, uint8)
SAME(int16_t, int16)
SAME(uint16_t, uint16)
SAME(int32_t, int32)
SAME(uint32_t, uint32)
SAME(int64_t, int64)
SAME(uint64_t, uint64)
SAME(float, float)
SAME(double, double)

/* The sum of all, each times its place: a value that goes to another parameter shows. */
double mixed(int8_t a, double b, uint16_t c, float d, int64_t e, float f, uint8_t g, double h,
             _Bool i, int32_t j)
{
    return a + 2 * b + 3.0 * c + 4.0 * (double)d + 5.0 * (double)e + 6.0 * (double)f + 7.0 * g +
           8 * h + 9.0 * i + 10.0 * j;
}

/* More of either kind than there are registers. */
double many(int a, int b, int c, int d, int e, int f, int g, int8_t h, int i, int64_t j, double k,
            double l, double m, double n, float o, double p, double q, double r, float s, double t)
{
    double integers =
        a + 2. * b + 3. * c + 4. * d + 5. * e + 6. * f + 7. * g + 8. * h + 9. * i + 10. * (double)j;
    return integers + 11 * k + 12 * l + 13 * m + 14 * n + 15 * (double)o + 16 * p + 17 * q +
           18 * r + 19 * (double)s + 20 * t;
}

void do_nothing(void)
{
}

double total(const double *numbers, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += numbers[i];
    return sum;
}

/* How far an address is from a multiple of 64. */
int64_t misalignment(const void *buffer)
{
    return (int64_t)((uintptr_t)buffer % 64);
}

int is_null(const void *buffer)
{
    return !buffer;
}

void scale(double *numbers, int64_t count, double factor)
{
    for (int64_t i = 0; i < count; i++)
        numbers[i] *= factor;
}

/* Writes the sum and the difference; returns how many bytes of `sums` were not 0 before. */
int sums_and_differences(const int32_t *a, const int32_t *b, int64_t count, int32_t *sums,
                         int64_t *differences)
{
    int stale = 0;
    for (int64_t i = 0; i < count; i++) {
        stale += sums[i] != 0;
        sums[i] = a[i] + b[i];
        differences[i] = (int64_t)a[i] - b[i];
    }
    return stale;
}

void overwrite(char *text)
{
    memset(text, 'x', strlen(text));
}

int64_t length(const char *text)
{
    return (int64_t)strlen(text);
}

struct point {
    double x, y;
};

double distance_squared(const struct point *a, const struct point *b)
{
    return (a->x - b->x) * (a->x - b->x) + (a->y - b->y) * (a->y - b->y);
}

int process(void)
{
    return getpid();
}

int crash_if(int value)
{
    if (value)
        raise(SIGSEGV);
    return value;
}

void write_and_crash(double *numbers)
{
    numbers[0] = -1;
    raise(SIGSEGV);
}

/* Says on one descriptor that it has begun, and returns when there is something on the other. */
int pass_gates(int started, int held)
{
    char byte = 'x';
    if (write(started, &byte, 1) != 1)
        return -1;
    return (int)read(held, &byte, 1);
}

/* Dies the first time that it runs, and leaves a byte in a pipe to know it by. */
int die_once(int pipe_in, int pipe_out, double *numbers)
{
    char byte;
    numbers[0] += 1;
    if (read(pipe_in, &byte, 1) == 1)
        raise(SIGKILL);
    return (int)write(pipe_out, "x", 1);
}
