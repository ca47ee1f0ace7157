/*
 * A session: everything a client needs to read from archives, put together in
 * one place from plain options - keys, cache, HTTP client, worker threads - and
 * taken down in the right order. The public library and the commands use it.
 */
#ifndef LIB_SESSION_H
#define LIB_SESSION_H

#include "image/ahead.h"
#include "image/archive.h"
#include "net/http.h"
#include "plain/plain.h"
#include "trust/keys.h"

struct session;

/*
 * Zero or NULL means the default in brackets; nothing is read from the environment. Strings are borrowed for the call.
 */
struct session_settings {
    const char *cache_path;        /* [no cache folder] */
    bool cache_optional;           /* go on without, after a warning, if it cannot be opened */
    uint64_t cache_max_bytes;      /* [unbounded] */
    const char *state_path;        /* highest serials seen [not remembered] */
    const char *const *keys;       /* .pub files or bare keys */
    size_t key_count;
    const char *const *key_folders;
    size_t key_folder_count;
    const char *const *mirrors;    /* further sources of the archive */
    size_t mirror_count;
    unsigned patience_ms;          /* of reads; opening gives up after 5 s at most [60000] */
    size_t memory_bytes;           /* verified blocks in memory [16 MiB] */
    bool insecure;
    bool offline;
    struct http_settings http;
};


/* Cheap: no network, one folder opened. */
int session_open(const struct session_settings *settings, struct session **session_out, struct error *error);
/*
 * Give up: every read that waits for the network, and every later one, ends with ERROR_CANCELLED. For a program that
 * is told to stop, before it closes what it has open.
 */
void session_cancel(struct session *session);
/* Everything opened from it must be closed first. Takes NULL. */
void session_close(struct session *session);

/*
 * Before session_archive: NAME and VERSION ("" or NULL: the newest) will be read. Its hints are then asked for beside
 * the catalog, and its boot pack is streamed.
 */
void session_expect(struct session *session, const char *name, const char *version, enum prefetch_mode mode);
/* What session_expect began; NULL: nothing. Belongs to the session. */
struct ahead *session_ahead(struct session *session);

/* One archive a session. LOCATION: the archive, without a name. */
int session_archive(struct session *session, const char *location, struct archive **archive_out,
                    struct error *error);
/*
 * Or, in place of an archive, one file by URL or path that nobody has signed (plain.h). It belongs to the session.
 * PROGRESS: of one that must be fetched whole. WANTED: the digest it must have, which is checked here; NULL: none.
 */
int session_plain(struct session *session, const char *location, const struct digest *wanted,
                  const struct progress *progress, struct plain **plain_out, struct error *error);
struct store *session_store(struct session *session); /* NULL before session_archive */
struct cache *session_cache(struct session *session); /* may be NULL */
/* Of session_archive; NULL before. */
const char *session_location(const struct session *session);
/* Milliseconds since it was opened. */
uint64_t session_age_ms(const struct session *session);
const struct key_ring *session_keys(const struct session *session);
struct http_client *session_http(struct session *session);

#endif
