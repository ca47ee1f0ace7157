/* A volume: see volume.h. */
#include "cmd/volume.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "format/plain.h"
#include "serve/mountpoint.h"

#define CLOSE_TIMEOUT_MS 3000
#define LONG_WAIT_MS     2000

void volume_limit_memory(void)
{
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
    /* Fixed: it would grow with each large block that is freed, and large blocks would stay. */
    mallopt(M_MMAP_THRESHOLD, 256 * 1024);
}

/* The word of --prefetch. EXIT_OK, or EXIT_USAGE after having printed why. */
static int parse_prefetch(const struct context *context, enum prefetch_mode *mode_out)
{
    static const char *const words[] = {
        [PREFETCH_NONE] = "none", [PREFETCH_PROFILE] = "profile", [PREFETCH_ALL] = "all"};
    const char *word = context->client->prefetch;

    *mode_out = PREFETCH_ALL;
    for (size_t i = 0; word && i < sizeof(words) / sizeof(words[0]); i++)
        if (!strcmp(word, words[i])) {
            *mode_out = (enum prefetch_mode)i;
            return EXIT_OK;
        }
    return word ? report_usage(context, "prefetch is profile, all or none, not '%s'", word) : EXIT_OK;
}

static int open_disk(struct volume *volume, struct error *error)
{
    const struct location *location = &volume->opened.location;
    struct circular_error inner = {0};
    int result = circular_archive_disk(volume->archive, location->name, *location->version ? location->version : NULL,
                                       &volume->disk, &inner);

    return result ? error_set(error, result, "%s", inner.message) : 0;
}

/* Try TEXT as URL/NAME[@VERSION] (NAMED) or as URL. What fails is not printed yet. */
static int try_open(const struct context *context, const char *text, bool named, struct volume *volume,
                    struct error *error)
{
    struct opened *opened = &volume->opened;
    struct location *location = &opened->location;
    int result = named ? location_parse(text, location, error) : location_parse_archive(text, location, error);

    if (!result) {
        result = client_session(context, &opened->session, error);
        volume->reported = result != 0;
    }
    if (!result && named)
        session_expect(opened->session, location->name, location->version, volume->prefetch);
    if (!result)
        result = session_archive(opened->session, location->archive, &opened->archive, error);
    if (!result && !(volume->archive = library_archive(opened->session, opened->archive)))
        result = error_set(error, ERROR_SYSTEM, "no memory for an archive");
    if (!result && named)
        result = open_disk(volume, error);
    return result;
}

/* Somebody reads what nobody has signed: that is said, whatever else is not. */
static void tell_unsigned(const struct context *context, const struct volume *volume)
{
    if (volume->sha256)
        report_line(context, "%s has the SHA-256 that was asked for", plain_shown(volume->plain));
    else /* also with --quiet */
        log_write(context->quiet ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING,
                  "not verified: %s is a plain file that nobody has signed; --sha256 DIGEST checks it",
                  plain_shown(volume->plain));
}

static int parse_digest(const char *text, struct digest *digest_out, struct error *error)
{
    char lower[DIGEST_TEXT];
    size_t length = strlen(text);

    for (size_t i = 0; i <= length && i < sizeof(lower); i++)
        lower[i] = (char)tolower((unsigned char)text[i]);
    if (length == DIGEST_TEXT - 1 && digest_parse(lower, digest_out))
        return 0;
    return error_set(error, ERROR_INVALID, "--sha256 takes 64 hex digits, not '%s'", text);
}

static int open_plain(const struct context *context, const char *text, struct volume *volume, struct error *error)
{
    struct progress *progress;
    struct digest wanted;
    int result = volume->sha256 ? parse_digest(volume->sha256, &wanted, error) : 0;

    if (!result) {
        result = client_session(context, &volume->opened.session, error);
        volume->reported = result != 0;
    }
    if (result)
        return result;
    progress = progress_begin(context, "fetching");
    result = session_plain(volume->opened.session, text, volume->sha256 ? &wanted : NULL, progress, &volume->plain,
                           error);
    progress_end(progress);
    if (!result)
        result = plain_recognise(volume->plain, &volume->iso, error);
    if (result)
        return result;
    volume->disk = library_plain_disk(volume->opened.session, volume->plain);
    if (!volume->disk)
        return error_set(error, ERROR_SYSTEM, "no memory for a disk");
    tell_unsigned(context, volume);
    return 0;
}

/* By its looks, or because it is a local file; never by what a server says (see format/plain.h). */
bool volume_is_file(const char *text, const struct volume *volume)
{
    const char *path = location_folder(text);
    struct stat status;

    return volume->sha256 || volume->file || plain_is_location(text) ||
           (path && !stat(path, &status) && S_ISREG(status.st_mode));
}

static void release(struct volume *volume)
{
    circular_close(volume->disk);
    circular_archive_close(volume->archive);
    open_finish(&volume->opened);
    free(volume->source);
    *volume = (struct volume){.prefetch = volume->prefetch, .sha256 = volume->sha256};
}

/* True if TEXT, which is no URL/NAME here, may be an archive's URL. */
static bool may_be_archive(const char *text, int code)
{
    const char *slash = strrchr(text, '/');

    return !strchr(slash ? slash : text, '@') &&
           (code == ERROR_INVALID || code == ERROR_NOT_FOUND || code == ERROR_UNAVAILABLE);
}

/* Is there a catalog of the archive TEXT in the cache? */
static bool is_cached(const struct context *context, const char *text)
{
    struct volume volume = {0};
    bool offline = context->client->offline, found;

    if (context->client->no_cache)
        return false;
    context->client->offline = true;
    found = !try_open(context, text, false, &volume, NULL);
    context->client->offline = offline;
    release(&volume);
    return found;
}

/* The image named by TEXT, or the archive. ERROR is of the attempt that came further. */
static int open_either(const struct context *context, const char *text, bool catalog_too, struct volume *volume,
                       struct error *error)
{
    struct error other = ERROR_INIT;
    uint64_t start_ms = clock_ms();
    int result = try_open(context, text, true, volume, error);
    bool archive_is_there = volume->archive != NULL;

    if (!result || volume->reported || !catalog_too || !may_be_archive(text, result))
        return result;
    release(volume);
    /* A server that was waited for in vain is not worth a second wait, unless it would not be in vain without it. */
    if (result == ERROR_UNAVAILABLE && clock_ms() - start_ms > LONG_WAIT_MS && !is_cached(context, text))
        return result;
    if (!try_open(context, text, false, volume, &other))
        return 0;
    if (!archive_is_there && other.code != result && (result == ERROR_INVALID || other.code != ERROR_NOT_FOUND))
        return error_copy(error, &other);
    return result;
}

static char *describe(const struct volume *volume)
{
    auto_free char *archive = volume->plain ? strdup(plain_shown(volume->plain))
                                            : location_redact(volume->opened.location.archive);
    struct circular_version version;

    if (volume->plain)
        return steal_pointer(&archive);
    if (!archive || !volume->disk)
        return steal_pointer(&archive);
    circular_describe(volume->disk, &version);
    return location_format(archive, version.name, version.version);
}

int volume_open(const struct context *context, const char *text, bool catalog_too, struct volume *volume)
{
    struct error error = ERROR_INIT;
    int status = parse_prefetch(context, &volume->prefetch), result;

    if (status != EXIT_OK)
        return status;
    result = volume_is_file(text, volume) ? open_plain(context, text, volume, &error)
                                    : open_either(context, text, catalog_too, volume, &error);
    if (result)
        return volume->reported ? (int)exit_status_of(error.code) : report_error(context, &error);
    volume->source = describe(volume);
    return volume->source ? EXIT_OK : report_memory(context);
}

/* As long as an attribute may be: what does not fit of the lists is left out. */
static char *format_statistics(struct statistics *statistics)
{
    char *text = statistics_format(statistics);

    while (text && strlen(text) > STATISTICS_SIZE_MAX && (statistics->waiting_count || statistics->mirror_count)) {
        *(statistics->waiting_count ? &statistics->waiting_count : &statistics->mirror_count) /= 2;
        free(text);
        text = statistics_format(statistics);
    }
    return text;
}

static int statistics_value(struct volume *volume, struct buffer *value_out)
{
    auto_free struct statistics *statistics = malloc(sizeof(*statistics));
    auto_free char *text = NULL;

    if (!statistics)
        return ERROR_SYSTEM;
    if (volume->plain)
        library_plain_statistics(volume->disk, statistics);
    else
        library_statistics(volume->archive, statistics);
    snprintf(statistics->source, sizeof(statistics->source), "%s", volume->source);
    text = format_statistics(statistics);
    return text && buffer_append(value_out, text, strlen(text)) ? 0 : ERROR_SYSTEM;
}

/* Page NUMBER of the profile: a profile only grows at its end, so pages asked for one after the other fit together. */
static int profile_value(struct circular_disk *disk, const char *number, struct buffer *value_out)
{
    cleanup(profile_finish) struct profile profile = {0};
    cleanup(buffer_finish) struct buffer bytes = {0};
    char *end;
    uint64_t page = strtoull(number, &end, 10), offset;

    if (!disk || end == number || *end || !checked_mul(page, VOLUME_PROFILE_PAGE, &offset))
        return ERROR_NOT_FOUND;
    if (library_profile(disk, &profile, NULL) || profile_format(&profile, &bytes, NULL) || offset >= bytes.size)
        return ERROR_NOT_FOUND;
    return buffer_append(value_out, bytes.bytes + offset, min_u64(bytes.size - offset, VOLUME_PROFILE_PAGE))
               ? 0
               : ERROR_SYSTEM;
}

static int fetched_value(struct circular_disk *disk, struct buffer *value_out)
{
    struct circular_statistics statistics = {.size = sizeof(statistics)};
    char text[64];

    if (!disk)
        return ERROR_NOT_FOUND;
    circular_disk_statistics(disk, &statistics);
    snprintf(text, sizeof(text), "%llu %llu", (unsigned long long)statistics.fetched_bytes,
             (unsigned long long)statistics.requests);
    return buffer_append(value_out, text, strlen(text)) ? 0 : ERROR_SYSTEM;
}

static int process_value(struct buffer *value_out)
{
    char text[24];
    int length = snprintf(text, sizeof(text), "%d", (int)getpid());

    return buffer_append(value_out, text, (size_t)length) ? 0 : ERROR_SYSTEM;
}

static int attribute(void *user, struct circular_disk *disk, const char *word, struct buffer *value_out)
{
    size_t prefix = strlen(VOLUME_PROFILE);

    if (!strcmp(word, VOLUME_STATISTICS))
        return statistics_value(user, value_out);
    if (!strcmp(word, VOLUME_FETCHED))
        return fetched_value(disk, value_out);
    if (!strcmp(word, VOLUME_PROCESS))
        return process_value(value_out);
    if (!strncmp(word, VOLUME_PROFILE, prefix))
        return profile_value(disk, word + prefix, value_out);
    return ERROR_NOT_FOUND;
}

int volume_mount(struct volume *volume, const char *folder, bool allow_other, struct error *error)
{
    struct fuse_settings settings = {
        .folder = folder,
        .source = volume->source,
        .allow_other = allow_other,
        .disk = volume->disk,
        .archive = volume->archive,
        .attribute = attribute,
        .attribute_user = volume,
    };

    return fuse_server_open(&settings, &volume->server, error);
}

/* Its bytes can be read where they are, without a mount: a local plain file. */
static bool is_direct(const struct volume *volume)
{
    return volume->plain && plain_path(volume->plain);
}

int volume_mount_privately(struct volume *volume, const char *purpose, struct error *error)
{
    int result = private_folder_make(PRIVATE_RUNTIME, purpose, &volume->folder, error);

    return result ? result : volume_mount(volume, volume->folder.path, false, error);
}

int volume_keep(struct volume *volume, struct error *error)
{
    int fd = open(volume->folder.path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return error_set_errno(error, errno, "cannot keep %s", volume->folder.path);
    volume->kept_fd = fd;
    return 0;
}

void volume_hide(struct volume *volume)
{
    struct error error = ERROR_INIT;

    if (mountpoint_release(volume->folder.path, true, &error)) {
        log_warning("%s", error.message);
        return;
    }
    private_folder_remove(&volume->folder);
    fuse_server_end_unused(volume->server);
}

char *volume_disk_path(const struct volume *volume, const char *folder)
{
    struct circular_version version;

    if (!volume->server && is_direct(volume))
        return strdup(plain_path(volume->plain));
    circular_describe(volume->disk, &version);
    return path_join(folder, version.name);
}

void volume_close(struct volume *volume)
{
    if (volume->opened.session)
        session_cancel(volume->opened.session);
    /* With this the hidden mount ends, unless somebody else holds it. */
    if (volume->kept_fd)
        close(volume->kept_fd);
    volume->kept_fd = 0;
    if (fuse_server_close(volume->server, CLOSE_TIMEOUT_MS)) {
        private_folder_remove(&volume->folder);
        release(volume);
    } else {
        log_warning("%s: reads are still under way; the end of the process ends them", volume->source);
    }
}
