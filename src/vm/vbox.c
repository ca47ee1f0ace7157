/* VirtualBox: see vbox.h. */
#include "vm/vbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "base/text.h"

#define PROGRAM    "VBoxManage"
#define HEADLESS   "VBoxHeadless"
#define WINDOW     "VirtualBoxVM"
#define DEVICE     "/dev/vboxdrv"
#define SECTOR     512
#define MANAGE_MS  60000
#define DESCRIPTOR "disk.vmdk"   /* in the machine's folder: the published disk, as VirtualBox wants to be told of it */
#define DIFFERENCE "overlay.vdi" /* what is written to it */
#define CONTROLLER "SATA"

/* VirtualBox is not in Debian 12 itself. */
static int find_program(const char *search_path, const char *name, char path[PATH_MAX], struct error *error)
{
    return process_find(search_path, name, path)
               ? 0
               : error_set(error, ERROR_UNSUPPORTED, "%s is missing: install VirtualBox (the Debian package virtualbox "
                           "of unstable, or Oracle's from virtualbox.org)", name);
}

int vbox_try(const char *search_path, unsigned timeout_ms, char *text, size_t size, struct error *error)
{
    const char *arguments[] = {PROGRAM, "--version", NULL};
    cleanup(buffer_finish) struct buffer output = {0};
    char program[PATH_MAX];
    int status, result = find_program(search_path, PROGRAM, program, error);

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

static const char *runner(const struct machine_plan *plan)
{
    return plan->display == MACHINE_DISPLAY_GTK ? WINDOW : HEADLESS;
}

static int find(const struct machine_plan *plan, struct error *error)
{
    char path[PATH_MAX];
    int result = find_program(plan->search_path, PROGRAM, path, error);

    return result ? result : find_program(plan->search_path, runner(plan), path, error);
}

static int check(const struct machine_plan *plan, struct error *error)
{
    const char *too_much = NULL;

    if (plan->display == MACHINE_DISPLAY_VNC || plan->display == MACHINE_DISPLAY_SPICE)
        too_much = "VNC or SPICE: --display is none, or gtk for its own window";
    else if (plan->serial == MACHINE_SERIAL_SOCKET)
        too_much = "serial port on a socket";
    else if (plan->extra_count)
        too_much = "further arguments on its command line";
    if (too_much)
        return error_set(error, ERROR_UNSUPPORTED, "under VirtualBox a machine has no %s", too_much);
    if (plan->forward_count && plan->net != MACHINE_NET_USER)
        return error_set(error, ERROR_INVALID, "ports are forwarded by --net user only");
    if (machine_check_memory(plan, error))
        return error ? error->code : ERROR_UNSUPPORTED;
    return machine_check_forwards(plan, error);
}

/* The name that it has for VirtualBox, whose machines are all in one list: that of its folder, which is its alone. */
static const char *registered_name(const struct machine_plan *plan)
{
    const char *slash = strrchr(plan->folder, '/');

    return slash ? slash + 1 : plan->folder;
}

/* Run VBoxManage with the words up to a NULL. It keeps its list of machines below the user's HOME. */
static int manage(const struct machine_plan *plan, struct error *error, const char *const *words)
{
    const char *arguments[64] = {PROGRAM};
    char program[PATH_MAX];
    cleanup(buffer_finish) struct buffer output = {0};
    size_t count = 1;
    int status, result = find_program(plan->search_path, PROGRAM, program, error);

    while (*words && count < sizeof(arguments) / sizeof(arguments[0]) - 1)
        arguments[count++] = *words++;
    if (!result)
        result = process_try(program, arguments, MANAGE_MS, &output, &status, error);
    if (result || !status)
        return result;
    return error_set(error, ERROR_SYSTEM, "VBoxManage %s ended with status %d: %.*s", arguments[1], status,
                     (int)min_u64(output.size, 600), output.size ? (const char *)output.bytes : "");
}
#define MANAGE(plan, error, ...) manage(plan, error, (const char *const[]){__VA_ARGS__, NULL})

/*
 * The published disk as a raw disk: a text file that names it (VMware's Virtual Disk Format 1.1,
 * "monolithicFlat", which QEMU reads too). VirtualBox knows media by UUIDs.
 */
static int write_descriptor(const struct machine_plan *plan, const char *path, struct error *error)
{
    auto_free char *text = NULL;
    struct stat status;
    uint8_t r[16];

    if (strpbrk(plan->disk, "\"\n"))
        return error_set(error, ERROR_UNSUPPORTED, "VirtualBox cannot use a path with quotes: %s", plan->disk);
    if (stat(plan->disk, &status) || getrandom(r, sizeof(r), 0) != sizeof(r))
        return error_set_errno(error, errno, "cannot describe %s", plan->disk);
    r[6] = (uint8_t)((r[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
    r[8] = (uint8_t)((r[8] & 0x3f) | 0x80);
    text = text_format("# Disk DescriptorFile\nversion=1\nCID=%02x%02x%02x%02x\nparentCID=ffffffff\n"
                       "createType=\"monolithicFlat\"\n\n# Extent description\nRW %llu FLAT \"%s\" 0\n\n"
                       "# The disk Data Base\nddb.virtualHWVersion = \"4\"\nddb.adapterType=\"ide\"\n"
                       "ddb.uuid.image=\"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x\"\n",
                       r[12], r[13], r[14], r[15], (unsigned long long)status.st_size / SECTOR, plan->disk, r[0], r[1],
                       r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15]);
    return text ? file_write_atomic(AT_FDCWD, path, text, strlen(text), FILE_PRIVATE, error)
                : error_set(error, ERROR_SYSTEM, "no memory to describe a disk");
}

static int modify(const struct machine_plan *plan, struct error *error)
{
    const char *name = registered_name(plan);
    const char *net = plan->net == MACHINE_NET_NONE ? "none" : plan->net == MACHINE_NET_USER ? "nat" : "bridged";
    char memory[32], cpus[16];
    int result;

    snprintf(memory, sizeof(memory), "%llu", (unsigned long long)(plan->memory_bytes / MIB));
    snprintf(cpus, sizeof(cpus), "%u", plan->cpu_count);
    result = MANAGE(plan, error, "modifyvm", name, "--memory", memory, "--cpus", cpus, "--firmware",
                    plan->firmware == MACHINE_UEFI ? "efi" : "bios", "--ioapic", "on", "--rtcuseutc", "on", "--audio",
                    "none", "--boot1", plan->iso || plan->disk_is_iso ? "dvd" : "disk", "--nic1", net);
    if (!result && plan->net == MACHINE_NET_BRIDGE)
        result = MANAGE(plan, error, "modifyvm", name, "--bridgeadapter1", plan->bridge);
    if (!result && plan->tpm)
        result = MANAGE(plan, error, "modifyvm", name, "--tpm-type", "2.0");
    if (!result && plan->nested)
        result = MANAGE(plan, error, "modifyvm", name, "--nested-hw-virt", "on");
    if (!result &&
        plan->serial != MACHINE_SERIAL_NONE) /* the process that runs the machine has our terminal; output only */
        result = MANAGE(plan, error, "modifyvm", name, "--uart1", "0x3F8", "4", "--uartmode1", "file",
                        plan->serial == MACHINE_SERIAL_FILE ? plan->serial_path : "/dev/stdout");
    for (size_t i = 0; !result && i < plan->forward_count; i++) {
        char rule[80];

        snprintf(rule, sizeof(rule), "port%zu,tcp,127.0.0.1,%u,,%u", i, plan->forwards[i].host_port,
                 plan->forwards[i].guest_port);
        result = MANAGE(plan, error, "modifyvm", name, "--natpf1", rule);
    }
    return result;
}

static int attach(const struct machine_plan *plan, const char *port, const char *type, const char *medium,
                  struct error *error)
{
    return MANAGE(plan, error, "storageattach", registered_name(plan), "--storagectl", CONTROLLER, "--port", port,
                  "--device", "0", "--type", type, "--medium", medium);
}

/* The published disk is never written: the machine has a differencing image on top of it. */
static int attach_disk(const struct machine_plan *plan, struct error *error)
{
    auto_free char *descriptor = path_join(plan->folder, DESCRIPTOR);
    auto_free char *difference = path_join(plan->folder, DIFFERENCE);
    int result;

    if (plan->disk_is_iso)
        return attach(plan, "0", "dvddrive", plan->disk, error);
    if (!descriptor || !difference)
        return error_set(error, ERROR_SYSTEM, "no memory for a disk");
    result = write_descriptor(plan, descriptor, error);
    if (!result)
        result = MANAGE(plan, error, "createmedium", "disk", "--filename", difference, "--diffparent", descriptor);
    return result ? result : attach(plan, "0", "hdd", difference, error);
}

static int prepare(const struct machine_plan *plan, struct error *error)
{
    const char *name = registered_name(plan);
    int result = MANAGE(plan, error, "createvm", "--name", name, "--ostype", "Linux_64", "--basefolder", plan->folder,
                        "--register");

    if (!result)
        result = modify(plan, error);
    if (!result)
        result = MANAGE(plan, error, "storagectl", name, "--name", CONTROLLER, "--add", "sata", "--portcount", "2");
    if (!result)
        result = attach_disk(plan, error);
    if (!result && plan->iso)
        result = attach(plan, "1", "dvddrive", plan->iso, error);
    return result;
}

static int command(const struct machine_plan *plan, struct hypervisor_command *command_out, struct error *error)
{
    char program[PATH_MAX];
    int result = find_program(plan->search_path, runner(plan), program, error);

    if (result)
        return result;
    arguments_add(&command_out->arguments, program);
    arguments_add_option(&command_out->arguments, "--startvm", "%s", registered_name(plan));
    return command_out->arguments.failed ? error_set(error, ERROR_SYSTEM, "no memory for VirtualBox's arguments") : 0;
}

/* Forget it. Not by unregistervm --delete, which would also delete the disks that the machine's disk is made of. */
static void finish(const struct machine_plan *plan)
{
    const char *name = registered_name(plan);
    auto_free char *descriptor = path_join(plan->folder, DESCRIPTOR);
    auto_free char *difference = path_join(plan->folder, DIFFERENCE);

    MANAGE(plan, NULL, "controlvm", name, "poweroff"); /* fails if it has ended, as it should */
    MANAGE(plan, NULL, "unregistervm", name);
    if (descriptor && difference && !plan->disk_is_iso) {
        MANAGE(plan, NULL, "closemedium", "disk", difference);
        MANAGE(plan, NULL, "closemedium", "disk", descriptor);
    }
    file_empty_folder(AT_FDCWD, plan->folder, NULL);
}

const struct hypervisor hypervisor_vbox = {
    .name = "vbox",
    .title = "VirtualBox",
    .find = find,
    .check = check,
    .prepare = prepare,
    .command = command,
    .finish = finish,
};
