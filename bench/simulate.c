/*
 * A crowd of clients that boot at once: each makes the same requests as one recorded real boot, over as many
 * connections, each request as soon as those are answered that were answered before it in the recording.
 *
 *     simulate PORT SCRIPT CLIENTS SPREAD-MS PATIENCE-S
 *
 * SCRIPT has a line for each request: "CONNECTION AFTER RANK STATUS BYTES RANGE URI", in the order of their beginning.
 * CONNECTION counts from 0; AFTER is how many requests, in the order of their ends, must be answered before this one
 * is asked; RANK is its place in that order; BYTES is the body's size; RANGE "FIRST-LAST" or "-". Clients begin evenly
 * over SPREAD-MS. Prints for each client "SECONDS BYTES ERRORS"; a client that is not done PATIENCE-S after the
 * beginning of the last one is an error. The bodies are counted, not kept.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REQUESTS_MAX 4096
#define CONNECTIONS_MAX 1024
#define HEADER_MAX 4096
#define REOPEN_MAX 3
#define RECEIVE (256 * 1024)

struct request {
    unsigned connection, after, rank, status;
    uint64_t bytes;
    char range[64], uri[512];
};

struct client;

/* One keep-alive connection of a client: at most one request at a time, as in the recording. */
struct connection {
    struct client *client;
    int fd;
    unsigned next;     /* index of the request that is asked or will be asked; request_count: none left */
    bool asked;
    bool in_body;
    unsigned reopened;
    size_t head_size; /* received of the answer; 0 also between answers */
    uint64_t body_left;
    char head[HEADER_MAX];
};

struct client {
    struct connection *connections;
    bool *done;           /* by rank */
    unsigned done_prefix; /* ranks below this one are all done */
    unsigned left;
    uint64_t start_ns, end_ns, bytes;
    unsigned errors;
};

static struct {
    struct request requests[REQUESTS_MAX];
    unsigned request_count, connection_count, client_count, running;
    struct client *clients;
    struct sockaddr_in address;
    int epoll;
} crowd;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "simulate: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (!memory)
        fail("memory");
    return memory;
}

static void read_script(const char *path)
{
    FILE *file = fopen(path, "re");
    struct request *r = crowd.requests;
    unsigned long long bytes;

    if (!file)
        fail(path);
    while (crowd.request_count < REQUESTS_MAX && fscanf(file, "%u %u %u %u %llu %63s %511s", &r->connection, &r->after,
                                                        &r->rank, &r->status, &bytes, r->range, r->uri) == 7) {
        r->bytes = bytes;
        if (r->connection >= CONNECTIONS_MAX || r->rank >= REQUESTS_MAX) {
            errno = EINVAL;
            fail(path);
        }
        if (r->connection >= crowd.connection_count)
            crowd.connection_count = r->connection + 1;
        crowd.request_count++;
        r++;
    }
    fclose(file);
    for (unsigned i = 0; i < crowd.request_count; i++)
        if (crowd.requests[i].rank >= crowd.request_count || crowd.requests[i].after >= crowd.request_count) {
            errno = EINVAL;
            fail(path);
        }
}

/* The first request of CONNECTION from FROM on. */
static unsigned next_request(unsigned connection, unsigned from)
{
    while (from < crowd.request_count && crowd.requests[from].connection != connection)
        from++;
    return from;
}

static void connection_open(struct connection *connection)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    int one = 1;

    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&crowd.address, sizeof(crowd.address)))
        fail("connect");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (epoll_ctl(crowd.epoll, EPOLL_CTL_ADD, connection->fd, &event))
        fail("epoll");
}

static void client_end(struct client *client)
{
    client->end_ns = now_ns();
    crowd.running--;
    for (unsigned i = 0; i < crowd.connection_count; i++)
        if (client->connections[i].fd >= 0) {
            close(client->connections[i].fd);
            client->connections[i].fd = -1;
        }
}

static void client_fail(struct client *client, const char *why)
{
    if (!client->errors)
        fprintf(stderr, "simulate: client %td: %s\n", client - crowd.clients, why);
    client->errors++;
    client_end(client);
}

static void ask(struct connection *connection)
{
    const struct request *request = &crowd.requests[connection->next];
    char text[1024], range[96] = "";
    int size;

    if (connection->fd < 0)
        connection_open(connection);
    if (strcmp(request->range, "-"))
        snprintf(range, sizeof(range), "Range: bytes=%s\r\n", request->range);
    size = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n", request->uri, range);
    connection->asked = true;
    connection->in_body = false;
    connection->head_size = 0;
    if (send(connection->fd, text, (size_t)size, MSG_NOSIGNAL) != size)
        client_fail(connection->client, "a request could not be sent");
}

/* Ask what may be asked now. */
static void client_go_on(struct client *client)
{
    for (unsigned i = 0; i < crowd.connection_count && !client->end_ns; i++) {
        struct connection *connection = &client->connections[i];

        if (!connection->asked && connection->next < crowd.request_count &&
            crowd.requests[connection->next].after <= client->done_prefix)
            ask(connection);
    }
}

static void request_done(struct connection *connection)
{
    struct client *client = connection->client;

    client->done[crowd.requests[connection->next].rank] = true;
    while (client->done_prefix < crowd.request_count && client->done[client->done_prefix])
        client->done_prefix++;
    connection->asked = false;
    connection->head_size = 0;
    connection->next = next_request((unsigned)(connection - client->connections), connection->next + 1);
    /* An idle connection changes nothing, but the relay needs two descriptors for each. */
    if (connection->next == crowd.request_count) {
        close(connection->fd);
        connection->fd = -1;
    }
    if (--client->left == 0)
        client_end(client);
    else
        client_go_on(client);
}

/* The head is complete. False if it is not as recorded. */
static bool parse_head(struct connection *connection)
{
    const struct request *request = &crowd.requests[connection->next];
    const char *length = strcasestr(connection->head, "\r\nContent-Length:");
    unsigned status = 0;

    if (sscanf(connection->head, "HTTP/1.1 %u", &status) != 1 || status != request->status || !length)
        return false;
    connection->body_left = strtoull(length + strlen("\r\nContent-Length:"), NULL, 10);
    return status >= 400 || connection->body_left == request->bytes;
}

/* Take SIZE bytes that have arrived. False if they are not what was asked for. */
static bool take(struct connection *connection, const char *bytes, size_t size)
{
    if (!connection->in_body) {
        size_t room = HEADER_MAX - 1 - connection->head_size, before = connection->head_size;
        char *end;

        memcpy(connection->head + before, bytes, size < room ? size : room);
        connection->head_size += size < room ? size : room;
        connection->head[connection->head_size] = '\0';
        end = strstr(connection->head, "\r\n\r\n");
        if (!end)
            return connection->head_size < HEADER_MAX - 1;
        if (!parse_head(connection))
            return false;
        connection->in_body = true;
        bytes += (size_t)(end + 4 - connection->head) - before;
        size -= (size_t)(end + 4 - connection->head) - before;
    }
    if (size > connection->body_left)
        return false;
    connection->body_left -= size;
    connection->client->bytes += size;
    if (!connection->body_left)
        request_done(connection);
    return true;
}

/* The server has closed a connection that was idle, as it may. */
static void reopen(struct connection *connection)
{
    close(connection->fd);
    connection->fd = -1;
    connection->reopened++;
    if (connection->asked)
        ask(connection);
}

static void receive(struct connection *connection)
{
    static char bytes[RECEIVE];
    ssize_t got;

    if (connection->fd < 0)
        return;
    got = recv(connection->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0 && connection->head_size == 0 && connection->reopened < REOPEN_MAX)
        reopen(connection);
    else if (got <= 0 || !connection->asked)
        client_fail(connection->client, got < 0 ? strerror(errno) : "a connection was closed early");
    else if (!take(connection, bytes, (size_t)got))
        client_fail(connection->client, "an answer is not as recorded");
}

static void client_start(struct client *client)
{
    client->connections = allocate(crowd.connection_count, sizeof(*client->connections));
    client->done = allocate(crowd.request_count, sizeof(*client->done));
    client->left = crowd.request_count;
    client->start_ns = now_ns();
    for (unsigned i = 0; i < crowd.connection_count; i++) {
        client->connections[i].client = client;
        client->connections[i].fd = -1;
        client->connections[i].next = next_request(i, 0);
    }
    client_go_on(client);
}

static void run(uint64_t spread_ns, uint64_t patience_ns)
{
    struct epoll_event events[512];
    uint64_t begin = now_ns();
    unsigned started = 0;

    crowd.running = crowd.client_count;
    while (crowd.running) {
        uint64_t now = now_ns();
        int count;

        while (started < crowd.client_count && begin + spread_ns / crowd.client_count * started <= now)
            client_start(&crowd.clients[started++]);
        if (now > begin + spread_ns + patience_ns)
            return;
        count = epoll_wait(crowd.epoll, events, 512, started < crowd.client_count ? 1 : 100);
        for (int i = 0; i < count; i++)
            receive(events[i].data.ptr);
    }
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
    if (argc != 6 || atoi(argv[3]) <= 0) {
        fprintf(stderr, "usage: simulate PORT SCRIPT CLIENTS SPREAD-MS PATIENCE-S\n");
        return 2;
    }
    allow_many_files();
    read_script(argv[2]);
    crowd.address = (struct sockaddr_in){.sin_family = AF_INET,
                                         .sin_port = htons((uint16_t)atoi(argv[1])),
                                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    crowd.client_count = (unsigned)atoi(argv[3]);
    crowd.clients = allocate(crowd.client_count, sizeof(*crowd.clients));
    crowd.epoll = epoll_create1(EPOLL_CLOEXEC);
    run((uint64_t)atoi(argv[4]) * 1000000u, (uint64_t)atoi(argv[5]) * 1000000000u);
    for (unsigned i = 0; i < crowd.client_count; i++) {
        struct client *client = &crowd.clients[i];

        printf("%.6f %llu %u\n", client->end_ns ? (double)(client->end_ns - client->start_ns) / 1e9 : 0.0,
               (unsigned long long)client->bytes, client->errors + (client->end_ns ? 0 : 1));
    }
    return 0;
}
