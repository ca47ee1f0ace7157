/*
 * Verifying folders: an archive from its catalog down to each block that a
 * listed version needs and each pack that its hints name (verify_packs.c), or
 * simply every block file and table of a pack of a cache. Blocks are checked
 * on several threads, a batch at a time.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/parallel.h"
#include "format/frame.h"
#include "format/manifest.h"
#include "image/map_file.h"
#include "image/verify_internal.h"

#define BATCH_SIZE 16384
#define PROGRESS_INTERVAL_MS 200

void verification_tell(struct verification *verification, const char *where, const char *what, bool missing)
{
    pthread_mutex_lock(&verification->lock);
    verification->result->missing += missing;
    verify_fault(verification->report, verification->result, where, what);
    pthread_mutex_unlock(&verification->lock);
}

void verification_count(struct verification *verification, uint64_t files, uint64_t bytes)
{
    pthread_mutex_lock(&verification->lock);
    verification->result->checked_files += files;
    verification->result->checked_bytes += bytes;
    pthread_mutex_unlock(&verification->lock);
}

/* Remove what is bad, and say so in WHAT. */
static void remove_bad(struct verification *verification, const char *path, char *what, size_t size)
{
    size_t length = strlen(what);

    if (unlinkat(verification->folder, path, 0) && errno != ENOENT) {
        snprintf(what + length, size - length, "; cannot be removed: %s", strerror(errno));
        return;
    }
    snprintf(what + length, size - length, "; removed");
    pthread_mutex_lock(&verification->lock);
    verification->result->removed++;
    pthread_mutex_unlock(&verification->lock);
}

/* Everything that can be said about one block file. BYTES holds BLOCK_SIZE_MAX. */
static int check_frame_file(const struct verification *verification, const struct entry *entry, const char *path,
                            struct buffer *frame, uint8_t *bytes, struct error *error)
{
    uint64_t length = entry->length;
    int result = file_read(verification->folder, path, frame_bound(BLOCK_SIZE_MAX), frame, error);

    if (!result && !length)
        result = frame_content_size(frame->bytes, frame->size, &length, error);
    if (!result && (length == 0 || length > BLOCK_SIZE_MAX))
        result = error_set(error, ERROR_CORRUPT, "the zstd frame declares %llu bytes, more than any block has",
                           (unsigned long long)length);
    return result ? result : block_verify(frame->bytes, frame->size, &entry->digest, (uint32_t)length, bytes, error);
}

static void check_entry(struct verification *verification, const struct entry *entry, struct buffer *frame,
                        uint8_t *bytes)
{
    struct error error = ERROR_INIT;
    char path[ARCHIVE_PATH_MAX], what[sizeof(error.message) + 400];
    int result;

    archive_path_block(&entry->digest, path);
    result = check_frame_file(verification, entry, path, frame, bytes, &error);
    if (result && verification->map)
        snprintf(what, sizeof(what), "%s; block %llu of %s needs it",
                 result == ERROR_NOT_FOUND ? "is missing" : error.message, (unsigned long long)entry->block,
                 verification->needed_by);
    else if (result)
        snprintf(what, sizeof(what), "%s", error.message);
    /* Without a map the file was listed a moment ago: if it is gone, somebody has pruned it. */
    if (result == ERROR_NOT_FOUND && !verification->map)
        return;
    if (result) {
        if (verification->repair && result == ERROR_CORRUPT)
            remove_bad(verification, path, what, sizeof(what));
        verification_tell(verification, path, what, result == ERROR_NOT_FOUND);
    }
    if (result != ERROR_NOT_FOUND)
        verification_count(verification, 1, frame->size);
}

void verification_progress(struct verification *verification, uint64_t bytes)
{
    pthread_mutex_lock(&verification->lock);
    verification->done_bytes += bytes;
    if (clock_ms() - verification->progress_at_ms >= PROGRESS_INTERVAL_MS) {
        verification->progress_at_ms = clock_ms();
        if (!progress_update(verification->report->progress, verification->done_bytes, verification->total_bytes))
            verification->cancelled = true;
    }
    pthread_mutex_unlock(&verification->lock);
}

static void check_entries(void *user)
{
    struct verification *verification = user;
    cleanup(buffer_finish) struct buffer frame = {0};
    auto_free uint8_t *bytes = malloc(BLOCK_SIZE_MAX);
    size_t at;

    if (!bytes) {
        verification_tell(verification, "blocks", "no memory to check them", false);
        return;
    }
    while (!verification->cancelled && (at = atomic_fetch_add(&verification->next, 1)) < verification->batch_size) {
        check_entry(verification, &verification->batch[at], &frame, bytes);
        verification_progress(verification,
                              verification->batch[at].length ? verification->batch[at].length : frame.size);
    }
}

int verification_go_on(struct verification *verification)
{
    if (verification->cancelled)
        return error_set(verification->error, ERROR_CANCELLED, "verifying was broken off");
    return 0;
}

static int check_batch(struct verification *verification)
{
    atomic_store(&verification->next, 0);
    parallel_run(parallel_count(0), check_entries, verification);
    verification->batch_size = 0;
    return verification_go_on(verification);
}

static int add_entry(struct verification *verification, const struct digest *digest, uint64_t block,
                     uint32_t length)
{
    int fresh = digest_set_add(verification->seen, digest);

    if (fresh < 0)
        return error_set(verification->error, ERROR_SYSTEM, "no memory for the list of blocks");
    if (!fresh) {
        verification_progress(verification, length);
        return 0;
    }
    if (verification->blocks_fault.code) {
        verification->unread++;
        verification_progress(verification, length);
        return verification_go_on(verification);
    }
    verification->batch[verification->batch_size++] = (struct entry){*digest, block, length};
    return verification->batch_size == BATCH_SIZE ? check_batch(verification) : 0;
}

static int add_map_block(void *user, uint64_t block, const struct digest *digest)
{
    struct verification *verification = user;

    return add_entry(verification, digest, block, map_block_length(verification->map, block));
}

static int check_image(struct verification *verification, const struct manifest_disk *disk, const char *needed_by)
{
    cleanup(map_file_finish) struct map_file map = {0};
    char path[ARCHIVE_PATH_MAX];
    struct error error = ERROR_INIT;
    int result = map_file_read(verification->folder, &disk->image, &map, &error);

    if (result) {
        archive_path_map(&disk->image, path);
        verification_tell(verification, path, error.message, result == ERROR_NOT_FOUND);
        return 0;
    }
    verification->result->checked_files++;
    verification->result->checked_bytes += map.bytes.size;
    if (map.map.disk_size != disk->disk_size || map.map.block_size != disk->block_size)
        verification_tell(verification, needed_by, "the sizes in its manifest are not those of its map", false);
    verification->map = &map.map;
    verification->needed_by = needed_by;
    result = map_file_each(&map, add_map_block, verification);
    if (!result)
        result = check_batch(verification);
    verification->map = NULL;
    return result;
}

/* A manifest with its digest and signature. NOT 0: it was told what is wrong. */
static int read_manifest(struct verification *verification, const struct catalog_version *version,
                         const struct trusted_keys *trusted, struct manifest *manifest_out)
{
    cleanup(buffer_finish) struct buffer text = {0};
    cleanup(buffer_finish) struct buffer signature = {0};
    char path[ARCHIVE_PATH_MAX], signature_path[ARCHIVE_PATH_MAX + sizeof(SIGNATURE_SUFFIX)];
    struct error error = ERROR_INIT;
    struct digest digest;
    int result, folder = verification->folder;

    archive_path_manifest(version->name, version->version, path);
    snprintf(signature_path, sizeof(signature_path), "%s" SIGNATURE_SUFFIX, path);
    result = file_read(folder, path, MANIFEST_SIZE_MAX, &text, &error);
    digest_of(text.bytes, text.size, &digest);
    if (!result && !digest_equal(&digest, &version->manifest))
        result = error_set(&error, ERROR_CORRUPT, "it is not the manifest that the catalog lists");
    if (!result)
        result = manifest_parse(text.bytes, text.size, manifest_out, &error);
    if (result) {
        verification_tell(verification, path, error.message, result == ERROR_NOT_FOUND);
        return result;
    }
    verification->result->checked_files++;
    verification->result->checked_bytes += text.size;
    result = file_read(folder, signature_path, SIGNATURE_FILE_MAX, &signature, &error);
    if (!result && trusted)
        result = signature_verify((const char *)signature.bytes, signature.size, text.bytes, text.size, trusted, NULL,
                                  NULL, &error);
    if (result) /* the catalog vouches for the manifest, so the rest can be checked all the same */
        verification_tell(verification, signature_path, error.message, result == ERROR_NOT_FOUND);
    return 0;
}

static int check_version(struct verification *verification, const struct catalog_version *version,
                         const struct trusted_keys *trusted)
{
    auto_free struct manifest *manifest = calloc(1, sizeof(*manifest));
    char needed_by[2 * NAME_MAX_LENGTH + 2];
    int result = 0;

    if (!manifest)
        return error_set(verification->error, ERROR_SYSTEM, "no memory for a manifest");
    if (read_manifest(verification, version, trusted, manifest))
        return 0;
    snprintf(needed_by, sizeof(needed_by), "%s@%s", version->name, version->version);
    if (!digest_equal(&manifest->disks[0].image, &version->image) || strcmp(manifest->name, version->name) ||
        strcmp(manifest->version, version->version))
        verification_tell(verification, needed_by, "its manifest and the catalog name different images", false);
    for (size_t i = 0; !result && i < manifest->disk_count; i++)
        result = check_image(verification, &manifest->disks[i], needed_by);
    return result;
}

static int read_catalog(struct verification *verification, const struct trusted_keys *trusted,
                        struct catalog *catalog_out)
{
    cleanup(buffer_finish) struct buffer text = {0};
    cleanup(buffer_finish) struct buffer signature = {0};
    struct error *error = verification->error;
    int result = file_read(verification->folder, ARCHIVE_CATALOG, CATALOG_SIZE_MAX, &text, error);

    if (!result && trusted) {
        result = file_read(verification->folder, ARCHIVE_CATALOG SIGNATURE_SUFFIX, SIGNATURE_FILE_MAX, &signature,
                           error);
        if (result == ERROR_NOT_FOUND)
            result = error_set(error, ERROR_UNTRUSTED, "it has no signature");
        if (!result)
            result = signature_verify((const char *)signature.bytes, signature.size, text.bytes, text.size, trusted,
                                      NULL, NULL, error);
    }
    if (!result)
        result = catalog_parse(text.bytes, text.size, catalog_out, error);
    if (result)
        return error_prefix(error, ARCHIVE_CATALOG);
    verification->result->checked_files++;
    verification->result->checked_bytes += text.size;
    return 0;
}

static void close_folder(DIR **folder)
{
    if (*folder)
        closedir(*folder);
}

/* A folder with a name of two hex digits in FOLDER. errno is 0 if there is none. */
static bool has_blocks(DIR *folder)
{
    struct dirent *entry;
    uint8_t byte;

    while ((errno = 0, entry = readdir(folder)))
        if (strlen(entry->d_name) == 2 && hex_decode(entry->d_name, &byte, 1))
            return true;
    return false;
}

/*
 * Look at the folder blocks. It may well be a mount of its own; if that is away all blocks are missing, and that is
 * told in one sentence.
 */
static void look_at_blocks(struct verification *verification)
{
    int fd = openat(verification->folder, "blocks", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup(close_folder) DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct error *error = &verification->blocks_fault;

    if (folder && has_blocks(folder))
        return;
    if (!folder && errno == ENOENT)
        error_set(error, ERROR_NOT_FOUND, "there is no such folder");
    else if (errno)
        error_set_errno(error, errno, "the folder cannot be read");
    else
        error_set(error, ERROR_NOT_FOUND, "the folder holds no blocks at all");
}

static void tell_unread(struct verification *verification)
{
    const struct error *fault = &verification->blocks_fault;
    bool missing = fault->code == ERROR_NOT_FOUND;
    char what[sizeof(fault->message) + 200];

    if (!verification->unread) /* an image of zeros has no blocks */
        return;
    snprintf(what, sizeof(what), "%s, and the listed versions need %llu blocks of it%s", fault->message,
             (unsigned long long)verification->unread, missing ? "; is a file system not mounted?" : "");
    verification->result->missing += missing ? verification->unread : 0;
    verification_tell(verification, "blocks", what, false);
}

static int check_archive(struct verification *verification, const struct trusted_keys *trusted)
{
    struct catalog catalog = {0};
    struct named_packs packs = {0};
    int result = read_catalog(verification, trusted, &catalog);

    if (!result && catalog.expires < clock_wall()) {
        char expires[TIME_TEXT], what[64];

        snprintf(what, sizeof(what), "it expired on %s", time_format(catalog.expires, expires));
        verification_tell(verification, ARCHIVE_CATALOG, what, false);
    }
    for (size_t i = 0; !result && i < catalog.version_count; i++)
        verification->total_bytes += catalog.versions[i].data_size;
    if (!result)
        result = verify_hints(verification, &catalog, &packs);
    if (!result)
        look_at_blocks(verification);
    for (size_t i = 0; !result && i < catalog.version_count; i++)
        result = check_version(verification, &catalog.versions[i], trusted);
    if (!result) {
        tell_unread(verification);
        result = verify_packs(verification, &packs);
    }
    free(packs.items);
    catalog_finish(&catalog);
    return result;
}

/* Run WORK with everything that a verification needs. */
static int verify(const char *path, bool repair, const struct verify_report *report,
                  struct verify_result *result_out, struct error *error,
                  int (*work)(struct verification *verification, const struct trusted_keys *trusted),
                  const struct trusted_keys *trusted)
{
    struct error unwanted;
    auto_close int folder = file_open_folder(path, false, error ? error : (error = &unwanted));
    struct verification verification = {
        .report = report, .result = result_out, .error = error, .folder = folder, .repair = repair,
        .lock = PTHREAD_MUTEX_INITIALIZER,
    };
    int result;

    *result_out = (struct verify_result){0};
    if (folder < 0)
        return folder;
    verification.seen = digest_set_create();
    verification.batch = calloc(BATCH_SIZE, sizeof(*verification.batch));
    if (verification.seen && verification.batch)
        result = work(&verification, trusted);
    else
        result = error_set(error, ERROR_SYSTEM, "no memory for the list of blocks");
    free(verification.batch);
    digest_set_destroy(verification.seen);
    pthread_mutex_destroy(&verification.lock);
    if (result)
        error_prefix(error, "%s", path);
    return result;
}

int verify_archive(const char *archive, const struct trusted_keys *trusted, const struct verify_report *report,
                   struct verify_result *result_out, struct error *error)
{
    return verify(archive, false, report, result_out, error, check_archive, trusted);
}

/* FOUND for every file with a digest's name in the folder NAME of PARENT, which is PATH from the cache on. */
static int each_file(struct verification *verification, int parent, const char *name, const char *path,
                     int (*found)(struct verification *verification, const struct digest *digest))
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup(close_folder) DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    struct digest digest;
    int result = 0;

    if (!folder)
        return errno == ENOENT || errno == ENOTDIR
                   ? 0 : error_set_errno(verification->error, errno, "cannot open the folder %s", path);
    while (!result && (errno = 0, entry = readdir(folder)))
        if (digest_parse(entry->d_name, &digest))
            result = found(verification, &digest);
    if (!result && errno)
        result = error_set_errno(verification->error, errno, "cannot read the folder %s", path);
    return result;
}

static int add_file(struct verification *verification, const struct digest *digest)
{
    return add_entry(verification, digest, 0, 0);
}

/* A file of files/, where a cache has the tables of packs. */
static int check_kept_file(struct verification *verification, const struct digest *digest)
{
    struct error error = ERROR_INIT;
    char path[ARCHIVE_PATH_MAX], what[sizeof(error.message) + 400];
    uint64_t size = 0;
    int result = verify_file_digest(verification, archive_path_file(digest, path), digest, &size, &error);

    if (result == ERROR_NOT_FOUND) /* pruned a moment ago */
        return 0;
    verification_count(verification, 1, size);
    verification_progress(verification, size);
    if (result) {
        snprintf(what, sizeof(what), "%s", error.message);
        if (verification->repair && result == ERROR_CORRUPT)
            remove_bad(verification, path, what, sizeof(what));
        verification_tell(verification, path, what, false);
    }
    return verification_go_on(verification);
}

static int check_blocks(struct verification *verification, const struct trusted_keys *trusted)
{
    auto_close int blocks = openat(verification->folder, "blocks", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char path[] = "blocks/00", *name = path + sizeof("blocks/") - 1;
    int result = 0;

    (void)trusted;
    if (blocks < 0)
        return error_set_errno(verification->error, errno, "cannot open the folder blocks");
    for (unsigned i = 0; !result && i < 256; i++) {
        snprintf(name, 3, "%02x", i);
        result = each_file(verification, blocks, name, path, add_file);
    }
    if (!result)
        result = check_batch(verification);
    return result ? result : each_file(verification, verification->folder, "files", "files", check_kept_file);
}

int verify_blocks(const char *folder, bool repair, const struct verify_report *report,
                  struct verify_result *result_out, struct error *error)
{
    return verify(folder, repair, report, result_out, error, check_blocks, NULL);
}
