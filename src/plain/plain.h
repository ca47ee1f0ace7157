/*
 * A plain file: an ISO or a raw disk by URL (or by path), which nobody has
 * signed. Its bytes are fetched by range when they are read, and kept. This is
 * apart from src/store, out of which only verified bytes come: what comes from
 * here is what the server said, unless plain_check was told a digest.
 *
 * What holds without a digest too: all bytes are of one file. It is bound by
 * its size, ETag and date when it is opened; what comes later and differs in
 * one of them is refused.
 */
#ifndef PLAIN_PLAIN_H
#define PLAIN_PLAIN_H

#include <sys/types.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/progress.h"
#include "format/statistics.h"
#include "net/http.h"

#define PLAIN_REASON_SIZE 160

struct plain;
struct workers;

struct plain_settings {
    struct http_client *http; /* NULL: only what is kept. Borrowed, as all here */
    struct workers *workers;
    int cache_fd;             /* folder of the cache; -1: nothing is kept */
    uint64_t max_bytes;       /* what plain files may take in it; 0: unbounded */
    unsigned patience_ms;     /* how long a read waits for the server */
    const struct progress *progress; /* for a file that must be fetched whole before it can be read */
};

/*
 * LOCATION is an http(s) or file URL, or a path. A server that does not know ranges: the whole is fetched here. A
 * server that cannot be reached: what is kept of the file, if anything is. NOT_FOUND, UNAVAILABLE, INVALID,
 * UNSUPPORTED (no ranges and nowhere to keep the whole).
 */
int plain_open(const char *location, const struct plain_settings *settings, struct plain **plain_out,
               struct error *error);

/* Every read that waits, and every later one, ends with ERROR_CANCELLED. */
void plain_cancel(struct plain *plain);
/* No read may be made any more; waits for those under way. Takes NULL. */
void plain_close(struct plain *plain);

/*
 * Read the whole once; from then on every read gives bytes of a file with the digest WANTED, or fails. CORRUPT: its
 * digest is another one. Nothing may be read at the same time.
 */
int plain_check(struct plain *plain, const struct digest *wanted, const struct progress *progress,
                struct error *error);

/*
 * UNSUPPORTED if it is no raw disk but one of another program's, by its first bytes; UNAVAILABLE: a web page came in its
 * place. *ISO_OUT: it is an ISO 9660.
 */
int plain_recognise(struct plain *plain, bool *iso_out, struct error *error);

uint64_t plain_size(const struct plain *plain);
/* Two that are the same file as it is now, by what is told of it without reading it, have the same. */
void plain_identify(const struct plain *plain, struct digest *identity_out);
const char *plain_name(const struct plain *plain);     /* a file name */
const char *plain_shown(const struct plain *plain);    /* the location without password and query */
int64_t plain_modified(const struct plain *plain);     /* seconds since the epoch; 0: not known */
/* The path of a local file whose bytes may be read without us: it was not checked. NULL: not so. */
const char *plain_path(const struct plain *plain);

/* Read SIZE bytes at OFFSET, fewer only at the end. DONE is called once, on any thread, perhaps before this returns. */
void plain_read_async(struct plain *plain, void *bytes, size_t size, uint64_t offset,
                      void (*done)(void *user, ssize_t result, const struct error *error), void *user);
ssize_t plain_read(struct plain *plain, void *bytes, size_t size, uint64_t offset, struct error *error);

struct plain_statistics {
    uint64_t memory_hits, kept_hits, fetched, fetched_bytes, damaged, failed; /* slices, but for the bytes */
    uint64_t reads, read_bytes;
    uint64_t misses; /* slices that a reader waited for; the sum of WAITS */
    uint64_t wait_us, waits[STATISTICS_BUCKETS]; /* see format/statistics.h */
    uint64_t held_bytes;                         /* of memory, by slices */
    uint64_t errors;                             /* questions to the server without a good answer */
    bool answers;                                /* the last one had one; */
    char reason[PLAIN_REASON_SIZE];              /* else why not */
};
void plain_count(struct plain *plain, struct plain_statistics *statistics_out);

/* A slice for which readers wait. */
struct plain_wait {
    uint64_t offset, size;
    unsigned readers;
    uint64_t age_us; /* of the longest wait */
};
/* VISIT each, in no order, under a lock: it copies what it needs and calls nothing of the plain file. */
void plain_each_waiting(struct plain *plain, void (*visit)(void *user, const struct plain_wait *wait), void *user);

#endif
