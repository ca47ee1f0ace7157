#!/bin/sh
# `circular mount` as people meet it: it returns when the disk can be read, refuses mount points that will not do,
# ends cleanly however it is ended, reads what is cached whatever the server does, and opens only what is touched.
. "$(dirname "$0")/../lib/common.sh"
requires python3 curl
requires_fuse

mounted() { mountpoint -q "$1"; }
not_mounted() { ! mountpoint -q "$1"; }
# The process that serves a mount: it is in the background, so found by its command line.
server_of() { pgrep -f "^$circular mount $url/[^ ]* $1\$"; }
gone() { [ ! -d "/proc/$1" ]; }
at_exit release_mount "$work/m"
at_exit release_mount "$work/stopped"
cold() { # FILE: out of the page cache
    dd of=/dev/null if="$1" iflag=nocache count=0 status=none
}
# Run python on a file; the last argument is a time limit of a read that must not wait.
read_at() { # FILE OFFSET LENGTH
    timeout 20 python3 -c 'import os, sys
file, offset, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.stdout.buffer.write(os.pread(os.open(file, os.O_RDONLY), length, offset))' "$@"
}

make_archive 64
start_liar "$archive"
mkdir m

expect 0 circular mount "$url/disk" m
same m/disk disk.img
at_exit release_mount "$work/m"
says 'm/disk is http://.*/disk@1, 64 MiB'
pid=$(server_of m)
[ "$(stat -c '%s %a %h' m/disk)" = "$(stat -c %s disk.img) 444 1" ] || fail "attributes: $(stat m/disk)"
[ "$(stat -c %b m/disk)" -lt $(($(stat -c %s disk.img) / 512)) ] || fail 'holes are counted as data'
[ "$(ls -a m | tr '\n' ' ')" = '. .. disk ' ] || fail "listing: $(ls -a m)"
[ "$(stat -f -c '%s %b %a' m)" = "4096 16384 0" ] || fail "file system: $(stat -f m)"
grep -q "^$url/disk@1 $work/m fuse.circular ro,nosuid,nodev" /proc/mounts || fail "$(grep fuse.circular /proc/mounts)"
ok 'the command returns when the disk can be read'

! touch m/disk 2>/dev/null || fail 'can be touched'
! sh -c ': >>m/disk' 2>/dev/null || fail 'can be written'
! sh -c ': >m/new' 2>/dev/null || fail 'files can be made'
! rm m/disk 2>/dev/null || fail 'can be removed'
! truncate -s 0 m/disk 2>/dev/null || fail 'can be cut'
if [ -e m/other ] || [ -e m/disk/below ]; then
    fail 'there is what there is not'
fi
ok 'nothing can be written'

python3 - m/disk disk.img <<'END' || fail 'holes differ'
import errno, os, sys
disk, source = (os.open(path, os.O_RDONLY) for path in sys.argv[1:])
size = os.fstat(source).st_size
at, data = 0, 0
while at < size:
    try:
        start = os.lseek(disk, at, os.SEEK_DATA)
    except OSError as fault:
        assert fault.errno == errno.ENXIO
        start = size
    if start > at:
        assert os.pread(source, start - at, at).count(0) == start - at, 'a hole that is none'
    if start == size:
        break
    at = os.lseek(disk, start, os.SEEK_HOLE)
    assert at > start
    data += at - start
assert data < size
for offset in (size, size + 1):
    try:
        os.lseek(disk, offset, os.SEEK_DATA)
        sys.exit('seeks behind the end')
    except OSError as fault:
        assert fault.errno == errno.ENXIO
assert os.pread(disk, 100, size) == b'' and len(os.pread(disk, 100, size - 10)) == 10
END
ok 'lseek finds the holes'

cold m/disk
python3 - m/disk disk.img <<'END' || fail '64 readers at once'
import os, random, sys, threading
disk, source = (os.open(path, os.O_RDONLY) for path in sys.argv[1:])
size = os.fstat(source).st_size
wrong = []
def reader(number):
    generator = random.Random(number)
    for _ in range(40):
        offset, length = generator.randrange(size), generator.choice([512, 4096, 65536, 1000000])
        if os.pread(disk, length, offset) != os.pread(source, length, offset):
            wrong.append((offset, length))
threads = [threading.Thread(target=reader, args=(n,)) for n in range(64)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(str(wrong[:3]) if wrong else 0)
END
cold m/disk
cat m/disk m/disk >/dev/null
resident=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status")
# Sanitizers need several times as much.
[ "$resident" -le 65536 ] || grep -qE '__[at]san_init' "$circular" || fail "$resident kB of memory"
ok "64 readers at once; $((resident / 1024)) MiB of memory"

expect 1 circular mount "$url/disk" m
says "disk@1 is mounted at $work/m already"
mkdir full
touch full/file
expect 1 circular mount "$url/disk" full
says 'full is not empty'
touch file
expect 2 circular mount "$url/disk" file
says 'file is not a folder'
expect 3 circular mount "$url/disk" missing
says 'missing does not exist'
mkdir 'a b,c'
expect 0 circular mount "$url/disk" 'a b,c/'
same 'a b,c/disk' disk.img
expect 0 circular umount 'a b,c'
expect 3 circular umount 'a b,c'
ok 'mount points that will not do, and why'

for option in '' --lazy; do
    mkdir -p stopped
    expect 0 circular mount "$url/disk" stopped
    pid=$(server_of stopped)
    kill -STOP "$pid"
    # shellcheck disable=SC2086
    timeout 10 "$circular" umount $option stopped || late=yes
    kill -CONT "$pid"
    [ -z "${late:-}" ] || fail "umount $option waits for a server that is stopped"
    wait_for 30 gone "$pid"
done
ok 'a mount whose server is stopped can be undone'

fusermount3 -u m
wait_for 30 gone "$pid"
expect 0 circular mount "$url/disk" m
pid=$(server_of m)
kill -TERM "$pid"
wait_for 30 not_mounted m
wait_for 30 gone "$pid"
expect 0 circular mount "$url/disk" m
pid=$(server_of m)
exec 5<m/disk
expect 1 circular umount m
says 'in use|busy|Busy'
expect 0 circular umount --lazy m
not_mounted m || fail 'still mounted'
head -c 100000 <&5 | cmp -n 100000 - disk.img
exec 5<&-
wait_for 30 gone "$pid"
for signal in TERM INT HUP; do
    start_mount "$url/disk" m
    exec 5<m/disk
    kill "-$signal" "$mount"
    wait_for 30 ended "$mount"
    status=0
    wait "$mount" || status=$?
    [ "$status" = 0 ] || fail "status $status after SIG$signal"
    not_mounted m || fail "still mounted after SIG$signal"
    exec 5<&-
done
start_mount "$url/disk" m
stop_mount m
ok 'fusermount3 -u, umount, lazy umount, SIGTERM, SIGINT, SIGHUP end it, also with open files'

rm -rf "$XDG_CACHE_HOME"
expect 0 circular mount "$url/disk" m
pid=$(server_of m)
head -c 3000000 m/disk | cmp -n 3000000 - disk.img
expect 0 circular umount m
ended "$pid" || fail 'umount does not wait for what is still written to the cache'
expect 0 circular mount "$url/disk" m --offline
head -c 3000000 m/disk | cmp -n 3000000 - disk.img || fail 'what was read is not in the cache after umount'
expect 0 circular umount m
ok 'what was read is in the cache when umount returns'

start_mount "$url/disk" m
stop "$mount" KILL
! ls m 2>/dev/null || fail 'a dead mount can be listed'
expect 0 circular mount "$url/disk" m
says 'process has died'
same m/disk disk.img
pid=$(server_of m)
kill -KILL "$pid"
wait_for 30 gone "$pid"
expect 0 circular umount m
not_mounted m || fail 'still mounted'
ok 'after a kill the next mount takes the place, or umount frees it'

expect 4 circular mount "http://$nobody/disk" m --no-cache --patience 1s
says "^circular: http://$nobody: catalog.json: .*refused"
expect 3 circular mount "$url/none" m
says 'none'
expect 3 circular mount "$url/disk@none" m
expect 2 circular mount "$url/disk@" m
not_mounted m || fail 'mounted'
[ -z "$(server_of m)" ] || fail 'a background process is left'
ok 'what cannot be opened is told by the command itself, nothing is left'

# A server that stalls. The first two MiB are cached, the rest is not.
rm -rf "$XDG_CACHE_HOME"
start_mount "$url/disk" m --patience 3s
read_at m/disk 0 2097152 >got
stop_mount m
last=$(python3 - "$XDG_CACHE_HOME" disk.img <<'END'
import hashlib, os, sys
# The end of the cached run of blocks from the start of the disk.
source = open(sys.argv[2], 'rb')
blocks = 0
cached = {name for _, _, names in os.walk(sys.argv[1]) for name in names}
while (block := source.read(65536)) and (block.count(0) == len(block) or hashlib.sha256(block).hexdigest() in cached):
    blocks += 1
print(blocks * 65536)
END
)
if [ "$last" -lt 2097152 ] || [ "$last" -gt 60000000 ]; then
    fail "cached are $last bytes"
fi
lie '^/blocks/' hang
start_mount "$url/disk" m --patience 60s
python3 - m/disk disk.img "$last" <<'END' || fail 'cached reads waited for the server'
import os, sys, time
disk, source = (os.open(path, os.O_RDONLY) for path in sys.argv[1:3])
end = int(sys.argv[3])
worst = 0
for offset in list(range(end - 65536 * 3, end, 4096)) + [0, 100000, end - 4096, end - 1]:
    begin = time.monotonic()
    if os.pread(disk, min(4096, end - offset), offset) != os.pread(source, min(4096, end - offset), offset):
        sys.exit(f'wrong bytes at {offset}')
    worst = max(worst, time.monotonic() - begin)
print('slowest cached read', worst, file=sys.stderr)
sys.exit(worst > 20)
END
stop_mount m
start_mount "$url/disk" m --patience 3s
ok 'a server that hangs does not stop reads of what is cached, up to the last byte before what is not'

begin=$(date +%s)
! read_at m/disk "$last" 4096 >got 2>err || fail 'read what nobody can serve'
grep -q 'Errno 5' err || fail "$(cat err)"
took=$(($(date +%s) - begin))
if [ "$took" -lt 1 ] || [ "$took" -gt 18 ]; then
    fail "the error came after $took s"
fi
mounted m || fail 'the mount is gone'
grep -Eq "a read at $last failed: .*$url" "$work/log.$mount" || fail "the log: $(cat "$work/log.$mount")"
be_honest
wait_for 40 cmp m/disk disk.img
ok 'what nobody serves is an input/output error after the patience; the mount lives on'
stop_mount m

rm -rf "$XDG_CACHE_HOME"
lie '^/blocks/' hang
start_mount "$url/disk" m --patience 120s
is_asked() { [ "$(liar_stats classes "$1")" -gt 0 ]; }
# Three blocks that are neither holes nor like another, far from each other.
blocks=$(python3 -c 'data = open("disk.img", "rb").read()
blocks = [data[at:at + 65536] for at in range(0, len(data), 65536)]
for first in 100, 400, 700:
    print(next(n for n in range(first, 1024) if any(blocks[n]) and blocks.count(blocks[n]) == 1))')
start_reader() { # BLOCK OPTION...: waits until it waits
    forget_stats
    block=$1
    shift
    start dd if=m/disk of=/dev/null bs=64k count=1 skip="$block" "$@"
    wait_for 40 is_asked blocks
}
# shellcheck disable=SC2086
set -- $blocks
start_reader "$1"
stop "$pid" TERM # fails after 30 s
start_reader "$2" iflag=direct
stop "$pid" TERM
start_reader "$3"
kill -TERM "$mount"
wait_for 40 ended "$mount"
wait_for 40 ended "$pid"
not_mounted m || fail 'still mounted'
be_honest
ok 'readers that wait can be ended, and so can the mount'

make_image second.img 8 2
circular publish second.img --name disk --version 2 --key "$key" --to "$archive"
circular publish second.img --name other --version 2 --key "$key" --to "$archive"
rm -rf "$XDG_CACHE_HOME"
forget_stats
start_mount "$url" m
[ "$(cd m && find . | sort | tr '\n' ' ')" = '. ./disk ./disk/1 ./disk/2 ./other ./other/2 ' ] || fail "$(find m)"
[ "$(stat -c %s m/other/2)" = 8388608 ] || fail 'the size of what was not opened'
[ "$(liar_stats classes maps) $(liar_stats classes images)" = '0 0' ] || fail 'opened what nobody touched'
same m/other/2 second.img
[ "$(liar_stats classes images)" = 1 ] || fail 'opened more than was touched'
same m/disk/1 disk.img
same m/disk/2 second.img
lie '^/(images|maps)/' hang
stop_mount m
rm -rf "$XDG_CACHE_HOME"
forget_stats
start_mount "$url" m --patience 120s
start cat m/disk/1
reader=$pid
wait_for 40 is_asked images
ls -l m/disk m/other
stop "$reader" TERM # fails after 30 s
kill -TERM "$mount"
wait_for 40 ended "$mount"
be_honest
ok 'a whole catalog: listed at once, opened when touched; one that hangs hinders nobody'

ln -s "$circular" httpstorged
start ./httpstorged -f m "$url/disk@1"
wait_for 30 mounted m
same m/disk disk.img
mount=$pid
stop_mount m
ok "the original's command, httpstorged -f DIR URL"

# As an ordinary user, in a name space where that user may use /dev/fuse whatever the host says.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && [ -u "$(command -v fusermount3)" ] &&
    unshare -m true 2>/dev/null && mknod -m 666 fuse c 10 229 && (: <>fuse) 2>/dev/null; then
    mkdir user user/m user/run theirs
    cp -r "$XDG_CONFIG_HOME" user/config
    chown -R 65534:65534 user
    chmod 755 "$work"
    cat >user.sh <<'END'
set -eu
mount --bind fuse /dev/fuse
as_user() {
    setpriv --reuid 65534 --regid 65534 --clear-groups env HOME="$work/user" XDG_CONFIG_HOME="$work/user/config" \
        XDG_CACHE_HOME="$work/user/cache" XDG_STATE_HOME="$work/user/state" XDG_RUNTIME_DIR="$work/user/run" "$@"
}
as_user "$circular" mount "$url/disk@1" user/m
as_user cmp user/m/disk disk.img
! cat user/m/disk >/dev/null 2>&1
as_user "$circular" umount user/m
! as_user "$circular" mount "$url/disk@1" theirs 2>said
grep 'not yours' said
as_user "$circular" mount "$url/disk@1" user/m
pkill -KILL -f "^$circular mount $url/disk@1 user/m\$"
as_user "$circular" mount "$url/disk@1" user/m
as_user cmp user/m/disk disk.img
as_user fusermount3 -u user/m
END
    work=$work circular=$circular url=$url unshare -m sh user.sh || fail 'it fails for an ordinary user'
    ok 'an ordinary user, through fusermount3'
fi

if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
    export url
    # shellcheck disable=SC2016
    unshare -m sh -eu -c 'mount -t tmpfs none /etc
        "$1" mount "$url/disk@1" m
        cmp m/disk disk.img
        "$1" umount m' sh "$circular" || fail 'without /etc it does not work'
    ok 'without /etc/mtab'
fi
