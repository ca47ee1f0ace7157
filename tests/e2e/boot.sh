#!/bin/sh
# `circular boot` runs QEMU on the published disk: the guest reads it, writes go to an overlay that is thrown away,
# QEMU's exit status is passed on, signals end it, and nothing is left behind. The guest is one sector of code.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires qemu-system-x86_64 qemu-img as ld python3

. "$top/tests/lib/guest.sh"
make_guest ends.img x
make_guest waits.img w
blocks=150 # 8 seconds
make_reader reader.img $blocks
make_key lab
circular publish ends.img --name ends --version 1 --key lab.sec --to archive
circular publish waits.img --name waits --version 1 --key lab.sec --to archive
circular publish reader.img --name reader --version 1 --key lab.sec --to archive
trust_key lab
free_port port
start_server archive "$port"
export TMPDIR="$work/scratch"
mkdir "$TMPDIR"
no_machine() { ! pgrep -f "qemu-system-x86_64 .*$work" >/dev/null; }
# What was left a moment ago may be somebody's who begins.
age_all() { find "$TMPDIR" "$XDG_RUNTIME_DIR" -mindepth 2 -maxdepth 2 -type d -exec touch -d '10 minutes ago' {} + 2>/dev/null || :; }
nothing_left() {
    ! grep -q "$url" /proc/self/mountinfo && [ -z "$(find "$TMPDIR" "$XDG_RUNTIME_DIR" -mindepth 2 ! -name accelerators ! -name disks)" ] && no_machine
}

expect 33 circular boot "$url/ends" --memory 64M -- -device isa-debug-exit,iobase=0xf4,iosize=4
says 'from the published disk'
says '^written'
says '^ready'
says 'fetched .* in [1-9][0-9]* requests, [1-9][0-9.]* % of the image'
wait_for 30 nothing_left

expect 33 circular boot "$url/ends" --memory 64M -- -device isa-debug-exit,iobase=0xf4,iosize=4
says 'from the published disk'
ok 'the guest reads the disk, its writes are gone afterwards, its exit status is passed on'

expect 2 circular profile record "$url/ends"
says 'output is needed'
expect 33 circular profile record --boot -o ends.profile "$url/ends" --memory 64M -- -device isa-debug-exit,iobase=0xf4,iosize=4
says 'ends.profile is the profile of [1-9]'
# Sectors 0 and 2000 are in blocks 0 and 15.
python3 -c 'import struct
data = open("ends.profile", "rb").read()
runs = [struct.unpack_from("<QII", data, at) for at in range(64, len(data), 16)]
blocks = [first + i for first, _, count in runs for i in range(count)]
assert data[:8] == b"OSCPROF1" and blocks[0] == 0 and 15 in blocks, blocks'
ok 'what a boot reads is recorded'

for signal in TERM INT HUP; do
    start "$circular" boot "$url/waits" --memory 64M
    boot=$pid
    wait_for 60 grep -aq ready "$work/log.$boot"
    kill "-$signal" "$boot"
    wait_for 40 ended "$boot"
    wait_for 30 nothing_left
done
ok 'SIGTERM, SIGINT and SIGHUP end it, nothing is left'

start "$circular" boot "$url/waits" --memory 64M
boot=$pid
wait_for 60 grep -aq ready "$work/log.$boot"
stop "$boot" KILL
# The kernel ends QEMU with it; the rest waits for the next one, or the next minute's.
wait_for 30 no_machine
age_all
expect 33 circular boot "$url/ends" --memory 64M -- -device isa-debug-exit,iobase=0xf4,iosize=4
wait_for 30 nothing_left
ok 'after a kill QEMU ends too, and the next boot cleans up'

# Boots of one image share a mount, unless they are told to fetch in another way.
mount_count() { grep -c "$work.*fuse.circular" /proc/self/mountinfo || :; }
boots=''
for options in '' '' --prefetch=none; do
    # shellcheck disable=SC2086
    start "$circular" boot "$url/waits" --memory 32M $options
    boots="$boots $pid"
done
for boot in $boots; do wait_for 60 grep -aq ready "$work/log.$boot"; done
[ "$(mount_count)" = 2 ] || fail "$(mount_count) mounts: $(cat /proc/self/mountinfo)"
servers_of_disks() {
    for process in /proc/[0-9]*; do
        if [ "$(readlink "$process/exe")" = "$circular" ] && [ "$(ps -o ppid= -p "${process#/proc/}" | tr -d ' ')" != $$ ] &&
            grep -zq "XDG_STATE_HOME=$work" "$process/environ"; then
            echo "${process#/proc/}"
        fi
    done
}
for boot in $boots; do kill -STOP "$boot"; done # else each would have its disk mounted again
# shellcheck disable=SC2046
kill -KILL $(servers_of_disks)
for boot in $boots; do stop "$boot" KILL; done
wait_for 30 no_machine
age_all
expect 33 circular boot "$url/ends" --memory 64M -- -device isa-debug-exit,iobase=0xf4,iosize=4
no_disk() { [ "$(mount_count)" = 0 ] && [ -z "$(find "$XDG_RUNTIME_DIR/circular/disks" -mindepth 1)" ]; }
wait_for 30 no_disk
ok 'boots of one image share one mount; what a killed server leaves goes with the next boot'

# The process that serves the disk is killed, with the network there, and without it and the cache.
kill_server() {
    # The guest stands still meanwhile: a busy machine may need longer for this than the guest for its disk.
    guest=$(pgrep -P "$boot" -f qemu-system)
    kill -STOP "$guest"
    kill -KILL "$(servers_of_disks)"
    kill -CONT "$guest"
    ! grep -aq '^all read' "$work/log.$boot" || fail 'it had read all before'
}
read_all() {
    wait_for 100 grep -aq '^all read' "$work/log.$boot"
    grep -a '^block' "$work/log.$boot" | tr -d '\r' >was-read
    seq -f 'block %g' $blocks | cmp - was-read || fail 'it has read something else'
    stop "$boot"
    wait_for 30 nothing_left
}
start "$circular" boot "$url/reader" --memory 32M --prefetch none
boot=$pid
wait_for 60 grep -aq '^block 10' "$work/log.$boot"
kill_server
wait_for 30 grep -q 'the process that served the disk has ended; another one serves it now' "$work/log.$boot"
read_all
grep -q 'fetched .* since another process serves the disk' "$work/log.$boot" || fail 'it does not say what it counted'
circular cache prune --max-size 0
start "$circular" profile record --boot -o reader.profile "$url/reader" --memory 32M
boot=$pid
wait_for 60 grep -aq '^block 10' "$work/log.$boot"
stop "$server"
circular cache prune --max-size 0
kill_server
wait_for 60 grep -q 'cannot be reached' "$work/log.$boot"
start_server archive "$port"
read_all
grep -q 'reader.profile is not written: the process that recorded' "$work/log.$boot" || fail 'a profile of half a boot'
[ ! -e reader.profile ] || fail 'a profile of half a boot'
ok 'when the process that serves the disk is killed, the guest waits and gets it again'

# The same out of a folder that is not mounted for a while, with what the cache holds and without a cache.
for options in '' --no-cache; do
    start "$circular" boot "$work/archive/reader" --memory 32M --prefetch none $options
    boot=$pid
    wait_for 60 grep -aq '^block 10' "$work/log.$boot"
    mv archive archive.away
    mkdir archive
    circular cache prune --max-size 0
    kill_server
    wait_for 60 grep -q 'there is no archive' "$work/log.$boot"
    rmdir archive
    mv archive.away archive
    read_all
    grep -q 'another one serves it now' "$work/log.$boot" || fail 'it does not say that the disk is back'
done
ok 'a disk out of a folder that was away is mounted again when that is back'

# It is killed while nobody can mount its disk: somebody holds the lock for that, or the archive does not answer. What
# waits for them does not hold up the machine's end, and nothing is mounted for it any more.
ends_at_once() { # SIGNAL
    begun=$(date +%s)
    kill "-$1" "$boot"
    wait_for 30 ended "$boot"
    [ $(($(date +%s) - begun)) -le 20 ] || fail "it ended $(($(date +%s) - begun)) s after SIG$1"
    wait_for 30 no_machine
    ! grep -q 'another one serves it now' "$work/log.$boot" || fail 'it has mounted for a machine that ends'
}
cleans_up() {
    age_all
    expect 33 circular boot "$url/ends" --memory 64M -- -device isa-debug-exit,iobase=0xf4,iosize=4
    wait_for 30 nothing_left
}
start "$circular" boot "$url/waits" --memory 32M --prefetch none
boot=$pid
wait_for 60 grep -aq ready "$work/log.$boot"
touch held
start python3 -c 'import fcntl, os, sys, time
with open(sys.argv[1]) as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("locked", flush=True)
    while os.path.exists("held"):
        time.sleep(0.05)' "$XDG_RUNTIME_DIR"/circular/disks/*/start
holder=$pid
wait_for 30 grep -q locked "$work/log.$holder"
kill -KILL "$(servers_of_disks)"
wait_for 60 grep -q 'it takes long to mount it again' "$work/log.$boot"
ends_at_once TERM
rm held
wait_for 30 ended "$holder"
cleans_up
start "$circular" boot "$url/waits" --memory 32M --prefetch none
boot=$pid
wait_for 60 grep -aq ready "$work/log.$boot"
kill -STOP "$server"
circular cache prune --max-size 0
kill -KILL "$(servers_of_disks)"
wait_for 60 pgrep -P "$boot" -x circular
ends_at_once HUP
kill -CONT "$server"
cleans_up
ok 'while its disk cannot be mounted again, SIGTERM and SIGHUP end it at once'

# The guest waits for the disk, which the network does not bring, and QEMU waits for the guest.
circular cache prune --max-size 0
start "$circular" boot "$url/reader" --memory 32M --prefetch none
boot=$pid
wait_for 60 grep -aq '^block 10' "$work/log.$boot"
kill -STOP "$server"
circular cache prune --max-size 0
guest_waits() { circular stats "$(awk -v url="$url/reader@1" '$(NF - 1) == url { print $5 }' /proc/self/mountinfo)" | grep -q '^waiting  *[0-9]'; }
wait_for 30 guest_waits
kill -TERM "$boot"
if ! (wait_for 40 ended "$boot") >late 2>&1; then
    kill -KILL "$boot"
    fail 'a guest that waits for the network holds up the end'
fi
kill -CONT "$server"
grep -q 'has not ended within 10 s' "$work/log.$boot" || fail "$(cat "$work/log.$boot")"
wait_for 30 nothing_left
ok 'a machine that waits for the network ends at SIGTERM'

# The process that serves the disk hangs when the machine ends.
start "$circular" profile record --boot -o hung.profile "$url/waits" --memory 32M
boot=$pid
wait_for 60 grep -aq ready "$work/log.$boot"
serving=$(servers_of_disks)
kill -STOP "$serving"
kill -TERM "$boot"
if ! (wait_for 20 ended "$boot") >late 2>&1; then
    kill -CONT "$serving" # else nothing below the mount can be removed
    fail 'the mount holds up the end'
fi
kill -CONT "$serving"
grep -q 'the process that serves the disk does not answer' "$work/log.$boot" || fail "$(cat "$work/log.$boot")"
grep -q 'hung.profile is not written' "$work/log.$boot" || fail "$(cat "$work/log.$boot")"
wait_for 30 nothing_left
ok 'a server of the disk that hangs does not hold up the end'

# It hangs when another machine shall have the disk.
start "$circular" boot "$url/waits" --memory 32M
boot=$pid
wait_for 60 grep -aq ready "$work/log.$boot"
serving=$(servers_of_disks)
kill -STOP "$serving"
start "$circular" boot "$url/waits" --memory 32M
second=$pid
if ! (wait_for 60 ended "$second") >late 2>&1; then
    kill -CONT "$serving"
    fail 'a mount that hangs keeps the second machine'
fi
kill -CONT "$serving"
grep -q 'gives no answer: the process that serves it is stopped or hangs' "$work/log.$second" ||
    fail "$(cat "$work/log.$second")"
ends_at_once TERM
wait_for 30 nothing_left
ok 'a server of the disk that hangs is told to whoever starts another machine'

expect 1 circular boot "$url/ends" -- -no-such-option
wait_for 30 nothing_left
expect 3 circular boot "$url/none"
expect 2 circular boot "$url/ends" --accel warp
expect 2 circular boot "$url/ends" --memory 12
expect 130 circular boot "$url"
says 'Number to run, nothing to leave'
expect 2 circular boot
says 'archive = URL'
ok 'errors: of QEMU, of the name, of the options'

mkdir path
for tool in qemu-system-x86_64 qemu-img; do
    ln -s "$(command -v "$tool")" "path/$tool"
done
rm path/qemu-img
PATH=$work/path expect 1 circular boot "$url/ends"
says 'Debian package qemu-utils'
rm path/qemu-system-x86_64
PATH=$work/path expect 1 circular boot "$url/ends"
says 'Debian package qemu-system-x86'
[ -z "$(find "$XDG_RUNTIME_DIR" -mindepth 2 ! -name accelerators ! -name disks)" ] || fail 'something was made'
ok 'missing programs are told before anything begins'
