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

/* A listener, as QEMU makes it, on PORT of 127.0.0.1; 0: one that the kernel chooses. */
static int listen_at(uint16_t port, struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    socklen_t size = sizeof(*address);

    *address = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    assert_int_equal(bind(fd, (struct sockaddr *)address, size) | listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &size), 0);
    return fd;
}

/* The port that a machine is given which had WANTED, let go of at once. */
static uint16_t find_port(uint16_t wanted)
{
    uint16_t port = 0;
    int fd = machine_hold_port(wanted, &port);

    assert_true(fd >= 0);
    close(fd);
    return port;
}

/* A machine's port for ssh is that of its last start, also right after somebody was logged in. */
static void a_port_is_kept_after_a_connection(void **state)
{
    struct sockaddr_in address;
    int listener = listen_at(0, &address), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), server;

    (void)state;
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
    server = accept(listener, NULL, NULL);
    assert_true(server >= 0);
    close(server); /* who closes first has a port that lingers */
    close(client);
    close(listener);
    assert_int_equal(find_port(ntohs(address.sin_port)), ntohs(address.sin_port));
}

static void a_port_in_use_is_refused_and_another_found(void **state)
{
    struct sockaddr_in address;
    int listener = listen_at(0, &address);
    uint16_t port = ntohs(address.sin_port), found;
    const struct machine_forward taken[] = {{.host_port = port, .guest_port = 22}};
    const struct machine_plan plan = {.forwards = taken, .forward_count = 1};
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(machine_check_forwards(&plan, &error), ERROR_BUSY);
    assert_non_null(strstr(error.message, "is in use"));
    found = find_port(port);
    assert_true(found && found != port);
    close(listener);
    assert_int_equal(machine_check_forwards(&plan, &error), 0);
}

/* Machines that start at once have ports of their own: whom the kernel may choose for is not given one that is held. */
static void a_port_is_held_until_the_hypervisor_listens(void **state)
{
    struct sockaddr_in address;
    uint16_t port = 0;
    int held = machine_hold_port(0, &port), other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), listener;

    (void)state;
    assert_true(held >= 0 && other >= 0);
    address = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(other, (struct sockaddr *)&address, sizeof(address)), -1);
    listener = listen_at(port, &address);
    close(held);
    assert_int_not_equal(find_port(port), port);
    close(listener);
    close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_port_is_kept_after_a_connection),
        cmocka_unit_test(a_port_in_use_is_refused_and_another_found),
        cmocka_unit_test(a_port_is_held_until_the_hypervisor_listens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
