#!/bin/sh
# Invariant 4: the same digest by every road. Source file, FUSE cold and warm, library, pull, nbdkit, second version
# beside the first, a loop device, offline, after a mount was killed in mid-read.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires python3 curl

digest() {
    sha256sum <"$1" | cut -c1-64
}

arrives() { # ROAD DIGEST WANTED
    [ "$2" = "$3" ] || fail "$1: digest $2 instead of $3"
    ok "$1"
}

make_archive 24
want=$(digest disk.img)
start_server "$archive"

start_mount "$url/disk" mnt
arrives "FUSE, nothing cached" "$(digest mnt/disk)" "$want"
arrives "FUSE, page cache" "$(digest mnt/disk)" "$want"
[ "$(stat -c %s mnt/disk)" = "$(stat -c %s disk.img)" ] || fail "the size differs"
stop_mount mnt
start_mount "$url/disk" mnt
arrives "FUSE, cached" "$(digest mnt/disk)" "$want"
python3 - mnt/disk disk.img <<'END' || fail "scattered reads differ"
import os, random, sys
a, b = (os.open(path, os.O_RDONLY) for path in sys.argv[1:])
size = os.fstat(b).st_size
generator = random.Random(5)
for _ in range(2000):
    offset, length = generator.randrange(size + 10000), generator.choice([1, 511, 4096, 65537, 300000])
    if os.pread(a, length, offset) != os.pread(b, length, offset):
        sys.exit(f"{length} bytes at {offset} differ")
END
ok "FUSE, scattered reads of odd sizes and over the end"
if [ "$(id -u)" = 0 ] && attach_loop -r mnt/disk 2>/dev/null; then
    arrives "a loop device on FUSE" "$(digest "$loop")" "$want"
    detach_loop "$loop"
fi
stop_mount mnt

expect 0 "$circular" pull "$url/disk" --output pulled.img
arrives "pull --output" "$(digest pulled.img)" "$want"
[ "$(stat -c %b pulled.img)" -le "$(($(stat -c %b disk.img) + 4096))" ] || fail "pull --output wrote out the holes"
ok "pull --output keeps holes"

rm -rf "$XDG_CACHE_HOME"
expect 0 "$circular" pull "$url/disk@1" --output cold.img
arrives "pull --output of a named version, nothing cached" "$(digest cold.img)" "$want"

expect 0 "$circular" pull "$archive/disk" --output folder.img
arrives "an archive in a folder" "$(digest folder.img)" "$want"

# The library, as a program of its own would use it: against the installed header, by pkg-config.
example=$(ls "$top"/examples/*.c 2>/dev/null | head -n 1)
if command -v cc >/dev/null && command -v pkg-config >/dev/null && [ -n "$example" ]; then
    DESTDIR=$work/stage meson install -C "$build" --no-rebuild --quiet >install.log 2>&1 || fail "$(tail -n 5 install.log)"
    config=$(find stage -name libcircular.pc)
    # shellcheck disable=SC2046
    env PKG_CONFIG_PATH="$work/$(dirname "$config")" PKG_CONFIG_SYSROOT_DIR="$work/stage" \
        sh -c 'cc -Wall -Werror "$1" -o reader $(pkg-config --cflags --libs libcircular)' - "$example" ||
        fail "the example does not compile against the installed library"
    library=$(dirname "$(find "$work/stage" -name 'libcircular.so.0' | head -n 1)")
    arrives "the library's example" "$(LD_LIBRARY_PATH=$library ./reader "$url/disk" "$pub" | sha256sum | cut -c1-64)" "$want"
fi

plugin=$build/src/lib/nbdkit-circular-plugin.so
if command -v nbdkit >/dev/null && command -v nbdcopy >/dev/null && [ -f "$plugin" ]; then
    export plugin url pub
    nbdkit -U - "$plugin" "$url/disk" "key=$pub" --run 'nbdcopy "$uri" cold-nbd.img'
    arrives "nbdkit, nothing cached" "$(digest cold-nbd.img)" "$want"
    nbdkit -U - "$plugin" "$url/disk" "key=$pub" "cache=$XDG_CACHE_HOME/circular" --run 'nbdcopy "$uri" warm-nbd.img'
    arrives "nbdkit, cached" "$(digest warm-nbd.img)" "$want"
fi

# A second version: a few blocks changed, some new, beside the first.
cp --sparse=always disk.img second.img
python3 - second.img <<'END'
import os, random, sys
generator = random.Random(9)
with open(sys.argv[1], "r+b") as image:
    for place in (0, 5, 9):
        image.seek(place * 1048576 + 777)
        image.write(generator.randbytes(3000))
    image.seek(0, 2)
    image.write(generator.randbytes(100000 - 100000 % 512))
END
second=$(digest second.img)
before=$(find "$archive/blocks" -type f | wc -l)
expect 0 "$circular" publish second.img --name disk --version 2 --key "$key" --to "$archive"
added=$(($(find "$archive/blocks" -type f | wc -l) - before))
[ "$added" -le 5 ] || fail "the update added $added blocks"
ok "an update adds only the blocks that are new"
start_mount "$url" all
[ "$(ls all/disk | sort | tr '\n' ' ')" = "1 2 " ] || fail "the catalog shows: $(ls -R all)"
arrives "the whole catalog mounted: first version" "$(digest all/disk/1)" "$want"
arrives "the whole catalog mounted: second version" "$(digest all/disk/2)" "$second"
stop_mount all
expect 0 "$circular" pull "$url/disk" --output newest.img
arrives "a bare name is the newest version" "$(digest newest.img)" "$second"
expect 0 "$circular" pull "$url/disk@1" --output oldest.img
arrives "rollback by @VERSION" "$(digest oldest.img)" "$want"

# Killed in the middle of a read, with an empty cache.
rm -rf "$XDG_CACHE_HOME"
start_mount "$url/disk@1" mnt
start cat mnt/disk
reader=$pid
some_blocks() {
    [ "$(find "$XDG_CACHE_HOME" -path '*/blocks/*' -type f | wc -l)" -ge 3 ]
}
wait_for 40 some_blocks
stop "$mount" KILL
release_mount mnt
stop "$reader" KILL
start_mount "$url/disk@1" mnt
arrives "after kill -9 of the mount in the middle of a read" "$(digest mnt/disk)" "$want"
stop_mount mnt

# No server from here on.
stop "$server"
start_mount "$url/disk@1" mnt
arrives "without the network, all cached" "$(digest mnt/disk)" "$want"
stop_mount mnt
expect 0 "$circular" pull "$url/disk@1" --offline --output offline.img
arrives "pull --offline" "$(digest offline.img)" "$want"
