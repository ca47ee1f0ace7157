/* QEMU: see qemu.h. */
#include "vm/qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
#include "format/foreign.h"
#include "format/json.h"
#include "vm/machines.h"
#include "vm/tpm.h"

#define SYSTEM           "qemu-system-x86_64"
#define UEFI_CODE        "/usr/share/OVMF/OVMF_CODE_4M.fd"
#define UEFI_VARIABLES   "/usr/share/OVMF/OVMF_VARS_4M.fd"
#define UEFI_SIZE_MAX    (64 * MIB)
#define SOCKET_PATH_MAX  sizeof(((struct sockaddr_un *)NULL)->sun_path)
#define MODULES          "/usr/lib/x86_64-linux-gnu/qemu"

static bool any_is_there(const char *const *paths)
{
    for (; *paths; paths++)
        if (!access(*paths, R_OK))
            return true;
    return false;
}

int qemu_find_image_program(const char *search_path, char path[PATH_MAX], struct error *error)
{
    return process_find(search_path, "qemu-img", path) ? 0 : machine_missing("qemu-img", "qemu-utils", error);
}

static int find_firmware(const struct machine_plan *plan, struct error *error)
{
    static const char *const bios[] = {"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin",
                                       "/usr/local/share/qemu/bios-256k.bin", NULL};

    if (plan->firmware == MACHINE_UEFI)
        return access(UEFI_CODE, R_OK) || access(UEFI_VARIABLES, R_OK)
                   ? machine_missing("the UEFI for virtual machines (" UEFI_CODE ")", "ovmf", error)
                   : 0;
    return any_is_there(bios) ? 0 : machine_missing("the BIOS for virtual machines (bios-256k.bin)", "seabios", error);
}

/* A display is a module of its own where QEMU comes as Debian's. */
static int find_display(const struct machine_plan *plan, struct error *error)
{
    if (access(MODULES, R_OK))
        return 0;
    if (plan->display == MACHINE_DISPLAY_GTK && access(MODULES "/ui-gtk.so", R_OK))
        return machine_missing("QEMU's window", "qemu-system-gui", error);
    if (plan->display == MACHINE_DISPLAY_SPICE && access(MODULES "/ui-spice-core.so", R_OK))
        return machine_missing("QEMU's SPICE", "qemu-system-modules-spice", error);
    return 0;
}

static int find(const struct machine_plan *plan, struct error *error)
{
    struct tpm_programs tpm;
    char path[PATH_MAX];
    int result;

    if (!process_find(plan->search_path, SYSTEM, path))
        return machine_missing(SYSTEM, "qemu-system-x86", error);
    result = qemu_find_image_program(plan->search_path, path, error);
    if (!result)
        result = find_firmware(plan, error);
    if (!result && plan->tpm)
        result = tpm_find(plan->search_path, &tpm, error);
    return result ? result : find_display(plan, error);
}

static int check(const struct machine_plan *plan, struct error *error)
{
    const char *socket = plan->display_socket;
    int result = machine_check_memory(plan, error);

    if (result)
        return result;
    if (plan->forward_count && plan->net != MACHINE_NET_USER)
        return error_set(error, ERROR_INVALID, "ports are forwarded by --net user only");
    if (socket && strlen(socket) >= SOCKET_PATH_MAX)
        return error_set(error, ERROR_UNSUPPORTED, "%s is too long for the path of a socket", socket);
    return machine_check_forwards(plan, error);
}

int qemu_make_overlay(const char *image_program, const char *disk, const char *overlay, struct error *error)
{
    const char *arguments[] = {"qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disk, overlay, NULL};

    return process_run(image_program, arguments, NULL, error);
}

/* An overlay that is kept does not name its disk, whose path is another one each time: it is checked by itself. */
static int make_kept_overlay(const char *image_program, const char *disk, const char *overlay, struct error *error)
{
    char size[32];
    const char *arguments[] = {"qemu-img", "create", "-q", "-f", "qcow2", overlay, size, NULL};
    struct stat status;

    if (stat(disk, &status))
        return error_set_errno(error, errno, "cannot use the disk %s", disk);
    snprintf(size, sizeof(size), "%llu", (unsigned long long)status.st_size);
    return process_run(image_program, arguments, NULL, error);
}

static int make_variables(const char *path, struct error *error)
{
    cleanup(buffer_finish) struct buffer bytes = {0};
    int result;

    if (!access(path, F_OK))
        return 0;
    result = file_read(AT_FDCWD, UEFI_VARIABLES, UEFI_SIZE_MAX, &bytes, error);
    return result ? result
                  : file_write_atomic(AT_FDCWD, path, bytes.bytes, bytes.size, FILE_DURABLE | FILE_PRIVATE, error);
}

/* A file name for qemu-img that opens the overlay without what is below it. */
static char *alone(const char *overlay)
{
    struct json_writer *writer = json_writer_create();
    auto_free char *text = NULL;

    json_put_text(writer, "driver", "qcow2");
    json_begin_object(writer, "file");
    json_put_text(writer, "driver", "file");
    json_put_text(writer, "filename", overlay);
    json_end(writer);
    json_put_null(writer, "backing");
    text = json_print(writer);
    return text ? text_format("json:%s", text) : NULL;
}

int qemu_overlay_is_empty(const char *search_path, const char *overlay, bool *empty_out, struct error *error)
{
    cleanup(buffer_finish) struct buffer map = {0};
    auto_free char *name = alone(overlay);
    const char *arguments[] = {"qemu-img", "map", "--output=json", name, NULL};
    char program[PATH_MAX];
    int result = qemu_find_image_program(search_path, program, error);

    if (!result && !name)
        result = error_set(error, ERROR_SYSTEM, "no memory to look at %s", overlay);
    if (!result)
        result = process_run(program, arguments, &map, error);
    return result ? result : foreign_map_is_empty(map.bytes, map.size, empty_out, error);
}

int qemu_rebase(const char *search_path, const char *overlay, const char *before, const char *after,
                struct error *error)
{
    char program[PATH_MAX];
    const char *set[] = {"qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", before, overlay, NULL};
    const char *move[] = {"qemu-img", "rebase", "-q", "-f", "qcow2", "-F", "raw", "-b", after, overlay, NULL};
    const char *forget[] = {"qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", "", overlay, NULL};
    int result = qemu_find_image_program(search_path, program, error);

    if (!result)
        result = process_run(program, set, NULL, error);
    if (!result)
        result = process_run(program, move, NULL, error);
    return result ? result : process_run(program, forget, NULL, error);
}

static int prepare_snapshot(const struct machine_plan *plan, const char *program, struct error *error)
{
    unlink(plan->snapshot);
    return make_kept_overlay(program, plan->disk, plan->snapshot, error);
}

static struct tpm tpm_of(const struct machine_plan *plan)
{
    return (struct tpm){.search_path = plan->search_path, .folder = plan->tpm_folder, .ca_folder = plan->tpm_ca,
                        .name = plan->name, .bound = plan->throw_away};
}

/* A TPM is last: it waits for the machine. */
static int start_tpm(const struct machine_plan *plan, struct error *error)
{
    struct tpm tpm = tpm_of(plan);

    return plan->tpm ? tpm_start(&tpm, plan->tpm_socket, error) : 0;
}

static void finish(const struct machine_plan *plan)
{
    struct tpm tpm = tpm_of(plan);

    if (plan->tpm)
        tpm_stop(&tpm, plan->tpm_socket);
}

static int prepare(const struct machine_plan *plan, struct error *error)
{
    char program[PATH_MAX];
    int result = qemu_find_image_program(plan->search_path, program, error);

    if (!result && plan->overlay && !plan->disk_is_iso && access(plan->overlay, F_OK))
        result = plan->throw_away ? qemu_make_overlay(program, plan->disk, plan->overlay, error)
                                  : make_kept_overlay(program, plan->disk, plan->overlay, error);
    if (!result && plan->snapshot)
        result = prepare_snapshot(plan, program, error);
    if (!result && plan->firmware == MACHINE_UEFI)
        result = make_variables(plan->variables, error);
    return result ? result : start_tpm(plan, error);
}

/* As a value inside one of QEMU's comma-separated options: commas are doubled. Heap; NULL: no memory. */
static char *escape_commas(const char *text)
{
    char *escaped = malloc(2 * strlen(text) + 1), *to = escaped;

    for (; escaped && *text; text++) {
        if (*text == ',')
            *to++ = ',';
        *to++ = *text;
    }
    if (escaped)
        *to = '\0';
    return escaped;
}

/* OPTION, and as its value BEFORE followed by TEXT, escaped. */
static void add_escaped(struct arguments *arguments, const char *option, const char *before, const char *text)
{
    auto_free char *escaped = escape_commas(text);

    if (escaped)
        arguments_add_option(arguments, option, "%s%s", before, escaped);
    else
        arguments->failed = true;
}

static void add_processor(struct arguments *arguments, const struct machine_plan *plan)
{
    const char *model = "max";

    /* A processor with AMD-V that TCG can play; with KVM the host's own has what there is. */
    if (plan->nested && strcmp(plan->accelerator, "kvm"))
        model = "EPYC";
    arguments_add_option(arguments, "-accel", "%s", plan->accelerator);
    arguments_add_option(arguments, "-cpu", "%s", model);
    arguments_add_option(arguments, "-m", "%llu", (unsigned long long)(plan->memory_bytes / MIB));
    arguments_add_option(arguments, "-smp", "%u", plan->cpu_count);
}

static void add_firmware(struct arguments *arguments, const struct machine_plan *plan)
{
    if (plan->firmware == MACHINE_UEFI) {
        arguments_add_option(arguments, "-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" UEFI_CODE);
        add_escaped(arguments, "-drive", "if=pflash,unit=1,format=raw,file=", plan->variables);
    }
    if (plan->tpm) {
        add_escaped(arguments, "-chardev", "socket,id=tpm,path=", plan->tpm_socket);
        arguments_add_option(arguments, "-tpmdev", "emulator,id=tpm,chardev=tpm");
        arguments_add_option(arguments, "-device", "%s,tpmdev=tpm",
                             plan->firmware == MACHINE_UEFI ? "tpm-crb" : "tpm-tis");
    }
}

/*
 * A CD-ROM that is booted from before all else. A guest is told of its errors: with rerror=stop QEMU 7.2 ends in an
 * assertion (ide_restart_bh) when it goes on.
 */
static void add_cdrom(struct arguments *arguments, const char *path, const char *node)
{
    auto_free char *escaped = escape_commas(path);

    if (!escaped) {
        arguments->failed = true;
        return;
    }
    arguments_add_option(arguments, "-blockdev",
                         "driver=raw,node-name=%s,read-only=on,file.driver=file,file.filename=%s", node, escaped);
    arguments_add_option(arguments, "-device", "ide-cd,drive=%s,bootindex=1", node);
}

/* A qcow2 NODE in the file at PATH, over the node BELOW. */
static void add_layer(struct arguments *arguments, const char *node, const char *path, const char *below,
                      bool read_only, bool throw_away)
{
    const char *on[] = {"off", "on"};
    auto_free char *escaped = escape_commas(path);

    if (!escaped) {
        arguments->failed = true;
        return;
    }
    arguments_add_option(arguments, "-blockdev",
                         "driver=qcow2,node-name=%s,backing=%s,read-only=%s,discard=unmap,cache.no-flush=%s,"
                         "file.driver=file,file.node-name=%s" QEMU_NODE_FILE
                         ",file.cache.no-flush=%s,file.discard=unmap,"
                         "file.filename=%s",
                         node, below, on[read_only], on[throw_away], node, on[throw_away], escaped);
}

/*
 * The disk: its nodes have names, so that a machine whose base has gone can be given another one by QMP. A read that
 * fails stops the machine instead of telling the guest, which would take its disk for broken.
 */
static void add_disk(struct arguments *arguments, const struct machine_plan *plan)
{
    if (plan->disk_is_iso) {
        add_cdrom(arguments, plan->disk, QEMU_NODE_DISK);
        return;
    }
    add_escaped(arguments, "-blockdev",
                "driver=raw,node-name=" QEMU_NODE_BASE ",read-only=on,file.driver=file,file.filename=", plan->disk);
    add_layer(arguments, plan->snapshot ? QEMU_NODE_KEPT : QEMU_NODE_DISK, plan->overlay, QEMU_NODE_BASE,
              plan->snapshot != NULL, plan->throw_away);
    if (plan->snapshot)
        add_layer(arguments, QEMU_NODE_DISK, plan->snapshot, QEMU_NODE_KEPT, false, true);
    arguments_add_option(arguments, "-device",
                         "virtio-blk-pci,id=disk,drive=" QEMU_NODE_DISK ",bootindex=2,rerror=stop,werror=stop");
}

static void add_network(struct arguments *arguments, const struct machine_plan *plan)
{
    if (plan->net == MACHINE_NET_NONE) {
        arguments_add_option(arguments, "-nic", "none");
        return;
    }
    if (plan->net == MACHINE_NET_BRIDGE)
        add_escaped(arguments, "-netdev", "bridge,id=network,br=", plan->bridge);
    else {
        char forwards[MACHINE_FORWARDS_MAX * sizeof(",hostfwd=tcp:127.0.0.1:65535-:65535")] = "";
        size_t used = 0;

        for (size_t i = 0; i < plan->forward_count && i < MACHINE_FORWARDS_MAX; i++)
            used += (size_t)snprintf(forwards + used, sizeof(forwards) - used, ",hostfwd=tcp:127.0.0.1:%u-:%u",
                                     plan->forwards[i].host_port, plan->forwards[i].guest_port);
        arguments_add_option(arguments, "-netdev", "user,id=network%s", forwards);
    }
    /* Without its ROM: what boots is the disk, never the network. */
    arguments_add_option(arguments, "-device", "virtio-net-pci,netdev=network,romfile=%s%s", plan->mac ? ",mac=" : "",
                         plan->mac ? plan->mac : "");
}

static void add_display(struct arguments *arguments, const struct machine_plan *plan)
{
    switch (plan->display) {
    case MACHINE_DISPLAY_NONE:
        arguments_add_option(arguments, "-display", "none");
        break;
    case MACHINE_DISPLAY_GTK:
        arguments_add_option(arguments, "-display", "gtk");
        break;
    case MACHINE_DISPLAY_VNC:
        add_escaped(arguments, "-display", "vnc=unix:", plan->display_socket);
        break;
    case MACHINE_DISPLAY_SPICE:
        add_escaped(arguments, "-spice", "unix=on,disable-ticketing=on,addr=", plan->display_socket);
        break;
    }
}

static void add_consoles(struct arguments *arguments, const struct machine_plan *plan)
{
    switch (plan->serial) {
    case MACHINE_SERIAL_TERMINAL:
        arguments_add_option(arguments, "-serial", "mon:stdio");
        break;
    case MACHINE_SERIAL_NONE:
        arguments_add_option(arguments, "-serial", "none");
        break;
    case MACHINE_SERIAL_FILE:
        add_escaped(arguments, "-chardev", "file,id=serial,path=", plan->serial_path);
        arguments_add_option(arguments, "-serial", "chardev:serial");
        break;
    case MACHINE_SERIAL_SOCKET:
        if (plan->serial_log) {
            auto_free char *log = escape_commas(plan->serial_log);

            arguments_add_option(arguments, "-chardev",
                                 "socket,id=serial,fd=%d,server=on,wait=off,logfile=%s,logappend=on", plan->serial_fd,
                                 log ? log : "");
            arguments->failed = arguments->failed || !log;
        } else {
            arguments_add_option(arguments, "-chardev", "socket,id=serial,fd=%d,server=on,wait=off", plan->serial_fd);
        }
        arguments_add_option(arguments, "-serial", "chardev:serial");
        break;
    }
    if (plan->serial != MACHINE_SERIAL_TERMINAL)
        arguments_add_option(arguments, "-monitor", "none");
    if (plan->control_fd) {
        arguments_add_option(arguments, "-chardev", "socket,id=control,fd=%d,server=on,wait=off", plan->control_fd);
        arguments_add_option(arguments, "-mon", "chardev=control,mode=control");
    }
}

static int command(const struct machine_plan *plan, struct hypervisor_command *command_out, struct error *error)
{
    struct arguments *arguments = &command_out->arguments;
    char program[PATH_MAX];

    if (!process_find(plan->search_path, SYSTEM, program))
        return machine_missing(SYSTEM, "qemu-system-x86", error);
    arguments_add(arguments, program);
    add_escaped(arguments, "-name", "", plan->name);
    arguments_add_option(arguments, "-machine", "q35");
    add_processor(arguments, plan);
    add_firmware(arguments, plan);
    add_display(arguments, plan);
    add_consoles(arguments, plan);
    if (plan->pid_file)
        arguments_add_option(arguments, "-pidfile", "%s", plan->pid_file);
    if (plan->reboot_ends)
        arguments_add(arguments, "-no-reboot");
    add_disk(arguments, plan);
    if (plan->iso)
        add_cdrom(arguments, plan->iso, QEMU_NODE_CDROM);
    add_network(arguments, plan);
    arguments_add_option(arguments, "-device", "virtio-rng-pci");
    for (size_t i = 0; i < plan->extra_count; i++)
        arguments_add(arguments, plan->extra[i]);
    return arguments->failed ? error_set(error, ERROR_SYSTEM, "no memory for QEMU's arguments") : 0;
}

const struct hypervisor hypervisor_qemu = {
    .name = "qemu",
    .title = "QEMU",
    .overlay = MACHINE_FILE_OVERLAY,
    .words = "qemu.log",
    .mending = MENDING_BY_QMP,
    .find = find,
    .check = check,
    .prepare = prepare,
    .command = command,
    .finish = finish,
};
