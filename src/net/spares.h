/*
 * Spare connections: opened before anybody needs them, so that requests which
 * are known to follow soon need not wait for the handshake. For one thread.
 */
#ifndef NET_SPARES_H
#define NET_SPARES_H

#include <stdint.h>
#include <sys/socket.h>

#define SPARES_MAX 16

struct spare {
    int fd;
    uint64_t opened_ms;
    socklen_t length;
    struct sockaddr_storage address;
};

struct spares {
    unsigned count;
    struct spare items[SPARES_MAX];
};

/* Begin up to COUNT connections to ADDRESS. What cannot be opened is not missed. */
void spares_open(struct spares *spares, const struct sockaddr *address, socklen_t length, unsigned count,
                 uint64_t now_ms);

/* One that is connected to ADDRESS, from now on the caller's, or -1. */
int spares_take(struct spares *spares, const struct sockaddr *address, socklen_t length);

/* Close those that nobody has taken in time. Returns when to look again, UINT64_MAX if there are none left. */
uint64_t spares_expire(struct spares *spares, uint64_t now_ms);

/* Close all. */
void spares_finish(struct spares *spares);

#endif
