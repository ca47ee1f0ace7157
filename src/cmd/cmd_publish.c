/* circular publish: an image into an archive. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cmd/import.h"
#include "cmd/signing.h"
#include "format/frame.h"
#include "image/publish.h"

struct publish_options {
    const char *name, *version, *key, *archive, *architecture, *description, *format;
    uint64_t block_size, level, jobs, expires_ms;
};

static const struct option publish_table[] = {
    {"name", 'n', OPTION_TEXT, "NAME", "name of the image", offsetof(struct publish_options, name)},
    {"version", 0, OPTION_TEXT, "VERSION", "its version; one that is published stays as it is",
     offsetof(struct publish_options, version)},
    {"to", 't', OPTION_TEXT, "DIR", "folder of the archive; made if it does not exist",
     offsetof(struct publish_options, archive)},
    SIGNING_KEY_OPTION(struct publish_options),
    {"format", 'f', OPTION_TEXT, "FORMAT", "what the image is (raw, iso, qcow2, vmdk, vdi, vhd, vhdx) instead of what "
     "its bytes say", offsetof(struct publish_options, format)},
    {"block-size", 'b', OPTION_POSITIVE_SIZE, "SIZE", "bytes in a block, a power of two from 4K to 1M (64K)",
     offsetof(struct publish_options, block_size)},
    {"level", 'l', OPTION_POSITIVE_NUMBER, "LEVEL", "compression, from 1 (fast) to 19 (small) (3)",
     offsetof(struct publish_options, level)},
    {"jobs", 'j', OPTION_POSITIVE_NUMBER, "COUNT", "threads (one a processor)", offsetof(struct publish_options, jobs)},
    {"architecture", 'a', OPTION_TEXT, "WORD", "what it runs on, as Debian says it: amd64, arm64",
     offsetof(struct publish_options, architecture)},
    {"description", 'd', OPTION_TEXT, "TEXT", "a sentence about it", offsetof(struct publish_options, description)},
    SIGNING_EXPIRES_OPTION(struct publish_options),
    {0},
};

static void print_result(const struct context *context, const struct publish_options *options,
                         const struct publish_result *result, const char *format, uint64_t elapsed_ms)
{
    char image[DIGEST_TEXT], disk[SIZE_TEXT], data[SIZE_TEXT], stored[SIZE_TEXT], added[SIZE_TEXT];
    struct emit emit = {0};

    digest_format(&result->image, image);
    report_line(context, "%s@%s: image %s%s", options->name, options->version, image,
                result->was_listed ? " (was published before, with the same content)" : "");
    report_line(context, "  disk %s, data %s, stored as %s; new: %llu blocks, %s; %.1f s",
                size_format(result->disk_size, disk), size_format(result->data_size, data),
                size_format(result->stored_size, stored), (unsigned long long)result->new_blocks,
                size_format(result->new_bytes, added), (double)elapsed_ms / 1000);
    if (!context->json)
        return;
    emit_open(&emit, NULL, '{');
    emit_text(&emit, "name", options->name);
    emit_text(&emit, "version", options->version);
    emit_text(&emit, "image", image);
    emit_text(&emit, "format", format);
    emit_number(&emit, "disk_size", result->disk_size);
    emit_number(&emit, "data_size", result->data_size);
    emit_number(&emit, "stored_size", result->stored_size);
    emit_number(&emit, "new_blocks", result->new_blocks);
    emit_number(&emit, "new_bytes", result->new_bytes);
    emit_bool(&emit, "was_listed", result->was_listed);
    emit_number(&emit, "serial", result->serial);
    emit_number(&emit, "elapsed_ms", elapsed_ms);
    emit_close(&emit, '}');
}

/* What can be said before anything is read or converted. */
static int check_options(const struct publish_options *options, struct error *error)
{
    const char *missing = !options->name ? "name" : !options->version ? "version" : !options->archive ? "to" : NULL;
    int result;

    if (missing)
        return error_set(error, ERROR_INVALID, "--%s is needed", missing);
    if (location_is_http(options->archive))
        return error_set(error, ERROR_INVALID, "--to is a folder, not a URL: publish there, or copy the folder to "
                         "the server afterwards");
    result = name_check("name", options->name, error);
    if (!result)
        result = name_check("version", options->version, error);
    if (!result && options->block_size &&
        (!is_power_of_two(options->block_size) || options->block_size < BLOCK_SIZE_MIN ||
         options->block_size > BLOCK_SIZE_MAX))
        result = error_set(error, ERROR_INVALID, "--block-size must be a power of two from 4K to 1M");
    if (!result && options->level > FRAME_LEVEL_MAX)
        result = error_set(error, ERROR_INVALID, "--level must be from 1 to %d", FRAME_LEVEL_MAX);
    return result;
}

static int publish(const struct context *context, const char *path, const struct secret_key *key, struct error *error)
{
    const struct publish_options *options = context->options;
    const char *folder = location_folder(options->archive);
    uint64_t started_ms = clock_ms();
    cleanup(import_close) struct import import = {.fd = -1};
    struct publish_result published;
    struct publish_settings settings = {
        .archive = folder,
        .name = options->name,
        .version = options->version,
        .architecture = options->architecture,
        .description = options->description,
        .block_size = (uint32_t)options->block_size,
        .level = (int)options->level,
        .job_count = options->jobs > 64 ? 64 : (unsigned)options->jobs,
        .key = key,
        .lifetime_s = signing_lifetime_s(options->expires_ms),
    };
    struct progress *progress;
    int result = import_open(context, path, options->format, folder, &import, error);

    if (result)
        return result;
    settings.progress = progress = progress_begin(context, "Publishing");
    result = publish_image(&settings, import.fd, path, &published, error);
    progress_end(progress);
    if (!result)
        print_result(context, options, &published, import.format, clock_ms() - started_ms);
    return result;
}

static int run_publish(const struct context *context, int count, char **arguments)
{
    const struct publish_options *options = context->options;
    struct error error = ERROR_INIT;
    struct secret_key key;
    int result;

    (void)count;
    if (check_options(options, &error))
        return report_usage(context, "%s", error.message);
    if (signing_key_load(options->key, &key, &error))
        return report_error(context, &error);
    result = publish(context, arguments[0], &key, &error);
    secret_key_wipe(&key);
    return result ? report_error(context, &error) : EXIT_OK;
}

static const char *const publish_usage[] = {"FILE", NULL};

const struct command command_publish = {
    .name = "publish",
    .usage = publish_usage,
    .summary = "add a disk image to an archive and sign it",
    .options = publish_table,
    .options_size = sizeof(struct publish_options),
    .json = true,
    .run = run_publish,
};
