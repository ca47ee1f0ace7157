/* circular gc: what no listed version of an archive needs goes. */
#include <stdio.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "cmd/signing.h"
#include "image/publish.h"

struct gc_options {
    bool dry_run;
};

static const struct option gc_table[] = {
    {"dry-run", 'n', OPTION_FLAG, NULL, "remove nothing, only say what would be removed",
     offsetof(struct gc_options, dry_run)},
    {0},
};

static void print_removed(void *user, const char *path, uint64_t size)
{
    const struct context *context = user;
    const struct gc_options *options = context->options;
    char text[SIZE_TEXT];

    if (options->dry_run || context->verbose)
        report_line(context, "%s  %s", path, size_format(size, text));
}

static void print_result(const struct context *context, const struct collect_result *result)
{
    const struct gc_options *options = context->options;
    char removed[SIZE_TEXT], kept[SIZE_TEXT];
    struct emit emit = {0};

    report_line(context, "%s %llu files, %s; kept %llu files, %s", options->dry_run ? "would remove" : "removed",
                (unsigned long long)result->files, size_format(result->bytes, removed),
                (unsigned long long)result->kept_files, size_format(result->kept_bytes, kept));
    if (!context->json)
        return;
    emit_open(&emit, NULL, '{');
    emit_bool(&emit, "dry_run", options->dry_run);
    emit_number(&emit, "removed_files", result->files);
    emit_number(&emit, "removed_bytes", result->bytes);
    emit_number(&emit, "kept_files", result->kept_files);
    emit_number(&emit, "kept_bytes", result->kept_bytes);
    emit_close(&emit, '}');
}

static int run_gc(const struct context *context, int count, char **arguments)
{
    const struct gc_options *options = context->options;
    bool insecure = context->client->insecure;
    cleanup(key_ring_finish) struct key_ring ring = {0};
    struct collect_result result;
    struct error error = ERROR_INIT;
    struct trusted_keys trusted;

    (void)count;
    if (location_is_http(arguments[0]))
        return report_usage(context, "gc works on the archive's folder, not over HTTP");
    if (signing_trusted_keys(context, &ring, &error))
        return report_error(context, &error);
    if (insecure)
        log_warning("the catalog's signature is not checked");
    trusted = key_ring_trusted(&ring);
    if (publish_collect(location_folder(arguments[0]), insecure ? NULL : &trusted, options->dry_run, print_removed,
                        (void *)(uintptr_t)context, &result, &error))
        return report_error(context, &error);
    print_result(context, &result);
    return EXIT_OK;
}

static const char *const gc_usage[] = {"ARCHIVE", NULL};

const struct command command_gc = {
    .name = "gc",
    .usage = gc_usage,
    .summary = "remove from an archive what no listed version needs",
    .options = gc_table,
    .options_size = sizeof(struct gc_options),
    .client = true,
    .json = true,
    .run = run_gc,
};
