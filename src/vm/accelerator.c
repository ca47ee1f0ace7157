/* What this host can run machines on: see accelerator.h. */
#include "vm/accelerator.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/process.h"
#include "vm/accelerator_memory.h"
#include "vm/kvm.h"
#include "vm/machine.h"
#include "vm/tpm.h"
#include "vm/uml.h"
#include "vm/vbox.h"
#include "vm/xen.h"

#define TIMEOUT_DEFAULT_MS 3000
#define BOOT_DISK_SIZE     (1024 * 1024)
#define EXIT_PORT_VALUE    0x10 /* isa-debug-exit makes this exit status 0x10 * 2 + 1 */
#define EXIT_EXPECTED      33

static unsigned timeout_of(const struct accelerator_settings *settings)
{
    return settings->timeout_ms ? settings->timeout_ms : TIMEOUT_DEFAULT_MS;
}

/* A disk whose boot sector writes EXIT_PORT_VALUE to port 0xf4, and stops if that does not end the machine. */
static int make_boot_disk(struct error *error)
{
    static const uint8_t code[] = {0xb0, EXIT_PORT_VALUE, /* mov al, EXIT_PORT_VALUE */
                                   0xba, 0xf4, 0x00,      /* mov dx, 0xf4 */
                                   0xee,                  /* out dx, al */
                                   0xf4, 0xeb, 0xfd};     /* hlt; jmp to it */
    static const uint8_t mark[] = {0x55, 0xaa};
    auto_close int fd = memfd_create("boot-sector", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, BOOT_DISK_SIZE))
        return error_set_errno(error, errno, "cannot make a disk to try");
    if (file_pwrite_full(fd, code, sizeof(code), 0, error) || file_pwrite_full(fd, mark, sizeof(mark), 510, error))
        return error ? error->code : ERROR_SYSTEM;
    return steal_fd(&fd);
}

/* The last line that QEMU said, or what its status is. */
static int tell_qemu(const char *accelerator, int status, struct buffer *output, struct error *error)
{
    char *text = output->size ? (char *)output->bytes : NULL, *line;

    while (text && output->size && text[output->size - 1] == '\n')
        text[--output->size] = '\0';
    line = text ? strrchr(text, '\n') : NULL;
    line = line ? line + 1 : text;
    if (line && *line)
        return error_set(error, ERROR_UNSUPPORTED, "%.*s", ACCELERATOR_TEXT / 2, line);
    return error_set(error, ERROR_UNSUPPORTED, "QEMU ended with status %d under -accel %s", status, accelerator);
}

/* Firmware and a boot sector under QEMU. */
static int try_qemu(const struct accelerator_settings *settings, const char *accelerator, struct error *error)
{
    cleanup(buffer_finish) struct buffer output = {0};
    char program[PATH_MAX], drive[100];
    const char *arguments[] = {
        "qemu-system-x86_64", "-accel", accelerator, "-machine", "q35", "-cpu", "max", "-m", "64", "-no-user-config",
        "-nodefaults", "-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive", drive, NULL};
    auto_close int disk = -1;
    int status, result;

    if (!process_find(settings->search_path, "qemu-system-x86_64", program))
        return machine_missing("qemu-system-x86_64", "qemu-system-x86", error);
    disk = make_boot_disk(error);
    if (disk < 0)
        return disk;
    snprintf(drive, sizeof(drive), "file=/proc/%d/fd/%d,format=raw,if=virtio,readonly=on", (int)getpid(), disk);
    result = process_try(program, arguments, timeout_of(settings), &output, &status, error);
    if (result == ERROR_UNAVAILABLE)
        return error_set(error, ERROR_UNSUPPORTED, "a guest under QEMU's %s hung in its first %u s", accelerator,
                         timeout_of(settings) / 1000);
    if (result)
        return result;
    return status == EXIT_EXPECTED ? 0 : tell_qemu(accelerator, status, &output, error);
}

static const char *kvm_device(const struct accelerator_settings *settings)
{
    return settings->kvm_device ? settings->kvm_device : "/dev/kvm";
}

/* A guest of our own first; then, where QEMU is, one with firmware, which asks for more. */
static int try_kvm(const struct accelerator_settings *settings, struct accelerator *result_out, struct error *error)
{
    char program[PATH_MAX];
    int result = kvm_try(kvm_device(settings), timeout_of(settings), error);

    if (result)
        return result;
    if (!process_find(settings->search_path, "qemu-system-x86_64", program)) {
        snprintf(result_out->text, sizeof(result_out->text), "a guest of our own ran; QEMU is not here to be tried");
        return 0;
    }
    result = try_qemu(settings, "kvm", error);
    if (!result)
        snprintf(result_out->text, sizeof(result_out->text), "a guest ran in QEMU, as fast as this processor");
    return result;
}

static int try_tcg(const struct accelerator_settings *settings, struct accelerator *result_out, struct error *error)
{
    int result = try_qemu(settings, "tcg", error);

    if (!result)
        snprintf(result_out->text, sizeof(result_out->text), "a guest ran in QEMU; each instruction is translated");
    return result;
}

/* The kernel's own word: "Y" or "1". */
static bool kernel_allows_nested(void)
{
    static const char *const paths[] = {"/sys/module/kvm_amd/parameters/nested",
                                        "/sys/module/kvm_intel/parameters/nested"};
    bool allows = false;

    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        cleanup(buffer_finish) struct buffer text = {0};

        if (!file_read(AT_FDCWD, paths[i], 16, &text, NULL) && text.size)
            allows = allows || text.bytes[0] == 'Y' || text.bytes[0] == '1';
    }
    return allows;
}

static int try_nested(const struct accelerator_settings *settings, struct accelerator *result_out, struct error *error)
{
    struct accelerator kvm, tcg;

    accelerator_try(settings, ACCELERATOR_KVM, &kvm);
    if (kvm.works && kernel_allows_nested()) {
        snprintf(result_out->text, sizeof(result_out->text), "machines under KVM can have KVM themselves");
        return 0;
    }
    accelerator_try(settings, ACCELERATOR_TCG, &tcg);
    if (!tcg.works)
        return error_set(error, ERROR_UNSUPPORTED, "%s", tcg.text);
    snprintf(result_out->text, sizeof(result_out->text), "under TCG: QEMU emulates AMD-V, slowly");
    return 0;
}

static int try_xen(const struct accelerator_settings *settings, struct accelerator *result_out, struct error *error)
{
    char program[PATH_MAX];
    int result = xen_find_host(settings->search_path, program, error);

    if (!result)
        snprintf(result_out->text, sizeof(result_out->text), "this is the first domain (dom0), with %.300s", program);
    return result;
}

static int try_uml(const struct accelerator_settings *settings, struct accelerator *result_out, struct error *error)
{
    int result = uml_try(settings->search_path, settings->uml_preload, 3 * timeout_of(settings), error);

    if (!result)
        snprintf(result_out->text, sizeof(result_out->text), "its kernel ran a program");
    return result;
}

static int try_vbox(const struct accelerator_settings *settings, struct accelerator *result_out, struct error *error)
{
    return vbox_try(settings->search_path, timeout_of(settings), result_out->text, sizeof(result_out->text), error);
}

static int try_tpm(const struct accelerator_settings *settings, struct accelerator *result_out, struct error *error)
{
    struct tpm_programs programs;
    int result = tpm_find(settings->search_path, &programs, error);

    if (!result)
        snprintf(result_out->text, sizeof(result_out->text), "TPM 2.0 by %.300s", programs.swtpm);
    return result;
}

typedef int try_function(const struct accelerator_settings *settings, struct accelerator *result_out,
                         struct error *error);

static const struct {
    const char *name;
    try_function *try;
    bool slow; /* worth remembering */
} kinds[ACCELERATOR_COUNT] = {
    [ACCELERATOR_KVM] = {"kvm", try_kvm, true},
    [ACCELERATOR_TCG] = {"tcg", try_tcg, true},
    [ACCELERATOR_NESTED] = {"nested", try_nested, false},
    [ACCELERATOR_XEN] = {"xen", try_xen, false},
    [ACCELERATOR_UML] = {"uml", try_uml, true},
    [ACCELERATOR_VBOX] = {"vbox", try_vbox, false},
    [ACCELERATOR_TPM] = {"tpm", try_tpm, false},
};

const char *accelerator_name(enum accelerator_kind kind)
{
    return kinds[kind].name;
}

/* The program or device that a remembered trial was of. False: without it nothing is tried, so nothing remembered. */
static bool subject_of(const struct accelerator_settings *settings, enum accelerator_kind kind, char path[PATH_MAX])
{
    if (kind == ACCELERATOR_KVM && access(kvm_device(settings), R_OK | W_OK))
        return false;
    if (kind == ACCELERATOR_UML)
        return process_find(settings->search_path, "linux.uml", path);
    return process_find(settings->search_path, "qemu-system-x86_64", path);
}

void accelerator_try(const struct accelerator_settings *settings, enum accelerator_kind kind,
                     struct accelerator *result_out)
{
    char subject[PATH_MAX];
    struct error error = ERROR_INIT;
    bool kept = kinds[kind].slow && settings->memory && subject_of(settings, kind, subject);

    if (kept && !settings->again &&
        accelerator_recall(settings->memory, kinds[kind].name, subject, result_out))
        return;
    *result_out = (struct accelerator){0};
    result_out->works = !kinds[kind].try(settings, result_out, &error);
    if (!result_out->works)
        snprintf(result_out->text, sizeof(result_out->text), "%.*s", ACCELERATOR_TEXT - 1, error.message);
    if (kept)
        accelerator_remember(settings->memory, kinds[kind].name, subject, result_out);
}

int accelerator_find(const struct accelerator_settings *settings, const char *wanted, const char **name_out, char *note,
                     struct error *error)
{
    struct accelerator kvm;

    *note = '\0';
    *name_out = "tcg";
    if (wanted && !strcmp(wanted, "tcg"))
        return 0;
    if (wanted && !strcmp(wanted, "kqemu")) {
        snprintf(note, ACCELERATOR_TEXT, "KQEMU is history: QEMU's own translation (TCG) does its work");
        return 0;
    }
    if (wanted && strcmp(wanted, "auto") && strcmp(wanted, "kvm"))
        return error_set(error, ERROR_INVALID, "an accelerator is auto, kvm or tcg, not '%s'", wanted);
    accelerator_try(settings, ACCELERATOR_KVM, &kvm);
    if (kvm.works) {
        *name_out = "kvm";
        return 0;
    }
    if (wanted && !strcmp(wanted, "kvm"))
        return error_set(error, ERROR_UNSUPPORTED, "KVM does not work here: %s", kvm.text);
    snprintf(note, ACCELERATOR_TEXT, "no KVM, so QEMU translates (TCG): %.*s", ACCELERATOR_TEXT - 50, kvm.text);
    return 0;
}
