/* circular renew: the catalog again, with a new expiry. */
#include <stdio.h>

#include "base/clock.h"
#include "cmd/signing.h"
#include "image/catalog_writer.h"
#include "image/publish.h"

struct renew_options {
    const char *key;
    uint64_t expires_ms;
};

static const struct option renew_table[] = {
    SIGNING_KEY_OPTION(struct renew_options),
    SIGNING_EXPIRES_OPTION(struct renew_options),
    {0},
};

static void print_result(const struct context *context, uint64_t serial, uint64_t lifetime_s)
{
    char expires[TIME_TEXT];
    struct emit emit = {0};

    time_format(clock_wall() + (int64_t)(lifetime_s ? lifetime_s : CATALOG_LIFETIME_S), expires);
    report_line(context, "catalog %llu expires %s", (unsigned long long)serial, expires);
    if (!context->json)
        return;
    emit_open(&emit, NULL, '{');
    emit_number(&emit, "serial", serial);
    emit_text(&emit, "expires", expires);
    emit_close(&emit, '}');
}

static int run_renew(const struct context *context, int count, char **arguments)
{
    const struct renew_options *options = context->options;
    uint64_t serial, lifetime_s = signing_lifetime_s(options->expires_ms);
    struct error error = ERROR_INIT;
    struct secret_key key;
    int result;

    (void)count;
    if (signing_key_load(options->key, &key, &error))
        return report_error(context, &error);
    result = publish_renew(arguments[0], &key, lifetime_s, &serial, &error);
    secret_key_wipe(&key);
    if (result)
        return report_error(context, &error);
    print_result(context, serial, lifetime_s);
    return EXIT_OK;
}

static const char *const renew_usage[] = {"ARCHIVE", NULL};

const struct command command_renew = {
    .name = "renew",
    .usage = renew_usage,
    .summary = "sign an archive's catalog again before it expires",
    .options = renew_table,
    .options_size = sizeof(struct renew_options),
    .json = true,
    .run = run_renew,
};
