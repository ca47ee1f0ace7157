/* A running machine whose disk, or CD-ROM by URL, has gone with the process that served it: see vm_mend in vm.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "cmd/mend.h"
#include "cmd/shared_disk.h"
#include "cmd/vm.h"
#include "vm/qemu.h"

/* As machine_process. Whoever begins or ends holds the machine too, and has no process yet, or none any more. */
static int find_process(const struct vm *vm, pid_t *pid_out, struct error *error)
{
    int process = machine_process(&vm->folder, pid_out, error);

    if (process == ERROR_NOT_FOUND)
        return error_set(error, ERROR_BUSY, "the machine %s is being started, changed or ended by somebody just now",
                         vm->record.name);
    return process;
}

static int give_disk(const struct vm *vm, const struct shared_disk *disk, bool *mended, struct error *error)
{
    bool finds_itself = vm_hypervisor(&vm->record)->mending == MENDING_BY_ITSELF;
    struct qmp *qmp = NULL;
    pid_t pid;
    auto_close int process = find_process(vm, &pid, error);
    int result = process < 0 ? process : vm_control(vm, &qmp, error);

    if (!result)
        result = finds_itself ? mend_go_on(qmp, mended, error) : mend_disk(qmp, pid, disk, mended, error);
    *mended |= !result && finds_itself && disk->fresh;
    qmp_close(qmp);
    return result;
}

static int mend_own_disk(const struct context *context, const struct vm *vm, bool *mended)
{
    struct shared_disk disk = SHARED_DISK_INIT;
    struct error error = ERROR_INIT;
    int status = vm_open_disk(context, &vm->record, &disk);

    if (status == EXIT_OK && give_disk(vm, &disk, mended, &error))
        status = report_error(context, &error);
    else if (status == EXIT_OK && *mended)
        report_line(context, "%s has its disk again", vm->record.name);
    shared_disk_close(&disk);
    return status;
}

/* The machine still holds the lock of the mount that has gone. A file that was replaced has another mount. */
static int give_cdrom(const struct vm *vm, const struct shared_disk *iso, bool *mended, struct error *error)
{
    auto_free char *users = path_join(iso->folder, SHARED_DISK_USERS);
    struct qmp *qmp = NULL;
    pid_t pid;
    auto_close int process = find_process(vm, &pid, error);
    int result = process < 0 ? process : users ? 0 : error_set(error, ERROR_SYSTEM, "no memory for a CD-ROM");

    if (!result && !process_holds(pid, users))
        result = error_set(error, ERROR_CORRUPT, "%s is not the file any more that the machine %s was started with",
                           iso->archive, vm->record.name);
    if (result || process_holds(pid, iso->path))
        return result;
    result = vm_control(vm, &qmp, error);
    if (!result)
        result = qemu_replace_cdrom(qmp, QEMU_NODE_CDROM, iso->path, error);
    *mended = !result;
    qmp_close(qmp);
    return result;
}

static int mend_cdrom(const struct context *context, const struct vm *vm, bool *mended)
{
    const struct shared_disk_wish wish = {.text = vm->record.iso, .file = true};
    struct shared_disk iso = SHARED_DISK_INIT;
    struct error error = ERROR_INIT;
    int status;

    if (location_folder(wish.text) == wish.text) /* it has no scheme: a file that is here */
        return EXIT_OK;
    status = shared_disk_open(context, &wish, &iso);
    if (status == EXIT_OK && *iso.folder && give_cdrom(vm, &iso, mended, &error))
        status = report_error(context, &error);
    else if (status == EXIT_OK && *mended)
        report_line(context, "%s has its CD-ROM again", vm->record.name);
    shared_disk_close(&iso);
    return status;
}

int vm_mend(const struct context *context, const struct vm *vm)
{
    bool disk_mended = false, cdrom_mended = false;
    struct error error = ERROR_INIT;
    pid_t pid;
    auto_close int process = find_process(vm, &pid, &error);
    int status = process < 0 ? report_error(context, &error) : mend_own_disk(context, vm, &disk_mended);

    if (status == EXIT_OK)
        status = mend_cdrom(context, vm, &cdrom_mended);
    if (status != EXIT_OK || disk_mended || cdrom_mended)
        return status;
    error_set(&error, ERROR_BUSY, "the machine %s is running already", vm->record.name);
    return report_error(context, &error);
}
