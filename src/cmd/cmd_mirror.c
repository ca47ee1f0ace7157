/* circular mirror test: how soon, how fast, how new and how right the mirrors of an archive are. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/workers.h"
#include "cmd/open.h"
#include "image/mirror_check.h"

enum { PATIENCE_MAX_MS = 5000, BLOCKS_DEFAULT = 64, BLOCKS_MAX = 65536 };

struct mirror_options {
    const char *image;
    uint64_t blocks;
};

static const struct option test_table[] = {
    {"image", 'i', OPTION_TEXT, "NAME[@VERSION]", "whose blocks are fetched; the latest of all unless given",
     offsetof(struct mirror_options, image)},
    {"blocks", 'b', OPTION_POSITIVE_NUMBER, "COUNT", "how many of its blocks are fetched from each mirror, 64",
     offsetof(struct mirror_options, blocks)},
    {0},
};

/* One run of the command. */
struct test {
    const struct context *context;
    struct session *session;
    struct workers *workers;
    struct mirror_check_settings settings;
    struct mirror_check *checks[MIRRORS_MAX];
    size_t count;
    const struct catalog *newest; /* of the checks'; NULL: none has one */
    const struct catalog_version *version;
};

static void test_finish(struct test *test)
{
    for (size_t i = 0; i < test->count; i++)
        mirror_check_close(test->checks[i]);
    workers_destroy(test->workers);
    session_close(test->session);
}

/* Is the newest catalog that of CHECK? One without a trusted signature counts only if there is no other. */
static void compare_catalog(struct test *test, const struct mirror_check *check, bool *is_signed)
{
    const struct catalog *catalog = mirror_check_catalog(check);
    bool better = mirror_check_report(check)->is_signed && !*is_signed;

    if (!catalog || (test->newest && *is_signed && !mirror_check_report(check)->is_signed))
        return;
    if (test->newest && !better && catalog->serial <= test->newest->serial)
        return;
    test->newest = catalog;
    *is_signed = mirror_check_report(check)->is_signed;
}

/* Add a mirror and look at its catalog, unless it is one of those already there. */
static int add(struct test *test, const char *location, struct error *error)
{
    struct mirror_check *check = NULL;
    int result;

    if (test->count == MIRRORS_MAX)
        return error_set(error, ERROR_INVALID, "%s: more than %d mirrors", location, MIRRORS_MAX);
    result = mirror_check_open(&test->settings, location, &check, error);
    if (result)
        return result;
    for (size_t i = 0; i < test->count && check; i++) {
        if (strcmp(mirror_check_report(test->checks[i])->url, mirror_check_report(check)->url))
            continue;
        mirror_check_close(check);
        check = NULL;
    }
    if (check)
        test->checks[test->count++] = check;
    return 0;
}

/* Which version's blocks are to be fetched. */
static int choose_version(struct test *test, struct error *error)
{
    const struct mirror_options *options = test->context->options;
    char name[NAME_MAX_LENGTH + 1];
    const char *version;
    bool is_signed = false;

    for (size_t i = 0; i < test->count; i++)
        compare_catalog(test, test->checks[i], &is_signed);
    if (!test->newest)
        return 0;
    if (!options->image) {
        if (test->newest->version_count)
            test->version = &test->newest->versions[test->newest->version_count - 1];
        return 0;
    }
    if (open_split_version(options->image, name, &version, error))
        return error->code;
    test->version = catalog_find(test->newest, name, version);
    return test->version ? 0 : error_set(error, ERROR_NOT_FOUND, "the archive has no image %s", options->image);
}

/* Mirrors that the image's hints name. */
static void add_hinted(struct test *test)
{
    size_t count = test->count;
    struct hints hints;

    for (size_t i = 0; i < count && test->version; i++) {
        if (!mirror_check_hints(test->checks[i], test->version->name, test->version->version, &hints))
            continue;
        for (size_t j = 0; j < hints.mirror_count; j++)
            add(test, hints.mirrors[j], NULL);
        hints_finish(&hints);
    }
}

static const char *verdict_name(enum mirror_verdict verdict)
{
    static const char *const names[] = {
        [MIRROR_FINE] = "fine",         [MIRROR_UNREACHABLE_NOW] = "unreachable", [MIRROR_INCOMPLETE] = "incomplete",
        [MIRROR_EXPIRED] = "expired",   [MIRROR_BEHIND] = "behind",               [MIRROR_UNSIGNED] = "unsigned",
        [MIRROR_WRONG] = "wrong",
    };

    return names[verdict];
}

static enum exit_status status_of(enum mirror_verdict verdict)
{
    static const enum exit_status statuses[] = {
        [MIRROR_FINE] = EXIT_OK,         [MIRROR_UNREACHABLE_NOW] = EXIT_NETWORK, [MIRROR_INCOMPLETE] = EXIT_NOT_FOUND,
        [MIRROR_EXPIRED] = EXIT_EXPIRED, [MIRROR_BEHIND] = EXIT_ROLLBACK,         [MIRROR_UNSIGNED] = EXIT_SIGNATURE,
        [MIRROR_WRONG] = EXIT_INTEGRITY,
    };

    return statuses[verdict];
}

static void print_line(const struct context *context, const struct mirror_report *report)
{
    char text[400] = "", size[SIZE_TEXT];
    size_t used = 0;

#define APPEND(...) used += (size_t)snprintf(text + used, sizeof(text) - used, __VA_ARGS__)
    if (report->first_byte_us)
        APPEND(", first byte %.1f ms", (double)report->first_byte_us / 1000);
    if (report->rate)
        APPEND(", %s/s", size_format(report->rate, size));
    if (report->has_catalog)
        APPEND(", catalog %" PRIu64 "%s", report->serial, report->is_signed ? " signed" : "");
    if (report->checked)
        APPEND(", %u of %u blocks right", report->right, report->checked);
#undef APPEND
    report_line(context, "%s: %s%s%s%s", report->url, verdict_name(report->verdict), text,
                report->reason.code ? ": " : "", report->reason.code ? report->reason.message : "");
}

static void print_json(struct emit *emit, const struct mirror_report *report)
{
    char time[TIME_TEXT];

    emit_open(emit, NULL, '{');
    emit_text(emit, "url", report->url);
    emit_text(emit, "verdict", verdict_name(report->verdict));
    emit_text(emit, "reason", report->reason.code ? report->reason.message : NULL);
    emit_number(emit, "first_byte_us", report->first_byte_us);
    emit_number(emit, "bytes_per_second", report->rate);
    if (report->has_catalog) {
        emit_open(emit, "catalog", '{');
        emit_number(emit, "serial", report->serial);
        emit_text(emit, "published", time_format(report->published, time));
        emit_text(emit, "expires", time_format(report->expires, time));
        emit_bool(emit, "signed", report->is_signed);
        emit_close(emit, '}');
    }
    emit_open(emit, "blocks", '{');
    emit_number(emit, "checked", report->checked);
    emit_number(emit, "right", report->right);
    emit_number(emit, "missing", report->missing);
    emit_number(emit, "wrong", report->wrong);
    emit_number(emit, "failed", report->failed);
    emit_close(emit, '}');
    emit_close(emit, '}');
}

/* Measure them, one after the other, and tell. Returns the exit status of the worst. */
static int measure(struct test *test)
{
    const struct mirror_options *options = test->context->options;
    unsigned blocks = options->blocks ? (unsigned)options->blocks : BLOCKS_DEFAULT;
    enum mirror_verdict worst = MIRROR_FINE;
    struct emit emit = {0};

    if (test->context->json) {
        emit_open(&emit, NULL, '{');
        emit_text(&emit, "image", test->version ? test->version->name : NULL);
        emit_text(&emit, "version", test->version ? test->version->version : NULL);
        emit_open(&emit, "mirrors", '[');
    }
    for (size_t i = 0; i < test->count; i++) {
        const struct mirror_report *report = mirror_check_report(test->checks[i]);

        if (test->newest)
            mirror_check_freshness(test->checks[i], test->newest->serial);
        if (test->version && report->verdict != MIRROR_UNREACHABLE_NOW)
            mirror_check_blocks(test->checks[i], &test->version->image, blocks);
        if (report->verdict > worst)
            worst = report->verdict;
        if (test->context->json)
            print_json(&emit, report);
        else
            print_line(test->context, report);
    }
    if (test->context->json) {
        emit_close(&emit, ']');
        emit_close(&emit, '}');
    }
    return status_of(worst);
}

static int prepare(struct test *test, const char *location, struct error *error)
{
    const struct client_options *client = test->context->client;
    int result = workers_create(0, &test->workers, error);

    test->settings = (struct mirror_check_settings){
        .client = session_http(test->session),
        .workers = test->workers,
        .trusted = key_ring_trusted(session_keys(test->session)),
        .insecure = client->insecure,
        .patience_ms = client->patience_ms < PATIENCE_MAX_MS ? (unsigned)client->patience_ms : PATIENCE_MAX_MS,
    };
    if (!result)
        result = add(test, location, error);
    for (size_t i = 0; i < client->mirrors.count && !result; i++)
        result = add(test, client->mirrors.items[i], error);
    if (!result)
        result = choose_version(test, error);
    if (!result)
        add_hinted(test);
    return result;
}

static int run(const struct context *context, int count, char **arguments)
{
    const struct mirror_options *options = context->options;
    cleanup(test_finish) struct test test = {.context = context};
    struct error error = ERROR_INIT;
    int result;

    (void)count;
    if (context->client->offline)
        return report_usage(context, "mirrors cannot be tested with --offline");
    if (options->blocks > BLOCKS_MAX)
        return report_usage(context, "--blocks can be %d at most", BLOCKS_MAX);
    result = client_session(context, &test.session, &error);
    if (result)
        return exit_status_of(result); /* was printed */
    if (prepare(&test, arguments[0], &error))
        return report_error(context, &error);
    return measure(&test);
}

static const char *const usage[] = {"URL", NULL};

const struct command command_mirror_test = {
    .name = "mirror test",
    .usage = usage,
    .summary = "measure an archive's mirrors: first byte, rate, freshness, correctness",
    .options = test_table,
    .options_size = sizeof(struct mirror_options),
    .client = true,
    .json = true,
    .run = run,
};
