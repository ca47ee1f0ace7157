/*
 * Hints on the publisher's side: boot packs and profiles of an archive folder.
 * All of it is unsigned and may be changed at any time: identity and signatures
 * stay untouched.
 */
#ifndef IMAGE_PACK_H
#define IMAGE_PACK_H

#include "base/progress.h"
#include "format/hints.h"
#include "format/name.h"
#include "format/profile.h"

struct pack_settings {
    const char *archive; /* folder */
    const char *name;
    const char *version; /* "" or NULL: the newest */
    const struct profile *profile; /* NULL: the one that the hints name */
    bool all;            /* also pack what the profile does not touch; without a profile that is everything */
    const struct progress *progress; /* may be NULL */
};

struct pack_result {
    char version[NAME_MAX_LENGTH + 1]; /* that it was */
    uint64_t boot_blocks, boot_bytes;
    uint64_t rest_blocks, rest_bytes;
};

/*
 * Write the boot pack of a version, and with ALL the packs of the rest, and name them in its hints in place of earlier
 * ones. The boot pack has PACK_STREAMS segments that each run through the boot from its beginning to its end (entry
 * n is in segment n modulo PACK_STREAMS), so that streams fetched side by side bring the blocks in boot order.
 * NOT_FOUND: no such version, or no profile and not ALL. INVALID: the profile is of another image. CORRUPT: a block is
 * damaged.
 */
#define PACK_STREAMS 5
int pack_write(const struct pack_settings *settings, struct pack_result *result_out, struct error *error);

/*
 * Attach PROFILE to a version: files/<digest>, named in its hints. A profile of another version's image is carried
 * over: each block to where its content lies now, or else to the same number.
 */
int profile_attach(const char *archive, const char *name, const char *version, const struct profile *profile,
                   struct error *error);

/* For publishing: carry the profile of the version that was newest until now over to VERSION. No profile: no error. */
struct catalog;
int profile_carry_over(int folder, const struct catalog *catalog, const char *name, const char *version,
                       struct error *error);

/* The hints of a version in an archive folder; empty ones if there are none or they are damaged. */
int hints_load(int folder, const char *name, const char *version, struct hints *hints_out, struct error *error);
/* Replace them, and images/NAME/_newest.hints.json too if NEWEST. */
int hints_save(int folder, const char *name, const char *version, bool newest, const struct hints *hints,
               struct error *error);

#endif
