/*
 * Publishing in this order: blocks, map, one flush of everything to the disk,
 * then under the catalog's lock manifest and catalog. What a reader can find
 * through a catalog is therefore always there and durable.
 */
#include "image/publish.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "format/frame.h"
#include "format/json.h"
#include "image/blocks_writer.h"
#include "image/catalog_writer.h"
#include "image/pack.h"

/*
 * An update's blocks are few and fetched by all who have the version before: unless a level was asked for, they are
 * compressed by 10 % more, which costs a hundredth of a second a block. That ends after so many bytes, for the new
 * version may well have nothing in common with the old one.
 */
#define UPDATE_LEVEL 15
#define UPDATE_DENSE_BYTES (128 * MIB)

DEFINE_CLEANUP(map_builder_destroy, struct map_builder *)

/* One publish_image on its way. */
struct publication {
    const struct publish_settings *settings;
    const char *input;
    int input_fd, folder;
    uint32_t block_size;
    uint64_t disk_size;
    bool updates; /* a version in blocks of the same size is listed already */
    struct digest image;
    struct blocks_count count;
};

/* Name the archive in the message of a RESULT that is not 0. */
static int blame_archive(const struct publication *publication, int result, struct error *error)
{
    return result ? error_prefix(error, "%s", publication->settings->archive) : 0;
}

static int check_settings(const struct publish_settings *settings, struct error *error)
{
    int result = name_check("name", settings->name, error);

    if (!result)
        result = name_check("version", settings->version, error);
    if (result)
        return result;
    if (settings->level < 0 || settings->level > FRAME_LEVEL_MAX)
        return error_set(error, ERROR_INVALID, "compression level %d is not 1 to %d", settings->level,
                         FRAME_LEVEL_MAX);
    if (settings->architecture && strlen(settings->architecture) >= sizeof(((struct manifest *)0)->architecture))
        return error_set(error, ERROR_INVALID, "the architecture is longer than %zu characters",
                         sizeof(((struct manifest *)0)->architecture) - 1);
    if (settings->description && strlen(settings->description) > MANIFEST_TEXT_MAX)
        return error_set(error, ERROR_INVALID, "the description is longer than %d bytes", MANIFEST_TEXT_MAX);
    if (settings->architecture && json_check_text(settings->architecture, error))
        return error_prefix(error, "the architecture");
    if (settings->description && json_check_text(settings->description, error))
        return error_prefix(error, "the description");
    return 0;
}

/* Size of the input, with its times in STATUS_OUT. */
static int measure_input(struct publication *publication, struct stat *status_out, struct error *error)
{
    struct map map;
    off_t size;
    int result;

    if (fstat(publication->input_fd, status_out))
        return error_set_errno(error, errno, "cannot look at %s", publication->input);
    if (!S_ISREG(status_out->st_mode) && !S_ISBLK(status_out->st_mode))
        return error_set(error, ERROR_INVALID, "%s is neither a regular file nor a block device",
                         publication->input);
    size = S_ISREG(status_out->st_mode) ? status_out->st_size : lseek(publication->input_fd, 0, SEEK_END);
    if (size < 0)
        return error_set_errno(error, errno, "cannot find the size of %s", publication->input);
    if (size == 0)
        return error_set(error, ERROR_INVALID, "%s is empty", publication->input);
    publication->disk_size = (uint64_t)size;
    result = map_init(&map, publication->block_size, publication->disk_size, error);
    return result ? error_prefix(error, "%s", publication->input) : 0;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/*
 * A change in the tick of the kernel's clock in which BEFORE was looked at need not show in the times: let it pass.
 * (File systems with times of whole seconds, and servers' clocks, have longer ticks.)
 */
static void pass_tick(const struct stat *before)
{
    struct timespec now;

    for (int tries = 0; tries < 20; tries++) {
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
        if (now.tv_sec != before->st_ctim.tv_sec ? now.tv_sec > before->st_ctim.tv_sec
                                                 : now.tv_nsec > before->st_ctim.tv_nsec)
            return;
        clock_sleep_ms(1);
    }
}

/* CHANGED if the input is not as it was BEFORE. */
static int check_unchanged(const struct publication *publication, const struct stat *before, struct error *error)
{
    const char *what = NULL;
    struct stat now;

    if (fstat(publication->input_fd, &now))
        return error_set_errno(error, errno, "cannot look at %s", publication->input);
    if (now.st_size != before->st_size)
        what = "its size";
    else if (!same_time(&now.st_mtim, &before->st_mtim))
        what = "its time of modification";
    else if (!same_time(&now.st_ctim, &before->st_ctim))
        what = "its time of change";
    if (!what)
        return 0;
    return error_set(error, ERROR_CHANGED, "%s changed while it was read: %s is another now; nothing was published",
                     publication->input, what);
}

/* The map of BUILDER into maps/, unless the same is there. */
static int write_map(struct publication *publication, const struct buffer *file, struct error *error)
{
    char path[ARCHIVE_PATH_MAX];
    struct buffer existing = {0};
    bool same;

    archive_path_map(&publication->image, path);
    same = !file_read(publication->folder, path, file->size, &existing, NULL) && existing.size == file->size &&
           !memcmp(existing.bytes, file->bytes, file->size);
    buffer_finish(&existing);
    if (same)
        return 0;
    return blame_archive(publication, file_write_atomic(publication->folder, path, file->bytes, file->size,
                                                        FILE_MAKE_FOLDERS, error), error);
}

/*
 * Read the input once, store what is new of it (unless ONLY_DIGESTS), and find its image id.
 */
static int store_image(struct publication *publication, bool only_digests, struct error *error)
{
    const struct publish_settings *settings = publication->settings;
    const struct blocks_settings blocks = {
        .folder = publication->folder,
        .folder_name = settings->archive,
        .input = publication->input_fd,
        .input_name = publication->input,
        .block_size = publication->block_size,
        .disk_size = publication->disk_size,
        .level = settings->level ? settings->level : FRAME_LEVEL_DEFAULT,
        .dense_level = UPDATE_LEVEL,
        .dense_bytes = publication->updates && !settings->level ? UPDATE_DENSE_BYTES : 0,
        .job_count = settings->job_count,
        .only_digests = only_digests,
        .progress = settings->progress,
    };
    cleanup(cleanup_map_builder_destroy) struct map_builder *builder = NULL;
    cleanup(buffer_finish) struct buffer file = {0};
    struct map map;
    int result = map_builder_create(blocks.block_size, blocks.disk_size, &builder, error);

    if (!result)
        result = blocks_write(&blocks, builder, &publication->count, error);
    if (!result)
        result = map_builder_finish(builder, &file, &map, error);
    if (result)
        return result;
    map_image_id(&map, &publication->image);
    return only_digests ? 0 : write_map(publication, &file, error);
}

/* store_image, and be sure that it was one image that was read. */
static int store_steady_image(struct publication *publication, bool only_digests, struct error *error)
{
    struct stat before;
    int result = measure_input(publication, &before, error);

    if (result)
        return result;
    pass_tick(&before);
    result = store_image(publication, only_digests, error);
    return result ? result : check_unchanged(publication, &before, error);
}

/* One flush for all files that were written: a flush a file would take minutes. */
static int flush_archive(int folder, struct error *error)
{
    static const char *const parts[] = {"blocks", "maps"};
    struct stat whole, status;

    if (syncfs(folder) || fstat(folder, &whole))
        return error_set_errno(error, errno, "cannot flush the archive to the disk");
    /* A part may be a link to, or a mount of, another file system. */
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        auto_close int fd = openat(folder, parts[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd < 0 || fstat(fd, &status) || (status.st_dev != whole.st_dev && syncfs(fd)))
            return error_set_errno(error, errno, "cannot flush %s of the archive to the disk", parts[i]);
    }
    return 0;
}

static int refuse_other_content(const struct catalog_version *listed, struct error *error)
{
    char image[DIGEST_TEXT];

    return error_set(error, ERROR_EXISTS,
                     "%s@%s is published already with other content (image %.16s..., %llu bytes in blocks of %u); "
                     "choose another version",
                     listed->name, listed->version, digest_format(&listed->image, image),
                     (unsigned long long)listed->disk_size, listed->block_size);
}

static int write_manifest(const struct publication *publication, int64_t now, struct digest *digest_out,
                          struct error *error)
{
    const struct publish_settings *settings = publication->settings;
    auto_free struct manifest *manifest = calloc(1, sizeof(*manifest));
    auto_free char *text = NULL;
    char path[ARCHIVE_PATH_MAX];

    if (manifest) {
        strcpy(manifest->name, settings->name);
        strcpy(manifest->version, settings->version);
        strcpy(manifest->architecture, settings->architecture ? settings->architecture : "");
        strcpy(manifest->description, settings->description ? settings->description : "");
        manifest->published = now;
        manifest->disk_count = 1;
        manifest->disks[0] = (struct manifest_disk){
            .image = publication->image,
            .disk_size = publication->disk_size,
            .block_size = publication->block_size,
            .data_size = publication->count.data_size,
            .stored_size = publication->count.stored_size,
        };
        text = manifest_format(manifest);
    }
    if (!text)
        return error_set(error, ERROR_SYSTEM, "no memory for the manifest");
    digest_of(text, strlen(text), digest_out);
    archive_path_manifest(settings->name, settings->version, path);
    return write_signed(publication->folder, path, text, settings->key, error);
}

/* Manifest and catalog, under the catalog's lock: somebody else may have published the same version meanwhile. */
static int list_version(const struct publication *publication, struct publish_result *result_out,
                        struct error *error)
{
    const struct publish_settings *settings = publication->settings;
    cleanup(catalog_writer_close) struct catalog_writer writer;
    struct catalog_version version = {
        .image = publication->image,
        .disk_size = publication->disk_size,
        .block_size = publication->block_size,
        .data_size = publication->count.data_size,
        .stored_size = publication->count.stored_size,
        .published = clock_wall(),
    };
    const struct catalog_version *listed;
    struct error hint = ERROR_INIT;
    int result = catalog_writer_open(publication->folder, settings->key, &writer, error);

    if (result)
        return result;
    result_out->serial = writer.catalog.serial;
    listed = catalog_find(&writer.catalog, settings->name, settings->version);
    if (listed) {
        result_out->was_listed = true;
        return digest_equal(&listed->image, &publication->image) ? 0 : refuse_other_content(listed, error);
    }
    strcpy(version.name, settings->name);
    strcpy(version.version, settings->version);
    result = write_manifest(publication, version.published, &version.manifest, error);
    if (!result)
        result = catalog_add(&writer.catalog, &version, error);
    if (!result)
        result = catalog_writer_commit(&writer, settings->lifetime_s, error);
    result_out->serial = writer.catalog.serial;
    if (!result && profile_carry_over(publication->folder, &writer.catalog, settings->name, settings->version, &hint))
        log_warning("the profile of the version before was not carried over: %s", hint.message);
    return result;
}

/*
 * Before anything is written: may we publish here, and is this version listed? If it is, with other content than the
 * input has, that is EXISTS.
 */
static int check_archive(struct publication *publication, struct error *error)
{
    const struct publish_settings *settings = publication->settings;
    cleanup(catalog_writer_close) struct catalog_writer writer;
    const struct catalog_version *listed;
    struct catalog_version copy;
    int result = catalog_writer_open(publication->folder, settings->key, &writer, error);

    if (result)
        return blame_archive(publication, result, error);
    listed = catalog_find(&writer.catalog, settings->name, settings->version);
    if (!listed) {
        listed = catalog_find(&writer.catalog, settings->name, NULL);
        publication->updates = listed && listed->block_size == publication->block_size;
        return 0;
    }
    copy = *listed;
    catalog_writer_close(&writer); /* reading the input takes long */
    result = store_steady_image(publication, true, error);
    if (!result && !digest_equal(&copy.image, &publication->image))
        result = blame_archive(publication, refuse_other_content(&copy, error), error);
    return result;
}

static int publish(struct publication *publication, struct publish_result *result_out, struct error *error)
{
    auto_close int lock = archive_lock(publication->folder, true, error);
    int result = lock < 0 ? blame_archive(publication, lock, error) : check_archive(publication, error);

    if (!result)
        result = store_steady_image(publication, false, error);
    if (!result)
        result = blame_archive(publication, flush_archive(publication->folder, error), error);
    if (!result)
        result = blame_archive(publication, list_version(publication, result_out, error), error);
    if (result)
        return result;
    result_out->image = publication->image;
    result_out->disk_size = publication->disk_size;
    result_out->data_size = publication->count.data_size;
    result_out->stored_size = publication->count.stored_size;
    result_out->new_blocks = publication->count.new_blocks;
    result_out->new_bytes = publication->count.new_bytes;
    return 0;
}

int publish_image(const struct publish_settings *settings, int fd, const char *input,
                  struct publish_result *result_out, struct error *error)
{
    auto_close int folder = -1;
    struct publication publication = {
        .settings = settings,
        .input = input,
        .input_fd = fd,
        .block_size = settings->block_size ? settings->block_size : BLOCK_SIZE_DEFAULT,
    };
    struct error unwanted;
    struct stat status;
    int result = check_settings(settings, error ? error : (error = &unwanted));

    *result_out = (struct publish_result){0};
    if (!result) /* before the archive is made */
        result = measure_input(&publication, &status, error);
    if (result)
        return result;
    folder = file_open_folder(settings->archive, true, error);
    if (folder < 0)
        return folder;
    publication.folder = folder;
    return publish(&publication, result_out, error);
}

/* Change the catalog with CHANGE (may be NULL) and publish it. */
static int change_catalog(const char *archive, const struct secret_key *key, uint64_t lifetime_s,
                          int (*change)(struct catalog *catalog, void *user, struct error *error), void *user,
                          uint64_t *serial_out, struct error *error)
{
    struct error unwanted;
    auto_close int folder = file_open_folder(archive, false, error ? error : (error = &unwanted));
    auto_close int lock = folder < 0 ? folder : archive_lock(folder, true, error);
    cleanup(catalog_writer_close) struct catalog_writer writer = {.lock = -1};
    int result = lock < 0 ? lock : catalog_writer_open(folder, key, &writer, error);

    if (!result && writer.text.size == 0)
        result = error_set(error, ERROR_NOT_FOUND, "there is no " ARCHIVE_CATALOG);
    if (!result && change)
        result = change(&writer.catalog, user, error);
    if (!result)
        result = catalog_writer_commit(&writer, lifetime_s, error);
    if (result)
        return folder < 0 ? result : error_prefix(error, "%s", archive);
    *serial_out = writer.catalog.serial;
    return 0;
}

int publish_renew(const char *archive, const struct secret_key *key, uint64_t lifetime_s, uint64_t *serial_out,
                  struct error *error)
{
    return change_catalog(archive, key, lifetime_s, NULL, NULL, serial_out, error);
}

struct unlisting {
    const char *name, *version;
};

static int unlist(struct catalog *catalog, void *user, struct error *error)
{
    const struct unlisting *unlisting = user;

    return catalog_remove(catalog, unlisting->name, unlisting->version, error);
}

int publish_unlist(const char *archive, const struct secret_key *key, uint64_t lifetime_s, const char *name,
                   const char *version, uint64_t *serial_out, struct error *error)
{
    struct unlisting unlisting = {name, version};

    return change_catalog(archive, key, lifetime_s, unlist, &unlisting, serial_out, error);
}
