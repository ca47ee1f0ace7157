/*
 * Loaded into User-mode Linux's kernel by LD_PRELOAD, on its own: it makes UML run on processors with more registers
 * than it knows. Debian's UML has room for 2696 bytes of a process's extended state and gives just those back to the
 * host's kernel, which takes nothing but the whole state: with AMX that is 11 KiB, and UML dies in its first process.
 * Here what UML gives back is put on top of the whole state.
 */
#include <cpuid.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define XSTATE_MAX    16384 /* with AMX it is 11008 */
#define HEADER_OFFSET 512   /* of the XSAVE area's header, whose first word says which components hold something */
#define HEADER_SIZE   64
#define CPUID_XSAVE   0xd   /* its leaf i: size and offset of component i, for i of 2 to 62 */

typedef long ptrace_function(enum __ptrace_request request, pid_t pid, void *address, void *data);

static ptrace_function *real_ptrace(void)
{
    static ptrace_function *function;

    if (!function)
        *(void **)&function = dlsym(RTLD_NEXT, "ptrace");
    return function;
}

/* The components of the extended state that lie wholly in its first SIZE bytes. The first two, x87 and SSE, do. */
static uint64_t parts_within(size_t size)
{
    static uint64_t known;
    static size_t known_size;
    unsigned length, offset, flags, unused;

    if (known_size == size)
        return known;
    known = 3;
    for (unsigned i = 2; i < 63; i++)
        if (__get_cpuid_count(CPUID_XSAVE, i, &length, &offset, &flags, &unused) && length && offset + length <= size)
            known |= UINT64_C(1) << i;
    known_size = size;
    return known;
}

/* Put GIVEN on top of what PID has and set that. */
static long set_state(pid_t pid, void *kind, const struct iovec *given)
{
    static _Alignas(64) uint8_t state[XSTATE_MAX];
    struct iovec whole = {.iov_base = state, .iov_len = sizeof(state)};
    uint64_t parts, own, mask;

    if (real_ptrace()(PTRACE_GETREGSET, pid, kind, &whole))
        return -1;
    if (whole.iov_len <= given->iov_len) /* UML knows it all: nothing to mend */
        return real_ptrace()(PTRACE_SETREGSET, pid, kind, (void *)(uintptr_t)given);
    mask = parts_within(given->iov_len);
    memcpy(&parts, state + HEADER_OFFSET, sizeof(parts));
    memcpy(state, given->iov_base, given->iov_len);
    memcpy(&own, state + HEADER_OFFSET, sizeof(own));
    parts = (parts & ~mask) | (own & mask);
    memcpy(state + HEADER_OFFSET, &parts, sizeof(parts));
    return real_ptrace()(PTRACE_SETREGSET, pid, kind, &whole);
}

__attribute__((visibility("default"))) long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    void *address, *data;
    pid_t pid;

    va_start(arguments, request);
    pid = va_arg(arguments, pid_t);
    address = va_arg(arguments, void *);
    data = va_arg(arguments, void *);
    va_end(arguments);
    if (!real_ptrace()) {
        errno = ENOSYS;
        return -1;
    }
    if (request == PTRACE_SETREGSET && (uintptr_t)address == NT_X86_XSTATE) {
        const struct iovec *given = data;

        if (given->iov_len >= HEADER_OFFSET + HEADER_SIZE && given->iov_len <= XSTATE_MAX)
            return set_state(pid, address, given);
    }
    return real_ptrace()(request, pid, address, data);
}
