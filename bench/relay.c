/*
 * A TCP relay that behaves like a long link: for benches on hosts without netem.
 *
 *     relay LISTEN-PORT TARGET-PORT RTT-MS MBIT-PER-S
 *
 * It models what decides the time of a boot over the network: the round trip, the handshake, slow start (RFC 6928's
 * initial window, doubled each round trip while the window is the limit, again after idling), and one bottleneck in
 * each direction that all connections share, first come first served, with a queue of one bandwidth-delay product.
 * A connection that finds that queue full takes its window back to 0.7 of it, once a round trip, as CUBIC does after
 * a loss, and from then on adds one segment a round trip: so many connections come to equal shares. Nothing is lost
 * or sent twice. The kernel's own TCP on loopback, and what the relay takes itself, some 0.03 ms each way, is not taken
 * off: bench/simulation.py does so where it counts. bench/README.md says how well it models a link.
 *
 * Listens on 127.0.0.1, prints "ready", relays until SIGTERM, then prints the connections and bytes that went through.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SEGMENT 1448u
#define INITIAL_WINDOW (10 * SEGMENT)
#define SMALLEST_WINDOW (2 * SEGMENT)
#define CHUNK 65536       /* bytes taken at once, and never more than the link carries in a millisecond */
#define SMALLEST_QUEUE (4 * CHUNK) /* on top of the bandwidth-delay product */
#define IDLE_NS 200000000u /* the least retransmission time-out of Linux, on top of the round trip */

/*
 * What happens later. Each kind has a constant delay after an instant that never goes back, so each is a plain queue.
 */
enum kind { OPEN, UP, DOWN, ACK, KINDS };

struct event {
    struct event *next;
    struct connection *connection;
    uint64_t due_ns;
    size_t size, sent;
    uint8_t bytes[];
};

struct queue {
    struct event *head, **tail;
};

/* One side of a connection, and what is to be written to it. */
struct end {
    int fd;
    struct connection *connection;
    struct queue out;
    bool closed;  /* nothing more comes from it */
    bool shut;    /* nothing more will be written to it */
};

struct connection {
    struct connection *next_dirty;
    struct end client, server;
    unsigned pending[KINDS]; /* events that will name it */
    bool open, dirty, dead;
    bool limited; /* by the window, when it was last looked at */
    size_t window, in_flight, threshold; /* bytes; THRESHOLD: where slow start ends */
    uint64_t last_sent_ns, last_cut_ns;
};

static struct {
    uint64_t rtt_ns, now_ns;
    uint64_t queue_ns; /* the time that a full queue of the bottleneck takes */
    double ns_per_byte;
    size_t chunk;
    uint64_t free_ns[KINDS]; /* when the bottleneck of UP and DOWN is idle again */
    struct queue queues[KINDS];
    struct connection *dirty; /* to be looked at before the next wait */
    int epoll, listener;
    uint16_t target_port;
    uint64_t connection_count, bytes[KINDS];
} relay;

static volatile sig_atomic_t stopping;

static void stop(int number)
{
    (void)number;
    stopping = 1;
}

static void die(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void look_at_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    relay.now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void queue_add(struct queue *queue, struct event *event)
{
    event->next = NULL;
    *queue->tail = event;
    queue->tail = &event->next;
}

static struct event *queue_take(struct queue *queue)
{
    struct event *event = queue->head;

    queue->head = event->next;
    if (!queue->head)
        queue->tail = &queue->head;
    return event;
}

static void later(enum kind kind, struct connection *connection, uint64_t due_ns, const uint8_t *bytes, size_t size)
{
    struct event *event = malloc(sizeof(*event) + (bytes ? size : 0));

    if (!event)
        die("memory");
    *event = (struct event){.connection = connection, .due_ns = due_ns, .size = size};
    if (bytes)
        memcpy(event->bytes, bytes, size);
    queue_add(&relay.queues[kind], event);
    connection->pending[kind]++;
}

static void mark(struct connection *connection)
{
    if (connection->dirty)
        return;
    connection->dirty = true;
    connection->next_dirty = relay.dirty;
    relay.dirty = connection;
}

/* Occupy the bottleneck for SIZE bytes; returns when the last of them has left it. */
static uint64_t pass_bottleneck(enum kind direction, size_t size)
{
    uint64_t *free_ns = &relay.free_ns[direction];
    uint64_t start = *free_ns > relay.now_ns ? *free_ns : relay.now_ns;

    relay.bytes[direction] += size;
    return *free_ns = start + (uint64_t)((double)size * relay.ns_per_byte);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* SIZE bytes were acknowledged. */
static void grow_window(struct connection *connection, size_t size)
{
    if (!connection->limited)
        return;
    if (connection->window < connection->threshold)
        connection->window += size;
    else
        connection->window += larger(1, SEGMENT * size / connection->window);
}

static void queue_was_full(struct connection *connection)
{
    if (relay.now_ns - connection->last_cut_ns < relay.rtt_ns)
        return;
    connection->last_cut_ns = relay.now_ns;
    connection->window = larger(connection->window / 10 * 7, SMALLEST_WINDOW);
    connection->threshold = connection->window;
}

/* Linux's tcp_slow_start_after_idle: half the window for each time-out that passed. */
static void restart_after_idle(struct connection *connection)
{
    uint64_t timeout_ns = relay.rtt_ns + IDLE_NS, idle_ns = relay.now_ns - connection->last_sent_ns;

    if (connection->in_flight || idle_ns <= timeout_ns)
        return;
    connection->threshold = larger(connection->threshold, connection->window / 4 * 3);
    for (; idle_ns > timeout_ns && connection->window > INITIAL_WINDOW; idle_ns -= timeout_ns)
        connection->window = larger(connection->window / 2, INITIAL_WINDOW);
}

static void send_down(struct connection *connection, const uint8_t *bytes, size_t size)
{
    uint64_t left = pass_bottleneck(DOWN, size);

    if (left - relay.now_ns > relay.queue_ns)
        queue_was_full(connection);
    later(DOWN, connection, left + relay.rtt_ns / 2, bytes, size);
    later(ACK, connection, left + relay.rtt_ns, NULL, size);
    connection->in_flight += size;
    connection->last_sent_ns = relay.now_ns;
}

/* Bytes, 0 if there are none now, -1 if no more come. */
static ssize_t take(struct end *end, uint8_t *bytes, size_t size)
{
    ssize_t got = end->closed ? 0 : recv(end->fd, bytes, size, MSG_DONTWAIT);

    if (end->closed || (got < 0 && (errno == EAGAIN || errno == EINTR)))
        return 0;
    end->closed = got <= 0;
    return got <= 0 ? -1 : got;
}

/* From the server, what the window allows and the client has room for. */
static void pump_down(struct connection *connection)
{
    static uint8_t bytes[CHUNK];

    restart_after_idle(connection);
    while (connection->in_flight < connection->window && !connection->client.out.head) {
        size_t room = connection->window - connection->in_flight;
        ssize_t got = take(&connection->server, bytes, room < relay.chunk ? room : relay.chunk);

        if (got <= 0)
            break;
        send_down(connection, bytes, (size_t)got);
    }
    connection->limited = connection->in_flight >= connection->window;
}

/* From the client, once the handshake is over. Requests are small: they fit into any window. */
static void pump_up(struct connection *connection)
{
    static uint8_t bytes[CHUNK];
    ssize_t got;

    while (connection->open && !connection->server.out.head && (got = take(&connection->client, bytes, CHUNK)) > 0)
        later(UP, connection, pass_bottleneck(UP, (size_t)got) + relay.rtt_ns / 2, bytes, (size_t)got);
}

/* Write what is due. */
static void flush(struct end *end)
{
    while (end->out.head && !end->shut) {
        struct event *event = end->out.head;
        ssize_t put = send(end->fd, event->bytes + event->sent, event->size - event->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (put < 0 && errno == EAGAIN)
            return;
        if (put < 0) {
            end->connection->dead = true;
            return;
        }
        event->sent += (size_t)put;
        if (event->sent == event->size)
            free(queue_take(&end->out));
    }
}

/* Everything was written and nothing more comes: pass the end on. */
static void shut(struct end *end, bool over)
{
    if (!over || end->shut || end->out.head)
        return;
    shutdown(end->fd, SHUT_WR);
    end->shut = true;
}

static void connection_free(struct connection *connection)
{
    while (connection->client.out.head)
        free(queue_take(&connection->client.out));
    while (connection->server.out.head)
        free(queue_take(&connection->server.out));
    free(connection);
}

static bool awaited(const struct connection *connection)
{
    for (enum kind kind = 0; kind < KINDS; kind++)
        if (connection->pending[kind])
            return true;
    return false;
}

static void look_after(struct connection *connection)
{
    bool closed = connection->client.fd < 0;

    connection->dirty = false;
    if (!closed) {
        flush(&connection->server);
        flush(&connection->client);
        pump_up(connection);
        pump_down(connection);
        shut(&connection->server, connection->client.closed && !connection->pending[UP]);
        shut(&connection->client, connection->server.closed && !connection->pending[DOWN]);
        if (connection->client.shut && connection->server.shut)
            connection->dead = true;
    }
    if (!closed && connection->dead) {
        close(connection->client.fd);
        close(connection->server.fd);
        connection->client.fd = connection->server.fd = -1;
    }
    if (connection->dead && !awaited(connection))
        connection_free(connection);
}

static void look_after_all(void)
{
    while (relay.dirty) {
        struct connection *connection = relay.dirty;

        relay.dirty = connection->next_dirty;
        look_after(connection);
    }
}

static void end_init(struct end *end, int fd, struct connection *connection)
{
    /* Edge-triggered: what is left unread waits for the window, and is looked at again when it is due. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, .data.ptr = connection};
    int one = 1;

    end->fd = fd;
    end->connection = connection;
    end->out.tail = &end->out.head;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (epoll_ctl(relay.epoll, EPOLL_CTL_ADD, fd, &event))
        die("epoll");
}

static int connect_target(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(relay.target_port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        close(fd);
        errno = ECONNREFUSED;
        return -1;
    }
    return fd;
}

static void accept_all(void)
{
    int client;

    while ((client = accept4(relay.listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        int server = connect_target();
        struct connection *connection = server < 0 ? NULL : calloc(1, sizeof(*connection));

        /* A link that turns some away would falsify what is measured on it. */
        if (server < 0 && errno == EMFILE)
            die("a connection more (ulimit -n)");

        if (!connection) {
            close(client);
            continue;
        }
        connection->window = INITIAL_WINDOW;
        connection->threshold = SIZE_MAX;
        connection->last_sent_ns = relay.now_ns;
        end_init(&connection->client, client, connection);
        end_init(&connection->server, server, connection);
        relay.connection_count++;
        later(OPEN, connection, relay.now_ns + relay.rtt_ns, NULL, 0);
    }
    if (errno == EMFILE)
        die("a connection more (ulimit -n)");
}

static void happen(enum kind kind, struct event *event)
{
    struct connection *connection = event->connection;

    connection->pending[kind]--;
    mark(connection);
    switch (kind) {
    case OPEN:
        connection->open = true;
        break;
    case UP:
        queue_add(&connection->server.out, event);
        return;
    case DOWN:
        queue_add(&connection->client.out, event);
        return;
    default:
        grow_window(connection, event->size);
        connection->in_flight -= event->size;
        break;
    }
    free(event);
}

static void happen_all(void)
{
    for (enum kind kind = 0; kind < KINDS; kind++)
        while (relay.queues[kind].head && relay.queues[kind].head->due_ns <= relay.now_ns)
            happen(kind, queue_take(&relay.queues[kind]));
}

static void wait_for_events(void)
{
    struct epoll_event events[256];
    struct timespec pause = {0};
    uint64_t due = UINT64_MAX;
    int count;

    for (enum kind kind = 0; kind < KINDS; kind++)
        if (relay.queues[kind].head && relay.queues[kind].head->due_ns < due)
            due = relay.queues[kind].head->due_ns;
    if (due > relay.now_ns && due != UINT64_MAX) {
        pause.tv_sec = (time_t)((due - relay.now_ns) / 1000000000u);
        pause.tv_nsec = (long)((due - relay.now_ns) % 1000000000u);
    }
    count = epoll_pwait2(relay.epoll, events, 256, due == UINT64_MAX ? NULL : &pause, NULL);
    look_at_clock();
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr)
            mark(events[i].data.ptr);
        else
            accept_all();
    }
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 4096) ||
        epoll_ctl(relay.epoll, EPOLL_CTL_ADD, fd, &event))
        die("listen");
    return fd;
}

static void allow_many_files(void)
{
    struct rlimit limit;

    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    double mbit;

    if (argc != 5 || (mbit = atof(argv[4])) <= 0) {
        fprintf(stderr, "usage: relay LISTEN-PORT TARGET-PORT RTT-MS MBIT-PER-S\n");
        return 2;
    }
    allow_many_files();
    relay.target_port = (uint16_t)atoi(argv[2]);
    relay.rtt_ns = (uint64_t)(atof(argv[3]) * 1e6);
    relay.ns_per_byte = 8000.0 / mbit;
    relay.queue_ns = relay.rtt_ns + (uint64_t)(SMALLEST_QUEUE * relay.ns_per_byte);
    relay.chunk = mbit * 125 < CHUNK ? larger((size_t)(mbit * 125), SEGMENT) : CHUNK;
    relay.epoll = epoll_create1(EPOLL_CLOEXEC);
    relay.listener = listen_on((uint16_t)atoi(argv[1]));
    for (enum kind kind = 0; kind < KINDS; kind++)
        relay.queues[kind].tail = &relay.queues[kind].head;
    prctl(PR_SET_TIMERSLACK, 1); /* or each wait of a link of 0.1 ms would be as long again */
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    puts("ready");
    fflush(stdout);
    look_at_clock();
    while (!stopping) {
        wait_for_events();
        happen_all();
        look_after_all();
    }
    printf("connections %llu bytes-down %llu bytes-up %llu\n", (unsigned long long)relay.connection_count,
           (unsigned long long)relay.bytes[DOWN], (unsigned long long)relay.bytes[UP]);
    return 0;
}
