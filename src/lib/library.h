/*
 * The inside of libcircular for the program: the public objects over parts
 * that it has opened itself, with options that the public ones do not have.
 */
#ifndef LIB_LIBRARY_H
#define LIB_LIBRARY_H

#include "circular.h"
#include "format/profile.h"
#include "format/statistics.h"
#include "lib/session.h"

/*
 * SESSION and ARCHIVE are borrowed and outlive it; circular_archive_close releases only what is made here.
 * NULL: no memory.
 */
struct circular_archive *library_archive(struct session *session, struct archive *archive);

/*
 * A plain file as a disk, apart from any archive: nobody has signed it. SESSION and PLAIN are borrowed; circular_close
 * releases only what is made here. NULL: no memory.
 */
struct circular_disk *library_plain_disk(struct session *session, struct plain *plain);

/* What ARCHIVE stands on; borrowed. */
struct session *library_session(struct circular_archive *archive);
/* The plain file of a disk of library_plain_disk, and its session; borrowed. */
struct plain *library_plain(struct circular_disk *disk, struct session **session_out);

/* All that is known but the source, at this moment. Does not wait for the network. */
void library_statistics(struct circular_archive *archive, struct statistics *statistics_out);

/* The same of a disk of library_plain_disk. Its server is told of as its only mirror. */
void library_plain_statistics(struct circular_disk *disk, struct statistics *statistics_out);

/* What readers of DISK touched so far, in order; release with profile_finish. ERROR_NOT_FOUND: nothing. */
int library_profile(struct circular_disk *disk, struct profile *profile_out, struct error *error);

#endif
