#!/bin/sh
# `circular boot --vm uml` boots a published Debian to a login under User-mode Linux, and `circular vm` keeps machines there
# with state, network and console; what it cannot do it says; and the module that makes UML run on processors with more
# registers than it knows does so.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires linux.uml expect cc ssh
. "$top/tests/lib/machines.sh"
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
start_mount "$archive/disk" other --prefetch none
# What UML asks the C library for, asked by a program that has the module too.
cat >module.py <<'END'
import ctypes, errno, os, signal, socket, sys

def refused(call, *expected):
    try:
        call()
    except OSError as error:
        return error.errno in expected
    return False

other, mount, peer = os.open("other/disk", os.O_RDONLY), int(sys.argv[1]), sys.argv[2]
os.kill(mount, signal.SIGKILL)
while not refused(lambda: os.statvfs(other), errno.ENOTCONN, errno.ECONNABORTED):
    pass
assert refused(lambda: os.pread(other, 4096, 1 << 20), errno.ENOTCONN, errno.ECONNABORTED), "it reads another disk"

def card():
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
assert refused(lambda: card().bind("\0circular-" + str(os.getpid())), errno.ENOENT), "a card that all can send to"
card().bind("unguarded")
switch = card()
switch.bind(peer)
card().bind("\0circular-" + str(os.getpid()))

ends = os.environ["CIRCULAR_UML_ENDS"]
os.close(os.open(ends, os.O_CREAT))
os.utime(ends, (0, 0))
words = (ctypes.c_char_p * 4)(b"sh", b"-c", b"echo reboots", None)
if os.fork() == 0:
    ctypes.CDLL(None).execvp(b"sh", words)
os.wait()
os.utime(ends)
ctypes.CDLL(None).execvp(b"sh", (ctypes.c_char_p * 4)(b"sh", b"-c", b"echo reboots again", None))
END
expect 0 env LD_PRELOAD="$preload" CIRCULAR_UML_DISK="$work/disk.img" CIRCULAR_UML_PEER="$work/peer" \
    CIRCULAR_UML_ENDS="$work/ends" python3 module.py "$mount" "$work/peer"
says '^reboots$'
says_not 'reboots again'
release_mount other
ok 'the module gives no other file than the disk again, leaves no card unguarded, and forgets an old power button'

expect 1 circular boot "$archive/disk" --vm uml
says 'no partition of the disk holds a root file system'
for option in --uefi --tpm --nested '--cpus 2' '--display vnc' '--net bridge=br0' '--memory 32M'; do
    # shellcheck disable=SC2086  # words
    expect 1 circular boot "$archive/disk" --vm uml $option
    says 'User-mode Linux (has no|needs)'
    says_not 'no an? '
done
mkdir -p 'a b/src/cmd' 'a b/src/vm' path
cp "$circular" 'a b/src/cmd/circular'
cp "$preload" 'a b/src/vm/'
expect 1 'a b/src/cmd/circular' boot "$archive/disk" --vm uml
says 'cannot use a path with .*spaces: .*a b/src/vm/uml_preload.so'
ln -s "$(command -v fusermount3)" path/fusermount3
PATH=$work/path expect 1 "$circular" boot "$archive/disk" --vm uml
says 'Debian package user-mode-linux'
# In a chroot unshare cannot hide a mount from others.
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null && library=$(ldconfig -p | sed -n 's|.* => \(.*libslirp.so.0\)$|\1|p' | head -n 1) && [ -n "$library" ]; then
    : >nothing
    expect 1 unshare -m sh -c 'mount --bind "$1" "$2" && shift 2 && exec "$@"' sh nothing "$(realpath "$library")" \
        "$circular" boot "$archive/disk" --vm uml
    says 'Debian package libslirp0'
fi
ok 'what User-mode Linux cannot do, or lacks, is said before anything starts'

[ -n "${CIRCULAR_DEBIAN_DISK:-}" ] && [ -f "$CIRCULAR_DEBIAN_DISK" ] || exit 0
circular publish "$CIRCULAR_DEBIAN_DISK" --name debian12 --version 1 --key "$key" --to debian
start_server debian
mkdir broken
echo '#!/nowhere' >broken/linux.uml
chmod +x broken/linux.uml
PATH=$work/broken:$PATH expect 1 "$circular" vm start v "$url/debian12" --vm uml
says 'does not start: cannot start .*broken/linux.uml: No such file'
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
send "systemctl start ifup@eth0; hostname -I; echo net-\$?\r"
wanted "10.0.2.15"
wanted "net-0"
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
wait_for 30 nothing_left
ok "Debian boots to a login under User-mode Linux, and ends when it is powered off ($(($(date +%s) - begun)) s)"

# Typed at the machine's console; what that says is in its log.
type_in() { # TEXT
    printf '%s\r' "$1" | timeout 2 "$circular" vm console u >/dev/null 2>&1 || :
}
answers() { # TEXT-IN-THE-ANSWER COMMAND
    type_in "$2"
    wait_for 60 said u "$1"
}
no_uml() { ! pgrep -f "linux.uml .*$machines" >/dev/null; }
log_in() {
    wait_for 200 said u 'login: '
    answers 'root@debian12' root
}
at_exit circular vm stop --force u

begun=$(date +%s)
free_port ssh_port
expect 0 circular vm start u "$url/debian12" --vm uml --memory 512M --forward "$ssh_port:22"
says 'u runs debian12@1 \(User-mode Linux\)'
is_state u running || fail "u is $(state u)"
expect 0 circular vm info u
says "^process +$(cat "$machines/u/pid")$"
log_in
answers 'kept=writ-ten' 'echo writ-ten >/root/mark; sync; echo kept=$(cat /root/mark)'
answers 'served=1' "exec 5<>/dev/tcp/10.0.2.2/$port; printf 'GET /catalog.json HTTP/1.0\\r\\n\\r\\n' >&5; echo served=\$(grep -c debian12 <&5)"
timeout 20 bash -c "exec 5<>/dev/tcp/127.0.0.1/$ssh_port; head -c 7 <&5" >banner
[ "$(cat banner)" = SSH-2.0 ] || fail "no SSH at the forwarded port: $(cat banner)"
ok "a machine in User-mode Linux has a console, a network, and a forwarded port ($(($(date +%s) - begun)) s)"

# The key is in an agent, since ssh looks into the home folder that the user has in /etc/passwd.
ssh-keygen -q -t ed25519 -N '' -C test -f ssh-key
start ssh-agent -D -a "$work/agent"
export SSH_AUTH_SOCK="$work/agent"
wait_for 10 ssh-add ssh-key
answers 'keys=1' "mkdir -p .ssh; echo '$(cat ssh-key.pub)' >.ssh/authorized_keys; echo keys=\$(grep -c ed25519 .ssh/authorized_keys)"
expect 0 circular vm ssh u -- 'hostname; cat mark'
says '^debian12$'
says '^writ-ten$'
expect 7 circular vm ssh u -- exit 7
ssh-keygen -F circular-u -f "$machines/u/known_hosts" || fail "its host key is not kept: $(cat "$machines/u/known_hosts")"
ok 'vm ssh runs a command in the machine'

answers 'seen=0 of 1' 'n=0; for i in / ../../.. /etc ../../etc hostfs=/; do mount -t hostfs none /mnt -o $i && n=$((n+1)); done; echo seen=$n of $(grep -c hostfs /proc/filesystems)'
ok 'root in it cannot mount the files of the host'


cat >slow.py <<'END'
import os, socket, sys, time
os.chdir(sys.argv[1])
console = socket.socket(socket.AF_UNIX)
console.settimeout(60)
console.connect("serial")
console.sendall(b'seq 1 60000; echo en"ded"\r')
time.sleep(1)
said = b""
while b"ended" not in said:
    said += console.recv(65536)
missing = set(range(1, 60001)) - {int(word) for word in said.split() if word.isdigit()}
assert not missing, f"{len(missing)} lines are missing, the first is {min(missing)}"
END
python3 slow.py "$machines/u"
ok 'who reads its console slowly reads all'

expect 1 circular vm start u
says 'running already'
mv "$machines/u/uml/mconsole" mconsole
expect 1 circular vm stop u
says 'the machine refuses: its kernel does not listen'
[ ! -e "$machines/u/uml.ends" ] || fail "the guest's next reboot would be its end"
mv mconsole "$machines/u/uml/mconsole"
# Started again at once: nothing of it may be left.
expect 0 circular vm stop u --timeout 100s
expect 0 circular vm start u
says 'u runs debian12@1'
expect 0 circular vm stop --force u
is_state u stopped || fail "u is $(state u)"
wait_for 30 no_uml
said u 'Restarting system' || fail "its guest was not told: $(tail -n 5 "$machines/u/serial.log")"
expect 3 circular vm stop u
expect 1 circular vm start u --snapshot --forward "$ssh_port:22"
says 'no snapshots'
expect 1 circular vm start u --vm qemu
says "go on with '--vm uml'"
circular publish "$CIRCULAR_DEBIAN_DISK" --name debian12 --version 2 --key "$key" --to debian 2>/dev/null
for option in --rebase ''; do
    # shellcheck disable=SC2086  # a word or none
    expect 1 circular vm update u $option
    says 'cannot move that to another version'
    says_not 'rebase keeps it'
done
ok 'it stops when it is told; what its state cannot do is refused'

: >"$machines/u/serial.log"
expect 0 circular vm start u --vm uml --prefetch none
log_in
kill -KILL "$(server_of_disk)"
type_in 'sha256sum /usr/lib/x86_64-linux-gnu/lib*.so* | tail -n 1; echo al"l re"ad'
wait_for 30 said u 'sha256sum'
! said u 'all read' || fail 'it reads a disk that is not there'
expect 0 circular vm start u --prefetch none
says 'has its disk again'
wait_for 100 said u 'all read'
! said u 'I/O error' || fail "it was told of an error: $(grep -a 'I/O error' "$machines/u/serial.log")"
ok 'the process that serves the disk is killed: the guest waits, is given the disk again, and goes on'

answers 'more=two' 'echo two >/root/more; sync; echo more=$(cat /root/more)'
kill -KILL "$(cat "$machines/u/pid")"
wait_for 30 no_uml
is_state u stopped || fail "u is $(state u)"
: >"$machines/u/serial.log"
expect 0 circular vm start u
# Its network is the process that has the program's name.
for network in $(pgrep -P "$(cat "$machines/u/pid")"); do
    [ "$(readlink "/proc/$network/exe")" != "$circular" ] || break
done
[ -z "$(find "/proc/$network/fd" -lname "$machines/u/lock" -o -lname "$XDG_RUNTIME_DIR/*")" ] ||
    fail "its network holds what is the machine's: $(ls -l "/proc/$network/fd")"
listening "$ssh_port"
kill -KILL "$network"
wait_for 30 grep -q 'network has ended' "$machines/u/uml.log"
! listening "$ssh_port" 2>/dev/null || fail 'its port is there without its network'
log_in
said u 'EXT4-fs (ubda3): recovery complete' || fail 'its journal was not replayed'
answers 'both=writ-ten two' 'echo both=$(cat /root/mark /root/more)'
expect 0 circular vm stop --force u
wait_for 30 no_uml
expect 0 circular vm reset u --yes
[ ! -e "$machines/u/overlay.cow" ] || fail 'what it wrote is there after a reset'
expect 0 circular vm delete u --yes
[ ! -e "$machines/u" ] || fail "something is left of it: $(ls "$machines/u")"
wait_for 30 no_mount
ok 'it is killed with all its processes, and has what it had written'

mkfifo keys
sleep 1000 >keys &
end_at_exit $!
start sh -c 'exec "$0" boot "$1" --vm uml --memory 512M --prefetch none <keys' "$circular" "$url/debian12"
boot=$pid
wait_for 100 grep -aq 'systemd.1.: Detected' "$work/log.$boot"
kill -KILL "$(server_of_disk)"
wait_for 30 grep -aq 'the process that served the disk has ended; another one serves it now' "$work/log.$boot"
wait_for 200 grep -aq 'login: ' "$work/log.$boot"
! grep -aq 'I/O error' "$work/log.$boot" || fail 'it was told of an error'
# Of its children one has the program's name and serves no disk: the network.
network=''
for child in $(pgrep -P "$boot"); do
    if [ "$(readlink "/proc/$child/exe")" = "$circular" ] && ! find "/proc/$child/fd" -lname /dev/fuse | grep -q .; then
        network=$child
    fi
done
[ -n "$network" ] || fail 'it has no network'
kill -KILL "$network"
wait_for 30 grep -aq 'the network of the machine has ended: the guest has none' "$work/log.$boot"
! ended "$boot" || fail 'the machine has ended with its network'
kill -TERM "$boot"
wait_for 40 ended "$boot"
! pgrep -P "$boot" >/dev/null || fail 'a process is left'
ok 'circular boot has the disk served again, says that the network has ended, and is ended by SIGTERM'
