/* Xen: not yet. */
#include "vm/hypervisor.h"

extern const struct hypervisor hypervisor_xen;

static int not_yet(const struct machine_plan *plan, struct error *error)
{
    (void)plan;
    return error_set(error, ERROR_UNSUPPORTED, "machines under Xen are not there yet");
}

const struct hypervisor hypervisor_xen = {.name = "xen", .title = "Xen", .find = not_yet};
