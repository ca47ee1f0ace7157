/* What every hypervisor checks of a plan: see machine.h. */
#include "vm/machine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

/* A socket bound to PORT of 127.0.0.1 (0: any), as QEMU binds it: a connection that has just ended is no hindrance, nor
 * is another such socket that does not listen. Whoever asks for any port is not given this one. */
static int bind_port(uint16_t port, struct error *error)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int yes = 1;

    if (fd < 0)
        return error_set_errno(error, errno, "cannot make a socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (!bind(fd, (struct sockaddr *)&address, sizeof(address)))
        return steal_fd(&fd);
    if (errno == EADDRINUSE)
        return error_set(error, ERROR_BUSY, "port %u of this host is in use", port);
    return error_set_errno(error, errno, "port %u of this host cannot be used", port);
}

int machine_hold_port(uint16_t wanted, uint16_t *port_out)
{
    struct sockaddr_in address = {0};
    socklen_t size = sizeof(address);
    auto_close int fd = bind_port(wanted, NULL);

    if (fd < 0 && wanted)
        return machine_hold_port(0, port_out);
    if (fd < 0 || getsockname(fd, (struct sockaddr *)&address, &size))
        return -1;
    *port_out = ntohs(address.sin_port);
    return steal_fd(&fd);
}

int machine_check_forwards(const struct machine_plan *plan, struct error *error)
{
    for (size_t i = 0; i < plan->forward_count; i++) {
        auto_close int fd = -1;

        for (size_t j = 0; j < i; j++)
            if (plan->forwards[i].host_port == plan->forwards[j].host_port)
                return error_set(error, ERROR_INVALID, "port %u of this host is wanted twice",
                                 plan->forwards[i].host_port);
        fd = bind_port(plan->forwards[i].host_port, error);
        if (fd < 0)
            return fd;
    }
    return 0;
}

int machine_check_memory(const struct machine_plan *plan, struct error *error)
{
    char wanted[SIZE_TEXT], there[SIZE_TEXT];
    struct sysinfo host;
    uint64_t total;

    if (sysinfo(&host))
        return 0;
    total = (uint64_t)host.totalram * host.mem_unit;
    if (plan->memory_bytes <= total)
        return 0;
    return error_set(error, ERROR_UNSUPPORTED, "the machine shall have %s of memory, but the host has %s",
                     size_format(plan->memory_bytes, wanted), size_format(total, there));
}

int machine_missing(const char *what, const char *package, struct error *error)
{
    return error_set(error, ERROR_UNSUPPORTED, "%s is missing: install the Debian package %s (apt install %s)", what,
                     package, package);
}
