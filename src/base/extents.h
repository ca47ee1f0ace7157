/*
 * Extents: where the bytes of a volume lie on a disk. A volume is a row of
 * runs, each of which lies in one place, or in turns over several (stripes).
 */
#ifndef BASE_EXTENTS_H
#define BASE_EXTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct extent_run {
    uint64_t start; /* on the volume */
    uint64_t size;
    uint64_t turn;  /* bytes in one place before the next one's turn */
    size_t place_count;
    size_t first_place;
};

/* Zero-initialised is an empty volume; extents_finish releases. */
struct extents {
    struct extent_run *runs; /* by start, without gaps */
    size_t run_count, run_capacity;
    uint64_t *places; /* offsets on the disk */
    size_t place_count, place_capacity;
    uint64_t size; /* of the volume, bytes */
};

/*
 * Append SIZE bytes in turns of TURN over PLACE_COUNT places, which SIZE / PLACE_COUNT bytes at each must fill: SIZE is
 * a multiple of both together, and no place ends behind 2^64. What goes on where the last run ends becomes part of it.
 * False: it is not so, or there is no memory.
 */
bool extents_append(struct extents *extents, uint64_t size, uint64_t turn, const uint64_t *places, size_t place_count);

/* Where byte OFFSET, which exists, lies, and how many bytes from there on lie together. */
uint64_t extents_find(const struct extents *extents, uint64_t offset, uint64_t *length_out);

/* All of it lies in one piece, at *OFFSET_OUT. */
bool extents_are_one(const struct extents *extents, uint64_t *offset_out);

void extents_finish(struct extents *extents);

#endif
