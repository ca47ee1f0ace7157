#!/bin/sh
# `circular boot --vm uml` boots a published Debian to a login under User-mode Linux; what it cannot do it says; and the
# module that makes UML run on processors with more registers than it knows does so.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires linux.uml expect cc
preload=$build/src/vm/uml_preload.so
[ -f "$preload" ] || skip 'User-mode Linux is for x86-64'

# A processor with more registers than UML knows, played: UML is given room for 832 bytes of them. The host's kernel
# takes the whole state or nothing, so UML's first process dies; with the module it does not.
cat >clamp.c <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
long ptrace(enum __ptrace_request request, ...)
{
    static long (*next)(enum __ptrace_request, ...);
    va_list arguments;
    va_start(arguments, request);
    int pid = va_arg(arguments, int);
    void *address = va_arg(arguments, void *), *data = va_arg(arguments, void *);
    va_end(arguments);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "ptrace");
    if (((int)request == PTRACE_GETREGSET || (int)request == PTRACE_SETREGSET) && (uintptr_t)address == NT_X86_XSTATE)
        ((struct iovec *)data)->iov_len = 832;
    return next(request, pid, address, data);
}
END
cc -shared -fPIC -o clamp.so clamp.c
run_true() { # PRELOAD
    LD_PRELOAD=$1 TMPDIR=/dev/shm timeout 60 linux.uml mem=64M con=null con0=null,fd:1 ssl=null rootfstype=hostfs \
        root=/dev/root ro init=/bin/true >uml.out 2>&1 || :
}
run_true "$work/clamp.so"
if grep -aq 'set fp regs failed' uml.out; then
    run_true "$work/clamp.so $preload"
    grep -aq 'exitcode=0x00000000' uml.out || fail "$(tail -n 20 uml.out)"
    ok 'UML that knows too few registers dies, and lives with the module'
else
    ok 'UML knows all registers of this processor # SKIP it has not more than 832 bytes of them'
fi
run_true "$preload"
grep -aq 'exitcode=0x00000000' uml.out || fail "$(tail -n 20 uml.out)"
ok 'the module does no harm where it is not needed'

make_archive 8
expect 1 circular boot "$archive/disk" --vm uml
says 'no partition of the disk holds a root file system'
for option in --uefi --tpm --nested '--cpus 2' '--display vnc' '--forward 2222:22' '--memory 32M'; do
    # shellcheck disable=SC2086  # words
    expect 1 circular boot "$archive/disk" --vm uml $option
    says 'User-mode Linux (has no|needs)'
done
mkdir path
ln -s "$(command -v fusermount3)" path/fusermount3
PATH=$work/path expect 1 "$circular" boot "$archive/disk" --vm uml
says 'Debian package user-mode-linux'
ok 'what User-mode Linux cannot do, or lacks, is said before anything starts'

[ -n "${CIRCULAR_DEBIAN_DISK:-}" ] && [ -f "$CIRCULAR_DEBIAN_DISK" ] || exit 0
circular publish "$CIRCULAR_DEBIAN_DISK" --name debian12 --version 1 --key "$key" --to debian
start_server debian
cat >boot.exp <<'END'
set timeout 120
spawn -noecho [lindex $argv 0] boot [lindex $argv 1] --vm uml --memory 512M
proc wanted {text} {
    expect $text {} timeout { puts "\nnot seen: $text"; exit 1 } eof { puts "\nended before: $text"; exit 1 }
}
wanted "login: "
send "root\r"
wanted "# "
send "systemctl is-active multi-user.target; echo disks-\$(grep -c ubda /proc/partitions)\r"
wanted "active"
wanted "disks-4"
send "echo writ\$((1))ten > /root/mark && sync && cat /root/mark\r"
wanted "writ1ten"
send "poweroff\r"
expect eof {} timeout { puts "\ndoes not end"; exit 1 }
lassign [wait] pid spawned failed status
exit $status
END
begun=$(date +%s)
start env expect boot.exp "$circular" "$url/debian12"
wait_for 200 ended "$pid"
status=0
wait "$pid" || status=$?
[ "$status" = 0 ] || fail "the boot ended with status $status: $(tail -n 30 "$work/log.$pid")"
grep -aq 'fetched .* of the image' "$work/log.$pid" || fail 'it does not say what was fetched'
nothing_left() { [ -z "$(find "$XDG_RUNTIME_DIR" -mindepth 2 ! -name accelerators ! -name disks)" ]; }
wait_for 10 nothing_left
ok "Debian boots to a login under User-mode Linux, and ends when it is powered off ($(($(date +%s) - begun)) s)"

start "$circular" boot "$url/debian12" --vm uml --memory 512M --serial none
boot=$pid
uml_runs() { pgrep -f "linux.uml .*$work" >/dev/null || pgrep -f 'linux.uml .*circular-0/boot-' >/dev/null; }
wait_for 30 uml_runs
kill -TERM "$boot"
wait_for 20 ended "$boot"
! pgrep -P "$boot" >/dev/null || fail 'a process is left'
ok 'SIGTERM ends it'
