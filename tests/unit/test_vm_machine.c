/* What every hypervisor asks of the host: ports. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vm/machine.h"

/* A listener on a port of 127.0.0.1 that the kernel chooses. */
static int listen_anywhere(struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    socklen_t size = sizeof(*address);

    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    assert_int_equal(bind(fd, (struct sockaddr *)address, size) | listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &size), 0);
    return fd;
}

/* A machine's port for ssh is that of its last start, also right after somebody was logged in. */
static void a_port_is_kept_after_a_connection(void **state)
{
    struct sockaddr_in address;
    int listener = listen_anywhere(&address), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), server;

    (void)state;
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
    server = accept(listener, NULL, NULL);
    assert_true(server >= 0);
    close(server); /* who closes first has a port that lingers */
    close(client);
    close(listener);
    assert_int_equal(machine_find_port(ntohs(address.sin_port)), ntohs(address.sin_port));
}

static void a_port_in_use_is_refused_and_another_found(void **state)
{
    struct sockaddr_in address;
    int listener = listen_anywhere(&address);
    uint16_t port = ntohs(address.sin_port), found;
    const struct machine_forward taken[] = {{.host_port = port, .guest_port = 22}};
    const struct machine_plan plan = {.forwards = taken, .forward_count = 1};
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(machine_check_forwards(&plan, &error), ERROR_BUSY);
    assert_non_null(strstr(error.message, "is in use"));
    found = machine_find_port(port);
    assert_true(found && found != port);
    close(listener);
    assert_int_equal(machine_check_forwards(&plan, &error), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_port_is_kept_after_a_connection),
        cmocka_unit_test(a_port_in_use_is_refused_and_another_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
