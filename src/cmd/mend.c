/* Giving a machine its disk again: see mend.h. */
#include "cmd/mend.h"

#include <string.h>

#include "base/process.h"
#include "vm/qemu.h"

int mend_go_on(struct qmp *qmp, bool *mended, struct error *error)
{
    char state[QMP_WORD] = "";
    int result = qmp_status(qmp, state, error);

    if (result || strcmp(state, "io-error") != 0)
        return result;
    *mended = true;
    return qmp_order(qmp, "cont", error);
}

int mend_disk(struct qmp *qmp, pid_t process, const struct shared_disk *disk, bool *mended_out, struct error *error)
{
    /* Ask it, not who mounted: that one may have ended before it gave the machine what it mounted. A new mount is
     * another device. */
    bool held = process_holds(process, disk->path);
    int result = held ? 0 : qemu_replace_base(qmp, disk->path, error);

    *mended_out = !result && !held;
    return result ? result : mend_go_on(qmp, mended_out, error);
}
