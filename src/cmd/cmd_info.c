/* circular info URL/NAME[@VERSION]: all that is known of one version, and who says so. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "cmd/open.h"

#define SIGNER_TEXT 512

static void print_size(const struct context *context, const char *label, uint64_t bytes)
{
    char text[SIZE_TEXT];

    report_line(context, "%-13s%s (%llu bytes)", label, size_format(bytes, text), (unsigned long long)bytes);
}

/* "in 89 days", "3 hours ago" */
static void relative_time(int64_t seconds, char *text, size_t size)
{
    int64_t left = seconds - clock_wall(), distance = left < 0 ? -left : left;
    bool days = distance >= 2 * 86400;
    long long count = days ? (distance + 43200) / 86400 : (distance + 1800) / 3600;

    snprintf(text, size, "%s%lld %s%s%s", left < 0 ? "" : "in ", count, days ? "day" : "hour", count == 1 ? "" : "s",
             left < 0 ? " ago" : "");
}

static void print_versions(const struct context *context, const struct catalog *catalog, const char *name)
{
    char line[1024] = "";
    size_t used = 0;

    for (size_t i = 0; i < catalog->version_count && used < sizeof(line); i++)
        if (!strcmp(catalog->versions[i].name, name))
            used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%s", used ? ", " : "",
                                     catalog->versions[i].version);
    report_line(context, "versions     %s%s", line, used >= sizeof(line) ? "..." : "");
}

static void print_catalog(const struct context *context, const struct opened *opened)
{
    const struct catalog *catalog = archive_catalog(opened->archive);
    char signer[SIGNER_TEXT], published[TIME_TEXT], expires[TIME_TEXT], relative[40];

    open_describe_signer(opened, signer, sizeof(signer));
    relative_time(catalog->expires, relative, sizeof(relative));
    report_line(context, "signature    %s", signer);
    report_line(context, "catalog      serial %llu of %s, expires %s (%s)%s", (unsigned long long)catalog->serial,
                time_format(catalog->published, published), time_format(catalog->expires, expires), relative,
                archive_is_offline(opened->archive) ? ", from the cache" : "");
    report_line(context, "archive      %s", catalog->archive);
}

static void print_text(const struct context *context, const struct opened *opened,
                       const struct catalog_version *version, const struct manifest *manifest)
{
    const struct catalog *catalog = archive_catalog(opened->archive);
    char image[DIGEST_TEXT], published[TIME_TEXT];

    report_line(context, "name         %s", version->name);
    report_line(context, "version      %s%s", version->version,
                open_is_newest(catalog, version) ? " (the newest)" : "");
    print_versions(context, catalog, version->name);
    if (*manifest->description)
        report_line(context, "description  %s", manifest->description);
    if (*manifest->architecture)
        report_line(context, "architecture %s", manifest->architecture);
    report_line(context, "published    %s", time_format(version->published, published));
    report_line(context, "image id     %s", digest_format(&version->image, image));
    print_size(context, "disk", version->disk_size);
    print_size(context, "data", version->data_size);
    print_size(context, "download", version->stored_size);
    print_size(context, "block", version->block_size);
    print_catalog(context, opened);
}

static void print_json(const struct context *context, const struct opened *opened,
                       const struct catalog_version *version, const struct manifest *manifest)
{
    const struct catalog *catalog = archive_catalog(opened->archive);
    struct emit emit = {0};

    emit_open(&emit, NULL, '{');
    open_print_version(&emit, catalog, version);
    emit_text(&emit, "architecture", *manifest->architecture ? manifest->architecture : NULL);
    emit_text(&emit, "description", *manifest->description ? manifest->description : NULL);
    emit_number(&emit, "disk_count", manifest->disk_count);
    emit_open(&emit, "versions", '[');
    for (size_t i = 0; i < catalog->version_count; i++)
        if (!strcmp(catalog->versions[i].name, version->name))
            emit_text(&emit, NULL, catalog->versions[i].version);
    emit_close(&emit, ']');
    emit_open(&emit, "catalog", '{');
    open_print_catalog(&emit, context, opened);
    emit_close(&emit, '}');
    emit_close(&emit, '}');
}

static int run(const struct context *context, int count, char **arguments)
{
    cleanup(open_finish) struct opened opened = {0};
    auto_free struct manifest *manifest = calloc(1, sizeof(*manifest));
    const struct catalog_version *version;
    struct error error = ERROR_INIT;
    int status = manifest ? open_archive(context, arguments[0], true, &opened) : report_memory(context);

    (void)count;
    if (!status)
        status = open_version(context, &opened, &version);
    if (status)
        return status;
    if (archive_manifest(opened.archive, version, manifest, &error))
        return report_error(context, &error);
    if (context->json)
        print_json(context, &opened, version, manifest);
    else
        print_text(context, &opened, version, manifest);
    return EXIT_OK;
}

static const char *const usage[] = {"URL/NAME[@VERSION]", NULL};

const struct command command_info = {
    .name = "info",
    .usage = usage,
    .summary = "tell all that is known of an image: versions, sizes, signature",
    .client = true,
    .json = true,
    .run = run,
};
