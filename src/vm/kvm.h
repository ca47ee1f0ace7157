/*
 * KVM, tried: a few dozen instructions in a virtual machine of our own. That
 * /dev/kvm is there says little: it may be forbidden, emulate each instruction,
 * or never come back from one.
 */
#ifndef VM_KVM_H
#define VM_KVM_H

#include "base/error.h"

/*
 * Run a guest that goes from real mode through protected mode to long mode, asks for CPUID and a model-specific
 * register, and counts, in a child process that gets TIMEOUT_MS. 0: it came to its end about as fast as this processor
 * can. NOT_FOUND: there is no DEVICE ("/dev/kvm"); UNSUPPORTED: it cannot be used, hung, or is only emulated. The
 * message is for whoever wants to know why.
 */
int kvm_try(const char *device, unsigned timeout_ms, struct error *error);

#endif
