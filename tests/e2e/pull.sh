#!/bin/sh
# Pulling: into the cache, to a file, onto a device; interrupted, killed and taken up again; beside what is there.
. "$(dirname "$0")/../lib/common.sh"
requires python3 curl

make_archive 32
start_liar "$archive"

field() { # NAME: of the JSON in out
    python3 -c 'import json, sys; print(json.load(open("out"))[sys.argv[1]])' "$1"
}

expect 0 "$circular" pull "$url/disk" --json
blocks=$(field blocks)
[ "$(field fetched_blocks)" -le "$blocks" ] || fail "fetched more than there is: $(cat out)"
forget_stats
expect 0 "$circular" pull "$url/disk" --json
[ "$(field present_blocks) $(field fetched_blocks)" = "$blocks 0" ] || fail "fetched again: $(cat out)"
[ "$(liar_stats classes blocks)" = 0 ] || fail "blocks were asked for again"
expect 0 "$circular" pull "$url/disk" --offline --output offline.img
same offline.img disk.img
ok "what is in the cache is not fetched again, and is enough without a network"

# A file.
expect 0 "$circular" pull "$url/disk" --no-cache --output new.img
same new.img disk.img
[ "$(stat -c %b new.img)" -le "$(($(stat -c %b disk.img) + 64))" ] || fail "holes were written out"
[ ! -e new.img.part ] || fail "new.img.part stays"
head -c 100000 /dev/urandom | dd of=new.img bs=1000 seek=5000 conv=notrunc status=none
expect 1 "$circular" pull "$url/disk" --no-cache --output new.img
says 'new.img exists.*--force'
expect 0 "$circular" pull "$url/disk" --no-cache --output new.img --force --json
same new.img disk.img
[ "$(field present_blocks)" -gt 0 ] || fail "nothing of the old file was kept"
ok "an existing file is left alone, or with --force brought up to date in place"

expect 2 "$circular" pull "$url/disk" --no-cache
says '--output'
expect 2 "$circular" pull "$url/disk" --no-cache --output /dev/null
says '/dev/null'
expect 3 "$circular" pull "$url/disk" --no-cache --output no/such/folder/file
ok "outputs that are none"

# Interrupted: the message says that what is there is kept, and it is.
asked_for() { # at least COUNT blocks, since forget_stats
    [ "$(liar_stats classes blocks)" -ge "$1" ]
}
something_in() { # FILE
    [ "$(stat -c %b "$1")" -gt 0 ]
}
# A shell lets what it starts in the background ignore SIGINT.
for signal in INT TERM KILL; do
    forget_stats
    rm -f slow.img.part # of the signal before; the last one's is kept
    lie '^/blocks/[0-7]' delay:60000 # it cannot be over before it is interrupted
    start env --default-signal=INT "$circular" pull "$url/disk" --no-cache --output slow.img
    puller=$pid
    wait_for 40 asked_for 20
    wait_for 40 something_in slow.img.part
    stop "$puller" "$signal"
    [ "$signal" = KILL ] || [ "$status" = 130 ] || fail "$signal: status $status, $(cat "$work/log.$puller")"
    [ "$signal" = KILL ] || grep -q 'broken off.*kept' "$work/log.$puller" || fail "said: $(cat "$work/log.$puller")"
    [ ! -e slow.img ] || fail "a part has the name of the whole"
    be_honest
done
expect 0 "$circular" pull "$url/disk" --no-cache --output slow.img --json
same slow.img disk.img
[ "$(field present_blocks)" -gt 0 ] || fail "nothing was kept: $(cat out)"
ok "an interrupted pull goes on where it was"

forget_stats
lie '^/blocks/' hang
start env --default-signal=INT "$circular" pull "$url/disk" --no-cache --output stalled.img --patience 120s
puller=$pid
wait_for 40 asked_for 1
stop "$puller" INT # waits for 30 s
[ "$status" = 130 ] || fail "status $status, $(cat "$work/log.$puller")"
be_honest
ok "Ctrl-C does not wait for a silent server"

# Two at once.
forget_stats
lie '^/blocks/' hang
start "$circular" pull "$url/disk" --no-cache --output both.img --patience 120s
puller=$pid
wait_for 40 asked_for 1
expect 1 "$circular" pull "$url/disk" --no-cache --output both.img
says 'both.img.part.*use'
be_honest
wait_for 60 ended "$puller"
wait "$puller" || fail "the first one failed: $(cat "$work/log.$puller")"
same both.img disk.img
ok "two pulls to one file: the second one says so"

# A full disk.
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=2m none small 2>/dev/null; then
    at_exit umount -l "$work/small"
    expect 1 "$circular" pull "$url/disk" --no-cache --output small/disk.img
    says 'small/disk.img.*space.*stays in small/disk.img.part'
    expect 1 "$circular" pull "$url/disk" --cache "$work/small/cache"
    says 'not in the cache'
    ok "a full disk is an error"
fi

# A block device, with something else on it before.
if [ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1; then
    head -c 34M /dev/urandom >device.img
    attach_loop device.img
    device=$loop
    expect 0 "$circular" pull "$url/disk" --no-cache --output "$device"
    cmp -n "$(stat -c %s disk.img)" "$device" disk.img || fail "the device does not hold the disk"
    expect 0 "$circular" verify "$device" --image "$url/disk"
    printf x | dd of="$device" bs=1 seek=70001 conv=notrunc status=none
    expect 5 "$circular" verify "$device" --image "$url/disk"
    says "block 1 at offset 65536 of $device"
    truncate -s 20M little.img
    attach_loop little.img
    little=$loop
    expect 1 "$circular" pull "$url/disk" --no-cache --output "$little"
    says "$little has 20971520 bytes"
    if mkfs.ext4 -q "$little" && mkdir mounted && mount "$little" mounted; then
        at_exit umount "$work/mounted"
        expect 1 "$circular" pull "$url/disk" --no-cache --output "$little"
        says 'in use'
    fi
    ok "a device is written whole, zeros too; a small or mounted one is refused"
fi
