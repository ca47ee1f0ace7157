/*
 * The packs of an image from the reader's side: which blocks lie where in them.
 * Their tables are few bytes a block and are kept in the cache. All of it comes
 * from hints and is not trusted: a table is what its digest, the pack's name,
 * says, and every block is verified by the store.
 */
#ifndef IMAGE_PACKS_H
#define IMAGE_PACKS_H

#include "format/hints.h"
#include "format/pack.h"
#include "store/store.h"

struct packs;

/* A pack whose table is known. */
struct pack {
    char path[ARCHIVE_PATH_MAX];
    struct pack_table table;
};

/* Part of a pack that one request brings: entries FIRST to LIMIT - 1, not all of which need be wanted. */
struct pack_run {
    uint32_t first, limit;
};

/*
 * Ask for the hints of NAME@VERSION and then, if they are of IMAGE, for the tables of its packs, all at once; at most
 * so many bytes of them as an image with DATA_SIZE bytes can have use for, and PACKS_TABLES_MAX. Returns at once.
 * Nothing here is an error: what is not known is done without. NULL: there is no network, or no memory.
 */
#define PACKS_TABLES_MAX (64 * MIB)
struct packs *packs_begin(struct store *store, const char *name, const char *version, const struct digest *image,
                          uint64_t data_size);

/* The same for who knows the HINTS (borrowed for the call); at most TABLES_MAX bytes of tables. */
struct packs *packs_begin_hinted(struct store *store, const struct hints *hints, const struct digest *image,
                                 uint64_t data_size, uint64_t tables_max);

/* Wait for all of that. Returns how many packs there are that can be used; they live until packs_end. */
size_t packs_wait(struct packs *packs, const struct pack **packs_out);

/* Wait for what is under way and free. Takes NULL. */
void packs_end(struct packs *packs);

/*
 * Divide what is wanted of TABLE into runs, in their order. Small gaps are bridged: less than a fifth of what is
 * fetched is not wanted, but for PACK_GAP bytes. Returns how many, and the array (heap) in RUNS_OUT; 0 also if there
 * is no memory.
 */
#define PACK_GAP (64 * KIB)
size_t pack_plan(const struct pack_table *table, const bool *wanted, struct pack_run **runs_out);

/* The table of the pack NAME out of the cache (NULL: none). False: it is not there. */
bool pack_table_kept(struct cache *cache, const struct digest *name, uint64_t table_size, struct pack_table *table_out);

#endif
