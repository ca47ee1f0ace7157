/* Folders of machines: see machines.h. */
#include "vm/machines.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/process.h"

#define RECORD        "machine.json"
#define LOCK          "lock"
#define LOCK_TRIES    20
#define LOCK_PAUSE_MS 20

static char *place(const char *state)
{
    return path_join(state, "machines");
}

static int open_folder(const char *state, const char *name, bool make, struct machine_folder *folder,
                       struct error *error)
{
    auto_free char *parent = place(state);
    int result = name_check("machine's name", name, error);

    *folder = (struct machine_folder)MACHINE_FOLDER_INIT;
    if (result)
        return result;
    folder->path = parent ? path_join(parent, name) : NULL;
    if (!folder->path)
        return error_set(error, ERROR_SYSTEM, "no memory for a machine");
    if (make) {
        result = file_make_folders(AT_FDCWD, parent, 0700, error);
        if (result)
            return result;
        if (mkdir(folder->path, 0700) && errno != EEXIST)
            return error_set_errno(error, errno, "cannot make the folder %s", folder->path);
    }
    folder->fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (folder->fd >= 0)
        return 0;
    if (errno == ENOENT)
        return error_set(error, ERROR_NOT_FOUND, "there is no machine %s; 'circular vm list' lists them", name);
    return error_set_errno(error, errno, "cannot open %s", folder->path);
}

int machine_open(const char *state, const char *name, struct machine_folder *folder_out, struct error *error)
{
    int result = open_folder(state, name, false, folder_out, error);

    if (!result && faccessat(folder_out->fd, RECORD, F_OK, 0) && errno == ENOENT)
        result = error_set(error, ERROR_NOT_FOUND, "there is no machine %s; 'circular vm list' lists them", name);
    return result;
}

int machine_create(const char *state, const char *name, struct machine_folder *folder_out, struct error *error)
{
    int result = open_folder(state, name, true, folder_out, error);

    if (!result)
        result = machine_lock(folder_out, error);
    if (!result && !faccessat(folder_out->fd, RECORD, F_OK, 0))
        result = error_set(error, ERROR_EXISTS, "there is a machine %s already", name);
    return result;
}

void machine_close(struct machine_folder *folder)
{
    if (folder->fd >= 0)
        close(folder->fd);
    if (folder->lock_fd >= 0)
        close(folder->lock_fd);
    free(folder->path);
    *folder = (struct machine_folder)MACHINE_FOLDER_INIT;
}

static int open_lock(const struct machine_folder *folder, struct error *error)
{
    int fd = openat(folder->fd, LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    return fd < 0 ? error_set_errno(error, errno, "cannot write in %s", folder->path) : fd;
}

static const char *name_of(const struct machine_folder *folder)
{
    return strrchr(folder->path, '/') + 1;
}

int machine_lock(struct machine_folder *folder, struct error *error)
{
    auto_close int fd = open_lock(folder, error);
    int result = fd;

    /* Whoever only looks whether it runs holds the lock for an instant. */
    for (unsigned i = 0; fd >= 0 && i < LOCK_TRIES; i++) {
        result = file_lock(fd, false, true, error);
        if (result != ERROR_BUSY)
            break;
        clock_sleep_ms(LOCK_PAUSE_MS);
    }
    if (result == ERROR_BUSY)
        return error_set(error, ERROR_BUSY, "the machine %s is running, or somebody is changing it", name_of(folder));
    if (result < 0)
        return result;
    folder->lock_fd = steal_fd(&fd);
    return 0;
}

bool machine_is_running(const struct machine_folder *folder)
{
    auto_close int fd = openat(folder->fd, LOCK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    return fd >= 0 && folder->lock_fd < 0 && file_lock(fd, true, true, NULL) == ERROR_BUSY;
}

int machine_process(const struct machine_folder *folder, pid_t *pid_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer text = {0};
    auto_free char *lock = path_join(folder->path, LOCK);
    auto_close int process = -1;
    long pid = 0;

    if (machine_is_running(folder) && !file_read(folder->fd, MACHINE_FILE_PID, 64, &text, NULL) &&
        buffer_append(&text, "", 1))
        pid = strtol((const char *)text.bytes, NULL, 10);
    if (pid > 1 && pid <= INT32_MAX)
        process = process_open((pid_t)pid);
    /* While the descriptor is open the number cannot go to another process; so what holds now is of this one. */
    if (process < 0 || !lock || !process_holds((pid_t)pid, lock))
        return error_set(error, ERROR_NOT_FOUND, "the machine %s does not run", name_of(folder));
    *pid_out = (pid_t)pid;
    return steal_fd(&process);
}

int machine_read(const struct machine_folder *folder, struct machine_record *record_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer bytes = {0};
    int result = file_read(folder->fd, RECORD, MACHINE_RECORD_MAX, &bytes, error);

    *record_out = (struct machine_record){0};
    if (!result)
        result = machine_record_parse(bytes.bytes, bytes.size, record_out, error);
    if (!result && strcmp(record_out->name, name_of(folder)))
        result = error_set(error, ERROR_CORRUPT, "it is of a machine %s", record_out->name);
    return result ? error_prefix(error, "%s", folder->path) : 0;
}

int machine_write(const struct machine_folder *folder, const struct machine_record *record, struct error *error)
{
    auto_free char *text = machine_record_format(record);

    if (!text)
        return error_set(error, ERROR_INVALID,
                         "the machine cannot be written down: an argument has control characters, "
                         "or there is no memory");
    return file_write_atomic(folder->fd, RECORD, text, strlen(text), FILE_DURABLE | FILE_PRIVATE, error);
}

char *machine_path(const struct machine_folder *folder, const char *file)
{
    return path_join(folder->path, file);
}

int machine_remove(const struct machine_folder *folder, const char *name, struct error *error)
{
    int result = file_remove(folder->fd, name, error);

    return result ? error_prefix(error, "%s", folder->path) : 0;
}

int machine_delete(struct machine_folder *folder, struct error *error)
{
    /* First: what is left of an interrupted deletion is no machine any more. */
    int result = machine_remove(folder, RECORD, error);

    return result ? result : file_remove(AT_FDCWD, folder->path, error);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int machine_list(const char *state, struct arguments *names_out, struct error *error)
{
    auto_free char *path = place(state);
    DIR *stream = path ? opendir(path) : NULL;
    const struct dirent *entry;

    if (!stream)
        return !path || errno != ENOENT ? error_set_errno(error, errno, "cannot read %s", path ? path : state) : 0;
    while ((entry = readdir(stream))) {
        struct machine_folder folder;

        if (!machine_open(state, entry->d_name, &folder, NULL))
            arguments_add(names_out, entry->d_name);
        machine_close(&folder);
    }
    closedir(stream);
    if (names_out->count)
        qsort(names_out->items, names_out->count, sizeof(*names_out->items), by_name);
    return names_out->failed ? error_set(error, ERROR_SYSTEM, "no memory for the machines' names") : 0;
}
