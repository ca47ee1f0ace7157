/*
 * The public library: see circular.h. Only translation between its types and
 * the inner ones; every function is a few lines over src/image.
 */
#include "circular.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/name.h"
#include "image/profile_keep.h"
#include "lib/library.h"

struct circular_archive {
    struct session *session;
    struct archive *archive;
    bool borrowed;                  /* session and archive are somebody else's */
    char (*image_ids)[DIGEST_TEXT]; /* of each version of the catalog */
};

struct circular_disk {
    struct circular_archive *archive;
    bool owns_archive;
    size_t index; /* of its version in the catalog */
    struct disk *disk;
    struct profile_keeper *keeper; /* NULL: what is read is not remembered */

    /* Or a plain file; the others are zero then. */
    struct plain *plain;
    struct session *session;
};

/* The codes of both are the same numbers; those that the public header does not know are faults of the system. */
static int public_code(int code)
{
    switch (code) {
    case ERROR_EXISTS:
    case ERROR_BUSY:
    case ERROR_CHANGED:
        return CIRCULAR_SYSTEM;
    default:
        return code;
    }
}

_Static_assert((int)CIRCULAR_INVALID == (int)ERROR_INVALID && (int)CIRCULAR_NOT_FOUND == (int)ERROR_NOT_FOUND &&
                   (int)CIRCULAR_CORRUPT == (int)ERROR_CORRUPT &&
                   (int)CIRCULAR_UNAVAILABLE == (int)ERROR_UNAVAILABLE &&
                   (int)CIRCULAR_UNTRUSTED == (int)ERROR_UNTRUSTED &&
                   (int)CIRCULAR_ROLLED_BACK == (int)ERROR_ROLLED_BACK &&
                   (int)CIRCULAR_EXPIRED == (int)ERROR_EXPIRED && (int)CIRCULAR_NO_SPACE == (int)ERROR_NO_SPACE &&
                   (int)CIRCULAR_UNSUPPORTED == (int)ERROR_UNSUPPORTED &&
                   (int)CIRCULAR_CANCELLED == (int)ERROR_CANCELLED && (int)CIRCULAR_SYSTEM == (int)ERROR_SYSTEM,
               "public and inner error codes");

/* Hand FROM to the caller. Returns its public code. */
static int give_error(struct circular_error *to, const struct error *from)
{
    _Static_assert(sizeof(to->message) == sizeof(from->message), "messages fit");

    if (to) {
        to->code = public_code(from->code);
        memcpy(to->message, from->message, sizeof(to->message));
    }
    return public_code(from->code);
}

static size_t count_list(const char *const *list)
{
    size_t count = 0;

    while (list && list[count])
        count++;
    return count;
}

/* A caller that was built with an older header has fewer members, the rest is zero. NULL: all are. */
static int take_options(const struct circular_options *given, struct circular_options *options, struct error *error)
{
    *options = (struct circular_options)CIRCULAR_OPTIONS_INIT;
    if (!given)
        return 0;
    if (given->size < offsetof(struct circular_options, cache_path) + sizeof(options->cache_path))
        return error_set(error, ERROR_INVALID, "the options are not initialised with CIRCULAR_OPTIONS_INIT");
    memcpy(options, given, min_u64(given->size, sizeof(*options)));
    return 0;
}

static enum prefetch_mode prefetch_mode(enum circular_prefetch wanted)
{
    switch (wanted) {
    case CIRCULAR_PREFETCH_NONE:
        return PREFETCH_NONE;
    case CIRCULAR_PREFETCH_ALL:
        return PREFETCH_ALL;
    default:
        return PREFETCH_PROFILE;
    }
}

static int open_session(const struct circular_options *options, struct session **session_out, struct error *error)
{
    struct session_settings settings = {
        .cache_path = options->cache_path,
        .cache_max_bytes = options->cache_max_bytes,
        .state_path = options->state_path,
        .keys = options->keys,
        .key_count = count_list(options->keys),
        .key_folders = &options->key_folder,
        .key_folder_count = options->key_folder ? 1 : 0,
        .mirrors = options->mirrors,
        .mirror_count = count_list(options->mirrors),
        .patience_ms = options->patience_ms,
        .memory_bytes = options->memory_bytes,
        .insecure = options->insecure,
        .offline = options->offline,
        .http = {.proxy = options->http_proxy, .https_proxy = options->http_proxy},
    };
    return session_open(&settings, session_out, error);
}

struct circular_archive *library_archive(struct session *session, struct archive *archive)
{
    const struct catalog *catalog = archive_catalog(archive);
    struct circular_archive *made = calloc(1, sizeof(*made));

    if (!made)
        return NULL;
    made->session = session;
    made->archive = archive;
    made->borrowed = true;
    made->image_ids = calloc(catalog->version_count + 1, sizeof(*made->image_ids));
    if (!made->image_ids) {
        free(made);
        return NULL;
    }
    for (size_t i = 0; i < catalog->version_count; i++)
        digest_format(&catalog->versions[i].image, made->image_ids[i]);
    return made;
}

/* NAME: the disk that will be opened; NULL: not known. */
static int open_archive(const struct location *location, const char *name, const struct circular_options *given,
                        struct circular_archive **archive_out, struct error *error)
{
    struct circular_options options;
    struct session *session = NULL;
    struct archive *archive = NULL;
    int result = take_options(given, &options, error);

    if (!result)
        result = open_session(&options, &session, error);

    if (!result && name)
        session_expect(session, name, location->version, prefetch_mode(options.prefetch));
    if (!result)
        result = session_archive(session, location->archive, &archive, error);
    if (!result && !(*archive_out = library_archive(session, archive)))
        result = error_set(error, ERROR_SYSTEM, "no memory for an archive");
    if (result) {
        archive_close(archive);
        session_close(session);
        return result;
    }
    (*archive_out)->borrowed = false;
    return 0;
}

int circular_archive_open(const char *url, const struct circular_options *options,
                          struct circular_archive **archive_out, struct circular_error *error)
{
    cleanup(location_finish) struct location location = {0};
    struct error reason = ERROR_INIT;

    *archive_out = NULL;
    if (location_parse_archive(url, &location, &reason) ||
        open_archive(&location, NULL, options, archive_out, &reason))
        return give_error(error, &reason);
    return 0;
}

void circular_archive_close(struct circular_archive *archive)
{
    if (!archive)
        return;
    if (!archive->borrowed) {
        archive_close(archive->archive);
        session_close(archive->session);
    }
    free(archive->image_ids);
    free(archive);
}

size_t circular_archive_count(const struct circular_archive *archive)
{
    return archive_catalog(archive->archive)->version_count;
}

bool circular_archive_version(const struct circular_archive *archive, size_t index,
                              struct circular_version *version_out)
{
    const struct catalog *catalog = archive_catalog(archive->archive);
    const struct catalog_version *version;

    if (index >= catalog->version_count)
        return false;
    version = &catalog->versions[index];
    *version_out = (struct circular_version){
        .name = version->name,
        .version = version->version,
        .image_id = archive->image_ids[index],
        .disk_size = version->disk_size,
        .data_size = version->data_size,
        .stored_size = version->stored_size,
        .published = version->published,
        .newest = catalog_find(catalog, version->name, NULL) == version,
    };
    return true;
}

static int open_disk(struct circular_archive *archive, const char *name, const char *version,
                     struct circular_disk **disk_out, struct error *error)
{
    const struct catalog *catalog = archive_catalog(archive->archive);
    const struct catalog_version *found;
    struct circular_disk *disk = calloc(1, sizeof(*disk));
    int result = disk ? archive_find(archive->archive, name, version, &found, error)
                      : error_set(error, ERROR_SYSTEM, "no memory for a disk");

    if (!result)
        result = archive_disk(archive->archive, found, &disk->disk, error);
    if (result) {
        free(disk);
        return result;
    }
    disk->keeper = profile_keeper_open(disk->disk, session_store(archive->session), session_location(archive->session),
                                       catalog, found);
    ahead_disk(session_ahead(archive->session), disk->disk, profile_keeper_kept(disk->keeper));
    disk->archive = archive;
    disk->index = (size_t)(found - catalog->versions);
    *disk_out = disk;
    return 0;
}

struct circular_disk *library_plain_disk(struct session *session, struct plain *plain)
{
    struct circular_disk *disk = calloc(1, sizeof(*disk));

    if (disk) {
        disk->plain = plain;
        disk->session = session;
    }
    return disk;
}

int circular_archive_disk(struct circular_archive *archive, const char *name, const char *version,
                          struct circular_disk **disk_out, struct circular_error *error)
{
    struct error reason = ERROR_INIT;

    *disk_out = NULL;
    return open_disk(archive, name, version, disk_out, &reason) ? give_error(error, &reason) : 0;
}

int circular_open(const char *url, const struct circular_options *options, struct circular_disk **disk_out,
                  struct circular_error *error)
{
    cleanup(location_finish) struct location location = {0};
    struct circular_archive *archive = NULL;
    struct error reason = ERROR_INIT;

    *disk_out = NULL;
    if (location_parse(url, &location, &reason) ||
        open_archive(&location, location.name, options, &archive, &reason) ||
        open_disk(archive, location.name, location.version, disk_out, &reason)) {
        circular_archive_close(archive);
        return give_error(error, &reason);
    }
    (*disk_out)->owns_archive = true;
    return 0;
}

void circular_close(struct circular_disk *disk)
{
    if (!disk || disk->plain) {
        free(disk);
        return;
    }
    /* Nobody waits for what is still being read ahead. */
    if (disk->owns_archive)
        session_cancel(disk->archive->session);
    ahead_leave(session_ahead(disk->archive->session), disk->disk);
    profile_keeper_close(disk->keeper);
    disk_close(disk->disk);
    if (disk->owns_archive)
        circular_archive_close(disk->archive);
    free(disk);
}

struct session *library_session(struct circular_archive *archive)
{
    return archive->session;
}

int library_profile(struct circular_disk *disk, struct profile *profile_out, struct error *error)
{
    if (disk->plain)
        return error_set(error, ERROR_UNSUPPORTED, "only published disks have profiles");
    return disk_profile(disk->disk, profile_out, error);
}

uint64_t circular_size(const struct circular_disk *disk)
{
    return disk->plain ? plain_size(disk->plain) : disk_size(disk->disk);
}

static void describe_plain(const struct plain *plain, struct circular_version *version_out)
{
    *version_out = (struct circular_version){
        .name = plain_name(plain),
        .version = "",
        .image_id = "",
        .disk_size = plain_size(plain),
        .data_size = plain_size(plain),
        .stored_size = plain_size(plain),
        .published = plain_modified(plain),
    };
}

void circular_describe(const struct circular_disk *disk, struct circular_version *version_out)
{
    if (disk->plain)
        describe_plain(disk->plain, version_out);
    else
        circular_archive_version(disk->archive, disk->index, version_out);
}

ssize_t circular_pread(struct circular_disk *disk, void *bytes, size_t size, uint64_t offset,
                       struct circular_error *error)
{
    struct error reason = ERROR_INIT;
    ssize_t got;

    profile_keeper_tick(disk->keeper);
    got = disk->plain ? plain_read(disk->plain, bytes, size, offset, &reason)
                      : disk_read(disk->disk, bytes, size, offset, &reason);
    return got < 0 ? give_error(error, &reason) : got;
}

/* Translates the end of one read. */
struct adapter {
    void (*done)(void *user, ssize_t result, const struct circular_error *error);
    void *user;
};

static void adapter_done(void *user, ssize_t result, const struct error *error)
{
    struct adapter adapter = *(struct adapter *)user;
    struct circular_error given;

    free(user);
    if (result < 0)
        adapter.done(adapter.user, give_error(&given, error), &given);
    else
        adapter.done(adapter.user, result, NULL);
}

void circular_pread_async(struct circular_disk *disk, void *bytes, size_t size, uint64_t offset,
                          void (*done)(void *user, ssize_t result, const struct circular_error *error), void *user)
{
    struct adapter *adapter = malloc(sizeof(*adapter));
    struct circular_error error = {CIRCULAR_SYSTEM, "no memory for a read"};

    if (!adapter) {
        done(user, error.code, &error);
        return;
    }
    *adapter = (struct adapter){done, user};
    profile_keeper_tick(disk->keeper);
    if (disk->plain)
        plain_read_async(disk->plain, bytes, size, offset, adapter_done, adapter);
    else
        disk_read_async(disk->disk, bytes, size, offset, adapter_done, adapter);
}

/* From FIRST on, the first block of zeros. *BLOCK_OUT is the count of blocks if there is none. */
static int next_hole(struct tree *tree, uint64_t first, uint64_t *block_out, struct error *error)
{
    struct digest digests[4 * MAP_FANOUT];
    uint64_t block_count = tree_map(tree)->block_count;

    while (first < block_count) {
        uint32_t count = (uint32_t)min_u64(block_count - first, sizeof(digests) / sizeof(digests[0]));
        int result = tree_lookup(tree, first, count, PRIORITY_READER, digests, error);

        if (result)
            return result;
        for (uint32_t i = 0; i < count; i++, first++)
            if (digest_is_zero(&digests[i])) {
                *block_out = first;
                return 0;
            }
    }
    *block_out = block_count;
    return 0;
}

int64_t circular_seek(struct circular_disk *disk, uint64_t offset, bool data, struct circular_error *error)
{
    uint64_t size = circular_size(disk), block_size, block;
    struct error reason = ERROR_INIT;
    struct tree *tree;
    int result;

    if (offset >= size)
        return (int64_t)size;
    if (disk->plain) /* nobody knows of holes in it */
        return (int64_t)(data ? offset : size);
    tree = disk_tree(disk->disk);
    block_size = disk_block_size(disk->disk);
    result = data ? tree_next_data(tree, offset / block_size, UINT64_MAX, &block, &reason)
                  : next_hole(tree, offset / block_size, &block, &reason);
    if (result)
        return give_error(error, &reason);
    return (int64_t)min_u64(size, max_u64(offset, block * block_size));
}

static uint64_t count_requests(struct session *session)
{
    struct http_counts http;
    uint64_t requests = 0;

    if (!session_http(session))
        return 0;
    http_client_count(session_http(session), &http);
    for (int i = 0; i < PRIORITY_COUNT; i++)
        requests += http.requests[i];
    return requests;
}

void circular_archive_statistics(struct circular_archive *archive, struct circular_statistics *statistics)
{
    struct circular_statistics all = {.size = statistics->size};
    struct store_statistics store;

    store_count(session_store(archive->session), &store);
    all.memory_hits = store.memory_hits[PRIORITY_READER];
    all.cache_hits = store.cache_hits[PRIORITY_READER];
    all.fetched_blocks = store.fetched_blocks;
    all.fetched_bytes = store.fetched_bytes;
    all.cache_corrupt = store.cache_corrupt;
    all.failed = store.failed;
    all.misses = store.misses;
    all.wait_us = store.wait_us;
    all.reads = store.reads;
    all.read_bytes = store.read_bytes;
    all.held_bytes = store.held_bytes;
    all.requests = count_requests(archive->session);
    memcpy(statistics, &all, min_u64(statistics->size, sizeof(all)));
}

struct plain *library_plain(struct circular_disk *disk, struct session **session_out)
{
    *session_out = disk->session;
    return disk->plain;
}

static void count_plain(struct circular_disk *disk, struct circular_statistics *statistics)
{
    struct circular_statistics all = {.size = statistics->size};
    struct plain_statistics plain;

    plain_count(disk->plain, &plain);
    all.memory_hits = plain.memory_hits;
    all.cache_hits = plain.kept_hits;
    all.fetched_blocks = plain.fetched;
    all.fetched_bytes = plain.fetched_bytes;
    all.cache_corrupt = plain.damaged;
    all.failed = plain.failed;
    all.misses = plain.misses;
    all.wait_us = plain.wait_us;
    all.reads = plain.reads;
    all.read_bytes = plain.read_bytes;
    all.held_bytes = plain.held_bytes;
    all.requests = count_requests(disk->session);
    memcpy(statistics, &all, min_u64(statistics->size, sizeof(all)));
}

void circular_disk_statistics(struct circular_disk *disk, struct circular_statistics *statistics)
{
    if (disk->plain)
        count_plain(disk, statistics);
    else
        circular_archive_statistics(disk->archive, statistics);
}
