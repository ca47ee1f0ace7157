/*
 * machine.json: what a machine that keeps its state was made from, and how it
 * is run. JSON, format "circular-machine-1":
 *
 *   name, archive, image, version    texts; archive as a person gave it
 *   image_id                         digest of the version's map
 *   previous                         the version before the last update; not there without one
 *   previous_image_id                its digest
 *   disk_size                        bytes
 *   mac                              "52:54:00:xx:xx:xx"
 *   memory, cpus                     bytes; count
 *   uefi, tpm, nested                0 or 1
 *   hypervisor, accelerator, display, net, iso    words of the options of the same names; not there: the default
 *   forwards, arguments              arrays of texts
 *   ssh_port                         port of 127.0.0.1 that leads to the guest's 22; 0: none yet
 */
#ifndef FORMAT_MACHINE_H
#define FORMAT_MACHINE_H

#include <stdbool.h>

#include "base/arguments.h"
#include "base/error.h"
#include "base/hash.h"
#include "format/name.h"

#define MACHINE_RECORD_MAX    (256 * 1024)
#define MACHINE_TEXT_MAX      4096 /* with NUL */
#define MACHINE_WORD_MAX      64
#define MACHINE_ARGUMENTS_MAX 256
#define MACHINE_MAC_TEXT      18

struct machine_record {
    char name[NAME_MAX_LENGTH + 1];
    char archive[MACHINE_TEXT_MAX];
    char image[NAME_MAX_LENGTH + 1], version[NAME_MAX_LENGTH + 1];
    struct digest image_id;
    char previous[NAME_MAX_LENGTH + 1]; /* "": none */
    struct digest previous_image_id;
    uint64_t disk_size;
    char mac[MACHINE_MAC_TEXT];
    uint64_t memory, cpus; /* 0: the default */
    bool uefi, tpm, nested;
    char hypervisor[MACHINE_WORD_MAX], accelerator[MACHINE_WORD_MAX], display[MACHINE_WORD_MAX];
    char net[MACHINE_WORD_MAX];
    char iso[MACHINE_TEXT_MAX];
    struct arguments forwards, arguments;
    uint16_t ssh_port;
};

/* ERROR_CORRUPT with what is wrong. Release with machine_record_finish in any case. */
int machine_record_parse(const void *bytes, size_t size, struct machine_record *record_out, struct error *error);
/* Heap, with a final newline; NULL: no memory, or text that is not UTF-8 without control characters. */
char *machine_record_format(const struct machine_record *record);
void machine_record_finish(struct machine_record *record);

#endif
