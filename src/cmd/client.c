/*
 * What a client was told: defaults, then configuration files, then the
 * environment; the command line comes last, in main.c. The words of a
 * configuration file are the names of the client options.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "cmd/options.h"
#include "format/conf.h"

#define CACHE_SIZE_DEFAULT  (20 * GIB)
#define PATIENCE_DEFAULT_MS 60000
#define CONNECTIONS_DEFAULT 96

#define AT(member) offsetof(struct client_options, member)

const struct option client_option_table[] = {
    {"key", 'k', OPTION_LIST, "PUB", "also trust this public key, a file or the key itself", AT(keys)},
    {"mirror", 'm', OPTION_LIST, "URL", "another place that holds the same archive", AT(mirrors)},
    {"cache", 'C', OPTION_TEXT, "DIR", "keep fetched blocks in this folder", AT(cache)},
    {"no-cache", 0, OPTION_FLAG, NULL, "neither use nor fill a cache", AT(no_cache)},
    {"max-size", 0, OPTION_SIZE, "SIZE", "let the cache grow to this size, 20G unless told otherwise, 0: unbounded",
     AT(max_size)},
    {"patience", 0, OPTION_DURATION, "TIME", "how long a read waits for a block that no place can serve, 60s unless "
     "told otherwise", AT(patience_ms)},
    {"connections", 0, OPTION_NUMBER, "COUNT", "at most so many connections to a server, 96 unless told otherwise",
     AT(connections)},
    {"prefetch", 0, OPTION_TEXT, "WHAT", "what of a mounted disk is fetched before it is read: profile, what a boot "
     "reads; all, then the whole disk, with what readers leave of the link, as far as the cache has room; or none. "
     "All unless told otherwise", AT(prefetch)},
    {"limit-rate", 0, OPTION_SIZE, "SIZE", "fetch at most so many bytes a second", AT(limit_rate)},
    {"proxy", 0, OPTION_TEXT, "URL", "reach servers through this proxy; none: directly", AT(proxy)},
    {"no-proxy", 0, OPTION_TEXT, "HOSTS", "reach these hosts directly, separated by commas", AT(no_proxy)},
    {"ca-file", 0, OPTION_TEXT, "FILE", "trust servers that are certified by these authorities, PEM", AT(ca_file)},
    {"client-certificate", 0, OPTION_TEXT, "FILE", "show servers this certificate, PEM with its key",
     AT(client_certificate)},
    {"token-file", 0, OPTION_TEXT, "FILE", "send the server the bearer token that is in this file", AT(token_file)},
    {"offline", 0, OPTION_FLAG, NULL, "use only what is in the cache", AT(offline)},
    {"insecure", 0, OPTION_FLAG, NULL, "accept any signature or none", AT(insecure)},
    {0},
};

/* Take over TEXT (heap), which lives as long as OPTIONS. NULL: no memory. */
static const char *own(struct client_options *options, char *text)
{
    struct text_list *owned = &options->owned;
    const char **items = text ? reallocarray(owned->items, owned->count + 1, sizeof(*items)) : NULL;

    if (!items) {
        free(text);
        return NULL;
    }
    items[owned->count++] = text;
    owned->items = items;
    return text;
}

static const char *home_folder(void)
{
    const char *home = getenv("HOME");
    const struct passwd *user;

    if (home && *home == '/')
        return home;
    user = getpwuid(getuid());
    return user && user->pw_dir ? user->pw_dir : "/";
}

/* "$VARIABLE/circular", or for root FOR_ROOT (NULL: as for anybody), or "HOME/BELOW_HOME/circular". */
static char *user_folder(const char *variable, const char *for_root, const char *below_home)
{
    const char *base = getenv(variable);

    if (base && *base == '/') /* the specification has relative ones ignored */
        return path_join(base, "circular");
    if (for_root && geteuid() == 0)
        return strdup(for_root);
    return text_format("%s/%s/circular", home_folder(), below_home);
}

char *client_state_folder(void)
{
    return user_folder("XDG_STATE_HOME", "/var/lib/circular", ".local/state");
}

char *client_configuration_folder(void)
{
    return user_folder("XDG_CONFIG_HOME", NULL, ".config");
}

static int unknown_word(unsigned line, const char *word, struct error *error)
{
    const char *candidates[sizeof(client_option_table) / sizeof(client_option_table[0]) + 1];
    const char *near;
    size_t count = 0;

    for (const struct option *option = client_option_table; option->name; option++)
        candidates[count++] = option->name;
    candidates[count++] = "archive";
    near = suggest(word, candidates, count);
    return error_set(error, ERROR_INVALID, "line %u: unknown word '%.100s'%s%s%s", line, word,
                     near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static int apply(void *user, unsigned line, const char *word, const char *value, struct error *error)
{
    struct client_options *options = user;
    const struct option *option = option_find(client_option_table, word);
    const char *kept;

    if (!option && strcmp(word, "archive") != 0)
        return unknown_word(line, word, error);
    if (!strcmp(word, "insecure")) /* nobody should be insecure without having said so */
        return error_set(error, ERROR_INVALID, "line %u: insecure is for the command line only", line);
    kept = own(options, strdup(value));
    if (!kept)
        return error_set(error, ERROR_SYSTEM, "no memory for the configuration");
    if (!option)
        options->archive = kept;
    else if (option_store(option, options, kept, error))
        return error_prefix(error, "line %u: %s", line, word);
    return 0;
}

static int read_file(struct client_options *options, const char *path, struct error *error)
{
    cleanup(buffer_finish) struct buffer text = {0};
    int result = file_read(AT_FDCWD, path, CONF_SIZE_MAX, &text, error);

    if (result) {
        if (error)
            error->code = ERROR_INVALID; /* whatever it is, the configuration is what must be mended */
        return ERROR_INVALID;
    }
    if (conf_parse((const char *)text.bytes, text.size, apply, options, error))
        return error_prefix(error, "%s", path);
    return 0;
}

static int is_conf(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);

    return entry->d_name[0] != '.' && length > 5 && !strcmp(entry->d_name + length - 5, ".conf");
}

int client_read_folder(struct client_options *options, const char *folder, struct error *error)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_conf, alphasort);
    int result = 0;

    if (count < 0 && errno != ENOENT && errno != ENOTDIR && errno != EACCES)
        return error_set_errno(error, errno, "cannot read the folder %s", folder);
    for (int i = 0; i < count; i++) {
        auto_free char *path = path_join(folder, entries[i]->d_name);

        if (!result)
            result = path ? read_file(options, path, error)
                          : error_set(error, ERROR_SYSTEM, "no memory for the configuration");
        free(entries[i]);
    }
    free(entries);
    return result;
}

/* What the environment says of proxies, over what configuration files say. */
static void read_environment(struct client_options *options)
{
    /* Upper-case HTTP_PROXY is not read: a web server sets it from a request's Proxy header. */
    static const struct {
        const char *name;
        size_t offset;
    } variables[] = {
        {"ALL_PROXY", AT(http_proxy)},  {"all_proxy", AT(http_proxy)},    {"http_proxy", AT(http_proxy)},
        {"ALL_PROXY", AT(https_proxy)}, {"all_proxy", AT(https_proxy)},   {"HTTPS_PROXY", AT(https_proxy)},
        {"https_proxy", AT(https_proxy)}, {"NO_PROXY", AT(no_proxy)},     {"no_proxy", AT(no_proxy)},
    };

    options->http_proxy = options->https_proxy = options->proxy;
    options->proxy = NULL;
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
        const char *value = getenv(variables[i].name);

        if (value && *value)
            *(const char **)((char *)options + variables[i].offset) = value;
    }
}

int client_load(struct client_options *options, struct error *error)
{
    static const char *const folders[] = {"/usr/lib/circular", "/etc/circular", "/run/circular"};
    auto_free char *user = client_configuration_folder();
    int result = 0;

    options->max_size = CACHE_SIZE_DEFAULT;
    options->patience_ms = PATIENCE_DEFAULT_MS;
    options->connections = CONNECTIONS_DEFAULT;
    options->default_cache = own(options, user_folder("XDG_CACHE_HOME", "/var/cache/circular", ".cache"));
    options->cache = options->default_cache;
    if (!options->cache || !user)
        return error_set(error, ERROR_SYSTEM, "no memory for the configuration");
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]) && !result; i++)
        result = client_read_folder(options, folders[i], error);
    if (!result)
        result = client_read_folder(options, user, error);
    if (!result)
        read_environment(options);
    return result;
}

int client_find_cache(const char *path, struct client_options *options, struct error *error)
{
    struct stat status;
    int result = client_load(options, error);

    if (result)
        return result;
    if (path)
        options->cache = path;
    if (stat(options->cache, &status) && errno == ENOENT)
        return error_set(error, ERROR_NOT_FOUND, "there is no cache %s (yet)", options->cache);
    if (access(options->cache, R_OK | X_OK))
        return error_set_errno(error, errno, "cannot look into the cache %s", options->cache);
    if (!S_ISDIR(status.st_mode))
        return error_set(error, ERROR_INVALID, "%s is not a folder", options->cache);
    return 0;
}

static void hash_text(struct hash *hash, const char *text)
{
    hash_update(hash, text ? text : "", text ? strlen(text) + 1 : 1);
}

static int digest_options(const struct client_options *options, struct digest *digest_out, struct error *error)
{
    struct hash *hash = hash_create();

    if (!hash)
        return error_set(error, ERROR_SYSTEM, "no memory to compare options");
    for (const struct option *option = client_option_table; option->name; option++) {
        const void *value = (const char *)options + option->offset;
        const struct text_list *list = value;

        if (option->kind == OPTION_TEXT)
            hash_text(hash, *(const char *const *)value);
        else if (option->kind == OPTION_FLAG)
            hash_update(hash, value, sizeof(bool));
        else if (option->kind != OPTION_LIST && option->offset != AT(patience_ms))
            hash_update(hash, value, sizeof(uint64_t));
        for (size_t i = 0; option->kind == OPTION_LIST && i < list->count; i++)
            hash_text(hash, list->items[i]);
        hash_update(hash, "", 1);
    }
    hash_final(hash, digest_out);
    hash_destroy(hash);
    return 0;
}

int client_difference(const struct client_options *options, struct digest *digest_out, struct error *error)
{
    struct client_options plain = {0};
    struct digest otherwise;
    int result = client_load(&plain, error);

    if (!result)
        result = digest_options(&plain, &otherwise, error);
    if (!result)
        result = digest_options(options, digest_out, error);
    if (!result && digest_equal(digest_out, &otherwise))
        *digest_out = (struct digest){0};
    client_finish(&plain);
    return result;
}

void client_finish(struct client_options *options)
{
    options_finish(client_option_table, options);
    for (size_t i = 0; i < options->owned.count; i++)
        free((char *)(uintptr_t)options->owned.items[i]);
    free(options->owned.items);
    options->owned = (struct text_list){0};
}
