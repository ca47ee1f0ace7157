/* Who is shown the client's certificate. */
#ifndef NET_ENGINE_CERTIFICATE_H
#define NET_ENGINE_CERTIFICATE_H

#include <curl/curl.h>

#include "net/queue.h"

/*
 * From now on only the hosts of ASKED (borrowed), which were asked themselves, are shown the certificate that EASY has:
 * curl would show it to any server, but one that only another's redirect led to is not to learn who asks.
 */
void engine_guard_certificate(CURL *easy, const struct queue *asked);

#endif
