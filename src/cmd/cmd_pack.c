/* circular pack: the blocks of a boot, in its order, in one file. */
#include "base/cleanup.h"
#include "cmd/open.h"
#include "cmd/profile_file.h"
#include "image/pack.h"

struct pack_options {
    const char *profile;
    bool all;
};

static const struct option pack_table[] = {
    {"profile", 'p', OPTION_TEXT, "FILE", "go by this profile, not by the one that is attached to the version",
     offsetof(struct pack_options, profile)},
    {"all", 'a', OPTION_FLAG, NULL, "pack the rest of the image too, for pull and for filling caches; needs no profile",
     offsetof(struct pack_options, all)},
    {0},
};

static void print_result(const struct context *context, const char *name, const struct pack_result *result)
{
    const struct pack_options *options = context->options;
    char size[SIZE_TEXT];
    struct emit emit = {0};

    if (result->boot_blocks)
        report_line(context, "%s@%s: boot pack of %llu blocks, %s", name, result->version,
                    (unsigned long long)result->boot_blocks, size_format(result->boot_bytes, size));
    else
        report_line(context, "%s@%s: no boot pack, for want of a profile", name, result->version);
    if (options->all)
        report_line(context, "  packs of the rest: %llu blocks, %s", (unsigned long long)result->rest_blocks,
                    size_format(result->rest_bytes, size));
    if (!context->json)
        return;
    emit_open(&emit, NULL, '{');
    emit_text(&emit, "name", name);
    emit_text(&emit, "version", result->version);
    emit_number(&emit, "boot_blocks", result->boot_blocks);
    emit_number(&emit, "boot_bytes", result->boot_bytes);
    emit_number(&emit, "rest_blocks", result->rest_blocks);
    emit_number(&emit, "rest_bytes", result->rest_bytes);
    emit_close(&emit, '}');
}

static int run_pack(const struct context *context, int count, char **arguments)
{
    const struct pack_options *options = context->options;
    cleanup(profile_finish) struct profile profile = {0};
    char name[NAME_MAX_LENGTH + 1];
    struct pack_settings settings = {.name = name, .all = options->all};
    struct error error = ERROR_INIT;
    struct pack_result packed;
    struct progress *progress;
    int result;

    (void)count;
    if (location_is_http(arguments[0]))
        return report_usage(context, "pack works on the archive's folder, not over HTTP");
    if (open_split_version(arguments[1], name, &settings.version, &error))
        return report_usage(context, "%s", error.message);
    if (options->profile && profile_file_read(options->profile, &profile, &error))
        return report_error(context, &error);
    settings.archive = location_folder(arguments[0]);
    settings.profile = options->profile ? &profile : NULL;
    settings.progress = progress = progress_begin(context, "Packing");
    result = pack_write(&settings, &packed, &error);
    progress_end(progress);
    if (result)
        return report_error(context, &error);
    print_result(context, name, &packed);
    return EXIT_OK;
}

static const char *const pack_usage[] = {"ARCHIVE NAME[@VERSION]", NULL};

const struct command command_pack = {
    .name = "pack",
    .usage = pack_usage,
    .summary = "put the blocks that a boot reads into one file, in its order",
    .options = pack_table,
    .options_size = sizeof(struct pack_options),
    .json = true,
    .run = run_pack,
};
