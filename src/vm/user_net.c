/* A network by libslirp: see user_net.h. */
#include "vm/user_net.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/process.h"
#include "vm/qmp.h"

#define LIBRARY    "libslirp.so.0"
#define FRAME_MAX  65536
#define POLLED_MAX 1024
#define GUEST      0x0a00020f /* 10.0.2.15 */

/* What a guest says at the switch's socket, in the host's byte order (uml_switch of uml-utilities, version 3). */
#define PLUG_MAGIC   0xfeedface
#define PLUG_VERSION 3
struct plug {
    uint32_t magic, version, type; /* type 0: a new card */
    struct sockaddr_un address;    /* its socket */
};

struct library {
    Slirp *(*open)(const SlirpConfig *config, const SlirpCb *callbacks, void *user);
    void (*fill)(Slirp *slirp, uint32_t *timeout_ms, SlirpAddPollCb add, void *user);
    void (*poll)(Slirp *slirp, int failed, SlirpGetREventsCb get, void *user);
    void (*input)(Slirp *slirp, const uint8_t *frame, int size);
    int (*forward)(Slirp *slirp, int udp, struct in_addr host, int host_port, struct in_addr guest, int guest_port);
};

enum { POLLED_LISTEN, POLLED_GUEST, POLLED_FRAMES, POLLED_FIRST };

struct net {
    struct library library;
    Slirp *slirp;
    int listen_fd, guest_fd, frames_fd;
    struct sockaddr_un guest;
    struct pollfd polled[POLLED_MAX];
    nfds_t count;
};

static int load(struct library *library, struct error *error)
{
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    const struct {
        void *place;
        const char *name;
    } functions[] = {
        {&library->open, "slirp_new"},
        {&library->fill, "slirp_pollfds_fill"},
        {&library->poll, "slirp_pollfds_poll"},
        {&library->input, "slirp_input"},
        {&library->forward, "slirp_add_hostfwd"},
    };

    if (!handle)
        return machine_missing("the user network (" LIBRARY ")", "libslirp0", error);
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        *(void **)functions[i].place = dlsym(handle, functions[i].name);
        if (!*(void **)functions[i].place)
            return error_set(error, ERROR_UNSUPPORTED, "the library " LIBRARY " has no %s", functions[i].name);
    }
    return 0;
}

int user_net_find(struct error *error)
{
    struct library library;

    return load(&library, error);
}

/* ---- What libslirp calls ---- */

/* A guest that is not ready loses the frame, as on any network. */
static ssize_t send_frame(const void *frame, size_t size, void *user)
{
    struct net *net = user;

    if (net->guest.sun_family == AF_UNIX)
        sendto(net->frames_fd, frame, size, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&net->guest,
               sizeof(net->guest));
    return (ssize_t)size;
}

static void ignore_message(const char *message, void *user)
{
    (void)message;
    (void)user;
}

static int64_t tell_time(void *user)
{
    (void)user;
    return (int64_t)clock_us() * 1000;
}

/* Timers are for IPv6 only, which is off. */
static void *new_timer(SlirpTimerCb callback, void *argument, void *user)
{
    (void)callback;
    (void)argument;
    return user;
}

static void free_timer(void *timer, void *user)
{
    (void)timer;
    (void)user;
}

static void set_timer(void *timer, int64_t at_ms, void *user)
{
    (void)timer;
    (void)at_ms;
    (void)user;
}

/* Descriptors are told anew in each round. */
static void ignore_fd(int fd, void *user)
{
    (void)fd;
    (void)user;
}

static void ignore(void *user)
{
    (void)user;
}

static const SlirpCb callbacks = {
    .send_packet = send_frame,
    .guest_error = ignore_message,
    .clock_get_ns = tell_time,
    .timer_new = new_timer,
    .timer_free = free_timer,
    .timer_mod = set_timer,
    .register_poll_fd = ignore_fd,
    .unregister_poll_fd = ignore_fd,
    .notify = ignore,
};

static const struct {
    int slirp;
    short poll;
} event_words[] = {{SLIRP_POLL_IN, POLLIN},   {SLIRP_POLL_OUT, POLLOUT}, {SLIRP_POLL_PRI, POLLPRI},
                   {SLIRP_POLL_ERR, POLLERR}, {SLIRP_POLL_HUP, POLLHUP}};

static int add_polled(int fd, int events, void *user)
{
    struct net *net = user;
    struct pollfd *polled = &net->polled[net->count];

    if (net->count >= POLLED_MAX)
        return -1;
    *polled = (struct pollfd){.fd = fd};
    for (size_t i = 0; i < sizeof(event_words) / sizeof(event_words[0]); i++)
        polled->events |= events & event_words[i].slirp ? event_words[i].poll : 0;
    return (int)net->count++;
}

static int get_events(int index, void *user)
{
    const struct net *net = user;
    int events = 0;

    for (size_t i = 0; index >= 0 && i < sizeof(event_words) / sizeof(event_words[0]); i++)
        events |= net->polled[index].revents & event_words[i].poll ? event_words[i].slirp : 0;
    return events;
}

/* ---- The guest's card ---- */

static void unplug(struct net *net)
{
    close(net->guest_fd);
    net->guest_fd = -1;
    net->guest.sun_family = AF_UNSPEC;
}

/* A guest that starts again plugs its card in again. */
static void accept_guest(struct net *net)
{
    int fd = accept4(net->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    if (net->guest_fd >= 0)
        unplug(net);
    net->guest_fd = fd;
}

/* It says where its card is, and is told where ours is. */
static void plug_in(struct net *net)
{
    struct plug plug = {0};
    struct sockaddr_un own = {0};
    socklen_t length = sizeof(own);
    ssize_t got = recv(net->guest_fd, &plug, sizeof(plug), 0);

    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (got != sizeof(plug) || plug.magic != PLUG_MAGIC || plug.version != PLUG_VERSION || plug.type != 0 ||
        plug.address.sun_family != AF_UNIX || getsockname(net->frames_fd, (struct sockaddr *)&own, &length) ||
        send(net->guest_fd, &own, sizeof(own), MSG_NOSIGNAL) != sizeof(own)) {
        unplug(net);
        return;
    }
    net->guest = plug.address;
}

static void take_frame(struct net *net)
{
    static uint8_t frame[FRAME_MAX];
    ssize_t size = recv(net->frames_fd, frame, sizeof(frame), MSG_DONTWAIT);

    if (size > 0)
        net->library.input(net->slirp, frame, (int)size);
}

/* For ever: it is killed, or ends with the process that has started it. */
static _Noreturn void serve(struct net *net)
{
    for (;;) {
        uint32_t timeout_ms = INT32_MAX;
        int ready;

        net->polled[POLLED_LISTEN] = (struct pollfd){.fd = net->listen_fd, .events = POLLIN};
        net->polled[POLLED_GUEST] = (struct pollfd){.fd = net->guest_fd, .events = POLLIN};
        net->polled[POLLED_FRAMES] = (struct pollfd){.fd = net->frames_fd, .events = POLLIN};
        net->count = POLLED_FIRST;
        net->library.fill(net->slirp, &timeout_ms, add_polled, net);
        ready = poll(net->polled, net->count, timeout_ms > INT32_MAX ? -1 : (int)timeout_ms);
        net->library.poll(net->slirp, ready < 0, get_events, net);
        if (ready <= 0)
            continue;
        if (net->polled[POLLED_GUEST].revents)
            plug_in(net);
        if (net->polled[POLLED_LISTEN].revents)
            accept_guest(net);
        if (net->polled[POLLED_FRAMES].revents)
            take_frame(net);
    }
}

/* ---- Starting ---- */

static int listen_for_frames(const char *folder, struct error *error)
{
    auto_free char *path = path_join(folder, USER_NET_FRAMES);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    auto_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (!path || fd < 0)
        return error_set_errno(error, errno, "cannot make a socket");
    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(error, ERROR_UNSUPPORTED, "%s is too long for the path of a socket", path);
    strcpy(address.sun_path, path);
    unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
        return error_set_errno(error, errno, "cannot make the socket %s", path);
    return steal_fd(&fd);
}

static int open_slirp(const struct machine_plan *plan, struct net *net, struct error *error)
{
    const struct in_addr local = {htonl(INADDR_LOOPBACK)}, guest = {htonl(GUEST)};
    SlirpConfig config = {.version = 1, .in_enabled = true, .vdhcp_start = guest};

    config.vnetwork.s_addr = htonl(GUEST & 0xffffff00);
    config.vnetmask.s_addr = htonl(0xffffff00);
    config.vhost.s_addr = htonl((GUEST & 0xffffff00) + 2);
    config.vnameserver.s_addr = htonl((GUEST & 0xffffff00) + 3);
    net->slirp = net->library.open(&config, &callbacks, net);
    if (!net->slirp)
        return error_set(error, ERROR_SYSTEM, "the user network cannot be made");
    for (size_t i = 0; i < plan->forward_count; i++) {
        const struct machine_forward *forward = &plan->forwards[i];

        if (net->library.forward(net->slirp, 0, local, forward->host_port, guest, forward->guest_port))
            return error_set_errno(error, errno, "port %u of this host cannot be used", forward->host_port);
    }
    return 0;
}

static int open_net(const struct machine_plan *plan, struct net *net, struct error *error)
{
    auto_close int folder = open(plan->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = folder < 0 ? error_set_errno(error, errno, "cannot open %s", plan->folder)
                            : load(&net->library, error);

    if (!result)
        result = net->listen_fd = socket_listen(folder, USER_NET_SOCKET, error);
    if (result >= 0)
        result = net->frames_fd = listen_for_frames(plan->folder, error);
    return result < 0 ? result : open_slirp(plan, net, error);
}

/* Only what the network needs: not the starter's terminal, nor locks and sockets of the machine. */
static void drop_descriptors(int *ready_fd)
{
    auto_close int null = -1;

    if (*ready_fd != STDERR_FILENO + 1)
        *ready_fd = dup3(*ready_fd, STDERR_FILENO + 1, O_CLOEXEC);
    close_range(STDERR_FILENO + 2, ~0U, 0);
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
}

/* In a child: be the network, and tell at READY_FD that it is there, or what is wrong. */
static _Noreturn void become_network(const struct machine_plan *plan, int ready_fd, pid_t parent)
{
    static struct net net = {.listen_fd = -1, .guest_fd = -1, .frames_fd = -1};
    struct error error = ERROR_INIT;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _Exit(1);
    drop_descriptors(&ready_fd);
    open_net(plan, &net, &error);
    if (write(ready_fd, &error, sizeof(error)) != sizeof(error) || error.code)
        _Exit(1);
    close(ready_fd);
    serve(&net);
}

int user_net_start(const struct machine_plan *plan, struct error *error)
{
    struct error told = {.code = ERROR_SYSTEM, .message = "the user network ends at once"};
    pid_t parent = getpid(), child;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC))
        return error_set_errno(error, errno, "cannot make a pipe");
    child = fork();
    if (child == 0)
        become_network(plan, ends[1], parent);
    close(ends[1]);
    if (child < 0)
        error_set_errno(&told, errno, "cannot start a background process");
    while (child > 0 && read(ends[0], &told, sizeof(told)) < 0 && errno == EINTR)
        ;
    close(ends[0]);
    if (!told.code)
        return child;
    user_net_end(child);
    return error_copy(error, &told);
}

void user_net_end(pid_t network)
{
    int status;

    process_wait_within(network, 0, false, &status);
}
