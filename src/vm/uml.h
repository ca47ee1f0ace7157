/*
 * User-mode Linux: a Linux kernel that is a program. No firmware and no
 * hardware: it mounts the root file system of the published disk itself.
 */
#ifndef VM_UML_H
#define VM_UML_H

#include "vm/hypervisor.h"

extern const struct hypervisor hypervisor_uml;

/*
 * Run one program under UML, with the host's files. PRELOAD: the module that uml_preload.c makes; NULL: none.
 * UNSUPPORTED: UML is not here (the message names the Debian package) or does not work, and why.
 */
int uml_try(const char *search_path, const char *preload, unsigned timeout_ms, struct error *error);

#endif
