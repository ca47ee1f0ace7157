/*
 * A machine about to run: everything a hypervisor must know to build its
 * command line. Whoever runs machines (src/cmd) fills it; hypervisors read it.
 */
#ifndef VM_MACHINE_H
#define VM_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum machine_firmware { MACHINE_BIOS, MACHINE_UEFI };
enum machine_display { MACHINE_DISPLAY_NONE, MACHINE_DISPLAY_GTK, MACHINE_DISPLAY_VNC, MACHINE_DISPLAY_SPICE };
enum machine_net { MACHINE_NET_USER, MACHINE_NET_NONE, MACHINE_NET_BRIDGE };
enum machine_serial { MACHINE_SERIAL_TERMINAL, MACHINE_SERIAL_NONE, MACHINE_SERIAL_FILE, MACHINE_SERIAL_SOCKET };

/* A TCP port of the host's 127.0.0.1 that leads to one of the guest. */
struct machine_forward {
    uint16_t host_port, guest_port;
};

#define MACHINE_FORWARDS_MAX 32

/* All is borrowed. Paths are absolute. Zero and NULL: not there, or what the enums begin with. */
struct machine_plan {
    const char *search_path;    /* folders of programs, "/usr/bin:/bin" */
    const char *name;           /* of the machine, for its window and its lists */
    const char *folder;         /* its own, for files that a hypervisor needs while it runs; private to the user */

    const char *disk;           /* the published disk, a raw file, read-only */
    const char *disk_identity;  /* image id, 64 hex digits; NULL: not a published disk */
    bool disk_is_iso;           /* DISK is a CD-ROM: no overlay */
    unsigned root_partition; /* for hypervisors that need it: which of DISK holds the root; 0: DISK has no partitions */
    const char *overlay;        /* takes what is written to the disk; made by the hypervisor's prepare if not there */
    bool throw_away;            /* the overlay dies with the machine: nothing need reach the host's disk */
    const char *snapshot;       /* qcow2 over the overlay that takes what is written instead; made anew by prepare */
    const char *iso;            /* an additional CD-ROM, which is booted from first */

    uint64_t memory_bytes;
    unsigned cpu_count;
    const char *accelerator;    /* "kvm" or "tcg" */
    bool nested;                /* the guest shall be able to run machines itself */
    enum machine_firmware firmware;
    const char *variables; /* UEFI: its own writable copy of the firmware's variables; made by prepare if not there */
    bool tpm;                   /* it has a TPM, whose swtpm runs from the hypervisor's prepare on (tpm.h) */
    const char *tpm_folder;     /* state of the TPM; made by prepare if not there */
    const char *tpm_ca;         /* this user's certificate authority for TPMs */
    const char *tpm_socket;     /* of swtpm; below 108 bytes */

    enum machine_display display;
    const char *display_socket; /* of VNC and SPICE, below 108 bytes */
    enum machine_serial serial; /* the first serial port */
    const char *serial_path;    /* SERIAL_FILE */
    int serial_fd;              /* SERIAL_SOCKET: listening, inherited */
    const char *serial_log;     /* SERIAL_SOCKET: what was sent, appended; NULL: none */
    int control_fd;             /* listening UNIX socket for QMP, inherited; 0: none */
    const char *pid_file;       /* the hypervisor writes its process id there; NULL: no */
    bool reboot_ends;           /* the guest's reboot is the machine's end */

    enum machine_net net;
    const char *bridge;         /* MACHINE_NET_BRIDGE */
    const char *mac;            /* "52:54:00:12:34:56"; NULL: the hypervisor's own */
    const struct machine_forward *forwards;
    size_t forward_count;

    const char *uml_preload;    /* the module made of uml_preload.c; NULL: none */
    char *const *extra;         /* further arguments for the hypervisor, last */
    size_t extra_count;
};

/* Ports of the host that FORWARDS want are free, and none is wanted twice. BUSY, INVALID. */
int machine_check_forwards(const struct machine_plan *plan, struct error *error);

/* A port of 127.0.0.1 that is free: WANTED if it is and is not 0, else any. Until the descriptor that is returned is
 * closed, nobody else who asks for any port is given it, while a hypervisor can listen at it. -1: none is free. */
int machine_hold_port(uint16_t wanted, uint16_t *port_out);

/* The host has as much memory as the plan wants. UNSUPPORTED. */
int machine_check_memory(const struct machine_plan *plan, struct error *error);

/* UNSUPPORTED: "WHAT is missing: install the Debian package PACKAGE (apt install PACKAGE)". */
int machine_missing(const char *what, const char *package, struct error *error);

#endif
