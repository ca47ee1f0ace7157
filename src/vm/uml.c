/* User-mode Linux: see uml.h. */
#include "vm/uml.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"

#define PROGRAM      "linux.uml"
#define UMID         "uml" /* also a folder in the machine's, with its process id and control socket */
#define SHARED       "/dev/shm"
#define MEMORY_MIN   (64 * MIB)
#define KERNEL_LINE  2048 /* UML's own limit for all its arguments */
#define FAILED_STATE "ptrace set fp regs failed"

static int find_program(const char *search_path, char path[PATH_MAX], struct error *error)
{
    return process_find(search_path, PROGRAM, path) ? 0 : machine_missing(PROGRAM, "user-mode-linux", error);
}

static int find(const struct machine_plan *plan, struct error *error)
{
    char path[PATH_MAX];

    return find_program(plan->search_path, path, error);
}

/* What a kernel that is a program has not. NULL: PLAN asks for nothing of it. */
static const char *asks_too_much(const struct machine_plan *plan)
{
    if (plan->firmware == MACHINE_UEFI)
        return "firmware (--uefi): it mounts the root file system itself";
    if (plan->tpm)
        return "a TPM (--tpm)";
    if (plan->iso || plan->disk_is_iso)
        return "CD-ROMs: it needs a disk with a root file system";
    if (plan->nested)
        return "virtual machines inside (--nested)";
    if (plan->cpu_count > 1)
        return "more than one processor (--cpus)";
    if (plan->display != MACHINE_DISPLAY_NONE)
        return "a display (--display)";
    if (plan->net == MACHINE_NET_BRIDGE || plan->forward_count)
        return "bridges or forwarded ports: it can reach out, through slirp, or has no network";
    if (plan->serial != MACHINE_SERIAL_TERMINAL && plan->serial != MACHINE_SERIAL_NONE)
        return "a serial port other than the terminal";
    return NULL;
}

static int check(const struct machine_plan *plan, struct error *error)
{
    const char *too_much = asks_too_much(plan);
    char memory[SIZE_TEXT];

    if (too_much)
        return error_set(error, ERROR_UNSUPPORTED, "User-mode Linux has no %s", too_much);
    if (plan->memory_bytes < MEMORY_MIN)
        return error_set(error, ERROR_UNSUPPORTED, "User-mode Linux needs 64 MiB of memory, not %s",
                         size_format(plan->memory_bytes, memory));
    return machine_check_memory(plan, error);
}

/* Its parser splits at commas and spaces and knows no quotes. */
static int check_path(const char *path, struct error *error)
{
    return strpbrk(path, ", \t\n:")
               ? error_set(error, ERROR_UNSUPPORTED,
                           "User-mode Linux cannot use a path with commas, colons or spaces: %s", path)
               : 0;
}

static int prepare(const struct machine_plan *plan, struct error *error)
{
    int result = check_path(plan->disk, error);

    if (!result)
        result = check_path(plan->overlay, error);
    return result ? result : check_path(plan->folder, error);
}

static void add_root(struct arguments *arguments, const struct machine_plan *plan)
{
    /* A COW file of UML's own form, which it makes if it is not there. */
    arguments_add_format(arguments, "ubd0=%s,%s", plan->overlay, plan->disk);
    if (plan->root_partition)
        arguments_add_format(arguments, "root=/dev/ubda%u", plan->root_partition);
    else
        arguments_add(arguments, "root=/dev/ubda");
    arguments_add(arguments, "rw");
}

static void add_network(struct arguments *arguments, const struct machine_plan *plan)
{
    char slirp[PATH_MAX];

    if (plan->net == MACHINE_NET_USER &&
        (process_find(plan->search_path, "slirp-fullbolt", slirp) || process_find(plan->search_path, "slirp", slirp)))
        arguments_add_format(arguments, "eth0=slirp,,%s", slirp);
}

static void add_console(struct arguments *arguments, const struct machine_plan *plan)
{
    arguments_add(arguments, "con=null");
    arguments_add(arguments, "ssl=null");
    if (plan->serial == MACHINE_SERIAL_NONE)
        return;
    /* As a serial port, so that the guest's init puts a login there. */
    arguments_add(arguments, "ssl0=fd:0,fd:1");
    arguments_add(arguments, "console=ttyS0");
}

/* Its memory is a file: in a tmpfs, whatever the user's TMPDIR is. */
static void add_environment(struct arguments *environment, const char *preload)
{
    if (!access(SHARED, W_OK))
        arguments_add(environment, "TMPDIR=" SHARED);
    if (preload)
        arguments_add_format(environment, "LD_PRELOAD=%s", preload);
}

static int command(const struct machine_plan *plan, struct hypervisor_command *command_out, struct error *error)
{
    struct arguments *arguments = &command_out->arguments;
    char program[PATH_MAX];
    size_t length = 0;

    if (find_program(plan->search_path, program, error))
        return error ? error->code : ERROR_UNSUPPORTED;
    arguments_add(arguments, program);
    arguments_add_format(arguments, "mem=%lluM", (unsigned long long)(plan->memory_bytes / MIB));
    /* Else in the user's home. */
    arguments_add_format(arguments, "uml_dir=%s/", plan->folder);
    arguments_add(arguments, "umid=" UMID);
    add_root(arguments, plan);
    add_network(arguments, plan);
    add_console(arguments, plan);
    for (size_t i = 0; i < plan->extra_count; i++)
        arguments_add(arguments, plan->extra[i]);
    add_environment(&command_out->environment, plan->uml_preload);
    if (arguments->failed || command_out->environment.failed)
        return error_set(error, ERROR_SYSTEM, "no memory for User-mode Linux's arguments");
    for (size_t i = 0; i < arguments->count; i++)
        length += strlen(arguments->items[i]) + 1;
    return length < KERNEL_LINE ? 0 : error_set(error, ERROR_UNSUPPORTED, "User-mode Linux's command line is too long");
}

/* What it leaves when it is killed. */
static void finish(const struct machine_plan *plan)
{
    auto_free char *path = path_join(plan->folder, UMID);

    if (path)
        file_remove(AT_FDCWD, path, NULL);
}

/* What the kernel said last before it gave up, in one line; or the reason that is known. */
static int tell_trial(const struct buffer *output, const char *preload, struct error *error)
{
    const char *text = output->size ? (const char *)output->bytes : "", *panic = strstr(text, "Kernel panic");

    if (strstr(text, FAILED_STATE))
        return error_set(error, ERROR_UNSUPPORTED,
                         "its kernel does not know all registers of this processor%s", preload ? "" :
                         ", and the module that mends that is not installed");
    if (panic)
        return error_set(error, ERROR_UNSUPPORTED, "%.*s", (int)strcspn(panic, "\n"), panic);
    return error_set(error, ERROR_UNSUPPORTED, "its kernel does not start");
}

int uml_try(const char *search_path, const char *preload, unsigned timeout_ms, struct error *error)
{
    cleanup(buffer_finish) struct buffer output = {0};
    cleanup(arguments_finish) struct arguments arguments = {0};
    /* The host's files as its root, read-only; when its first program ends well, the kernel panics with status 0. */
    static const char *const words[] = {"mem=64M", "con=null", "con0=null,fd:1", "ssl=null", "rootfstype=hostfs",
                                        "root=/dev/root", "ro", "init=/bin/true"};
    char program[PATH_MAX], env[PATH_MAX];
    int status, result = find_program(search_path, program, error);

    if (result)
        return result;
    if (!process_find(search_path, "env", env))
        return machine_missing("env", "coreutils", error);
    arguments_add(&arguments, "env");
    add_environment(&arguments, preload);
    arguments_add(&arguments, program);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        arguments_add(&arguments, words[i]);
    if (arguments.failed)
        return error_set(error, ERROR_SYSTEM, "no memory to try User-mode Linux");
    result = process_try(env, (const char *const *)arguments.items, timeout_ms, &output, &status, error);
    if (result)
        return result;
    return output.size && strstr((const char *)output.bytes, "exitcode=0x00000000")
               ? 0
               : tell_trial(&output, preload, error);
}

const struct hypervisor hypervisor_uml = {
    .name = "uml",
    .title = "User-mode Linux",
    .needs_root = true,
    .find = find,
    .check = check,
    .prepare = prepare,
    .command = command,
    .finish = finish,
};
