/*
 * VirtualBox, through VBoxManage: a machine is described, started, and
 * forgotten again.
 */
#ifndef VM_VBOX_H
#define VM_VBOX_H

#include <stddef.h>

#include "vm/hypervisor.h"

extern const struct hypervisor hypervisor_vbox;

/* VBoxManage is here and can talk to its kernel module; TEXT gets the version. UNSUPPORTED: why not. */
int vbox_try(const char *search_path, unsigned timeout_ms, char *text, size_t size, struct error *error);

#endif
