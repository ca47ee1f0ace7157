/* VirtualBox: not yet. */
#include "vm/hypervisor.h"

extern const struct hypervisor hypervisor_vbox;

static int not_yet(const struct machine_plan *plan, struct error *error)
{
    (void)plan;
    return error_set(error, ERROR_UNSUPPORTED, "machines under VirtualBox are not there yet");
}

const struct hypervisor hypervisor_vbox = {.name = "vbox", .title = "VirtualBox", .find = not_yet};
