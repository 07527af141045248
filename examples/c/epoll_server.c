/* A TCP server on one thread that has a pool do the work: an epoll loop over connections, signals,
 * and the pool.
 *
 *     epoll_server [-w WORKERS] [-p PORT]
 *
 * A client sends lines, "ID N", and gets a line "ID SUM" for each, with the sum of all primes below
 * N, in the order in which the answers are ready: it may have many requests under way. A request
 * that can't be served is answered by "ID error: TEXT". A client that closes its connection gives
 * up what it has under way. SIGTERM or SIGINT stops the server. epoll_client.c talks to it. */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libpool.h>

enum { LINE = 100, LARGEST = 2000000 };

/* What epoll tells us about is a struct whose first member says what it is. */
enum source { LISTENER, SIGNALS, COMPLETIONS, SUPERVISOR, CONNECTION };

struct connection {
    enum source source;
    int fd;
    bool broken; /* to be closed once this round's events have been looked at */
    char input[LINE];
    size_t input_size;
    char *output; /* what the socket did not take yet */
    size_t output_size;
    struct connection *next;
};

/* A job under way, in the place that pool_future.index says: the pool reuses low numbers. */
struct request {
    struct pool_future future;
    struct connection *connection; /* NULL: nothing under way here */
    uint64_t id;
};

struct server {
    int epoll, listener, signals;
    struct pool *pool;
    struct connection *connections;
    struct request *requests;
    size_t request_room;
    uint64_t served;
    bool stopping;
};

/* ---- The work ---- */

static bool is_prime(uint64_t n)
{
    for (uint64_t divisor = 2; divisor <= n / divisor; divisor++)
        if (n % divisor == 0)
            return false;
    return n > 1;
}

/* The job. */
static int sum_primes(struct pool_job *job, const void *argument, size_t size)
{
    uint64_t n, sum = 0;
    if (size != sizeof n)
        return -EINVAL;
    memcpy(&n, argument, sizeof n);
    for (uint64_t candidate = 2; candidate < n; candidate++)
        sum += is_prime(candidate) ? candidate : 0;
    return pool_job_return(job, &sum, sizeof sum);
}

/* ---- Connections ---- */

static int watch(struct server *server, int fd, uint32_t events, void *source)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(server->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static void send_output(struct connection *connection)
{
    while (connection->output_size > 0) {
        ssize_t sent =
            send(connection->fd, connection->output, connection->output_size, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN && errno != EINTR)
                connection->broken = true;
            if (errno != EINTR)
                return; /* EAGAIN: EPOLLOUT comes when there is room */
            continue;
        }
        connection->output_size -= (size_t)sent;
        memmove(connection->output, connection->output + sent, connection->output_size);
    }
}

static void answer(struct connection *connection, uint64_t id, int error, uint64_t sum)
{
    char line[LINE];
    int size = error ? snprintf(line, sizeof line, "%" PRIu64 " error: %s\n", id, strerror(-error))
                     : snprintf(line, sizeof line, "%" PRIu64 " %" PRIu64 "\n", id, sum);
    char *output = realloc(connection->output, connection->output_size + (size_t)size);
    if (output == NULL) {
        connection->broken = true;
        return;
    }
    memcpy(output + connection->output_size, line, (size_t)size);
    connection->output = output;
    connection->output_size += (size_t)size;
    send_output(connection);
}

/* Answers a request whose job has ended. */
static void finish(struct server *server, struct request *request)
{
    const void *data;
    size_t size;
    uint64_t sum = 0;
    int error = pool_future_result(&request->future, &data, &size);
    if (error == 0 && size != sizeof sum)
        error = -EBADMSG;
    if (error == 0)
        memcpy(&sum, data, sizeof sum);
    pool_future_release(&request->future);
    answer(request->connection, request->id, error, sum);
    request->connection = NULL;
    server->served++;
}

static struct request *request_at(struct server *server, uint32_t index)
{
    if (index >= server->request_room) {
        size_t room = index + 64;
        struct request *requests = realloc(server->requests, room * sizeof *requests);
        if (requests == NULL)
            return NULL;
        memset(requests + server->request_room, 0,
               (room - server->request_room) * sizeof *requests);
        server->requests = requests;
        server->request_room = room;
    }
    return &server->requests[index];
}

static void submit(struct server *server, struct connection *connection, uint64_t id, uint64_t n)
{
    struct pool_future future;
    int error =
        n > LARGEST ? -ERANGE : pool_submit(server->pool, sum_primes, &n, sizeof n, &future);
    struct request *request = error == 0 ? request_at(server, future.index) : NULL;
    if (error == 0 && request == NULL) {
        pool_future_release(&future);
        error = -ENOMEM;
    }
    if (error) {
        answer(connection, id, error, 0);
        return;
    }
    *request = (struct request){future, connection, id};
    if (pool_future_notify(&future) != 0) /* it has ended already, and is not announced */
        finish(server, request);
}

/* Takes the whole lines that have come. A line that is none, or too long, ends the connection. */
static void take_lines(struct server *server, struct connection *connection)
{
    char *line = connection->input, *end;
    while (
        (end = memchr(line, '\n', connection->input_size - (size_t)(line - connection->input)))) {
        uint64_t id, n;
        *end = '\0';
        if (sscanf(line, "%" SCNu64 " %" SCNu64, &id, &n) != 2) {
            connection->broken = true;
            return;
        }
        submit(server, connection, id, n);
        line = end + 1;
    }
    connection->input_size -= (size_t)(line - connection->input);
    memmove(connection->input, line, connection->input_size);
    if (connection->input_size == sizeof connection->input)
        connection->broken = true;
}

static void receive(struct server *server, struct connection *connection)
{
    while (!connection->broken) {
        ssize_t size = recv(connection->fd, connection->input + connection->input_size,
                            sizeof connection->input - connection->input_size, 0);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && errno == EAGAIN)
            return;
        if (size <= 0) {
            connection->broken = true;
            return;
        }
        connection->input_size += (size_t)size;
        take_lines(server, connection);
    }
}

static void accept_connections(struct server *server)
{
    int fd;
    while ((fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *connection = calloc(1, sizeof *connection);
        /* Edge-triggered: told once, one reads until there is no more. */
        if (connection == NULL || watch(server, fd, EPOLLIN | EPOLLOUT | EPOLLET, connection) < 0) {
            free(connection);
            close(fd);
            continue;
        }
        connection->source = CONNECTION;
        connection->fd = fd;
        connection->next = server->connections;
        server->connections = connection;
    }
}

/* Jobs of a client that has gone still run; nobody wants their results. */
static void close_broken(struct server *server, bool all)
{
    struct connection **place = &server->connections, *connection;
    while ((connection = *place) != NULL) {
        if (!connection->broken && !all) {
            place = &connection->next;
            continue;
        }
        for (size_t i = 0; i < server->request_room; i++)
            if (server->requests[i].connection == connection) {
                pool_future_cancel(&server->requests[i].future);
                pool_future_release(&server->requests[i].future);
                server->requests[i].connection = NULL;
            }
        *place = connection->next;
        close(connection->fd);
        free(connection->output);
        free(connection);
    }
}

/* ---- The loop ---- */

/* The jobs that were announced; also stale announcements, of jobs that were released. */
static void take_completed(struct server *server)
{
    struct pool_future future;
    uint64_t count;
    /* Empty the eventfd first: what is announced from here on makes it readable again. */
    if (read(pool_notify_fd(server->pool), &count, sizeof count) < 0 && errno != EAGAIN)
        perror("epoll_server: eventfd");
    while (pool_next_completed(server->pool, &future) == 1) {
        struct request *request = request_at(server, future.index);
        if (request != NULL && request->connection != NULL &&
            request->future.generation == future.generation)
            finish(server, request);
    }
}

/* The pool has lost its supervisor: what is under way ends as lost, and is answered so. */
static int check_pool(struct server *server)
{
    int error = pool_check(server->pool);
    if (error)
        fprintf(stderr, "epoll_server: the pool is broken: %s\n", strerror(-error));
    return error;
}

static int loop(struct server *server)
{
    int error = 0;
    while (error == 0 && !server->stopping) {
        struct epoll_event events[64];
        int count = epoll_wait(server->epoll, events, 64, -1);
        if (count < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < count; i++) {
            switch (*(enum source *)events[i].data.ptr) {
            case LISTENER:
                accept_connections(server);
                break;
            case SIGNALS:
                server->stopping = true;
                break;
            case COMPLETIONS:
                take_completed(server);
                break;
            case SUPERVISOR:
                error = check_pool(server);
                break;
            case CONNECTION:
                send_output(events[i].data.ptr);
                receive(server, events[i].data.ptr);
                break;
            }
        }
        close_broken(server, false);
    }
    return error;
}

/* Listens on the loopback interface. Returns the port or a negative errno. */
static int listen_on(struct server *server, uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = 1;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server->listener < 0 ||
        setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(server->listener, (struct sockaddr *)&address, size) < 0 ||
        listen(server->listener, SOMAXCONN) < 0 ||
        getsockname(server->listener, (struct sockaddr *)&address, &size) < 0)
        return -errno;
    return ntohs(address.sin_port);
}

static int open_server(struct server *server, const struct pool_config *config, uint16_t port)
{
    static enum source listener = LISTENER, signals = SIGNALS, completions = COMPLETIONS,
                       supervisor = SUPERVISOR;
    /* The pool first: what is opened later, workers do not inherit. But signals are blocked for
     * this program alone, so after it. */
    int error = pool_create(&server->pool, config);
    if (error)
        return error;
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &stop, NULL) < 0 ||
        (server->signals = signalfd(-1, &stop, SFD_CLOEXEC)) < 0 ||
        (server->epoll = epoll_create1(EPOLL_CLOEXEC)) < 0)
        return -errno;
    int bound = listen_on(server, port);
    if (bound < 0)
        return bound;
    error = watch(server, server->listener, EPOLLIN, &listener);
    if (error == 0)
        error = watch(server, server->signals, EPOLLIN, &signals);
    if (error == 0)
        error = watch(server, pool_notify_fd(server->pool), EPOLLIN, &completions);
    if (error == 0)
        error = watch(server, pool_supervisor_fd(server->pool), EPOLLIN, &supervisor);
    if (error == 0) {
        printf("listening on port %d\n", bound);
        fflush(stdout);
    }
    return error;
}

static void close_server(struct server *server)
{
    close_broken(server, true);
    pool_destroy(server->pool);
    int fds[] = {server->listener, server->signals, server->epoll};
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(server->requests);
}

int main(int argc, char **argv)
{
    struct server server = {.epoll = -1, .listener = -1, .signals = -1};
    struct pool_config config;
    int port = 0; /* any that is free */
    pool_config_init(&config);
    config.queue_limit = 100000; /* beyond that clients are told to come again */
    for (int option; (option = getopt(argc, argv, "w:p:")) != -1;) {
        if (option == 'w') {
            config.workers = atoi(optarg); /* pool_create() says if it is no good */
        } else if (option == 'p' && atoi(optarg) >= 0 && atoi(optarg) <= 65535) {
            port = atoi(optarg);
        } else {
            fprintf(stderr, "usage: %s [-w WORKERS] [-p PORT]\n", argv[0]);
            return 2;
        }
    }
    int error = open_server(&server, &config, (uint16_t)port);
    if (error == 0)
        error = loop(&server);
    if (error)
        fprintf(stderr, "epoll_server: %s\n", strerror(-error));
    else
        printf("%" PRIu64 " requests served\n", server.served);
    close_server(&server);
    return error != 0;
}
