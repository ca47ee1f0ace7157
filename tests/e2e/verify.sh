#!/bin/sh
# Verifying: each kind of thing, whole and damaged, for people and for programs.
. "$(dirname "$0")/../lib/common.sh"
requires python3 curl

make_archive 8
start_server "$archive"

damage() { # FILE: one bit in its middle
    python3 - "$1" <<'END'
import os, sys
with open(sys.argv[1], "r+b") as file:
    middle = os.path.getsize(sys.argv[1]) // 2
    file.seek(middle)
    byte = file.read(1)[0]
    file.seek(middle)
    file.write(bytes([byte ^ 16]))
END
}

block=$(find "$archive/blocks" -type f | sort | head -n 1)
other=$(find "$archive/blocks" -type f | sort | tail -n 1)

expect 0 "$circular" verify "$archive"
says 'whole'
expect 0 "$circular" verify "file://$archive"
damage "$block"
rm "$other"
expect 5 "$circular" verify "$archive"
says "blocks/../$(basename "$block"): .*disk@1 needs it"
says "blocks/../$(basename "$other"): is missing; block [0-9]+ of disk@1 needs it"
expect 5 "$circular" verify "$archive" --quiet
says "$(basename "$block")"
expect 5 "$circular" verify "$archive" --json
python3 - <<'END' || fail "the JSON is: $(cat out)"
import json
found = json.load(open("out"))
assert found["kind"] == "archive" and found["complete"] and found["bad"] == 2 and found["missing"] == 1
assert len(found["faults"]) == 2 and all(fault["where"].startswith("blocks/") for fault in found["faults"])
END
ok "an archive: every bad and missing block, and who needs it"

expect 5 "$circular" verify "$url/disk" --patience 2s
says "$(basename "$block")"
says "$(basename "$other")"
ok "a served image: the same, over HTTP"

expect 0 "$circular" publish disk.img --name disk --version 1 --key "$key" --to "$archive"
says 'new: 2 blocks'
expect 0 "$circular" verify "$archive"
expect 0 "$circular" verify "$url/disk"
ok "publishing the same image again puts an archive right"

expect 6 env XDG_CONFIG_HOME="$work/nothing" "$circular" verify "$archive"
says 'key'
expect 0 env XDG_CONFIG_HOME="$work/nothing" "$circular" verify "$archive" --insecure
make_key stranger
expect 6 env XDG_CONFIG_HOME="$work/nothing" "$circular" verify "$archive" --key stranger.pub
expect 0 env XDG_CONFIG_HOME="$work/nothing" "$circular" verify "$archive" --key "$pub"
ok "an archive by a key that is not trusted"

# A disk.
expect 2 "$circular" verify disk.img
says '--image'
expect 0 "$circular" verify disk.img --image "$url/disk"
cp disk.img copy.img
printf x | dd of=copy.img bs=1 seek=200000 conv=notrunc status=none
mkfifo pipe
expect 2 timeout 20 "$circular" verify pipe --image "$url/disk"
says 'pipe is neither a regular file nor a block device'
expect 3 "$circular" verify no-such.img --image "$url/disk"
says 'cannot find no-such.img'
expect 3 "$circular" verify no-such.img
says 'cannot find no-such.img'
cp copy.img cut.img
truncate -s 100000 cut.img
expect 5 "$circular" verify cut.img --image "$url/disk"
says 'cut.img: it has 100000 bytes, the disk has'
says '^[0-9]+ blocks from block [0-9]+ at offset [0-9]+ of cut.img on: the file ends before them'
[ "$(grep -c 'ends' out)" -le 2 ] || fail "a line for each block that is cut off"
truncate -s +1 copy.img
expect 5 "$circular" verify copy.img --image "$url/disk@1"
says 'block 3 at offset 196608 of copy.img'
says 'copy.img: it has 8388609 bytes, the disk has 8388608'
expect 3 "$circular" verify copy.img --image "$url/none"
expect 3 "$circular" verify no-such-folder/file
ok "a written-out disk: which block, at which offset"

# A cache.
expect 0 "$circular" pull "$url/disk" --cache "$work/lager"
expect 0 "$circular" verify lager
damage "$(find lager/blocks -type f | sort | head -n 1)"
expect 5 "$circular" verify lager
expect 5 "$circular" verify lager --repair
says 'removed'
expect 0 "$circular" verify lager
expect 2 "$circular" verify "$archive" --repair
ok "a cache: bad blocks are told, and removed with --repair"

mkdir empty
expect 3 "$circular" verify empty
says 'neither'
ok "a folder that is none of these"
