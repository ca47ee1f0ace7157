/* What verify.c, verify_archive.c and verify_packs.c share. */
#ifndef IMAGE_VERIFY_INTERNAL_H
#define IMAGE_VERIFY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/digest_set.h"
#include "format/catalog.h"
#include "format/map.h"
#include "image/verify.h"

/* Count and tell one fault. One call at a time. */
void verify_fault(const struct verify_report *report, struct verify_result *result, const char *where,
                  const char *what);

/* ---- A folder that is verified (verify_archive.c) ---- */

struct entry {
    struct digest digest;
    uint64_t block;
    uint32_t length; /* 0: whatever the frame declares */
};

struct verification {
    const struct verify_report *report;
    struct verify_result *result;
    struct error *error;
    int folder;
    bool repair;
    struct digest_set *seen; /* blocks that have been checked; and packs and profiles, see is_new */

    const struct map *map; /* of the image whose blocks are gathered; NULL: none */
    const char *needed_by; /* its name and version */
    struct error blocks_fault; /* of the folder blocks itself, so that nothing in it is looked for; code 0: none */
    uint64_t unread;           /* blocks that would have been */
    struct entry *batch;
    size_t batch_size;
    atomic_size_t next; /* in the batch */

    pthread_mutex_t lock; /* a leaf; guards result, report and the rest */
    uint64_t done_bytes, total_bytes;
    uint64_t progress_at_ms;
    atomic_bool cancelled;
};

/* From any thread. */
void verification_tell(struct verification *verification, const char *where, const char *what, bool missing);
void verification_count(struct verification *verification, uint64_t files, uint64_t bytes);
void verification_progress(struct verification *verification, uint64_t bytes);
/* 0, or ERROR_CANCELLED. */
int verification_go_on(struct verification *verification);

/* ---- Hints, and what they name (verify_packs.c) ---- */

struct named_pack {
    struct digest table;
    uint64_t size, table_size; /* as the hints have them */
    const struct catalog_version *version; /* whose hints name it */
    bool newest;                           /* _newest.hints.json does */
};

struct named_packs {
    struct named_pack *items;
    size_t count, capacity;
};

/*
 * The packs that the hints of CATALOG's versions name, each once unless they contradict each other about it. Hints that
 * nobody can read and profiles are told of here. PACKS_OUT (heap) borrows from CATALOG.
 */
int verify_hints(struct verification *verification, const struct catalog *catalog, struct named_packs *packs_out);
/* Every frame of each of them. */
int verify_packs(struct verification *verification, const struct named_packs *packs);

/*
 * Is DIGEST that of the file PATH? ERROR_NOT_FOUND, CORRUPT, SYSTEM. SIZE_OUT: its bytes. It may be of any size, and is
 * not held in memory.
 */
int verify_file_digest(struct verification *verification, const char *path, const struct digest *digest,
                       uint64_t *size_out, struct error *error);

#endif
