/*
 * What this host can run machines on, found out by trying: that a device or a
 * program is there says little. Trials that take time are remembered until the
 * host boots again.
 */
#ifndef VM_ACCELERATOR_H
#define VM_ACCELERATOR_H

#include <stdbool.h>

#include "base/error.h"

enum accelerator_kind {
    ACCELERATOR_KVM,
    ACCELERATOR_TCG,    /* QEMU's translation: works everywhere */
    ACCELERATOR_NESTED, /* KVM inside a machine */
    ACCELERATOR_XEN,
    ACCELERATOR_UML,
    ACCELERATOR_VBOX,
    ACCELERATOR_TPM,    /* a TPM of its own for each machine */
    ACCELERATOR_COUNT
};

#define ACCELERATOR_TEXT 400

struct accelerator {
    bool works;
    char text[ACCELERATOR_TEXT]; /* what was seen; or why not, and what to do */
};

struct accelerator_settings {
    const char *search_path; /* for programs: "/usr/bin:/bin" */
    const char *kvm_device;  /* NULL: /dev/kvm */
    const char *uml_preload; /* see uml.h; NULL: none */
    const char *memory;      /* the file that remembers trials; NULL: none */
    unsigned timeout_ms;     /* of one trial; 0: 3 s */
    bool again;              /* try, whatever is remembered */
};

/* "kvm", "tcg", "nested", "xen", "uml", "vbox", "tpm" */
const char *accelerator_name(enum accelerator_kind kind);

/* Try one. What cannot be tried for an unexpected reason does not work, and the text says why. */
void accelerator_try(const struct accelerator_settings *settings, enum accelerator_kind kind,
                     struct accelerator *result_out);

/*
 * The accelerator for QEMU: WANTED is "auto" (or NULL), "kvm", "tcg", or "kqemu". *NAME_OUT: "kvm" or "tcg". NOTE
 * (ACCELERATOR_TEXT): one line that says why it is not what one may expect, or "". INVALID: no such word. UNSUPPORTED:
 * kvm was asked for and does not work.
 */
int accelerator_find(const struct accelerator_settings *settings, const char *wanted, const char **name_out, char *note,
                     struct error *error);

#endif
