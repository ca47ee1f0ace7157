#!/bin/sh
# Invariant 5: kill -9 of the mount in mid-read and of the publisher in mid-write, at random moments, loses nothing
# that was acknowledged and leaves nothing that the next run trips over. SEED=N repeats a run.
. "$(dirname "$0")/../lib/common.sh"
requires python3
requires_fuse
seed
rounds=${CIRCULAR_KILLS:-25}
[ -z "${CIRCULAR_LONG:-}" ] || rounds=100

nap() { # at most N milliseconds
    random "$1"
    sleep "$(printf '0.%03d' "$number")"
}

make_archive 24
start_server "$archive"

round=0
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    random 4
    [ "$number" != 0 ] || rm -rf "$XDG_CACHE_HOME"
    start_mount "$url/disk" mnt
    start cat mnt/disk
    reader=$pid
    nap 120
    stop "$mount" KILL
    release_mount mnt
    stop "$reader" KILL
    expect 0 "$circular" pull "$url/disk" --output pulled.img
    same pulled.img disk.img
    rm -f pulled.img
done
expect 0 "$circular" cache verify
start_mount "$url/disk" mnt
same mnt/disk disk.img
stop_mount mnt
ok "$rounds kills of a mount in mid-read: the next reader gets every byte"

# Publishers: each round a changed image. What was there before stays whole whatever happens.
version=1
round=0
cp disk.img next.img
while [ "$round" -lt "$rounds" ]; do
    round=$((round + 1))
    version=$((version + 1))
    python3 -c 'import random, sys
generator = random.Random(int(sys.argv[1]))
with open("next.img", "r+b") as image:
    for _ in range(60):
        image.seek(generator.randrange(24 << 20))
        image.write(generator.randbytes(70000))
    image.truncate(24 << 20)' "$((seed + round))"
    start "$circular" publish next.img --name disk --version "$version" --key "$key" --to "$archive"
    publisher=$pid
    nap 250
    stop "$publisher" KILL
    rm -rf "$XDG_CACHE_HOME/circular/archives"
    listed=0
    "$circular" info "$url/disk@$version" >out 2>err || listed=$?
    newest=1
    case $listed in
    0) newest=$version ;;
    3) ;;
    *) fail "after publisher $round was killed, info ends with status $listed: $(cat err)" ;;
    esac
    if [ "$newest" = "$version" ]; then
        expect 0 "$circular" pull "$url/disk@$version" --output pulled.img
        same pulled.img next.img
    fi
    [ "$status" != 0 ] || [ "$newest" = "$version" ] || fail "version $version was acknowledged and is not there"
    rm -f pulled.img
done
expect 0 "$circular" pull "$url/disk@1" --output pulled.img
same pulled.img disk.img
version=$((version + 1))
expect 0 "$circular" publish next.img --name disk --version "$version" --key "$key" --to "$archive"
expect 0 "$circular" verify "$archive"
expect 0 "$circular" gc "$archive"
expect 0 "$circular" verify "$archive"
[ -z "$(find "$archive" -name '.tmp-*')" ] || fail "gc leaves $(find "$archive" -name '.tmp-*' | head -n 3)"
rm -f pulled.img
expect 0 "$circular" pull "$url/disk@$version" --output pulled.img
same pulled.img next.img
ok "$rounds kills of a publisher: the archive stays whole, the next publication works, gc leaves nothing behind"
