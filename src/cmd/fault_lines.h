/* The faults that a verification finds, a line each: for people, so that there is an end to them. */
#ifndef CMD_FAULT_LINES_H
#define CMD_FAULT_LINES_H

#include <stdint.h>

#include "cmd/cmd.h"

#define FAULT_LINES_MAX 100 /* a disk that is going bad may have a million faults */

/* Zero-initialise all but CONTEXT. */
struct fault_lines {
    const struct context *context;
    uint64_t count; /* told, or left out because they are more */
};

/* For verify_report.fault: on standard output, or as errors where that is quiet; nothing where it is JSON. */
void fault_lines_tell(void *lines, const char *where, const char *what);
/* How many were left out, if any; ELSEWHERE (may be NULL) says where they are shown. */
void fault_lines_end(const struct fault_lines *lines, const char *elsewhere);

#endif
