/* Plain files: opening and closing. See plain.h. */
#include "plain/plain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/condition.h"
#include "base/file.h"
#include "base/log.h"
#include "format/foreign.h"
#include "format/name.h"
#include "format/request.h"
#include "net/url.h"
#include "plain/plain_parts.h"

/* ---- Local files ---- */

static int open_local(struct plain *plain, const char *location, struct error *error)
{
    const char *folder = location_folder(location);
    auto_free char *path = strdup(folder);
    struct stat status;

    if (!path)
        return error_set(error, ERROR_SYSTEM, "no memory to open %s", location);
    if (folder != location && !url_decode(folder, path))
        return error_set(error, ERROR_INVALID, "%s has a %% that is no escape", location);
    plain->path = realpath(path, NULL);
    plain->local_fd = plain->path ? open(plain->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (plain->local_fd < 0 || fstat(plain->local_fd, &status))
        return error_set_errno(error, errno, "cannot open %s", path);
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
        return error_set(error, ERROR_INVALID, "%s is neither a file nor a disk", path);
    plain->size = (uint64_t)lseek(plain->local_fd, 0, SEEK_END);
    plain->modified = status.st_mtim.tv_sec;
    return 0;
}

/* ---- URLs ---- */

/* Has the server told by what the file is known, an ETag or a date? */
static bool is_bound(const struct plain *plain)
{
    return plain->bound.etag[0] || plain->bound.last_modified[0];
}

static void make_header(const struct plain *plain, struct plain_header *header)
{
    const struct http_facts *bound = &plain->bound;

    *header = (struct plain_header){.slice_size = SLICE_SIZE, .size = plain->size};
    digest_of(plain->url, strlen(plain->url), &header->url);
    snprintf(header->shown, sizeof(header->shown), "%s", plain->shown);
    if (is_bound(plain))
        snprintf(header->validator, sizeof(header->validator), "%s\n%s", bound->etag, bound->last_modified);
}

/* Where slices are kept; without, reading goes on. */
static void open_keep(struct plain *plain)
{
    struct error error = ERROR_INIT;
    struct plain_header header;

    make_header(plain, &header);
    if (plain->settings.cache_fd >= 0 &&
        keep_open(plain->settings.cache_fd, plain->settings.max_bytes, &header, &plain->keep, &error))
        log_warning("%s: what is read is not kept: %s", plain->shown, error.message);
}

/* A server that sends all or nothing. */
static int open_whole(struct plain *plain, struct error *error)
{
    char size[SIZE_TEXT] = "of unknown size";

    if (!plain->keep)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: the server gives no ranges, so the whole must be fetched first, and there is no cache to "
                         "keep it in", plain->shown);
    if (plain->size && keep_has_all(plain->keep))
        return 0;
    if (plain->size)
        size_format(plain->size, size);
    log_warning("%s: the server gives no ranges: the whole is fetched first, %s", plain->shown, size);
    return whole_fetch(plain, error);
}

/* The server does not answer: what is kept of the file is bound to what it was then. */
static int open_kept(struct plain *plain, const struct error *reason, struct error *error)
{
    struct digest url;
    const struct plain_header *header;
    const char *line_feed;

    digest_of(plain->url, strlen(plain->url), &url);
    if (plain->settings.cache_fd < 0 ||
        keep_open_latest(plain->settings.cache_fd, plain->settings.max_bytes, &url, &plain->keep, NULL) ||
        keep_header(plain->keep)->slice_size != SLICE_SIZE)
        return error_copy(error, reason);
    header = keep_header(plain->keep);
    line_feed = strchrnul(header->validator, '\n');
    plain->size = plain->bound.object_size = header->size;
    snprintf(plain->bound.etag, sizeof(plain->bound.etag), "%.*s", (int)(line_feed - header->validator),
             header->validator);
    snprintf(plain->bound.last_modified, sizeof(plain->bound.last_modified), "%s", *line_feed ? line_feed + 1 : "");
    log_warning("%s; what is in the cache of it is used", reason->message);
    return 0;
}

static int bind(struct plain *plain, struct error *error)
{
    struct error reason = ERROR_INIT;
    bool offline = !plain->settings.http;
    int result = offline ? error_set(&reason, ERROR_UNAVAILABLE, "%s is not asked for (--offline)", plain->shown)
                         : fetch_first(plain, &plain->bound, &reason);

    if (result == ERROR_UNAVAILABLE)
        return open_kept(plain, &reason, error);
    if (result)
        return error_copy(error, &reason);
    plain->serves_ranges = !plain->bound.ignores_ranges && plain->bound.object_size != HTTP_SIZE_UNKNOWN;
    if (plain->bound.object_size != HTTP_SIZE_UNKNOWN)
        plain->size = plain->bound.object_size;
    if (plain->bound.object_size == 0)
        return error_set(error, ERROR_INVALID, "%s is empty", plain->shown);
    memcpy(plain->near, plain->bound.url, sizeof(plain->near));
    if (!is_bound(plain))
        log_warning("%s: the server gives neither ETag nor date: should the file change there, that is noticed only by "
                    "its size; and nothing of it is kept for the next time", plain->shown);
    open_keep(plain);
    return plain->serves_ranges ? 0 : open_whole(plain, error);
}

static int open_url(struct plain *plain, const char *location, struct error *error)
{
    char host[URL_HOST_SIZE];
    int result;

    if (!url_host(location, host, sizeof(host)))
        return error_set(error, ERROR_INVALID, "%s is not a URL of a file: http, https or file", plain->shown);
    plain->url = strdup(location);
    if (!plain->url)
        return error_set(error, ERROR_SYSTEM, "no memory to open %s", plain->shown);
    plain->url[strcspn(plain->url, "#")] = '\0';
    result = bind(plain, error);
    if (result)
        return result;
    if (!request_date_parse(plain->bound.last_modified, &plain->modified))
        plain->modified = 0;
    if (pthread_create(&plain->thread, NULL, fetch_main, plain))
        return error_set(error, ERROR_SYSTEM, "cannot start a thread");
    plain->has_thread = true;
    return 0;
}

/* ---- Both ---- */

static struct plain *allocate(const char *location, const struct plain_settings *settings)
{
    struct plain *plain = calloc(1, sizeof(*plain));

    if (!plain)
        return NULL;
    plain->settings = *settings;
    plain->local_fd = -1;
    atomic_flag_clear(&plain->warned);
    pthread_mutex_init(&plain->lock, NULL);
    condition_init(&plain->changed);
    url_redact(location, plain->shown, sizeof(plain->shown));
    plain_file_name(location, plain->name);
    return plain;
}

int plain_open(const char *location, const struct plain_settings *settings, struct plain **plain_out,
               struct error *error)
{
    struct plain *plain = allocate(location, settings);
    int result;

    if (!plain)
        return error_set(error, ERROR_SYSTEM, "no memory to open a file");
    result = location_is_http(location) ? open_url(plain, location, error) : open_local(plain, location, error);
    if (!result && plain->size == 0)
        result = error_set(error, ERROR_INVALID, "%s is empty", plain->shown);
    if (result) {
        plain_close(plain);
        return result;
    }
    plain->slice_count = divide_up(plain->size, SLICE_SIZE);
    readahead_init(&plain->readahead, plain->slice_count, SLICE_SIZE, MEMORY_BYTES);
    *plain_out = plain;
    return 0;
}

void plain_cancel(struct plain *plain)
{
    pthread_mutex_lock(&plain->lock);
    plain->cancelled = true;
    pthread_cond_broadcast(&plain->changed);
    pthread_mutex_unlock(&plain->lock);
    if (plain->settings.http)
        http_cancel(plain->settings.http, plain);
}

static void stop(struct plain *plain)
{
    plain_cancel(plain);
    pthread_mutex_lock(&plain->lock);
    while (plain->under_way)
        pthread_cond_wait(&plain->changed, &plain->lock);
    plain->stopping = true;
    pthread_cond_broadcast(&plain->changed);
    pthread_mutex_unlock(&plain->lock);
    pthread_join(plain->thread, NULL);
}

void plain_close(struct plain *plain)
{
    if (!plain)
        return;
    if (plain->has_thread)
        stop(plain);
    slices_drop(plain);
    keep_close(plain->keep);
    if (plain->local_fd >= 0)
        close(plain->local_fd);
    pthread_cond_destroy(&plain->changed);
    pthread_mutex_destroy(&plain->lock);
    free(plain->checked);
    free(plain->path);
    free(plain->url);
    free(plain);
}

int plain_recognise(struct plain *plain, bool *iso_out, struct error *error)
{
    uint8_t head[FOREIGN_HEAD_SIZE];
    ssize_t got = plain_read(plain, head, sizeof(head), 0, error);
    const struct foreign_format *format;

    if (got < 0)
        return (int)got;
    format = foreign_recognise(head, (size_t)got, NULL, 0);
    *iso_out = !strcmp(format->name, "iso");
    if (plain->url && foreign_is_web_page(head, (size_t)got))
        return error_set(error, ERROR_UNAVAILABLE, "%s: a web page came in place of a disk, as in networks that want a "
                         "login", plain->shown);
    if (!format->qemu_name)
        return 0;
    return error_set(error, ERROR_UNSUPPORTED,
                     "%s is a %s disk, and only raw ones can be read by URL: convert it (qemu-img convert -O raw), "
                     "or publish it",
                     plain->shown, format->name);
}

uint64_t plain_size(const struct plain *plain)
{
    return plain->size;
}

void plain_identify(const struct plain *plain, struct digest *identity_out)
{
    struct plain_header header = {.slice_size = SLICE_SIZE, .size = plain->size};
    char name[DIGEST_TEXT];

    if (plain->url) {
        make_header(plain, &header);
    } else {
        digest_of(plain->path, strlen(plain->path), &header.url);
        snprintf(header.validator, sizeof(header.validator), "%lld", (long long)plain->modified);
    }
    plain_folder_name(&header, name);
    digest_parse(name, identity_out);
}

const char *plain_name(const struct plain *plain)
{
    return plain->name;
}

const char *plain_shown(const struct plain *plain)
{
    return plain->shown;
}

int64_t plain_modified(const struct plain *plain)
{
    return plain->modified;
}

const char *plain_path(const struct plain *plain)
{
    return plain->checked ? NULL : plain->path;
}
