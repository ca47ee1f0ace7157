/*
 * Hints: where a version's blocks can also be found, and in which order a boot
 * wants them. images/NAME/VERSION.hints.json, unsigned, may change at any time.
 * circular-hints(5). A wrong hint costs time, never correctness.
 *
 *   { "format": "circular-hints-1",
 *     "mirrors": [ "http://mirror.example/os" ],
 *     "packs": [ { "pack": "<digest of the pack's table>", "kind": "boot" | "rest",
 *                  "size": 19293184, "table_size": 44672 } ],
 *     "profile": "<digest of a profile in files/>" }
 *
 * All members but "format" are optional.
 */
#ifndef FORMAT_HINTS_H
#define FORMAT_HINTS_H

#include "base/error.h"
#include "base/hash.h"

#define HINTS_SIZE_MAX (1024 * 1024)
#define HINTS_MIRRORS_MAX 64
#define HINTS_PACKS_MAX 1024

struct hints_pack {
    struct digest table;
    bool boot;
    uint64_t size;
    uint64_t table_size;
};

struct hints {
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
