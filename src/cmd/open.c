/* Opening the archive that a person named, and describing it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cmd/open.h"

int open_try(const struct context *context, const char *text, bool named, struct opened *opened, struct error *error)
{
    int result = named ? location_parse(text, &opened->location, error)
                       : location_parse_archive(text, &opened->location, error);

    if (result)
        return (int)exit_status_of(result);
    result = client_session(context, &opened->session, error);
    if (result)
        error->code = 0;
    else
        result = session_archive(opened->session, opened->location.archive, &opened->archive, error);
    return result ? (int)exit_status_of(result) : EXIT_OK;
}

int open_archive(const struct context *context, const char *text, bool named, struct opened *opened)
{
    struct error error = ERROR_INIT;
    int status = open_try(context, text, named, opened, &error);

    return error.code ? report_error(context, &error) : status;
}

void open_finish(struct opened *opened)
{
    archive_close(opened->archive);
    session_close(opened->session);
    location_finish(&opened->location);
    *opened = (struct opened){0};
}

int open_version(const struct context *context, const struct opened *opened,
                 const struct catalog_version **version_out)
{
    struct error error = ERROR_INIT;

    if (archive_find(opened->archive, opened->location.name, opened->location.version, version_out, &error))
        return report_error(context, &error);
    return EXIT_OK;
}

bool open_is_newest(const struct catalog *catalog, const struct catalog_version *version)
{
    return catalog_find(catalog, version->name, NULL) == version;
}

/* The file that the signing key came from; NULL if it is not among the trusted ones. */
static const char *signer_origin(const struct opened *opened, const struct public_key *signer)
{
    const struct key_ring *ring = session_keys(opened->session);

    for (size_t i = 0; i < ring->count; i++)
        if (!memcmp(&ring->keys[i], signer, sizeof(*signer)))
            return ring->origins[i];
    return NULL;
}

void open_describe_signer(const struct opened *opened, char *text, size_t size)
{
    const struct public_key *signer = archive_signer(opened->archive);
    char number[KEY_NUMBER_TEXT];
    const char *origin;

    if (!signer) {
        snprintf(text, size, "not by a trusted key");
        return;
    }
    origin = signer_origin(opened, signer);
    snprintf(text, size, "good, by key %s%s%s%s", key_number_format(signer->number, number), origin ? " (" : "",
             origin ? origin : "", origin ? ")" : "");
}

static void print_time(struct emit *emit, const char *key, int64_t seconds)
{
    char text[TIME_TEXT];

    emit_text(emit, key, time_format(seconds, text));
}

void open_print_catalog(struct emit *emit, const struct context *context, const struct opened *opened)
{
    const struct catalog *catalog = archive_catalog(opened->archive);
    const struct public_key *signer = archive_signer(opened->archive);
    auto_free char *location = location_redact(opened->location.archive);
    char number[KEY_NUMBER_TEXT];

    emit_text(emit, "location", location);
    emit_text(emit, "archive", catalog->archive);
    emit_number(emit, "serial", catalog->serial);
    print_time(emit, "published", catalog->published);
    print_time(emit, "expires", catalog->expires);
    emit_text(emit, "signer", signer ? key_number_format(signer->number, number) : NULL);
    emit_bool(emit, "offline", archive_is_offline(opened->archive));
    emit_bool(emit, "insecure", context->client->insecure);
}

void open_print_version(struct emit *emit, const struct catalog *catalog, const struct catalog_version *version)
{
    char image[DIGEST_TEXT];

    emit_text(emit, "name", version->name);
    emit_text(emit, "version", version->version);
    emit_text(emit, "image", digest_format(&version->image, image));
    emit_number(emit, "disk_size", version->disk_size);
    emit_number(emit, "block_size", version->block_size);
    emit_number(emit, "data_size", version->data_size);
    emit_number(emit, "stored_size", version->stored_size);
    print_time(emit, "published", version->published);
    emit_bool(emit, "newest", open_is_newest(catalog, version));
}

int open_split_version(const char *text, char name[NAME_MAX_LENGTH + 1], const char **version_out,
                       struct error *error)
{
    const char *at = strchr(text, '@');
    size_t length = at ? (size_t)(at - text) : strlen(text);
    int result;

    if (length > NAME_MAX_LENGTH)
        return error_set(error, ERROR_INVALID, "'%.300s' is not NAME[@VERSION]", text);
    memcpy(name, text, length);
    name[length] = '\0';
    *version_out = at ? at + 1 : NULL;
    result = name_check("name", name, error);
    return result || !at ? result : name_check("version", *version_out, error);
}
