/* Sources: opening one from a URL or a folder's name, and reading from either kind. */
#include "store/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "format/name.h"
#include "net/http.h"
#include "net/url.h"

#define STREAM_PIECE (256 * KIB) /* that a folder gives to a data callback at a time */

struct source {
    struct http_client *client; /* NULL: a folder */
    char *name;                 /* for people */
    char *location;             /* URL without query, or absolute path; no slash at the end */
    char *query;                /* "?..." of the URL, or "" */
};

/* ---- Opening ---- */

static char *without_slashes(char *text)
{
    size_t length = text ? strlen(text) : 0;

    while (length > 1 && text[length - 1] == '/')
        text[--length] = '\0';
    return text;
}

static int open_http(struct source *source, const char *url, struct error *error)
{
    size_t length = strcspn(url, "?#"), query_length = url[length] == '?' ? strcspn(url + length, "#") : 0;
    char host[URL_HOST_SIZE], text[1024];

    url_redact(url, text, sizeof(text));
    if (!url_host(url, host, sizeof(host)))
        return error_set(error, ERROR_INVALID, "%s is not a valid URL", text);
    if (!source->client)
        return error_set(error, ERROR_INVALID, "%s: only folders can be used here", text);
    source->location = without_slashes(strndup(url, length));
    source->query = strndup(url + length, query_length);
    source->name = without_slashes(strdup(text));
    return 0;
}

/* The path of a file URL: "file:///a%20b" is "/a b". On the heap. */
static int file_url_path(const char *url, char **path_out, struct error *error)
{
    const char *path = url + strlen("file://");

    if (!strncasecmp(path, "localhost/", 10))
        path += 9;
    if (*path != '/')
        return error_set(error, ERROR_INVALID, "%s: a file URL has three slashes and an absolute path", url);
    *path_out = malloc(strlen(path) + 1);
    if (!*path_out)
        return error_set(error, ERROR_SYSTEM, "no memory to open %s", url);
    if (!url_decode(path, *path_out))
        return error_set(error, ERROR_INVALID, "%s is not a valid URL", url);
    return 0;
}

/* Absolute, because a daemon changes its folder. */
static int open_folder(struct source *source, const char *folder, struct error *error)
{
    auto_free char *here = folder[0] == '/' ? NULL : getcwd(NULL, 0);

    if (folder[0] == '/')
        source->location = strdup(folder);
    else if (here)
        source->location = path_join(here, folder);
    else
        return error_set_errno(error, errno, "cannot tell where the folder %s is", folder);
    without_slashes(source->location);
    source->query = strdup("");
    source->name = source->location ? strdup(source->location) : NULL;
    source->client = NULL;
    return 0;
}

static int open_by_scheme(struct source *source, const char *archive, struct error *error)
{
    auto_free char *path = NULL;
    int result;

    if (!strncasecmp(archive, "http://", 7) || !strncasecmp(archive, "https://", 8))
        return open_http(source, archive, error);
    if (!strncasecmp(archive, "file://", 7)) {
        result = file_url_path(archive, &path, error);
        return result ? result : open_folder(source, path, error);
    }
    if (strstr(archive, "://"))
        return error_set(error, ERROR_INVALID, "%s: only http, https and file URLs and folders are archives",
                         archive);
    if (!*archive)
        return error_set(error, ERROR_INVALID, "an archive's name is empty");
    return open_folder(source, archive, error);
}

int source_open(const char *archive, struct http_client *client, struct source **source_out, struct error *error)
{
    struct source *source = calloc(1, sizeof(*source));
    int result;

    if (!source)
        return error_set(error, ERROR_SYSTEM, "no memory to open %s", archive);
    source->client = client;
    result = open_by_scheme(source, archive, error);
    if (!result && (!source->location || !source->query || !source->name))
        result = error_set(error, ERROR_SYSTEM, "no memory to open an archive");
    if (result) {
        source_close(source);
        return result;
    }
    *source_out = source;
    return 0;
}

void source_close(struct source *source)
{
    if (!source)
        return;
    free(source->name);
    free(source->location);
    free(source->query);
    free(source);
}

const char *source_name(const struct source *source)
{
    return source->name;
}

bool source_is_local(const struct source *source)
{
    return !source->client;
}

/* ---- Reading ---- */

/* End REQUEST with an error whose message is "NAME/PATH: REASON". */
static void fail(const struct source *source, const struct source_request *request, int code, const char *reason)
{
    struct error error;
    struct source_result result = {.code = code, .error = &error, .reason = reason};

    error_set(&error, code, "%s/%s: %s", source->name, request->path, reason);
    request->done(request->user, &result);
}

bool source_path_is_plain(const char *path)
{
    if (*path == '/' || *path == '\0')
        return false;
    for (const char *part = path; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL) {
        size_t length = strcspn(part, "/");

        if (length == 0 || (part[0] == '.' && (length == 1 || (length == 2 && part[1] == '.'))))
            return false;
    }
    for (const char *at = path; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            return false;
    return true;
}

/* What is waiting for an answer of the HTTP client. */
struct pending {
    bool (*data)(void *user, const uint8_t *bytes, size_t size);
    bool (*ready)(void *user);
    void (*done)(void *user, const struct source_result *result);
    void *user;
};

static void on_response(void *user, const struct http_response *response)
{
    struct pending pending = *(struct pending *)user;
    struct source_result result = {
        .code = response->code,
        .error = &response->error,
        .reason = response->reason,
        .bytes = response->bytes,
        .size = response->size,
        .body = response->body,
        .retry_after_ms = response->retry_after_ms,
        .first_byte_us = response->first_byte_us,
    };

    free(user);
    pending.done(pending.user, &result);
}

static bool on_data(void *user, const uint8_t *bytes, size_t size)
{
    struct pending *pending = user;

    return pending->data(pending->user, bytes, size);
}

static bool on_ready(void *user)
{
    struct pending *pending = user;

    return pending->ready(pending->user);
}

static void fetch_http(struct source *source, const struct source_request *request)
{
    size_t size = strlen(source->location) + 1 + 3 * strlen(request->path) + strlen(source->query) + 1;
    size_t base = strlen(source->location) + 1;
    auto_free char *url = malloc(size);
    struct pending *pending = malloc(sizeof(*pending));

    if (!url || !pending) {
        free(pending);
        fail(source, request, ERROR_SYSTEM, "no memory for the request");
        return;
    }
    snprintf(url, size, "%s/", source->location);
    url_encode_path(request->path, url + base);
    strcat(url + base, source->query);
    *pending = (struct pending){request->data, request->ready, request->done, request->user};
    http_fetch(source->client, &(struct http_request){
        .url = url,
        .offset = request->offset,
        .length = request->length,
        .size_limit = request->size_limit,
        .priority = request->priority,
        .fresh = request->fresh,
        .range_only = request->range_only,
        .reconnect = request->reconnect,
        .shared = request->shared,
        .more_soon = request->more_soon,
        .tag = request->tag,
        .stall_timeout_ms = request->stall_timeout_ms,
        .owner = source,
        .data = request->data ? on_data : NULL,
        .ready = request->ready ? on_ready : NULL,
        .done = on_response,
        .user = pending,
    });
}

static int code_of_open(int errno_value)
{
    switch (errno_value) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
        return ERROR_NOT_FOUND;
    case EACCES:
    case EPERM:
    case ELOOP:
    case EXDEV: /* leads out of the folder */
        return ERROR_INVALID;
    default:
        return ERROR_UNAVAILABLE;
    }
}

/*
 * Is there any archive in the folder? One that is not mounted has left its mount point behind. A mirror need not have a
 * catalog of its own.
 */
static bool holds_archive(int root)
{
    return !faccessat(root, ARCHIVE_CATALOG, F_OK, 0) || !faccessat(root, "blocks", F_OK, 0);
}

/* The file at PATH; returns a descriptor, or an error code and why. */
static int open_file(const struct source *source, const char *path, const char **reason_out)
{
    auto_close int root = open(source->location, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct stat status;
    int fd, cause;

    if (root < 0) {
        *reason_out = errno == ENOENT ? "the folder does not exist" : strerror(errno);
        return ERROR_UNAVAILABLE;
    }
    /* Not blocking: a FIFO must not hang us. */
    errno = 0;
    fd = file_open_beneath(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, NULL);
    cause = errno;
    if (fd < 0 && cause == ENOENT && !holds_archive(root)) {
        *reason_out = "there is no archive in the folder";
        return ERROR_UNAVAILABLE;
    }
    if (fd < 0) {
        *reason_out = cause == EXDEV ? "a link leads out of the archive" : strerror(cause);
        return code_of_open(cause);
    }
    if (fstat(fd, &status) || !S_ISREG(status.st_mode)) {
        *reason_out = "not a regular file";
        close(fd);
        return ERROR_NOT_FOUND;
    }
    return fd;
}

static int read_file(int fd, const struct source_request *request, struct buffer *bytes, const char **reason_out)
{
    struct error error;
    struct stat status;
    uint64_t size;
    ssize_t got;

    if (fstat(fd, &status)) {
        *reason_out = strerror(errno);
        return ERROR_UNAVAILABLE;
    }
    size = (uint64_t)status.st_size - min_u64((uint64_t)status.st_size, request->offset);
    if (request->length)
        size = min_u64(size, request->length);
    if (size == 0)
        return 0;
    if (request->size_limit && size > request->size_limit) {
        *reason_out = "longer than expected";
        return ERROR_CORRUPT;
    }
    if (!buffer_reserve(bytes, size)) {
        *reason_out = "no memory";
        return ERROR_SYSTEM;
    }
    got = file_pread_full(fd, bytes->bytes, size, request->offset, &error);
    if (got < 0) {
        *reason_out = "cannot be read";
        return ERROR_UNAVAILABLE;
    }
    bytes->size = (size_t)got;
    return 0;
}

/* Give the file's bytes to the caller piece by piece. */
static int stream_file(int fd, const struct source_request *request, struct buffer *bytes, const char **reason_out)
{
    struct source_request piece = *request;
    int code;

    if (request->length && request->size_limit && request->length > request->size_limit) {
        *reason_out = "longer than expected";
        return ERROR_CORRUPT;
    }
    do {
        uint64_t done = piece.offset - request->offset;

        piece.length = request->length ? min_u64(STREAM_PIECE, request->length - done) : STREAM_PIECE;
        bytes->size = 0;
        code = read_file(fd, &piece, bytes, reason_out);
        piece.offset += bytes->size;
        if (!code && request->size_limit && piece.offset - request->offset > request->size_limit) {
            *reason_out = "longer than expected";
            code = ERROR_CORRUPT;
        }
        if (!code && bytes->size && !request->data(request->user, bytes->bytes, bytes->size)) {
            *reason_out = "broken off";
            code = ERROR_CANCELLED;
        }
    } while (!code && bytes->size && (!request->length || piece.offset - request->offset < request->length));
    return code;
}

static void fetch_folder(struct source *source, const struct source_request *request)
{
    struct source_result result = {.reason = ""};
    struct buffer bytes = {0};
    const char *reason = "";
    auto_close int fd = open_file(source, request->path, &reason);
    int code = fd;

    if (fd >= 0)
        code = request->data ? stream_file(fd, request, &bytes, &reason) : read_file(fd, request, &bytes, &reason);
    if (code) {
        fail(source, request, code, reason);
    } else if (request->data) {
        request->done(request->user, &result);
    } else {
        result.bytes = bytes.bytes;
        result.size = bytes.size;
        result.body = &bytes;
        request->done(request->user, &result);
    }
    buffer_finish(&bytes);
}

void source_fetch(struct source *source, const struct source_request *request)
{
    if (!source_path_is_plain(request->path))
        fail(source, request, ERROR_INVALID, "not a path inside an archive");
    else if (source->client)
        fetch_http(source, request);
    else
        fetch_folder(source, request);
}

void source_cancel(struct source *source)
{
    if (source->client)
        http_cancel(source->client, source);
}

void source_abandon(struct source *source, uint64_t tag)
{
    if (source->client)
        http_abandon(source->client, source, tag);
}
