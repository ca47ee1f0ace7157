/*
 * Writing packs: the frames of an archive's block files, in the order in which a
 * boot wants them. Frames are checked on the way, so that a damaged block file
 * does not live on in a pack.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/digest_set.h"
#include "base/file.h"
#include "format/catalog.h"
#include "format/pack.h"
#include "image/catalog_writer.h"
#include "image/map_file.h"
#include "image/pack.h"
#include "store/store.h"

#define REST_PACK_BYTES (64 * MIB)
#define REST_SEGMENT_BYTES (8 * MIB)

struct packing {
    const struct pack_settings *settings;
    int folder;
    struct catalog catalog;
    const struct catalog_version *version;
    struct map_file map;
    struct digest *digests;   /* of every block; zero where there is nothing */
    struct digest_set *taken; /* blocks that are in a pack already */
    struct hints hints;
    uint64_t done_bytes;
    struct pack_result *result;
    struct error *error;
};

/* What goes into one pack. */
struct list {
    struct pack_entry *entries;
    uint32_t count;
    size_t capacity;
    uint64_t frame_bytes;
};

static int note_digest(void *user, uint64_t block, const struct digest *digest)
{
    ((struct packing *)user)->digests[block] = *digest;
    return 0;
}

static int list_add(struct packing *packing, struct list *list, uint64_t block)
{
    const struct digest *digest = &packing->digests[block];
    struct pack_entry *entry;
    char path[ARCHIVE_PATH_MAX];
    struct stat status;
    int fresh = digest_is_zero(digest) ? 0 : digest_set_add(packing->taken, digest);

    if (fresh <= 0)
        return fresh ? error_set(packing->error, ERROR_SYSTEM, "no memory for a pack") : 0;
    if (fstatat(packing->folder, archive_path_block(digest, path), &status, 0))
        return error_set_errno(packing->error, errno, "cannot look at %s", path);
    entry = array_grow(list->entries, list->count, &list->capacity, sizeof(*entry));
    if (!entry)
        return error_set(packing->error, ERROR_SYSTEM, "no memory for a pack");
    list->entries = entry;
    list->entries[list->count++] = (struct pack_entry){
        .digest = *digest,
        .frame_size = (uint32_t)min_u64((uint64_t)status.st_size, UINT32_MAX),
        .block_length = map_block_length(&packing->map.map, block),
    };
    list->frame_bytes += (uint64_t)status.st_size;
    return 0;
}

/* The frame of ENTRY, checked, into FRAME. BLOCK is room for what is in it. */
static int read_frame(struct packing *packing, const struct pack_entry *entry, struct buffer *frame, uint8_t *block)
{
    char path[ARCHIVE_PATH_MAX];
    int result = file_read(packing->folder, archive_path_block(&entry->digest, path), entry->frame_size, frame,
                           packing->error);

    if (!result && frame->size != entry->frame_size)
        result = error_set(packing->error, ERROR_CORRUPT, "its length changes");
    if (!result)
        result = block_verify(frame->bytes, frame->size, &entry->digest, entry->block_length, block, packing->error);
    if (result == ERROR_CORRUPT)
        return error_prefix(packing->error, "%s is damaged; publish the image again to mend it", path);
    return result ? error_prefix(packing->error, "%s", path) : 0;
}

static int copy_frames(struct packing *packing, const struct pack_table *table, int fd)
{
    cleanup(buffer_finish) struct buffer frame = {0};
    auto_free uint8_t *block = malloc(packing->map.map.block_size);
    int result = block ? 0 : error_set(packing->error, ERROR_SYSTEM, "no memory for a block");

    for (uint32_t i = 0; i < table->count && !result; i++) {
        const struct pack_entry *entry = &table->entries[i];

        result = read_frame(packing, entry, &frame, block);
        if (!result)
            result = file_pwrite_full(fd, frame.bytes, frame.size, entry->offset, packing->error);
        packing->done_bytes += entry->block_length;
        if (!result && i % 64 == 0 && !progress_update(packing->settings->progress, packing->done_bytes, 0))
            result = error_set(packing->error, ERROR_CANCELLED, "packing was broken off");
    }
    return result;
}

static int write_frames(struct packing *packing, const struct pack_table *table, const struct buffer *head,
                        const char *temporary, const char *path)
{
    auto_close int fd = openat(packing->folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int result;

    if (fd < 0)
        return error_set_errno(packing->error, errno, "cannot create %s", temporary);
    result = file_pwrite_full(fd, head->bytes, head->size, 0, packing->error);
    if (!result)
        result = copy_frames(packing, table, fd);
    if (!result && (fsync(fd) || renameat(packing->folder, temporary, packing->folder, path)))
        result = error_set_errno(packing->error, errno, "cannot write %s", path);
    if (result)
        unlinkat(packing->folder, temporary, 0);
    return result;
}

/* Room for another pack in the hints. */
static struct hints_pack *hints_grow(struct packing *packing)
{
    struct hints *hints = &packing->hints;
    struct hints_pack *packs;

    if (hints->pack_count == HINTS_PACKS_MAX)
        return NULL;
    packs = realloc(hints->packs, (hints->pack_count + 1) * sizeof(*packs));
    if (!packs)
        return NULL;
    hints->packs = packs;
    packs[hints->pack_count] = (struct hints_pack){0};
    return &packs[hints->pack_count++];
}

/* A segment begins at each entry whose index is in STARTS. */
static int write_pack(struct packing *packing, struct list *list, bool boot, const uint32_t *starts,
                      size_t start_count)
{
    struct pack_table table = {.entries = list->entries, .count = list->count};
    cleanup(buffer_finish) struct buffer head = {0};
    struct hints_pack *pack = hints_grow(packing);
    char path[ARCHIVE_PATH_MAX], temporary[ARCHIVE_PATH_MAX];
    char name[DIGEST_TEXT];
    int result;

    if (!pack || !(pack->segments = calloc(start_count + 1, sizeof(pack->segments[0]))))
        return error_set(packing->error, ERROR_SYSTEM, "no memory for the hints, or too many packs");
    result = pack_format_table(&table, &head, &pack->table, packing->error);
    if (result)
        return result;
    pack->boot = boot;
    pack->size = table.file_size;
    pack->table_size = head.size;
    for (size_t i = 0; i < start_count; i++)
        pack->segments[pack->segment_count++] = table.entries[starts[i]].offset;
    archive_path_pack(&pack->table, path);
    snprintf(temporary, sizeof(temporary), "packs/.tmp-%.16s", digest_format(&pack->table, name));
    result = file_make_parent(packing->folder, path, packing->error);
    return result ? result : write_frames(packing, &table, &head, temporary, path);
}

/* Deal the entries out: stream s gets entries s, s + PACK_STREAMS, ... STARTS: where streams but the first begin. */
static int deal(struct packing *packing, struct list *list, uint32_t starts[PACK_STREAMS], size_t *start_count_out)
{
    struct pack_entry *dealt = malloc(list->capacity * sizeof(*dealt));
    uint32_t at = 0;

    if (!dealt)
        return error_set(packing->error, ERROR_SYSTEM, "no memory for a pack");
    *start_count_out = 0;
    for (uint32_t stream = 0; stream < PACK_STREAMS && stream < list->count; stream++) {
        if (stream)
            starts[(*start_count_out)++] = at;
        for (uint32_t i = stream; i < list->count; i += PACK_STREAMS)
            dealt[at++] = list->entries[i];
    }
    free(list->entries);
    list->entries = dealt;
    return 0;
}

static int pack_boot(struct packing *packing, const struct profile *profile)
{
    uint32_t starts[PACK_STREAMS];
    struct list list = {0};
    size_t start_count = 0;
    int result = 0;

    for (uint32_t r = 0; r < profile->run_count; r++)
        for (uint64_t b = profile->runs[r].block, end = b + profile->runs[r].count; b < end && !result; b++)
            if (b < packing->map.map.block_count)
                result = list_add(packing, &list, b);
    if (!result && list.count)
        result = deal(packing, &list, starts, &start_count);
    if (!result && list.count)
        result = write_pack(packing, &list, true, starts, start_count);
    packing->result->boot_blocks = list.count;
    packing->result->boot_bytes = list.frame_bytes;
    free(list.entries);
    return result;
}

static int flush_rest(struct packing *packing, struct list *list)
{
    uint32_t starts[HINTS_SEGMENTS_MAX];
    size_t start_count = 0;
    uint64_t since = 0;
    int result;

    for (uint32_t i = 0; i < list->count; i++) {
        if (since >= REST_SEGMENT_BYTES && start_count < HINTS_SEGMENTS_MAX) {
            starts[start_count++] = i;
            since = 0;
        }
        since += list->entries[i].frame_size;
    }
    result = list->count ? write_pack(packing, list, false, starts, start_count) : 0;
    packing->result->rest_blocks += list->count;
    packing->result->rest_bytes += list->frame_bytes;
    list->count = 0;
    list->frame_bytes = 0;
    return result;
}

static int pack_rest(struct packing *packing)
{
    struct list list = {0};
    int result = 0;

    for (uint64_t b = 0; b < packing->map.map.block_count && !result; b++) {
        result = list_add(packing, &list, b);
        if (!result && list.frame_bytes >= REST_PACK_BYTES)
            result = flush_rest(packing, &list);
    }
    if (!result)
        result = flush_rest(packing, &list);
    free(list.entries);
    return result;
}

/* The profile that the hints name. */
static int load_profile(struct packing *packing, struct profile *profile_out)
{
    cleanup(buffer_finish) struct buffer bytes = {0};
    char path[ARCHIVE_PATH_MAX];
    int result;

    if (digest_is_zero(&packing->hints.profile))
        return error_set(packing->error, ERROR_NOT_FOUND,
                         "%s@%s has no profile; record one and attach it with `circular profile add`",
                         packing->version->name, packing->version->version);
    archive_path_file(&packing->hints.profile, path);
    result = file_read(packing->folder, path, PROFILE_SIZE_MAX, &bytes, packing->error);
    return result ? result : profile_parse(bytes.bytes, bytes.size, profile_out, packing->error);
}

static void forget_packs(struct hints *hints)
{
    for (size_t i = 0; i < hints->pack_count; i++)
        free(hints->packs[i].segments);
    hints->pack_count = 0;
}

/* PROFILE NULL: there is none, hence no boot pack. */
static int write_packs(struct packing *packing, const struct profile *profile)
{
    const struct catalog_version *version = packing->version;
    int result;

    if (profile && !digest_equal(&profile->image, &version->image))
        return error_set(packing->error, ERROR_INVALID,
                         "the profile is of another image; `circular profile add` carries it over");
    forget_packs(&packing->hints);
    result = profile ? pack_boot(packing, profile) : 0;
    if (!result && packing->settings->all)
        result = pack_rest(packing);
    if (result)
        return result;
    packing->hints.image = version->image;
    strcpy(packing->hints.version, version->version);
    return hints_save(packing->folder, version->name, version->version,
                      catalog_find(&packing->catalog, version->name, NULL) == version, &packing->hints,
                      packing->error);
}

static int read_version(struct packing *packing)
{
    const struct pack_settings *settings = packing->settings;
    bool named = settings->version && *settings->version;
    int result = catalog_load(packing->folder, &packing->catalog, packing->error);

    if (result)
        return result;
    packing->version = catalog_find(&packing->catalog, settings->name, settings->version);
    if (!packing->version)
        return error_set(packing->error, ERROR_NOT_FOUND, "%s%s%s is not in the catalog", settings->name,
                         named ? "@" : "", named ? settings->version : "");
    strcpy(packing->result->version, packing->version->version);
    result = map_file_read(packing->folder, &packing->version->image, &packing->map, packing->error);
    if (result)
        return result;
    packing->digests = calloc(packing->map.map.block_count, sizeof(*packing->digests));
    packing->taken = digest_set_create();
    if (!packing->digests || !packing->taken)
        return error_set(packing->error, ERROR_SYSTEM, "no memory for the image's digests");
    result = map_file_each(&packing->map, note_digest, packing);
    return result ? result : hints_load(packing->folder, packing->version->name, packing->version->version,
                                        &packing->hints, packing->error);
}

static int pack_version(struct packing *packing)
{
    cleanup(profile_finish) struct profile loaded = {0};
    int result = read_version(packing);

    if (result)
        return result;
    if (packing->settings->profile)
        return write_packs(packing, packing->settings->profile);
    if (packing->settings->all && digest_is_zero(&packing->hints.profile))
        return write_packs(packing, NULL);
    result = load_profile(packing, &loaded);
    return result ? result : write_packs(packing, &loaded);
}

int pack_write(const struct pack_settings *settings, struct pack_result *result_out, struct error *error)
{
    struct error unwanted;
    auto_close int folder = file_open_folder(settings->archive, false, error ? error : (error = &unwanted));
    auto_close int lock = folder < 0 ? folder : archive_lock(folder, true, error);
    struct packing packing = {.settings = settings, .folder = folder, .result = result_out, .error = error};
    int result = lock < 0 ? lock : 0;

    *result_out = (struct pack_result){0};
    if (!result)
        result = pack_version(&packing);
    hints_finish(&packing.hints);
    map_file_finish(&packing.map);
    catalog_finish(&packing.catalog);
    digest_set_destroy(packing.taken);
    free(packing.digests);
    return result && folder >= 0 ? error_prefix(error, "%s", settings->archive) : result;
}
