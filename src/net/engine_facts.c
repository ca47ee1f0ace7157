/* Facts of an answer: see engine_facts.h. */
#include "net/engine_facts.h"

#include <stdio.h>

static void copy_header(CURL *easy, const char *name, char *text, size_t size)
{
    struct curl_header *header;

    text[0] = '\0';
    if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &header) == CURLHE_OK && strlen(header->value) < size)
        strcpy(text, header->value);
}

void engine_note_facts(CURL *easy, const struct http_request *request, const struct answer_header *header)
{
    struct http_facts *facts = request->facts;
    char *url = NULL;

    facts->object_size = answer_object_size(header);
    facts->ignores_ranges = header->status == 200 && (request->offset || request->length);
    copy_header(easy, "ETag", facts->etag, sizeof(facts->etag));
    copy_header(easy, "Last-Modified", facts->last_modified, sizeof(facts->last_modified));
    if (engine_number(easy, CURLINFO_REDIRECT_COUNT))
        curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
    snprintf(facts->url, sizeof(facts->url), "%s", url && strlen(url) < sizeof(facts->url) ? url : "");
}
