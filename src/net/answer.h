/*
 * What an HTTP response means for a request: is its header an answer, and which
 * of the body's bytes are those that were asked for? No I/O.
 */
#ifndef NET_ANSWER_H
#define NET_ANSWER_H

#include "base/bytes.h"
#include "net/http.h"

/* The header, as far as it matters. */
struct answer_header {
    long status;
    const char *content_range; /* NULL: absent */
    int64_t content_length;    /* -1: not declared */
};

#define ANSWER_UNKNOWN UINT64_MAX

/* One response as it comes in. Zero-initialised is empty; buffer_finish(&answer.bytes) releases. */
struct answer {
    uint64_t skip; /* so many bytes of the body are dropped, */
    uint64_t take; /* then at most so many are kept; ANSWER_UNKNOWN: all */
    uint64_t body; /* length of the whole body as declared, or ANSWER_UNKNOWN */
    bool exact;    /* a body of another length than that is corrupt */
    bool complete; /* all that is wanted is there */
    uint64_t seen; /* bytes of the body so far */
    uint64_t kept; /* of these, after cutting */
    struct buffer bytes; /* they, unless the request has a data callback */
};

#define REASON_SIZE 192 /* characters at the REASON of these functions */

/* The range of REQUEST for the Range header ("5-14", "5-") in TEXT, or NULL if everything is wanted. */
#define RANGE_TEXT 48
const char *answer_range_text(const struct http_request *request, char text[RANGE_TEXT]);

/* Forget the last response, but not the memory. */
void answer_begin(struct answer *answer);

/*
 * Judge HEADER as the answer to REQUEST. Returns 0, or an error code as in http_response.code and the reason
 * ("HTTP status 503"). Source: RFC 9110, sections 14 and 15.
 */
int answer_judge(struct answer *answer, const struct http_request *request, const struct answer_header *header,
                 char *reason);

/* The next SIZE bytes of the body. Returns 0, an error code, or ANSWER_ENOUGH: better break off than read the rest. */
int answer_take(struct answer *answer, const struct http_request *request, const uint8_t *bytes, size_t size,
                char *reason);
#define ANSWER_ENOUGH 1

/* The size of the object that HEADER answers for, or ANSWER_UNKNOWN. */
uint64_t answer_object_size(const struct answer_header *header);

/* The connection ended before the body did: ERROR_CORRUPT. */
int answer_cut_short(const struct answer *answer, char *reason);

/* The body has ended: 0, or ERROR_CORRUPT if it should not have. */
int answer_end(const struct answer *answer, char *reason);

#endif
