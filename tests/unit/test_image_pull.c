/* Pulling and verifying, over an archive that publish_image has made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "image/map_file.h"
#include "image/publish.h"
#include "image/pull.h"
#include "image/verify.h"
#include "lib/session.h"

#define BLOCK 4096
#define BLOCKS 700 /* a map of two levels */
#define TAIL 100   /* bytes of the last, short block */
#define DISK_SIZE ((BLOCKS - 1) * (uint64_t)BLOCK + TAIL)
#define FAULTS_MAX 32

struct fixture {
    char folder[64];
    char archive[96], cache[96], output[96];
    int archive_fd;
    int input; /* the disk */
    struct secret_key key;
    struct public_key public;
    struct trusted_keys trusted;
    struct digest image;
    struct session *session;
    struct archive *opened;
    struct disk *disk;

    struct verify_report report;
    size_t fault_count;
    char faults[FAULTS_MAX][600];
};

/* Two in three blocks hold something; 300 to 500 are a hole. */
static bool has_data(uint64_t block)
{
    return block % 3 != 1 && (block < 300 || block >= 500);
}

static void fill_block(uint64_t block, uint8_t bytes[BLOCK])
{
    memset(bytes, 0, BLOCK);
    for (size_t i = 0; has_data(block) && i < BLOCK; i += 64)
        store_le64(bytes + i, (block + 1) * UINT64_C(0x9e3779b97f4a7c15) + i);
}

static void record_fault(void *user, const char *where, const char *what)
{
    struct fixture *f = user;

    if (f->fault_count < FAULTS_MAX)
        snprintf(f->faults[f->fault_count], sizeof(f->faults[0]), "%.250s: %.300s", where, what);
    f->fault_count++;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct publish_settings settings = {.name = "disk", .version = "1", .block_size = BLOCK};
    struct publish_result result;
    char path[128];

    strcpy(f->folder, access("/dev/shm", W_OK) ? "/tmp/test-pull-XXXXXX" : "/dev/shm/test-pull-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->archive, sizeof(f->archive), "%s/archive", f->folder);
    snprintf(f->cache, sizeof(f->cache), "%s/cache", f->folder);
    snprintf(f->output, sizeof(f->output), "%s/output", f->folder);
    snprintf(path, sizeof(path), "%s/input", f->folder);
    f->input = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    for (uint64_t block = 0; block < BLOCKS; block++) {
        uint8_t bytes[BLOCK];

        fill_block(block, bytes);
        if (has_data(block))
            assert_int_equal(pwrite(f->input, bytes, BLOCK, (off_t)(block * BLOCK)), BLOCK);
    }
    assert_int_equal(ftruncate(f->input, (off_t)DISK_SIZE), 0);
    assert_int_equal(key_pair_generate(&f->public, &f->key, NULL), 0);
    f->trusted = (struct trusted_keys){&f->public, 1};
    settings.archive = f->archive;
    settings.key = &f->key;
    assert_int_equal(publish_image(&settings, f->input, "input", &result, NULL), 0);
    f->image = result.image;
    f->archive_fd = file_open_folder(f->archive, false, NULL);
    f->report = (struct verify_report){.fault = record_fault, .user = f};
    *state = f;
    return 0;
}

static void close_disk(struct fixture *f)
{
    disk_close(f->disk);
    archive_close(f->opened);
    session_close(f->session);
    f->disk = NULL;
    f->opened = NULL;
    f->session = NULL;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    close_disk(f);
    close(f->archive_fd);
    close(f->input);
    file_remove(AT_FDCWD, f->folder, NULL);
    free(f);
    return 0;
}

static void open_disk(struct fixture *f, bool cached)
{
    char key[PUBLIC_KEY_TEXT];
    const char *keys[] = {public_key_base64(&f->public, key)};
    const struct session_settings settings = {
        .cache_path = cached ? f->cache : NULL, .keys = keys, .key_count = 1, .patience_ms = 1000,
    };
    const struct catalog_version *version;
    struct error error = ERROR_INIT;

    if (session_open(&settings, &f->session, &error) || session_archive(f->session, f->archive, &f->opened, &error) ||
        archive_find(f->opened, "disk", NULL, &version, &error) ||
        archive_disk(f->opened, version, &f->disk, &error))
        fail_msg("%s", error.message);
}

static int open_output(const struct fixture *f)
{
    int fd = open(f->output, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

static uint64_t count_data(void)
{
    uint64_t count = 0;

    for (uint64_t block = 0; block < BLOCKS; block++)
        count += has_data(block);
    return count;
}

static void assert_same(const struct fixture *f, int fd)
{
    struct stat status;

    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, DISK_SIZE);
    for (uint64_t offset = 0; offset < DISK_SIZE; offset += BLOCK) {
        uint8_t want[BLOCK], got[BLOCK];
        ssize_t size = pread(f->input, want, BLOCK, (off_t)offset);

        assert_int_equal(pread(fd, got, BLOCK, (off_t)offset), size);
        assert_memory_equal(got, want, (size_t)size);
    }
}

static void pull(struct fixture *f, int fd, struct pull_result *result)
{
    struct error error = ERROR_INIT;

    if (pull_to_file(f->disk, session_store(f->session), NULL, fd, f->output, NULL, result, &error))
        fail_msg("%s", error.message);
    assert_int_equal(result->blocks, count_data());
}

static void a_new_file_gets_every_byte_and_keeps_the_holes(void **state)
{
    struct fixture *f = *state;
    struct pull_result result;
    int fd = open_output(f);
    struct stat status;

    open_disk(f, false);
    pull(f, fd, &result);
    assert_same(f, fd);
    assert_int_equal(result.present_blocks, 0);
    assert_int_equal(result.fetched_blocks, count_data());
    assert_int_equal(fstat(fd, &status), 0);
    assert_true((uint64_t)status.st_blocks * 512 <= count_data() * BLOCK + 65536);
    assert_int_equal(lseek(fd, 301 * BLOCK, SEEK_DATA), 500 * BLOCK);
    close(fd);
}

/* Whatever is in the file before, afterwards it is the disk. */
static void old_content_does_not_shine_through(void **state)
{
    static const uint64_t old_sizes[] = {1, BLOCK, DISK_SIZE / 2 + 7, DISK_SIZE, DISK_SIZE + 3 * BLOCK};
    struct fixture *f = *state;
    struct pull_result result;
    uint8_t rubbish[BLOCK];

    memset(rubbish, 0x5a, sizeof(rubbish));
    open_disk(f, false);
    for (size_t i = 0; i < sizeof(old_sizes) / sizeof(old_sizes[0]); i++) {
        int fd = open_output(f);

        for (uint64_t at = 0; at < old_sizes[i]; at += BLOCK)
            assert_true(pwrite(fd, rubbish, min_u64(BLOCK, old_sizes[i] - at), (off_t)at) > 0);
        pull(f, fd, &result);
        assert_same(f, fd);
        assert_int_equal(result.present_blocks, 0);
        close(fd);
        unlink(f->output);
    }
}

static void what_is_there_is_verified_and_kept(void **state)
{
    struct fixture *f = *state;
    struct pull_result result;
    uint8_t byte = 1;
    int fd = open_output(f);

    open_disk(f, false);
    pull(f, fd, &result);
    /* A block is wrong, one is gone, and something is in a hole. */
    assert_int_equal(pwrite(fd, &byte, 1, 11 * BLOCK + 9), 1);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 12 * BLOCK, BLOCK), 0);
    assert_int_equal(pwrite(fd, &byte, 1, 400 * BLOCK + 1), 1);
    pull(f, fd, &result);
    assert_same(f, fd);
    assert_int_equal(result.present_blocks, count_data() - 2);
    assert_in_range(result.fetched_blocks, 0, 2); /* they may still be in memory */
    close(fd);
}

static bool never(void *user, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return ++*(unsigned *)user < 1;
}

static void a_pull_that_is_broken_off_goes_on_the_next_time(void **state)
{
    struct fixture *f = *state;
    unsigned calls = 0;
    const struct progress progress = {never, &calls};
    struct pull_result result;
    struct error error = ERROR_INIT;
    int fd = open_output(f);

    open_disk(f, false);
    assert_int_equal(pull_to_file(f->disk, session_store(f->session), NULL, fd, f->output, &progress, &result, &error),
                     ERROR_CANCELLED);
    assert_true(calls > 0);
    pull(f, fd, &result);
    assert_same(f, fd);
    close(fd);
}

static void the_cache_is_filled_once(void **state)
{
    struct fixture *f = *state;
    struct pull_result result;
    struct error error = ERROR_INIT;
    int fd = open_output(f);

    open_disk(f, true);
    assert_int_equal(pull_to_cache(f->disk, session_store(f->session), NULL, NULL, &result, &error), 0);
    assert_int_equal(result.fetched_blocks, count_data());
    assert_int_equal(result.present_blocks, 0);
    close_disk(f);
    open_disk(f, true);
    assert_int_equal(pull_to_cache(f->disk, session_store(f->session), NULL, NULL, &result, &error), 0);
    assert_int_equal(result.fetched_blocks, 0);
    assert_int_equal(result.present_blocks, count_data());
    pull(f, fd, &result);
    assert_int_equal(result.fetched_blocks, 0);
    assert_same(f, fd);
    close(fd);
    close_disk(f);
    open_disk(f, false);
    assert_int_equal(pull_to_cache(f->disk, session_store(f->session), NULL, NULL, &result, &error), ERROR_INVALID);
}

/* The path of BLOCK's file. */
static char *block_path(uint64_t block, char *path)
{
    uint8_t bytes[BLOCK];
    struct digest digest;

    fill_block(block, bytes);
    digest_of(bytes, block == BLOCKS - 1 ? TAIL : BLOCK, &digest);
    return archive_path_block(&digest, path);
}

static void a_missing_block_is_named(void **state)
{
    struct fixture *f = *state;
    char path[ARCHIVE_PATH_MAX];
    struct pull_result result;
    struct error error = ERROR_INIT;
    int fd = open_output(f);

    assert_int_equal(unlinkat(f->archive_fd, block_path(12, path), 0), 0);
    open_disk(f, false);
    assert_int_equal(pull_to_file(f->disk, session_store(f->session), NULL, fd, f->output, NULL, &result, &error),
                     ERROR_NOT_FOUND);
    assert_non_null(strstr(error.message, path));
    close(fd);
}

static bool told(const struct fixture *f, const char *words)
{
    for (size_t i = 0; i < f->fault_count && i < FAULTS_MAX; i++)
        if (strstr(f->faults[i], words))
            return true;
    for (size_t i = 0; i < f->fault_count && i < FAULTS_MAX; i++)
        print_message("# told: %s\n", f->faults[i]);
    return false;
}

static void put(struct fixture *f, const char *path, const void *bytes, size_t size)
{
    assert_int_equal(file_write_atomic(f->archive_fd, path, bytes, size, 0, NULL), 0);
}

/* Change one byte of a file. */
static void flip(struct fixture *f, const char *path, size_t at)
{
    struct buffer file = {0};

    assert_int_equal(file_read(f->archive_fd, path, MIB, &file, NULL), 0);
    file.bytes[at] ^= 0x40;
    put(f, path, file.bytes, file.size);
    buffer_finish(&file);
}

static void verify(struct fixture *f, uint64_t bad, uint64_t missing)
{
    struct verify_result result;
    struct error error = ERROR_INIT;

    f->fault_count = 0;
    if (verify_archive(f->archive, &f->trusted, &f->report, &result, &error))
        fail_msg("%s", error.message);
    assert_int_equal(result.bad, f->fault_count);
    assert_int_equal(result.bad, bad);
    assert_int_equal(result.missing, missing);
}

static void every_fault_of_an_archive_is_told(void **state)
{
    struct fixture *f = *state;
    char path[5][ARCHIVE_PATH_MAX], map[ARCHIVE_PATH_MAX];
    struct buffer file = {0};

    verify(f, 0, 0);
    flip(f, block_path(0, path[0]), 10);
    put(f, block_path(2, path[1]), "", 0);
    assert_int_equal(unlinkat(f->archive_fd, block_path(3, path[2]), 0), 0);
    assert_int_equal(file_read(f->archive_fd, block_path(5, path[3]), MIB, &file, NULL), 0);
    put(f, block_path(BLOCKS - 1, path[4]), file.bytes, file.size); /* another block's content */
    assert_int_equal(unlinkat(f->archive_fd, "images/disk/1.json.minisig", 0), 0);
    verify(f, 5, 2);
    for (int i = 0; i < 5; i++)
        assert_true(i == 3 || told(f, path[i]));
    assert_true(told(f, "is missing; block 3 of disk@1 needs it"));
    assert_true(told(f, "images/disk/1.json.minisig"));

    archive_path_map(&f->image, map);
    assert_int_equal(file_read(f->archive_fd, map, MIB, &file, NULL), 0);
    flip(f, map, file.size - 50);
    verify(f, 2, 1);
    assert_true(told(f, map) && told(f, "does not match its digest"));
    put(f, map, file.bytes, 30);
    verify(f, 2, 1);
    put(f, map, file.bytes, file.size);

    flip(f, "images/disk/1.json", 100);
    verify(f, 1, 0);
    assert_true(told(f, "not the manifest that the catalog lists"));
    buffer_finish(&file);
}

static void an_archive_that_cannot_be_trusted_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct verify_result result;
    struct error error = ERROR_INIT;
    struct public_key other;
    struct secret_key secret;
    const struct trusted_keys others = {&other, 1};

    assert_int_equal(key_pair_generate(&other, &secret, NULL), 0);
    assert_int_equal(verify_archive(f->archive, &others, &f->report, &result, &error), ERROR_UNTRUSTED);
    assert_int_equal(verify_archive(f->archive, NULL, &f->report, &result, &error), 0);
    flip(f, "catalog.json", 60);
    assert_int_equal(verify_archive(f->archive, &f->trusted, &f->report, &result, &error), ERROR_UNTRUSTED);
    assert_int_equal(verify_archive(f->cache, &f->trusted, &f->report, &result, &error), ERROR_NOT_FOUND);
}

static void an_expired_catalog_is_a_fault(void **state)
{
    struct fixture *f = *state;
    uint64_t serial;

    assert_int_equal(publish_renew(f->archive, &f->key, 3600, &serial, NULL), 0);
    verify(f, 0, 0);
    assert_int_equal(publish_renew(f->archive, &f->key, 1, &serial, NULL), 0);
    sleep(2); /* the smallest step of an expiry is a second */
    verify(f, 1, 0);
    assert_true(told(f, "expired"));
}

static void bad_blocks_of_a_cache_can_be_removed(void **state)
{
    struct fixture *f = *state;
    char path[ARCHIVE_PATH_MAX], foreign[] = "blocks/00/README";
    struct verify_result result;

    assert_int_equal(verify_blocks(f->archive, false, &f->report, &result, NULL), 0);
    assert_int_equal(result.bad, 0);
    assert_int_equal(result.checked_files, count_data());
    flip(f, block_path(8, path), 12);
    assert_int_equal(file_write_atomic(f->archive_fd, foreign, "x", 1, FILE_MAKE_FOLDERS, NULL), 0);
    assert_int_equal(verify_blocks(f->archive, false, &f->report, &result, NULL), 0);
    assert_int_equal(result.bad, 1);
    assert_true(told(f, path));
    assert_int_equal(verify_blocks(f->archive, true, &f->report, &result, NULL), 0);
    assert_int_equal(result.bad, 1);
    assert_int_equal(faccessat(f->archive_fd, path, F_OK, 0), -1);
    assert_int_equal(verify_blocks(f->archive, false, &f->report, &result, NULL), 0);
    assert_int_equal(result.bad, 0);
    assert_int_equal(faccessat(f->archive_fd, foreign, F_OK, 0), 0);
}

static void every_fault_of_a_written_out_disk_is_told(void **state)
{
    struct fixture *f = *state;
    struct verify_result result;
    struct pull_result pulled;
    uint8_t byte = 1;
    int fd = open_output(f);

    open_disk(f, false);
    pull(f, fd, &pulled);
    assert_int_equal(verify_file(f->disk, fd, "copy", &f->report, &result, NULL), 0);
    assert_int_equal(result.bad, 0);
    assert_int_equal(result.checked_files, count_data());

    assert_int_equal(pwrite(fd, &byte, 1, 11 * BLOCK + 9), 1);
    assert_int_equal(pwrite(fd, &byte, 1, 400 * BLOCK + BLOCK - 1), 1);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 600 * BLOCK, BLOCK), 0);
    assert_int_equal(ftruncate(fd, (off_t)DISK_SIZE - 1), 0);
    assert_int_equal(verify_file(f->disk, fd, "copy", &f->report, &result, NULL), 0);
    assert_int_equal(result.bad, 5);
    assert_true(told(f, "block 11 at offset 45056 of copy: its digest is wrong"));
    assert_true(told(f, "block 400 at offset 1638400 of copy: it should be all zero"));
    assert_true(told(f, "block 600 at offset 2457600 of copy: it is all zero and should not be"));
    assert_true(told(f, "block 699 at offset 2863104 of copy: the file ends"));
    assert_true(told(f, "copy: it has 2863203 bytes, the disk has 2863204"));
    close(fd);
}

static void a_served_image_is_verified_block_by_block(void **state)
{
    struct fixture *f = *state;
    char missing[ARCHIVE_PATH_MAX], bad[ARCHIVE_PATH_MAX];
    struct verify_result result;

    assert_int_equal(unlinkat(f->archive_fd, block_path(6, missing), 0), 0);
    put(f, block_path(9, bad), "rubbish", 7);
    open_disk(f, false);
    assert_int_equal(verify_disk(f->disk, session_store(f->session), &f->report, &result, NULL), 0);
    assert_int_equal(result.bad, 2);
    assert_int_equal(result.missing, 1);
    assert_true(told(f, missing));
    assert_true(told(f, bad));
}

static char collected[8][ARCHIVE_PATH_MAX];
static size_t collected_count;

static void record_removed(void *user, const char *path, uint64_t size)
{
    (void)user;
    (void)size;
    if (collected_count < 8)
        snprintf(collected[collected_count], sizeof(collected[0]), "%s", path);
    collected_count++;
}

static void only_what_nobody_needs_is_collected(void **state)
{
    struct fixture *f = *state;
    struct collect_result result;
    struct error error = ERROR_INIT;
    char map[ARCHIVE_PATH_MAX], manifest[] = "images/disk/0.json", leftover[] = "blocks/00/.tmp-12",
         stray[] = "blocks/00/00000000000000000000000000000000000000000000000000000000000000aa";

    assert_int_equal(publish_collect(f->archive, &f->trusted, false, record_removed, NULL, &result, &error), 0);
    assert_int_equal(result.files, 0);
    assert_int_equal(file_write_atomic(f->archive_fd, leftover, "x", 1, FILE_MAKE_FOLDERS, NULL), 0);
    put(f, stray, "xy", 2);
    put(f, manifest, "{}", 2);
    put(f, "blocks/README", "hello", 5);

    /* With a damaged map, a missing map, or without trust: nothing. */
    archive_path_map(&f->image, map);
    flip(f, map, 200);
    assert_int_equal(publish_collect(f->archive, &f->trusted, false, record_removed, NULL, &result, &error),
                     ERROR_CORRUPT);
    assert_non_null(strstr(error.message, "nothing was removed"));
    assert_int_equal(renameat(f->archive_fd, map, f->archive_fd, "saved"), 0);
    assert_int_equal(publish_collect(f->archive, &f->trusted, false, record_removed, NULL, &result, &error),
                     ERROR_CORRUPT);
    assert_int_equal(renameat(f->archive_fd, "saved", f->archive_fd, map), 0);
    flip(f, map, 200);
    assert_int_equal(publish_collect(f->archive, &(struct trusted_keys){NULL, 0}, false, record_removed, NULL, &result,
                                     &error), ERROR_UNTRUSTED);
    assert_int_equal(collected_count, 0);

    assert_int_equal(publish_collect(f->archive, &f->trusted, true, record_removed, NULL, &result, &error), 0);
    assert_int_equal(result.files, 3);
    assert_int_equal(result.bytes, 5);
    assert_int_equal(faccessat(f->archive_fd, stray, F_OK, 0), 0);
    collected_count = 0;
    assert_int_equal(publish_collect(f->archive, &f->trusted, false, record_removed, NULL, &result, &error), 0);
    assert_int_equal(collected_count, 3);
    assert_int_equal(faccessat(f->archive_fd, stray, F_OK, 0), -1);
    assert_int_equal(faccessat(f->archive_fd, leftover, F_OK, 0), -1);
    assert_int_equal(faccessat(f->archive_fd, manifest, F_OK, 0), -1);
    assert_int_equal(faccessat(f->archive_fd, "blocks/README", F_OK, 0), 0);
    verify(f, 0, 0);
}

static void folders_that_are_shared_by_links_are_not_collected(void **state)
{
    struct fixture *f = *state;
    struct collect_result result;
    struct error error = ERROR_INIT;

    assert_int_equal(renameat(f->archive_fd, "blocks", f->archive_fd, "../shared"), 0);
    assert_int_equal(symlinkat("../shared", f->archive_fd, "blocks"), 0);
    assert_int_equal(publish_collect(f->archive, &f->trusted, false, NULL, NULL, &result, &error), ERROR_INVALID);
    assert_non_null(strstr(error.message, "blocks is a symbolic link"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_file_gets_every_byte_and_keeps_the_holes),
        TEST(old_content_does_not_shine_through),
        TEST(what_is_there_is_verified_and_kept),
        TEST(a_pull_that_is_broken_off_goes_on_the_next_time),
        TEST(the_cache_is_filled_once),
        TEST(a_missing_block_is_named),
        TEST(every_fault_of_an_archive_is_told),
        TEST(an_archive_that_cannot_be_trusted_is_an_error),
        TEST(an_expired_catalog_is_a_fault),
        TEST(bad_blocks_of_a_cache_can_be_removed),
        TEST(every_fault_of_a_written_out_disk_is_told),
        TEST(a_served_image_is_verified_block_by_block),
        TEST(only_what_nobody_needs_is_collected),
        TEST(folders_that_are_shared_by_links_are_not_collected),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
