/* User-mode Linux: not yet. */
#include "vm/hypervisor.h"

extern const struct hypervisor hypervisor_uml;

static int not_yet(const struct machine_plan *plan, struct error *error)
{
    (void)plan;
    return error_set(error, ERROR_UNSUPPORTED, "machines under User-mode Linux are not there yet");
}

const struct hypervisor hypervisor_uml = {.name = "uml", .title = "User-mode Linux", .find = not_yet};
