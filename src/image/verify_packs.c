/*
 * Verifying what the hints of an archive name: packs, frame by frame on several
 * threads, and profiles. No reader is given a wrong byte because of any of it,
 * only later ones, so each fault says what it costs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/parallel.h"
#include "format/hints.h"
#include "format/pack.h"
#include "image/packs.h"
#include "image/verify_internal.h"

#define WHAT_MAX (sizeof(((struct error *)NULL)->message) + 400)

/* ---- Files ---- */

static int open_file(const struct verification *verification, const char *path, struct stat *status,
                     struct error *error)
{
    auto_close int fd = openat(verification->folder, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait */

    if (fd < 0)
        return errno == ENOENT ? error_set(error, ERROR_NOT_FOUND, "is missing")
                               : error_set_errno(error, errno, "cannot be opened");
    if (fstat(fd, status))
        return error_set_errno(error, errno, "cannot be looked at");
    if (!S_ISREG(status->st_mode))
        return error_set(error, ERROR_CORRUPT, "is not a regular file");
    return steal_fd(&fd);
}

int verify_file_digest(struct verification *verification, const char *path, const struct digest *digest,
                       uint64_t *size_out, struct error *error)
{
    struct stat status;
    auto_close int fd = open_file(verification, path, &status, error);
    auto_free uint8_t *piece = malloc(MIB);
    struct hash *hash = hash_create();
    struct digest found;
    ssize_t got = MIB;

    *size_out = 0;
    if (fd >= 0 && (!piece || !hash))
        got = error_set(error, ERROR_SYSTEM, "no memory to read it");
    while (fd >= 0 && got == MIB) {
        got = file_pread_full(fd, piece, MIB, *size_out, error);
        if (got > 0) {
            hash_update(hash, piece, (size_t)got);
            *size_out += (uint64_t)got;
        }
    }
    if (fd >= 0 && got >= 0)
        hash_final(hash, &found);
    hash_destroy(hash);
    if (fd < 0 || got < 0)
        return fd < 0 ? fd : (int)got;
    return digest_equal(&found, digest) ? 0 : error_set(error, ERROR_CORRUPT, "digest differs");
}

/* ---- Hints ---- */

static const char *hints_path(const struct catalog_version *version, bool newest, char *path)
{
    return newest ? archive_path_newest_hints(version->name, path)
                  : archive_path_hints(version->name, version->version, path);
}

static void check_profile(struct verification *verification, const struct digest *profile, const char *named_by)
{
    struct error error = ERROR_INIT;
    char path[ARCHIVE_PATH_MAX], what[WHAT_MAX];
    uint64_t size;
    int result = verify_file_digest(verification, archive_path_file(profile, path), profile, &size, &error);

    if (result != ERROR_NOT_FOUND)
        verification_count(verification, 1, size);
    if (!result)
        return;
    snprintf(what, sizeof(what), "%s; %s names it, and readers do without this profile", error.message, named_by);
    verification_tell(verification, path, what, result == ERROR_NOT_FOUND);
}

/* 1: nobody else has named it. */
static int is_new(struct verification *verification, const void *key, size_t size)
{
    struct digest digest;
    int fresh;

    digest_of(key, size, &digest);
    fresh = digest_set_add(verification->seen, &digest);
    return fresh < 0 ? error_set(verification->error, ERROR_SYSTEM, "no memory for the list of packs") : fresh;
}

static int add_pack(struct verification *verification, const struct named_pack *pack, struct named_packs *packs)
{
    uint8_t key[DIGEST_SIZE + 16]; /* the same pack with other sizes in other hints is looked at again */
    struct named_pack *items;
    int fresh;

    memcpy(key, pack->table.bytes, DIGEST_SIZE);
    store_le64(key + DIGEST_SIZE, pack->size);
    store_le64(key + DIGEST_SIZE + 8, pack->table_size);
    fresh = is_new(verification, key, sizeof(key));
    if (fresh <= 0)
        return fresh;
    items = array_grow(packs->items, packs->count, &packs->capacity, sizeof(*items));
    if (!items)
        return error_set(verification->error, ERROR_SYSTEM, "no memory for the list of packs");
    packs->items = items;
    items[packs->count++] = *pack;
    verification->total_bytes += pack->size;
    return 0;
}

/* The hints in PATH. False: there are none, or they are told of. */
static bool read_hints(struct verification *verification, const char *path, struct hints *hints_out)
{
    cleanup(buffer_finish) struct buffer text = {0};
    struct error error = ERROR_INIT;
    char what[WHAT_MAX];
    int result = file_read(verification->folder, path, HINTS_SIZE_MAX, &text, &error);

    *hints_out = (struct hints){0};
    if (!result)
        result = hints_parse(text.bytes, text.size, hints_out, &error);
    if (result && result != ERROR_NOT_FOUND) {
        snprintf(what, sizeof(what), "%s; readers do without these hints", error.message);
        verification_tell(verification, path, what, false);
    }
    if (!result)
        verification_count(verification, 1, text.size);
    return !result;
}

static int check_hints(struct verification *verification, const struct catalog_version *version, bool newest,
                       struct named_packs *packs)
{
    cleanup(hints_finish) struct hints hints = {0};
    char path[ARCHIVE_PATH_MAX];
    int result;

    if (!read_hints(verification, hints_path(version, newest, path), &hints))
        return 0;
    /* Left from before the version was published anew, or a newer one was: no reader heeds them. */
    if (!digest_is_zero(&hints.image) && !digest_equal(&hints.image, &version->image))
        return 0;
    result = digest_is_zero(&hints.profile) ? 0 : is_new(verification, &hints.profile, sizeof(hints.profile));
    if (result > 0) {
        check_profile(verification, &hints.profile, path);
        result = 0;
    }
    for (size_t i = 0; !result && i < hints.pack_count; i++)
        result = add_pack(verification, &(struct named_pack){hints.packs[i].table, hints.packs[i].size,
                                                             hints.packs[i].table_size, version, newest}, packs);
    return result;
}

int verify_hints(struct verification *verification, const struct catalog *catalog, struct named_packs *packs_out)
{
    int result = 0;

    for (size_t i = 0; !result && i < catalog->version_count; i++) {
        const struct catalog_version *version = &catalog->versions[i];

        result = check_hints(verification, version, false, packs_out);
        if (!result && catalog_find(catalog, version->name, NULL) == version)
            result = check_hints(verification, version, true, packs_out);
    }
    return result;
}

/* ---- Packs ---- */

struct pack_check {
    struct verification *verification;
    const struct pack_table *table;
    const char *path;
    int fd;
    uint32_t whole;     /* entries that lie within the file */
    atomic_size_t next; /* of them */
};

/* A fault for which readers leave all of the pack. */
static void tell_useless(struct verification *verification, const struct named_pack *pack, const char *path,
                         const struct error *error)
{
    char named_by[ARCHIVE_PATH_MAX], what[WHAT_MAX];

    hints_path(pack->version, pack->newest, named_by);
    snprintf(what, sizeof(what), "%s; %s names it, and readers fetch its blocks apart", error->message, named_by);
    verification_tell(verification, path, what, error->code == ERROR_NOT_FOUND);
}

static int check_frame(struct pack_check *check, const struct pack_entry *entry, struct buffer *frame, uint8_t *block,
                       struct error *error)
{
    ssize_t got;

    frame->size = 0;
    if (!buffer_reserve(frame, entry->frame_size))
        return error_set(error, ERROR_SYSTEM, "no memory to check it");
    got = file_pread_full(check->fd, frame->bytes, entry->frame_size, entry->offset, error);
    if (got < 0)
        return (int)got;
    if (got < (ssize_t)entry->frame_size)
        return error_set(error, ERROR_CORRUPT, "the file ends in it");
    return block_verify(frame->bytes, entry->frame_size, &entry->digest, entry->block_length, block, error);
}

static void check_entry(struct pack_check *check, const struct pack_entry *entry, struct buffer *frame, uint8_t *block)
{
    struct error error = ERROR_INIT;
    char where[ARCHIVE_PATH_MAX + DIGEST_TEXT + 48], what[WHAT_MAX], digest[DIGEST_TEXT];

    if (!check_frame(check, entry, frame, block, &error))
        return;
    snprintf(where, sizeof(where), "block %s at offset %llu of %s", digest_format(&entry->digest, digest),
             (unsigned long long)entry->offset, check->path);
    snprintf(what, sizeof(what), "%s; readers fetch this block apart", error.message);
    verification_tell(check->verification, where, what, false);
}

static void check_frames(void *user)
{
    struct pack_check *check = user;
    struct verification *verification = check->verification;
    cleanup(buffer_finish) struct buffer frame = {0};
    auto_free uint8_t *block = malloc(BLOCK_SIZE_MAX);
    size_t at;

    if (!block) {
        verification_tell(verification, check->path, "no memory to check it", false);
        return;
    }
    while (!verification->cancelled && (at = atomic_fetch_add(&check->next, 1)) < check->whole) {
        const struct pack_entry *entry = &check->table->entries[at];

        check_entry(check, entry, &frame, block);
        verification_count(verification, 0, entry->frame_size);
        verification_progress(verification, entry->frame_size);
    }
}

/* Header and table, if they are what the pack's name and the hints say. */
static int read_table(const struct named_pack *pack, int fd, struct pack_table *table_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer bytes = {0};
    uint64_t table_size;
    ssize_t got;
    int result;

    if (pack->table_size > PACKS_TABLES_MAX)
        return error_set(error, ERROR_CORRUPT, "its table of %llu bytes is larger than any that readers take",
                         (unsigned long long)pack->table_size);
    if (!buffer_reserve(&bytes, (size_t)pack->table_size))
        return error_set(error, ERROR_SYSTEM, "no memory for its table");
    got = file_pread_full(fd, bytes.bytes, (size_t)pack->table_size, 0, error);
    if (got < 0)
        return (int)got;
    result = pack_parse_header(bytes.bytes, (size_t)got, &table_size, error);
    if (result)
        return result;
    if (table_size != pack->table_size)
        return error_set(error, ERROR_CORRUPT, "its table has %llu bytes, the hints say %llu",
                         (unsigned long long)table_size, (unsigned long long)pack->table_size);
    if ((uint64_t)got < table_size)
        return error_set(error, ERROR_CORRUPT, "the file ends in its table");
    result = pack_parse_table_of(&pack->table, bytes.bytes, (size_t)got, table_out, error);
    if (!result && table_out->file_size != pack->size) {
        result = error_set(error, ERROR_CORRUPT, "it has %llu bytes by its header, the hints say %llu",
                           (unsigned long long)table_out->file_size, (unsigned long long)pack->size);
        pack_table_finish(table_out);
    }
    return result;
}

/* FILE_SIZE is not what header and hints say. */
static void tell_size(const struct pack_check *check, uint64_t file_size)
{
    const struct pack_table *table = check->table;
    uint32_t lost = table->count - check->whole;
    char where[ARCHIVE_PATH_MAX + 128], what[256];

    snprintf(what, sizeof(what), "it has %llu bytes, its header and the hints say %llu; readers take no harm",
             (unsigned long long)file_size, (unsigned long long)table->file_size);
    if (!lost) {
        verification_tell(check->verification, check->path, what, false);
        return;
    }
    snprintf(where, sizeof(where), "%u blocks from offset %llu of %s on", lost,
             (unsigned long long)table->entries[check->whole].offset, check->path);
    snprintf(what, sizeof(what), "the file ends before them, after %llu bytes where its header and the hints say %llu; "
             "readers fetch these blocks apart", (unsigned long long)file_size, (unsigned long long)table->file_size);
    verification_tell(check->verification, where, what, false);
}

static int check_pack(struct verification *verification, const struct named_pack *pack)
{
    struct pack_table table = {0};
    struct error error = ERROR_INIT;
    char path[ARCHIVE_PATH_MAX];
    struct stat status;
    auto_close int fd = open_file(verification, archive_path_pack(&pack->table, path), &status, &error);
    struct pack_check check = {
        .verification = verification, .table = &table, .path = path, .fd = fd,
    };

    if (fd >= 0)
        read_table(pack, fd, &table, &error);
    if (error.code) {
        tell_useless(verification, pack, path, &error);
        verification_progress(verification, pack->size);
        return verification_go_on(verification);
    }
    verification_count(verification, 1, pack->table_size);
    verification_progress(verification, pack->table_size);
    while (check.whole < table.count &&
           table.entries[check.whole].offset + table.entries[check.whole].frame_size <= (uint64_t)status.st_size)
        check.whole++;
    if ((uint64_t)status.st_size != table.file_size)
        tell_size(&check, (uint64_t)status.st_size);
    parallel_run(parallel_count(0), check_frames, &check);
    pack_table_finish(&table);
    return verification_go_on(verification);
}

int verify_packs(struct verification *verification, const struct named_packs *packs)
{
    int result = 0;

    for (size_t i = 0; !result && i < packs->count; i++)
        result = check_pack(verification, &packs->items[i]);
    return result;
}
