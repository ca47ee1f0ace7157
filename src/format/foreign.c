/* Recognising disk images of other programs: see foreign.h. */
#include "format/foreign.h"

#include <strings.h>

#define VDI_DATA_OFFSET 0x158
#define VDI_BLOCK_SIZE 0x178
#define VDI_BLOCKS_ALLOCATED 0x184

enum { QCOW2, VMDK, VDI, VHD, VHDX, ISO, RAW, FORMAT_COUNT };

static const struct foreign_format formats[FORMAT_COUNT] = {
    [QCOW2] = {"qcow2", "qcow2"}, [VMDK] = {"vmdk", "vmdk"}, [VDI] = {"vdi", "vdi"}, [VHD] = {"vhd", "vpc"},
    [VHDX] = {"vhdx", "vhdx"},    [ISO] = {"iso", NULL},     [RAW] = {"raw", NULL},
};

static const struct magic {
    int format;
    const char *bytes;
    size_t offset;
} magics[] = {
    {QCOW2, "QFI\xfb", 0},
    {VMDK, "KDMV", 0},
    {VMDK, "COWD", 0},
    {VMDK, "# Disk DescriptorFile", 0},
    {VDI, "\x7f\x10\xda\xbe", 64},
    {VHDX, "vhdxfile", 0},
    {VHD, "conectix", 0},
    {ISO, "CD001", 0x8001},
};

static bool has(const uint8_t *bytes, size_t size, const char *magic, size_t offset)
{
    size_t length = strlen(magic);

    return size >= offset + length && !memcmp(bytes + offset, magic, length);
}

const struct foreign_format *foreign_recognise(const uint8_t *head, size_t head_size, const uint8_t *tail,
                                               size_t tail_size)
{
    for (size_t i = 0; i < sizeof(magics) / sizeof(magics[0]); i++)
        if (has(head, head_size, magics[i].bytes, magics[i].offset))
            return &formats[magics[i].format];
    return &formats[tail_size == FOREIGN_TAIL_SIZE && has(tail, tail_size, "conectix", 0) ? VHD : RAW];
}

const struct foreign_format *foreign_find(const char *name)
{
    for (int i = 0; i < FORMAT_COUNT; i++)
        if (!strcmp(formats[i].name, name) || (formats[i].qemu_name && !strcmp(formats[i].qemu_name, name)))
            return &formats[i];
    return NULL;
}

uint64_t foreign_vdi_size(const uint8_t *head, size_t head_size)
{
    if (head_size < VDI_BLOCKS_ALLOCATED + 4 || !has(head, head_size, "\x7f\x10\xda\xbe", 64))
        return 0;
    /* 32 times 32 bits and 32 more fit. */
    return load_le32(head + VDI_DATA_OFFSET) +
           (uint64_t)load_le32(head + VDI_BLOCK_SIZE) * load_le32(head + VDI_BLOCKS_ALLOCATED);
}

int foreign_map_is_empty(const uint8_t *text, size_t size, bool *empty_out, struct error *error)
{
    static const char present[] = "\"present\": true", absent[] = "\"present\": false";
    bool any = text && memmem(text, size, present, sizeof(present) - 1);

    if (!any && !(text && memmem(text, size, absent, sizeof(absent) - 1)))
        return error_set(error, ERROR_CORRUPT, "qemu-img map does not say what is present");
    *empty_out = !any;
    return 0;
}

bool foreign_is_web_page(const uint8_t *bytes, size_t size)
{
    static const char *const pages[] = {"<!doctype html", "<html", "<head", "<body", "<script", "<!--", "<?xml"};

    if (has(bytes, size, "\xef\xbb\xbf", 0)) /* a byte order mark */
        bytes += 3, size -= 3;
    while (size && (*bytes == ' ' || (*bytes >= '\t' && *bytes <= '\r')))
        bytes++, size--;
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        if (size >= strlen(pages[i]) && !strncasecmp((const char *)bytes, pages[i], strlen(pages[i])))
            return true;
    return false;
}

const char *foreign_mistake(const uint8_t *bytes, size_t size)
{
    if (has(bytes, size, "\x1f\x8b\x08", 0))
        return "it came compressed with gzip, which was not asked for";
    return foreign_is_web_page(bytes, size) ? "a web page came in its place, as in networks that want a login" : NULL;
}
