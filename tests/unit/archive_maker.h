/*
 * Small archives for tests, written file by file from the formats alone, so
 * that a test does not lean on the publisher, and can be wrong on purpose.
 * Every function fails the running cmocka test when it cannot do its work.
 */
#ifndef TESTS_ARCHIVE_MAKER_H
#define TESTS_ARCHIVE_MAKER_H

#include "format/catalog.h"
#include "format/signature.h"

struct archive_maker {
    char folder[128]; /* a fresh one below TMPDIR */
    int folder_fd;
    struct public_key public_key;
    struct secret_key secret_key;
    const struct secret_key *second_key; /* NULL, or one that signs too */
    struct catalog catalog; /* as it will be published next; change it at will */
};

/* A folder, a key pair, and an empty catalog of serial 0, that expires in 90 days. */
void archive_maker_init(struct archive_maker *maker);
/* Removes the folder. */
void archive_maker_finish(struct archive_maker *maker);

/* Blocks, map and manifest of IMAGE, and its entry in the catalog, which is not published yet. Returns the image id. */
struct digest archive_maker_add(struct archive_maker *maker, const char *name, const char *version,
                                const uint8_t *image, uint64_t size, uint32_t block_size);

/* Raise the serial, write and sign the catalog. */
void archive_maker_publish(struct archive_maker *maker);

/* The parts of publishing, for tests that mix them up: catalog or signature alone of the catalog as it is. */
void archive_maker_write_catalog(struct archive_maker *maker);
void archive_maker_write_signature(struct archive_maker *maker);

/* Write, replace, read (NUL-terminated, heap) or remove a file of the archive. */
void archive_maker_write(struct archive_maker *maker, const char *path, const void *bytes, size_t size);
char *archive_maker_read(struct archive_maker *maker, const char *path, size_t *size_out);
void archive_maker_remove(struct archive_maker *maker, const char *path);

/* Bytes that compress, bytes that do not, repeated blocks and blocks of zeros; the same for the same SEED. Heap. */
uint8_t *make_image(uint64_t size, uint32_t block_size, unsigned seed);

/* A fresh folder below TMPDIR, and its removal with all that is in it. */
void make_folder(char folder[128]);
void remove_folder(const char *folder);

#endif
