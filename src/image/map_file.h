/* The whole map of an image out of an archive folder, every page of it verified: for collecting and verifying. */
#ifndef IMAGE_MAP_FILE_H
#define IMAGE_MAP_FILE_H

#include "format/map.h"

struct map_file {
    struct map map;
    struct buffer bytes;
    struct map_presence *presence;
};

/* NOT_FOUND, CORRUPT with the page that is wrong, SYSTEM. Owned by the caller: map_file_finish. */
int map_file_read(int folder, const struct digest *image_id, struct map_file *file_out, struct error *error);
void map_file_finish(struct map_file *file);

/* Call FOUND for every block that is not zero, in order. Nonzero stops and is returned. */
int map_file_each(const struct map_file *file, int (*found)(void *user, uint64_t block, const struct digest *digest),
                  void *user);

#endif
