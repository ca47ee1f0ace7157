/* Waiting: see poller.h. */
#include "net/poller.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int poller_open(struct poller *poller, struct error *error)
{
    struct epoll_event event = {.events = EPOLLIN};

    poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    poller->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    event.data.fd = poller->wake_fd;
    if (poller->epoll_fd < 0 || poller->wake_fd < 0 ||
        epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, poller->wake_fd, &event))
        return error_set_errno(error, errno, "cannot set up waiting for the network");
    return 0;
}

void poller_close(struct poller *poller)
{
    if (poller->epoll_fd >= 0)
        close(poller->epoll_fd);
    if (poller->wake_fd >= 0)
        close(poller->wake_fd);
    *poller = POLLER_INIT;
}

void poller_watch(struct poller *poller, int fd, bool reads, bool writes, bool known)
{
    struct epoll_event event = {.events = (reads ? EPOLLIN : 0u) | (writes ? EPOLLOUT : 0u), .data.fd = fd};

    epoll_ctl(poller->epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
}

void poller_forget(struct poller *poller, int fd)
{
    epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

int poller_wait(struct poller *poller, int timeout_ms, struct epoll_event events[POLLER_EVENTS])
{
    int count = epoll_wait(poller->epoll_fd, events, POLLER_EVENTS, timeout_ms);
    eventfd_t ignored;

    for (int i = 0; i < count; i++) {
        if (events[i].data.fd != poller->wake_fd)
            continue;
        eventfd_read(poller->wake_fd, &ignored);
        events[i] = events[--count];
        break;
    }
    return count;
}

void poller_wake(struct poller *poller)
{
    eventfd_write(poller->wake_fd, 1);
}
