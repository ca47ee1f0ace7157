/* Trials remembered until the host boots again, in a file of "word = value" lines. Of accelerator.c. */
#ifndef VM_ACCELERATOR_MEMORY_H
#define VM_ACCELERATOR_MEMORY_H

#include "vm/accelerator.h"

/* What was found in this boot of the host with SUBJECT, a program's path, as it is now. False: nothing. */
bool accelerator_recall(const char *memory, const char *name, const char *subject, struct accelerator *result_out);

/* A file that cannot be written only costs time. */
void accelerator_remember(const char *memory, const char *name, const char *subject, const struct accelerator *result);

#endif
