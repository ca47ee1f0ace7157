/* Finding and loading keys: see signing.h. */
#include "cmd/signing.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"

/* The only .sec file in FOLDER, on the heap. NULL with ERROR set if there is none, or a choice. */
static char *find_only_key(const char *folder, struct error *error)
{
    auto_free char *pattern = path_join(folder, "*.sec");
    char *path = NULL;
    glob_t found;

    if (!pattern || glob(pattern, 0, NULL, &found)) {
        error_set(error, ERROR_INVALID, "--key is needed: there is no secret key in %s (make one with 'circular key "
                  "new %s/NAME')", folder, folder);
        return NULL;
    }
    if (found.gl_pathc == 1)
        path = strdup(found.gl_pathv[0]);
    else
        error_set(error, ERROR_INVALID, "--key is needed: there are %zu secret keys in %s", found.gl_pathc, folder);
    globfree(&found);
    if (!path && error && !error->code)
        error_set(error, ERROR_SYSTEM, "no memory for a path");
    return path;
}

/* The path that KEY stands for, on the heap. */
static char *find_key(const char *key, struct error *error)
{
    auto_free char *folder = client_configuration_folder();
    auto_free char *named = NULL;
    const char *suffix;
    char *path = NULL;

    if (!folder)
        return NULL;
    if (!key)
        return find_only_key(folder, error);
    if (!strchr(key, '/') && access(key, F_OK)) {
        suffix = strrchr(key, '.');
        named = text_format("%s/%s%s", folder, key, suffix && !strcmp(suffix, ".sec") ? "" : ".sec");
        if (!named || !access(named, F_OK))
            return steal_pointer(&named);
    }
    path = strdup(key);
    if (!path)
        error_set(error, ERROR_SYSTEM, "no memory for a path");
    return path;
}

int signing_key_load(const char *key, struct secret_key *key_out, struct error *error)
{
    auto_free char *path = find_key(key, error);

    if (!path)
        return error && error->code ? error->code : error_set(error, ERROR_SYSTEM, "no memory for a path");
    return secret_key_load(path, ask_password, NULL, key_out, error);
}

int signing_trusted_keys(const struct context *context, struct key_ring *ring_out, struct error *error)
{
    auto_free char *folder = client_configuration_folder();
    auto_free char *user_keys = folder ? path_join(folder, "keys.d") : NULL;
    const struct text_list *keys = &context->client->keys;
    int result = user_keys ? 0 : error_set(error, ERROR_SYSTEM, "no memory for a path");

    *ring_out = (struct key_ring){0};
    for (size_t i = 0; !result && i < keys->count; i++)
        result = key_ring_add(ring_out, keys->items[i], error);
    if (!result)
        result = key_ring_add_folder(ring_out, "/etc/circular/keys.d", error);
    if (!result)
        result = key_ring_add_folder(ring_out, user_keys, error);
    if (!result && !ring_out->count && !context->client->insecure)
        result = error_set(error, ERROR_UNTRUSTED, "no key is trusted: give --key PUB, or put it into %s", user_keys);
    if (result)
        key_ring_finish(ring_out);
    return result;
}
