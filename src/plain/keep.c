/* Kept slices of one plain file: see keep.h. keep_all.c is about all of them together. */
#include "plain/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "plain/keep_parts.h"

#define ROOM_STEP (16 * MIB) /* written without looking again */

struct keep {
    struct plain_header header;
    int cache_fd; /* borrowed */
    uint64_t max_bytes;
    char name[DIGEST_TEXT]; /* of the folder; "": none */
    int index_fd, data_fd;
    bool writable;
    pthread_mutex_t lock; /* a leaf; over the next */
    uint64_t room;        /* bytes that may be written before looking again */
};

/* ---- Opening ---- */

static int read_header(int fd, struct plain_header *header_out, struct error *error)
{
    uint8_t bytes[PLAIN_HEADER_SIZE];
    ssize_t got = file_pread_full(fd, bytes, sizeof(bytes), 0, error);

    return got < 0 ? (int)got : plain_header_parse(bytes, (size_t)got, header_out, error);
}

int keep_open_index(int folder_fd, const char *name, bool make, struct plain_header *header_out, int *fd_out,
                    struct error *error)
{
    char path[DIGEST_TEXT + 8];

    snprintf(path, sizeof(path), "%s/index", name);
    for (;;) {
        auto_close int fd = openat(folder_fd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (make ? O_CREAT : 0), 0600);
        struct stat status;

        if (fd < 0 && !make && (errno == EACCES || errno == EROFS))
            fd = openat(folder_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || flock(fd, LOCK_SH) || fstat(fd, &status))
            return error_set_errno(error, errno, "cannot open " KEEP_FOLDER "/%s in the cache", path);
        if (status.st_nlink == 0)
            continue; /* pruned between opening and locking */
        *header_out = (struct plain_header){0};
        if (!read_header(fd, header_out, error) || make) {
            *fd_out = steal_fd(&fd);
            return 0;
        }
        return error ? error->code : ERROR_CORRUPT;
    }
}

/* A new or damaged index begins without any slice. */
static int write_header(struct keep *keep, struct error *error)
{
    uint8_t bytes[PLAIN_HEADER_SIZE];

    plain_header_format(&keep->header, bytes);
    if (ftruncate(keep->index_fd, 0))
        return error_set_errno(error, errno, "cannot write to the cache");
    return file_pwrite_full(keep->index_fd, bytes, sizeof(bytes), 0, error);
}

static int open_data(struct keep *keep, int folder_fd, struct error *error)
{
    char path[DIGEST_TEXT + 8];
    int flags = keep->writable ? O_RDWR | O_CREAT : O_RDONLY;

    snprintf(path, sizeof(path), "%s/data", keep->name);
    keep->data_fd = openat(folder_fd, path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (keep->data_fd < 0 || (keep->writable && ftruncate(keep->data_fd, (off_t)keep->header.size)))
        return error_set_errno(error, errno, "cannot open " KEEP_FOLDER "/%s in the cache", path);
    return 0;
}

static int open_named(struct keep *keep, int folder_fd, struct error *error)
{
    struct plain_header found;
    char name[DIGEST_TEXT];
    int result;

    plain_folder_name(&keep->header, keep->name);
    if (mkdirat(folder_fd, keep->name, 0700) && errno != EEXIST)
        return error_set_errno(error, errno, "cannot make a folder in the cache");
    result = keep_open_index(folder_fd, keep->name, true, &found, &keep->index_fd, error);
    if (result)
        return result;
    keep->writable = true;
    plain_folder_name(&found, name);
    if (found.size == 0 || strcmp(name, keep->name))
        result = write_header(keep, error);
    else
        futimens(keep->index_fd, NULL); /* used now */
    return result ? result : open_data(keep, folder_fd, error);
}

static int open_nameless(struct keep *keep, int folder_fd, struct error *error)
{
    keep->index_fd = openat(folder_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    keep->data_fd = openat(folder_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (keep->index_fd < 0 || keep->data_fd < 0)
        return error_set_errno(error, errno, "cannot make a nameless file in the cache");
    keep->writable = true;
    return write_header(keep, error);
}

static struct keep *allocate(int cache_fd, uint64_t max_bytes, struct error *error)
{
    struct keep *keep = calloc(1, sizeof(*keep));

    if (!keep) {
        error_set(error, ERROR_SYSTEM, "no memory for a plain file");
        return NULL;
    }
    pthread_mutex_init(&keep->lock, NULL);
    keep->cache_fd = cache_fd;
    keep->max_bytes = max_bytes;
    keep->index_fd = keep->data_fd = -1;
    return keep;
}

/* To the caller if RESULT, what opening it gave, is 0. Returns RESULT. */
static int hand_over(struct keep *keep, int result, struct keep **keep_out)
{
    if (result)
        keep_close(keep);
    else
        *keep_out = keep;
    return result;
}

int keep_open(int cache_fd, uint64_t max_bytes, const struct plain_header *header, struct keep **keep_out,
              struct error *error)
{
    auto_close int folder_fd = keep_open_folder(cache_fd, true, error);
    struct keep *keep;
    int result;

    if (folder_fd < 0)
        return folder_fd;
    keep = allocate(cache_fd, max_bytes, error);
    if (!keep)
        return ERROR_SYSTEM;
    keep->header = *header;
    result = *header->validator ? open_named(keep, folder_fd, error) : open_nameless(keep, folder_fd, error);
    return hand_over(keep, result, keep_out);
}

int keep_open_latest(int cache_fd, uint64_t max_bytes, const struct digest *url, struct keep **keep_out,
                     struct error *error)
{
    auto_close int folder_fd = keep_open_folder(cache_fd, false, error);
    struct keep *keep;
    int result;

    if (folder_fd < 0)
        return folder_fd;
    keep = allocate(cache_fd, max_bytes, error);
    if (!keep)
        return ERROR_SYSTEM;
    result = keep_find_latest(folder_fd, url, keep->name, error);
    if (!result)
        result = keep_open_index(folder_fd, keep->name, false, &keep->header, &keep->index_fd, error);
    if (!result) {
        keep->writable = (fcntl(keep->index_fd, F_GETFL) & O_ACCMODE) == O_RDWR;
        result = open_data(keep, folder_fd, error);
    }
    return hand_over(keep, result, keep_out);
}

void keep_close(struct keep *keep)
{
    if (!keep)
        return;
    if (keep->index_fd >= 0)
        close(keep->index_fd);
    if (keep->data_fd >= 0)
        close(keep->data_fd);
    pthread_mutex_destroy(&keep->lock);
    free(keep);
}

const struct plain_header *keep_header(const struct keep *keep)
{
    return &keep->header;
}

void keep_set_size(struct keep *keep, uint64_t size)
{
    keep->header.size = size;
}

/* ---- Slices ---- */

static bool read_digest(struct keep *keep, uint64_t slice, struct digest *digest_out)
{
    ssize_t got = file_pread_full(keep->index_fd, digest_out, DIGEST_SIZE, plain_digest_offset(slice), NULL);

    return got == DIGEST_SIZE && !digest_is_zero(digest_out);
}

bool keep_has(struct keep *keep, uint64_t slice)
{
    struct digest digest;

    return read_digest(keep, slice, &digest);
}

bool keep_has_all(struct keep *keep)
{
    for (uint64_t i = 0, count = plain_slice_count(&keep->header); i < count; i++)
        if (!keep_has(keep, i))
            return false;
    return true;
}

int keep_read(struct keep *keep, uint64_t slice, void *bytes, size_t size)
{
    static const struct digest none;
    struct digest wanted, found;
    ssize_t got;

    if (!read_digest(keep, slice, &wanted))
        return ERROR_NOT_FOUND;
    got = file_pread_full(keep->data_fd, bytes, size, slice * keep->header.slice_size, NULL);
    if (got == (ssize_t)size) {
        digest_of(bytes, size, &found);
        if (digest_equal(&wanted, &found))
            return 0;
    }
    if (keep->writable)
        file_pwrite_full(keep->index_fd, &none, DIGEST_SIZE, plain_digest_offset(slice), NULL);
    return ERROR_CORRUPT;
}

/* What the other plain files leave of the limit, after room was made among them. */
static uint64_t limit_room(const struct keep *keep)
{
    struct keep_usage usage = {0};
    uint64_t ignored;

    keep_measure(keep->cache_fd, &usage, NULL);
    if (usage.bytes + ROOM_STEP > keep->max_bytes) {
        keep_prune(keep->cache_fd, keep->max_bytes - min_u64(keep->max_bytes, ROOM_STEP), &ignored, NULL);
        keep_measure(keep->cache_fd, &usage, NULL);
    }
    return keep->max_bytes - min_u64(keep->max_bytes, usage.bytes);
}

/* May SIZE more bytes be written? Looks at the file system, and at the other plain files, every few megabytes. */
static bool take_room(struct keep *keep, size_t size)
{
    uint64_t room = ROOM_STEP, free_bytes, kept;

    if (keep->room >= size) {
        keep->room -= size;
        return true;
    }
    if (file_space(keep->cache_fd, &free_bytes, &kept))
        room = min_u64(room, free_bytes - min_u64(free_bytes, kept));
    if (keep->max_bytes)
        room = min_u64(room, limit_room(keep));
    if (room < size)
        return false;
    keep->room = room - size;
    return true;
}

int keep_write(struct keep *keep, uint64_t slice, const void *bytes, size_t size, const struct digest *digest,
               struct error *error)
{
    bool room;
    int result;

    if (!keep->writable)
        return error_set(error, ERROR_SYSTEM, "the cache cannot be written to");
    pthread_mutex_lock(&keep->lock);
    room = take_room(keep, size);
    pthread_mutex_unlock(&keep->lock);
    if (!room)
        return error_set(error, ERROR_NO_SPACE, "the cache's limit or its disk has no room for more");
    result = file_pwrite_full(keep->data_fd, bytes, size, slice * keep->header.slice_size, error);
    return result ? result
                  : file_pwrite_full(keep->index_fd, digest, DIGEST_SIZE, plain_digest_offset(slice), error);
}

void keep_discard(struct keep *keep)
{
    if (keep->writable)
        (void)!ftruncate(keep->index_fd, PLAIN_HEADER_SIZE);
}
