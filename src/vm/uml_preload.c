/*
 * Loaded into User-mode Linux's kernel by LD_PRELOAD, on its own. It mends what that kernel does not do by itself:
 *
 * Registers. Debian's UML has room for 2696 bytes of a process's extended state and gives just those back to the host's
 * kernel, which takes nothing but the whole state: with AMX that is 11 KiB, and UML dies in its first process. Here
 * what UML gives back is put on top of the whole state.
 *
 * Its end. UML is many processes, and those that it leaves when it is killed run on for ever. Here they end with it.
 * And where CIRCULAR_UML_ENDS is a folder, or a file of the last minutes, a reboot of the guest is the end too.
 *
 * Its disk. Where the server of the disk CIRCULAR_UML_DISK was killed, a read waits until the disk is there again.
 *
 * Its network. Anybody on the host could send frames to its socket; with CIRCULAR_UML_PEER only that socket can.
 */
#include <cpuid.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define XSTATE_MAX    16384 /* with AMX it is 11008 */
#define HEADER_OFFSET 512   /* of the XSAVE area's header, whose first word says which components hold something */
#define HEADER_SIZE   64
#define CPUID_XSAVE   0xd   /* its leaf i: size and offset of component i, for i of 2 to 62 */

#define SHOWN         __attribute__((visibility("default")))
#define DISK_PAUSE_US 200000
#define ENDS_S        600 /* a guest that has not rebooted so long after the power button was pressed ignores it */
#define OLD_OPTIONS   21 /* PTRACE_OLDSETOPTIONS, which UML uses */

typedef long ptrace_function(enum __ptrace_request request, pid_t pid, void *address, void *data);

/* ---- Registers ---- */

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

SHOWN long ptrace(enum __ptrace_request request, ...)
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
    if (request == PTRACE_SETOPTIONS || (int)request == OLD_OPTIONS)
        data = (void *)((uintptr_t)data | PTRACE_O_EXITKILL);
    return real_ptrace()(request, pid, address, data);
}

/* ---- Its end ---- */

/* Of a new process: at the top of its stack, which is nobody's yet. */
struct child {
    int (*function)(void *argument);
    void *argument;
    pid_t parent;
};

static int begin_child(void *argument)
{
    struct child child = *(struct child *)argument;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return getppid() == child.parent ? child.function(child.argument) : 1;
}

SHOWN int clone(int (*function)(void *), void *stack, int flags, void *argument, ...)
{
    typedef int clone_function(int (*)(void *), void *, int, void *, ...);
    struct child *child = (struct child *)(((uintptr_t)stack - sizeof(*child)) & ~(uintptr_t)63);
    static clone_function *real;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clone");
    if (!real) {
        errno = ENOSYS;
        return -1;
    }
    *child = (struct child){.function = function, .argument = argument, .parent = getpid()};
    return real(begin_child, child, flags, child);
}

static bool reboot_ends(void)
{
    const char *path = getenv("CIRCULAR_UML_ENDS");
    struct stat status;

    if (!path || stat(path, &status))
        return false;
    return S_ISDIR(status.st_mode) || time(NULL) - status.st_mtime < ENDS_S;
}

/* UML reboots by running itself again. */
SHOWN int execvp(const char *file, char *const *arguments)
{
    typedef int execvp_function(const char *, char *const *);
    execvp_function *real;

    if (reboot_ends())
        _exit(0);
    *(void **)&real = dlsym(RTLD_NEXT, "execvp");
    return real(file, arguments);
}

/* ---- Its disk ---- */

/* The device that the disk was on when UML began, or was given it again: files of others are not our business. */
static struct statx disk_place;

/* Of the file at PATH, or of FD if that is "". Asks no server, which may have died. */
static bool find_place(int fd, const char *path, struct statx *place_out)
{
    return !statx(fd, path, AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, place_out);
}

__attribute__((constructor)) static void remember_disk(void)
{
    const char *disk = getenv("CIRCULAR_UML_DISK");

    if (disk)
        find_place(AT_FDCWD, disk, &disk_place);
}

static bool is_disk(int fd)
{
    struct statx place;

    return find_place(fd, "", &place) && place.stx_dev_major == disk_place.stx_dev_major &&
           place.stx_dev_minor == disk_place.stx_dev_minor;
}

/* Is FD a file whose server has died? What the kernel knows by itself it does not ask for; this it does. */
static bool is_dead(int fd)
{
    struct statfs status;

    return fstatfs(fd, &status) && errno != EINTR && errno != EBADF;
}

/* In the place of FD the file at PATH, when it is there. */
static void open_again(int fd, const char *path)
{
    int fresh = open(path, O_RDONLY | O_CLOEXEC);

    if (fresh < 0 || is_dead(fresh) || dup3(fresh, fd, O_CLOEXEC) < 0)
        usleep(DISK_PAUSE_US);
    else
        find_place(fd, "", &disk_place);
    if (fresh >= 0)
        close(fresh);
}

SHOWN ssize_t pread64(int fd, void *bytes, size_t size, off64_t offset)
{
    typedef ssize_t pread_function(int, void *, size_t, off64_t);
    static pread_function *real;
    ssize_t got;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pread64");
    while ((got = real(fd, bytes, size, offset)) < 0 && errno != EINTR && errno != EBADF) {
        const char *disk = getenv("CIRCULAR_UML_DISK");
        int cause = errno;

        if (!disk || !is_disk(fd) || !is_dead(fd)) {
            errno = cause;
            break;
        }
        open_again(fd, disk);
    }
    return got;
}

/* ---- Its network ---- */

/* Of a datagram socket that is connected the kernel lets only its peer send to it. What others sent before goes. */
static int take_from_peer_only(int fd, const struct sockaddr *address)
{
    struct sockaddr_un peer = {.sun_family = AF_UNIX};
    const char *path = getenv("CIRCULAR_UML_PEER");
    char byte;

    if (address->sa_family != AF_UNIX || *((const struct sockaddr_un *)(const void *)address)->sun_path || !path)
        return 0;
    if (strlen(path) >= sizeof(peer.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(peer.sun_path, path);
    if (connect(fd, (struct sockaddr *)&peer, sizeof(peer)))
        return -1;
    while (recv(fd, &byte, 1, MSG_DONTWAIT) >= 0)
        ;
    return 0;
}

SHOWN int bind(int fd, __CONST_SOCKADDR_ARG address, socklen_t size)
{
    typedef int bind_function(int, __CONST_SOCKADDR_ARG, socklen_t);
    bind_function *real;
    int result;

    *(void **)&real = dlsym(RTLD_NEXT, "bind");
    result = real ? real(fd, address, size) : -1;
    return result ? result : take_from_peer_only(fd, address.__sockaddr__);
}
