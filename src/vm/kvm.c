/* KVM, tried: see kvm.h. */
#include "vm/kvm.h"

#include <errno.h>

#if defined(__x86_64__)

#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/process.h"

#define GUEST_AT      0x1000
#define GUEST_MEMORY  0x10000
#define PROGRESS_PORT 0x80
#define CPUID_MAX     256
#define ROUNDS        3       /* of counting; the fastest counts */
#define ROUND_MAX_US  25000   /* 100,000 rounds of two instructions: 0.05 ms on a processor, 1 ms translated */

/*
 * The guest. It says on PROGRESS_PORT how far it has come, counts (3 to 6), and halts. Page tables: one page of 2 MiB,
 * in tables at 0x2000, 0x3000 and 0x4000.
 */
__asm__(".pushsection .rodata\n"
        "kvm_guest:\n"
        ".code16\n"
        "    movb $1, %al\n"
        "    outb %al, $0x80\n"
        "    cli\n"
        "    lgdtl %cs:(0x1000 + kvm_guest_gdt_pointer - kvm_guest)\n"
        "    movl %cr0, %eax\n"
        "    orl $1, %eax\n"
        "    movl %eax, %cr0\n"
        "    ljmpl $8, $(0x1000 + kvm_guest_protected - kvm_guest)\n"
        ".code32\n"
        "kvm_guest_protected:\n"
        "    movw $16, %ax\n"
        "    movw %ax, %ds\n"
        "    movw %ax, %es\n"
        "    movw %ax, %ss\n"
        "    movl $0x1000, %esp\n"
        "    movb $2, %al\n"
        "    outb %al, $0x80\n"
        "    movl $0x3003, 0x2000\n"
        "    movl $0x4003, 0x3000\n"
        "    movl $0x83, 0x4000\n"
        "    movl %cr4, %eax\n"
        "    orl $0x20, %eax\n"
        "    movl %eax, %cr4\n"
        "    movl $0x2000, %eax\n"
        "    movl %eax, %cr3\n"
        "    movl $0xc0000080, %ecx\n" /* EFER: long mode */
        "    rdmsr\n"
        "    orl $0x100, %eax\n"
        "    wrmsr\n"
        "    movl %cr0, %eax\n"
        "    orl $0x80000000, %eax\n"
        "    movl %eax, %cr0\n"
        "    ljmpl $24, $(0x1000 + kvm_guest_long - kvm_guest)\n"
        ".code64\n"
        "kvm_guest_long:\n"
        "    xorl %eax, %eax\n"
        "    cpuid\n"
        "    rdtsc\n"
        "    movb $3, %al\n"
        "1:  outb %al, $0x80\n"
        "    movl $100000, %ecx\n"
        "2:  decl %ecx\n"
        "    jnz 2b\n"
        "    incb %al\n"
        "    cmpb $7, %al\n"
        "    jne 1b\n"
        "    hlt\n"
        ".balign 8\n"
        "kvm_guest_gdt:\n"
        "    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff\n"
        "kvm_guest_gdt_pointer:\n"
        "    .word 31\n"
        "    .long 0x1000 + kvm_guest_gdt - kvm_guest\n"
        "kvm_guest_end:\n"
        ".popsection\n");

extern const char kvm_guest[], kvm_guest_end[];

enum step { OPENING, CREATING, RUNNING, REAL_MODE, PROTECTED_MODE, LONG_MODE, ENDED, FAILED };

/* What the child tells; shared with it. */
struct trial {
    volatile int step;
    volatile int failed_at; /* the step, if it is FAILED */
    volatile int cause;     /* errno, or 0 */
    volatile int version;   /* of the interface */
    volatile uint64_t fastest_us;
};

struct machine {
    int kvm, vm, cpu;
    uint8_t *memory;
    struct kvm_run *run;
};

static bool make_machine(struct machine *machine)
{
    struct kvm_userspace_memory_region region = {.memory_size = GUEST_MEMORY};
    int size = ioctl(machine->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

    machine->vm = ioctl(machine->kvm, KVM_CREATE_VM, 0);
    machine->memory = mmap(NULL, GUEST_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (machine->vm < 0 || machine->memory == MAP_FAILED || size < (int)sizeof(*machine->run))
        return false;
    memcpy(machine->memory + GUEST_AT, kvm_guest, (size_t)(kvm_guest_end - kvm_guest));
    region.userspace_addr = (uintptr_t)machine->memory;
    if (ioctl(machine->vm, KVM_SET_USER_MEMORY_REGION, &region))
        return false;
    machine->cpu = ioctl(machine->vm, KVM_CREATE_VCPU, 0);
    if (machine->cpu < 0)
        return false;
    machine->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, machine->cpu, 0);
    return machine->run != MAP_FAILED;
}

/* Long mode needs CPUID to have it; then the first instruction. */
static bool prepare_cpu(const struct machine *machine)
{
    static union {
        struct kvm_cpuid2 list;
        char space[sizeof(struct kvm_cpuid2) + CPUID_MAX * sizeof(struct kvm_cpuid_entry2)];
    } cpuid;
    struct kvm_regs registers = {.rip = GUEST_AT, .rflags = 2};
    struct kvm_sregs special;

    cpuid.list.nent = CPUID_MAX;
    if (ioctl(machine->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) || ioctl(machine->cpu, KVM_SET_CPUID2, &cpuid) ||
        ioctl(machine->cpu, KVM_GET_SREGS, &special))
        return false;
    special.cs.base = 0;
    special.cs.selector = 0;
    return !ioctl(machine->cpu, KVM_SET_SREGS, &special) && !ioctl(machine->cpu, KVM_SET_REGS, &registers);
}

/* Processor time, which the load of the host does not change. The guest's counts. */
static uint64_t used_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool run_guest(const struct machine *machine, struct trial *trial)
{
    uint64_t begun_us = 0, now_us;

    while (!ioctl(machine->cpu, KVM_RUN, 0)) {
        const uint8_t *said = (const uint8_t *)machine->run + machine->run->io.data_offset;

        now_us = used_us();
        if (trial->step == LONG_MODE && now_us - begun_us < trial->fastest_us)
            trial->fastest_us = now_us - begun_us;
        if (machine->run->exit_reason == KVM_EXIT_HLT)
            return trial->step == LONG_MODE;
        if (machine->run->exit_reason != KVM_EXIT_IO || machine->run->io.port != PROGRESS_PORT)
            break;
        trial->step = *said == 1 ? REAL_MODE : *said == 2 ? PROTECTED_MODE : LONG_MODE;
        begun_us = used_us();
    }
    return false;
}

/* In the child. Only system calls: other threads of the parent may have held any lock. */
static void run_trial(const char *device, struct trial *trial)
{
    struct machine machine = {.kvm = open(device, O_RDWR | O_CLOEXEC | O_NONBLOCK)};

    errno = machine.kvm < 0 ? errno : 0;
    if (machine.kvm >= 0) {
        trial->version = ioctl(machine.kvm, KVM_GET_API_VERSION, 0);
        if (trial->version == KVM_API_VERSION) {
            trial->step = CREATING;
            if (make_machine(&machine) && prepare_cpu(&machine)) {
                trial->step = RUNNING;
                errno = 0;
                if (run_guest(&machine, trial)) {
                    trial->step = ENDED;
                    return;
                }
            }
        }
    }
    trial->cause = errno;
    trial->failed_at = trial->step;
    trial->step = FAILED;
}

static const char *step_words(int step)
{
    static const char *const words[] = {
        [OPENING] = "while the device was opened", [CREATING] = "while it was made",
        [RUNNING] = "at its first instruction",    [REAL_MODE] = "on its way to protected mode",
        [PROTECTED_MODE] = "on its way to long mode", [LONG_MODE] = "while it counted",
    };

    return step >= 0 && step <= LONG_MODE ? words[step] : "";
}

static int tell_open(const char *device, const struct trial *trial, struct error *error)
{
    switch (trial->cause) {
    case ENOENT:
        return error_set(error, ERROR_NOT_FOUND,
                         "there is no %s: the processor or its firmware settings lack virtualisation, or the module "
                         "kvm_amd or kvm_intel is not loaded", device);
    case EACCES:
    case EPERM:
        return error_set(error, ERROR_UNSUPPORTED, "%s: permission denied: add yourself to the group kvm", device);
    case ENOTTY:
    case 0:
        return error_set(error, ERROR_UNSUPPORTED, "%s is not a device of KVM", device);
    default:
        return error_set(error, ERROR_UNSUPPORTED, "%s cannot be used: %s", device, strerror(trial->cause));
    }
}

static int tell(const char *device, const struct trial *trial, struct error *error)
{
    if (trial->failed_at == OPENING)
        return tell_open(device, trial, error);
    if (trial->failed_at == CREATING)
        return error_set(error, ERROR_UNSUPPORTED, "KVM makes no virtual machine here: %s%s", strerror(trial->cause),
                         trial->cause == EBUSY ? " (does another hypervisor, such as VirtualBox, run?)" : "");
    return error_set(error, ERROR_UNSUPPORTED, "a guest under KVM failed %s%s%s", step_words(trial->failed_at),
                     trial->cause ? ": " : "", trial->cause ? strerror(trial->cause) : "");
}

/* How it went, once the child is gone. */
static int judge(const char *device, const struct trial *trial, unsigned timeout_ms, struct error *error)
{
    if (trial->step == FAILED)
        return tell(device, trial, error);
    if (trial->step != ENDED && (trial->fastest_us == UINT64_MAX || trial->fastest_us <= ROUND_MAX_US))
        return error_set(error, ERROR_UNSUPPORTED, "a guest under KVM hung in its first %u.%u s, %s",
                         timeout_ms / 1000, timeout_ms % 1000 / 100, step_words(trial->step));
    if (trial->fastest_us > ROUND_MAX_US)
        return error_set(error, ERROR_UNSUPPORTED,
                         "KVM emulates each instruction here: a guest took %llu ms for what takes a processor 0.1 ms",
                         (unsigned long long)trial->fastest_us / 1000);
    return 0;
}

int kvm_try(const char *device, unsigned timeout_ms, struct error *error)
{
    struct trial *trial = mmap(NULL, sizeof(*trial), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status, result;
    pid_t pid;

    if (trial == MAP_FAILED)
        return error_set_errno(error, errno, "cannot try KVM");
    trial->fastest_us = UINT64_MAX;
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_trial(device, trial);
        raise(SIGKILL);
    }
    if (pid > 0) {
        process_wait_within(pid, timeout_ms, false, &status);
        result = judge(device, trial, timeout_ms, error);
    } else {
        result = error_set_errno(error, errno, "cannot try KVM");
    }
    munmap(trial, sizeof(*trial));
    return result;
}

#else

int kvm_try(const char *device, unsigned timeout_ms, struct error *error)
{
    (void)timeout_ms;
    return error_set(error, ERROR_UNSUPPORTED,
                     "%s is not tried: the guests of OS Circular are x86-64, this host is not", device);
}

#endif
