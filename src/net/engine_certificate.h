/* Certificates: whose servers are believed, and who is shown the client's. */
#ifndef NET_ENGINE_CERTIFICATE_H
#define NET_ENGINE_CERTIFICATE_H

#include <curl/curl.h>

#include "net/http.h"
#include "net/queue.h"

/*
 * Those of SETTINGS for EASY. Only the hosts of ASKED (borrowed), which were asked themselves, are shown the client's:
 * curl would show it to any server, but one that only another's redirect led to is not to learn who asks.
 */
void engine_set_certificates(CURL *easy, const struct http_settings *settings, const struct queue *asked);

#endif
