/*
 * HTTP responses and URLs. Whatever a server says in its header and sends as a body: no more bytes are kept than were
 * asked for and are allowed, a failure has a reason, and no credentials are shown.
 *
 * Input: a struct of numbers, Content-Range (to the first newline), body.
 */
#include "fuzz.h"

#include <stdio.h>

#include "net/answer.h"
#include "net/url.h"

struct input {
    uint16_t status;
    uint16_t offset;
    uint16_t length;
    uint16_t size_limit;
    int16_t content_length;
    uint16_t piece;
};

static void check_urls(const char *text)
{
    char host[URL_HOST_SIZE], *out = malloc(3 * strlen(text) + 1), *back = malloc(3 * strlen(text) + 1);
    char url[5000], shown[5000];

    if (url_host(text, host, sizeof(host)))
        must(strlen(host) > strlen("http://") && !strchr(host, '@'));
    url_redact(text, shown, sizeof(shown));
    url_encode_path(text, out);
    must(url_decode(out, back) && !strcmp(back, text));
    if (strlen(out) < 4000) {
        snprintf(url, sizeof(url), "https://user:Secret!@host/%s?Secret!", out);
        must(!strstr(url_redact(url, shown, sizeof(shown)), "Secret!"));
    }
    free(out);
    free(back);
}

static void take_body(struct answer *answer, const struct http_request *request, const uint8_t *body, size_t size,
                      size_t piece)
{
    char reason[REASON_SIZE] = "";
    int result = 0;

    for (size_t at = 0; at < size && !result; at += piece)
        result = answer_take(answer, request, body + at, min_u64(piece, size - at), reason);
    must(!request->size_limit || answer->bytes.size <= request->size_limit);
    must(!request->length || answer->bytes.size <= request->length);
    if (result == 0)
        result = answer_end(answer, reason);
    must(result >= 0 || *reason);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct answer answer = {0};
    char reason[REASON_SIZE] = "";
    struct input input;
    const uint8_t *body;
    char *range;
    size_t length;
    int result;

    if (size < sizeof(input) || size > 4096)
        return 0;
    memcpy(&input, bytes, sizeof(input));
    bytes += sizeof(input);
    size -= sizeof(input);
    body = memchr(bytes, '\n', size);
    length = body ? (size_t)(body - bytes) : size;
    range = strndup((const char *)bytes, length);
    check_urls(range);

    answer_begin(&answer);
    result = answer_judge(&answer,
                          &(struct http_request){.offset = input.offset, .length = input.length},
                          &(struct answer_header){input.status, *range ? range : NULL, input.content_length}, reason);
    must(result <= 0 && (result == 0 || *reason));
    if (result == 0 && body)
        take_body(&answer,
                  &(struct http_request){.offset = input.offset, .length = input.length,
                                         .size_limit = input.size_limit},
                  body + 1, size - length - 1, input.piece % 1000 + 1);
    buffer_finish(&answer.bytes);
    free(range);
    return 0;
}
