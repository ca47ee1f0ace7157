/* What src/vm must be told to find out what this host can do: programs, files of this user and of this installation. */
#ifndef CMD_ACCELERATORS_H
#define CMD_ACCELERATORS_H

#include "cmd/cmd.h"
#include "vm/accelerator.h"

/* Settings, and what they point to. Release with host_settings_finish. */
struct host_settings {
    struct accelerator_settings accelerator;
    char *memory, *uml_preload;
};

void host_settings_init(struct host_settings *settings);
void host_settings_finish(struct host_settings *settings);

/* Folders of programs: PATH, or those that every system has. */
const char *program_search_path(void);

/* The module for User-mode Linux: as installed, or as built beside this program. Heap; NULL: none. */
char *uml_preload_path(void);

/* This user's certificate authority for the TPMs of machines. Heap; NULL: no memory. */
char *tpm_authority_folder(void);

/*
 * The accelerator for the word of --accel (NULL: auto): "kvm" or "tcg"; why it is not KVM is said in one line. EXIT_OK,
 * or an exit status after having printed what is wrong.
 */
int choose_accelerator(const struct context *context, const char *word, const char **name_out);

#endif
