/* circular verify: an archive, a cache, a written-out disk, or an image as its server delivers it. */
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
#include "base/log.h"
#include "cmd/fault_lines.h"
#include "cmd/known_total.h"
#include "cmd/open.h"
#include "cmd/signing.h"
#include "image/verify.h"

struct verify_options {
    const char *image;
    bool repair;
};

static const struct option verify_table[] = {
    {"image", 'i', OPTION_TEXT, "URL/NAME[@VERSION]", "what a written-out disk FILE should hold",
     offsetof(struct verify_options, image)},
    {"repair", 'r', OPTION_FLAG, NULL, "remove bad blocks from a cache, so that they are fetched again",
     offsetof(struct verify_options, repair)},
    {0},
};

/* One verification, whatever of. */
struct task {
    const struct context *context;
    const char *target;
    const char *kind;
    struct verify_report report;
    struct verify_result result;
    struct known_total total;
    struct fault_lines lines;
    struct emit emit;
    uint64_t started_ms;
};

static void tell_fault(void *user, const char *where, const char *what)
{
    struct task *task = user;

    if (task->context->json) {
        emit_open(&task->emit, NULL, '{');
        emit_text(&task->emit, "where", where);
        emit_text(&task->emit, "what", what);
        emit_close(&task->emit, '}');
    } else {
        fault_lines_tell(&task->lines, where, what);
    }
}

static void task_begin(struct task *task, const char *kind, uint64_t total_bytes)
{
    struct progress *bar = progress_begin(task->context, "Verifying");

    task->kind = kind;
    task->started_ms = clock_ms();
    known_total_init(&task->total, bar, total_bytes);
    task->report = (struct verify_report){tell_fault, task, &task->total.progress};
    if (!task->context->json)
        return;
    emit_open(&task->emit, NULL, '{');
    emit_text(&task->emit, "target", task->target);
    emit_text(&task->emit, "kind", kind);
    emit_open(&task->emit, "faults", '[');
}

/* CODE is of the verification; returns the exit status. */
static int task_end(struct task *task, int code, const struct error *error)
{
    const struct verify_result *result = &task->result;
    char size[SIZE_TEXT];

    progress_end((struct progress *)(uintptr_t)task->total.next);
    fault_lines_end(&task->lines, "--json shows all");
    if (task->context->json) {
        emit_close(&task->emit, ']');
        emit_bool(&task->emit, "complete", !code);
        emit_number(&task->emit, "checked", result->checked_files);
        emit_number(&task->emit, "checked_bytes", result->checked_bytes);
        emit_number(&task->emit, "bad", result->bad);
        emit_number(&task->emit, "missing", result->missing);
        emit_number(&task->emit, "elapsed_ms", clock_ms() - task->started_ms);
        emit_close(&task->emit, '}');
    }
    if (code)
        return report_error(task->context, error);
    report_line(task->context, "%s: %s, %llu %s checked, %s; %llu %s%s", task->target, task->kind,
                (unsigned long long)result->checked_files,
                strcmp(task->kind, "archive") && strcmp(task->kind, "cache") ? "blocks" : "files",
                size_format(result->checked_bytes, size), (unsigned long long)result->bad,
                result->bad == 1 ? "fault" : "faults", result->bad ? "" : ": it is whole");
    return result->bad ? EXIT_INTEGRITY : EXIT_OK;
}

static int verify_an_archive(struct task *task, const char *folder)
{
    bool insecure = task->context->client->insecure;
    cleanup(key_ring_finish) struct key_ring ring = {0};
    struct error error = ERROR_INIT;
    struct trusted_keys trusted;
    int code;

    if (signing_trusted_keys(task->context, &ring, &error))
        return report_error(task->context, &error);
    if (insecure)
        log_warning("signatures are not checked");
    trusted = key_ring_trusted(&ring);
    task_begin(task, "archive", 0);
    code = verify_archive(folder, insecure ? NULL : &trusted, &task->report, &task->result, &error);
    return task_end(task, code, &error);
}

static int verify_a_cache(struct task *task, const char *folder)
{
    const struct verify_options *options = task->context->options;
    struct error error = ERROR_INIT;
    int code;

    task_begin(task, "cache", 0);
    code = verify_blocks(folder, options->repair, &task->report, &task->result, &error);
    return task_end(task, code, &error);
}

static bool has(const char *folder, const char *name)
{
    auto_free char *path = path_join(folder, name);

    return path && access(path, F_OK) == 0;
}

static int verify_a_folder(struct task *task, const char *folder)
{
    const struct verify_options *options = task->context->options;
    bool archive = has(folder, ARCHIVE_CATALOG);
    struct error error = ERROR_INIT;

    if (archive && options->repair)
        return report_usage(task->context, "--repair is for caches; an archive's blocks are put right by publishing "
                            "the same image again");
    if (archive)
        return verify_an_archive(task, folder);
    if (has(folder, "blocks"))
        return verify_a_cache(task, folder);
    error_set(&error, ERROR_NOT_FOUND, "%s holds neither an archive (catalog.json) nor a cache (blocks)", folder);
    return report_error(task->context, &error);
}

/* Open the disk that TEXT names. Exit status. */
static int open_disk(const struct context *context, const char *text, struct opened *opened,
                     const struct catalog_version **version_out, struct disk **disk_out)
{
    struct error error = ERROR_INIT;
    int status;

    context->client->no_readers = true;
    status = open_archive(context, text, true, opened);
    if (!status)
        status = open_version(context, opened, version_out);
    if (!status && archive_disk(opened->archive, *version_out, disk_out, &error))
        status = report_error(context, &error);
    return status;
}

static int verify_a_file(struct task *task, const char *path)
{
    const struct verify_options *options = task->context->options;
    cleanup(open_finish) struct opened opened = {0};
    const struct catalog_version *version = NULL;
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for its writer */
    struct error error = ERROR_INIT;
    struct disk *disk = NULL;
    struct stat kind;
    int status;

    if (fd >= 0 && !fstat(fd, &kind) && !S_ISREG(kind.st_mode) && !S_ISBLK(kind.st_mode))
        return report_usage(task->context, "%s is neither a regular file nor a block device", path);
    if (fd < 0) {
        error_set_errno(&error, errno, "cannot open %s", path);
        return report_error(task->context, &error);
    }
    if (!options->image)
        return report_usage(task->context, "%s is a file: say with --image URL/NAME[@VERSION] what it should hold",
                            path);
    status = open_disk(task->context, options->image, &opened, &version, &disk);
    if (status)
        return status;
    task_begin(task, "disk", version->data_size);
    status = task_end(task, verify_file(disk, fd, path, &task->report, &task->result, &error), &error);
    disk_close(disk);
    return status;
}

/* What the cache holds says nothing about the server, so it is left out unless there is only the cache. */
static int verify_an_image(struct task *task, const char *text)
{
    struct client_options *client = task->context->client;
    cleanup(open_finish) struct opened opened = {0};
    const struct catalog_version *version = NULL;
    struct error error = ERROR_INIT;
    struct disk *disk = NULL;
    int status;

    if (!client->offline)
        client->no_cache = true;
    status = open_disk(task->context, text, &opened, &version, &disk);
    if (status)
        return status;
    task_begin(task, "image", version->data_size);
    status =
        task_end(task, verify_disk(disk, session_store(opened.session), &task->report, &task->result, &error), &error);
    disk_close(disk);
    return status;
}

/* The folder that PATH, which is not there, would be in. Heap; NULL: no memory. */
static char *parent_of(const char *path)
{
    size_t length = strlen(path);

    while (length && path[length - 1] == '/')
        length--;
    while (length && path[length - 1] != '/')
        length--;
    while (length > 1 && path[length - 1] == '/')
        length--;
    return length ? strndup(path, length) : strdup(".");
}

/*
 * PATH is not there: can it not be an image in the archive that is in its folder, either? One that is away may be in
 * the cache and at its mirrors.
 */
static bool is_mistyped(const struct context *context, const char *path, struct error *error)
{
    const struct client_options *client = context->client;
    auto_free char *parent = parent_of(path);

    if (!parent || client->offline || client->mirrors.count || has(parent, ARCHIVE_CATALOG))
        return false;
    error_set(error, ERROR_NOT_FOUND, "cannot find %s: there is no such file or folder, nor an archive in %s", path,
              parent);
    return true;
}

static int run_verify(const struct context *context, int count, char **arguments)
{
    const struct verify_options *options = context->options;
    const char *path = location_folder(arguments[0]);
    struct task task = {.context = context, .target = arguments[0], .lines.context = context};
    struct error error = ERROR_INIT;
    struct stat status;
    bool exists = path && !stat(path, &status), file = exists && !S_ISDIR(status.st_mode);

    (void)count;
    if (path && !exists && (options->image || !strchr(path, '/'))) {
        error_set_errno(&error, errno, "cannot find %s", path);
        return report_error(context, &error);
    }
    if (path && !exists && (errno == ENOENT || errno == ENOTDIR) && is_mistyped(context, path, &error))
        return report_error(context, &error);
    if (options->image && !file)
        return report_usage(context, "--image is for a written-out disk, which %s is not", arguments[0]);
    if (file && options->repair)
        return report_usage(context, "--repair is for caches; 'circular pull --output %s --force' puts a disk right",
                            arguments[0]);
    if (file)
        return verify_a_file(&task, path);
    return exists ? verify_a_folder(&task, path) : verify_an_image(&task, arguments[0]);
}

static const char *const verify_usage[] = {"FILE", "DIR", "URL/NAME[@VERSION]", NULL};

const struct command command_verify = {
    .name = "verify",
    .usage = verify_usage,
    .summary = "check every block of an archive, a cache, a disk or an image",
    .options = verify_table,
    .options_size = sizeof(struct verify_options),
    .client = true,
    .json = true,
    .run = run_verify,
};
