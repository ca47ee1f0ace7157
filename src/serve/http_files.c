/*
 * The HTTP server: libmicrohttpd does HTTP, a pool of threads with epoll waits,
 * the kernel copies (sendfile). What is here: which file, which part, how long
 * it may be kept.
 */
#include "serve/http_files.h"

#include <microhttpd.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "format/request.h"
#include "serve/multipart.h"

#define THREADS_DEFAULT     8
#define CONNECTIONS_MAX     4096
#define CONNECTION_MEMORY   8192 /* bytes; headers beyond it are refused */
#define IDLE_TIMEOUT_S      60U
#define LISTEN_BACKLOG      512
#define IMMUTABLE           "public, max-age=31536000, immutable"
#define MULTIPART_UNIT      65536
#define ADDRESS_TEXT        300

struct http_server {
    struct MHD_Daemon *daemon;
    int root_fd;
    char url[ADDRESS_TEXT + 16];
    _Atomic uint64_t requests;
    _Atomic uint64_t bytes;
};

/* A file that was asked for. */
struct served {
    int fd;
    uint64_t size;
    int64_t time;
    char etag[48];
    char date[REQUEST_DATE_TEXT];
    const char *caching;
    const char *type;
    bool may_be_partial; /* a map in a cache: pages that are not there are holes */
};

static void cleanup_response(struct MHD_Response **response)
{
    if (*response)
        MHD_destroy_response(*response);
}

static bool has_suffix(const char *text, const char *suffix)
{
    size_t length = strlen(text), suffix_length = strlen(suffix);

    return length >= suffix_length && !strcmp(text + length - suffix_length, suffix);
}

static bool has_prefix(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

/* The part of a cache's path that is a path in an archive: behind "archives/KEY/". */
static const char *path_in_archive(const char *path)
{
    const char *slash = has_prefix(path, "archives/") ? strchr(path + strlen("archives/"), '/') : NULL;

    return slash ? slash + 1 : path;
}

/* Everything under a digest is immutable; only the catalog and the hints change. A cache's maps fill up. */
static void classify(const char *path, struct served *served)
{
    const char *inner = path_in_archive(path);
    bool map = has_prefix(inner, "maps/");
    bool manifest = has_prefix(inner, "images/") && !has_suffix(inner, ".hints.json");

    served->may_be_partial = map;
    served->caching = "no-cache";
    if (has_prefix(inner, "blocks/") || has_prefix(inner, "packs/") || has_prefix(inner, "files/") || manifest ||
        (map && inner == path))
        served->caching = IMMUTABLE;
    served->type = "application/octet-stream";
    if (has_suffix(inner, ".json"))
        served->type = "application/json";
    else if (has_suffix(inner, ".minisig"))
        served->type = "text/plain; charset=utf-8";
}

/* HTTP's status for what open(2) said. Names that cannot exist here are as good as names that do not. */
static unsigned status_of(int cause)
{
    switch (cause) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case EXDEV:
    case ENAMETOOLONG:
    case ENXIO:
        return MHD_HTTP_NOT_FOUND;
    case EACCES:
    case EPERM:
        return MHD_HTTP_FORBIDDEN;
    default:
        return MHD_HTTP_SERVICE_UNAVAILABLE;
    }
}

/* Returns 0 or an HTTP status. */
static unsigned open_file(const struct http_server *server, const char *path, struct served *served)
{
    struct stat stat;

    /* O_NONBLOCK: a FIFO that somebody put there must not hold the thread. */
    served->fd = file_open_beneath(server->root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, NULL);
    if (served->fd < 0 || fstat(served->fd, &stat))
        return status_of(errno);
    if (!S_ISREG(stat.st_mode))
        return MHD_HTTP_NOT_FOUND;
    served->size = (uint64_t)stat.st_size;
    served->time = stat.st_mtim.tv_sec;
    snprintf(served->etag, sizeof(served->etag), "\"%llx-%llx.%lx\"", (unsigned long long)served->size,
             (unsigned long long)served->time, (unsigned long)stat.st_mtim.tv_nsec);
    request_date_format(served->time, served->date);
    classify(path, served);
    return 0;
}

static const char *header_of(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status, const char *text)
{
    cleanup(cleanup_response) struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);

    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
    MHD_add_response_header(response, "Cache-Control", "no-store");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, "Allow", "GET, HEAD");
    return MHD_queue_response(connection, status, response);
}

static void describe(struct MHD_Response *response, const struct served *served)
{
    MHD_add_response_header(response, "ETag", served->etag);
    MHD_add_response_header(response, "Last-Modified", served->date);
    MHD_add_response_header(response, "Cache-Control", served->caching);
    MHD_add_response_header(response, "Accept-Ranges", "bytes");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
}

static bool is_unchanged(struct MHD_Connection *connection, const struct served *served)
{
    const char *etags = header_of(connection, "If-None-Match");
    const char *since = header_of(connection, "If-Modified-Since");
    int64_t seconds;

    if (etags)
        return request_has_etag(etags, served->etag);
    return since && request_date_parse(since, &seconds) && served->time <= seconds;
}

static enum MHD_Result answer_unsatisfiable(struct MHD_Connection *connection, const struct served *served)
{
    cleanup(cleanup_response) struct MHD_Response *response =
        MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    char range[64];

    if (!response)
        return MHD_NO;
    describe(response, served);
    snprintf(range, sizeof(range), "bytes */%llu", (unsigned long long)served->size);
    MHD_add_response_header(response, "Content-Range", range);
    return MHD_queue_response(connection, MHD_HTTP_RANGE_NOT_SATISFIABLE, response);
}

/* The ranges to send: 1 and the whole file if none is asked for. 0: none of them exists. */
static int wanted_ranges(struct MHD_Connection *connection, const struct served *served,
                         struct request_range *ranges, bool *whole_out)
{
    const char *header = header_of(connection, "Range"), *condition = header_of(connection, "If-Range");
    int count = -1;

    if (header && (!condition || !strcmp(condition, served->etag) || !strcmp(condition, served->date)))
        count = request_ranges(header, served->size, ranges);
    *whole_out = count < 0;
    if (count >= 0)
        return count;
    ranges[0] = (struct request_range){0, served->size};
    return 1;
}

/* A map in a cache holds only the pages that were fetched. The others are holes, and not this server's to give. */
static bool has_hole(const struct served *served, const struct request_range *range)
{
    off_t hole = lseek(served->fd, (off_t)range->offset, SEEK_HOLE);

    return hole >= 0 && (uint64_t)hole < range->offset + range->length;
}

static struct MHD_Response *make_multipart(struct served *served, const struct request_range *ranges, int count)
{
    struct multipart *multipart =
        multipart_create(steal_fd(&served->fd), served->size, served->type, ranges, (unsigned)count);
    struct MHD_Response *response;
    char type[100];

    if (!multipart)
        return NULL;
    response = MHD_create_response_from_callback(multipart_size(multipart), MULTIPART_UNIT, multipart_read,
                                                 multipart, multipart_destroy);
    if (!response) {
        multipart_destroy(multipart);
        return NULL;
    }
    snprintf(type, sizeof(type), "multipart/byteranges; boundary=%s", multipart_boundary(multipart));
    MHD_add_response_header(response, "Content-Type", type);
    return response;
}

/* Takes SERVED's descriptor over. NULL: no memory. */
static struct MHD_Response *make_body(struct served *served, const struct request_range *ranges, int count)
{
    struct MHD_Response *response;

    if (count > 1)
        return make_multipart(served, ranges, count);
    if (ranges[0].length == 0)
        response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    else
        response = MHD_create_response_from_fd_at_offset64(ranges[0].length, served->fd, ranges[0].offset);
    if (response && ranges[0].length)
        steal_fd(&served->fd);
    if (response)
        MHD_add_response_header(response, "Content-Type", served->type);
    return response;
}

static void describe_range(struct MHD_Response *response, const struct served *served,
                           const struct request_range *range)
{
    char text[100];

    snprintf(text, sizeof(text), "bytes %llu-%llu/%llu", (unsigned long long)range->offset,
             (unsigned long long)(range->offset + range->length - 1), (unsigned long long)served->size);
    MHD_add_response_header(response, "Content-Range", text);
}

/*
 * The header of the whole file, and nothing behind it. A length of none in it would be taken for the file's: squid keeps
 * that with what it has, and gives everybody an empty file from then on.
 */
static enum MHD_Result answer_unchanged(struct MHD_Connection *connection, struct served *served)
{
    const struct request_range whole = {0, served->size};
    cleanup(cleanup_response) struct MHD_Response *response = make_body(served, &whole, 1);

    if (!response)
        return MHD_NO;
    describe(response, served);
    return MHD_queue_response(connection, MHD_HTTP_NOT_MODIFIED, response);
}

static enum MHD_Result answer_file(struct http_server *server, struct MHD_Connection *connection,
                                   struct served *served, bool head)
{
    cleanup(cleanup_response) struct MHD_Response *response = NULL;
    struct request_range ranges[REQUEST_RANGES_MAX];
    bool whole = true;
    int count = 1;

    ranges[0] = (struct request_range){0, served->size};
    if (is_unchanged(connection, served))
        return answer_unchanged(connection, served);
    if (!head)
        count = wanted_ranges(connection, served, ranges, &whole);
    if (count == 0)
        return answer_unsatisfiable(connection, served);
    for (int i = 0; i < count; i++) {
        if (served->may_be_partial && has_hole(served, &ranges[i]))
            return answer_text(connection, MHD_HTTP_NOT_FOUND, "this part of the map is not cached here\n");
        if (!head)
            atomic_fetch_add(&server->bytes, ranges[i].length);
    }
    response = make_body(served, ranges, count);
    if (!response)
        return MHD_NO;
    if (!whole && count == 1)
        describe_range(response, served, ranges);
    describe(response, served);
    return MHD_queue_response(connection, whole ? MHD_HTTP_OK : MHD_HTTP_PARTIAL_CONTENT, response);
}

/* Returns 0 or an HTTP status. */
static unsigned find_file(const struct http_server *server, const char *target, struct served *served)
{
    char path[REQUEST_PATH_MAX];
    int code = request_path(target, path, NULL);

    if (code)
        return code == ERROR_NOT_FOUND ? MHD_HTTP_NOT_FOUND : MHD_HTTP_BAD_REQUEST;
    return open_file(server, path, served);
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *target,
                                  const char *method, const char *version, const char *body, size_t *body_size,
                                  void **state)
{
    static int headers_seen;
    struct http_server *server = user;
    bool head = !strcmp(method, "HEAD");
    struct served served = {.fd = -1};
    enum MHD_Result result;
    unsigned status;

    (void)version;
    (void)body;
    if (!*state) { /* the first of two or more calls: there may be a body to come, which is dropped */
        *state = &headers_seen;
        return MHD_YES;
    }
    if (*body_size) {
        *body_size = 0;
        return MHD_YES;
    }
    atomic_fetch_add(&server->requests, 1);
    if (!head && strcmp(method, "GET"))
        return answer_text(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    status = find_file(server, target, &served);
    if (status) {
        log_debug("%s: %u", target, status);
        result = answer_text(connection, status, status == MHD_HTTP_NOT_FOUND ? "not found\n" : "refused\n");
    } else {
        result = answer_file(server, connection, &served, head);
    }
    if (served.fd >= 0)
        close(served.fd);
    return result;
}

/* --- listening --- */

/* libmicrohttpd would decode the target in place, and cut it at an encoded NUL. */
static size_t keep_escapes(void *user, struct MHD_Connection *connection, char *text)
{
    (void)user;
    (void)connection;
    return strlen(text);
}

__attribute__((format(printf, 2, 0))) static void on_log(void *user, const char *format, va_list arguments)
{
    char line[500];

    (void)user;
    vsnprintf(line, sizeof(line), format, arguments);
    line[strcspn(line, "\n")] = '\0';
    log_debug("libmicrohttpd: %s", line);
}

/* Split "ADDRESS:PORT", "[ADDRESS]:PORT", ":PORT" or "PORT". */
static int split_address(const char *text, char *host, const char **port_out, struct error *error)
{
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;
    char *end;
    unsigned long port;

    *port_out = colon ? colon + 1 : text;
    port = strtoul(*port_out, &end, 10);
    if (**port_out < '0' || **port_out > '9' || *end || port > 65535)
        return error_set(error, ERROR_INVALID, "'%s' has no port number: ADDRESS:PORT or :PORT is wanted", text);
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
        text++;
        length -= 2;
    } else if (memchr(text, ':', length)) {
        return error_set(error, ERROR_INVALID, "'%s': an IPv6 address is written in brackets, [ADDRESS]:PORT", text);
    }
    if (length >= ADDRESS_TEXT)
        return error_set(error, ERROR_INVALID, "the address to listen on is too long");
    memcpy(host, text, length);
    host[length] = '\0';
    return 0;
}

static int bind_one(const struct addrinfo *address)
{
    auto_close int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1, off = 0;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, address->ai_addr, address->ai_addrlen) || listen(fd, LISTEN_BACKLOG))
        return -1;
    return steal_fd(&fd);
}

static int bind_error(const char *text, int cause, struct error *error)
{
    if (cause == EADDRINUSE)
        return error_set(error, ERROR_BUSY, "cannot listen on %s: another program does already", text);
    if (cause == EACCES)
        return error_set(error, ERROR_SYSTEM, "cannot listen on %s: ports below 1024 are for root", text);
    return error_set_errno(error, cause, "cannot listen on %s", text);
}

static int open_socket(const char *text, struct error *error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    char host[ADDRESS_TEXT];
    const char *port;
    int fd = -1, cause = 0, result = split_address(text, host, &port, error);

    if (result)
        return result;
    result = getaddrinfo(*host ? host : NULL, port, &hints, &found);
    if (result)
        return error_set(error, ERROR_INVALID, "cannot listen on %s: %s", text, gai_strerror(result));
    /* IPv6 first: without an address its socket takes IPv4 as well. */
    for (int family = 0; family < 2 && fd < 0; family++)
        for (const struct addrinfo *address = found; address && fd < 0; address = address->ai_next)
            if (address->ai_family == (family ? AF_INET : AF_INET6)) {
                fd = bind_one(address);
                if (fd < 0 && cause != EADDRINUSE)
                    cause = errno;
            }
    freeaddrinfo(found);
    return fd >= 0 ? fd : bind_error(text, cause, error);
}

static void make_url(int fd, char *url, size_t size)
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof(address);
    const struct sockaddr_in6 *v6 = (const void *)&address;
    const struct sockaddr_in *v4 = (const void *)&address;
    char host[ADDRESS_TEXT] = "", port[8] = "";
    bool any;

    getsockname(fd, (struct sockaddr *)&address, &length);
    getnameinfo((struct sockaddr *)&address, length, host, sizeof(host), port, sizeof(port),
                NI_NUMERICHOST | NI_NUMERICSERV);
    any = address.ss_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr)
                                        : v4->sin_addr.s_addr == htonl(INADDR_ANY);
    if (any && gethostname(host, sizeof(host) - 1))
        strcpy(host, "localhost");
    snprintf(url, size, strchr(host, ':') ? "http://[%s]:%s" : "http://%s:%s", host, port);
}

static unsigned connection_limit(const struct http_server_settings *settings)
{
    struct rlimit limit;

    if (settings->connection_limit)
        return settings->connection_limit;
    /* Each may have a file open besides its socket. */
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur < 128)
        return 32;
    return (unsigned)min_u64((limit.rlim_cur - 64) / 2, CONNECTIONS_MAX);
}

static int start_daemon(struct http_server *server, const struct http_server_settings *settings, int socket_fd,
                        struct error *error)
{
    unsigned threads = settings->thread_count ? settings->thread_count : THREADS_DEFAULT;

    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, server,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, socket_fd, MHD_OPTION_UNESCAPE_CALLBACK,
        keep_escapes, NULL, MHD_OPTION_THREAD_POOL_SIZE, threads, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)max_u64(connection_limit(settings), threads), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S, MHD_OPTION_END);
    return server->daemon ? 0 : error_set(error, ERROR_SYSTEM, "cannot start the HTTP server");
}

int http_server_open(const struct http_server_settings *settings, struct http_server **server_out,
                     struct error *error)
{
    struct http_server *server = calloc(1, sizeof(*server));
    int result, socket_fd = -1;

    if (!server)
        return error_set(error, ERROR_SYSTEM, "no memory for the HTTP server");
    result = server->root_fd = file_open_folder(settings->folder, false, error);
    if (result >= 0)
        result = socket_fd = open_socket(settings->listen, error);
    if (result >= 0) {
        make_url(socket_fd, server->url, sizeof(server->url));
        result = start_daemon(server, settings, socket_fd, error);
        if (result)
            close(socket_fd);
    }
    if (result < 0) {
        http_server_close(server);
        return result;
    }
    *server_out = server;
    return 0;
}

const char *http_server_url(const struct http_server *server)
{
    return server->url;
}

void http_server_count(const struct http_server *server, uint64_t *requests_out, uint64_t *bytes_out)
{
    *requests_out = atomic_load(&server->requests);
    *bytes_out = atomic_load(&server->bytes);
}

void http_server_close(struct http_server *server)
{
    if (!server)
        return;
    if (server->daemon)
        MHD_stop_daemon(server->daemon);
    if (server->root_fd >= 0)
        close(server->root_fd);
    free(server);
}
