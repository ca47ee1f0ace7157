/* circular cache verify: check every block that is kept. */
#include <stdio.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "cmd/fault_lines.h"
#include "cmd/options.h"
#include "image/verify.h"
#include "plain/keep.h"

struct verify_options {
    const char *cache;
    bool repair;
};

static const struct option table[] = {
    {"cache", 'C', OPTION_TEXT, "DIR", CLIENT_CACHE_HELP, offsetof(struct verify_options, cache)},
    {"repair", 0, OPTION_FLAG, NULL, "remove bad blocks, so that they are fetched again when they are read",
     offsetof(struct verify_options, repair)},
    {0},
};

static void report_verified(const struct context *context, const struct verify_result *result, bool repair)
{
    char text[SIZE_TEXT], removed[40] = "";
    struct emit emit = {0};

    if (result->removed < result->bad && repair)
        snprintf(removed, sizeof(removed), ", %llu of them removed", (unsigned long long)result->removed);
    report_line(context, "%llu blocks, %s checked: %llu bad%s", (unsigned long long)result->checked_files,
                size_format(result->checked_bytes, text), (unsigned long long)result->bad,
                *removed || !result->bad || !repair ? removed : ", removed");
    if (!context->json)
        return;
    emit_open(&emit, NULL, '{');
    emit_number(&emit, "checked_files", result->checked_files);
    emit_number(&emit, "checked_bytes", result->checked_bytes);
    emit_number(&emit, "bad", result->bad);
    emit_bool(&emit, "repaired", repair && result->removed == result->bad);
    emit_close(&emit, '}');
}

/* The kept slices of plain files; nothing says what they should be but what they were. */
static int verify_plain(const char *cache, bool repair, struct fault_lines *lines, struct verify_result *result,
                        struct error *error)
{
    auto_close int fd = file_open_folder(cache, false, error);
    struct keep_check check;
    int code = fd < 0 ? fd : keep_verify(fd, repair, fault_lines_tell, lines, &check, error);

    if (code)
        return code;
    result->checked_files += check.slices;
    result->checked_bytes += check.bytes;
    result->bad += check.bad;
    result->removed += check.removed;
    return 0;
}

static int run(const struct context *context, int count, char **arguments)
{
    const struct verify_options *options = context->options;
    cleanup(client_finish) struct client_options client = {0};
    struct error error = ERROR_INIT;
    struct verify_result result = {0};
    struct fault_lines lines = {.context = context};
    struct verify_report report = {.fault = fault_lines_tell, .user = &lines};
    struct progress *progress;
    int code;

    (void)count, (void)arguments;
    if (client_find_cache(options->cache, &client, &error))
        return report_error(context, &error);
    progress = progress_begin(context, "verifying");
    report.progress = progress;
    code = verify_blocks(client.cache, options->repair, &report, &result, &error);
    progress_end(progress);
    if (!code)
        code = verify_plain(client.cache, options->repair, &lines, &result, &error);
    fault_lines_end(&lines, "'circular verify DIR --json' shows all");
    if (code)
        return report_error(context, &error);
    report_verified(context, &result, options->repair);
    return result.removed < result.bad ? EXIT_INTEGRITY : EXIT_OK;
}

static const char *const usage[] = {"", NULL};

const struct command command_cache_verify = {
    .name = "cache verify",
    .usage = usage,
    .summary = "check every block of the cache",
    .options = table,
    .options_size = sizeof(struct verify_options),
    .json = true,
    .run = run,
};
