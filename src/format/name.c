/* Names: checking what a person or a catalog calls things, paths inside an archive, and locations. */
#include "format/name.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/text.h"

#define LOCATION_LENGTH_MAX 4096
#define HINTS_ENDING        ".hints"
#define SHOWN_MAX           (4 * (NAME_MAX_LENGTH + 1) + 4)

/* Locale-free: what is a letter must not depend on who runs the program. */
static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_name_character(char c)
{
    return is_letter_or_digit(c) || (c && strchr("._+~-", c));
}

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

/* TEXT with control characters and bytes over 127 as \xNN, cut after NAME_MAX_LENGTH bytes. */
static const char *show(const char *text, char shown[SHOWN_MAX])
{
    size_t at = 0;

    for (size_t i = 0; text[i]; i++) {
        unsigned char c = (unsigned char)text[i];

        if (i == NAME_MAX_LENGTH)
            return strcpy(shown + at, "..."), shown;
        if (is_control(text[i]) || c > 0x7f)
            at += (size_t)snprintf(shown + at, SHOWN_MAX - at, "\\x%02x", c);
        else
            shown[at++] = text[i];
    }
    shown[at] = '\0';
    return shown;
}

int name_check(const char *what, const char *text, struct error *error)
{
    char shown[SHOWN_MAX];
    size_t length = strlen(text);

    if (length == 0)
        return error_set(error, ERROR_INVALID, "%s is empty", what);
    if (length > NAME_MAX_LENGTH)
        return error_set(error, ERROR_INVALID, "%s '%s' is longer than %d characters", what,
                         show(text, shown), NAME_MAX_LENGTH);
    if (!is_letter_or_digit(text[0]))
        return error_set(error, ERROR_INVALID, "%s '%s' does not begin with a letter or digit", what,
                         show(text, shown));
    for (size_t i = 0; i < length; i++)
        if (!is_name_character(text[i]))
            return error_set(error, ERROR_INVALID,
                             "%s '%s' has a character that is not one of A-Z a-z 0-9 . _ + ~ -", what,
                             show(text, shown));
    /* The manifest of version "1.hints" would lie where the hints of version "1" lie. */
    if (length >= strlen(HINTS_ENDING) && !strcmp(text + length - strlen(HINTS_ENDING), HINTS_ENDING))
        return error_set(error, ERROR_INVALID, "%s '%s' ends in " HINTS_ENDING, what, text);
    return 0;
}

char *archive_path_block(const struct digest *digest, char *path)
{
    char text[DIGEST_TEXT];

    digest_format(digest, text);
    snprintf(path, ARCHIVE_PATH_MAX, "blocks/%.2s/%s", text, text);
    return path;
}

/* FOLDER/DIGEST SUFFIX */
static char *path_of_digest(const char *folder, const struct digest *digest, const char *suffix, char *path)
{
    char text[DIGEST_TEXT];

    snprintf(path, ARCHIVE_PATH_MAX, "%s/%s%s", folder, digest_format(digest, text), suffix);
    return path;
}

char *archive_path_map(const struct digest *image_id, char *path)
{
    return path_of_digest("maps", image_id, ".map", path);
}

char *archive_path_pack(const struct digest *table, char *path)
{
    return path_of_digest("packs", table, ".pack", path);
}

char *archive_path_file(const struct digest *digest, char *path)
{
    return path_of_digest("files", digest, "", path);
}

char *archive_path_manifest(const char *name, const char *version, char *path)
{
    snprintf(path, ARCHIVE_PATH_MAX, "images/%s/%s.json", name, version);
    return path;
}

char *archive_path_hints(const char *name, const char *version, char *path)
{
    snprintf(path, ARCHIVE_PATH_MAX, "images/%s/%s" HINTS_ENDING ".json", name, version);
    return path;
}

/* No version begins with an underscore, so none can take this name. */
char *archive_path_newest_hints(const char *name, char *path)
{
    return archive_path_hints(name, "_newest", path);
}

bool location_is_http(const char *archive)
{
    return !strncasecmp(archive, "http://", 7) || !strncasecmp(archive, "https://", 8);
}

const char *location_folder(const char *archive)
{
    if (location_is_http(archive))
        return NULL;
    if (!strncasecmp(archive, "file://localhost/", 17))
        return archive + 16;
    return !strncasecmp(archive, "file://", 7) ? archive + 7 : archive;
}

/* Length of "SCHEME" if TEXT begins with "SCHEME://", else 0. */
static size_t scheme_length(const char *text)
{
    size_t length = 0;

    while (is_letter_or_digit(text[length]) || (text[length] && strchr("+.-", text[length])))
        length++;
    return length && !strncmp(text + length, "://", 3) ? length : 0;
}

/* The part of TEXT that can be cut at slashes: behind scheme and host of a URL. */
static size_t path_start(const char *text)
{
    size_t scheme = scheme_length(text);

    if (!scheme)
        return 0;
    return scheme + 3 + strcspn(text + scheme + 3, "/");
}

char *location_redact(const char *archive)
{
    size_t scheme = scheme_length(archive);
    size_t host = scheme ? scheme + 3 : 0;
    size_t end = scheme ? path_start(archive) : 0;

    for (size_t i = end; i > host; i--)
        if (archive[i - 1] == '@')
            return text_format("%.*s***@%s", (int)host, archive, archive + i);
    return strdup(archive);
}

/* [user[:password]@]host[:port], LENGTH bytes. A bad one is not repeated in the message: it may be a
 * password. */
static int check_authority(const char *text, size_t length, struct error *error)
{
    const char *at = memrchr(text, '@', length);
    const char *host = at ? at + 1 : text;
    const char *end = text + length;
    const char *colon = host < end && *host == '[' ? memchr(host, ']', (size_t)(end - host)) : host - 1;

    if (host == end || !colon)
        return error_set(error, ERROR_INVALID, "the URL has no host");
    colon = memchr(colon + 1, ':', (size_t)(end - colon - 1));
    if (!colon)
        return 0;
    if (colon == host)
        return error_set(error, ERROR_INVALID, "the URL has no host");
    for (const char *digit = colon + 1; digit < end; digit++)
        if (*digit < '0' || *digit > '9' || digit - colon > 5)
            return error_set(error, ERROR_INVALID, "the URL's port is not a number");
    if (end - colon == 6 && memcmp(colon + 1, "65535", 5) > 0)
        return error_set(error, ERROR_INVALID, "the URL's port is larger than 65535");
    return 0;
}

static int check_http(const char *text, struct error *error)
{
    size_t host = scheme_length(text) + 3;
    int result = check_authority(text + host, strcspn(text + host, "/"), error);

    if (result)
        return result;
    for (const char *at = text; *at; at++)
        if ((unsigned char)*at <= ' ' || strchr("\"<>\\^`{|}?#", *at))
            return error_set(error, ERROR_INVALID,
                             "the URL has '%c' in it, which an archive's URL cannot have", *at);
    return 0;
}

/* Everything that can be said of a location before it is cut. */
static int check_text(const char *text, struct error *error)
{
    size_t scheme = scheme_length(text);

    if (!*text)
        return error_set(error, ERROR_INVALID, "the location is empty");
    if (strlen(text) > LOCATION_LENGTH_MAX)
        return error_set(error, ERROR_INVALID, "the location is longer than %d characters",
                         LOCATION_LENGTH_MAX);
    for (const char *at = text; *at; at++)
        if (is_control(*at))
            return error_set(error, ERROR_INVALID, "the location has the control character \\x%02x in it",
                             (unsigned char)*at);
    if (location_is_http(text))
        return check_http(text, error);
    if (!scheme)
        return 0;
    if (scheme != 4 || strncasecmp(text, "file", 4))
        return error_set(error, ERROR_INVALID,
                         "'%.*s' is not a scheme that archives are read by: http, https, file",
                         (int)(scheme > 32 ? 32 : scheme), text);
    if (*location_folder(text) != '/')
        return error_set(error, ERROR_INVALID, "a file URL needs an absolute path, as in file:///srv/os");
    return 0;
}

/* LENGTH bytes of TEXT without trailing slashes (a root keeps its own), scheme in lower case. */
static char *copy_archive(const char *text, size_t length)
{
    size_t start = path_start(text), scheme = scheme_length(text);
    bool http = location_is_http(text);
    char *archive;

    while (length > start + (http ? 0 : 1) && text[length - 1] == '/')
        length--;
    archive = strndup(text, length);
    for (size_t i = 0; archive && i < scheme; i++)
        archive[i] = (char)tolower((unsigned char)archive[i]);
    return archive;
}

int location_parse_archive(const char *text, struct location *location_out, struct error *error)
{
    int result = check_text(text, error);

    *location_out = (struct location){0};
    if (result)
        return result;
    location_out->archive = copy_archive(text, strlen(text));
    return location_out->archive ? 0 : error_set(error, ERROR_SYSTEM, "no memory for a location");
}

/* "NAME[@VERSION]" of LENGTH bytes into LOCATION. */
static int split_name(const char *text, size_t length, struct location *location, struct error *error)
{
    auto_free char *copy = strndup(text, length);
    char *at;
    int result;

    if (!copy)
        return error_set(error, ERROR_SYSTEM, "no memory for a location");
    at = strchr(copy, '@');
    if (at)
        *at++ = '\0';
    result = name_check("name", copy, error);
    if (!result && at)
        result = name_check("version", at, error);
    if (result)
        return result;
    strcpy(location->name, copy);
    strcpy(location->version, at ? at : "");
    return 0;
}

int location_parse(const char *text, struct location *location_out, struct error *error)
{
    int result = check_text(text, error);
    size_t start, end, cut;

    *location_out = (struct location){0};
    if (result)
        return result;
    start = path_start(text);
    for (end = strlen(text); end > start && text[end - 1] == '/'; end--)
        ;
    for (cut = end; cut > start && text[cut - 1] != '/'; cut--)
        ;
    if (cut == start || cut == end)
        return error_set(error, ERROR_INVALID,
                         "no image name in the location: it is ARCHIVE/NAME[@VERSION]%s",
                         start ? "" : ", and the archive here is ./");
    result = split_name(text + cut, end - cut, location_out, error);
    if (result)
        return result;
    location_out->archive = copy_archive(text, cut);
    return location_out->archive ? 0 : error_set(error, ERROR_SYSTEM, "no memory for a location");
}

char *location_format(const char *archive, const char *name, const char *version)
{
    bool newest = !version || !*version;

    return text_format("%s/%s%s%s", archive, name, newest ? "" : "@", newest ? "" : version);
}

void location_finish(struct location *location)
{
    free(location->archive);
    *location = (struct location){0};
}
