/* The cache folder: what is kept, what is dropped, and what it does on bad disks, full disks and beside others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "store/cache_parts.h"
#include "store_scratch.h"

#define FRAME_SIZE 10000
#define FRAME_CHARGE 12288

/* The cache does not look inside frames, so these are any bytes, named by their digest. */
static void make_frame(uint64_t seed, uint8_t frame[FRAME_SIZE], struct digest *digest)
{
    fill_random(frame, FRAME_SIZE, seed);
    digest_of(frame, FRAME_SIZE, digest);
}

static void put(struct cache *cache, uint64_t seed, struct digest *digest)
{
    uint8_t frame[FRAME_SIZE];

    make_frame(seed, frame, digest);
    cache_write_block(cache, digest, frame, sizeof(frame));
}

static int get_code(struct cache *cache, const struct digest *digest)
{
    struct buffer frame = {0};
    int result = cache_read_block(cache, digest, 65536, &frame, NULL);
    struct digest found;

    if (!result) {
        digest_of(frame.bytes, frame.size, &found);
        if (!digest_equal(&found, digest))
            result = 1;
    }
    buffer_finish(&frame);
    return result;
}

static void set_age(const struct scratch *scratch, const struct digest *digest, time_t seconds)
{
    char path[160];
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - seconds}};

    assert_int_equal(utimensat(AT_FDCWD, scratch_path(scratch, digest, path), times, 0), 0);
}

struct contents {
    uint64_t count, bytes, other;
    uint64_t damaged; /* if CHECK is set */
    bool check;
};

static struct contents *the_contents;

static int count_one(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    struct digest named, found;
    struct buffer bytes = {0};

    if (type != FTW_F)
        return 0;
    if (!digest_parse(path + walk->base, &named)) {
        the_contents->other++;
        return 0;
    }
    the_contents->count++;
    the_contents->bytes += cache_charge((uint64_t)status->st_size);
    if (the_contents->check && !file_read(AT_FDCWD, path, 1000000, &bytes, NULL)) {
        digest_of(bytes.bytes, bytes.size, &found);
        the_contents->damaged += !digest_equal(&named, &found);
    }
    buffer_finish(&bytes);
    return 0;
}

/* What really is under blocks/. */
static struct contents look_at(const struct scratch *scratch, bool check)
{
    struct contents contents = {.check = check};
    char path[160];

    snprintf(path, sizeof(path), "%s/blocks", scratch->path);
    the_contents = &contents;
    nftw(path, count_one, 16, FTW_PHYS);
    return contents;
}

static struct contents look(const struct scratch *scratch)
{
    return look_at(scratch, true);
}

static void a_block_is_kept_under_its_digest(void **state)
{
    static const enum link_way ways[] = {LINK_BY_DESCRIPTOR, LINK_BY_PROC, LINK_BY_RENAME};
    struct scratch scratch;

    (void)state;
    scratch_open(&scratch, 0);
    for (uint64_t i = 0; i < 3; i++) {
        struct digest digest;
        struct stat status;
        char path[160];

        scratch.cache->link_way = (int)ways[i];
        make_frame(i, (uint8_t[FRAME_SIZE]){0}, &digest);
        assert_int_equal(get_code(scratch.cache, &digest), ERROR_NOT_FOUND);
        assert_false(cache_has_block(scratch.cache, &digest));
        put(scratch.cache, i, &digest);
        put(scratch.cache, i, &digest);
        assert_int_equal(get_code(scratch.cache, &digest), 0);
        assert_true(cache_has_block(scratch.cache, &digest));
        assert_int_equal(stat(scratch_path(&scratch, &digest, path), &status), 0);
        assert_int_equal(status.st_mode & 0444, 0444);
        assert_int_equal(status.st_nlink, 1);
    }
    assert_int_equal(look(&scratch).count, 3);
    assert_int_equal(look(&scratch).other, 0);
    assert_int_equal(scratch.warnings, 0);
    scratch_close(&scratch);
}

static void replace_by_nothing(const char *path)
{
    assert_int_equal(truncate(path, 0), 0);
}

static void replace_by_too_much(const char *path)
{
    assert_int_equal(truncate(path, 1 << 20), 0);
}

static void replace_by_folder(const char *path)
{
    assert_int_equal(unlink(path) | mkdir(path, 0755), 0);
}

static void replace_by_link(const char *path)
{
    assert_int_equal(unlink(path) | symlink("/dev/zero", path), 0);
}

static void replace_by_pipe(const char *path)
{
    assert_int_equal(unlink(path) | mkfifo(path, 0644), 0);
}

static void what_cannot_be_a_block_is_corrupt_and_goes(void **state)
{
    static void (*const damages[])(const char *) = {replace_by_nothing, replace_by_too_much, replace_by_folder,
                                                    replace_by_link, replace_by_pipe};
    struct scratch scratch;
    struct digest digest;
    char path[160];

    (void)state;
    scratch_open(&scratch, 0);
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        put(scratch.cache, 1, &digest);
        damages[i](scratch_path(&scratch, &digest, path));
        assert_int_equal(get_code(scratch.cache, &digest), ERROR_CORRUPT);
        cache_drop_block(scratch.cache, &digest);
        assert_int_equal(get_code(scratch.cache, &digest), ERROR_NOT_FOUND);
    }
    put(scratch.cache, 1, &digest);
    assert_int_equal(get_code(scratch.cache, &digest), 0);
    scratch_close(&scratch);
}

static void reading_marks_use_at_most_every_ten_minutes(void **state)
{
    struct scratch scratch;
    struct digest digest;
    struct stat status;
    char path[160];

    (void)state;
    scratch_open(&scratch, 0);
    put(scratch.cache, 1, &digest);
    set_age(&scratch, &digest, 500);
    assert_int_equal(get_code(scratch.cache, &digest), 0);
    assert_int_equal(stat(scratch_path(&scratch, &digest, path), &status), 0);
    assert_true(time(NULL) - status.st_mtime >= 500);
    set_age(&scratch, &digest, 700);
    assert_int_equal(get_code(scratch.cache, &digest), 0);
    assert_int_equal(stat(path, &status), 0);
    assert_true(time(NULL) - status.st_mtime < 100);
    scratch_close(&scratch);
}

static void write_file_of_age(const struct scratch *scratch, const char *name, time_t age)
{
    char path[160];
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - age}};

    snprintf(path, sizeof(path), "%s/%s", scratch->path, name);
    assert_int_equal(file_write_atomic(AT_FDCWD, path, "x", 1, FILE_MAKE_FOLDERS, NULL), 0);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static bool exists(const struct scratch *scratch, const char *name)
{
    char path[160];

    snprintf(path, sizeof(path), "%s/%s", scratch->path, name);
    return !access(path, F_OK);
}

static void prune_removes_the_least_recently_used(void **state)
{
    struct scratch scratch;
    struct digest digests[20];
    struct cache_usage usage;
    uint64_t removed;

    (void)state;
    scratch_open(&scratch, 0);
    for (uint64_t i = 0; i < 20; i++) {
        put(scratch.cache, i, &digests[i]);
        set_age(&scratch, &digests[i], 1000 + (time_t)(i * 7 % 20) * 1000);
    }
    write_file_of_age(&scratch, "blocks/00/.tmp-old", 4000);
    write_file_of_age(&scratch, "archives/a-1/images/n/.tmp-old", 4000);
    write_file_of_age(&scratch, "maps/.tmp-young", 3000);
    write_file_of_age(&scratch, "blocks/00/notes.txt", 999999);
    assert_int_equal(cache_measure(scratch.cache, &usage, NULL), 0);
    assert_int_equal(usage.block_count, 20);
    assert_int_equal(usage.block_bytes, 20 * FRAME_CHARGE);
    assert_int_equal(usage.temporary_count, 2);
    /* The estimate says more than there is: the candidates are too many, and the oldest of them go. */
    usage_add(&scratch.cache->usage, 5 * FRAME_CHARGE);
    assert_int_equal(cache_prune(scratch.cache, 8 * FRAME_CHARGE + 100, &removed, NULL), 0);
    assert_int_equal(removed, 12 * FRAME_CHARGE);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(cache_has_block(scratch.cache, &digests[i]), i * 7 % 20 < 8);
    assert_false(exists(&scratch, "blocks/00/.tmp-old"));
    assert_false(exists(&scratch, "archives/a-1/images/n/.tmp-old"));
    assert_true(exists(&scratch, "maps/.tmp-young"));
    assert_true(exists(&scratch, "blocks/00/notes.txt"));
    assert_int_equal(cache_prune(scratch.cache, 0, &removed, NULL), 0);
    assert_int_equal(look(&scratch).count, 0);
    scratch_close(&scratch);
}

static void a_bounded_cache_stays_below_its_bound(void **state)
{
    struct scratch scratch;
    struct digest digest;

    (void)state;
    scratch_open(&scratch, 100 * FRAME_CHARGE);
    for (uint64_t i = 0; i < 350; i++) {
        put(scratch.cache, i, &digest);
        assert_true(cache_has_block(scratch.cache, &digest));
        set_age(&scratch, &digest, 400 - (time_t)i);
        if (i % 25 == 0)
            assert_true(look(&scratch).bytes <= 100 * FRAME_CHARGE);
    }
    assert_true(look(&scratch).bytes <= 100 * FRAME_CHARGE);
    assert_true(look(&scratch).count >= 85);
    for (uint64_t i = 330; i < 350; i++) {
        make_frame(i, (uint8_t[FRAME_SIZE]){0}, &digest);
        assert_true(cache_has_block(scratch.cache, &digest));
    }
    scratch_close(&scratch);
}

static void what_fits_is_not_pruned(void **state)
{
    struct scratch scratch;
    struct digest digest;

    (void)state;
    scratch_open(&scratch, 100 * FRAME_CHARGE);
    for (uint64_t i = 0; i < 100; i++)
        put(scratch.cache, i, &digest);
    assert_int_equal(look(&scratch).count, 100);
    scratch_close(&scratch);
}

/* The usage file is only an estimate: whatever it says, a scan puts it right. */
static void a_wrong_estimate_is_corrected(void **state)
{
    static const uint64_t wrong[] = {0, UINT64_MAX, UINT64_C(1) << 63, UINT64_C(1) << 59, 4096};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct scratch scratch;
        struct digest digest;
        uint8_t bytes[16] = {0};
        char path[160];

        scratch_open(&scratch, 0);
        for (uint64_t b = 0; b < 50; b++)
            put(scratch.cache, b, &digest);
        cache_close(scratch.cache);
        store_le64(bytes, wrong[i]);
        snprintf(path, sizeof(path), "%s/usage", scratch.path);
        assert_int_equal(file_write_atomic(AT_FDCWD, path, bytes, i == 0 ? 0 : 16, 0, NULL), 0);
        assert_int_equal(cache_open(scratch.path, 40 * FRAME_CHARGE, &scratch.cache, NULL), 0);
        put(scratch.cache, 1000, &digest);
        assert_true(look(&scratch).bytes <= 40 * FRAME_CHARGE);
        assert_true(look(&scratch).bytes >= 30 * FRAME_CHARGE);
        assert_true(cache_has_block(scratch.cache, &digest));
        scratch_close(&scratch);
    }
}

/* What a child ends with that cannot do its part here. */
#define SKIPPED 77

static pid_t start(void (*run)(struct scratch *, unsigned), struct scratch *scratch, unsigned number)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        run(scratch, number);
        _exit(0);
    }
    return pid;
}

static void finish(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (status)
        fail_msg("process ended with status 0x%x", (unsigned)status);
}

#define SHARED_MAX (200 * FRAME_CHARGE)

static void write_beside_others(struct scratch *scratch, unsigned number)
{
    struct cache *cache;

    if (cache_open(scratch->path, SHARED_MAX, &cache, NULL))
        _exit(1);
    for (uint64_t i = 0; i < 500; i++) {
        struct digest digest;
        uint64_t seed = number % 2 * 1000 + i; /* two of them write the same blocks */

        put(cache, seed, &digest);
        if (get_code(cache, &digest) == 1)
            _exit(2);
    }
    cache_close(cache);
}

/* All of them stand still while it is counted; a walk beside writers would see blocks that never were at once. */
static uint64_t look_while_stopped(const struct scratch *scratch, const pid_t *pids, unsigned count)
{
    uint64_t bytes;

    for (unsigned i = 0; i < count; i++) {
        siginfo_t info;

        kill(pids[i], SIGSTOP);
        assert_int_equal(waitid(P_PID, (id_t)pids[i], &info, WSTOPPED | WEXITED | WNOWAIT), 0);
        if (info.si_code == CLD_STOPPED)
            assert_int_equal(waitid(P_PID, (id_t)pids[i], &info, WSTOPPED), 0);
    }
    bytes = look_at(scratch, false).bytes;
    for (unsigned i = 0; i < count; i++)
        kill(pids[i], SIGCONT);
    return bytes;
}

static bool is_running(pid_t pid)
{
    siginfo_t info = {.si_pid = 0};

    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    return info.si_pid == 0;
}

static void four_processes_share_a_bounded_cache(void **state)
{
    struct scratch scratch;
    struct contents contents;
    pid_t pids[4];
    uint64_t most = 0;

    (void)state;
    scratch_open(&scratch, 0);
    for (unsigned i = 0; i < 4; i++)
        pids[i] = start(write_beside_others, &scratch, i);
    while (is_running(pids[0])) {
        most = max_u64(most, look_while_stopped(&scratch, pids, 4));
        for (int i = 0; i < 20; i++)
            sched_yield();
    }
    for (unsigned i = 0; i < 4; i++)
        finish(pids[i]);
    contents = look(&scratch);
    print_message("# at most %u %% of the bound, %u %% in the end\n", (unsigned)(most * 100 / SHARED_MAX),
                  (unsigned)(contents.bytes * 100 / SHARED_MAX));
    assert_true(max_u64(most, contents.bytes) <= SHARED_MAX + SHARED_MAX / 20);
    assert_true(contents.bytes >= SHARED_MAX / 2);
    assert_int_equal(contents.damaged, 0);
    assert_int_equal(contents.other, 0);
    scratch_close(&scratch);
}

static void write_until_killed(struct scratch *scratch, unsigned number)
{
    struct digest digest;

    for (uint64_t i = 0;; i++)
        put(scratch->cache, number * UINT64_C(1000000) + i, &digest);
}

static void a_killed_writer_leaves_whole_blocks_only(void **state)
{
    unsigned seed = (unsigned)time(NULL) ^ (unsigned)getpid();

    (void)state;
    print_message("# seed %u\n", seed);
    for (unsigned way = LINK_BY_DESCRIPTOR; way <= LINK_BY_RENAME; way += 2) {
        struct scratch scratch;
        struct contents contents;
        char path[160];

        scratch_open(&scratch, 0);
        scratch.cache->link_way = (int)way;
        for (unsigned i = 0; i < 20; i++) {
            uint64_t before = look_at(&scratch, false).count;
            pid_t pid = start(write_until_killed, &scratch, i);

            while (look_at(&scratch, false).count == before)
                sched_yield();
            usleep((useconds_t)(rand_r(&seed) % 3000));
            kill(pid, SIGKILL);
            assert_int_equal(waitpid(pid, NULL, 0), pid);
        }
        contents = look(&scratch);
        assert_int_equal(contents.damaged, 0);
        if (way == LINK_BY_DESCRIPTOR)
            assert_int_equal(contents.other, 0);
        /* The usage file is one estimate further off, and the cache still works. */
        assert_int_equal(cache_prune(scratch.cache, FRAME_CHARGE * 3, &(uint64_t){0}, NULL), 0);
        assert_int_equal(look(&scratch).count, 3);
        snprintf(path, sizeof(path), "%s/usage", scratch.path);
        assert_int_equal(access(path, F_OK), 0);
        scratch_close(&scratch);
    }
}

static void only_read(struct scratch *scratch, unsigned number)
{
    struct digest digest;
    struct cache *cache;

    (void)number;
    if (geteuid() == 0 && (setgid(65534) || setuid(65534)))
        _exit(SKIPPED);
    if (cache_open(scratch->path, 0, &cache, NULL))
        _exit(2);
    make_frame(1, (uint8_t[FRAME_SIZE]){0}, &digest);
    if (get_code(cache, &digest))
        _exit(3);
    for (uint64_t i = 2; i < 10; i++)
        put(cache, i, &digest);
    cache_write_map(cache, &digest, 0, "x", 1);
    cache_write_metadata(cache, "http://h/a", "catalog.json", "x", 1);
    if (scratch->warnings != 1 || !strstr(scratch->last_warning, scratch->path))
        _exit(4);
    cache_drop_block(cache, &digest);
    cache_close(cache);
}

static void make_read_only(const struct scratch *scratch, mode_t mode)
{
    static const char *const folders[] = {"", "/blocks", "/maps", "/archives"};

    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        char path[160];

        snprintf(path, sizeof(path), "%s%s", scratch->path, folders[i]);
        assert_int_equal(chmod(path, mode), 0);
    }
}

static void skip_if_unable(int status, const char *reason)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
        print_message("# %s\n", reason);
        skip();
    }
    assert_int_equal(status, 0);
}

static void a_read_only_cache_is_read_with_one_warning(void **state)
{
    struct scratch scratch;
    struct digest digest;
    int status;
    pid_t pid;

    (void)state;
    scratch_open(&scratch, 0);
    put(scratch.cache, 1, &digest);
    make_read_only(&scratch, 0555);
    pid = start(only_read, &scratch, 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    make_read_only(&scratch, 0755);
    scratch_close(&scratch);
    skip_if_unable(status, "root cannot become another user here");
}

/* On a file system of 4 MiB in a mount namespace of its own. */
static void fill_small_disk(struct scratch *scratch, unsigned number)
{
    struct digest digest;
    struct cache *cache;
    static char filler[8 << 20];
    char path[160];
    int fd;

    (void)number;
    if (unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)) ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", scratch->path, "tmpfs", 0, "size=4m"))
        _exit(SKIPPED);
    if (cache_open(scratch->path, 0, &cache, NULL))
        _exit(1);
    for (uint64_t i = 0; i < 600; i++)
        put(cache, i, &digest);
    /* An eighth stays free, the rest is used, and it was said once. */
    if (look(scratch).bytes > 7 << 19 || look(scratch).bytes < 3 << 20 || look(scratch).damaged)
        _exit(2);
    if (scratch->warnings != 1 || !strstr(scratch->last_warning, "free"))
        _exit(3);
    /* Now really full, behind the cache's back: no damage, no noise. */
    snprintf(path, sizeof(path), "%s/filler", scratch->path);
    fd = open(path, O_WRONLY | O_CREAT, 0644);
    (void)!write(fd, filler, sizeof(filler));
    close(fd);
    cache->uncached_until = 0;
    cache->room = INT64_MAX;
    for (uint64_t i = 1000; i < 1010; i++)
        put(cache, i, &digest);
    if (scratch->warnings != 1 || look(scratch).damaged || look(scratch).other || cache_has_block(cache, &digest))
        _exit(4);
    /* Space again: after the rest it goes on. */
    unlink(path);
    cache_prune(cache, 0, &(uint64_t){0}, NULL);
    cache->uncached_until = clock_ms();
    cache->room = 0;
    put(cache, 2000, &digest);
    if (!cache_has_block(cache, &digest))
        _exit(5);
    cache_close(cache);
}

static void a_full_disk_is_left_alone_with_one_warning(void **state)
{
    struct scratch scratch;
    int status;
    pid_t pid;

    (void)state;
    scratch_open(&scratch, 0);
    pid = start(fill_small_disk, &scratch, 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    scratch_close(&scratch);
    skip_if_unable(status, "no tmpfs can be mounted here");
}

static void a_map_is_kept_page_by_page(void **state)
{
    struct scratch scratch;
    struct digest id;
    uint8_t page[4096], zeros[4096] = {0}, found[4096];
    struct cache_usage usage;

    (void)state;
    scratch_open(&scratch, 0);
    digest_of("map", 3, &id);
    fill_random(page, sizeof(page), 1);
    assert_int_equal(cache_read_map(scratch.cache, &id, 0, found, sizeof(found), NULL), ERROR_NOT_FOUND);
    cache_write_map(scratch.cache, &id, 1 << 20, page, sizeof(page));
    assert_int_equal(cache_read_map(scratch.cache, &id, 1 << 20, found, sizeof(found), NULL), 0);
    assert_memory_equal(found, page, sizeof(page));
    assert_int_equal(cache_read_map(scratch.cache, &id, 0, found, sizeof(found), NULL), 0);
    assert_memory_equal(found, zeros, sizeof(zeros));
    assert_int_equal(cache_read_map(scratch.cache, &id, (1 << 20) + 2048, found, sizeof(found), NULL), 0);
    assert_memory_equal(found, page + 2048, 2048);
    assert_memory_equal(found + 2048, zeros, 2048);
    assert_int_equal(cache_measure(scratch.cache, &usage, NULL), 0);
    assert_true(usage.map_bytes < 65536);
    scratch_close(&scratch);
}

static void read_metadata_is(struct cache *cache, const char *archive, const char *path, const char *expected)
{
    struct buffer bytes = {0};
    int result = cache_read_metadata(cache, archive, path, 100, &bytes, NULL);

    if (!expected) {
        assert_int_equal(result, ERROR_NOT_FOUND);
    } else {
        assert_int_equal(result, 0);
        assert_int_equal(bytes.size, strlen(expected));
        assert_memory_equal(bytes.bytes, expected, bytes.size);
    }
    buffer_finish(&bytes);
}

static int has_secret(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return strstr(path, "secret") != NULL;
}

static void metadata_is_kept_for_each_archive(void **state)
{
    static const char *const outside[] = {"../x", "a/../../x", "/etc/x", "", "a//b", ".", "a/..", "images/"};
    struct scratch scratch;
    struct cache *cache;

    (void)state;
    scratch_open(&scratch, 0);
    cache = scratch.cache;
    cache_write_metadata(cache, "http://user:secret@h:80/os", "catalog.json", "one", 3);
    cache_write_metadata(cache, "http://h:80/os2", "images/n/1.json", "two", 3);
    cache_write_metadata(cache, "http://h:80/os", "catalog.json", "three", 5);
    read_metadata_is(cache, "http://user:secret@h:80/os", "catalog.json", "three");
    read_metadata_is(cache, "http://h:80/os/", "catalog.json", "three");
    read_metadata_is(cache, "http://h:80/os2", "images/n/1.json", "two");
    read_metadata_is(cache, "http://h:80/os2", "catalog.json", NULL);
    read_metadata_is(cache, "http://h/80/os", "catalog.json", NULL);
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
        assert_int_equal(cache_read_metadata(cache, "http://h", outside[i], 9, &(struct buffer){0}, NULL),
                         ERROR_INVALID);
    assert_int_equal(nftw(scratch.path, has_secret, 16, FTW_PHYS), 0);
    scratch_close(&scratch);
}

/* A cache is an archive: below archives/<key>/ everything is reachable by an archive's paths. */
static void a_cached_archive_can_be_served(void **state)
{
    struct scratch scratch;
    struct digest digest, id;
    char command[256];

    (void)state;
    scratch_open(&scratch, 0);
    put(scratch.cache, 1, &digest);
    digest_of("map", 3, &id);
    cache_write_map(scratch.cache, &id, 0, "x", 1);
    cache_write_metadata(scratch.cache, "http://h:80/os", "catalog.json", "one", 3);
    snprintf(command, sizeof(command),
             "cd %s/archives/h_80_os-* && test -f catalog.json && ls blocks/*/* maps/*.map >/dev/null",
             scratch.path);
    assert_int_equal(system(command), 0);
    scratch_close(&scratch);
}

static void a_published_archive_is_no_cache(void **state)
{
    struct scratch scratch;
    struct cache *cache;
    struct error error = ERROR_INIT;

    (void)state;
    scratch_open(&scratch, 0);
    write_file_of_age(&scratch, "catalog.json", 0);
    assert_int_equal(cache_open(scratch.path, 0, &cache, &error), ERROR_INVALID);
    assert_non_null(strstr(error.message, "published archive"));
    scratch_close(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_kept_under_its_digest),
        cmocka_unit_test(what_cannot_be_a_block_is_corrupt_and_goes),
        cmocka_unit_test(reading_marks_use_at_most_every_ten_minutes),
        cmocka_unit_test(prune_removes_the_least_recently_used),
        cmocka_unit_test(a_bounded_cache_stays_below_its_bound),
        cmocka_unit_test(what_fits_is_not_pruned),
        cmocka_unit_test(a_wrong_estimate_is_corrected),
        cmocka_unit_test(four_processes_share_a_bounded_cache),
        cmocka_unit_test(a_killed_writer_leaves_whole_blocks_only),
        cmocka_unit_test(a_read_only_cache_is_read_with_one_warning),
        cmocka_unit_test(a_full_disk_is_left_alone_with_one_warning),
        cmocka_unit_test(a_map_is_kept_page_by_page),
        cmocka_unit_test(metadata_is_kept_for_each_archive),
        cmocka_unit_test(a_cached_archive_can_be_served),
        cmocka_unit_test(a_published_archive_is_no_cache),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
