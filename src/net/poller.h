/* Waiting for sockets, a time, or another thread: epoll with an eventfd. */
#ifndef NET_POLLER_H
#define NET_POLLER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/error.h"

struct poller {
    int epoll_fd;
    int wake_fd;
};

#define POLLER_INIT ((struct poller){-1, -1})

int poller_open(struct poller *poller, struct error *error);
void poller_close(struct poller *poller); /* takes one that is not open */

/* Wait for FD to become readable (READS) or writable (WRITES); KNOWN: it was added before. */
void poller_watch(struct poller *poller, int fd, bool reads, bool writes, bool known);
void poller_forget(struct poller *poller, int fd);

/* Up to POLLER_EVENTS into EVENTS; a timeout below 0 is without end. Wake-ups are not among them. */
#define POLLER_EVENTS 64
int poller_wait(struct poller *poller, int timeout_ms, struct epoll_event events[POLLER_EVENTS]);

/* End a poller_wait, or the next one. From any thread. */
void poller_wake(struct poller *poller);

#endif
