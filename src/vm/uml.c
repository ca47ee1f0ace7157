/* User-mode Linux: see uml.h. */
#include "vm/uml.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "vm/uml_keeper.h"
#include "vm/user_net.h"

#define PROGRAM      "linux.uml"
#define SHARED       "/dev/shm"
#define MEMORY_MIN   (64 * MIB)
#define SOCKET_PATH_MAX sizeof(((struct sockaddr_un *)NULL)->sun_path)
#define KERNEL_LINE  2048 /* UML's own limit for all its arguments */
/* Else the guest's root mounts the host's files with its user's rights. Below what is no folder there is no path. */
#define NO_HOST_FILES "hostfs=/dev/null"
#define FAILED_STATE  "ptrace set fp regs failed"

static pid_t prepared_network; /* of the machine that is thrown away, from prepare to finish */

static int find_program(const char *search_path, char path[PATH_MAX], struct error *error)
{
    return process_find(search_path, PROGRAM, path) ? 0 : machine_missing(PROGRAM, "user-mode-linux", error);
}

static int find(const struct machine_plan *plan, struct error *error)
{
    char path[PATH_MAX];
    int result = find_program(plan->search_path, path, error);

    return result || plan->net != MACHINE_NET_USER ? result : user_net_find(error);
}

/* What a kernel that is a program has not. NULL: PLAN asks for nothing of it. */
static const char *asks_too_much(const struct machine_plan *plan)
{
    if (plan->firmware == MACHINE_UEFI)
        return "firmware (--uefi): it mounts the root file system itself";
    if (plan->tpm)
        return "TPM (--tpm)";
    if (plan->iso || plan->disk_is_iso)
        return "CD-ROMs: it needs a disk with a root file system";
    if (plan->nested)
        return "virtual machines inside (--nested)";
    if (plan->cpu_count > 1)
        return "more than one processor (--cpus)";
    if (plan->display != MACHINE_DISPLAY_NONE)
        return "display (--display)";
    if (plan->net == MACHINE_NET_BRIDGE)
        return "bridges (--net bridge): it has a network of its own (--net user), with forwarded ports";
    if (plan->serial == MACHINE_SERIAL_FILE)
        return "serial port in a file (--serial FILE)";
    if (plan->snapshot)
        return "snapshots of a machine that keeps its state (--snapshot): 'circular boot' throws away what is written";
    return NULL;
}

/* Its parser splits at commas and spaces, that of LD_PRELOAD at spaces and colons; neither knows quotes. */
static int check_path(const char *path, struct error *error)
{
    return strpbrk(path, ", \t\n:")
               ? error_set(error, ERROR_UNSUPPORTED,
                           "User-mode Linux cannot use a path with commas, colons or spaces: %s", path)
               : 0;
}

static int check(const struct machine_plan *plan, struct error *error)
{
    const char *too_much = asks_too_much(plan);
    char memory[SIZE_TEXT];
    int result;

    if (too_much)
        return error_set(error, ERROR_UNSUPPORTED, "User-mode Linux has no %s", too_much);
    if (!plan->uml_preload)
        return error_set(error, ERROR_UNSUPPORTED, "the module for User-mode Linux (uml_preload.so) is not installed");
    if (plan->memory_bytes < MEMORY_MIN)
        return error_set(error, ERROR_UNSUPPORTED, "User-mode Linux needs 64 MiB of memory, not %s",
                         size_format(plan->memory_bytes, memory));
    result = check_path(plan->uml_preload, error);
    if (!result)
        result = machine_check_forwards(plan, error);
    return result ? result : machine_check_memory(plan, error);
}

/* What a machine that was killed has left would be in the way of UML. */
static void clean(const struct machine_plan *plan)
{
    static const char *const names[] = {UML_UMID, UML_FILE_ENDS, USER_NET_SOCKET, USER_NET_FRAMES};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        auto_free char *path = path_join(plan->folder, names[i]);

        if (path)
            file_remove(AT_FDCWD, path, NULL);
    }
}

static int prepare(const struct machine_plan *plan, struct error *error)
{
    const char *paths[] = {plan->disk, plan->overlay, plan->folder};
    int result = 0;

    for (size_t i = 0; !result && i < sizeof(paths) / sizeof(paths[0]); i++)
        result = check_path(paths[i], error);
    if (!result && strlen(plan->folder) + sizeof("/" UML_UMID "/mconsole") > SOCKET_PATH_MAX)
        result = error_set(error, ERROR_UNSUPPORTED, "the path %s is too long for User-mode Linux", plan->folder);
    if (result)
        return result;
    clean(plan);
    /* One that is kept has a process for this, see keep. */
    if (plan->throw_away && plan->net == MACHINE_NET_USER)
        result = prepared_network = user_net_start(plan, error);
    return result < 0 ? result : 0;
}

static pid_t network(void)
{
    return prepared_network > 0 ? prepared_network : 0;
}

static void finish(const struct machine_plan *plan)
{
    user_net_end(prepared_network);
    prepared_network = 0;
    clean(plan);
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
    if (plan->net == MACHINE_NET_USER)
        arguments_add_format(arguments, "eth0=daemon,%s,unix,%s/" USER_NET_SOCKET, plan->mac ? plan->mac : "",
                             plan->folder);
}

static void add_console(struct arguments *arguments, const struct machine_plan *plan)
{
    arguments_add(arguments, "con=null");
    arguments_add(arguments, "ssl=null");
    if (plan->serial == MACHINE_SERIAL_NONE)
        return;
    /* As a serial port, so that the guest's init puts a login there. */
    arguments_add(arguments, plan->serial == MACHINE_SERIAL_SOCKET ? "ssl0=fd:0" : "ssl0=fd:0,fd:1");
    arguments_add(arguments, "console=ttyS0");
}

/* What the module does besides: see uml_preload.c. */
static void add_mending(struct arguments *environment, const struct machine_plan *plan)
{
    arguments_add_format(environment, "CIRCULAR_UML_DISK=%s", plan->disk);
    if (plan->net == MACHINE_NET_USER)
        arguments_add_format(environment, "CIRCULAR_UML_PEER=%s/" USER_NET_FRAMES, plan->folder);
    if (plan->reboot_ends)
        arguments_add(environment, "CIRCULAR_UML_ENDS=/");
    else
        arguments_add_format(environment, "CIRCULAR_UML_ENDS=%s/" UML_FILE_ENDS, plan->folder);
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
    arguments_add(arguments, "umid=" UML_UMID);
    add_root(arguments, plan);
    add_network(arguments, plan);
    add_console(arguments, plan);
    arguments_add(arguments, NO_HOST_FILES);
    for (size_t i = 0; i < plan->extra_count; i++)
        arguments_add(arguments, plan->extra[i]);
    add_environment(&command_out->environment, plan->uml_preload);
    add_mending(&command_out->environment, plan);
    if (arguments->failed || command_out->environment.failed)
        return error_set(error, ERROR_SYSTEM, "no memory for User-mode Linux's arguments");
    for (size_t i = 0; i < arguments->count; i++)
        length += strlen(arguments->items[i]) + 1;
    return length < KERNEL_LINE ? 0 : error_set(error, ERROR_UNSUPPORTED, "User-mode Linux's command line is too long");
}

static int keep(const struct machine_plan *plan, const int *fds, size_t fd_count, struct error *error)
{
    cleanup(hypervisor_command_finish) struct hypervisor_command words = {0};
    int process = 0, result = command(plan, &words, error);

    if (!result && plan->net == MACHINE_NET_USER)
        process = user_net_start(plan, error);
    if (!result)
        result = process < 0 ? process : uml_keep(plan, &words, process, fds, fd_count, error);
    user_net_end(process);
    clean(plan);
    return result;
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

    if (!result && preload)
        result = check_path(preload, error);
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
    .overlay = "overlay.cow",
    .words = "uml.log",
    .mending = MENDING_BY_ITSELF,
    .needs_root = true,
    .find = find,
    .check = check,
    .prepare = prepare,
    .command = command,
    .keep = keep,
    .network = network,
    .finish = finish,
};
