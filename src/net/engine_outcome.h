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

#endif
