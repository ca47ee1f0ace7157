/* Keys on disk: see keys.h. */
#include "trust/keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"

#define KEY_FILE_MAX 4096
#define PASSWORD_MAX 1024

static bool ring_has(const struct key_ring *ring, const struct public_key *key)
{
    for (size_t i = 0; i < ring->count; i++)
        if (!memcmp(&ring->keys[i], key, sizeof(*key)))
            return true;
    return false;
}

static int ring_append(struct key_ring *ring, const struct public_key *key, const char *origin, struct error *error)
{
    struct public_key *keys;
    char **origins;

    if (ring_has(ring, key))
        return 0;
    keys = reallocarray(ring->keys, ring->count + 1, sizeof(*keys));
    if (keys)
        ring->keys = keys;
    origins = reallocarray(ring->origins, ring->count + 1, sizeof(*origins));
    if (origins)
        ring->origins = origins;
    if (!keys || !origins || !(origins[ring->count] = strdup(origin)))
        return error_set(error, ERROR_SYSTEM, "no memory for the key %s", origin);
    keys[ring->count++] = *key;
    return 0;
}

static int ring_add_file(struct key_ring *ring, const char *path, struct error *error)
{
    cleanup(buffer_finish) struct buffer text = {0};
    struct public_key key;
    int result = file_read(AT_FDCWD, path, KEY_FILE_MAX, &text, error);

    if (result)
        return error_prefix(error, "public key");
    if (public_key_parse((const char *)text.bytes, text.size, &key, error))
        return error_prefix(error, "%s", path);
    return ring_append(ring, &key, path, error);
}

int key_ring_add(struct key_ring *ring, const char *key, struct error *error)
{
    struct public_key parsed;

    if (strlen(key) == PUBLIC_KEY_TEXT - 1 && !public_key_parse(key, strlen(key), &parsed, NULL))
        return ring_append(ring, &parsed, key, error);
    return ring_add_file(ring, key, error);
}

static int is_public_key(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);

    return entry->d_name[0] != '.' && length > 4 && !strcmp(entry->d_name + length - 4, ".pub");
}

int key_ring_add_folder(struct key_ring *ring, const char *folder, struct error *error)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_public_key, alphasort);
    int result = 0;

    if (count < 0 && errno != ENOENT)
        return error_set_errno(error, errno, "cannot read the folder of trusted keys %s", folder);
    for (int i = 0; i < count; i++) {
        auto_free char *path = path_join(folder, entries[i]->d_name);

        if (!result)
            result = path ? ring_add_file(ring, path, error)
                          : error_set(error, ERROR_SYSTEM, "no memory for the keys of %s", folder);
        free(entries[i]);
    }
    free(entries);
    return result;
}

void key_ring_finish(struct key_ring *ring)
{
    for (size_t i = 0; i < ring->count; i++)
        free(ring->origins[i]);
    free(ring->origins);
    free(ring->keys);
    *ring = (struct key_ring){0};
}

/* Release TEXT, which holds a secret. */
static void wipe_text(char **text)
{
    if (*text)
        explicit_bzero(*text, strlen(*text));
    free(*text);
}

static void wipe_buffer(struct buffer *buffer)
{
    if (buffer->bytes)
        explicit_bzero(buffer->bytes, buffer->capacity);
    buffer_finish(buffer);
}

static int refuse_existing(const char *path, struct error *error)
{
    struct stat status;

    if (!lstat(path, &status))
        return error_set(error, ERROR_EXISTS, "%s exists already", path);
    return errno == ENOENT ? 0 : error_set_errno(error, errno, "cannot look for %s", path);
}

static int write_pair(const char *secret_path, const char *secret_text, const char *public_path,
                      const char *public_text, struct error *error)
{
    const unsigned flags = FILE_DURABLE | FILE_NEW_ONLY | FILE_MAKE_FOLDERS;
    int result = refuse_existing(public_path, error);

    if (!result)
        result = file_write_atomic(AT_FDCWD, secret_path, secret_text, strlen(secret_text), flags | FILE_PRIVATE,
                                   error);
    if (result)
        return result;
    result = file_write_atomic(AT_FDCWD, public_path, public_text, strlen(public_text), flags, error);
    if (result)
        unlink(secret_path); /* ours, and of no use without the other half */
    return result;
}

int key_pair_write(const char *base, const char *password, struct public_key *public_out, struct error *error)
{
    struct secret_key secret;
    struct public_key public;
    auto_free char *secret_path = NULL;
    auto_free char *public_path = NULL;
    auto_free char *public_text = NULL;
    cleanup(wipe_text) char *secret_text = NULL;
    int result = key_pair_generate(&public, &secret, error);

    if (result)
        return result;
    secret_text = secret_key_format(&secret, password);
    secret_key_wipe(&secret);
    public_text = public_key_format(&public);
    secret_path = text_format("%s.sec", base);
    public_path = text_format("%s.pub", base);
    if (!secret_text || !public_text || !secret_path || !public_path)
        return error_set(error, ERROR_SYSTEM, "no memory to make the key pair %s", base);
    result = write_pair(secret_path, secret_text, public_path, public_text, error);
    if (!result && public_out)
        *public_out = public;
    return result;
}

/* A secret key that others can read is no reason to fail, but to say so. */
static void warn_if_readable(const char *path)
{
    struct stat status;

    if (!stat(path, &status) && S_ISREG(status.st_mode) && status.st_mode & 077)
        log_warning("the secret key %s can be read by others (mode %04o); chmod 600 it", path,
                    (unsigned)status.st_mode & 07777);
}

static int parse_encrypted(const struct buffer *text, const char *path,
                           int (*ask)(void *user, const char *path, char *password, size_t size,
                                      struct error *error),
                           void *user, struct secret_key *key_out, struct error *error)
{
    char password[PASSWORD_MAX];
    int result;

    if (!ask)
        return error_set(error, ERROR_INVALID,
                         "the secret key is encrypted and there is nobody to ask for its password");
    result = ask(user, path, password, sizeof(password), error);
    if (!result)
        result = secret_key_parse((const char *)text->bytes, text->size, password, key_out, error);
    explicit_bzero(password, sizeof(password));
    return result;
}

int secret_key_load(const char *path,
                    int (*ask)(void *user, const char *path, char *password, size_t size, struct error *error),
                    void *user, struct secret_key *key_out, struct error *error)
{
    cleanup(wipe_buffer) struct buffer text = {0};
    int result;

    /* All of it fits at once, so that no copy of the secret is left behind by a growing buffer. */
    if (!buffer_reserve(&text, KEY_FILE_MAX + 16384))
        return error_set(error, ERROR_SYSTEM, "no memory to read %s", path);
    result = file_read(AT_FDCWD, path, KEY_FILE_MAX, &text, error);
    if (result)
        return error_prefix(error, "secret key");
    if (secret_key_is_encrypted((const char *)text.bytes, text.size))
        result = parse_encrypted(&text, path, ask, user, key_out, error);
    else
        result = secret_key_parse((const char *)text.bytes, text.size, NULL, key_out, error);
    if (!result)
        warn_if_readable(path);
    else if (result != ERROR_CANCELLED)
        error_prefix(error, "%s", path);
    return result;
}
