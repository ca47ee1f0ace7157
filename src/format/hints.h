/*
 * Hints: where a version's blocks can also be found, and in which order a boot
 * wants them. images/NAME/VERSION.hints.json, unsigned, may change at any time.
 * circular-hints(5). A wrong hint costs time, never correctness.
 *
 *   { "format": "circular-hints-1",
 *     "version": "20261121", "image": "<image id>",      of what these hints speak
 *     "mirrors": [ "http://mirror.example/os" ],
 *     "packs": [ { "pack": "<digest of the pack's table>", "kind": "boot" | "rest",
 *                  "size": 19293184, "table_size": 44672,
 *                  "segments": [ 3120044, 6241932 ] } ],
 *     "profile": "<digest of a profile in files/>" }
 *
 * All members but "format" are optional. "segments" are offsets at which further streams of the pack may begin, each at
 * the start of a frame, rising: fetching the parts between them at the same time brings the whole pack soonest.
 *
 * images/NAME/_newest.hints.json is a copy of the newest version's hints, so that a client can ask for it in the first
 * round trip, before it knows from the catalog which version that is.
 */
#ifndef FORMAT_HINTS_H
#define FORMAT_HINTS_H

#include "format/name.h"

#define HINTS_SIZE_MAX (1024 * 1024)
#define HINTS_MIRRORS_MAX 64
#define HINTS_PACKS_MAX 1024
#define HINTS_SEGMENTS_MAX 256

struct hints_pack {
    struct digest table;
    bool boot;
    uint64_t size;
    uint64_t table_size;
    uint64_t *segments;
    size_t segment_count;
};

struct hints {
    char version[NAME_MAX_LENGTH + 1]; /* "" if it does not say */
    struct digest image;               /* zero if it does not say */
    char **mirrors;
    size_t mirror_count;
    struct hints_pack *packs;
    size_t pack_count;
    struct digest profile; /* zero: none */
};

int hints_parse(const void *bytes, size_t size, struct hints *hints_out, struct error *error);
char *hints_format(const struct hints *hints);
void hints_finish(struct hints *hints);

#endif
