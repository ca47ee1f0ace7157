/* Xen: see xen.h. */
#include "vm/xen.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "vm/qemu.h"

#define CAPABILITIES "/proc/xen/capabilities"
#define CAPABILITIES_MAX 4096
#define DEVICE_MODEL "/usr/libexec/xen-qemu-system-i386"
#define CONFIGURATION "xen.cfg" /* in the machine's folder */

/* What boots each type; NULL: its firmware. */
static const struct {
    const char *word, *kernel;
} types[] = {
    [XEN_PV] = {"pv", "/usr/lib/grub-xen/grub-x86_64-xen.bin"},
    [XEN_PVH] = {"pvh", "/usr/lib/grub-xen/grub-i386-xen_pvh.bin"},
    [XEN_HVM] = {"hvm", NULL},
};

/* ---- The configuration ---- */

/* Text of a configuration, as it grows. */
struct text {
    struct buffer bytes;
    bool failed;
};

static void put(struct text *text, const char *string)
{
    text->failed |= !buffer_append(&text->bytes, string, strlen(string));
}

/* Inside a string of xl.cfg, where a backslash is the only way to say a quote, a backslash or a control character. */
static void put_quoted(struct text *text, const char *string)
{
    for (; *string; string++) {
        unsigned char byte = (unsigned char)*string;
        char escaped[8] = {*string};

        if (byte == '"' || byte == '\\')
            snprintf(escaped, sizeof(escaped), "\\%c", byte);
        else if (byte < ' ' || byte == 0x7f)
            snprintf(escaped, sizeof(escaped), "\\x%02x", byte);
        put(text, escaped);
    }
}

static void put_string(struct text *text, const char *key, const char *value)
{
    put(text, key);
    put(text, " = \"");
    put_quoted(text, value);
    put(text, "\"\n");
}

static void put_number(struct text *text, const char *key, unsigned long long value)
{
    char line[80];

    snprintf(line, sizeof(line), "%s = %llu\n", key, value);
    put(text, line);
}

/* One of disk's list. The target comes last: it is all that follows, commas too. */
static void put_disk(struct text *text, const char *what, const char *target)
{
    put(text, "  \"");
    put(text, what);
    put(text, ",target=");
    put_quoted(text, target);
    put(text, "\",\n");
}

static void put_disks(struct text *text, const struct machine_plan *plan, enum xen_type type)
{
    static const char cd[] = "format=raw,vdev=hdc,access=ro,devtype=cdrom";

    put(text, "disk = [\n");
    if (plan->disk_is_iso)
        put_disk(text, cd, plan->disk);
    else if (type == XEN_HVM)
        put_disk(text, "format=qcow2,vdev=hda,access=rw,backendtype=qdisk", plan->overlay);
    else
        put_disk(text, "format=qcow2,vdev=xvda,access=rw,backendtype=qdisk", plan->overlay);
    if (plan->iso && !plan->disk_is_iso)
        put_disk(text, cd, plan->iso);
    put(text, "]\n");
}

static void put_network(struct text *text, const struct machine_plan *plan)
{
    if (plan->net != MACHINE_NET_BRIDGE) {
        put(text, "vif = []\n");
        return;
    }
    put(text, "vif = [ \"bridge=");
    put_quoted(text, plan->bridge);
    if (plan->mac) {
        put(text, ",mac=");
        put_quoted(text, plan->mac);
    }
    put(text, "\" ]\n");
}

static void put_firmware(struct text *text, const struct machine_plan *plan)
{
    put_string(text, "boot", plan->disk_is_iso ? "d" : plan->iso ? "dc" : "c");
    if (plan->firmware == MACHINE_UEFI)
        put_string(text, "firmware", "ovmf");
    if (plan->nested)
        put_number(text, "nestedhvm", 1);
    put_string(text, "serial", "pty");
    put_number(text, "vnc", 0);
    put_number(text, "nographic", 1);
}

char *xen_configuration(const struct machine_plan *plan, enum xen_type type, const char *name)
{
    struct text text = {0};

    put_string(&text, "name", name);
    put_string(&text, "type", types[type].word);
    if (types[type].kernel)
        put_string(&text, "kernel", types[type].kernel);
    put_number(&text, "memory", plan->memory_bytes / MIB);
    put_number(&text, "vcpus", plan->cpu_count);
    put_disks(&text, plan, type);
    put_network(&text, plan);
    if (type == XEN_HVM)
        put_firmware(&text, plan);
    put_string(&text, "on_poweroff", "destroy");
    put_string(&text, "on_reboot", plan->reboot_ends ? "destroy" : "restart");
    put_string(&text, "on_crash", "destroy");
    text.failed |= !buffer_append(&text.bytes, "", 1);
    if (text.failed)
        buffer_finish(&text.bytes);
    return (char *)text.bytes.bytes;
}

char *xen_domain_name(const struct machine_plan *plan, char name[XEN_NAME_SIZE])
{
    size_t length = (size_t)snprintf(name, XEN_NAME_SIZE, "circular-%.50s", plan->name);

    for (char *at = name; *at; at++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *at))
            *at = '_';
    if (plan->throw_away)
        snprintf(name + length, XEN_NAME_SIZE - length, "-%d", (int)getpid());
    return name;
}

/* ---- What the host has ---- */

static int check_dom0(struct error *error)
{
    cleanup(buffer_finish) struct buffer text = {0};

    if (!file_read(AT_FDCWD, CAPABILITIES, CAPABILITIES_MAX, &text, NULL) && buffer_append(&text, "", 1) &&
        strstr((const char *)text.bytes, "control_d"))
        return 0;
    return error_set(
        error, ERROR_UNSUPPORTED,
        "this is no Xen host: " CAPABILITIES " does not say control_d. Install the Debian package "
        "xen-system-amd64 (apt install xen-system-amd64) and start the computer with Xen, which its boot menu "
        "then has");
}

/* In a folder that an ordinary user's search path lacks. */
static int find_xl(const char *search_path, char path[PATH_MAX], struct error *error)
{
    return process_find(search_path, "xl", path) || process_find(PROCESS_SYSTEM_PATH, "xl", path)
               ? 0
               : machine_missing("xl", "xen-utils-4.17", error);
}

int xen_find_host(const char *search_path, char path[PATH_MAX], struct error *error)
{
    int result = check_dom0(error);

    return result ? result : find_xl(search_path, path, error);
}

static int find(const struct machine_plan *plan, enum xen_type type, struct error *error)
{
    char path[PATH_MAX];
    int result = xen_find_host(plan->search_path, path, error);

    if (result)
        return result;
    if (access(DEVICE_MODEL, X_OK))
        return machine_missing("QEMU for Xen", "qemu-system-xen", error);
    if (types[type].kernel && access(types[type].kernel, R_OK))
        return machine_missing("GRUB for Xen guests", "grub-xen-host", error);
    return qemu_find_image_program(plan->search_path, path, error);
}

static int find_pv(const struct machine_plan *plan, struct error *error)
{
    return find(plan, XEN_PV, error);
}

static int find_pvh(const struct machine_plan *plan, struct error *error)
{
    return find(plan, XEN_PVH, error);
}

static int find_hvm(const struct machine_plan *plan, struct error *error)
{
    return find(plan, XEN_HVM, error);
}

/* ---- What it cannot do ---- */

/* NULL: nothing that PLAN asks for. */
static const char *lacks(const struct machine_plan *plan, enum xen_type type)
{
    if (plan->tpm)
        return type == XEN_HVM
                   ? "a TPM (--tpm): QEMU for Xen is built without one in Debian"
                   : "a TPM (--tpm), not with PV and PVH: theirs would need a domain of its own, which Debian "
                     "does not have";
    if (plan->net == MACHINE_NET_USER && plan->forward_count)
        return "forwarded ports (--forward): it has bridges (--net bridge=NAME) or no network";
    if (plan->display != MACHINE_DISPLAY_NONE)
        return "a display (--display) here: its console is in the terminal";
    if (plan->serial != MACHINE_SERIAL_TERMINAL && plan->serial != MACHINE_SERIAL_NONE)
        return "a serial port other than the terminal";
    if (type == XEN_HVM)
        return NULL;
    if (plan->iso || plan->disk_is_iso)
        return "CD-ROMs with PV and PVH: --vm xen-hvm has";
    if (plan->firmware == MACHINE_UEFI)
        return "firmware (--uefi) with PV and PVH: --vm xen-hvm has";
    return plan->nested ? "virtual machines inside (--nested) with PV and PVH: --vm xen-hvm has" : NULL;
}

static int check(const struct machine_plan *plan, enum xen_type type, struct error *error)
{
    const char *what = lacks(plan, type);

    return what ? error_set(error, ERROR_UNSUPPORTED, "Xen does not have %s", what) : 0;
}

static int check_pv(const struct machine_plan *plan, struct error *error)
{
    return check(plan, XEN_PV, error);
}

static int check_pvh(const struct machine_plan *plan, struct error *error)
{
    return check(plan, XEN_PVH, error);
}

static int check_hvm(const struct machine_plan *plan, struct error *error)
{
    return check(plan, XEN_HVM, error);
}

/* ---- Running ---- */

static int make_overlay(const struct machine_plan *plan, struct error *error)
{
    char program[PATH_MAX];
    int result;

    if (plan->disk_is_iso || !access(plan->overlay, F_OK))
        return 0;
    result = qemu_find_image_program(plan->search_path, program, error);
    return result ? result : qemu_make_overlay(program, plan->disk, plan->overlay, error);
}

static int prepare(const struct machine_plan *plan, enum xen_type type, struct error *error)
{
    char name[XEN_NAME_SIZE];
    auto_free char *text = xen_configuration(plan, type, xen_domain_name(plan, name));
    auto_free char *path = path_join(plan->folder, CONFIGURATION);
    int result;

    if (!text || !path)
        return error_set(error, ERROR_SYSTEM, "no memory for a domain");
    result = make_overlay(plan, error);
    return result ? result : file_write_atomic(AT_FDCWD, path, text, strlen(text), FILE_PRIVATE, error);
}

static int prepare_pv(const struct machine_plan *plan, struct error *error)
{
    return prepare(plan, XEN_PV, error);
}

static int prepare_pvh(const struct machine_plan *plan, struct error *error)
{
    return prepare(plan, XEN_PVH, error);
}

static int prepare_hvm(const struct machine_plan *plan, struct error *error)
{
    return prepare(plan, XEN_HVM, error);
}

/* In the foreground until the domain is dead, with its console on the terminal. Extra arguments are "key=value". */
static int command(const struct machine_plan *plan, struct hypervisor_command *command_out, struct error *error)
{
    struct arguments *arguments = &command_out->arguments;
    char program[PATH_MAX];
    int result = find_xl(plan->search_path, program, error);

    if (result)
        return result;
    arguments_add(arguments, program);
    arguments_add(arguments, "create");
    arguments_add(arguments, "-F");
    if (plan->serial == MACHINE_SERIAL_TERMINAL)
        arguments_add(arguments, "-c");
    arguments_add_format(arguments, "%s/" CONFIGURATION, plan->folder);
    for (size_t i = 0; i < plan->extra_count; i++)
        arguments_add(arguments, plan->extra[i]);
    return arguments->failed ? error_set(error, ERROR_SYSTEM, "no memory for xl's arguments") : 0;
}

/* A domain outlives xl when that is killed. */
static void finish(const struct machine_plan *plan)
{
    auto_free char *path = path_join(plan->folder, CONFIGURATION);
    char name[XEN_NAME_SIZE], program[PATH_MAX];
    const char *arguments[] = {"xl", "destroy", xen_domain_name(plan, name), NULL};

    if (!find_xl(plan->search_path, program, NULL))
        process_run(program, arguments, NULL, NULL);
    if (path)
        unlink(path);
}

const struct hypervisor hypervisor_xen = {
    .name = "xen",
    .title = "Xen",
    .find = find_pv,
    .check = check_pv,
    .prepare = prepare_pv,
    .command = command,
    .finish = finish,
};

const struct hypervisor hypervisor_xen_pvh = {
    .name = "xen-pvh",
    .title = "Xen (PVH)",
    .find = find_pvh,
    .check = check_pvh,
    .prepare = prepare_pvh,
    .command = command,
    .finish = finish,
};

const struct hypervisor hypervisor_xen_hvm = {
    .name = "xen-hvm",
    .title = "Xen (HVM)",
    .find = find_hvm,
    .check = check_hvm,
    .prepare = prepare_hvm,
    .command = command,
    .finish = finish,
};
