/*
 * A disk of a machine in the foreground that was mounted by a process which has
 * ended: a child has it mounted again and gives it to the machine, as each step
 * of that may wait for others without limit, and the machine's signals may not.
 */
#ifndef CMD_BOOT_MEND_H
#define CMD_BOOT_MEND_H

#include "cmd/boot_watch.h"

/* A disk, and the child. */
struct boot_part {
    const char *title;
    const char *node;        /* of a CD-ROM in QEMU; NULL: it is the disk below the overlay */
    struct shared_disk *disk;
    struct shared_disk_wish wish;
    uint64_t next_ms;        /* when the child is to be started or, if it was, to be asked for; 0: never */
    uint64_t pause_ms;       /* until the next try, should this one fail */
    int answer;              /* readable when the child has answered, or ended; -1: there is none */
    int said;                /* what it has printed */
    pid_t child;
    char told[1024];         /* what was printed of that the last time */
};

#define BOOT_PART_NONE .answer = -1, .said = -1

/* Whoever serves it has ended: what has to be done is due soon. */
void boot_part_lose(struct boot_part *part);

/* Do what is due: start the child, or say that the machine cannot be given it, or that it takes long. */
void boot_part_due(const struct context *context, struct boot_watch *watch, struct boot_part *part);

/* The child has answered: take over what it has mounted, or try again later, or say why not. */
void boot_part_answered(const struct context *context, struct boot_watch *watch, struct boot_part *part);

/* A process that may be a child has ended: reap it, and close *PROCESS_FD, which becomes -1. */
void boot_reap(int *process_fd);

/* It is not needed any more. */
void boot_part_abandon(struct boot_part *part);

/* Say so if nobody would notice that whoever serves it has ended. */
void boot_part_tell_unwatched(const struct context *context, const struct boot_part *part);

#endif
