/*
 * libcircular: read the bytes of a published disk image by URL, verified.
 *
 *     struct circular_error error;
 *     struct circular_disk *disk;
 *     struct circular_options options = CIRCULAR_OPTIONS_INIT;
 *
 *     options.key_folder = "/etc/circular/keys.d";
 *     options.cache_path = "/var/cache/circular";
 *     if (circular_open("http://host/os/debian12", &options, &disk, &error))
 *         errx(1, "%s", error.message);
 *     ssize_t got = circular_pread(disk, buffer, sizeof(buffer), 0, &error);
 *     circular_close(disk);
 *
 * No byte is returned that was not checked against the publisher's signature.
 * Functions return 0 (or a count) on success and a negative enum circular_code
 * otherwise; ERROR may be NULL. All functions may be called from any thread;
 * closing an object while it is in use is the caller's mistake.
 */
#ifndef CIRCULAR_H
#define CIRCULAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CIRCULAR_API __attribute__((visibility("default")))

enum circular_code {
    CIRCULAR_INVALID = -1,     /* malformed argument */
    CIRCULAR_NOT_FOUND = -2,   /* no such archive, name or version */
    CIRCULAR_CORRUPT = -3,     /* every source's bytes fail verification */
    CIRCULAR_UNAVAILABLE = -4, /* no source could be reached within the patience */
    CIRCULAR_UNTRUSTED = -5,   /* not signed by a trusted key */
    CIRCULAR_ROLLED_BACK = -6, /* the catalog is older than one seen before */
    CIRCULAR_EXPIRED = -7,     /* the catalog has expired */
    CIRCULAR_NO_SPACE = -10,
    CIRCULAR_UNSUPPORTED = -12,
    CIRCULAR_CANCELLED = -13,
    CIRCULAR_SYSTEM = -14,
};

/* What is fetched before it is read, of a disk that circular_open opens. */
enum circular_prefetch {
    CIRCULAR_PREFETCH_DEFAULT, /* as the program `circular` does when it is not told */
    CIRCULAR_PREFETCH_NONE,
    CIRCULAR_PREFETCH_PROFILE, /* what the publisher says that a boot reads */
    CIRCULAR_PREFETCH_ALL,     /* then the whole image, with what readers leave of the link */
};

struct circular_error {
    int code;
    char message[1000]; /* one line of English for a person: what failed, where, why */
};

/* Initialise with CIRCULAR_OPTIONS_INIT; zero and NULL mean the default. Strings are copied. */
struct circular_options {
    size_t size;                    /* sizeof(struct circular_options), for later additions */
    const char *cache_path;         /* folder of the cache; NULL: memory only */
    uint64_t cache_max_bytes;       /* 0: unbounded */
    const char *state_path;         /* folder that remembers serials, against rollback; NULL: not remembered */
    const char *const *keys;        /* trusted .pub files or bare base64 keys, NULL-terminated list */
    const char *key_folder;         /* every *.pub in it is trusted */
    const char *const *mirrors;     /* further URLs or folders of the same archive, NULL-terminated list */
    unsigned patience_ms;           /* how long a read waits for a source before it fails; 0: 60000 */
    size_t memory_bytes;            /* for verified blocks; 0: 16 MiB */
    const char *http_proxy;         /* URL; libcircular reads no environment variable */
    bool insecure;                  /* accept any signature or none */
    bool offline;                   /* use only what is cached */
    enum circular_prefetch prefetch;
};
#define CIRCULAR_OPTIONS_INIT {.size = sizeof(struct circular_options)}

struct circular_archive;
struct circular_disk;

/* One version in an archive's catalog. Strings belong to the archive. */
struct circular_version {
    const char *name;
    const char *version;
    const char *image_id;     /* 64 hex digits */
    uint64_t disk_size;       /* bytes */
    uint64_t data_size;       /* bytes that are not zero blocks */
    uint64_t stored_size;     /* bytes to download for all of it */
    int64_t published;        /* seconds since the epoch */
    bool newest;              /* the version that a bare name means */
};

/* Open the archive at URL (http, https, file, or a folder) and verify its catalog. */
CIRCULAR_API int circular_archive_open(const char *url, const struct circular_options *options,
                                       struct circular_archive **archive_out, struct circular_error *error);
CIRCULAR_API void circular_archive_close(struct circular_archive *archive);
CIRCULAR_API size_t circular_archive_count(const struct circular_archive *archive);
/* False if INDEX is not below the count. */
CIRCULAR_API bool circular_archive_version(const struct circular_archive *archive, size_t index,
                                           struct circular_version *version_out);

/* Open a disk of an open archive; VERSION NULL: the newest. Close it before the archive. */
CIRCULAR_API int circular_archive_disk(struct circular_archive *archive, const char *name, const char *version,
                                       struct circular_disk **disk_out, struct circular_error *error);

/* Open "URL/NAME[@VERSION]" in one step. */
CIRCULAR_API int circular_open(const char *url, const struct circular_options *options,
                               struct circular_disk **disk_out, struct circular_error *error);
CIRCULAR_API void circular_close(struct circular_disk *disk);

CIRCULAR_API uint64_t circular_size(const struct circular_disk *disk); /* bytes */
CIRCULAR_API void circular_describe(const struct circular_disk *disk, struct circular_version *version_out);

/*
 * Read up to SIZE bytes at OFFSET: returns the bytes read, less than SIZE only at the end of the disk, or a negative
 * code.
 */
CIRCULAR_API ssize_t circular_pread(struct circular_disk *disk, void *bytes, size_t size, uint64_t offset,
                                    struct circular_error *error);

/*
 * The same without waiting. BYTES must live until DONE, which is called exactly once, on any thread, perhaps before
 * this function returns; RESULT is as circular_pread's, ERROR is NULL on success and borrowed.
 */
CIRCULAR_API void circular_pread_async(struct circular_disk *disk, void *bytes, size_t size, uint64_t offset,
                                       void (*done)(void *user, ssize_t result, const struct circular_error *error),
                                       void *user);

/*
 * The first offset at or after OFFSET that is not (with DATA) or is (without) in a block of zeros, as lseek's
 * SEEK_DATA and SEEK_HOLE; the disk's size if there is none. Negative code on failure.
 */
CIRCULAR_API int64_t circular_seek(struct circular_disk *disk, uint64_t offset, bool data,
                                   struct circular_error *error);

struct circular_statistics {
    size_t size; /* set by the caller to sizeof(struct circular_statistics) */
    uint64_t memory_hits, cache_hits, fetched_blocks, fetched_bytes, requests, cache_corrupt, failed;
    /* Hits and misses count the blocks that readers asked for; a miss is one that had to be waited for. */
    uint64_t misses, wait_us; /* and how long all of them together */
    uint64_t reads, read_bytes;
    uint64_t held_bytes;      /* of memory, by verified blocks */
};
CIRCULAR_API void circular_disk_statistics(struct circular_disk *disk, struct circular_statistics *statistics);
CIRCULAR_API void circular_archive_statistics(struct circular_archive *archive, struct circular_statistics *statistics);

#ifdef __cplusplus
}
#endif
#endif
