/* VirtualBox: see vbox.h. */
#include "vm/vbox.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/process.h"
#include "base/cleanup.h"

#define PROGRAM "VBoxManage"
#define DEVICE  "/dev/vboxdrv"

/* VirtualBox is not in Debian 12 itself. */
static int find_program(const char *search_path, char path[PATH_MAX], struct error *error)
{
    return process_find(search_path, PROGRAM, path)
               ? 0
               : error_set(error, ERROR_UNSUPPORTED, "VBoxManage is missing: install VirtualBox (the Debian package "
                           "virtualbox of unstable, or Oracle's from virtualbox.org)");
}

int vbox_try(const char *search_path, unsigned timeout_ms, char *text, size_t size, struct error *error)
{
    const char *arguments[] = {PROGRAM, "--version", NULL};
    cleanup(buffer_finish) struct buffer output = {0};
    char program[PATH_MAX];
    int status, result = find_program(search_path, program, error);

    if (!result)
        result = process_try(program, arguments, timeout_ms, &output, &status, error);
    if (result)
        return result;
    if (status || !output.size)
        return error_set(error, ERROR_UNSUPPORTED, "VBoxManage --version ended with status %d", status);
    if (access(DEVICE, F_OK))
        return error_set(error, ERROR_UNSUPPORTED, "VirtualBox's kernel module vboxdrv is not loaded (%s)", DEVICE);
    snprintf(text, size, "VirtualBox %.*s", (int)strcspn((const char *)output.bytes, "\n"), (const char *)output.bytes);
    return 0;
}

static int not_yet(const struct machine_plan *plan, struct error *error)
{
    (void)plan;
    return error_set(error, ERROR_UNSUPPORTED, "machines under VirtualBox are not there yet");
}

const struct hypervisor hypervisor_vbox = {.name = "vbox", .title = "VirtualBox", .find = not_yet};
