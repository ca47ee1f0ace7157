/* Profiles in files: see profile_file.h. */
#include "cmd/profile_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

int profile_file_check(const char *path, struct error *error)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    auto_free char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : NULL;
    struct stat status;

    if (!path)
        return 0;
    if (slash && !folder)
        return error_set(error, ERROR_SYSTEM, "no memory for a path");
    if (!stat(path, &status) && !S_ISREG(status.st_mode))
        return error_set(error, ERROR_INVALID, "%s is no file that a profile can replace", path);
    if (access(folder ? folder : ".", W_OK | X_OK))
        return error_set_errno(error, errno, "%s cannot be written", path);
    return 0;
}

int profile_file_save(const struct context *context, const char *path, const struct profile *profile,
                      struct error *error)
{
    cleanup(buffer_finish) struct buffer bytes = {0};
    char size[SIZE_TEXT];
    int result = profile_format(profile, &bytes, error);

    if (!result)
        result = file_write_atomic(AT_FDCWD, path, bytes.bytes, bytes.size, 0, error);
    if (!result)
        report_line(context, "%s is the profile of %llu blocks, %s", path, (unsigned long long)profile->block_count,
                    size_format(profile->block_count * profile->block_size, size));
    return result;
}

int profile_file_write(const struct context *context, const char *path, struct circular_disk *disk,
                       struct error *error)
{
    cleanup(profile_finish) struct profile profile = {0};
    int result = path ? library_profile(disk, &profile, error) : 0;

    if (result || !path)
        return result ? error_prefix(error, "%s is not written", path) : 0;
    return profile_file_save(context, path, &profile, error);
}

int profile_file_read(const char *path, struct profile *profile_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer bytes = {0};
    int result = file_read(AT_FDCWD, path, PROFILE_SIZE_MAX, &bytes, error);

    if (result)
        return result;
    result = profile_parse(bytes.bytes, bytes.size, profile_out, error);
    return result ? error_prefix(error, "%s", path) : 0;
}
