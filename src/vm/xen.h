/*
 * Xen: a machine as a domain, by a configuration for xl, in a dom0. PV and PVH
 * guests are booted by GRUB built for them, inside the domain: dom0 never
 * parses the guest's file system. Their disk is QEMU's qdisk on a qcow2
 * overlay, the same that QEMU machines have.
 */
#ifndef VM_XEN_H
#define VM_XEN_H

#include <limits.h>

#include "vm/hypervisor.h"

extern const struct hypervisor hypervisor_xen, hypervisor_xen_pvh, hypervisor_xen_hvm;

/* 0: this is the first domain (dom0) of a Xen host, and its xl is at PATH. UNSUPPORTED. */
int xen_find_host(const char *search_path, char path[PATH_MAX], struct error *error);

enum xen_type { XEN_PV, XEN_PVH, XEN_HVM };

/*
 * The name of PLAN's domain into NAME: its own, of which only letters, digits and ". _ -" are left; with this process's
 * id behind it if the machine is thrown away.
 */
#define XEN_NAME_SIZE 80
char *xen_domain_name(const struct machine_plan *plan, char name[XEN_NAME_SIZE]);

/* The configuration of PLAN's domain, called NAME: xl.cfg(5). Heap; NULL: no memory. */
char *xen_configuration(const struct machine_plan *plan, enum xen_type type, const char *name);

#endif
