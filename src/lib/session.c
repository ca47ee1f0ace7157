/* A session: see session.h. */
#include "lib/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/workers.h"

#define PATIENCE_DEFAULT_MS 60000

/* A catalog is what a person waits for: no longer than this, though reads of a mounted disk may. */
#define CATALOG_PATIENCE_MAX_MS 5000

struct session {
    struct key_ring keys;
    struct http_client *http;
    struct workers *workers;
    struct cache *cache;
    int state_fd;
    char **mirror_names;
    size_t mirror_count;
    unsigned patience_ms;
    size_t memory_bytes;
    uint64_t cache_max_bytes;
    bool insecure, offline;
    uint64_t opened_ms;
    char *location; /* of the archive */
    enum prefetch_mode mode;
    char name[NAME_MAX_LENGTH + 1]; /* that session_expect announced, or "" */
    char version[NAME_MAX_LENGTH + 1];

    /* Of the archive. */
    struct mirrors *mirrors;
    struct store *store;
    struct ahead *ahead;

    struct plain *plain; /* in place of an archive */
};

static int collect_keys(struct session *session, const struct session_settings *settings, struct error *error)
{
    int result = 0;

    for (size_t i = 0; i < settings->key_count && !result; i++)
        result = key_ring_add(&session->keys, settings->keys[i], error);
    for (size_t i = 0; i < settings->key_folder_count && !result; i++)
        result = key_ring_add_folder(&session->keys, settings->key_folders[i], error);
    return result;
}

static int copy_mirrors(struct session *session, const struct session_settings *settings, struct error *error)
{
    session->mirror_names = calloc(settings->mirror_count + 1, sizeof(*session->mirror_names));
    for (size_t i = 0; session->mirror_names && i < settings->mirror_count; i++) {
        session->mirror_names[i] = strdup(settings->mirrors[i]);
        if (!session->mirror_names[i])
            break;
        session->mirror_count++;
    }
    return session->mirror_names && session->mirror_count == settings->mirror_count
               ? 0
               : error_set(error, ERROR_SYSTEM, "no memory for the list of mirrors");
}

/* Where nothing was ever remembered and nothing can be, as in a home that is read-only, that is said and no more. */
static int open_state(struct session *session, const char *path, struct error *error)
{
    struct error reason = ERROR_INIT;

    if (!path)
        return 0;
    session->state_fd = file_open_folder(path, true, &reason);
    if (session->state_fd >= 0)
        return 0;
    if (access(path, F_OK) && (errno == ENOENT || errno == ENOTDIR)) {
        log_warning("the serials of catalogs cannot be remembered, so a later rollback would not be noticed: %s",
                    reason.message);
        return 0;
    }
    error_copy(error, &reason);
    return error_prefix(error, "state");
}

static int open_cache(struct session *session, const struct session_settings *settings, struct error *error)
{
    struct error reason = ERROR_INIT;
    int result = cache_open(settings->cache_path, settings->cache_max_bytes, &session->cache, &reason);

    if (result && settings->cache_optional) {
        log_warning("cache: reading goes on without it: %s", reason.message);
        return 0;
    }
    if (result)
        error_copy(error, &reason);
    return result;
}

static int open_parts(struct session *session, const struct session_settings *settings, struct error *error)
{
    int result = collect_keys(session, settings, error);

    if (!result)
        result = copy_mirrors(session, settings, error);
    if (!result)
        result = open_state(session, settings->state_path, error);
    if (!result && settings->cache_path)
        result = open_cache(session, settings, error);
    if (!result)
        result = workers_create(0, &session->workers, error);
    if (!result && !session->offline)
        result = http_client_create(&settings->http, &session->http, error);
    return result;
}

int session_open(const struct session_settings *settings, struct session **session_out, struct error *error)
{
    struct session *session = calloc(1, sizeof(*session));
    int result;

    if (!session)
        return error_set(error, ERROR_SYSTEM, "no memory for a session");
    session->state_fd = -1;
    session->opened_ms = clock_ms();
    session->patience_ms = settings->patience_ms ? settings->patience_ms : PATIENCE_DEFAULT_MS;
    session->memory_bytes = settings->memory_bytes;
    session->cache_max_bytes = settings->cache_max_bytes;
    session->insecure = settings->insecure;
    session->offline = settings->offline;
    result = open_parts(session, settings, error);
    if (result) {
        session_close(session);
        return result;
    }
    *session_out = session;
    return 0;
}

void session_cancel(struct session *session)
{
    if (session->mirrors)
        mirrors_cancel(session->mirrors);
    if (session->plain)
        plain_cancel(session->plain);
}

/* Requests end first, then whoever waits for them, then what they use. */
void session_close(struct session *session)
{
    if (!session)
        return;
    session_cancel(session);
    plain_close(session->plain);
    ahead_end(session->ahead);
    store_close(session->store);
    mirrors_destroy(session->mirrors);
    http_client_destroy(session->http);
    workers_destroy(session->workers);
    cache_close(session->cache);
    if (session->state_fd >= 0)
        close(session->state_fd);
    for (size_t i = 0; i < session->mirror_count; i++)
        free(session->mirror_names[i]);
    free(session->mirror_names);
    free(session->location);
    key_ring_finish(&session->keys);
    free(session);
}

static int open_mirrors(struct session *session, const char *location, struct error *error)
{
    int result = mirrors_create(session->http, session->workers, session->patience_ms, &session->mirrors, error);

    if (!result)
        result = mirrors_add(session->mirrors, location, error);
    for (size_t i = 0; i < session->mirror_count && !result; i++)
        result = mirrors_add(session->mirrors, session->mirror_names[i], error);
    return result;
}

static int open_store(struct session *session, const char *location, struct error *error)
{
    struct store_settings settings = {
        .cache = session->cache,
        .workers = session->workers,
        .memory_bytes = session->memory_bytes,
    };
    int result = session->offline ? 0 : open_mirrors(session, location, error);

    settings.mirrors = session->mirrors;
    return result ? result : store_open(&settings, &session->store, error);
}

/* Is there a catalog of the archive in the cache? */
static bool was_here_before(struct session *session, const char *location)
{
    cleanup(buffer_finish) struct buffer catalog = {0};

    return session->cache && !cache_read_metadata(session->cache, location, ARCHIVE_CATALOG, CATALOG_SIZE_MAX, &catalog,
                                                  NULL);
}

int session_archive(struct session *session, const char *location, struct archive **archive_out,
                    struct error *error)
{
    struct archive_settings settings = {
        .location = location,
        .trusted = key_ring_trusted(&session->keys),
        .state_fd = session->state_fd,
        .insecure = session->insecure,
        .offline = session->offline,
        .disk_follows = session->name[0] != '\0',
        .patience_ms = (unsigned)min_u64(session->patience_ms, CATALOG_PATIENCE_MAX_MS),
    };
    /* What is on a disk here already gains nothing from being copied to the cache. */
    enum prefetch_mode mode = session->mode == PREFETCH_ALL && !location_is_http(location) ? PREFETCH_PROFILE
                                                                                           : session->mode;
    int result;

    if (session->store)
        return error_set(error, ERROR_INVALID, "a session is for one archive only");
    session->location = strdup(location);
    result = session->location ? open_store(session, location, error)
                               : error_set(error, ERROR_SYSTEM, "no memory for an archive");
    settings.store = session->store;
    if (!result && session->name[0])
        session->ahead = ahead_begin(session->store, session->name, session->version, mode,
                                     !was_here_before(session, location));
    return result ? result : archive_open(&settings, archive_out, error);
}

int session_plain(struct session *session, const char *location, const struct digest *wanted,
                  const struct progress *progress, struct plain **plain_out, struct error *error)
{
    struct plain_settings settings = {
        .http = session->http,
        .workers = session->workers,
        .cache_fd = session->cache ? cache_folder_fd(session->cache) : -1,
        .max_bytes = session->cache_max_bytes,
        .patience_ms = session->patience_ms,
        .progress = progress,
    };
    int result = plain_open(location, &settings, &session->plain, error);

    if (!result && wanted)
        result = plain_check(session->plain, wanted, progress, error);
    *plain_out = session->plain;
    return result;
}

void session_expect(struct session *session, const char *name, const char *version, enum prefetch_mode mode)
{
    snprintf(session->name, sizeof(session->name), "%s", name);
    snprintf(session->version, sizeof(session->version), "%s", version ? version : "");
    session->mode = mode;
}

struct ahead *session_ahead(struct session *session)
{
    return session->ahead;
}

const char *session_location(const struct session *session)
{
    return session->location;
}

uint64_t session_age_ms(const struct session *session)
{
    return clock_ms() - session->opened_ms;
}

struct store *session_store(struct session *session)
{
    return session->store;
}

struct cache *session_cache(struct session *session)
{
    return session->cache;
}

const struct key_ring *session_keys(const struct session *session)
{
    return &session->keys;
}

struct http_client *session_http(struct session *session)
{
    return session->http;
}
