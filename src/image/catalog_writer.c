/*
 * Replacing a signed catalog. Two files cannot be renamed at once, but a
 * signature file may hold several signatures, so there are three steps:
 *   1. catalog.json.minisig := old signatures, new signature
 *   2. catalog.json         := new catalog
 *   3. catalog.json.minisig := new signature
 * Each is durable before the next, and after each the pair verifies.
 */
#include "image/catalog_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

#define ARCHIVE_LOCK ".lock"
#define CATALOG_LOCK ".catalog-lock"
#define LIFETIME_MAX_S (UINT64_C(36525) * 86400)

static int lock_file(int folder, const char *name, bool shared, struct error *error)
{
    auto_close int fd = openat(folder, name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    int result;

    if (fd < 0)
        return error_set_errno(error, errno, "cannot open %s of the archive", name);
    result = file_lock(fd, shared, true, error);
    if (result == ERROR_BUSY) {
        log_info("waiting for another process that works on this archive");
        result = file_lock(fd, shared, false, error);
    }
    if (result)
        return error_prefix(error, "%s of the archive", name);
    return steal_fd(&fd);
}

int archive_lock(int folder, bool shared, struct error *error)
{
    return lock_file(folder, ARCHIVE_LOCK, shared, error);
}

/* The end of the four-line signature that starts at TEXT; NULL if there are not four whole lines. */
static const char *signature_end(const char *text, const char *end)
{
    for (int line = 0; text && line < 4; line++) {
        text = text < end ? memchr(text, '\n', (size_t)(end - text)) : NULL;
        if (text)
            text++;
    }
    return text;
}

/*
 * Keep of the signatures those that are good for TEXT by our key; the others are of catalogs that a crash kept
 * from appearing.
 */
static void keep_good_signatures(struct catalog_writer *writer, const struct trusted_keys *own)
{
    const char *at = (const char *)writer->signatures.bytes;
    const char *end = at + writer->signatures.size, *next;
    size_t kept = 0;

    for (; (next = signature_end(at, end)); at = next) {
        size_t size = (size_t)(next - at);

        if (signature_verify(at, size, writer->text.bytes, writer->text.size, own, NULL, NULL, NULL))
            continue;
        memmove(writer->signatures.bytes + kept, at, size);
        kept += size;
    }
    writer->signatures.size = kept;
}

/* Check that the catalog in memory is ours. */
static int check_ours(struct catalog_writer *writer, struct error *error)
{
    struct public_key key;
    struct trusted_keys own = {&key, 1};
    int result;

    secret_key_public(writer->key, &key);
    result = signature_verify((const char *)writer->signatures.bytes, writer->signatures.size, writer->text.bytes,
                              writer->text.size, &own, NULL, NULL, error);
    if (result == ERROR_CORRUPT)
        return error_prefix(error, ARCHIVE_CATALOG SIGNATURE_SUFFIX);
    if (result) {
        char ours[KEY_NUMBER_TEXT];

        return error_prefix(error, "this archive cannot be changed with key %s",
                            key_number_format(key.number, ours));
    }
    keep_good_signatures(writer, &own);
    return 0;
}

static int read_catalog(struct catalog_writer *writer, struct error *error)
{
    struct error reason = ERROR_INIT;
    int result = file_read(writer->folder, ARCHIVE_CATALOG, CATALOG_SIZE_MAX, &writer->text, &reason);

    if (result == ERROR_NOT_FOUND) {
        catalog_make_id(writer->catalog.archive);
        return 0;
    }
    if (result)
        error_copy(error, &reason);
    else
        result = file_read(writer->folder, ARCHIVE_CATALOG SIGNATURE_SUFFIX, SIGNATURE_FILE_MAX,
                           &writer->signatures, error);
    if (result == ERROR_NOT_FOUND)
        return error_set(error, ERROR_UNTRUSTED, ARCHIVE_CATALOG " is there, but its signature "
                         ARCHIVE_CATALOG SIGNATURE_SUFFIX " is not");
    if (!result)
        result = check_ours(writer, error);
    if (result)
        return result;
    result = catalog_parse(writer->text.bytes, writer->text.size, &writer->catalog, error);
    return result ? error_prefix(error, ARCHIVE_CATALOG) : 0;
}

int catalog_writer_open(int folder, const struct secret_key *key, struct catalog_writer *writer_out,
                        struct error *error)
{
    int result;

    *writer_out = (struct catalog_writer){.folder = folder, .lock = -1, .key = key};
    writer_out->lock = lock_file(folder, CATALOG_LOCK, false, error);
    if (writer_out->lock < 0) {
        result = writer_out->lock;
        writer_out->lock = -1;
        return result;
    }
    result = read_catalog(writer_out, error);
    if (result)
        catalog_writer_close(writer_out);
    return result;
}

void catalog_writer_close(struct catalog_writer *writer)
{
    catalog_finish(&writer->catalog);
    writer->catalog = (struct catalog){0};
    buffer_finish(&writer->text);
    buffer_finish(&writer->signatures);
    if (writer->lock >= 0)
        close(writer->lock);
    writer->lock = -1;
}

static int replace(int folder, const char *path, const void *bytes, size_t size, struct error *error)
{
    return file_write_atomic(folder, path, bytes, size, FILE_DURABLE | FILE_MAKE_FOLDERS, error);
}

/* The three steps; see the head of this file. */
static int replace_catalog(struct catalog_writer *writer, const char *text, const char *signature,
                           struct error *error)
{
    int folder = writer->folder;
    int result;

    if (!buffer_append(&writer->signatures, signature, strlen(signature)))
        return error_set(error, ERROR_SYSTEM, "no memory for signatures");
    result = replace(folder, ARCHIVE_CATALOG SIGNATURE_SUFFIX, writer->signatures.bytes, writer->signatures.size,
                     error);
    if (!result)
        result = replace(folder, ARCHIVE_CATALOG, text, strlen(text), error);
    if (result)
        return result;
    /* What remains is tidying: the new catalog is out, and good with either signature file. */
    struct error untidy = ERROR_INIT;

    if (replace(folder, ARCHIVE_CATALOG SIGNATURE_SUFFIX, signature, strlen(signature), &untidy))
        log_warning("an old signature stays in " ARCHIVE_CATALOG SIGNATURE_SUFFIX ": %s", untidy.message);
    return 0;
}

int catalog_writer_commit(struct catalog_writer *writer, uint64_t lifetime_s, struct error *error)
{
    struct catalog *catalog = &writer->catalog;
    auto_free char *text = NULL;
    auto_free char *signature = NULL;
    char comment[128];

    if (lifetime_s == 0)
        lifetime_s = CATALOG_LIFETIME_S;
    catalog->serial++;
    catalog->published = clock_wall();
    if (lifetime_s > LIFETIME_MAX_S)
        return error_set(error, ERROR_INVALID, "a catalog cannot be valid for more than 100 years");
    catalog->expires = catalog->published + (int64_t)lifetime_s;
    text = catalog_format(catalog);
    if (!text)
        return error_set(error, ERROR_SYSTEM, "no memory for the catalog");
    if (strlen(text) > CATALOG_SIZE_MAX)
        return error_set(error, ERROR_INVALID, "the catalog would be larger than %d bytes", CATALOG_SIZE_MAX);
    snprintf(comment, sizeof(comment), "circular catalog %s serial %llu", catalog->archive,
             (unsigned long long)catalog->serial);
    signature = signature_create(writer->key, text, strlen(text), comment);
    if (!signature)
        return error_set(error, ERROR_SYSTEM, "no memory to sign the catalog");
    return replace_catalog(writer, text, signature, error);
}

int write_signed(int folder, const char *path, const char *text, const struct secret_key *key, struct error *error)
{
    char signature_path[ARCHIVE_PATH_MAX + sizeof(SIGNATURE_SUFFIX)];
    auto_free char *signature = signature_create(key, text, strlen(text), path);
    int result;

    if (!signature)
        return error_set(error, ERROR_SYSTEM, "no memory to sign %s", path);
    snprintf(signature_path, sizeof(signature_path), "%s" SIGNATURE_SUFFIX, path);
    result = replace(folder, signature_path, signature, strlen(signature), error);
    return result ? result : replace(folder, path, text, strlen(text), error);
}

int catalog_load(int folder, struct catalog *catalog_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer text = {0};
    int result = file_read(folder, ARCHIVE_CATALOG, CATALOG_SIZE_MAX, &text, error);

    return result ? result : catalog_parse(text.bytes, text.size, catalog_out, error);
}
