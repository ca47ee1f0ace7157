/*
 * Verified blocks in memory: their buffers, used again and again so that resident memory does not creep up, and the
 * lists that hold some of them: one of those that were used, the least recently used of which give way, and one of
 * those that came ahead of their first use. For store.c only; block_release is in store.h.
 */
#ifndef STORE_MEMORY_H
#define STORE_MEMORY_H

#include "store/store.h"

struct memory;

/* LIMIT: bytes of the blocks that are held when nobody uses them. NULL: no memory. */
struct memory *memory_create(size_t limit);
/* Lets go of all; blocks that are still used elsewhere stay valid. Takes NULL. */
void memory_destroy(struct memory *memory);
size_t memory_limit(const struct memory *memory);
/* Bytes of the blocks that are held now. */
size_t memory_held(struct memory *memory);

/* A block to be filled through BYTES_OUT before anyone else sees it. LENGTH is 1 to BLOCK_SIZE_MAX. NULL: no memory. */
struct block *memory_make(struct memory *memory, const struct digest *digest, uint32_t length, uint8_t **bytes_out);
struct block *block_reference(struct block *block);

/* A reference, or NULL. This is a use of it. */
struct block *memory_find(struct memory *memory, const struct digest *digest);
/* Is it held? */
bool memory_has(struct memory *memory, const struct digest *digest);
/* Hold BLOCK. With AHEAD nobody has used it yet, and it is held only if there is room. */
void memory_keep(struct memory *memory, struct block *block, bool ahead);
/*
 * What comes ahead may take three times the limit together with all else, so that who reads what comes in one quick
 * stream finds it; until it is no longer so GENEROUS.
 */
void memory_set_generous(struct memory *memory, bool generous);

#endif
