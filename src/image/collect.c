/*
 * Collecting: first everything that a listed version needs is marked, through
 * signatures, manifests and maps that are all verified; only if that succeeds,
 * what is not marked is removed. Only files that publishing makes are ever
 * removed, never what somebody else has put into the folder.
 */
#include "image/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/digest_set.h"
#include "base/file.h"
#include "image/catalog_writer.h"
#include "image/map_file.h"
#include "image/pack.h"

struct collection {
    int folder;
    struct catalog catalog;
    struct digest_set *blocks, *images, *packs, *files; /* marked */
    bool dry_run;
    void (*removed)(void *user, const char *path, uint64_t size);
    void *user;
    struct collect_result *result;
    struct error *error;
};

static int mark_block(void *user, uint64_t block, const struct digest *digest)
{
    struct collection *collection = user;

    (void)block;
    if (digest_set_add(collection->blocks, digest) < 0)
        return error_set(collection->error, ERROR_SYSTEM, "no memory for the list of blocks");
    return 0;
}

static int mark_image(struct collection *collection, const struct digest *image)
{
    cleanup(map_file_finish) struct map_file map = {0};
    int result, fresh = digest_set_add(collection->images, image);

    if (fresh < 0)
        return error_set(collection->error, ERROR_SYSTEM, "no memory for the list of images");
    if (!fresh)
        return 0;
    result = map_file_read(collection->folder, image, &map, collection->error);
    return result ? result : map_file_each(&map, mark_block, collection);
}

/* What the hints name is kept, although it could be made again. */
static int mark_hints(struct collection *collection, const struct catalog_version *version)
{
    cleanup(hints_finish) struct hints hints = {0};
    int result = hints_load(collection->folder, version->name, version->version, &hints, collection->error);

    for (size_t i = 0; !result && i < hints.pack_count; i++)
        if (digest_set_add(collection->packs, &hints.packs[i].table) < 0)
            result = error_set(collection->error, ERROR_SYSTEM, "no memory for the list of packs");
    if (!result && !digest_is_zero(&hints.profile) && digest_set_add(collection->files, &hints.profile) < 0)
        result = error_set(collection->error, ERROR_SYSTEM, "no memory for the list of files");
    return result;
}

static int mark_version(struct collection *collection, const struct catalog_version *version)
{
    auto_free struct manifest *manifest = calloc(1, sizeof(*manifest));
    cleanup(buffer_finish) struct buffer text = {0};
    char path[ARCHIVE_PATH_MAX];
    struct digest digest;
    int result;

    if (!manifest)
        return error_set(collection->error, ERROR_SYSTEM, "no memory for a manifest");
    archive_path_manifest(version->name, version->version, path);
    result = file_read(collection->folder, path, MANIFEST_SIZE_MAX, &text, collection->error);
    if (result)
        return result;
    digest_of(text.bytes, text.size, &digest);
    if (!digest_equal(&digest, &version->manifest))
        return error_set(collection->error, ERROR_CORRUPT, "%s is not the manifest that the catalog lists", path);
    result = manifest_parse(text.bytes, text.size, manifest, collection->error);
    if (result)
        return error_prefix(collection->error, "%s", path);
    for (size_t i = 0; !result && i < manifest->disk_count; i++)
        result = mark_image(collection, &manifest->disks[i].image);
    return result ? result : mark_hints(collection, version);
}

static int read_catalog(struct collection *collection, const struct trusted_keys *trusted)
{
    cleanup(buffer_finish) struct buffer text = {0};
    cleanup(buffer_finish) struct buffer signature = {0};
    struct error *error = collection->error;
    int result = file_read(collection->folder, ARCHIVE_CATALOG, CATALOG_SIZE_MAX, &text, error);

    if (!result && trusted) {
        result = file_read(collection->folder, ARCHIVE_CATALOG SIGNATURE_SUFFIX, SIGNATURE_FILE_MAX, &signature,
                           error);
        if (result == ERROR_NOT_FOUND)
            result = error_set(error, ERROR_UNTRUSTED, ARCHIVE_CATALOG " has no signature");
        if (!result)
            result = signature_verify((const char *)signature.bytes, signature.size, text.bytes, text.size, trusted,
                                      NULL, NULL, error);
    }
    return result ? result : catalog_parse(text.bytes, text.size, &collection->catalog, error);
}

static int mark(struct collection *collection, const struct trusted_keys *trusted)
{
    int result = read_catalog(collection, trusted);

    for (size_t i = 0; !result && i < collection->catalog.version_count; i++)
        result = mark_version(collection, &collection->catalog.versions[i]);
    /* What is listed and missing is damage as well: removing more would only make it worse. */
    if (result == ERROR_NOT_FOUND && collection->catalog.version_count)
        result = collection->error->code = ERROR_CORRUPT;
    if (result)
        error_prefix(collection->error, "nothing was removed");
    return result;
}

static bool needs_block(struct collection *collection, const char *folder, const char *name)
{
    struct digest digest;

    (void)folder;
    return !digest_parse(name, &digest) || digest_set_has(collection->blocks, &digest);
}

/* Name without SUFFIX into STEM (NAME_MAX + 1 characters); false if it does not end so. */
static bool cut_suffix(const char *name, const char *suffix, char *stem)
{
    size_t length = strlen(name), suffix_length = strlen(suffix);

    if (length <= suffix_length || length > NAME_MAX || strcmp(name + length - suffix_length, suffix))
        return false;
    memcpy(stem, name, length - suffix_length);
    stem[length - suffix_length] = '\0';
    return true;
}

static bool needs_map(struct collection *collection, const char *folder, const char *name)
{
    struct digest digest;
    char stem[NAME_MAX + 1];

    (void)folder;
    return !cut_suffix(name, ".map", stem) || !digest_parse(stem, &digest) ||
           digest_set_has(collection->images, &digest);
}

static bool needs_pack(struct collection *collection, const char *folder, const char *name)
{
    struct digest digest;
    char stem[NAME_MAX + 1];

    (void)folder;
    return !cut_suffix(name, ".pack", stem) || !digest_parse(stem, &digest) ||
           digest_set_has(collection->packs, &digest);
}

static bool needs_file(struct collection *collection, const char *folder, const char *name)
{
    struct digest digest;

    (void)folder;
    return !digest_parse(name, &digest) || digest_set_has(collection->files, &digest);
}

/* FOLDER is "images/NAME". */
static bool needs_manifest(struct collection *collection, const char *folder, const char *name)
{
    static const char *const suffixes[] = {".hints.json", (".json" SIGNATURE_SUFFIX), ".json"};
    char version[NAME_MAX + 1];

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++)
        if (cut_suffix(name, suffixes[i], version))
            return catalog_find(&collection->catalog, strrchr(folder, '/') + 1,
                                strcmp(version, "_newest") ? version : NULL);
    return true;
}

/*
 * The folders of an archive, and what of the files in them is needed. Where that is not known here (NULL) only
 * left-over temporary files go.
 */
static const struct part {
    const char *path;
    bool nested; /* the files are one folder further down */
    bool (*needed)(struct collection *collection, const char *folder, const char *name);
} parts[] = {
    {".", false, NULL},     {"images", true, needs_manifest}, {"maps", false, needs_map},
    {"packs", false, needs_pack}, {"files", false, needs_file}, {"blocks", true, needs_block},
};

/* Remove or keep the file NAME of FOLDER, which is open as FD. */
static int sweep_file(struct collection *collection, const struct part *part, int fd, const char *folder,
                      const char *name)
{
    bool temporary = file_is_temporary(name);
    char path[2 * ARCHIVE_PATH_MAX];
    struct stat status;

    if (fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW) || !S_ISREG(status.st_mode))
        return 0;
    snprintf(path, sizeof(path), "%s%s%s", strcmp(folder, ".") ? folder : "", strcmp(folder, ".") ? "/" : "", name);
    if (!temporary && (!part->needed || part->needed(collection, folder, name))) {
        collection->result->kept_files++;
        collection->result->kept_bytes += (uint64_t)status.st_size;
        return 0;
    }
    if (!collection->dry_run && unlinkat(fd, name, 0) && errno != ENOENT)
        return error_set_errno(collection->error, errno, "cannot remove %s", path);
    collection->result->files++;
    collection->result->bytes += (uint64_t)status.st_size;
    if (collection->removed)
        collection->removed(collection->user, path, (uint64_t)status.st_size);
    return 0;
}

static void close_folder(DIR **folder)
{
    if (*folder)
        closedir(*folder);
}

/* PARENT: an open folder; NAME: below it; PATH: the same from the archive on. DEPTH: levels of folders before files. */
static int sweep_folder(struct collection *collection, const struct part *part, int parent, const char *name,
                        const char *path, unsigned depth)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    cleanup(close_folder) DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int result = 0;

    if (!folder) {
        if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) /* nothing of ours */
            return 0;
        return error_set_errno(collection->error, errno, "cannot open the folder %s", path);
    }
    while (!result && (errno = 0, entry = readdir(folder))) {
        char inner[2 * ARCHIVE_PATH_MAX];

        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (depth == 0 || file_is_temporary(entry->d_name)) {
            result = sweep_file(collection, part, fd, path, entry->d_name);
            continue;
        }
        snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        result = sweep_folder(collection, part, fd, entry->d_name, inner, depth - 1);
        if (!result && !collection->dry_run)
            unlinkat(fd, entry->d_name, AT_REMOVEDIR); /* succeeds only if it is empty */
    }
    if (!result && !entry && errno)
        return error_set_errno(collection->error, errno, "cannot read the folder %s", path);
    return result;
}

/* A client's cache has links to folders that its archives share: what is in them is not ours to remove. */
static int refuse_links(struct collection *collection)
{
    struct stat status;

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (!fstatat(collection->folder, parts[i].path, &status, AT_SYMLINK_NOFOLLOW) && S_ISLNK(status.st_mode))
            return error_set(collection->error, ERROR_INVALID,
                             "%s is a symbolic link, and others may need what it leads to; nothing was removed",
                             parts[i].path);
    return 0;
}

static int collect(struct collection *collection, const struct trusted_keys *trusted)
{
    int result = refuse_links(collection);

    if (!result)
        result = mark(collection, trusted);
    for (size_t i = 0; !result && i < sizeof(parts) / sizeof(parts[0]); i++)
        result = sweep_folder(collection, &parts[i], collection->folder, parts[i].path, parts[i].path,
                              parts[i].nested);
    return result;
}

int publish_collect(const char *archive, const struct trusted_keys *trusted, bool dry_run,
                    void (*removed)(void *user, const char *path, uint64_t size), void *user,
                    struct collect_result *result_out, struct error *error)
{
    struct error unwanted;
    auto_close int folder = file_open_folder(archive, false, error ? error : (error = &unwanted));
    auto_close int lock = folder < 0 ? folder : archive_lock(folder, false, error);
    struct collection collection = {
        .folder = folder,
        .blocks = digest_set_create(),
        .images = digest_set_create(),
        .packs = digest_set_create(),
        .files = digest_set_create(),
        .dry_run = dry_run,
        .removed = removed,
        .user = user,
        .result = result_out,
        .error = error,
    };
    int result = lock < 0 ? lock : 0;

    *result_out = (struct collect_result){0};
    if (!result && (!collection.blocks || !collection.images || !collection.packs || !collection.files))
        result = error_set(error, ERROR_SYSTEM, "no memory for the list of blocks");
    if (!result)
        result = collect(&collection, trusted);
    digest_set_destroy(collection.blocks);
    digest_set_destroy(collection.images);
    digest_set_destroy(collection.packs);
    digest_set_destroy(collection.files);
    catalog_finish(&collection.catalog);
    if (result && folder >= 0)
        error_prefix(error, "%s", archive);
    return result;
}
