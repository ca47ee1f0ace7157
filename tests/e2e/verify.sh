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

# The folder of blocks is away, as a mount of its own may be.
circular publish disk.img --name disk --version 1 --block-size 4K --key "$key" --to "$work/many"
blocks=$(find many/blocks -type f | wc -l)
[ "$blocks" -gt 300 ] || fail "only $blocks blocks"
mv many/blocks blocks.away
for state in missing empty file; do
    case $state in
    empty) mkdir many/blocks ;;
    file) rmdir many/blocks && touch many/blocks ;;
    esac
    expect 5 "$circular" verify many
    says "^blocks: .*need $blocks blocks of it"
    [ "$(wc -l <out)" = 2 ] || fail "$(wc -l <out) lines"
    says '; 1 fault$'
    [ $state = file ] || says '; is a file system not mounted\?$'
done
rm many/blocks
expect 5 "$circular" verify many --json
python3 - "$blocks" <<'END' || fail "the JSON is: $(cat out)"
import json, sys
found = json.load(open("out"))
assert found["complete"] and found["bad"] == 1 and found["missing"] == int(sys.argv[1])
END
mkdir -p many/blocks/00
for quiet in '' --quiet; do
    # shellcheck disable=SC2086 # none or one
    expect 5 "$circular" verify many $quiet
    [ "$(cat out err | wc -l)" -le 102 ] || fail "$(cat out err | wc -l) lines"
    says "$((blocks - 100)) more faults are not shown"
done
expect 5 "$circular" verify many --json
python3 - "$blocks" <<'END' || fail "the JSON is: $(cat out)"
import json, sys
found = json.load(open("out"))
assert found["bad"] == found["missing"] == len(found["faults"]) == int(sys.argv[1])
END
rm -r many/blocks
mv blocks.away many/blocks
expect 0 "$circular" verify many
mkdir going-bad
cp -r many/blocks going-bad/
find going-bad/blocks -type f -exec truncate -s 5 {} +
for quiet in '' --quiet; do
    # shellcheck disable=SC2086 # none or one
    expect 5 "$circular" cache verify --cache going-bad $quiet
    [ "$(cat out err | wc -l)" -le 102 ] || fail "$(cat out err | wc -l) lines"
    says "$((blocks - 100)) more faults are not shown"
done
truncate -s 1M zeros.img
circular publish zeros.img --name zeros --version 1 --key "$key" --to "$work/none"
rm -rf none/blocks
expect 0 "$circular" verify none
ok "blocks that are all away are one fault, and of many faults some are shown"

# Packs, and what names them.
packed=$work/packed
cp -r "$archive" "$packed"
circular pack --all "$packed" disk
hints=$packed/images/disk/1.hints.json
newest_hints=$packed/images/disk/_newest.hints.json
pack=$(find "$packed/packs" -name '*.pack')
[ "$(echo "$pack" | wc -l)" = 1 ] || fail "not one pack: $pack"
name=packs/$(basename "$pack")
echo 'in any order' >any-order
profile=$(sha256sum any-order | cut -d ' ' -f 1)
mkdir "$packed/files"
cp any-order "$packed/files/$profile"
set_hint() { # STATEMENT, which changes `hints` or the first `pack` in them
    python3 - "$1" "$hints" "$newest_hints" <<'END'
import json, sys
for path in sys.argv[2:]:
    hints = json.load(open(path))
    pack = hints["packs"][0]
    exec(sys.argv[1])
    json.dump(hints, open(path, "w"))
END
}
entry() { # NUMBER: of the pack's table; sets $digest, $offset, and $table, the table's size
    eval "$(python3 - "$pack" "$1" <<'END'
import struct, sys
data = open(sys.argv[1], "rb").read()
count = struct.unpack_from("<I", data, 12)[0]
at = 32 + 48 * (int(sys.argv[2]) % count)
print("digest=%s offset=%d table=%d" % (data[at:at + 32].hex(), struct.unpack_from("<Q", data, at + 32)[0],
                                        32 + 48 * count))
END
    )"
}
flip() { # OFFSET in the pack
    python3 - "$pack" "$1" <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]))
    byte = file.read(1)[0]
    file.seek(int(sys.argv[2]))
    file.write(bytes([byte ^ 16]))
END
}
faults() { # NUMBER MISSING
    expect 5 "$circular" verify "$packed" --json
    python3 - "$@" <<'END' || fail "the JSON is: $(cat out)"
import json, sys
found = json.load(open("out"))
assert found["complete"] and found["bad"] == len(found["faults"]) == int(sys.argv[1])
assert found["missing"] == int(sys.argv[2])
END
}

cp "$pack" whole.pack
cp "$hints" good.json
expect 0 "$circular" verify "$packed"
head -c 5000 disk.img >"$packed/packs/$profile.pack"
expect 0 "$circular" verify "$packed"
ok "a pack that no hints name is no damage"

entry 3
flip $((offset + 20))
third="block $digest at offset $offset of $name: .*; readers fetch this block apart"
entry -1
flip $((offset + 20))
expect 5 "$circular" verify "$packed"
says "^$third"
says "^block $digest at offset $offset of $name: .*; readers fetch this block apart"
says '2 faults$'
faults 2 0
expect 5 "$circular" verify "$packed" --quiet
says "$third"
expect 0 circular pull "$packed/disk" --no-cache --output from-damaged.img
same from-damaged.img disk.img
expect 0 circular pack --all "$packed" disk
same "$pack" whole.pack
expect 0 "$circular" verify "$packed"
ok "damaged frames in a pack: which block, at which offset; packing again mends it"

rm "$pack"
expect 5 "$circular" verify "$packed"
says "^$name: is missing; images/disk/1.hints.json names it, and readers fetch its blocks apart"
faults 1 1
mkfifo "$pack"
expect 5 timeout 60 "$circular" verify "$packed"
says "^$name: is not a regular file"
rm "$pack"
cp whole.pack "$pack"
entry -2
truncate -s $((offset + 5)) "$pack"
expect 5 "$circular" verify "$packed"
says "^2 blocks from offset $offset of $name on: the file ends before them, after $((offset + 5)) bytes where .* say"
faults 1 0
truncate -s $((table - 5)) "$pack"
expect 5 "$circular" verify "$packed"
says "^$name: the file ends in its table"
: >"$pack"
expect 5 "$circular" verify "$packed"
says "^$name: .*header has 0 bytes"
cp whole.pack "$pack"
echo more >>"$pack"
expect 5 "$circular" verify "$packed"
says "^$name: it has $(stat -c %s "$pack") bytes, its header and the hints say $(stat -c %s whole.pack)"
faults 1 0
cp whole.pack "$pack"
flip 40
expect 5 "$circular" verify "$packed"
says "^$name: the table's digest is not the pack's name; images/disk/1.hints.json names it"
faults 1 0
cp whole.pack "$pack"
ok "a pack that is lost, cut off, too long, or not what its name says"

set_hint 'pack["size"] += 1'
expect 5 "$circular" verify "$packed"
says "^$name: it has [0-9]+ bytes by its header, the hints say"
faults 1 0
cp good.json "$hints" # the copy for who does not know yet which version is the newest is as before
expect 5 "$circular" verify "$packed"
says "^$name: .* images/disk/_newest.hints.json names it"
cp good.json "$newest_hints"
set_hint 'pack["table_size"] += 48'
expect 5 "$circular" verify "$packed"
says "^$name: its table has [0-9]+ bytes, the hints say"
cp good.json "$newest_hints"
echo '{' >"$hints"
expect 5 "$circular" verify "$packed"
says '^images/disk/1.hints.json: .*; readers do without these hints'
faults 1 0
cp good.json "$hints"
set_hint "pack['pack'] = hints['image'] = '$profile'" # of another image: nobody heeds them
expect 0 "$circular" verify "$packed"
cp good.json "$hints"
cp good.json "$newest_hints"
set_hint "hints['profile'] = '$profile'"
expect 0 "$circular" verify "$packed"
echo more >>"$packed/files/$profile"
expect 5 "$circular" verify "$packed"
says "^files/$profile: digest differs; images/disk/1.hints.json names it, and readers do without this profile"
rm "$packed/files/$profile"
expect 5 "$circular" verify "$packed"
says "^files/$profile: is missing; images/disk/1.hints.json names it"
faults 1 1
ok "hints that are wrong, and a profile that is lost"

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
for path in ./no-such.img no-such-folder/file "./no such.img" /no-such.img "file://$work/no-such.img" ./no-such/ \
    disk.img/file; do
    expect 3 env XDG_CONFIG_HOME="$work/nothing" "$circular" verify "$path"
    says "cannot find ${path#file://}: there is no such file or folder, nor an archive in [^ ]+\$"
done
expect 3 "$circular" verify "$archive/no-such-image"
says 'no-such-image'
says_not 'no such file'
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

rm -r lager
circular pack --all "$archive" disk
expect 0 "$circular" pull "$url/disk" --cache "$work/lager"
kept=$(find lager/files -type f)
[ -n "$kept" ] || fail 'the table of the pack is not kept'
expect 0 "$circular" verify lager
damage "$kept"
expect 5 "$circular" verify lager
says "^files/$(basename "$kept"): digest differs\$"
expect 5 "$circular" verify lager --repair
says "^files/$(basename "$kept"): digest differs; removed\$"
[ ! -e "$kept" ] || fail 'it is still there'
expect 0 "$circular" verify lager
ok "and so are tables of packs"

mkdir empty
expect 3 "$circular" verify empty
says 'neither'
ok "a folder that is none of these"
