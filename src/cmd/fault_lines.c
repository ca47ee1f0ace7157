/* Lines about faults: see fault_lines.h. */
#include "cmd/fault_lines.h"

#include <stdio.h>

#include "base/log.h"

void fault_lines_tell(void *user, const char *where, const char *what)
{
    struct fault_lines *lines = user;

    if (lines->context->json || lines->count++ >= FAULT_LINES_MAX)
        return;
    if (lines->context->quiet)
        log_error("%s: %s", where, what);
    else
        report_line(lines->context, "%s: %s", where, what);
}

void fault_lines_end(const struct fault_lines *lines, const char *elsewhere)
{
    char text[100];

    if (lines->count <= FAULT_LINES_MAX)
        return;
    snprintf(text, sizeof(text), "%llu more faults are not shown%s%s",
             (unsigned long long)(lines->count - FAULT_LINES_MAX), elsewhere ? "; " : "", elsewhere ? elsewhere : "");
    if (lines->context->quiet)
        log_error("%s", text);
    else
        report_line(lines->context, "%s", text);
}
