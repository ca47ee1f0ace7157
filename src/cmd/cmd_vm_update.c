/*
 * circular vm update and rollback: put another version of the image under a
 * machine. What the machine has written lies over the blocks of one version and
 * means nothing over those of another; so either there is nothing of it, or
 * (--rebase) what differs between the two versions is copied into it first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "cmd/accelerators.h"
#include "cmd/shared_disk.h"
#include "cmd/vm.h"
#include "vm/qemu.h"

struct update_options {
    bool rebase;
};

static const struct option update_table[] = {
    {"rebase", 0, OPTION_FLAG, NULL, "keep what the machine's disk holds now: copy what differs between the versions",
     offsetof(struct update_options, rebase)},
    {0},
};

/* *NEEDED_OUT: the overlay holds something, and may be moved. INVALID: it does, and may not be. */
static int check_overlay(const struct context *context, const struct vm *vm, const char *overlay,
                         const struct shared_disk *to, bool *needed_out, struct error *error)
{
    const struct update_options *options = context->options;
    uint64_t used = vm_used_bytes(vm);
    const struct hypervisor *hypervisor = vm_hypervisor(&vm->record);
    char size[SIZE_TEXT];
    bool empty = true;
    int result = 0;

    /* Of forms that are not QEMU's nothing is known: what is there may hold something. */
    if (used && hypervisor == &hypervisor_qemu)
        result = qemu_overlay_is_empty(program_search_path(), overlay, &empty, error);
    else
        empty = !used;
    *needed_out = !empty;
    if (result || empty)
        return result;
    if (hypervisor != &hypervisor_qemu)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s has written to its disk, and %s cannot move that to another version: "
                         "'circular vm reset %s' throws it away",
                         vm->record.name, hypervisor->title, vm->record.name);
    if (!options->rebase)
        return error_set(error, ERROR_EXISTS,
                         "%s has written to its disk (%s), which fits version %s only and would be "
                         "lost over %s: --rebase keeps it, 'circular vm reset %s' throws it away",
                         vm->record.name, size_format(used, size), vm->record.version, to->version, vm->record.name);
    if (to->size_bytes != vm->record.disk_size)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s has written to its disk, and that of version %s has another size", vm->record.name,
                         to->version);
    return 0;
}

/* Copy what differs. The overlay holds the same over either version at every instant of it. */
static int rebase(const struct context *context, const struct vm *vm, const char *overlay, const struct shared_disk *to,
                  struct error *error)
{
    struct shared_disk from = SHARED_DISK_INIT;
    int result;

    if (vm_open_disk(context, &vm->record, &from) == EXIT_OK)
        result = qemu_rebase(program_search_path(), overlay, from.path, to->path, error);
    else
        result = error_set(error, ERROR_UNAVAILABLE, "the version %s that %s lies on cannot be read",
                           vm->record.version, vm->record.name);
    shared_disk_close(&from);
    return result;
}

static int move(const struct context *context, struct vm *vm, const struct shared_disk *to, struct error *error)
{
    struct machine_record *record = &vm->record;
    auto_free char *overlay = machine_path(&vm->folder, vm_hypervisor(record)->overlay);
    bool needed = false;
    int result = overlay ? check_overlay(context, vm, overlay, to, &needed, error)
                         : error_set(error, ERROR_SYSTEM, "no memory to update");

    if (!result)
        result = needed ? rebase(context, vm, overlay, to, error)
                        : machine_remove(&vm->folder, vm_hypervisor(record)->overlay, error);
    if (result)
        return result;
    strcpy(record->previous, record->version);
    record->previous_image_id = record->image_id;
    strcpy(record->version, to->version);
    record->image_id = to->image_id;
    record->disk_size = to->size_bytes;
    return machine_write(&vm->folder, record, error);
}

/* Move to VERSION (NULL: the newest), whose image id is EXPECTED unless that is NULL. Both may lie in the record. */
static int change(const struct context *context, struct vm *vm, const char *version, const struct digest *expected)
{
    const struct machine_record *record = &vm->record;
    struct shared_disk to = SHARED_DISK_INIT;
    auto_free char *text = location_format(record->archive, record->image, version);
    struct error error = ERROR_INIT;
    int status;

    if (!text)
        return report_memory(context);
    status = shared_disk_open(
        context, &(struct shared_disk_wish){.text = text, .expected = expected, .published = true}, &to);
    if (status == EXIT_OK && digest_equal(&to.image_id, &record->image_id) && !strcmp(to.version, record->version)) {
        report_line(context, "%s is at version %s already", record->name, record->version);
    } else if (status == EXIT_OK) {
        if (move(context, vm, &to, &error))
            status = report_error(context, &error);
        else
            report_line(context, "%s is at version %s now, before at %s", record->name, record->version,
                        record->previous);
    }
    shared_disk_close(&to);
    return status;
}

static int run_update(const struct context *context, int count, char **arguments)
{
    struct error error = ERROR_INIT;
    struct vm vm = VM_INIT;
    int status = count > 1 && name_check("version", arguments[1], &error) ? report_error(context, &error) : EXIT_OK;

    if (status == EXIT_OK)
        status = vm_open(context, arguments[0], true, &vm);
    if (status == EXIT_OK)
        status = change(context, &vm, count > 1 ? arguments[1] : NULL, NULL);
    vm_close(&vm);
    return status;
}

static int run_rollback(const struct context *context, int count, char **arguments)
{
    struct error error = ERROR_INIT;
    struct vm vm;
    int status = vm_open(context, arguments[0], true, &vm);

    (void)count;
    if (status == EXIT_OK && !*vm.record.previous) {
        error_set(&error, ERROR_NOT_FOUND, "%s has no version before %s: it was never updated", vm.record.name,
                  vm.record.version);
        status = report_error(context, &error);
    } else if (status == EXIT_OK) {
        status = change(context, &vm, vm.record.previous, &vm.record.previous_image_id);
    }
    vm_close(&vm);
    return status;
}

const struct command command_vm_update = {
    .name = "vm update",
    .usage = (const char *const[]){"NAME [VERSION]", NULL},
    .summary = "move a machine to the newest version of its image, or to VERSION",
    .options = update_table,
    .options_size = sizeof(struct update_options),
    .client = true,
    .run = run_update,
};

const struct command command_vm_rollback = {
    .name = "vm rollback",
    .usage = (const char *const[]){"NAME", NULL},
    .summary = "move a machine back to the version before the last update",
    .options = update_table,
    .options_size = sizeof(struct update_options),
    .client = true,
    .run = run_rollback,
};
