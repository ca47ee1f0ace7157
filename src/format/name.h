/*
 * Names: of images and versions, of the files in an archive, and the location
 * that a person types.
 *
 * name, version: 1 to 128 of A-Z a-z 0-9 . _ + ~ -, beginning with a letter or digit, not ending in
 *                ".hints" (a manifest would take the place of another version's hints).
 * location:      ARCHIVE[/NAME[@VERSION]], where ARCHIVE is http://, https:// or file:// URL, or a path
 *                of a directory. Whether the last component is a NAME is decided by the caller:
 *                location_parse splits it off, location_parse_archive does not.
 */
#ifndef FORMAT_NAME_H
#define FORMAT_NAME_H

#include "base/error.h"
#include "base/hash.h"

#define NAME_MAX_LENGTH 128
#define ARCHIVE_PATH_MAX 320 /* any path inside an archive, with NUL */

/* ERROR_INVALID with the reason; WHAT is "name" or "version". Control characters are shown escaped. */
int name_check(const char *what, const char *text, struct error *error);

/* Paths inside an archive; PATH holds ARCHIVE_PATH_MAX. Each returns PATH. */
char *archive_path_block(const struct digest *digest, char *path);       /* blocks/ab/ab… */
char *archive_path_map(const struct digest *image_id, char *path);       /* maps/….map */
char *archive_path_pack(const struct digest *table, char *path);         /* packs/….pack */
char *archive_path_file(const struct digest *digest, char *path);        /* files/… */
char *archive_path_manifest(const char *name, const char *version, char *path); /* images/N/V.json */
char *archive_path_hints(const char *name, const char *version, char *path);    /* images/N/V.hints.json */
char *archive_path_newest_hints(const char *name, char *path);                  /* images/N/_newest.hints.json */
#define ARCHIVE_CATALOG "catalog.json"
#define SIGNATURE_SUFFIX ".minisig"

struct location {
    char *archive;               /* without trailing slashes; heap */
    char name[NAME_MAX_LENGTH + 1];    /* "" if there is none */
    char version[NAME_MAX_LENGTH + 1]; /* "" means the newest */
};

/*
 * Split "ARCHIVE/NAME[@VERSION]". ERROR_INVALID: empty, malformed, an unknown
 * scheme, a bad name. User and password in a URL are kept in ARCHIVE.
 */
int location_parse(const char *text, struct location *location_out, struct error *error);
/* All of TEXT is the archive. */
int location_parse_archive(const char *text, struct location *location_out, struct error *error);
void location_finish(struct location *location);
/*
 * "ARCHIVE/NAME@VERSION", as location_parse takes it; without VERSION (NULL or ""): "ARCHIVE/NAME". Heap; NULL: no
 * memory.
 */
char *location_format(const char *archive, const char *name, const char *version);

/* True for http:// and https://. */
bool location_is_http(const char *archive);
/* The folder of a file:// URL or a plain path; NULL for http. Borrowed from ARCHIVE, percent escapes not decoded. */
const char *location_folder(const char *archive);
/* A copy fit to print: with any user:password@ replaced by "***@". Heap. */
char *location_redact(const char *archive);

#endif
