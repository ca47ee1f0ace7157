/*
 * A stored block: exactly one zstd frame (RFC 8878) that declares its content
 * size, without dictionary and without trailing bytes. This is the only file
 * pair that knows libzstd. Contexts are one a thread, made on first use.
 */
#ifndef FORMAT_FRAME_H
#define FORMAT_FRAME_H

#include "base/error.h"
#include "base/bytes.h"

#define FRAME_LEVEL_DEFAULT 3
#define FRAME_LEVEL_MAX 19

/* The most bytes that a frame of CONTENT_SIZE can take. */
size_t frame_bound(size_t content_size);

/* Compress. OUT holds frame_bound(SIZE). LEVEL is 1 to 19. Returns the frame's size, or 0 if there is no memory. */
size_t frame_compress(const void *bytes, size_t size, int level, void *out, size_t out_capacity);

/* The content size that a frame declares, which may be anything. ERROR_CORRUPT if there is none. */
int frame_content_size(const void *frame, size_t frame_size, uint64_t *content_size_out, struct error *error);

/*
 * Decompress into OUT, exactly CONTENT_SIZE bytes. ERROR_CORRUPT if the frame
 * declares another size (checked before anything is decompressed), is
 * truncated, damaged, or followed by more bytes.
 */
int frame_decompress(const void *frame, size_t frame_size, void *out, size_t content_size, struct error *error);

#endif
