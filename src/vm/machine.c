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

static int check_port(uint16_t port, struct error *error)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int yes = 1;

    if (fd < 0)
        return error_set_errno(error, errno, "cannot make a socket");
    /* As QEMU does: a connection that has just ended is no hindrance. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (!bind(fd, (struct sockaddr *)&address, sizeof(address)) && !listen(fd, 1))
        return 0;
    if (errno == EADDRINUSE)
        return error_set(error, ERROR_BUSY, "port %u of this host is in use", port);
    return error_set_errno(error, errno, "port %u of this host cannot be used", port);
}

int machine_check_forwards(const struct machine_plan *plan, struct error *error)
{
    for (size_t i = 0; i < plan->forward_count; i++) {
        for (size_t j = 0; j < i; j++)
            if (plan->forwards[i].host_port == plan->forwards[j].host_port)
                return error_set(error, ERROR_INVALID, "port %u of this host is wanted twice",
                                 plan->forwards[i].host_port);
        if (check_port(plan->forwards[i].host_port, error))
            return error ? error->code : ERROR_BUSY;
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
