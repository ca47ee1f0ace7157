/*
 * Checking one mirror of an archive by itself: does it answer, how soon and how
 * fast, how new is its catalog and who signed it, and are a sample of an image's
 * blocks there and right?
 */
#ifndef IMAGE_MIRROR_CHECK_H
#define IMAGE_MIRROR_CHECK_H

#include "format/hints.h"
#include "image/archive.h"

struct http_client;
struct mirror_check;

struct mirror_check_settings {
    struct http_client *client;  /* borrowed, as all here */
    struct workers *workers;
    struct trusted_keys trusted;
    bool insecure;               /* an unsigned catalog is no fault */
    unsigned patience_ms;        /* of the catalog, and of each block */
};

/* What is wrong with a mirror; the worst of them. */
enum mirror_verdict {
    MIRROR_FINE,
    MIRROR_UNREACHABLE_NOW, /* its catalog could not be fetched, or most blocks */
    MIRROR_INCOMPLETE,      /* it lacks blocks */
    MIRROR_EXPIRED,         /* its catalog is expired */
    MIRROR_BEHIND,          /* ... or older than another mirror's */
    MIRROR_UNSIGNED,        /* ... or not signed by a trusted key */
    MIRROR_WRONG,           /* it gave wrong bytes */
};

struct mirror_report {
    enum mirror_verdict verdict;
    struct error reason;    /* of the verdict; code 0: none */
    bool has_catalog;       /* the next four are known */
    bool is_signed;
    uint64_t serial;
    int64_t published, expires;
    uint64_t first_byte_us; /* 0: not measured */
    uint64_t rate;          /* bytes a second; 0: not measured */
    unsigned checked, right, missing, wrong, failed; /* blocks of the sample */
    char url[MIRROR_URL_TEXT];
};

/* LOCATION as in mirrors_add. Fetches the catalog; that this failed is in the report. */
int mirror_check_open(const struct mirror_check_settings *settings, const char *location,
                      struct mirror_check **check_out, struct error *error);
void mirror_check_close(struct mirror_check *check); /* takes NULL */

/* The mirror's catalog, or NULL. */
const struct catalog *mirror_check_catalog(const struct mirror_check *check);
/* The hints of a version; false: it has none. */
bool mirror_check_hints(struct mirror_check *check, const char *name, const char *version, struct hints *hints_out);

/* Compare its catalog with the newest serial that any mirror has. */
void mirror_check_freshness(struct mirror_check *check, uint64_t newest);
/*
 * Fetch and verify the map's head and SAMPLE random blocks (or fewer, if the image has fewer) of the image: some one
 * after the other, for the first byte, the rest at once, for the rate.
 */
void mirror_check_blocks(struct mirror_check *check, const struct digest *image_id, unsigned sample);

const struct mirror_report *mirror_check_report(const struct mirror_check *check);

#endif
