/* All plain files that are kept: measuring, pruning, checking, finding. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "plain/keep_parts.h"

int keep_open_folder(int cache_fd, bool make, struct error *error)
{
    int fd;

    if (make && mkdirat(cache_fd, KEEP_FOLDER, 0700) && errno != EEXIST)
        return error_set_errno(error, errno, "cannot make the folder " KEEP_FOLDER " in the cache");
    fd = openat(cache_fd, KEEP_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? error_set_errno(error, errno, "cannot open the folder " KEEP_FOLDER " of the cache") : fd;
}

/* One kept file, as a listing shows it. */
struct entry {
    char name[DIGEST_TEXT];
    uint64_t bytes; /* on disk */
    int64_t used;   /* seconds since the epoch */
};

struct listing {
    int folder_fd; /* -1: there is none */
    struct entry *entries;
    size_t count, capacity;
};

static void listing_finish(struct listing *listing)
{
    if (listing->folder_fd >= 0)
        close(listing->folder_fd);
    free(listing->entries);
}

static void measure(int folder_fd, struct entry *entry)
{
    static const char *const files[] = {"index", "data"};
    char path[DIGEST_TEXT + 8];
    struct stat status;

    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s", entry->name, files[i]);
        if (fstatat(folder_fd, path, &status, AT_SYMLINK_NOFOLLOW))
            continue;
        entry->bytes += (uint64_t)status.st_blocks * 512;
        if (i == 0)
            entry->used = status.st_mtim.tv_sec;
    }
}

static bool add_entry(struct listing *listing, const char *name)
{
    struct entry *entries = array_grow(listing->entries, listing->count, &listing->capacity, sizeof(*entries));
    struct entry *entry;

    if (!entries)
        return false;
    listing->entries = entries;
    entry = &entries[listing->count++];
    *entry = (struct entry){0};
    memcpy(entry->name, name, DIGEST_TEXT);
    measure(listing->folder_fd, entry);
    return true;
}

static int compare_use(const void *a, const void *b)
{
    const struct entry *left = a, *right = b;

    return (left->used > right->used) - (left->used < right->used);
}

static DIR *open_list(int folder_fd)
{
    auto_close int copy = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = copy < 0 ? NULL : fdopendir(copy);

    if (folder)
        steal_fd(&copy);
    return folder;
}

/* Everything that is kept, what was used last at the end. No folder: an empty list. */
static int list(int cache_fd, struct listing *listing, struct error *error)
{
    struct error reason = ERROR_INIT;
    struct dirent *found;
    struct digest digest;
    bool memory = true;
    DIR *folder;

    *listing = (struct listing){.folder_fd = keep_open_folder(cache_fd, false, &reason)};
    if (listing->folder_fd < 0)
        return reason.code == ERROR_NOT_FOUND ? 0 : error_copy(error, &reason);
    folder = open_list(listing->folder_fd);
    if (!folder)
        return error_set_errno(error, errno, "cannot read the folder " KEEP_FOLDER " of the cache");
    while (memory && (found = readdir(folder)))
        if (digest_parse(found->d_name, &digest))
            memory = add_entry(listing, found->d_name);
    closedir(folder);
    if (!memory)
        return error_set(error, ERROR_SYSTEM, "no memory to list the cache");
    if (listing->count)
        qsort(listing->entries, listing->count, sizeof(*listing->entries), compare_use);
    return 0;
}

int keep_measure(int cache_fd, struct keep_usage *usage_out, struct error *error)
{
    cleanup(listing_finish) struct listing listing;
    int result = list(cache_fd, &listing, error);

    *usage_out = (struct keep_usage){.count = listing.count};
    for (size_t i = 0; i < listing.count; i++)
        usage_out->bytes += listing.entries[i].bytes;
    return result;
}

/* False if somebody uses it. */
static bool remove_entry(int folder_fd, const char *name)
{
    char path[DIGEST_TEXT + 8];
    auto_close int fd = -1;

    snprintf(path, sizeof(path), "%s/index", name);
    fd = openat(folder_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB))
        return false;
    (void)!unlinkat(folder_fd, path, 0);
    snprintf(path, sizeof(path), "%s/data", name);
    (void)!unlinkat(folder_fd, path, 0);
    return !unlinkat(folder_fd, name, AT_REMOVEDIR);
}

int keep_prune(int cache_fd, uint64_t max_bytes, uint64_t *removed_out, struct error *error)
{
    cleanup(listing_finish) struct listing listing;
    int result = list(cache_fd, &listing, error);
    uint64_t total = 0;

    *removed_out = 0;
    for (size_t i = 0; i < listing.count; i++)
        total += listing.entries[i].bytes;
    for (size_t i = 0; i < listing.count && total > max_bytes; i++) {
        const struct entry *entry = &listing.entries[i];

        if (!remove_entry(listing.folder_fd, entry->name))
            continue;
        total -= entry->bytes;
        *removed_out += entry->bytes;
    }
    return result;
}

int keep_find_latest(int folder_fd, const struct digest *url, char name[DIGEST_TEXT], struct error *error)
{
    auto_close int parent = openat(folder_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup(listing_finish) struct listing listing;
    int result = list(parent, &listing, error);

    for (size_t i = listing.count; i > 0 && !result; i--) {
        struct plain_header header;
        auto_close int fd = -1;

        if (keep_open_index(folder_fd, listing.entries[i - 1].name, false, &header, &fd, NULL) ||
            !digest_equal(&header.url, url))
            continue;
        memcpy(name, listing.entries[i - 1].name, DIGEST_TEXT);
        return 0;
    }
    return result ? result : error_set(error, ERROR_NOT_FOUND, "nothing of it is in the cache");
}

/* ---- Checking ---- */

struct checking {
    bool repair;
    void (*fault)(void *user, const char *where, const char *what);
    void *user;
    struct keep_check *check;
    uint8_t *bytes; /* a slice's */
};

static void check_slice(struct checking *checking, const struct plain_header *header, int index_fd, int data_fd,
                        uint64_t slice)
{
    static const struct digest none;
    uint64_t offset = slice * header->slice_size;
    size_t size = (size_t)min_u64(header->slice_size, header->size - offset);
    struct digest wanted, found;
    char where[PLAIN_URL_SIZE + 40];

    if (file_pread_full(index_fd, &wanted, DIGEST_SIZE, plain_digest_offset(slice), NULL) != DIGEST_SIZE ||
        digest_is_zero(&wanted))
        return;
    checking->check->slices++;
    checking->check->bytes += size;
    if (file_pread_full(data_fd, checking->bytes, size, offset, NULL) == (ssize_t)size) {
        digest_of(checking->bytes, size, &found);
        if (digest_equal(&wanted, &found))
            return;
    }
    checking->check->bad++;
    snprintf(where, sizeof(where), "%s at %llu", header->shown, (unsigned long long)offset);
    checking->fault(checking->user, where, "damaged in the cache");
    if (checking->repair && !file_pwrite_full(index_fd, &none, DIGEST_SIZE, plain_digest_offset(slice), NULL))
        checking->check->removed++;
}

static void check_entry(struct checking *checking, int folder_fd, const char *name)
{
    struct error error = ERROR_INIT;
    struct plain_header header;
    char path[DIGEST_TEXT + 8];
    auto_close int index_fd = -1;
    auto_close int data_fd = -1;

    if (keep_open_index(folder_fd, name, false, &header, &index_fd, &error)) {
        checking->check->bad++;
        snprintf(path, sizeof(path), "%s", name);
        checking->fault(checking->user, path, error.message);
        checking->check->removed += checking->repair && remove_entry(folder_fd, name);
        return;
    }
    snprintf(path, sizeof(path), "%s/data", name);
    data_fd = openat(folder_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    for (uint64_t i = 0, count = plain_slice_count(&header); i < count; i++)
        check_slice(checking, &header, index_fd, data_fd, i);
}

int keep_verify(int cache_fd, bool repair, void (*fault)(void *user, const char *where, const char *what), void *user,
                struct keep_check *check_out, struct error *error)
{
    auto_free uint8_t *bytes = malloc(MIB);
    struct checking checking = {repair, fault, user, check_out, bytes};
    cleanup(listing_finish) struct listing listing;
    int result = list(cache_fd, &listing, error);

    *check_out = (struct keep_check){0};
    if (!bytes)
        return error_set(error, ERROR_SYSTEM, "no memory to check plain files");
    for (size_t i = 0; i < listing.count; i++)
        check_entry(&checking, listing.folder_fd, listing.entries[i].name);
    return result;
}
