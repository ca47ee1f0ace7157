/* circular pull: all of an image, into the cache or out to a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "cmd/known_total.h"
#include "cmd/open.h"
#include "image/pull.h"

struct pull_options {
    const char *output;
    bool force;
};

static const struct option pull_table[] = {
    {"output", 'o', OPTION_TEXT, "FILE", "write the disk to FILE or a block device, instead of only into the cache",
     offsetof(struct pull_options, output)},
    {"force", 'f', OPTION_FLAG, NULL, "FILE exists: bring it up to date in place",
     offsetof(struct pull_options, force)},
    {0},
};

/* Where the disk is written to: FILE itself, or FILE.part, which becomes FILE when it is complete. */
struct output {
    char *path;
    int fd;
    bool partial;
};

static void output_finish(struct output *output)
{
    if (output->fd >= 0)
        close(output->fd);
    free(output->path);
    *output = (struct output){.fd = -1};
}

/* O_EXCL refuses a device that is mounted. */
static int open_device(const char *path, struct output *output, struct error *error)
{
    output->path = strdup(path);
    output->fd = output->path ? open(path, O_RDWR | O_EXCL | O_CLOEXEC) : -1;
    if (output->fd >= 0)
        return 0;
    if (errno == EBUSY)
        return error_set(error, ERROR_BUSY, "%s is in use", path);
    return error_set_errno(error, errno, "cannot open %s", path);
}

static int open_file(const char *path, bool in_place, struct output *output, struct error *error)
{
    int result;

    output->partial = !in_place;
    output->path = text_format("%s%s", path, in_place ? "" : ".part");
    if (!output->path)
        return error_set(error, ERROR_SYSTEM, "no memory for a path");
    output->fd = open(output->path, O_RDWR | O_CLOEXEC | (in_place ? 0 : O_CREAT), 0644);
    if (output->fd < 0)
        return error_set_errno(error, errno, "cannot open %s", output->path);
    result = file_lock(output->fd, false, true, error);
    return result ? error_prefix(error, "%s", output->path) : 0;
}

static int output_open(const struct pull_options *options, struct output *output, struct error *error)
{
    struct stat status;

    if (stat(options->output, &status))
        return errno == ENOENT ? open_file(options->output, false, output, error)
                               : error_set_errno(error, errno, "cannot look at %s", options->output);
    if (S_ISBLK(status.st_mode))
        return open_device(options->output, output, error);
    if (!S_ISREG(status.st_mode))
        return error_set(error, ERROR_INVALID, "%s is neither a regular file nor a block device", options->output);
    if (!options->force)
        return error_set(error, ERROR_EXISTS, "%s exists already; --force brings it up to date in place",
                         options->output);
    return open_file(options->output, true, output, error);
}

/* What was written has been flushed; only its name is missing. */
static int output_complete(const struct output *output, const char *path, struct error *error)
{
    if (!output->partial)
        return 0;
    if (rename(output->path, path))
        return error_set_errno(error, errno, "cannot rename %s to %s", output->path, path);
    return file_sync_parent(AT_FDCWD, path, error);
}

/* A pull into OUTPUT failed: who wonders where the space went shall know. What was broken off says so itself. */
static int tell_what_stays(const struct output *output, struct error *error)
{
    struct error reason = *error;

    if (!output->partial || output->fd < 0 || reason.code == ERROR_CANCELLED)
        return reason.code;
    return error_set(error, reason.code, "%s; what has come stays in %s, and the next pull goes on with it",
                     reason.message, output->path);
}

static int pull(const struct context *context, const struct opened *opened, const struct catalog_version *version,
                struct pull_result *result, struct error *error)
{
    const struct pull_options *options = context->options;
    struct store *store = session_store(opened->session);
    cleanup(output_finish) struct output output = {.fd = -1};
    struct known_total total;
    struct progress *bar;
    struct packs *packs = packs_begin(store, version->name, version->version, &version->image,
                                      version->data_size);
    struct disk *disk = NULL;
    int code = archive_disk(opened->archive, version, &disk, error);

    if (!code && options->output)
        code = output_open(options, &output, error);
    if (code) {
        packs_end(packs);
        disk_close(disk);
        return code;
    }
    bar = progress_begin(context, "Pulling");
    known_total_init(&total, bar, version->data_size);
    if (options->output)
        code = pull_to_file(disk, store, packs, output.fd, output.path, &total.progress, result, error);
    else
        code = pull_to_cache(disk, store, packs, &total.progress, result, error);
    progress_end(bar);
    packs_end(packs);
    disk_close(disk);
    if (code)
        return tell_what_stays(&output, error);
    return options->output ? output_complete(&output, options->output, error) : 0;
}

static void print_result(const struct context *context, const struct catalog_version *version,
                         const struct pull_result *result, uint64_t elapsed_ms)
{
    const struct pull_options *options = context->options;
    char image[DIGEST_TEXT], bytes[SIZE_TEXT], fetched[SIZE_TEXT];
    struct emit emit = {0};

    report_line(context, "%s@%s %s%s: %s in %llu blocks, of which %llu were there already; fetched %s; %.1f s",
                version->name, version->version, options->output ? "written to " : "is in the cache",
                options->output ? options->output : "", size_format(result->bytes, bytes),
                (unsigned long long)result->blocks, (unsigned long long)result->present_blocks,
                size_format(result->fetched_bytes, fetched), (double)elapsed_ms / 1000);
    if (!context->json)
        return;
    emit_open(&emit, NULL, '{');
    emit_text(&emit, "name", version->name);
    emit_text(&emit, "version", version->version);
    emit_text(&emit, "image", digest_format(&version->image, image));
    emit_text(&emit, "output", options->output);
    emit_number(&emit, "disk_size", version->disk_size);
    emit_number(&emit, "blocks", result->blocks);
    emit_number(&emit, "bytes", result->bytes);
    emit_number(&emit, "present_blocks", result->present_blocks);
    emit_number(&emit, "fetched_blocks", result->fetched_blocks);
    emit_number(&emit, "fetched_bytes", result->fetched_bytes);
    emit_number(&emit, "elapsed_ms", elapsed_ms);
    emit_close(&emit, '}');
}

static int run_pull(const struct context *context, int count, char **arguments)
{
    const struct pull_options *options = context->options;
    cleanup(open_finish) struct opened opened = {0};
    const struct catalog_version *version = NULL;
    uint64_t started_ms = clock_ms();
    struct error error = ERROR_INIT;
    struct pull_result result;
    int status;

    (void)count;
    if (!options->output && context->client->no_cache)
        return report_usage(context, "with --no-cache it needs --output");
    if (options->force && !options->output)
        return report_usage(context, "--force needs --output");
    context->client->no_readers = true;
    status = open_archive(context, arguments[0], true, &opened);
    if (!status)
        status = open_version(context, &opened, &version);
    if (status)
        return status;
    if (!options->output && !session_cache(opened.session)) {
        error_set(&error, ERROR_SYSTEM, "there is no cache to pull into: say where with --cache or --output");
        return report_error(context, &error);
    }
    if (pull(context, &opened, version, &result, &error))
        return report_error(context, &error);
    print_result(context, version, &result, clock_ms() - started_ms);
    return EXIT_OK;
}

static const char *const pull_usage[] = {"URL/NAME[@VERSION]", NULL};

const struct command command_pull = {
    .name = "pull",
    .usage = pull_usage,
    .summary = "fetch all of an image, into the cache or to a file",
    .options = pull_table,
    .options_size = sizeof(struct pull_options),
    .client = true,
    .json = true,
    .run = run_pull,
};
