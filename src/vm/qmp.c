/* QMP over a UNIX socket: see qmp.h. */
#include "vm/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

struct qmp {
    int fd;
    unsigned timeout_ms;
    uint64_t last_id;
    struct buffer received; /* what came after the last line */
};

/* A socket, and its ADDRESS: that has 107 bytes for a path, which by the folder's descriptor is always short enough. */
static int make_socket(int folder_fd, const char *name, struct sockaddr_un *address, struct error *error)
{
    int fd;

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/%s", folder_fd, name) >=
        (int)sizeof(address->sun_path))
        return error_set(error, ERROR_INVALID, "%s is too long for a socket's name", name);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? error_set_errno(error, errno, "cannot make a socket") : fd;
}

int socket_listen(int folder_fd, const char *name, struct error *error)
{
    struct sockaddr_un address;
    auto_close int fd = make_socket(folder_fd, name, &address, error);

    if (fd < 0)
        return fd;
    if (unlinkat(folder_fd, name, 0) && errno != ENOENT)
        return error_set_errno(error, errno, "cannot replace the socket %s", name);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 8))
        return error_set_errno(error, errno, "cannot listen at the socket %s", name);
    return steal_fd(&fd);
}

int socket_connect(int folder_fd, const char *name, struct error *error)
{
    struct sockaddr_un address;
    auto_close int fd = make_socket(folder_fd, name, &address, error);

    if (fd < 0)
        return fd;
    if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
        return steal_fd(&fd);
    if (errno == ENOENT || errno == ECONNREFUSED)
        return error_set(error, ERROR_NOT_FOUND, "nobody listens at the socket %s", name);
    return error_set_errno(error, errno, "cannot connect to the socket %s", name);
}

static int silent(struct error *error)
{
    return error_set(error, ERROR_BUSY,
                     "the machine does not answer; perhaps somebody else is connected to its control socket");
}

/* Wait for input until DEADLINE. False: none. */
static bool wait_for_input(int fd, uint64_t deadline)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    uint64_t now;

    while ((now = clock_ms()) < deadline) {
        int count = poll(&polled, 1, (int)(deadline - now));

        if (count > 0)
            return true;
        if (count < 0 && errno != EINTR)
            return false;
    }
    return false;
}

static int receive(struct qmp *qmp, uint64_t deadline, struct error *error)
{
    ssize_t got;

    if (!wait_for_input(qmp->fd, deadline))
        return silent(error);
    if (qmp->received.size > QMP_LINE_MAX || !buffer_reserve(&qmp->received, 4096))
        return error_set(error, ERROR_CORRUPT, "the machine's answer is too long");
    got = recv(qmp->fd, qmp->received.bytes + qmp->received.size, qmp->received.capacity - qmp->received.size, 0);
    if (got < 0 && errno == EINTR)
        return 0;
    if (got <= 0)
        return error_set(error, ERROR_NOT_FOUND, "the machine has ended");
    qmp->received.size += (size_t)got;
    return 0;
}

/* The next line into LINE (replaced). */
static int read_line(struct qmp *qmp, uint64_t deadline, struct buffer *line, struct error *error)
{
    struct buffer *received = &qmp->received;
    const uint8_t *end;
    size_t length;

    while (!(end = received->size ? memchr(received->bytes, '\n', received->size) : NULL)) {
        int result = receive(qmp, deadline, error);

        if (result)
            return result;
    }
    length = (size_t)(end - received->bytes);
    line->size = 0;
    if (!buffer_append(line, received->bytes, length))
        return error_set(error, ERROR_SYSTEM, "no memory for the machine's answer");
    memmove(received->bytes, end + 1, received->size - length - 1);
    received->size -= length + 1;
    return 0;
}

/* The message that answers command ID, past events and answers that nobody waited for; 0: the greeting. */
static int read_answer(struct qmp *qmp, uint64_t id, struct buffer *line, struct error *error)
{
    uint64_t deadline = clock_ms() + qmp->timeout_ms;
    struct qmp_message message;

    for (;;) {
        int result = read_line(qmp, deadline, line, error);

        if (!result)
            result = qmp_parse(line->bytes, line->size, &message, error);
        if (result)
            return result;
        if (message.kind == QMP_EVENT || message.id != id)
            continue;
        if (message.kind == QMP_ERROR)
            return error_set(error, ERROR_SYSTEM, "the machine refuses: %s", message.text);
        return 0;
    }
}

static int send_text(struct qmp *qmp, const char *text, struct error *error)
{
    size_t length = strlen(text);

    while (length) {
        ssize_t sent = send(qmp->fd, text, length, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return error_set(error, errno == EAGAIN ? ERROR_BUSY : ERROR_NOT_FOUND,
                             "the machine does not listen any more");
        text += sent;
        length -= (size_t)sent;
    }
    return 0;
}

struct json_writer *qmp_begin(struct qmp *qmp, const char *command)
{
    return qmp_command(command, ++qmp->last_id);
}

int qmp_run(struct qmp *qmp, struct json_writer *command, struct buffer *answer, struct error *error)
{
    cleanup(buffer_finish) struct buffer dropped = {0};
    auto_free char *text = json_print(command);
    int result = text ? send_text(qmp, text, error) : error_set(error, ERROR_SYSTEM, "no memory to ask the machine");

    return result ? result : read_answer(qmp, qmp->last_id, answer ? answer : &dropped, error);
}

int qmp_order(struct qmp *qmp, const char *command, struct error *error)
{
    return qmp_run(qmp, qmp_begin(qmp, command), NULL, error);
}

int qmp_status(struct qmp *qmp, char status_out[QMP_WORD], struct error *error)
{
    cleanup(buffer_finish) struct buffer answer = {0};
    int result = qmp_run(qmp, qmp_begin(qmp, "query-status"), &answer, error);

    return result ? result : qmp_parse_status(answer.bytes, answer.size, status_out, error);
}

int qmp_blocks(struct qmp *qmp, struct qmp_block blocks_out[QMP_BLOCKS_MAX], size_t *count_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer answer = {0};
    int result = qmp_run(qmp, qmp_begin(qmp, "query-blockstats"), &answer, error);

    return result ? result : qmp_parse_blocks(answer.bytes, answer.size, blocks_out, count_out, error);
}

int qmp_open(int folder_fd, const char *name, unsigned timeout_ms, struct qmp **qmp_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer line = {0};
    struct qmp *qmp = calloc(1, sizeof(*qmp));
    struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    int result;

    if (!qmp)
        return error_set(error, ERROR_SYSTEM, "no memory for a connection to the machine");
    qmp->timeout_ms = timeout_ms;
    qmp->fd = result = socket_connect(folder_fd, name, error);
    if (result >= 0) {
        setsockopt(qmp->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
        result = read_answer(qmp, 0, &line, error);
    }
    if (!result)
        result = qmp_order(qmp, "qmp_capabilities", error);
    if (result) {
        qmp_close(qmp);
        return result;
    }
    *qmp_out = qmp;
    return 0;
}

void qmp_close(struct qmp *qmp)
{
    if (!qmp)
        return;
    if (qmp->fd >= 0)
        close(qmp->fd);
    buffer_finish(&qmp->received);
    free(qmp);
}
