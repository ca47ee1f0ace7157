/*
 * Scope-bound ownership: a variable marked with one of these releases what it
 * holds when it goes out of scope, unless it was stolen.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* cleanup(FUNCTION): call FUNCTION(&variable) at the end of the scope. */
#define cleanup(function) __attribute__((cleanup(function)))

static inline void cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

static inline void cleanup_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_fclose(FILE **file)
{
    if (*file)
        fclose(*file);
}

#define auto_free cleanup(cleanup_free)   /* char *p: freed */
#define auto_close cleanup(cleanup_close) /* int fd: closed unless negative; initialise to -1 */
#define auto_fclose cleanup(cleanup_fclose)

/* Define auto-destroy for a destructor `void NAME_destroy(struct NAME *)` that takes NULL:
 * DEFINE_CLEANUP(store_close, struct store *) makes cleanup(cleanup_store_close) usable. */
#define DEFINE_CLEANUP(function, type)                      \
    static inline void cleanup_##function(type *pointer)    \
    {                                                       \
        if (*pointer)                                       \
            function(*pointer);                             \
    }

/* Take the value out of a cleanup variable, so that its scope no longer owns it. */
#define steal_pointer(pointer)                    \
    __extension__({                               \
        __typeof__(*(pointer)) stolen_ = *(pointer); \
        *(pointer) = NULL;                        \
        stolen_;                                  \
    })

static inline int steal_fd(int *fd)
{
    int stolen = *fd;

    *fd = -1;
    return stolen;
}

#endif
