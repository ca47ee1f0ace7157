/*
 * A volume: what a person names - an image, or a whole catalog - opened and
 * mounted. What mount and boot have in common.
 */
#ifndef CMD_VOLUME_H
#define CMD_VOLUME_H

#include "cmd/open.h"
#include "cmd/private.h"
#include "lib/library.h"
#include "serve/fuse.h"

struct volume {
    struct opened opened;
    struct circular_archive *archive;
    struct circular_disk *disk; /* NULL: the whole catalog */
    struct fuse_server *server; /* NULL: not mounted */
    struct private_folder folder; /* where it is mounted, if privately */
    int kept_fd;                /* 0: none, else of the folder of a private mount that will be hidden */
    enum prefetch_mode prefetch; /* of the one disk */
    const char *sha256;         /* of a plain file; set before volume_open; NULL: not checked */
    bool file;                  /* set before: it is a plain file, whatever it looks like */
    struct plain *plain;        /* the disk is a plain file, the session's */
    bool iso;                   /* that is an ISO 9660 image */
    char *source;               /* "URL/NAME@VERSION" or "URL", without passwords; heap */
    bool reported;              /* what went wrong has been printed already */
};

/*
 * Open what TEXT names: URL/NAME[@VERSION], or with CATALOG_TOO also URL, or a plain file: with SHA256 anything, else
 * what ends in .iso, .img or .raw without a version, and local files. That nobody has signed it is told. Returns
 * EXIT_OK or an exit status after having printed what is wrong. VOLUME is zero-initialised; release with volume_close
 * in any case.
 */
int volume_open(const struct context *context, const char *text, bool catalog_too, struct volume *volume);

/* Is TEXT a plain file, by its looks or by what VOLUME was told before? */
bool volume_is_file(const char *text, const struct volume *volume);

/* What a mount tells about itself (see fuse.h): the text of format/statistics.h; a profile in pages, "profile.0" ... */
#define VOLUME_STATISTICS   "statistics"
#define VOLUME_PROFILE      "profile."
#define VOLUME_FETCHED      "fetched" /* "BYTES REQUESTS" of the disk */
#define VOLUME_PROCESS      "process" /* the id of the process that serves it */
#define VOLUME_PROFILE_PAGE 61440 /* bytes, less than any attribute may be */

/* Mount at FOLDER (see fuse.h). */
int volume_mount(struct volume *volume, const char *folder, bool allow_other, struct error *error);

/* Mount in a private folder made for PURPOSE, VOLUME's folder. */
int volume_mount_privately(struct volume *volume, const char *purpose, struct error *error);

/*
 * Take a private mount out of sight: it ends when nobody has its file open any more. This process keeps hold of it as
 * its descriptor volume->kept_fd, by which running.c finds it.
 */
int volume_keep(struct volume *volume, struct error *error); /* before */
void volume_hide(struct volume *volume);

/* The path of the mounted disk, FOLDER/NAME, on the heap; its own path if it is direct and not mounted. */
char *volume_disk_path(const struct volume *volume, const char *folder);

/* Unmount and close. What still waits for the network is broken off; where it cannot be, nothing is freed. */
void volume_close(struct volume *volume);

#define VOLUME_SHA256_HELP                                                                                            \
    "the location is a plain file, which nobody has signed, and has this SHA-256: the whole is fetched and checked "  \
    "first"

#define VOLUME_RECORD_HELP                                                                                            \
    "at the end write which blocks were read, in order, as a profile for 'circular profile add'"

/* Before any thread is started: keep the memory of a long-lived process small. */
void volume_limit_memory(void);

#endif
