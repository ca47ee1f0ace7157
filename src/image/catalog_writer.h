/*
 * The publisher's side of an archive folder: its locks, and the atomic
 * replacement of its signed catalog.
 *
 * Locks (flock), in this order:
 *   .lock          shared by everyone who adds or signs, exclusive for publish_collect, which removes
 *   .catalog-lock  exclusive from reading the catalog until it is replaced
 */
#ifndef IMAGE_CATALOG_WRITER_H
#define IMAGE_CATALOG_WRITER_H

#include "base/bytes.h"
#include "format/catalog.h"
#include "format/signature.h"

#define CATALOG_LIFETIME_S (UINT64_C(90) * 86400)

/*
 * Lock the archive in FOLDER; waits, saying so in the log. Returns the descriptor that holds the lock, or an error
 * code.
 */
int archive_lock(int folder, bool shared, struct error *error);

/* The catalog as it is on disk, with what is needed to replace it. */
struct catalog_writer {
    int folder;               /* borrowed */
    int lock;                 /* of .catalog-lock; -1: not held */
    const struct secret_key *key; /* borrowed */
    struct catalog catalog;   /* the caller changes its versions */
    struct buffer text;       /* catalog.json; empty if there is none */
    struct buffer signatures; /* catalog.json.minisig */
};

/*
 * Take .catalog-lock and read the catalog. An archive without one gets an empty catalog with serial 0 and a new id.
 * UNTRUSTED if the catalog is not signed by KEY; CORRUPT.
 */
int catalog_writer_open(int folder, const struct secret_key *key, struct catalog_writer *writer_out,
                        struct error *error);

/*
 * Publish writer->catalog with the next serial and an expiry after LIFETIME_S (0: 90 days). On disk when this
 * returns 0. A reader finds a catalog with a good signature beside it at every moment, and so does the next
 * publisher after a crash at any moment.
 */
int catalog_writer_commit(struct catalog_writer *writer, uint64_t lifetime_s, struct error *error);

/* Gives the lock back; may be called twice. */
void catalog_writer_close(struct catalog_writer *writer);

/* The catalog as it lies in an archive's FOLDER, unverified: for tools that change only hints. */
int catalog_load(int folder, struct catalog *catalog_out, struct error *error);

/* Sign BYTES and write them with their signature to PATH, durably, signature first. */
int write_signed(int folder, const char *path, const char *text, const struct secret_key *key, struct error *error);

#endif
