/* The options of machines, which `circular boot` and `circular vm start` share, and what they ask for. */
#ifndef CMD_MACHINE_OPTIONS_H
#define CMD_MACHINE_OPTIONS_H

#include "cmd/shared_disk.h"
#include "vm/hypervisor.h"

/*
 * How long a machine's read waits for the network: a guest rather waits than is told that its disk is broken. After
 * that the machine stops, and goes on by hand.
 */
#define MACHINE_PATIENCE_MS 86400000

struct machine_options {
    const char *hypervisor, *accelerator;
    uint64_t memory, cpus;
    bool tpm, uefi, bios, nested;
    const char *display, *serial, *net, *iso;
    struct text_list forwards;
};

/* Table lines for a command's option struct that has a struct machine_options MEMBER. */
#define MACHINE_OPTIONS(type, member)                                                                                 \
    {"vm", 0, OPTION_TEXT, "NAME", "what runs the machine: qemu, xen, xen-pvh, xen-hvm, uml or vbox; qemu "      \
     "unless told otherwise",                                                                                          \
     offsetof(type, member.hypervisor)},                                                                              \
    {"accel", 0, OPTION_TEXT, "NAME", "kvm, tcg (works everywhere) or auto (kvm where it works); auto unless told "   \
     "otherwise", offsetof(type, member.accelerator)},                                                                \
    {"memory", 0, OPTION_POSITIVE_SIZE, "SIZE", "memory of the machine, 2G unless told otherwise",                    \
     offsetof(type, member.memory)},                                                                                  \
    {"cpus", 0, OPTION_POSITIVE_NUMBER, "COUNT", "processors of the machine, 1 unless told otherwise",                \
     offsetof(type, member.cpus)},                                                                                    \
    {"uefi", 0, OPTION_FLAG, NULL, "UEFI firmware", offsetof(type, member.uefi)},                                     \
    {"bios", 0, OPTION_FLAG, NULL, "BIOS firmware, unless told otherwise", offsetof(type, member.bios)},              \
    {"tpm", 0, OPTION_FLAG, NULL, "give the machine a TPM 2.0", offsetof(type, member.tpm)},                          \
    {"display", 0, OPTION_TEXT, "KIND", "none, gtk (a window), vnc or spice (a socket); none unless told otherwise",  \
     offsetof(type, member.display)},                                                                                 \
    {"net", 0, OPTION_TEXT, "KIND", "user (the guest reaches out, in only by --forward), none, or bridge=NAME; user " \
     "unless told otherwise", offsetof(type, member.net)},                                                            \
    {"forward", 0, OPTION_LIST, "HOST:GUEST", "TCP port HOST of 127.0.0.1 leads to port GUEST of the guest",          \
     offsetof(type, member.forwards)},                                                                                \
    {"iso", 0, OPTION_TEXT, "FILE", "boot from this CD-ROM image, a file or a URL, with the disk beside it",          \
     offsetof(type, member.iso)},                                                                                     \
    {"nested", 0, OPTION_FLAG, NULL, "the guest can run virtual machines itself", offsetof(type, member.nested)}

/* And one for machines whose serial port is not kept for `circular vm console`. */
#define MACHINE_SERIAL_OPTION(type, member)                                                                           \
    {"serial", 0, OPTION_TEXT, "WHERE", "first serial port: terminal, none, or a file that takes its output; "        \
     "the terminal unless told otherwise", offsetof(type, member.serial)}

/* What the options ask for, with all that it owns. Release with machine_request_finish in any case. */
struct machine_request {
    const struct hypervisor *hypervisor;
    struct machine_plan plan;
    struct machine_forward forwards[MACHINE_FORWARDS_MAX];
    char *iso, *serial_path; /* absolute */
    const char *iso_url;         /* the CD-ROM image is no file here: see machine_request_open */
    struct shared_disk iso_disk;
    char *tpm_ca, *uml_preload;
};

/* EXIT_OK, or an exit status after having printed what is wrong with the options. */
int machine_options_read(const struct context *context, const struct machine_options *options,
                         struct machine_request *request_out);
#define MACHINE_REQUEST_INIT {.iso_disk = SHARED_DISK_INIT}
/* Have mounted what is named by URL. No thread may run yet. Exit status, as above. */
int machine_request_open(const struct context *context, struct machine_request *request);
void machine_request_finish(struct machine_request *request);

/* The display of PLAN is at a socket, whose path it needs. */
bool machine_display_has_socket(const struct machine_plan *plan);
/* A line that says where, if it is. */
void machine_tell_display(const struct context *context, const struct machine_plan *plan);

/* UNSUPPORTED: WHAT is for a processor, in Debian's word ("" if it does not say), that machines here have not. */
int machine_check_architecture(const char *what, const char *architecture, struct error *error);

#endif
