/* circular profile add: what a boot reads first, attached to a published version. */
#include <stdlib.h>

#include "base/cleanup.h"
#include "cmd/open.h"
#include "cmd/profile_file.h"
#include "image/pack.h"

/* The COUNT files as one profile: a single one as it is, several merged. */
static int read_all(char **paths, size_t count, struct profile *profile_out, struct error *error)
{
    struct profile *profiles = calloc(count, sizeof(*profiles));
    int result = profiles ? 0 : error_set(error, ERROR_SYSTEM, "no memory for %zu profiles", count);

    for (size_t i = 0; i < count && !result; i++)
        result = profile_file_read(paths[i], &profiles[i], error);
    if (!result)
        result = count > 1 ? profile_merge(profiles, count, profile_out, error)
                           : profile_copy(&profiles[0], profile_out, error);
    for (size_t i = 0; profiles && i < count; i++)
        profile_finish(&profiles[i]);
    free(profiles);
    return result;
}

static void print_result(const struct context *context, char **arguments, const struct profile *profile)
{
    struct emit emit = {0};

    report_line(context, "%s has a profile of %llu blocks; 'circular pack %s %s' makes its boot pack", arguments[1],
                (unsigned long long)profile->block_count, arguments[0], arguments[1]);
    if (!context->json)
        return;
    emit_open(&emit, NULL, '{');
    emit_number(&emit, "boots", profile->boot_count);
    emit_number(&emit, "blocks", profile->block_count);
    emit_close(&emit, '}');
}

static int run_add(const struct context *context, int count, char **arguments)
{
    cleanup(profile_finish) struct profile profile = {0};
    char name[NAME_MAX_LENGTH + 1];
    const char *version = NULL;
    struct error error = ERROR_INIT;

    if (location_is_http(arguments[0]))
        return report_usage(context, "profile add works on the archive's folder, not over HTTP");
    if (open_split_version(arguments[1], name, &version, &error))
        return report_usage(context, "%s", error.message);
    if (read_all(arguments + 2, (size_t)count - 2, &profile, &error) ||
        profile_attach(location_folder(arguments[0]), name, version, &profile, &error))
        return report_error(context, &error);
    print_result(context, arguments, &profile);
    return EXIT_OK;
}

static const char *const add_usage[] = {"ARCHIVE NAME[@VERSION] FILE...", NULL};

const struct command command_profile_add = {
    .name = "profile add",
    .usage = add_usage,
    .summary = "attach to a version what mount or boot recorded; several files are merged",
    .json = true,
    .run = run_add,
};
