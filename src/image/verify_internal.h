/* What verify.c and verify_archive.c share. */
#ifndef IMAGE_VERIFY_INTERNAL_H
#define IMAGE_VERIFY_INTERNAL_H

#include "image/verify.h"

/* Count and tell one fault. One call at a time. */
void verify_fault(const struct verify_report *report, struct verify_result *result, const char *where,
                  const char *what);

#endif
