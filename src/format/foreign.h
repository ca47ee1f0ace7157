/*
 * What other programs make.
 *
 * Disk images: which one it is, by its first bytes or its
 * last sector. Reading them is qemu-img's work.
 *   qcow2  "QFI\xfb" at 0                                     QEMU, docs/interop/qcow2.txt
 *   vmdk   "KDMV" or "COWD" at 0, or a text descriptor        VMware, Virtual Disk Format 5.0
 *   vdi    0xbeda107f at 64                                   VirtualBox
 *   vhd    "conectix" at 0, or in the last sector (fixed)     Microsoft, Virtual Hard Disk Image Format
 *   vhdx   "vhdxfile" at 0                                    Microsoft, MS-VHDX
 *   iso    "CD001" at 0x8001                                  ECMA-119; raw as it is
 */
#ifndef FORMAT_FOREIGN_H
#define FORMAT_FOREIGN_H

#include "base/bytes.h"
#include "base/error.h"

#define FOREIGN_HEAD_SIZE 0x8010 /* what recognising needs of the beginning */
#define FOREIGN_TAIL_SIZE 512    /* and of the end */

struct foreign_format {
    const char *name;      /* "qcow2"; "raw" for what is none of them */
    const char *qemu_name; /* what qemu-img calls it; NULL: it is raw */
};

/* HEAD and TAIL may be shorter than the sizes above when the file is. Never NULL. */
const struct foreign_format *foreign_recognise(const uint8_t *head, size_t head_size, const uint8_t *tail,
                                               size_t tail_size);
/* By either name. NULL: unknown. */
const struct foreign_format *foreign_find(const char *name);

/*
 * The least size of a VDI file according to its header, which qemu-img does not check: it takes what is missing of a
 * truncated one for zeros. 0 if HEAD is no VDI's.
 */
uint64_t foreign_vdi_size(const uint8_t *head, size_t head_size);

/*
 * What `qemu-img map --output=json` says of one layer: does it hold nothing? CORRUPT if it does not say which extents
 * are present (QEMU before 6.1).
 */
int foreign_map_is_empty(const uint8_t *text, size_t size, bool *empty_out, struct error *error);

/*
 * What came in place of a file of an archive, where that is not the archive's doing: a web page, as a network gives it
 * that wants its users to log in, or a server that has one for everything; an answer that its server has compressed.
 * In words; NULL: none of these. Only for bytes that are known to be wrong.
 */
const char *foreign_mistake(const uint8_t *bytes, size_t size);
bool foreign_is_web_page(const uint8_t *bytes, size_t size);

#endif
