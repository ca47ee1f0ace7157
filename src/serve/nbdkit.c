/*
 * An nbdkit plugin: a published disk over NBD. `nbdkit circular URL/NAME`, see
 * nbdkit-circular-plugin(1). Reads come from libcircular, so what leaves here is
 * verified; requests run in parallel.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "circular.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define WORDS_MAX 32

/* One disk a process, as nbdkit's own model is. Written while configuring, read-only once it serves. */
static struct {
    char *url;
    struct circular_options options;
    const char *keys[WORDS_MAX + 1];
    const char *mirrors[WORDS_MAX + 1];
    struct circular_disk *disk;
} plugin = {.options = CIRCULAR_OPTIONS_INIT};

/* A file or folder by its absolute name, because nbdkit changes its folder when it goes to the background. */
static char *fixed_path(const char *value)
{
    return access(value, F_OK) ? strdup(value) : nbdkit_absolute_path(value);
}

static int add_word(const char **words, const char *name, const char *value)
{
    for (size_t i = 0; i < WORDS_MAX; i++) {
        if (words[i])
            continue;
        words[i] = fixed_path(value);
        return words[i] ? 0 : -1;
    }
    nbdkit_error("circular: more than %d of %s=", WORDS_MAX, name);
    return -1;
}

static int set_path(const char **path_out, const char *value)
{
    *path_out = nbdkit_absolute_path(value); /* nbdkit changes its folder when it goes to the background */
    return *path_out ? 0 : -1;
}

static int set_flag(bool *flag_out, const char *value)
{
    int flag = nbdkit_parse_bool(value);

    *flag_out = flag > 0;
    return flag < 0 ? -1 : 0;
}

static int set_patience(const char *value)
{
    uint64_t ms;

    if (!duration_parse(value, &ms) || ms == 0 || ms > UINT32_MAX) {
        nbdkit_error("circular: patience=%s is not a time; use a number with ms, s, m or h", value);
        return -1;
    }
    plugin.options.patience_ms = (unsigned)ms;
    return 0;
}

static int set_url(const char *value)
{
    free(plugin.url);
    plugin.url = strdup(value);
    return plugin.url ? 0 : -1;
}

static int set_cache_size(const char *value)
{
    int64_t bytes = nbdkit_parse_size(value);

    plugin.options.cache_max_bytes = bytes < 0 ? 0 : (uint64_t)bytes;
    return bytes < 0 ? -1 : 0;
}

static int set_prefetch(const char *value)
{
    static const struct {
        const char *word;
        enum circular_prefetch prefetch;
    } words[] = {
        {"none", CIRCULAR_PREFETCH_NONE},
        {"profile", CIRCULAR_PREFETCH_PROFILE},
        {"all", CIRCULAR_PREFETCH_ALL},
    };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (!strcmp(value, words[i].word)) {
            plugin.options.prefetch = words[i].prefetch;
            return 0;
        }
    nbdkit_error("circular: prefetch=%s is none of profile, all, none", value);
    return -1;
}

static int plugin_config(const char *key, const char *value)
{
    if (!strcmp(key, "url"))
        return set_url(value);
    if (!strcmp(key, "key"))
        return add_word(plugin.keys, key, value);
    if (!strcmp(key, "mirror"))
        return add_word(plugin.mirrors, key, value);
    if (!strcmp(key, "cache"))
        return set_path(&plugin.options.cache_path, value);
    if (!strcmp(key, "state"))
        return set_path(&plugin.options.state_path, value);
    if (!strcmp(key, "max-size"))
        return set_cache_size(value);
    if (!strcmp(key, "proxy"))
        return (plugin.options.http_proxy = strdup(value)) ? 0 : -1;
    if (!strcmp(key, "patience"))
        return set_patience(value);
    if (!strcmp(key, "prefetch"))
        return set_prefetch(value);
    if (!strcmp(key, "insecure"))
        return set_flag(&plugin.options.insecure, value);
    if (!strcmp(key, "offline"))
        return set_flag(&plugin.options.offline, value);
    nbdkit_error("circular: unknown parameter '%s'", key);
    return -1;
}

static int plugin_config_complete(void)
{
    if (!plugin.url) {
        nbdkit_error("circular: which disk? Say: nbdkit circular URL/NAME[@VERSION]");
        return -1;
    }
    plugin.options.keys = plugin.keys;
    plugin.options.mirrors = plugin.mirrors;
    plugin.options.key_folder = "/etc/circular/keys.d";
    return 0;
}

static int open_disk(enum circular_prefetch prefetch)
{
    struct circular_options options = plugin.options;
    struct circular_error error;

    options.prefetch = prefetch;
    if (circular_open(plugin.url, &options, &plugin.disk, &error)) {
        nbdkit_error("circular: %s", error.message);
        return -1;
    }
    return 0;
}

static void plugin_cleanup(void)
{
    circular_close(plugin.disk);
    plugin.disk = NULL;
}

/* While whoever starts nbdkit still listens: once it is in the background, errors go to the system's log. */
static int plugin_get_ready(void)
{
    if (open_disk(CIRCULAR_PREFETCH_NONE))
        return -1;
    plugin_cleanup();
    return 0;
}

/* Opened a second time, after nbdkit has gone to the background: a fork loses libcircular's threads. */
static int plugin_after_fork(void)
{
    return open_disk(plugin.options.prefetch);
}

static void *plugin_open(int read_only)
{
    (void)read_only;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t plugin_get_size(void *handle)
{
    (void)handle;
    return (int64_t)circular_size(plugin.disk);
}

static int always(void *handle)
{
    (void)handle;
    return 1;
}

static int never(void *handle)
{
    (void)handle;
    return 0;
}

static int plugin_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    *minimum = 1;
    *preferred = 65536;
    *maximum = 32 * 1024 * 1024;
    return 0;
}

static int errno_of(int code)
{
    switch (code) {
    case CIRCULAR_INVALID:
        return EINVAL;
    case CIRCULAR_NO_SPACE:
        return ENOSPC;
    default:
        return EIO;
    }
}

static int plugin_pread(void *handle, void *bytes, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct circular_error error;
    ssize_t got = circular_pread(plugin.disk, bytes, count, offset, &error);

    (void)handle;
    (void)flags;
    if (got == (ssize_t)count)
        return 0;
    nbdkit_error("circular: %s", got < 0 ? error.message : "read past the end of the disk");
    nbdkit_set_error(got < 0 ? errno_of((int)got) : EINVAL);
    return -1;
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                          struct nbdkit_extents *extents)
{
    uint64_t end = offset + count;
    bool data = true;

    (void)handle;
    for (uint64_t at = offset; at < end; data = !data) {
        /* The next place that is of the other kind: the extent ends there. */
        int64_t next = circular_seek(plugin.disk, at, !data, NULL);
        uint32_t type = data ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;

        if (next < 0) {
            nbdkit_set_error(EIO);
            return -1;
        }
        if ((uint64_t)next == at)
            continue;
        if (nbdkit_add_extent(extents, at, (uint64_t)next - at, type) == -1)
            return -1;
        at = (uint64_t)next;
        if (flags & NBDKIT_FLAG_REQ_ONE)
            break;
    }
    return 0;
}

static struct nbdkit_plugin plugin_table = {
    .name = "circular",
    .longname = "OS Circular: a published disk image, verified",
    .version = "0.1.0",
    .description = "Serves a disk of an OS Circular archive. Blocks are fetched when read, verified and cached.",
    .magic_config_key = "url",
    .config_help = "[url=]URL/NAME[@VERSION]  (required) the disk\n"
                   "key=FILE|KEY              a trusted public key, besides /etc/circular/keys.d\n"
                   "cache=FOLDER              keep blocks there\n"
                   "max-size=SIZE             of the cache\n"
                   "state=FOLDER              remember serials there, against rollback\n"
                   "mirror=URL|FOLDER         a further source; may be given often\n"
                   "patience=TIME             how long a read waits for a source (60s)\n"
                   "prefetch=profile|all|none what to fetch before it is read (profile)\n"
                   "proxy=URL                 reach servers through it\n"
                   "offline=BOOL              use only what is in the cache\n"
                   "insecure=BOOL             accept any signature or none",
    .config = plugin_config,
    .config_complete = plugin_config_complete,
    .get_ready = plugin_get_ready,
    .after_fork = plugin_after_fork,
    .cleanup = plugin_cleanup,
    .open = plugin_open,
    .get_size = plugin_get_size,
    .block_size = plugin_block_size,
    .can_write = never,
    .can_multi_conn = always,
    .can_extents = always,
    .pread = plugin_pread,
    .extents = plugin_extents,
    .errno_is_preserved = 0,
};

/* The macro defines it without declaring it. */
struct nbdkit_plugin *plugin_init(void);

NBDKIT_REGISTER_PLUGIN(plugin_table)
