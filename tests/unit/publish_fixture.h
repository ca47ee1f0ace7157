/*
 * For the tests of publishing: a folder, a key, an input to write blocks in, and what a client would see of the
 * archive.
 */
#ifndef PUBLISH_FIXTURE_H
#define PUBLISH_FIXTURE_H

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "image/publish.h"

#define BLOCK 4096

struct fixture {
    char folder[64];  /* of everything */
    char archive[96];
    int archive_fd; /* -1 before open_archive */
    int input;
    struct secret_key key;
    struct public_key public;
    struct progress progress;
    struct publish_settings settings;
};

static inline int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char path[128];

    /* In memory if possible: what is flushed to a disk here competes with everybody else's files. */
    strcpy(f->folder, access("/dev/shm", W_OK) ? "/tmp/test-publish-XXXXXX" : "/dev/shm/test-publish-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->archive, sizeof(f->archive), "%s/archive", f->folder);
    snprintf(path, sizeof(path), "%s/input", f->folder);
    f->input = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(f->input >= 0);
    f->archive_fd = -1;
    assert_int_equal(key_pair_generate(&f->public, &f->key, NULL), 0);
    f->settings = (struct publish_settings){
        .archive = f->archive, .name = "disk", .version = "1", .block_size = BLOCK, .job_count = 3, .key = &f->key,
    };
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;

    if (f->archive_fd >= 0)
        close(f->archive_fd);
    close(f->input);
    file_remove(AT_FDCWD, f->folder, NULL);
    free(f);
    return 0;
}

/* Block BLOCK_NUMBER of the input becomes one that only SEED tells apart; SEED 0: zeros. */
static inline void put_block(struct fixture *f, uint64_t block, uint64_t seed)
{
    uint8_t bytes[BLOCK] = {0};

    for (size_t i = 0; seed && i < BLOCK; i += 16)
        store_le64(bytes + i, seed * UINT64_C(0x9e3779b97f4a7c15) + i);
    assert_int_equal(pwrite(f->input, bytes, BLOCK, (off_t)(block * BLOCK)), BLOCK);
}

static inline int publish(struct fixture *f, const char *version, struct publish_result *result, struct error *error)
{
    f->settings.version = version;
    return publish_image(&f->settings, f->input, "the input", result, error);
}

static inline void publish_well(struct fixture *f, const char *version, struct publish_result *result)
{
    struct error error = ERROR_INIT;
    int code = publish(f, version, result, &error);

    if (code)
        fail_msg("%s", error.message);
    if (f->archive_fd < 0)
        f->archive_fd = file_open_folder(f->archive, false, NULL);
}

static unsigned counted;

static inline int count_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)path;
    (void)status;
    (void)where;
    counted += type == FTW_F;
    return 0;
}

static inline unsigned count_files(const struct fixture *f, const char *below)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", f->archive, below);
    counted = 0;
    nftw(path, count_one, 16, FTW_PHYS);
    return counted;
}

/* The catalog with its signature checked, as a client would. */
static inline int read_catalog(const struct fixture *f, struct catalog *catalog)
{
    struct trusted_keys trusted = {&f->public, 1};
    struct buffer text = {0}, signature = {0};
    struct error error = ERROR_INIT;
    int result = file_read(f->archive_fd, "catalog.json", CATALOG_SIZE_MAX, &text, &error);

    if (!result)
        result = file_read(f->archive_fd, "catalog.json.minisig", SIGNATURE_FILE_MAX, &signature, &error);
    if (!result)
        result = signature_verify((char *)signature.bytes, signature.size, text.bytes, text.size, &trusted, NULL,
                                  NULL, &error);
    if (!result)
        result = catalog_parse(text.bytes, text.size, catalog, &error);
    if (result)
        print_message("# %s\n", error.message);
    buffer_finish(&text);
    buffer_finish(&signature);
    return result;
}

static inline size_t count_versions(const struct fixture *f, uint64_t *serial_out)
{
    struct catalog catalog;
    size_t count;

    assert_int_equal(read_catalog(f, &catalog), 0);
    count = catalog.version_count;
    if (serial_out)
        *serial_out = catalog.serial;
    catalog_finish(&catalog);
    return count;
}

#endif
