/* Small archives for tests: see archive_maker.h. */
#include "archive_maker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "format/frame.h"
#include "format/manifest.h"
#include "format/map.h"

void make_folder(char folder[128])
{
    const char *base = getenv("TMPDIR");

    snprintf(folder, 128, "%.80s/circular-unit.XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(folder));
}

void remove_folder(const char *folder)
{
    file_remove(AT_FDCWD, folder, NULL);
}

void archive_maker_init(struct archive_maker *maker)
{
    memset(maker, 0, sizeof(*maker));
    make_folder(maker->folder);
    maker->folder_fd = file_open_folder(maker->folder, false, NULL);
    assert_true(maker->folder_fd >= 0);
    assert_int_equal(key_pair_generate(&maker->public_key, &maker->secret_key, NULL), 0);
    catalog_make_id(maker->catalog.archive);
    maker->catalog.published = clock_wall();
    maker->catalog.expires = clock_wall() + 90 * 86400;
}

void archive_maker_finish(struct archive_maker *maker)
{
    catalog_finish(&maker->catalog);
    close(maker->folder_fd);
    remove_folder(maker->folder);
}

void archive_maker_write(struct archive_maker *maker, const char *path, const void *bytes, size_t size)
{
    assert_int_equal(file_write_atomic(maker->folder_fd, path, bytes, size, FILE_MAKE_FOLDERS, NULL), 0);
}

char *archive_maker_read(struct archive_maker *maker, const char *path, size_t *size_out)
{
    struct buffer bytes = {0};

    assert_int_equal(file_read(maker->folder_fd, path, 64 * MIB, &bytes, NULL), 0);
    *size_out = bytes.size;
    assert_true(buffer_append(&bytes, "", 1));
    return (char *)bytes.bytes;
}

void archive_maker_remove(struct archive_maker *maker, const char *path)
{
    assert_int_equal(unlinkat(maker->folder_fd, path, 0), 0);
}

static struct digest write_block(struct archive_maker *maker, const uint8_t *bytes, uint32_t length,
                                 uint64_t *stored_size)
{
    char path[ARCHIVE_PATH_MAX];
    struct digest digest = {0};
    size_t capacity = frame_bound(length), size;
    uint8_t *frame;

    if (bytes_are_zero(bytes, length))
        return digest;
    digest_of(bytes, length, &digest);
    frame = malloc(capacity);
    size = frame_compress(bytes, length, 1, frame, capacity);
    assert_true(size > 0);
    archive_maker_write(maker, archive_path_block(&digest, path), frame, size);
    *stored_size += size;
    free(frame);
    return digest;
}

static void write_manifest(struct archive_maker *maker, struct catalog_version *version)
{
    struct manifest *manifest = calloc(1, sizeof(*manifest));
    char path[ARCHIVE_PATH_MAX], *text;

    strcpy(manifest->name, version->name);
    strcpy(manifest->version, version->version);
    manifest->published = version->published;
    manifest->disk_count = 1;
    manifest->disks[0] = (struct manifest_disk){version->image, version->disk_size, version->block_size,
                                                version->data_size, version->stored_size};
    text = manifest_format(manifest);
    digest_of(text, strlen(text), &version->manifest);
    archive_maker_write(maker, archive_path_manifest(version->name, version->version, path), text, strlen(text));
    free(text);
    free(manifest);
}

struct digest archive_maker_add(struct archive_maker *maker, const char *name, const char *version,
                                const uint8_t *image, uint64_t size, uint32_t block_size)
{
    struct catalog_version entry = {.disk_size = size, .block_size = block_size, .published = clock_wall()};
    struct map_builder *builder;
    struct buffer file = {0};
    struct map map;
    char path[ARCHIVE_PATH_MAX];

    strcpy(entry.name, name);
    strcpy(entry.version, version);
    assert_int_equal(map_builder_create(block_size, size, &builder, NULL), 0);
    for (uint64_t block = 0; block * block_size < size; block++) {
        uint32_t length = (uint32_t)min_u64(block_size, size - block * block_size);
        struct digest digest = write_block(maker, image + block * block_size, length, &entry.stored_size);

        entry.data_size += digest_is_zero(&digest) ? 0 : length;
        assert_int_equal(map_builder_set(builder, block, &digest, NULL), 0);
    }
    assert_int_equal(map_builder_finish(builder, &file, &map, NULL), 0);
    map_builder_destroy(builder);
    map_image_id(&map, &entry.image);
    archive_maker_write(maker, archive_path_map(&entry.image, path), file.bytes, file.size);
    buffer_finish(&file);
    write_manifest(maker, &entry);
    assert_int_equal(catalog_add(&maker->catalog, &entry, NULL), 0);
    return entry.image;
}

void archive_maker_write_catalog(struct archive_maker *maker)
{
    char *text = catalog_format(&maker->catalog);

    assert_non_null(text);
    archive_maker_write(maker, ARCHIVE_CATALOG, text, strlen(text));
    free(text);
}

void archive_maker_write_signature(struct archive_maker *maker)
{
    char *text = catalog_format(&maker->catalog), *signature, *second = NULL, *both;

    signature = signature_create(&maker->secret_key, text, strlen(text), "catalog");
    assert_non_null(signature);
    if (maker->second_key)
        second = signature_create(maker->second_key, text, strlen(text), "catalog");
    assert_true(asprintf(&both, "%s%s", second ? second : "", signature) > 0);
    archive_maker_write(maker, ARCHIVE_CATALOG SIGNATURE_SUFFIX, both, strlen(both));
    free(both);
    free(second);
    free(signature);
    free(text);
}

void archive_maker_publish(struct archive_maker *maker)
{
    maker->catalog.serial++;
    archive_maker_write_signature(maker);
    archive_maker_write_catalog(maker);
}

uint8_t *make_image(uint64_t size, uint32_t block_size, unsigned seed)
{
    uint8_t *image = calloc(1, size);
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

    for (uint64_t i = 0; i < size; i++) {
        uint64_t block = i / block_size;

        if (block % 5 == 3) /* zeros */
            continue;
        if (block % 5 == 1) /* text, the same in each of these */
            image[i] = (uint8_t)"the quick brown fox "[i % block_size % 20];
        else if (block % 2) /* compressible */
            image[i] = (uint8_t)(block + seed);
        else {
            state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            image[i] = (uint8_t)(state >> 56);
        }
    }
    image[size - 1] = 0xee;
    return image;
}
