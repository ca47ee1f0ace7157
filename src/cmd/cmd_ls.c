/* circular ls URL: what an archive holds. */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "cmd/open.h"

enum { NAME, VERSION, DISK, DATA, DOWNLOAD, PUBLISHED, NOTE, COLUMN_COUNT };

/* One line of the table; the widest texts are names. */
struct row {
    char cells[COLUMN_COUNT][NAME_MAX_LENGTH + 1];
};

static const struct row heading = {{"NAME", "VERSION", "SIZE", "DATA", "DOWNLOAD", "PUBLISHED", ""}};

static void fill(const struct catalog *catalog, const struct catalog_version *version, struct row *row)
{
    char time[TIME_TEXT];

    snprintf(row->cells[NAME], sizeof(row->cells[NAME]), "%s", version->name);
    snprintf(row->cells[VERSION], sizeof(row->cells[VERSION]), "%s", version->version);
    size_format(version->disk_size, row->cells[DISK]);
    size_format(version->data_size, row->cells[DATA]);
    size_format(version->stored_size, row->cells[DOWNLOAD]);
    snprintf(row->cells[PUBLISHED], sizeof(row->cells[PUBLISHED]), "%.10s", time_format(version->published, time));
    strcpy(row->cells[NOTE], open_is_newest(catalog, version) ? "newest" : "");
}

static void widen(const struct row *row, int widths[COLUMN_COUNT])
{
    for (int i = 0; i < COLUMN_COUNT; i++) {
        int length = (int)strlen(row->cells[i]);

        if (length > widths[i])
            widths[i] = length;
    }
}

static void print_row(const struct context *context, const struct row *row, const int widths[COLUMN_COUNT])
{
    char line[COLUMN_COUNT * (NAME_MAX_LENGTH + 3)];
    size_t used = 0;

    for (int i = 0; i < COLUMN_COUNT; i++) {
        bool is_size = i == DISK || i == DATA || i == DOWNLOAD;

        used += (size_t)snprintf(line + used, sizeof(line) - used, is_size ? "%*s  " : "%-*s  ", widths[i],
                                 row->cells[i]);
    }
    while (used && line[used - 1] == ' ')
        line[--used] = '\0';
    report_line(context, "%s", line);
}

static void print_table(const struct context *context, const struct catalog *catalog)
{
    int widths[COLUMN_COUNT] = {0};
    struct row row;

    widen(&heading, widths);
    for (size_t i = 0; i < catalog->version_count; i++) {
        fill(catalog, &catalog->versions[i], &row);
        widen(&row, widths);
    }
    print_row(context, &heading, widths);
    for (size_t i = 0; i < catalog->version_count; i++) {
        fill(catalog, &catalog->versions[i], &row);
        print_row(context, &row, widths);
    }
}

static void print_json(const struct context *context, const struct opened *opened)
{
    const struct catalog *catalog = archive_catalog(opened->archive);
    struct emit emit = {0};

    emit_open(&emit, NULL, '{');
    open_print_catalog(&emit, context, opened);
    emit_open(&emit, "versions", '[');
    for (size_t i = 0; i < catalog->version_count; i++) {
        emit_open(&emit, NULL, '{');
        open_print_version(&emit, catalog, &catalog->versions[i]);
        emit_close(&emit, '}');
    }
    emit_close(&emit, ']');
    emit_close(&emit, '}');
}

static int run(const struct context *context, int count, char **arguments)
{
    cleanup(open_finish) struct opened opened = {0};
    int status = open_archive(context, arguments[0], false, &opened);

    (void)count;
    if (status)
        return status;
    if (context->json)
        print_json(context, &opened);
    else
        print_table(context, archive_catalog(opened.archive));
    return EXIT_OK;
}

static const char *const usage[] = {"URL", NULL};

const struct command command_ls = {
    .name = "ls",
    .usage = usage,
    .summary = "list the images and versions of an archive",
    .client = true,
    .json = true,
    .run = run,
};
