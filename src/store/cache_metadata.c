/*
 * Small files of each archive that the cache knows: archives/<key>/catalog.json and the like. With links to the
 * shared folders beside them, archives/<key>/ is an archive that can be served. And small files under their digest.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "format/name.h"
#include "store/cache_parts.h"

#define KEY_READABLE_MAX 80
#define KEY_SIZE (KEY_READABLE_MAX + 1 + 8 + 1)
#define LOCK_WAIT_MS 3000
#define LOCK_STEP_MS 5
/* archives/<key>/<path> */
#define METADATA_PATH_SIZE (9 + KEY_SIZE + 1 + ARCHIVE_PATH_MAX)

/*
 * ARCHIVE as one spelling for all that mean the same: no user and password, no final slashes, folders absolute. Heap.
 */
static char *canonical(const char *archive)
{
    const char *folder = location_folder(archive);
    char *text = folder ? realpath(folder, NULL) : NULL;
    char *host, *at;

    if (!text)
        text = strdup(archive);
    if (!text)
        return NULL;
    host = strstr(text, "://");
    if (host) {
        host += 3;
        at = host + strcspn(host, "/?#");
        while (at > host && *at != '@')
            at--;
        if (*at == '@')
            memmove(host, at + 1, strlen(at + 1) + 1);
    }
    for (size_t length = strlen(text); length > 1 && text[length - 1] == '/'; length--)
        text[length - 1] = '\0';
    return text;
}

/* A folder name that a person recognises and that is the archive's own: "example.org_8080_os-1a2b3c4d". */
static bool make_key(const char *archive, char key[KEY_SIZE])
{
    auto_free char *text = canonical(archive);
    const char *from;
    struct digest digest;
    size_t at = 0;

    if (!text)
        return false;
    digest_of(text, strlen(text), &digest);
    from = strstr(text, "://") ? strstr(text, "://") + 3 : text;
    while (*from == '/')
        from++;
    for (; *from && *from != '?' && *from != '#' && at < KEY_READABLE_MAX; from++) {
        bool safe = (*from >= 'a' && *from <= 'z') || (*from >= 'A' && *from <= 'Z') ||
                    (*from >= '0' && *from <= '9') || *from == '-' || (*from == '.' && at);

        key[at++] = safe ? *from : '_';
    }
    key[at++] = '-';
    hex_encode(digest.bytes, 4, key + at);
    return true;
}

/* Paths come from checked names; that they stay inside is checked here all the same. */
static bool is_inside(const char *path)
{
    if (strlen(path) >= ARCHIVE_PATH_MAX)
        return false;
    for (;;) {
        size_t length = strcspn(path, "/");

        if (length == 0 || (path[0] == '.' && (length == 1 || (length == 2 && path[1] == '.'))))
            return false;
        if (!path[length])
            return true;
        path += length + 1;
    }
}

static int metadata_path(const char *archive, const char *path, char whole[METADATA_PATH_SIZE], size_t *key_end_out,
                         struct error *error)
{
    char key[KEY_SIZE];

    if (!is_inside(path))
        return error_set(error, ERROR_INVALID, "a path that leaves its archive: %s", path);
    if (!make_key(archive, key))
        return error_set(error, ERROR_SYSTEM, "no memory for %s", path);
    *key_end_out = (size_t)snprintf(whole, METADATA_PATH_SIZE, "archives/%s/", key);
    snprintf(whole + *key_end_out, METADATA_PATH_SIZE - *key_end_out, "%s", path);
    return 0;
}

int cache_read_metadata(struct cache *cache, const char *archive, const char *path, size_t limit,
                        struct buffer *bytes, struct error *error)
{
    char whole[METADATA_PATH_SIZE];
    size_t key_end;
    int result = metadata_path(archive, path, whole, &key_end, error);

    return result ? result : file_read(cache->root_fd, whole, limit, bytes, error);
}

/* The links that make FOLDER (archives/<key>/) a whole archive. Best effort. */
static void make_links(struct cache *cache, const char *folder)
{
    static const char *const names[] = {"blocks", "maps", "files", "packs"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char link[METADATA_PATH_SIZE], target[16];

        snprintf(link, sizeof(link), "%s%s", folder, names[i]);
        snprintf(target, sizeof(target), "../../%s", names[i]);
        (void)!symlinkat(target, cache->root_fd, link);
    }
}

void cache_write_metadata(struct cache *cache, const char *archive, const char *path, const void *bytes, size_t size)
{
    char whole[METADATA_PATH_SIZE];
    struct error error = ERROR_INIT;
    size_t key_end;

    if (metadata_path(archive, path, whole, &key_end, &error) ||
        file_write_atomic(cache->root_fd, whole, bytes, size, FILE_MAKE_FOLDERS, &error)) {
        if (error.code != ERROR_INVALID)
            cache_rest(cache, error.message);
        return;
    }
    whole[key_end] = '\0';
    make_links(cache, whole);
}

int cache_lock_metadata(struct cache *cache, const char *archive)
{
    char folder[METADATA_PATH_SIZE];
    auto_close int fd = -1;
    uint64_t give_up_ms = clock_ms() + LOCK_WAIT_MS;
    size_t key_end;
    int result;

    if (metadata_path(archive, ARCHIVE_CATALOG, folder, &key_end, NULL) ||
        file_make_parent(cache->root_fd, folder, NULL))
        return -1;
    folder[key_end] = '\0';
    fd = openat(cache->root_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    do {
        result = file_lock(fd, false, true, NULL);
        if (result == ERROR_BUSY)
            clock_sleep_ms(LOCK_STEP_MS);
    } while (result == ERROR_BUSY && clock_ms() < give_up_ms);
    if (result)
        return -1;
    return steal_fd(&fd);
}

int cache_read_file(struct cache *cache, const struct digest *digest, size_t limit, struct buffer *bytes,
                    struct error *error)
{
    char path[ARCHIVE_PATH_MAX];
    struct digest found;
    int result = file_read(cache->root_fd, archive_path_file(digest, path), limit, bytes, error);

    if (result)
        return result;
    digest_of(bytes->bytes, bytes->size, &found);
    if (digest_equal(&found, digest))
        return 0;
    unlinkat(cache->root_fd, path, 0);
    return error_set(error, ERROR_CORRUPT, "%s/%s: digest differs", cache->path, path);
}

void cache_write_file(struct cache *cache, const struct digest *digest, const void *bytes, size_t size)
{
    char path[ARCHIVE_PATH_MAX];
    struct error error = ERROR_INIT;

    if (cache_has_room(cache) &&
        file_write_atomic(cache->root_fd, archive_path_file(digest, path), bytes, size, FILE_MAKE_FOLDERS, &error))
        cache_rest(cache, error.message);
}
