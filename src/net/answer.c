/* Responses: judging status, ranges and declared lengths; cutting the body. */
#include "net/answer.h"

#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

enum {
    DRAIN_BYTES = 64 * 1024,     /* an unwanted rest up to this is read, so that the connection can be kept */
    RESERVE_BYTES = 1024 * 1024, /* trust a declared length so far before the bytes arrive */
};

struct content_range {
    bool satisfied; /* false: "bytes * /TOTAL" */
    uint64_t first;
    uint64_t last;
    uint64_t total; /* ANSWER_UNKNOWN: "*" */
};

/* Decimal digits at *TEXT, which is moved behind them. */
static bool parse_number(const char **text, uint64_t *value_out)
{
    const char *start = *text;
    uint64_t value = 0;

    for (; **text >= '0' && **text <= '9'; (*text)++)
        if (!checked_mul(value, 10, &value) || !checked_add(value, (uint64_t)(**text - '0'), &value))
            return false;
    *value_out = value;
    return *text != start;
}

static bool parse_content_range(const char *text, struct content_range *range_out)
{
    *range_out = (struct content_range){.total = ANSWER_UNKNOWN};
    if (strncasecmp(text, "bytes ", 6))
        return false;
    text += 6;
    if (*text == '*') {
        text++;
    } else {
        range_out->satisfied = true;
        if (!parse_number(&text, &range_out->first) || *text++ != '-' || !parse_number(&text, &range_out->last))
            return false;
        if (range_out->first > range_out->last || range_out->last == UINT64_MAX)
            return false;
    }
    if (*text++ != '/')
        return false;
    if (*text == '*')
        return text[1] == '\0';
    return parse_number(&text, &range_out->total) && *text == '\0' &&
           (!range_out->satisfied || range_out->last < range_out->total);
}

static int check_limit(const struct http_request *request, const struct answer *answer, char *reason)
{
    uint64_t kept;

    if (request->size_limit == 0 || answer->body == ANSWER_UNKNOWN)
        return 0;
    kept = min_u64(answer->body > answer->skip ? answer->body - answer->skip : 0, answer->take);
    if (kept <= request->size_limit)
        return 0;
    snprintf(reason, REASON_SIZE, "%" PRIu64 " bytes, more than the %zu expected at most", kept,
             request->size_limit);
    return ERROR_CORRUPT;
}

static int judge_whole(const struct http_request *request, const struct answer_header *header,
                       struct answer *answer, char *reason)
{
    answer->skip = request->offset;
    answer->take = request->length ? request->length : ANSWER_UNKNOWN;
    if (header->content_length >= 0)
        answer->body = (uint64_t)header->content_length;
    return check_limit(request, answer, reason);
}

/* Does RANGE hold what was asked for: from the offset, to the wanted end or that of the object? */
static bool range_fits(const struct http_request *request, const struct content_range *range)
{
    uint64_t count = range->last - range->first + 1;

    if (!range->satisfied || range->first != request->offset)
        return false;
    if (request->length && count > request->length)
        return false;
    if (request->length && count == request->length)
        return true;
    return range->total == ANSWER_UNKNOWN || range->last == range->total - 1;
}

static int judge_partial(const struct http_request *request, const struct answer_header *header,
                         struct answer *answer, char *reason)
{
    struct content_range range;

    if (!header->content_range || !parse_content_range(header->content_range, &range)) {
        snprintf(reason, REASON_SIZE, "HTTP status 206 without a valid Content-Range");
        return ERROR_CORRUPT;
    }
    if (!range_fits(request, &range)) {
        snprintf(reason, REASON_SIZE, "asked for %" PRIu64 " bytes at %" PRIu64 " but got \"%.60s\"",
                 request->length, request->offset, header->content_range);
        return ERROR_CORRUPT;
    }
    answer->body = range.last - range.first + 1;
    answer->exact = true;
    if (header->content_length >= 0 && (uint64_t)header->content_length != answer->body) {
        snprintf(reason, REASON_SIZE, "declares %" PRId64 " bytes for the range \"%.60s\"", header->content_length,
                 header->content_range);
        return ERROR_CORRUPT;
    }
    return check_limit(request, answer, reason);
}

/* 416: nothing at or behind the offset, unless the server contradicts itself. */
static int judge_unsatisfied(const struct http_request *request, const struct answer_header *header,
                             struct answer *answer, char *reason)
{
    struct content_range range;

    answer->take = 0;
    if (header->content_range && parse_content_range(header->content_range, &range) &&
        range.total != ANSWER_UNKNOWN && range.total > request->offset) {
        snprintf(reason, REASON_SIZE, "HTTP status 416 for offset %" PRIu64 " of %" PRIu64 " bytes", request->offset,
                 range.total);
        return ERROR_CORRUPT;
    }
    return 0;
}

const char *answer_range_text(const struct http_request *request, char text[RANGE_TEXT])
{
    if (request->length)
        snprintf(text, RANGE_TEXT, "%" PRIu64 "-%" PRIu64, request->offset, request->offset + request->length - 1);
    else if (request->offset)
        snprintf(text, RANGE_TEXT, "%" PRIu64 "-", request->offset);
    else
        return NULL;
    return text;
}

void answer_begin(struct answer *answer)
{
    struct buffer bytes = answer->bytes;

    bytes.size = 0;
    *answer = (struct answer){.take = ANSWER_UNKNOWN, .body = ANSWER_UNKNOWN, .bytes = bytes};
}

int answer_judge(struct answer *answer, const struct http_request *request, const struct answer_header *header,
                 char *reason)
{
    bool ranged = request->offset || request->length;
    long status = header->status;

    if (status == 200 && ranged && request->range_only) {
        snprintf(reason, REASON_SIZE, "the server ignores ranges");
        return ERROR_UNSUPPORTED;
    }
    if (status == 200)
        return judge_whole(request, header, answer, reason);
    if (status == 206 && ranged)
        return judge_partial(request, header, answer, reason);
    if (status == 416 && ranged)
        return judge_unsatisfied(request, header, answer, reason);
    snprintf(reason, REASON_SIZE, "HTTP status %ld", status);
    if (status == 206)
        return ERROR_CORRUPT;
    if (status == 404 || status == 410)
        return ERROR_NOT_FOUND;
    if (status >= 500 || status == 429 || status == 408 || status == 425)
        return ERROR_UNAVAILABLE;
    return ERROR_INVALID;
}

uint64_t answer_object_size(const struct answer_header *header)
{
    struct content_range range;

    if (header->content_range)
        return parse_content_range(header->content_range, &range) ? range.total : ANSWER_UNKNOWN;
    return header->status == 200 && header->content_length >= 0 ? (uint64_t)header->content_length : ANSWER_UNKNOWN;
}

/* Make room for what the header lets expect, so that it is allocated once. */
static bool reserve(struct answer *answer, size_t size)
{
    uint64_t expected = answer->body;

    if (expected == ANSWER_UNKNOWN)
        return true;
    expected -= min_u64(expected, answer->skip);
    expected = min_u64(min_u64(expected, answer->take), RESERVE_BYTES);
    return buffer_reserve(&answer->bytes, max_u64(expected, size));
}

/* Bytes that were asked for. */
static int keep(struct answer *answer, const struct http_request *request, const uint8_t *bytes, size_t size,
                char *reason)
{
    if (request->size_limit && answer->kept + size > request->size_limit) {
        snprintf(reason, REASON_SIZE, "more than the %zu bytes expected at most", request->size_limit);
        return ERROR_CORRUPT;
    }
    answer->kept += size;
    if (request->data) {
        snprintf(reason, REASON_SIZE, "broken off");
        return request->data(request->user, bytes, size) ? 0 : ERROR_CANCELLED;
    }
    if ((answer->bytes.size || reserve(answer, size)) && buffer_append(&answer->bytes, bytes, size))
        return 0;
    snprintf(reason, REASON_SIZE, "no memory for the answer");
    return ERROR_SYSTEM;
}

int answer_take(struct answer *answer, const struct http_request *request, const uint8_t *bytes, size_t size,
                char *reason)
{
    uint64_t skip = answer->skip > answer->seen ? min_u64(answer->skip - answer->seen, size) : 0;
    size_t wanted = (size_t)min_u64(size - skip, answer->take - answer->kept);

    answer->seen += size;
    if (answer->exact && answer->seen > answer->body) {
        snprintf(reason, REASON_SIZE, "more than the %" PRIu64 " bytes of its range", answer->body);
        return ERROR_CORRUPT;
    }
    if (wanted) {
        int result = keep(answer, request, bytes + skip, wanted, reason);

        if (result)
            return result;
    }
    answer->complete = answer->kept == answer->take;
    if (!answer->complete || answer->seen == answer->body)
        return 0;
    return answer->body == ANSWER_UNKNOWN || answer->body - answer->seen > DRAIN_BYTES ? ANSWER_ENOUGH : 0;
}

int answer_cut_short(const struct answer *answer, char *reason)
{
    if (answer->body == ANSWER_UNKNOWN)
        snprintf(reason, REASON_SIZE, "ended early, after %" PRIu64 " bytes", answer->seen);
    else
        snprintf(reason, REASON_SIZE, "ended after %" PRIu64 " of %" PRIu64 " bytes", answer->seen, answer->body);
    return ERROR_UNAVAILABLE;
}

int answer_end(const struct answer *answer, char *reason)
{
    return !answer->exact || answer->seen == answer->body ? 0 : answer_cut_short(answer, reason);
}
