#!/bin/sh
# Several processes share one cache under load: two mounts read in different orders, pulls and a bounded prune go on
# beside them. Nobody reads a wrong byte, each block is fetched about once, and the cache is sound at the end.
. "$(dirname "$0")/../lib/common.sh"
requires python3 curl
requires_fuse
seed

make_archive 32
start_liar "$archive"
lie '^/blocks/' delay:30
start_mount "$url/disk" one
first=$mount
start_mount "$url/disk" two
second=$mount

cat >load.py <<'END'
import os, random, sys
path, want, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
a, b = os.open(path, os.O_RDONLY), os.open(want, os.O_RDONLY)
size = os.fstat(b).st_size
places = list(range(0, size, 131072))
random.Random(seed).shuffle(places)
for place in places:
    if os.pread(a, 131072, place) != os.pread(b, 131072, place):
        sys.exit(f"{path}: wrong bytes at {place}")
END
readers=''
for mount_folder in one two; do
    for reader in 1 2; do
        start python3 load.py "$mount_folder/disk" disk.img "$((seed + reader))"
        readers="$readers $pid"
    done
done
start "$circular" pull "$url/disk" --output pulled.img
readers="$readers $pid"
for reader in $readers; do
    wait_for 100 ended "$reader"
    wait "$reader" || fail "reader: $(cat "$work/log.$reader")"
done
same pulled.img disk.img
ok "four readers on two mounts and a pull all read the right bytes"

blocks=$(find "$archive/blocks" -type f | wc -l)
fetched=$(liar_stats classes blocks)
[ "$fetched" -le $((blocks * 3)) ] || fail "$fetched requests for $blocks blocks by three processes"
ok "no process fetches a block twice ($fetched requests, $blocks blocks, three processes)"

expect 0 "$circular" cache verify
ok "the cache is sound afterwards"

forget_stats
expect 0 "$circular" pull "$url/disk" --output again.img
same again.img disk.img
[ "$(liar_stats classes blocks)" = 0 ] || fail "a full cache still fetches blocks"
ok "what one has fetched, the next does not fetch"

# Prune while both read: what they need is fetched again.
readers=''
for reader in 1 2 3 4; do
    folder=one
    [ $((reader % 2)) = 0 ] || folder=two
    start python3 load.py "$folder/disk" disk.img "$((seed + 10 + reader))"
    readers="$readers $pid"
    expect 0 "$circular" cache prune --max-size 1M
done
for reader in $readers; do
    wait_for 100 ended "$reader"
    wait "$reader" || fail "reader: $(cat "$work/log.$reader")"
done
ok "pruning the cache under readers harms nobody"

mount=$first
stop_mount one
mount=$second
stop_mount two
