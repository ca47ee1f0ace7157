/*
 * A TCP relay that behaves like a long link: for benches on hosts without netem.
 *
 * It models what decides the time of a boot over the network: round trip,
 * handshake, slow start (RFC 6928 initial window, doubling a round trip while the
 * window is the limit, restart after idling) and one bottleneck shared by all
 * connections with a queue of one bandwidth-delay product. When that queue is
 * full a connection leaves slow start and keeps its window, as an ideal sender
 * with HyStart would. There is no loss. The kernel's own TCP on loopback is fast
 * enough to be ignored.
 *
 *     relay LISTEN-PORT TARGET-PORT RTT-MS MBIT-PER-S
 *
 * Listens on 127.0.0.1, prints "ready", relays until SIGTERM, then prints the
 * connections and bytes that went through.
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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SEGMENT 1448
#define INITIAL_WINDOW (10 * SEGMENT)
#define CHUNK 65536
#define CONNECTIONS_MAX 4096
#define IDLE_NS 200000000u /* the least retransmission time-out of Linux, on top of the round trip */

/* Bytes on their way: due at the far end at DUE_NS. */
struct flight {
    struct flight *next;
    uint64_t due_ns;
    size_t size, sent;
    uint8_t bytes[];
};

struct flights {
    struct flight *head, **tail;
};

/* Acknowledgements on their way back to the sending side. */
struct ack {
    struct ack *next;
    uint64_t due_ns;
    size_t size;
};

struct connection {
    struct connection *next;
    int client, server;
    uint64_t open_ns; /* when the modelled handshake is over */
    struct flights up, down;
    struct ack *acks, **acks_tail;
    size_t window, in_flight;
    bool slow_start;
    bool limited; /* by the window, since the last acknowledgement */
    uint64_t last_sent_ns;
    bool client_closed, server_closed, client_shut, server_shut;
    bool client_blocked, server_blocked;
};

static struct {
    uint64_t rtt_ns;
    double ns_per_byte;
    uint64_t down_free_ns, up_free_ns; /* when the bottleneck is idle again */
    struct connection *connections;
    int epoll, listener;
    uint16_t target_port;
    uint64_t connection_count, bytes_down, bytes_up;
} relay;

static volatile sig_atomic_t stopping;

static void stop(int number)
{
    (void)number;
    stopping = 1;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void flights_add(struct flights *flights, const uint8_t *bytes, size_t size, uint64_t due_ns)
{
    struct flight *flight = malloc(sizeof(*flight) + size);

    if (!flight)
        abort();
    *flight = (struct flight){.due_ns = due_ns, .size = size};
    memcpy(flight->bytes, bytes, size);
    *flights->tail = flight;
    flights->tail = &flight->next;
}

static void flights_drop_head(struct flights *flights)
{
    struct flight *flight = flights->head;

    flights->head = flight->next;
    if (!flights->head)
        flights->tail = &flights->head;
    free(flight);
}

/* Write what is due. False if the peer is gone. */
static bool flights_deliver(struct flights *flights, int fd, uint64_t now, bool *blocked)
{
    *blocked = false;
    while (flights->head && flights->head->due_ns <= now) {
        struct flight *flight = flights->head;
        ssize_t put = send(fd, flight->bytes + flight->sent, flight->size - flight->sent, MSG_NOSIGNAL);

        if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            *blocked = true;
            return true;
        }
        if (put < 0)
            return false;
        flight->sent += (size_t)put;
        if (flight->sent == flight->size)
            flights_drop_head(flights);
    }
    return true;
}

/* Occupy the bottleneck for SIZE bytes; returns when the last of them has left it. */
static uint64_t bottleneck(uint64_t *free_ns, uint64_t now, size_t size)
{
    uint64_t start = *free_ns > now ? *free_ns : now;

    *free_ns = start + (uint64_t)((double)size * relay.ns_per_byte);
    return *free_ns;
}

static void drop_first_ack(struct connection *connection)
{
    struct ack *ack = connection->acks;

    connection->acks = ack->next;
    if (!connection->acks)
        connection->acks_tail = &connection->acks;
    free(ack);
}

static void take_acks(struct connection *connection, uint64_t now)
{
    while (connection->acks && connection->acks->due_ns <= now) {
        connection->in_flight -= connection->acks->size;
        if (connection->slow_start && connection->limited)
            connection->window += connection->acks->size;
        drop_first_ack(connection);
    }
}

static void send_down(struct connection *connection, const uint8_t *bytes, size_t size, uint64_t now)
{
    uint64_t left = bottleneck(&relay.down_free_ns, now, size);
    struct ack *ack = malloc(sizeof(*ack));

    if (!ack)
        abort();
    if (left - now > relay.rtt_ns) /* the queue holds more than a bandwidth-delay product */
        connection->slow_start = false;
    flights_add(&connection->down, bytes, size, left + relay.rtt_ns / 2);
    *ack = (struct ack){.due_ns = left + relay.rtt_ns, .size = size};
    *connection->acks_tail = ack;
    connection->acks_tail = &ack->next;
    connection->in_flight += size;
    connection->last_sent_ns = now;
    relay.bytes_down += size;
}

static bool would_block(ssize_t got)
{
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

/* Take from the server what the window allows. */
static void pump_down(struct connection *connection, uint64_t now)
{
    uint8_t bytes[CHUNK];

    take_acks(connection, now);
    if (!connection->in_flight && now - connection->last_sent_ns > relay.rtt_ns + IDLE_NS) {
        connection->window = INITIAL_WINDOW;
        connection->slow_start = true;
    }
    while (!connection->server_closed) {
        size_t room = connection->window - connection->in_flight;
        ssize_t got;

        connection->limited = connection->in_flight >= connection->window;
        if (connection->limited)
            break;
        got = recv(connection->server, bytes, room < CHUNK ? room : CHUNK, MSG_DONTWAIT);
        if (got > 0) {
            send_down(connection, bytes, (size_t)got, now);
            continue;
        }
        connection->server_closed = !would_block(got);
        break;
    }
}

static void pump_up(struct connection *connection, uint64_t now)
{
    uint8_t bytes[CHUNK];

    while (!connection->client_closed) {
        ssize_t got = recv(connection->client, bytes, sizeof(bytes), MSG_DONTWAIT);
        uint64_t from = now > connection->open_ns ? now : connection->open_ns;

        if (got > 0) {
            flights_add(&connection->up, bytes, (size_t)got,
                        bottleneck(&relay.up_free_ns, from, (size_t)got) + relay.rtt_ns / 2);
            relay.bytes_up += (uint64_t)got;
            continue;
        }
        connection->client_closed = !would_block(got);
        break;
    }
}

/* Returns false when the connection is over. */
static bool service(struct connection *connection, uint64_t now)
{
    pump_up(connection, now);
    pump_down(connection, now);
    if (!flights_deliver(&connection->up, connection->server, now, &connection->server_blocked) ||
        !flights_deliver(&connection->down, connection->client, now, &connection->client_blocked))
        return false;
    if (connection->client_closed && !connection->up.head && !connection->server_shut) {
        shutdown(connection->server, SHUT_WR);
        connection->server_shut = true;
    }
    if (connection->server_closed && !connection->down.head && !connection->client_shut) {
        shutdown(connection->client, SHUT_WR);
        connection->client_shut = true;
    }
    return !(connection->server_shut && connection->client_shut);
}

static void watch(int fd)
{
    /* Edge-triggered: what is left unread waits for the window, and is looked at again when it is due. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP};

    epoll_ctl(relay.epoll, EPOLL_CTL_ADD, fd, &event);
}

static int connect_target(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(relay.target_port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        close(fd);
        return -1;
    }
    return fd;
}

static void set_up_socket(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    watch(fd);
}

static struct connection *connection_create(int client, int server, uint64_t now)
{
    struct connection *connection = calloc(1, sizeof(*connection));

    if (!connection)
        abort();
    connection->client = client;
    connection->server = server;
    connection->open_ns = now + relay.rtt_ns;
    connection->up.tail = &connection->up.head;
    connection->down.tail = &connection->down.head;
    connection->acks_tail = &connection->acks;
    connection->window = INITIAL_WINDOW;
    connection->slow_start = true;
    connection->last_sent_ns = now;
    set_up_socket(client);
    set_up_socket(server);
    return connection;
}

static void accept_all(uint64_t now)
{
    int client;

    while ((client = accept4(relay.listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        int server = connect_target();
        struct connection *connection;

        if (server < 0) {
            close(client);
            continue;
        }
        connection = connection_create(client, server, now);
        connection->next = relay.connections;
        relay.connections = connection;
        relay.connection_count++;
    }
}

static void connection_destroy(struct connection *connection)
{
    close(connection->client);
    close(connection->server);
    while (connection->up.head)
        flights_drop_head(&connection->up);
    while (connection->down.head)
        flights_drop_head(&connection->down);
    while (connection->acks)
        drop_first_ack(connection);
    free(connection);
}

static uint64_t earliest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When something is due next; UINT64_MAX: nothing. */
static uint64_t next_due(void)
{
    uint64_t due = UINT64_MAX;

    for (struct connection *c = relay.connections; c; c = c->next) {
        if (c->up.head && !c->server_blocked)
            due = earliest(due, c->up.head->due_ns);
        if (c->down.head && !c->client_blocked)
            due = earliest(due, c->down.head->due_ns);
        if (c->acks)
            due = earliest(due, c->acks->due_ns);
    }
    return due;
}

static void wait_for_events(void)
{
    struct epoll_event events[64];
    uint64_t due = next_due(), now = now_ns();
    struct timespec pause = {0};

    if (due > now && due != UINT64_MAX) {
        pause.tv_sec = (time_t)((due - now) / 1000000000u);
        pause.tv_nsec = (long)((due - now) % 1000000000u);
    }
    /* The events themselves are of no interest: every connection is looked at after each wait. */
    epoll_pwait2(relay.epoll, events, 64, due == UINT64_MAX ? NULL : &pause, NULL);
}

static void service_all(void)
{
    uint64_t now = now_ns();

    accept_all(now);
    for (struct connection **at = &relay.connections; *at;) {
        struct connection *connection = *at;

        if (service(connection, now)) {
            at = &connection->next;
            continue;
        }
        *at = connection->next;
        connection_destroy(connection);
    }
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, CONNECTIONS_MAX)) {
        perror("relay: listen");
        exit(1);
    }
    watch(fd);
    return fd;
}

int main(int argc, char **argv)
{
    double mbit;

    if (argc != 5 || (mbit = atof(argv[4])) <= 0) {
        fprintf(stderr, "usage: relay LISTEN-PORT TARGET-PORT RTT-MS MBIT-PER-S\n");
        return 2;
    }
    relay.target_port = (uint16_t)atoi(argv[2]);
    relay.rtt_ns = (uint64_t)(atof(argv[3]) * 1e6);
    relay.ns_per_byte = 8000.0 / mbit;
    relay.epoll = epoll_create1(EPOLL_CLOEXEC);
    relay.listener = listen_on((uint16_t)atoi(argv[1]));
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    puts("ready");
    fflush(stdout);
    while (!stopping) {
        wait_for_events();
        service_all();
    }
    printf("connections %llu bytes-down %llu bytes-up %llu\n", (unsigned long long)relay.connection_count,
           (unsigned long long)relay.bytes_down, (unsigned long long)relay.bytes_up);
    while (relay.connections) {
        struct connection *connection = relay.connections;

        relay.connections = connection->next;
        connection_destroy(connection);
    }
    return 0;
}
