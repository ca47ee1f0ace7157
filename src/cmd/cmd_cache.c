/* circular cache info, cache prune: the folder where fetched blocks are kept. */
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "cmd/options.h"
#include "plain/keep.h"
#include "store/cache.h"

struct cache_options {
    const char *cache;
    const char *max_size; /* text: 0 has a meaning of its own */
};

static const struct option info_table[] = {
    {"cache", 'C', OPTION_TEXT, "DIR", CLIENT_CACHE_HELP, offsetof(struct cache_options, cache)},
    {0},
};

static const struct option prune_table[] = {
    {"cache", 'C', OPTION_TEXT, "DIR", CLIENT_CACHE_HELP, offsetof(struct cache_options, cache)},
    {"max-size", 0, OPTION_TEXT, "SIZE", "leave at most this much, not the configured size; 0 removes every block",
     offsetof(struct cache_options, max_size)},
    {0},
};

static void print_usage(const struct context *context, const char *path, const struct cache_usage *usage,
                        const struct keep_usage *plain)
{
    char blocks[SIZE_TEXT], maps[SIZE_TEXT], profiles[SIZE_TEXT], most[SIZE_TEXT], left[SIZE_TEXT], files[SIZE_TEXT];

    report_line(context, "folder     %s", path);
    report_line(context, "blocks     %llu, %s", (unsigned long long)usage->block_count,
                size_format(usage->block_bytes, blocks));
    report_line(context, "maps       %s", size_format(usage->map_bytes, maps));
    if (plain->count)
        report_line(context, "plain      %llu files by URL, %s", (unsigned long long)plain->count,
                    size_format(plain->bytes, files));
    report_line(context, "profiles   %llu, %s", (unsigned long long)usage->profile_count,
                size_format(usage->profile_bytes, profiles));
    report_line(context, "limit      %s", usage->max_bytes ? size_format(usage->max_bytes, most) : "none");
    report_line(context, "disk free  %s", size_format(usage->free_bytes, left));
    if (usage->temporary_count)
        report_line(context, "left over  %llu temporary files of killed processes; prune removes them",
                    (unsigned long long)usage->temporary_count);
}

static void print_usage_json(const char *path, const struct cache_usage *usage, const struct keep_usage *plain)
{
    struct emit emit = {0};

    emit_open(&emit, NULL, '{');
    emit_text(&emit, "folder", path);
    emit_number(&emit, "block_count", usage->block_count);
    emit_number(&emit, "block_bytes", usage->block_bytes);
    emit_number(&emit, "map_bytes", usage->map_bytes);
    emit_number(&emit, "plain_count", plain->count);
    emit_number(&emit, "plain_bytes", plain->bytes);
    emit_number(&emit, "profile_count", usage->profile_count);
    emit_number(&emit, "profile_bytes", usage->profile_bytes);
    emit_number(&emit, "max_bytes", usage->max_bytes);
    emit_number(&emit, "free_bytes", usage->free_bytes);
    emit_number(&emit, "temporary_count", usage->temporary_count);
    emit_close(&emit, '}');
}

static int run_info(const struct context *context, int count, char **arguments)
{
    const struct cache_options *options = context->options;
    cleanup(client_finish) struct client_options client = {0};
    struct error error = ERROR_INIT;
    struct cache_usage usage;
    struct keep_usage plain;
    struct cache *cache;
    int result;

    (void)count, (void)arguments;
    if (client_find_cache(options->cache, &client, &error) || cache_open(client.cache, client.max_size, &cache, &error))
        return report_error(context, &error);
    result = cache_measure(cache, &usage, &error);
    if (!result)
        result = keep_measure(cache_folder_fd(cache), &plain, &error);
    cache_close(cache);
    if (result)
        return report_error(context, &error);
    if (context->json)
        print_usage_json(client.cache, &usage, &plain);
    else
        print_usage(context, client.cache, &usage, &plain);
    return EXIT_OK;
}

static void report_pruned(const struct context *context, uint64_t removed)
{
    char text[SIZE_TEXT];
    struct emit emit = {0};

    report_line(context, "removed %s", size_format(removed, text));
    if (!context->json)
        return;
    emit_open(&emit, NULL, '{');
    emit_number(&emit, "removed_bytes", removed);
    emit_close(&emit, '}');
}

static int run_prune(const struct context *context, int count, char **arguments)
{
    const struct cache_options *options = context->options;
    cleanup(client_finish) struct client_options client = {0};
    struct error error = ERROR_INIT;
    uint64_t removed = 0, removed_plain = 0, most = 0;
    struct cache *cache;
    int result;

    (void)count, (void)arguments;
    if (options->max_size && !size_parse(options->max_size, &most))
        return report_usage(context, "--max-size: '%s' is not a size (such as 4096, 64K or 2G)", options->max_size);
    if (client_find_cache(options->cache, &client, &error))
        return report_error(context, &error);
    if (!options->max_size)
        most = client.max_size ? client.max_size : UINT64_MAX;
    if (cache_open(client.cache, client.max_size, &cache, &error))
        return report_error(context, &error);
    result = cache_prune(cache, most, &removed, &error);
    if (!result)
        result = keep_prune(cache_folder_fd(cache), most, &removed_plain, &error);
    cache_close(cache);
    if (result)
        return report_error(context, &error);
    report_pruned(context, removed + removed_plain);
    return EXIT_OK;
}

static const char *const usage[] = {"", NULL};

const struct command command_cache_info = {
    .name = "cache info",
    .usage = usage,
    .summary = "tell where the cache is and how much it holds",
    .options = info_table,
    .options_size = sizeof(struct cache_options),
    .json = true,
    .run = run_info,
};

const struct command command_cache_prune = {
    .name = "cache prune",
    .usage = usage,
    .summary = "remove what was least recently used, down to a size",
    .options = prune_table,
    .options_size = sizeof(struct cache_options),
    .json = true,
    .run = run_prune,
};
