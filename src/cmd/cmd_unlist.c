/* circular unlist: a version off the catalog. */
#include <string.h>

#include "cmd/open.h"
#include "cmd/signing.h"
#include "image/publish.h"

struct unlist_options {
    const char *key;
    uint64_t expires_ms;
};

static const struct option unlist_table[] = {
    SIGNING_KEY_OPTION(struct unlist_options),
    SIGNING_EXPIRES_OPTION(struct unlist_options),
    {0},
};

static void print_result(const struct context *context, const char *archive, const char *name, const char *version,
                         uint64_t serial)
{
    struct emit emit = {0};

    report_line(context, "%s@%s is no longer listed; 'circular gc %s' removes what only it needed", name, version,
                archive);
    if (!context->json)
        return;
    emit_open(&emit, NULL, '{');
    emit_text(&emit, "name", name);
    emit_text(&emit, "version", version);
    emit_number(&emit, "serial", serial);
    emit_close(&emit, '}');
}

static int run_unlist(const struct context *context, int count, char **arguments)
{
    const struct unlist_options *options = context->options;
    char name[NAME_MAX_LENGTH + 1];
    struct error error = ERROR_INIT;
    struct secret_key key;
    const char *version = NULL;
    uint64_t serial;
    int result;

    (void)count;
    /* To take off "the newest", whatever it is just now, would be a trap. */
    if (!strchr(arguments[1], '@'))
        return report_usage(context, "'%.300s' is not NAME@VERSION", arguments[1]);
    if (open_split_version(arguments[1], name, &version, &error))
        return report_usage(context, "%s", error.message);
    if (signing_key_load(options->key, &key, &error))
        return report_error(context, &error);
    result = publish_unlist(arguments[0], &key, signing_lifetime_s(options->expires_ms), name, version, &serial,
                            &error);
    secret_key_wipe(&key);
    if (result)
        return report_error(context, &error);
    print_result(context, arguments[0], name, version, serial);
    return EXIT_OK;
}

static const char *const unlist_usage[] = {"ARCHIVE NAME@VERSION", NULL};

const struct command command_unlist = {
    .name = "unlist",
    .usage = unlist_usage,
    .summary = "take a version off an archive's catalog",
    .options = unlist_table,
    .options_size = sizeof(struct unlist_options),
    .json = true,
    .run = run_unlist,
};
