/* The other side of epoll_server.c: several connections at once, many requests under way in each.
 *
 *     epoll_client PORT [CONNECTIONS [REQUESTS [leave]]]
 *
 * Checks every answer, and says how many came in which time; with "leave" it goes away before they
 * come. */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 500, NUMBERS = 2000 };

struct connection {
    FILE *stream;
    unsigned char *answered; /* for each request */
    int left;
};

/* The sum of all primes below n, for the n that are asked for: sums[n]. */
static uint64_t sums[NUMBERS + 1];

static void fill_sums(void)
{
    for (int n = 2; n < NUMBERS; n++) {
        bool prime = true;
        for (int divisor = 2; divisor * divisor <= n; divisor++)
            prime = prime && n % divisor != 0;
        sums[n + 1] = sums[n] + (prime ? (uint64_t)n : 0);
    }
}

static int number_of(int request)
{
    return request * 37 % NUMBERS;
}

static int open_connection(struct connection *connection, int port, int requests)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 30};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0)
        return -errno;
    connection->stream = fdopen(fd, "r+");
    connection->answered = calloc((size_t)requests, 1);
    connection->left = requests;
    if (connection->stream == NULL || connection->answered == NULL)
        return -errno;
    for (int i = 0; i < requests; i++)
        fprintf(connection->stream, "%d %d\n", i, number_of(i));
    return fflush(connection->stream) == 0 ? 0 : -errno;
}

/* Reads all answers of one connection; the others' wait in their sockets meanwhile. */
static int read_answers(struct connection *connection, int requests)
{
    char line[200];
    while (connection->left > 0) {
        int id;
        uint64_t sum;
        if (fgets(line, sizeof line, connection->stream) == NULL)
            return ferror(connection->stream) ? -errno : -ECONNRESET;
        if (sscanf(line, "%d %" SCNu64, &id, &sum) != 2 || id < 0 || id >= requests ||
            connection->answered[id] || sum != sums[number_of(id)]) {
            fprintf(stderr, "epoll_client: wrong answer: %s", line);
            return -EBADMSG;
        }
        connection->answered[id] = 1;
        connection->left--;
    }
    return 0;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    static struct connection connections[MOST];
    int port = argc > 1 ? atoi(argv[1]) : 0, count = argc > 2 ? atoi(argv[2]) : 8;
    int requests = argc > 3 ? atoi(argv[3]) : 200, error = 0;
    bool leave = argc > 4 && strcmp(argv[4], "leave") == 0;
    if (port < 1 || port > 65535 || count < 1 || count > MOST || requests < 1) {
        fprintf(stderr, "usage: %s PORT [CONNECTIONS [REQUESTS [leave]]]\n", argv[0]);
        return 2;
    }
    fill_sums();
    double start = now();
    for (int i = 0; error == 0 && i < count; i++)
        error = open_connection(&connections[i], port, requests);
    for (int i = 0; error == 0 && i < count && !leave; i++)
        error = read_answers(&connections[i], requests);
    double seconds = now() - start;
    for (int i = 0; i < count; i++) {
        if (connections[i].stream != NULL)
            fclose(connections[i].stream);
        free(connections[i].answered);
    }
    if (error) {
        fprintf(stderr, "epoll_client: %s\n", strerror(-error));
        return 1;
    }
    if (leave) {
        printf("left %d requests before their answers\n", count * requests);
        return 0;
    }
    printf("%d right answers on %d connections in %.3f s: %.0f a second\n", count * requests, count,
           seconds, count * requests / seconds);
    return 0;
}
