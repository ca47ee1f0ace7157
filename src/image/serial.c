/* The highest serial seen: see serial.h. */
#include "image/serial.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/file.h"

#define SERIAL_NAME_MAX 64
#define SERIAL_FILE_MAX 32

static int parse(const struct buffer *text, const char *name, uint64_t *serial_out, struct error *error)
{
    uint64_t serial = 0;
    size_t i = 0;

    while (i < text->size && text->bytes[i] >= '0' && text->bytes[i] <= '9' &&
           checked_mul(serial, 10, &serial) && checked_add(serial, text->bytes[i] - '0', &serial))
        i++;
    if (i == 0 || i + 1 != text->size || text->bytes[i] != '\n')
        return error_set(error, ERROR_CORRUPT, "the state file %s is damaged; without it older catalogs would "
                         "be accepted: remove it if you are sure of the archive", name);
    *serial_out = serial;
    return 0;
}

int serial_read(int state_fd, const char *archive, uint64_t *serial_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer text = {0};
    struct error reason = ERROR_INIT;
    char name[SERIAL_NAME_MAX];
    int result;

    *serial_out = 0;
    if (state_fd < 0)
        return 0;
    snprintf(name, sizeof(name), "serial-%s", archive);
    result = file_read(state_fd, name, SERIAL_FILE_MAX, &text, &reason);
    if (result == ERROR_NOT_FOUND)
        return 0;
    return result ? error_copy(error, &reason) : parse(&text, name, serial_out, error);
}

int serial_raise(int state_fd, const char *archive, uint64_t serial, struct error *error)
{
    auto_close int lock = -1;
    char name[SERIAL_NAME_MAX], text[SERIAL_FILE_MAX];
    uint64_t highest;
    int result;

    result = serial_read(state_fd, archive, &highest, error);
    if (result || state_fd < 0 || highest >= serial)
        return result;
    lock = openat(state_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0)
        return error_set_errno(error, errno, "cannot lock the state folder");
    result = file_lock(lock, false, false, error);
    /* Another process may have raised it meanwhile. */
    if (!result)
        result = serial_read(state_fd, archive, &highest, error);
    if (result || highest >= serial)
        return result;
    snprintf(name, sizeof(name), "serial-%s", archive);
    snprintf(text, sizeof(text), "%" PRIu64 "\n", serial);
    return file_write_atomic(state_fd, name, text, strlen(text), FILE_DURABLE, error);
}
