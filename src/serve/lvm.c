/* LVM without device-mapper: runs `lvm lvs` on one device and reads its report. */
#include "serve/lvm.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"

#define OUTPUT_MAX (1024 * 1024)
#define COLUMNS    "vg_name,lv_name,lv_size,segtype,seg_start,seg_size,seg_pe_ranges,vg_extent_size"

static const char *find_lvm(void)
{
    static const char *const paths[] = {"/usr/sbin/lvm", "/sbin/lvm"};

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        if (!access(paths[i], X_OK))
            return paths[i];
    return NULL;
}

/* Everything that comes out of FD. */
static int read_all(int fd, struct buffer *output, struct error *error)
{
    for (;;) {
        ssize_t got;

        if (!buffer_reserve(output, 4096) || output->size > OUTPUT_MAX)
            return error_set(error, ERROR_CORRUPT, "lvm has too much to say");
        got = read(fd, output->bytes + output->size, output->capacity - output->size - 1);
        if (got < 0 && errno != EINTR)
            return error_set_errno(error, errno, "cannot read what lvm says");
        if (got == 0)
            break;
        output->size += got > 0 ? (size_t)got : 0;
    }
    output->bytes[output->size] = '\0';
    return 0;
}

static int spawn(const char *path, char *const arguments[], int output, pid_t *pid_out)
{
    char *environment[] = {(char[]){"LC_ALL=C"}, (char[]){"LVM_SUPPRESS_FD_WARNINGS=1"}, NULL};
    posix_spawn_file_actions_t actions;
    int result;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output, 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    result = posix_spawn(pid_out, path, &actions, NULL, arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    return result;
}

static int run(const char *path, char *const arguments[], struct buffer *output, struct error *error)
{
    int ends[2], status, result;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC))
        return error_set_errno(error, errno, "cannot make a pipe");
    result = spawn(path, arguments, ends[1], &pid);
    close(ends[1]);
    if (result) {
        close(ends[0]);
        return error_set_errno(error, result, "cannot start %s", path);
    }
    result = read_all(ends[0], output, error);
    close(ends[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!result && (!WIFEXITED(status) || WEXITSTATUS(status)))
        result = error_set(error, ERROR_SYSTEM, "lvm cannot read the volume group");
    return result;
}

/*
 * One segment: "group name size type start size ranges extent-size", sizes in bytes. RANGES is
 * "/dev/loop1:25-37" for a segment in one piece; extents begin at AREA. False: not understood.
 */
static bool parse_segment(const char *line, uint64_t area, struct lvm_volume *segment, uint64_t *start_out)
{
    char type[32], ranges[512];
    unsigned long long size, start, segment_size, first = 0, last, extent;
    const char *colon;
    uint64_t offset;

    if (sscanf(line, " %128s %128s %llu %31s %llu %llu %511s %llu", segment->group, segment->name, &size, type,
               &start, &segment_size, ranges, &extent) != 8)
        return false;
    colon = strrchr(ranges, ':');
    segment->contiguous = !strcmp(type, "linear") && colon && sscanf(colon, ":%llu-%llu", &first, &last) == 2 &&
                          last >= first && last - first + 1 == segment_size / (extent ? extent : 1);
    if (!checked_mul(first, extent, &offset) || !checked_add(offset, area, &segment->offset))
        return false;
    segment->size = segment_size;
    *start_out = start;
    return true;
}

/* Add a segment to the volume that it is the next part of, or begin a new one. */
static bool add_segment(struct lvm_volume *list, size_t *count, const struct lvm_volume *segment, uint64_t start)
{
    struct lvm_volume *last = *count ? &list[*count - 1] : NULL;

    if (start) {
        if (!last || strcmp(last->name, segment->name) || strcmp(last->group, segment->group) || last->size != start)
            return false;
        last->contiguous = last->contiguous && segment->contiguous && last->offset + last->size == segment->offset;
        last->size += segment->size;
        return true;
    }
    if (*count == LVM_VOLUMES_MAX)
        return false;
    list[(*count)++] = *segment;
    return true;
}

static int parse_report(char *report, uint64_t area, struct lvm_volume *list, size_t *count_out, struct error *error)
{
    char *save = NULL;

    *count_out = 0;
    for (char *line = strtok_r(report, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        struct lvm_volume segment = {0};
        uint64_t start;

        if (!parse_segment(line, area, &segment, &start) || !add_segment(list, count_out, &segment, start))
            return error_set(error, ERROR_CORRUPT, "lvm says what is not understood: '%.200s'", line);
    }
    return 0;
}

/* Run one of lvm's reporting commands: read-only, on this device alone, nothing that needs device-mapper. */
static int report(const char *command, const char *device, const char *columns, struct buffer *output,
                  struct error *error)
{
    const char *arguments[] = {
        "lvm", command, "--readonly", "--driverloaded", "n", "--devices", device, "--config",
        "backup{backup=0 archive=0}", "--noheadings", "--nosuffix", "--units", "b", "--separator", " ", "-o", columns,
        strcmp(command, "lvs") ? NULL : "--segments", "--sort", "vg_name,lv_name,seg_start", NULL,
    };
    const char *path = find_lvm();

    if (!path)
        return error_set(error, ERROR_UNSUPPORTED,
                         "the disk holds LVM volumes, and the Debian package lvm2 is missing (apt install lvm2)");
    return run(path, (char *const *)(uintptr_t)arguments, output, error);
}

int lvm_list(const char *device, struct lvm_volume *list, size_t *count_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer area_text = {0}, segments = {0};
    unsigned long long area;
    int result = report("pvs", device, "pe_start", &area_text, error);

    if (!result && sscanf((char *)area_text.bytes, " %llu", &area) != 1)
        result = error_set(error, ERROR_CORRUPT, "lvm does not say where the volume group's extents begin");
    if (!result)
        result = report("lvs", device, COLUMNS, &segments, error);
    return result ? result : parse_report((char *)segments.bytes, area, list, count_out, error);
}
