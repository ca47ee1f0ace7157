/* Spare connections: see spares.h. */
#include "net/spares.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

/* A server closes a connection on which nothing is said after some time; five seconds are short for that. */
#define UNUSED_MS 5000

void spares_open(struct spares *spares, const struct sockaddr *address, socklen_t length, unsigned count,
                 uint64_t now_ms)
{
    for (; count > 0 && spares->count < SPARES_MAX && length <= sizeof(spares->items[0].address); count--) {
        struct spare *spare = &spares->items[spares->count];
        int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);

        if (fd < 0)
            return;
        if (connect(fd, address, length) && errno != EINPROGRESS) {
            close(fd);
            return;
        }
        *spare = (struct spare){.fd = fd, .opened_ms = now_ms, .length = length};
        memcpy(&spare->address, address, length);
        spares->count++;
    }
}

/* Connected, and neither closed by the other side nor spoken on. */
static bool is_usable(int fd)
{
    struct pollfd state = {.fd = fd, .events = POLLIN | POLLOUT};

    return poll(&state, 1, 0) == 1 && state.revents == POLLOUT;
}

int spares_take(struct spares *spares, const struct sockaddr *address, socklen_t length)
{
    for (unsigned i = 0; i < spares->count; i++) {
        struct spare *spare = &spares->items[i];
        int fd = spare->fd;

        if (spare->length != length || memcmp(&spare->address, address, length) || !is_usable(fd))
            continue;
        *spare = spares->items[--spares->count];
        return fd;
    }
    return -1;
}

uint64_t spares_expire(struct spares *spares, uint64_t now_ms)
{
    uint64_t next_ms = UINT64_MAX;

    for (unsigned i = 0; i < spares->count;) {
        struct spare *spare = &spares->items[i];

        if (now_ms >= spare->opened_ms + UNUSED_MS) {
            close(spare->fd);
            *spare = spares->items[--spares->count];
        } else {
            next_ms = min_u64(next_ms, spare->opened_ms + UNUSED_MS);
            i++;
        }
    }
    return next_ms;
}

void spares_finish(struct spares *spares)
{
    while (spares->count)
        close(spares->items[--spares->count].fd);
}
