/* Words for why a transfer failed, where libcurl's own are not precise. */
#ifndef NET_REASON_H
#define NET_REASON_H

/* "10 s", "250 ms". Returns TEXT. */
#define REASON_DURATION 24
const char *reason_duration(unsigned ms, char text[REASON_DURATION]);

/* What an errno of connect, send or recv means; NULL if it is none of those that happen. */
const char *reason_of_errno(int errno_value);

#endif
