/*
 * The parts of a tree (tree.h), for its own files: the memory of verified
 * pages (tree_pages.c), the head of the map (tree_head.c), fetching of missing
 * pages (tree_fetch.c), and what a caller sees (tree.c).
 */
#ifndef IMAGE_TREE_INTERNAL_H
#define IMAGE_TREE_INTERNAL_H

#include <pthread.h>

#include "format/name.h"
#include "image/tree.h"

/* Pages that are fetched in one request: 32, so that all of them have one parent. */
#define GROUP_PAGES 32

/* Presence bits above this are refused: 64 MiB of them are for a disk of 4 PiB in blocks of 64 KiB. */
#define PRESENCE_MAX (64 * MIB)

/* Verified pages by number; the one that was used the longest time ago goes first. */
struct page;
struct page_memory {
    struct page **buckets;
    size_t bucket_count; /* a power of two */
    size_t count, limit;
    struct page *newest, *oldest;
};

int page_memory_init(struct page_memory *memory, size_t bytes, struct error *error);
void page_memory_finish(struct page_memory *memory);
/* NULL: not there. Valid until the next page_memory_keep. */
const uint8_t *page_memory_find(struct page_memory *memory, uint64_t number);
/* Copies BYTES. Does nothing if the page is there already, or if there is no memory. */
void page_memory_keep(struct page_memory *memory, uint64_t number, const uint8_t bytes[MAP_PAGE_SIZE]);

struct lookup;
struct group;

struct tree {
    struct store *store;
    struct digest image_id;
    char path[ARCHIVE_PATH_MAX];
    struct map map;

    pthread_mutex_t lock; /* everything below; nothing else is locked under it */
    struct page_memory pages;
    struct map_presence *presence;
    struct digest presence_digest; /* tells one set of presence bits from another */
    bool presence_sure;            /* all of them were checked against verified pages */
    struct group *groups;          /* being fetched */
};

/* Level and, within it, index of a page. */
unsigned tree_level_of(const struct map *map, uint64_t page);

/* tree_head.c: get header and presence bits from the cache or else from the mirrors. */
int tree_head_open(struct tree *tree, struct error *error);

/*
 * Check header and presence bits at the start of BYTES. On success PRESENCE_OUT is the caller's; it is NULL if SIZE
 * ends before the bits do.
 */
int tree_head_parse(const struct tree *tree, const uint8_t *bytes, size_t size, struct map *map_out,
                    struct map_presence **presence_out, struct error *error);
/* The digest of the presence bits of a head that was parsed. */
void tree_presence_digest(const struct map *map, const uint8_t *bytes, struct digest *digest_out);

/*
 * tree_fetch.c. With the lock held: wait, if the group of PAGE is being fetched, until it is there.
 * False: it is not being fetched.
 */
bool tree_fetch_join(struct tree *tree, uint64_t page, struct lookup *lookup);
/*
 * With the lock held, which is released meanwhile: begin to fetch the group of PAGE and let LOOKUP wait for it.
 * tree_lookup_resume is then called, perhaps before this returns. False, and nothing has happened: the page's parent
 * is not in memory any more.
 */
bool tree_fetch_begin(struct tree *tree, uint64_t page, enum priority priority, struct lookup *lookup);

/* A question for entries FIRST... of a level: digests of the next level's pages, on the last level of blocks. */
struct lookup {
    struct tree *tree;
    unsigned level;
    uint64_t next, end;
    struct digest *digests_out; /* where NEXT goes */
    enum priority priority;
    void (*done)(void *user, int code, const struct error *error);
    void *user;

    unsigned round_count; /* pages waited for since the last progress */
    bool running;         /* a thread is in tree_lookup_resume */
    bool again;           /* its group ended while that thread was there, which goes on for it */
    struct lookup *next_waiter;
    struct error error;
};

/* tree.c: go on with a lookup that has waited. */
void tree_lookup_resume(struct lookup *lookup);

#endif
