/* What it means that curl ended a transfer without an answer that could be judged. */
#ifndef NET_ENGINE_OUTCOME_H
#define NET_ENGINE_OUTCOME_H

#include <curl/curl.h>

#include "net/answer.h"

/*
 * The error code for RESULT, not 0, of EASY, with the reason in REASON. MESSAGE: curl's own words, "": none.
 * CONNECT_TIMEOUT_MS: that was set.
 */
int engine_outcome(CURL *easy, CURLcode result, const char *message, unsigned connect_timeout_ms,
                   char reason[REASON_SIZE]);

/* The server's Retry-After in milliseconds, at most an hour; 0: it said none. */
uint64_t engine_retry_after_ms(CURL *easy);

#endif
