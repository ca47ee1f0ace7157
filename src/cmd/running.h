/* A mount that is running: reaching the process that serves it, through the mount itself. */
#ifndef CMD_RUNNING_H
#define CMD_RUNNING_H

#include "base/bytes.h"
#include "base/error.h"
#include "format/profile.h"
#include "format/statistics.h"

/* A descriptor of the mount at, or of the file below, PATH. Any kind of our mounts. */
struct running {
    char *path; /* for messages; heap */
    int fd;     /* of a folder or file that the process shows */
};

/*
 * NOT_FOUND: PATH is on no mount of this program; UNAVAILABLE: its process has died, or gives no answer for seconds.
 * Nothing waits for the network.
 * Zero-initialise; release with running_close in any case.
 */
int running_open(const char *path, struct running *running, struct error *error);
void running_close(struct running *running);

/* STATISTICS_OUT belongs on the heap. TEXT_OUT (may be NULL) gets what the process sent. */
int running_statistics(const struct running *running, struct statistics *statistics_out, struct buffer *text_out,
                       struct error *error);
/* What its readers touched so far. NOT_FOUND: nothing, or it is a catalog. Release with profile_finish. */
int running_profile(const struct running *running, struct profile *profile_out, struct error *error);

#endif
