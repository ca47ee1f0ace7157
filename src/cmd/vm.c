/* What the commands `circular vm ...` have in common. */
#include "cmd/vm.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cmd/options.h"

#define ANSWER_MS 2000

int vm_open(const struct context *context, const char *name, bool locked, struct vm *vm_out)
{
    auto_free char *state = client_state_folder();
    struct error error = ERROR_INIT;
    int result;

    *vm_out = (struct vm)VM_INIT;
    if (!state)
        return report_memory(context);
    result = machine_open(state, name, &vm_out->folder, &error);
    if (!result && locked)
        result = machine_lock(&vm_out->folder, &error);
    if (!result)
        result = machine_read(&vm_out->folder, &vm_out->record, &error);
    return result ? report_error(context, &error) : EXIT_OK;
}

void vm_close(struct vm *vm)
{
    machine_record_finish(&vm->record);
    machine_close(&vm->folder);
}

int vm_control(const struct vm *vm, struct qmp **qmp_out, struct error *error)
{
    return qmp_open(vm->folder.fd, MACHINE_SOCKET_CONTROL, ANSWER_MS, qmp_out, error);
}

int vm_open_disk(const struct context *context, const struct machine_record *record, struct shared_disk *disk_out)
{
    auto_free char *text = location_format(record->archive, record->image, record->version);

    if (!text)
        return report_memory(context);
    return shared_disk_open(
        context, &(struct shared_disk_wish){.text = text, .expected = &record->image_id, .published = true}, disk_out);
}

const struct hypervisor *vm_hypervisor(const struct machine_record *record)
{
    const struct hypervisor *hypervisor = hypervisor_table[0];

    if (*record->hypervisor && (hypervisor_choose(record->hypervisor, &hypervisor, NULL) || !hypervisor->overlay))
        hypervisor = hypervisor_table[0];
    return hypervisor;
}

uint64_t vm_used_bytes(const struct vm *vm)
{
    struct stat status;

    if (fstatat(vm->folder.fd, vm_hypervisor(&vm->record)->overlay, &status, 0))
        return 0;
    return (uint64_t)status.st_blocks * 512;
}

int vm_confirm(const struct context *context, bool yes, const struct vm *vm, const char *what)
{
    struct error error = ERROR_INIT;
    char answer[16];

    if (yes)
        return EXIT_OK;
    if (!isatty(STDIN_FILENO))
        return report_usage(context, "%s %s: --yes is needed, as there is no terminal to ask at", what,
                            vm->record.name);
    fprintf(stderr, "%s %s? [y/N] ", what, vm->record.name);
    fflush(stderr);
    if (fgets(answer, sizeof(answer), stdin) && (*answer == 'y' || *answer == 'Y'))
        return EXIT_OK;
    error_set(&error, ERROR_CANCELLED, "the machine %s is as it was", vm->record.name);
    return report_error(context, &error);
}

uint16_t vm_ssh_port(const struct machine_record *record)
{
    for (size_t i = 0; i < record->forwards.count; i++) {
        const char *guest = strchr(record->forwards.items[i], ':');

        if (guest && !strcmp(guest, ":22"))
            return (uint16_t)strtoul(record->forwards.items[i], NULL, 10);
    }
    return record->ssh_port;
}
