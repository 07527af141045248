/* The Mandelbrot set as a PNG picture: one job for each row.
 *
 *     mandelbrot [-w WORKERS] [-s WIDTH] [FILE.png]
 *
 * Rows take very different times, since points in the set cost the most. As each is a job of its
 * own, no worker is left without work while another one has much. Needs libpng: -lpool -lpng */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpool.h>
#include <png.h>

enum { DEPTH = 1000 }; /* iterations, after which a point counts as in the set */

struct row {
    int y, width, height;
};

/* The pixels of a row: width bytes, each the number of a colour. */
static void draw_row(struct row row, unsigned char *pixels)
{
    double scale = 3.0 / row.width; /* real parts from -2.25 to 0.75 */
    double c_imaginary = (row.y - row.height / 2.0) * scale;
    for (int x = 0; x < row.width; x++) {
        double c_real = -2.25 + x * scale, real = 0, imaginary = 0;
        int n = 0;
        while (n < DEPTH && real * real + imaginary * imaginary < 4) {
            double next = real * real - imaginary * imaginary + c_real;
            imaginary = 2 * real * imaginary + c_imaginary;
            real = next;
            n++;
        }
        pixels[x] = n == DEPTH ? 0 : (unsigned char)(1 + n % 255);
    }
}

/* The job. The pixels are written where the host reads them, without a copy. */
static int draw(struct pool_job *job, const void *argument, size_t size)
{
    struct row row;
    if (size != sizeof row)
        return -EINVAL;
    memcpy(&row, argument, sizeof row);
    unsigned char *pixels = pool_job_reserve(job, (size_t)row.width);
    if (pixels == NULL)
        return -errno;
    draw_row(row, pixels);
    return 0;
}

/* Draws rows in parallel. Returns 0 or a negative errno. */
static int draw_in_pool(struct pool *pool, const struct row *rows, int height, int width,
                        unsigned char *picture)
{
    struct pool_future *futures = calloc((size_t)height, sizeof *futures);
    if (futures == NULL)
        return -ENOMEM;
    int64_t submitted =
        pool_submit_many(pool, NULL, draw, rows, sizeof *rows, (size_t)height, futures);
    int error = submitted < 0 ? (int)submitted : submitted < height ? -EAGAIN : 0;
    for (int64_t y = 0; y < submitted; y++) {
        const void *pixels;
        size_t size;
        while (error == 0 && (error = pool_future_wait(&futures[y], POOL_FOREVER)) == -EINTR)
            error = 0; /* a signal handler ran */
        if (error == 0)
            error = pool_future_result(&futures[y], &pixels, &size);
        if (error == 0 && size != (size_t)width)
            error = -EBADMSG;
        if (error == 0)
            memcpy(picture + y * width, pixels, size);
        pool_future_release(&futures[y]);
    }
    free(futures);
    return error;
}

/* FNV-1a, 64 bits (Fowler, Noll and Vo) */
static uint64_t checksum(const unsigned char *bytes, size_t size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* Returns 0, or -1 after saying what is wrong. */
static int write_png(const char *name, const unsigned char *picture, int width, int height)
{
    png_color colours[256] = {{0, 0, 0}};
    for (int i = 1; i < 256; i++)
        colours[i] = (png_color){(png_byte)(i * 5), (png_byte)(i * 3), (png_byte)(128 + i * 2)};
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)width,
                       .height = (png_uint_32)height,
                       .format = PNG_FORMAT_RGB_COLORMAP,
                       .colormap_entries = 256};
    if (!png_image_write_to_file(&image, name, 0, picture, width, colours)) {
        fprintf(stderr, "mandelbrot: %s: %s\n", name, image.message);
        return -1;
    }
    return 0;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Draws the picture twice, and says how long it took. Returns 0 or a negative errno. */
static int draw_both(const struct pool_config *config, const struct row *rows, int width,
                     int height, unsigned char *picture)
{
    size_t size = (size_t)width * (size_t)height;
    double start = now();
    for (int y = 0; y < height; y++)
        draw_row(rows[y], picture + (size_t)y * (size_t)width);
    double serial = now() - start;
    uint64_t wanted = checksum(picture, size);
    memset(picture, 0, size);

    struct pool *pool;
    int error = pool_create(&pool, config);
    if (error)
        return error;
    start = now();
    error = draw_in_pool(pool, rows, height, width, picture);
    double parallel = now() - start;
    pool_destroy(pool);
    if (error)
        return error;

    uint64_t found = checksum(picture, size);
    printf("serially %.3f s, with %d workers %.3f s: %.2f times as fast\n", serial, config->workers,
           parallel, serial / parallel);
    printf("checksum of the pixels %016" PRIx64 ", serially %016" PRIx64 "\n", found, wanted);
    return found == wanted ? 0 : -EBADMSG;
}

int main(int argc, char **argv)
{
    struct pool_config config;
    pool_config_init(&config);
    int width = 900;
    for (int option; (option = getopt(argc, argv, "w:s:")) != -1;) {
        if (option == 'w') {
            config.workers = atoi(optarg); /* pool_create() says if it is no good */
        } else if (option == 's' && atoi(optarg) > 0 && atoi(optarg) <= 30000) {
            width = atoi(optarg);
        } else {
            fprintf(stderr, "usage: %s [-w WORKERS] [-s WIDTH] [FILE.png]\n", argv[0]);
            return 2;
        }
    }
    const char *name = optind < argc ? argv[optind] : "mandelbrot.png";
    int height = width * 2 / 3 + 1;

    unsigned char *picture = malloc((size_t)width * (size_t)height);
    struct row *rows = calloc((size_t)height, sizeof *rows);
    int error = picture != NULL && rows != NULL ? 0 : -ENOMEM;
    for (int y = 0; error == 0 && y < height; y++)
        rows[y] = (struct row){y, width, height};
    if (error == 0)
        error = draw_both(&config, rows, width, height, picture);
    if (error)
        fprintf(stderr, "mandelbrot: %s\n", strerror(-error));
    else if ((error = write_png(name, picture, width, height)) == 0)
        printf("%s: %d x %d pixels\n", name, width, height);
    free(rows);
    free(picture);
    return error != 0;
}
