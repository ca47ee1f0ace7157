/*
 * A fuzz target: one file fuzz_<parser>.c with this one function. With
 * -Dfuzz=true (clang) libFuzzer calls it; otherwise replay.c does, with each
 * file of corpus/<parser>/ and of tests/golden/format/<parser>/.
 * A target returns 0, and aborts when an invariant does not hold.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* What must be true whatever the input. */
#define must(condition)                                                                                           \
    do {                                                                                                          \
        if (!(condition)) {                                                                                       \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                               \
            abort();                                                                                              \
        }                                                                                                         \
    } while (0)

/* A refusal has a code that fits and says why, in one printable line. */
#define must_explain(result, error)                                                                               \
    do {                                                                                                          \
        must((result) == (error)->code && (error)->message[0]);                                                   \
        for (const char *c_ = (error)->message; *c_; c_++)                                                        \
            must((unsigned char)*c_ >= 0x20 && *c_ != 0x7f);                                                      \
    } while (0)

#endif
