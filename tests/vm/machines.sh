#!/bin/sh
# Machines that keep their state: they are made, run in the background without whoever started them, are seen, stopped,
# started again with what they have written, and deleted; two starts of one are refused; many share one mount, which
# comes and goes with them; the network and the process that serves the disk may go away and come back.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires qemu-system-x86_64 qemu-img as ld python3 flock
. "$top/tests/lib/guest.sh"
. "$top/tests/lib/machines.sh"

make_guest waits.img w
blocks_read=150 # 8 seconds
make_reader reader.img $blocks_read
make_key lab
circular publish waits.img --name waits --version 1 --key lab.sec --to archive
circular publish reader.img --name reader --version 1 --key lab.sec --to archive
trust_key lab
start_liar archive
port=${url##*:}
runtime=$XDG_RUNTIME_DIR/circular

mount_count() { grep -c "$work.*fuse.circular" /proc/self/mountinfo || :; }

expect 0 circular vm list
[ ! -s out ] || fail "there are machines: $(cat out)"
for name in ../up a/b 'a b' .hidden '' "$(printf 'a%.0s' $(seq 300))"; do
    expect 2 circular vm start "$name" "$url/waits"
done
expect 3 circular vm start nothing
says 'no machine nothing'
expect 3 circular vm stop nothing
expect 3 circular vm start m "$url/none"
expect 2 circular vm start m "$url/waits" --memory 12
expect 1 circular vm start m "$url/waits" --memory 900T
says 'the host has'
expect 1 circular vm start m "$url/waits" --forward "$port:22"
says "port $port of this host is in use"
expect 2 circular vm start m "$url/waits" --forward 5:5 --forward 5:6
says 'wanted twice'
expect 2 circular vm start m "$url/waits" --forward 70000:5
expect 1 circular vm start m "$url/waits" --vm uml
expect 1 circular vm start m "$url/waits" -- -no-such-option
says 'no-such-option'
circular publish waits.img --name arm --version 1 --key lab.sec --to archive --architecture arm64
for command in 'vm start m' boot; do
    # shellcheck disable=SC2086
    expect 1 circular $command "$url/arm"
    says 'is for arm64; machines here are amd64'
done
mkdir path
for tool in qemu-system-x86_64 qemu-img; do ln -s "$(command -v $tool)" "path/$tool"; done
rm path/qemu-img
PATH=$work/path expect 1 "$circular" vm start m "$url/waits"
says 'Debian package qemu-utils'
expect 4 circular vm start m "http://$nobody/waits"
[ -z "$(ls "$machines" 2>/dev/null)" ] || fail "a machine was made: $(ls "$machines")"
touch file
XDG_STATE_HOME=$work/file expect 1 circular vm start m "$url/waits"
expect 1 circular boot "$url/waits" --memory 10T
says 'the machine shall have 10 TiB of memory, but the host has'
expect 1 circular boot "$url/waits" --forward "$port:22"
says "port $port of this host is in use"
for words in 'stop a/b' 'delete ../up --yes' 'update ../up' 'console .x' 'info a/b'; do
    # shellcheck disable=SC2086
    expect 2 circular vm $words
    says "machine's name"
done
# In a mount namespace of its own: what the host has is not there, or cannot be written.
without() { # WHERE OPTIONS COMMAND...
    where=$1 options=$2
    shift 2
    # shellcheck disable=SC2016
    expect 1 unshare --mount sh -c 'mount -t tmpfs -o "$2" none "$1" && shift 2 && exec "$@"' sh "$where" "$options" "$@"
}
if [ "$(id -u)" = 0 ] && unshare --mount true 2>/dev/null; then
    if [ -d /usr/share/OVMF ]; then
        without /usr/share/OVMF rw "$circular" boot "$url/waits" --uefi
        says 'Debian package ovmf'
    fi
    mkdir read-only
    for variable in XDG_STATE_HOME XDG_RUNTIME_DIR; do
        without "$work/read-only" ro env "$variable=$work/read-only" "$circular" vm start m "$url/waits" --tpm
        says "cannot make .*$work/read-only/circular.*: Read-only file system"
    done
    without "$work/read-only" ro env "TMPDIR=$work/read-only" "$circular" boot "$url/waits"
    says "Read-only file system"
fi
ok 'bad names, disks, options, programs and folders are told, and make no machine'

free_port web
expect 0 circular vm start one "$url/waits" --memory 64M --forward "$web:80"
wait_for 100 said one '^ready'
is_state one running || fail "one is $(state one)"
expect 1 circular vm start one
says 'running already'
expect 1 circular vm start one "$url/waits"
says 'running, or somebody'
expect 1 circular vm delete one --yes
expect 1 circular vm reset one --yes
expect 1 circular vm update one
expect 0 circular vm info one
says '^disk +read [1-9].* in [1-9]'
says '^state +running'
[ "$(stat -c %a "$machines/one")" = 700 ] || fail "others can look into the machine"
expect 1 circular vm stop one --timeout 1s
says 'has not powered itself off within 1 s'
ok 'a machine runs in the background, and is neither started twice nor changed while it runs'

printf 'x' | timeout 5 "$circular" vm console one >said 2>&1 || [ $? = 124 ] || fail "console: $(cat said)"
expect 0 circular vm stop --force one
is_state one stopped || fail "one is $(state one)"
expect 3 circular vm stop one
expect 3 circular vm console one
# Somebody else starts it at this moment.
expect 1 flock "$machines/one/lock" "$circular" vm start one
says 'started, changed or ended'
expect 0 qemu-img check "$machines/one/overlay.qcow2"
wait_for 30 no_mount
: >"$machines/one/serial.log"
expect 0 circular vm start one
wait_for 100 said one '^ready'
[ "$(head -n 1 "$machines/one/serial.log" | tr -d '\r')" = written ] || fail "what it wrote is gone"
expect 0 circular vm stop -f one
: >"$machines/one/serial.log"
expect 0 circular vm start one --snapshot
wait_for 100 said one '^ready'
expect 0 circular vm stop -f one
expect 2 circular vm reset one
expect 0 circular vm reset one --yes
expect 0 circular vm start one
wait_for 100 said one '^from the published disk'
expect 0 circular vm stop -f one
echo n | expect 130 script -qec "'$circular' vm delete one" asked
grep -q 'delete the machine one? ' asked || fail "$(cat asked)"
grep -q 'circular: the machine one is as it was' asked || fail "$(cat asked)"
expect 0 circular vm delete one --yes
[ ! -e "$machines/one" ] || fail "something is left of it"
wait_for 30 no_mount
ok 'what it wrote is there after a stop, gone after a reset; nothing goes against a no; the mount with the last machine'

# The newest image is left below one that has written, and replaced below one that has not.
make_guest second.img w
printf 'from the second version\n\0' | dd of=second.img bs=512 seek=2000 conv=notrunc status=none
expect 0 circular vm start clean "$url/waits" --memory 64M --snapshot
expect 0 circular vm start dirty "$url/waits@1" --memory 64M
wait_for 100 said dirty '^ready'
wait_for 100 said clean '^ready'
for name in clean dirty; do circular vm stop -f $name; done
expect 0 circular vm update clean
says 'at version 1 already'
expect 3 circular vm rollback clean
says 'never updated'
circular publish second.img --name waits --version 2 --key lab.sec --to archive
cp "$machines/dirty/overlay.qcow2" before.qcow2
expect 1 circular vm update dirty
says 'has written to its disk .* fits version 1 only'
cmp before.qcow2 "$machines/dirty/overlay.qcow2"
expect 0 circular vm update clean
: >"$machines/clean/serial.log"
expect 0 circular vm start clean --snapshot
wait_for 100 said clean '^from the second version'
circular vm stop -f clean
expect 0 circular vm rollback clean
: >"$machines/clean/serial.log"
expect 0 circular vm start clean
wait_for 100 said clean '^from the published disk'
wait_for 100 said clean '^ready'
circular vm stop -f clean
expect 1 circular vm update clean
expect 0 circular vm update dirty --rebase
says 'at version 2 now'
: >"$machines/dirty/serial.log"
expect 0 circular vm start dirty
wait_for 100 said dirty '^ready'
[ "$(head -n 1 "$machines/dirty/serial.log" | tr -d '\r')" = written ] || fail "--rebase lost what was written"
circular vm stop -f dirty
expect 0 qemu-img check "$machines/dirty/overlay.qcow2"
expect 0 circular vm rollback dirty --rebase
for name in clean dirty; do expect 0 circular vm delete $name --yes; done
ok 'update and rollback move what is empty, keep with --rebase what is not, and refuse the rest'

wait_for 30 no_mount
circular cache prune --max-size 0
forget_stats
for number in 1 2 3 4 5 6 7 8; do
    start "$circular" vm start "m$number" "$url/reader" --memory 32M --prefetch none
    eval "start_$number=$pid"
done
for number in 1 2 3 4 5 6 7 8; do
    eval "wait_for 100 ended \$start_$number"
    eval "wait \$start_$number" || fail "m$number does not start"
done
[ "$(mount_count)" = 1 ] || fail "$(mount_count) mounts"
for number in 1 2 3 4 5 6 7 8; do
    wait_for 120 said "m$number" '^all read'
    grep -a '^block' "$machines/m$number/serial.log" | tr -d '\r' >"read.$number"
    seq -f 'block %g' $blocks_read | cmp - "read.$number" || fail "m$number read something else"
done
blocks=$(liar_stats classes blocks)
# On a busy machine a block may take so long that it is asked for once more, on another connection.
again=$(circular stats --json "$(awk -v disk="$url/reader@1" '$(NF - 1) == disk { print $5 }' /proc/self/mountinfo)" |
    python3 -c 'import json, sys; print(sum(mirror["hedges"] for mirror in json.load(sys.stdin)["mirrors"]))')
[ "$blocks" = $((blocks_read + 1 + again)) ] || fail "$blocks requests for $((blocks_read + 1)) blocks, $again of them again"
for number in 1 2 3 4 5 6 7 8; do expect 0 circular vm stop -f "m$number"; done
wait_for 30 no_mount
for number in 2 3 4 5 6 7 8; do expect 0 circular vm delete "m$number" -y; done
ok 'eight machines started at once have one mount and fetch each block once'

circular cache prune --max-size 0
: >"$machines/m1/serial.log"
expect 0 circular vm start m1 --prefetch none
wait_for 60 said m1 '^block 10'
stop "$server" KILL
for command in boot 'vm start m9'; do # the catalog is in the cache, the disk is not
    # shellcheck disable=SC2086
    expect 4 timeout 30 "$circular" $command "$url/waits"
    says 'not in the cache'
done
count() { grep -ac '^block' "$machines/m1/serial.log" || :; }
waits() { before=$(count) && sleep 1 && [ "$before" = "$(count)" ]; }
wait_for 30 waits
is_state m1 running || fail "without the network it is $(state m1)"
start python3 "$top/tests/lib/liar.py" --root archive --port-file "$work/liar.port" --port "$port"
server=$pid
wait_for 90 said m1 '^all read'
grep -a '^block' "$machines/m1/serial.log" | tr -d '\r' >read.1
seq -f 'block %g' $blocks_read | cmp - read.1 || fail "m1 read something else"
ok 'a machine waits while the network is away, and goes on'

circular vm stop -f m1
wait_for 30 no_mount
circular cache prune --max-size 0
: >"$machines/m1/serial.log"
expect 0 sh -c 'exec "$@" <&- 2>&-' - "$circular" vm start m1 --prefetch none # nothing of it becomes a stream
served_by=$(server_of_disk)
wait_for 60 said m1 '^block 10'
kill -KILL "$served_by"
wait_for 30 is_state m1 io-error
hold m1 held
expect 1 circular vm start m1 --prefetch none # the disk is mounted, and nobody has told the machine
rm held
wait_for 30 ended "$pid"
nodes=$(ask m1 query-named-block-nodes | tr , '\n' | grep -c node-name)
expect 0 circular vm start m1 --prefetch none
says 'has its disk again'
[ "$(ask m1 query-named-block-nodes | tr , '\n' | grep -c node-name)" = "$nodes" ] || fail 'it keeps the disk that has gone'
wait_for 90 said m1 '^all read'
grep -a '^block' "$machines/m1/serial.log" | tr -d '\r' >read.1
seq -f 'block %g' $blocks_read | cmp - read.1 || fail "m1 read something else"
circular vm stop -f m1
wait_for 30 no_mount
ok 'the process that serves the disk is killed: the machine stops, is given it again at the second attempt, and goes on'

[ -z "$(find "$runtime" -name 'boot-*' -o -name '*.tmp')" ] || fail "left: $(find "$runtime")"
