/* An archive as a client sees it: see archive.h. */
#include "image/archive.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/latch.h"
#include "base/log.h"
#include "image/catalog_search.h"
#include "image/serial.h"

DEFINE_CLEANUP(disk_close, struct disk *)

struct archive {
    struct store *store;
    char *location; /* the key of its cached metadata */
    char *shown;    /* the same without password */
    struct signed_catalog catalog;
    bool offline;

    /* What is written of a catalog that was fetched, beside what else is under way. */
    pthread_t keeper;
    bool keeping; /* KEEPER is to be joined */
    struct archive_settings settings;
    struct signed_catalog seen; /* that the cache had */
    bool has_seen;
};

/* Take the cached catalog, and say so. REASON: why not another. */
static void use_cached(struct archive *archive, struct signed_catalog *cached, const char *reason)
{
    char published[TIME_TEXT], expires[TIME_TEXT];
    const struct catalog *catalog = &cached->catalog;

    log_warning("using the catalog of %s (serial %" PRIu64 ") of %s from the cache: %s",
                time_format(catalog->published, published), catalog->serial, archive->shown, reason);
    if (catalog->expires <= clock_wall())
        log_warning("the cached catalog of %s expired at %s: newer versions, perhaps with security fixes, are not "
                    "known here", archive->shown, time_format(catalog->expires, expires));
    archive->catalog = *cached;
    archive->offline = true;
    *cached = (struct signed_catalog){0};
}

/* Remember the catalog, which flushes to disk. */
static void *keep(void *user)
{
    struct archive *archive = user;
    const struct catalog *catalog = &archive->catalog.catalog;
    struct error error = ERROR_INIT;

    /* What is not verified must not be able to lock out what will be. */
    if (archive->catalog.verified &&
        serial_raise(archive->settings.state_fd, catalog->archive, catalog->serial, &error))
        log_warning("the serial of the catalog of %s cannot be remembered, so a later rollback would not be "
                    "noticed: %s", archive->shown, error.message);
    catalog_write_cached(&archive->settings, &archive->catalog, archive->has_seen ? &archive->seen : NULL);
    return NULL;
}

/* Wait until the catalog is remembered. */
static void wait_for_keeper(struct archive *archive)
{
    if (archive->keeping)
        pthread_join(archive->keeper, NULL);
    archive->keeping = false;
}

/* Take the fetched catalog, and remember it. CACHED may be NULL. */
static void use_fetched(struct archive *archive, const struct archive_settings *settings,
                        struct signed_catalog *fetched, struct signed_catalog *cached)
{
    const struct catalog *catalog = &fetched->catalog;

    if (cached && strcmp(cached->catalog.archive, catalog->archive))
        log_warning("%s is another archive than before: its id was %s and is %s", archive->shown,
                    cached->catalog.archive, catalog->archive);
    archive->catalog = *fetched;
    *fetched = (struct signed_catalog){0};
    archive->settings = *settings;
    archive->settings.location = archive->location;
    archive->has_seen = cached != NULL;
    if (cached) {
        archive->seen = *cached;
        *cached = (struct signed_catalog){0};
    }
    archive->keeping = settings->disk_follows && !pthread_create(&archive->keeper, NULL, keep, archive);
    if (!archive->keeping)
        keep(archive);
}

bool archive_is_away(const char *location)
{
    const char *folder = location_folder(location);
    auto_free char *catalog = folder ? path_join(folder, ARCHIVE_CATALOG) : NULL;

    return catalog && access(catalog, F_OK) && errno == ENOENT;
}

/* The network cannot be used, for the reason in ERROR. */
static int fall_back(struct archive *archive, bool offline, struct signed_catalog *cached, int cached_code,
                     const struct error *cached_error, struct error *error)
{
    struct error reason = *error;

    if (!cached_code) {
        use_cached(archive, cached, reason.message);
        return 0;
    }
    if (cached_code == ERROR_NOT_FOUND && !offline && archive_is_away(archive->location))
        return error_set(error, ERROR_NOT_FOUND, access(location_folder(archive->location), F_OK)
                                                     ? "there is no such folder"
                                                     : "there is no archive: the folder has no " ARCHIVE_CATALOG);
    if (cached_code == ERROR_NOT_FOUND)
        return error_set(error, reason.code, "%s, and there is no cached catalog", reason.message);
    if (offline) /* then it is the cached catalog that fails */
        return error_set(error, cached_code, "the cached catalog: %s", cached_error->message);
    return error_set(error, reason.code, "%s; the cached catalog is of no use: %s", reason.message,
                     cached_error->message);
}

static int get_catalog(struct archive *archive, const struct archive_settings *settings, struct error *error)
{
    cleanup(signed_catalog_finish) struct signed_catalog cached = {0}, fetched = {0};
    struct error cached_error = ERROR_INIT;
    int cached_code = catalog_read_cached(settings, &cached, &cached_error);
    bool offline = settings->offline || !store_mirrors(settings->store);
    int result;

    if (offline)
        result = error_set(error, ERROR_UNAVAILABLE, "offline");
    else
        result = catalog_fetch(settings, cached_code ? NULL : &cached, &fetched, error);
    if (result == ERROR_UNAVAILABLE)
        return fall_back(archive, offline, &cached, cached_code, &cached_error, error);
    if (!result)
        use_fetched(archive, settings, &fetched, cached_code ? NULL : &cached);
    return result;
}

int archive_open(const struct archive_settings *settings, struct archive **archive_out, struct error *error)
{
    struct archive *archive = calloc(1, sizeof(*archive));
    struct error reason = ERROR_INIT;
    int result;

    if (!archive)
        return error_set(error, ERROR_SYSTEM, "no memory for an archive");
    archive->store = settings->store;
    archive->location = strdup(settings->location);
    archive->shown = location_redact(settings->location);
    if (!archive->location || !archive->shown)
        result = error_set(&reason, ERROR_SYSTEM, "no memory for an archive");
    else if (!settings->trusted.count && !settings->insecure)
        result = error_set(&reason, ERROR_UNTRUSTED, "no public key is trusted here, so that nothing can be "
                           "verified: get the publisher's key and trust it");
    else
        result = get_catalog(archive, settings, &reason);
    if (result) {
        error_copy(error, &reason);
        error_prefix(error, "%s", archive->shown ? archive->shown : "archive");
        archive_close(archive);
        return result;
    }
    if (settings->insecure)
        log_warning("insecure: nothing says that %s is what its publisher made%s", archive->shown,
                    archive->catalog.verified ? ", though this catalog's signature is good" : "");
    *archive_out = archive;
    return 0;
}

void archive_close(struct archive *archive)
{
    if (!archive)
        return;
    wait_for_keeper(archive);
    signed_catalog_finish(&archive->catalog);
    signed_catalog_finish(&archive->seen);
    free(archive->location);
    free(archive->shown);
    free(archive);
}

const struct catalog *archive_catalog(const struct archive *archive)
{
    return &archive->catalog.catalog;
}

const struct public_key *archive_signer(const struct archive *archive)
{
    return archive->catalog.verified ? &archive->catalog.signer : NULL;
}

bool archive_is_offline(const struct archive *archive)
{
    return archive->offline;
}

/* "a, b, c and 7 more": names, or with NAME its versions, newest first. */
static void list_known(const struct catalog *catalog, const char *name, char *text, size_t size)
{
    size_t length = 0, more = 0;

    text[0] = '\0';
    for (size_t i = catalog->version_count; i > 0; i--) {
        const struct catalog_version *version = &catalog->versions[i - 1];
        const char *word = name ? version->version : version->name;

        if (name ? strcmp(version->name, name) : catalog_find(catalog, version->name, NULL) != version)
            continue;
        if (more || length + strlen(word) + 32 > size)
            more++;
        else
            length += (size_t)snprintf(text + length, size - length, "%s%s", length ? ", " : "", word);
    }
    if (more)
        snprintf(text + length, size - length, " and %zu more", more);
}

int archive_find(const struct archive *archive, const char *name, const char *version,
                 const struct catalog_version **version_out, struct error *error)
{
    const struct catalog *catalog = &archive->catalog.catalog;
    char known[500];

    *version_out = catalog_find(catalog, name, version);
    if (*version_out)
        return 0;
    if (!catalog->version_count)
        return error_set(error, ERROR_NOT_FOUND, "%s has no image %s: it is empty", archive->shown, name);
    if (catalog_find(catalog, name, NULL)) {
        list_known(catalog, name, known, sizeof(known));
        return error_set(error, ERROR_NOT_FOUND, "%s has no version %s of %s; it has: %s", archive->shown, version,
                         name, known);
    }
    list_known(catalog, NULL, known, sizeof(known));
    return error_set(error, ERROR_NOT_FOUND, "%s has no image %s; it has: %s", archive->shown, name, known);
}

/* A manifest that is here, or on its way. */
struct wanted {
    struct archive *archive;
    const struct catalog_version *version;
    char path[ARCHIVE_PATH_MAX];
    struct buffer bytes;
    struct latch latch;
    bool fetched;
};

static int manifest_accept(void *user, const uint8_t *bytes, size_t size, struct error *error)
{
    struct wanted *wanted = user;
    struct digest digest;

    digest_of(bytes, size, &digest);
    if (!digest_equal(&digest, &wanted->version->manifest))
        return error_set(error, ERROR_CORRUPT, "%s is not the manifest that the catalog names", wanted->path);
    wanted->bytes.size = 0;
    if (!buffer_append(&wanted->bytes, bytes, size))
        return error_set(error, ERROR_SYSTEM, "no memory for %s", wanted->path);
    return 0;
}

static void manifest_done(void *user, int code, const struct error *error)
{
    latch_set(&((struct wanted *)user)->latch, code, error);
}

/* From the cache, or else ask a mirror for it. manifest_end has to follow. */
static void manifest_begin(struct wanted *wanted)
{
    struct archive *archive = wanted->archive;
    struct cache *cache = store_cache(archive->store);
    cleanup(buffer_finish) struct buffer cached = {0};
    struct error error = ERROR_INIT;

    archive_path_manifest(wanted->version->name, wanted->version->version, wanted->path);
    latch_init(&wanted->latch);
    if (cache &&
        !cache_read_metadata(cache, archive->location, wanted->path, MANIFEST_SIZE_MAX, &cached, NULL) &&
        !manifest_accept(wanted, cached.bytes, cached.size, NULL)) {
        manifest_done(wanted, 0, NULL);
        return;
    }
    if (!store_mirrors(archive->store)) {
        error_set(&error, ERROR_UNAVAILABLE, "%s is not in the cache", wanted->path);
        manifest_done(wanted, error.code, &error);
        return;
    }
    wanted->fetched = true;
    mirrors_fetch(store_mirrors(archive->store), &(struct mirrors_request){
        .path = wanted->path,
        .size_limit = MANIFEST_SIZE_MAX,
        .priority = PRIORITY_READER,
        .accept = manifest_accept,
        .done = manifest_done,
        .user = wanted,
    });
}

/* Both are signed; if they contradict each other, the publisher was not well. */
static int check_manifest(const struct manifest *manifest, const struct catalog_version *version,
                          struct error *error)
{
    const struct manifest_disk *disk = &manifest->disks[0];

    if (strcmp(manifest->name, version->name) || strcmp(manifest->version, version->version))
        return error_set(error, ERROR_CORRUPT, "the manifest is that of %s@%s", manifest->name, manifest->version);
    if (!digest_equal(&disk->image, &version->image) || disk->disk_size != version->disk_size ||
        disk->block_size != version->block_size)
        return error_set(error, ERROR_CORRUPT, "its manifest contradicts the catalog");
    return 0;
}

/* Wait for it. */
static int manifest_end(struct wanted *wanted, struct manifest *manifest_out, struct error *error)
{
    struct archive *archive = wanted->archive;
    struct cache *cache = store_cache(archive->store);
    int result = latch_wait(&wanted->latch, error);

    latch_finish(&wanted->latch);
    if (!result && wanted->fetched && cache)
        cache_write_metadata(cache, archive->location, wanted->path, wanted->bytes.bytes, wanted->bytes.size);
    if (!result)
        result = manifest_parse(wanted->bytes.bytes, wanted->bytes.size, manifest_out, error);
    if (!result)
        result = check_manifest(manifest_out, wanted->version, error);
    buffer_finish(&wanted->bytes);
    if (result)
        error_prefix(error, "%s@%s", wanted->version->name, wanted->version->version);
    return result;
}

int archive_manifest(struct archive *archive, const struct catalog_version *version, struct manifest *manifest_out,
                     struct error *error)
{
    struct wanted wanted = {.archive = archive, .version = version};

    manifest_begin(&wanted);
    return manifest_end(&wanted, manifest_out, error);
}

int archive_disk(struct archive *archive, const struct catalog_version *version, struct disk **disk_out,
                 struct error *error)
{
    auto_free struct manifest *manifest = malloc(sizeof(*manifest));
    struct wanted wanted = {.archive = archive, .version = version};
    cleanup(cleanup_disk_close) struct disk *disk = NULL;
    struct error of_disk = ERROR_INIT;
    int result, disk_result;

    if (!manifest)
        return error_set(error, ERROR_SYSTEM, "no memory for a manifest");
    /* The catalog says which map is wanted, so that it need not wait for the manifest. */
    manifest_begin(&wanted);
    disk_result = disk_open(archive->store, &version->image, &disk, &of_disk);
    result = manifest_end(&wanted, manifest, error);
    wait_for_keeper(archive);
    if (result)
        return result;
    if (disk_result) {
        error_copy(error, &of_disk);
        return error_prefix(error, "%s@%s", version->name, version->version);
    }
    if (disk_size(disk) == version->disk_size && disk_block_size(disk) == version->block_size) {
        *disk_out = steal_pointer(&disk);
        return 0;
    }
    return error_set(error, ERROR_CORRUPT, "%s@%s: its map is of a disk of another size than the catalog says",
                     version->name, version->version);
}
