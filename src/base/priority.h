/* Who waits for a block: requests are served in this order (DESIGN, "the read path"). */
#ifndef BASE_PRIORITY_H
#define BASE_PRIORITY_H

enum priority {
    PRIORITY_READER,    /* somebody waits for it now */
    PRIORITY_READAHEAD, /* somebody will probably wait for it soon */
    PRIORITY_PROFILE,   /* a recorded boot says so */
    PRIORITY_FILL,      /* what the others leave of the link */
    PRIORITY_COUNT
};

#endif
