/* What an answer's header says of the object as a whole, for who asked for it (struct http_facts). */
#ifndef NET_ENGINE_FACTS_H
#define NET_ENGINE_FACTS_H

#include <curl/curl.h>

#include "net/answer.h"

/* A number that curl knows of its last transfer; 0: none. */
static inline long engine_number(CURL *easy, CURLINFO info)
{
    long value = 0;

    curl_easy_getinfo(easy, info, &value);
    return value;
}

/* Fill in REQUEST's facts. */
void engine_note_facts(CURL *easy, const struct http_request *request, const struct answer_header *header);

#endif
