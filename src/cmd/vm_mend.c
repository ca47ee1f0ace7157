/* A running machine whose disk, or CD-ROM by URL, has gone with the process that served it: see vm_mend in vm.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "cmd/shared_disk.h"
#include "cmd/vm.h"
#include "vm/qemu.h"

/* What a machine reads from, mounted again unless it is mounted. */
struct mounts {
    struct shared_disk disk, iso;
};

static int open_mounts(const struct context *context, const struct machine_record *record, struct mounts *mounts)
{
    const struct shared_disk_wish iso = {.text = record->iso, .file = true};
    auto_free char *text = NULL;
    int status;

    if (asprintf(&text, "%s/%s@%s", record->archive, record->image, record->version) < 0)
        return EXIT_SYSTEM;
    status = shared_disk_open(
        context, &(struct shared_disk_wish){.text = text, .expected = &record->image_id, .published = true},
        &mounts->disk);
    if (status == EXIT_OK && location_folder(record->iso) != record->iso) /* it has a scheme */
        status = shared_disk_open(context, &iso, &mounts->iso);
    return status;
}

/* The machine still holds the lock of the mount that has gone. A file that was replaced has another mount. */
static int replace_cdrom(const struct vm *vm, const struct shared_disk *iso, struct qmp *qmp, struct error *error)
{
    auto_free char *users = path_join(iso->folder, SHARED_DISK_USERS);
    pid_t pid;
    int process = machine_process(&vm->folder, &pid, error);

    if (process < 0)
        return process;
    close(process);
    if (!users || !process_holds(pid, users))
        return error_set(error, ERROR_CORRUPT, "%s is not the file any more that the machine %s was started with",
                         iso->archive, vm->record.name);
    return qemu_replace_cdrom(qmp, iso->path, error);
}

static int mend(const struct vm *vm, const struct mounts *mounts, struct qmp *qmp, struct error *error)
{
    bool alone = vm_hypervisor(&vm->record)->keep != NULL; /* User-mode Linux finds its disk by itself */
    char state[QMP_WORD] = "";
    int result = qmp_status(qmp, state, error);

    if (!result && mounts->disk.fresh && !alone)
        result = qemu_replace_base(qmp, mounts->disk.path, error);
    if (!result && mounts->iso.fresh)
        result = replace_cdrom(vm, &mounts->iso, qmp, error);
    if (!result && !strcmp(state, "io-error"))
        return qmp_order(qmp, "cont", error);
    if (!result && !mounts->disk.fresh && !mounts->iso.fresh)
        result = error_set(error, ERROR_BUSY, "the machine %s is running already", vm->record.name);
    return result;
}

int vm_mend(const struct context *context, const struct vm *vm)
{
    struct mounts mounts = {.disk = SHARED_DISK_INIT, .iso = SHARED_DISK_INIT};
    int status = open_mounts(context, &vm->record, &mounts);
    struct error error = ERROR_INIT;
    struct qmp *qmp = NULL;

    if (status == EXIT_OK && (vm_control(vm, &qmp, &error) || mend(vm, &mounts, qmp, &error)))
        status = report_error(context, &error);
    else if (status == EXIT_OK)
        report_line(context, "%s has its disk again and goes on", vm->record.name);
    qmp_close(qmp);
    shared_disk_close(&mounts.disk);
    shared_disk_close(&mounts.iso);
    return status;
}
