/*
 * Runs a fuzz target over every file of the folders given, so that any compiler's build tests what fuzzing has found.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

static int replay_file(int folder, const char *name)
{
    struct buffer bytes = {0};
    struct error error = ERROR_INIT;
    uint8_t *exact;

    if (file_read(folder, name, 16 * MIB, &bytes, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    /* Memory of just that size, so that ASan and valgrind see a byte too far. */
    exact = malloc(bytes.size ? bytes.size : 1);
    if (!exact)
        return 1;
    if (bytes.size)
        memcpy(exact, bytes.bytes, bytes.size);
    LLVMFuzzerTestOneInput(exact, bytes.size);
    free(exact);
    buffer_finish(&bytes);
    return 0;
}

/* Returns the number of files, or -1. */
static int replay_folder(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    int count = 0;

    if (!folder) {
        perror(path);
        return -1;
    }
    while ((entry = readdir(folder)) && count >= 0) {
        if (entry->d_name[0] == '.')
            continue;
        printf("# %s\n", entry->d_name);
        fflush(stdout);
        count = replay_file(dirfd(folder), entry->d_name) ? -1 : count + 1;
    }
    closedir(folder);
    return count;
}

int main(int count, char **arguments)
{
    int files = 0;

    for (int i = 1; i < count; i++) {
        int more = replay_folder(arguments[i]);

        if (more < 0)
            return 1;
        files += more;
    }
    printf("1..1\nok 1 - %d inputs\n", files);
    return files ? 0 : 1;
}
