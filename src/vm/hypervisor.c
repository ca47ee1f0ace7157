/* The table of hypervisors. */
#include "vm/hypervisor.h"

#include <string.h>

/* To add one: its file, a line here and one in meson.build. */
extern const struct hypervisor hypervisor_qemu, hypervisor_xen, hypervisor_xen_pvh, hypervisor_xen_hvm, hypervisor_uml,
    hypervisor_vbox;

const struct hypervisor *const hypervisor_table[] = {
    &hypervisor_qemu, &hypervisor_xen,  &hypervisor_xen_pvh, &hypervisor_xen_hvm,
    &hypervisor_uml,  &hypervisor_vbox, NULL,
};

int hypervisor_choose(const char *name, const struct hypervisor **hypervisor_out, struct error *error)
{
    for (const struct hypervisor *const *at = hypervisor_table; *at; at++)
        if (!name || !strcmp(name, (*at)->name)) {
            *hypervisor_out = *at;
            return 0;
        }
    return error_set(error, ERROR_INVALID,
                     "there is no hypervisor '%s', only qemu, xen, xen-pvh, xen-hvm, uml and vbox", name);
}

void hypervisor_command_finish(struct hypervisor_command *command)
{
    arguments_finish(&command->arguments);
    arguments_finish(&command->environment);
}
