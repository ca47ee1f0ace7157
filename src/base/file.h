/*
 * Files: whole reads with a limit, atomic writes, folders made on the way, and
 * opening that cannot leave a root. Paths are relative to a directory
 * descriptor (AT_FDCWD works) unless stated otherwise.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/error.h"

/* Read the whole file into BUFFER (replaced). ERROR_NOT_FOUND; ERROR_CORRUPT if over LIMIT bytes. */
int file_read(int directory_fd, const char *path, size_t limit, struct buffer *buffer, struct error *error);

/* pread until SIZE bytes are there or the file ends. Returns the bytes read, or an error code. */
ssize_t file_pread_full(int fd, void *bytes, size_t size, uint64_t offset, struct error *error);
int file_pwrite_full(int fd, const void *bytes, size_t size, uint64_t offset, struct error *error);

enum file_write_flags {
    FILE_DURABLE = 1, /* on disk before it appears under its name */
    FILE_NEW_ONLY = 2, /* ERROR_EXISTS if the name is taken */
    FILE_PRIVATE = 4, /* mode 0600 instead of 0644 */
    FILE_MAKE_FOLDERS = 8,
};

/*
 * Write a file so that a reader sees the whole of it or nothing, also after a
 * crash with FILE_DURABLE: a temporary name in the same folder, then rename
 * (link for FILE_NEW_ONLY). A killed writer leaves at most a file whose name
 * begins with ".tmp-", see file_is_temporary.
 */
int file_write_atomic(int directory_fd, const char *path, const void *bytes, size_t size, unsigned flags,
                      struct error *error);

/* Flush the folder of PATH, so that a new name in it outlasts a crash. */
int file_sync_parent(int directory_fd, const char *path, struct error *error);

/* True for the last component of a temporary file's path. */
bool file_is_temporary(const char *name);

/* mkdir -p. The folder part of a file's path is made by file_make_parent. */
int file_make_folders(int directory_fd, const char *path, mode_t mode, struct error *error);
int file_make_parent(int directory_fd, const char *path, struct error *error);

/* Open a folder, optionally making it; returns the descriptor or an error code. */
int file_open_folder(const char *path, bool make, struct error *error);

/*
 * Open PATH below DIRECTORY_FD; a symlink or ".." that leaves it is refused (openat2 RESOLVE_BENEATH). errno is left as
 * the kernel set it.
 */
int file_open_beneath(int directory_fd, const char *path, int flags, struct error *error);

/*
 * Remove PATH, and if it is a folder all that is in it: not what symlinks lead to or what is mounted in it. Goes on
 * after what cannot be removed; the error is of the first such. Nothing there: 0. file_empty_folder leaves the folder
 * itself.
 */
int file_remove(int directory_fd, const char *path, struct error *error);
int file_empty_folder(int directory_fd, const char *path, struct error *error);

/*
 * Advisory lock (flock) on an open file.
 * SHARED or exclusive; waits, or with TRY returns ERROR_BUSY.
 */
int file_lock(int fd, bool shared, bool try, struct error *error);

/*
 * The bytes that are free on the file system of FD, and those that a cache leaves so: 256 MiB, or 2 % of it if that is
 * more; an eighth of one under 2 GiB. False: it does not know its size.
 */
bool file_space(int fd, uint64_t *free_out, uint64_t *keep_out);

/* "DIR/NAME" on the heap (NULL: no memory). */
char *path_join(const char *directory, const char *name);

#endif
