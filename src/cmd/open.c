/* Opening the archive that a person named, and describing it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cmd/open.h"

int open_archive(const struct context *context, const char *text, bool named, struct opened *opened)
{
    struct error error = ERROR_INIT;
    int result = named ? location_parse(text, &opened->location, &error)
                       : location_parse_archive(text, &opened->location, &error);

    if (result)
        return report_error(context, &error);
    result = client_session(context, &opened->session, &error);
    if (result)
        return exit_status_of(result); /* was printed */
    if (session_archive(opened->session, opened->location.archive, &opened->archive, &error))
        return report_error(context, &error);
    return EXIT_OK;
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

static void print_time(struct json *json, const char *key, int64_t seconds)
{
    char text[TIME_TEXT];

    json_text(json, key, time_format(seconds, text));
}

void open_print_catalog(struct json *json, const struct context *context, const struct opened *opened)
{
    const struct catalog *catalog = archive_catalog(opened->archive);
    const struct public_key *signer = archive_signer(opened->archive);
    auto_free char *location = location_redact(opened->location.archive);
    char number[KEY_NUMBER_TEXT];

    json_text(json, "location", location);
    json_text(json, "archive", catalog->archive);
    json_number(json, "serial", catalog->serial);
    print_time(json, "published", catalog->published);
    print_time(json, "expires", catalog->expires);
    json_text(json, "signer", signer ? key_number_format(signer->number, number) : NULL);
    json_bool(json, "offline", archive_is_offline(opened->archive));
    json_bool(json, "insecure", context->client->insecure);
}

void open_print_version(struct json *json, const struct catalog *catalog, const struct catalog_version *version)
{
    char image[DIGEST_TEXT];

    json_text(json, "name", version->name);
    json_text(json, "version", version->version);
    json_text(json, "image", digest_format(&version->image, image));
    json_number(json, "disk_size", version->disk_size);
    json_number(json, "block_size", version->block_size);
    json_number(json, "data_size", version->data_size);
    json_number(json, "stored_size", version->stored_size);
    print_time(json, "published", version->published);
    json_bool(json, "newest", open_is_newest(catalog, version));
}
