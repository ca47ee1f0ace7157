/* From the location that a person typed to an open archive: the beginning of every command that reads one. */
#ifndef CMD_OPEN_H
#define CMD_OPEN_H

#include "cmd/cmd.h"
#include "format/name.h"

struct opened {
    struct location location; /* name "" unless asked for */
    struct session *session;
    struct archive *archive;
};

/*
 * Open the archive of TEXT, "URL", or with NAMED "URL/NAME[@VERSION]". Returns EXIT_OK, or an exit status after
 * having printed what went wrong. Release with open_finish in any case; OPENED is zero-initialised.
 */
int open_archive(const struct context *context, const char *text, bool named, struct opened *opened);
/* The same, but what went wrong is left in ERROR; where it has been printed already, ERROR's code is 0. */
int open_try(const struct context *context, const char *text, bool named, struct opened *opened, struct error *error);
void open_finish(struct opened *opened);

/* The version that the location names. Exit status as above. */
int open_version(const struct context *context, const struct opened *opened,
                 const struct catalog_version **version_out);

/* Members of the JSON object that describes an archive's catalog, or one of its versions. */
void open_print_catalog(struct emit *emit, const struct context *context, const struct opened *opened);
void open_print_version(struct emit *emit, const struct catalog *catalog, const struct catalog_version *version);

/* Split "NAME[@VERSION]". *VERSION_OUT points into TEXT, and is NULL without a version. ERROR_INVALID. */
int open_split_version(const char *text, char name[NAME_MAX_LENGTH + 1], const char **version_out,
                       struct error *error);

/* "signed by key 1234… (lab.pub)", for people, into TEXT. */
void open_describe_signer(const struct opened *opened, char *text, size_t size);

/* Does a bare name mean this version? */
bool open_is_newest(const struct catalog *catalog, const struct catalog_version *version);

#endif
