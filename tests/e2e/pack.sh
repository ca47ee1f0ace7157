#!/bin/sh
# What a mount records is attached to the version, packed, and then brings a second reader the same bytes in a few
# requests. Packs and profiles are hints: without them, or with damaged ones, bytes are right. They live as long as
# the version that they are of.
. "$(dirname "$0")/../lib/common.sh"
requires python3 curl
requires_fuse

# The reads of a "boot": pieces here and there, too far from each other to be read ahead of.
cat >boot.py <<'END'
import os, random, sys

def reads(size):
    generator = random.Random(7)
    places = list(range(0, size - 800000, 800000))
    generator.shuffle(places)
    return [(at + generator.randrange(400000), generator.choice([512, 4096, 60000])) for at in places]

if __name__ == "__main__":
    file = os.open(sys.argv[1], os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    for at, length in reads(os.fstat(file).st_size):
        sys.stdout.buffer.write(os.pread(file, length, at))
END
boot() { python3 -B boot.py "$1"; }
requests() { liar_stats total; }
# Mount with nothing cached, boot, and leave how many requests that took in $requests. $1: what is booted; options
cold_boot() {
    source=$1
    shift
    rm -rf "$XDG_CACHE_HOME"
    forget_stats
    start_mount "$source" m "$@"
    boot m/disk >booted
    stop_mount m
    requests=$(requests)
}
hints() { # VERSION FIELD
    python3 -c 'import json, sys
print(json.dumps(json.load(open(sys.argv[1])).get(sys.argv[2])))' "$archive/images/disk/$1.hints.json" "$2"
}

make_archive 32
boot disk.img >wanted
start_liar "$archive"

expect 2 circular mount --record "$work" "$url/disk" m
says 'no file that a profile can replace'
expect 3 circular mount --record nowhere/p "$url/disk" m
cold_boot "$url/disk" --record boot.profile
same booted wanted
without=$requests
expect 0 circular mount --record background.profile "$url/disk" m
at_exit release_mount "$work/m"
boot m/disk >booted
circular umount m
wait_for 40 cmp background.profile boot.profile -n 8
PYTHONPATH=. python3 -B - boot.profile disk.img <<'END' || fail 'the profile is not what was read'
import os, struct, sys
import boot
data = open(sys.argv[1], "rb").read()
assert data[:8] == b"OSCPROF1"
runs = [struct.unpack_from("<QII", data, at) for at in range(64, len(data), 16)]
blocks = [first + i for first, _, count in runs for i in range(count)]
assert len(blocks) == len(set(blocks)), "a block twice"
expected = []
for at, length in boot.reads(os.path.getsize(sys.argv[2])):
    expected += [block for block in range(at // 65536, (at + length - 1) // 65536 + 1) if block not in expected]
assert sorted(blocks) == sorted(expected), set(blocks) ^ set(expected)
assert blocks == expected, "the order is another"
END
ok 'a mount records the first touch of every block, and nothing else'

expect 3 circular pack "$archive" disk
says 'has no profile'
expect 3 circular profile add "$archive" disk@9 boot.profile
head -c 100 boot.profile >cut.profile
expect 5 circular profile add "$archive" disk cut.profile
says 'cut.profile: '
expect 2 circular pack "$url" disk
says 'folder, not over HTTP'
find "$archive" -name '*.minisig' -o -name catalog.json | sort | xargs sha256sum >signed
expect 0 circular profile add "$archive" disk boot.profile
says 'profile of [0-9]+ blocks'
expect 0 circular pack --json "$archive" disk
python3 -c 'import json
result = json.load(open("out"))
assert result["version"] == "1" and result["boot_blocks"] > 20 and result["boot_bytes"] > 0, result'
boot_bytes=$(python3 -c 'import json; print(json.load(open("out"))["boot_bytes"])')
sha256sum --quiet -c signed || fail 'what is signed has changed'
[ "$(hints 1 packs)" != null ] || fail 'the hints name no pack'
ok 'a profile is attached and packed; what is signed stays'

# Over a link that is far longer than a busy machine makes it: how long readers wait for the pack follows from that.
lie . delay:500
cold_boot "$url/disk"
same booted wanted
echo "# $requests requests with the boot pack, $without without" >&3
[ "$requests" -le 12 ] || fail "$requests requests: $(liar_stats paths)"
[ "$(liar_stats classes blocks)" = 0 ] || fail "blocks were fetched apart: $(liar_stats paths)"
[ "$without" -gt 25 ] || fail "there is nothing to gain: $without requests without"
be_honest
ok 'with the boot pack a cold boot takes 12 requests at most'

pack=$(find "$archive/packs" -name '*.pack')
rate=$(($(stat -c %s "$pack") / 3)) # so that it takes three seconds
fetched() { circular stats --json m | python3 -c 'import json, sys; print(json.load(sys.stdin)["fetched_bytes"])'; }
has_fetched() { [ "$(fetched)" -ge "$1" ]; }
rm -rf "$XDG_CACHE_HOME"
forget_stats
from=$(date +%s%N)
start_mount "$url/disk" m --limit-rate "$rate"
wait_for 60 has_fetched "$boot_bytes"
took_ms=$((($(date +%s%N) - from) / 1000000))
stop_mount m
[ "$took_ms" -ge 2400 ] || fail "$boot_bytes bytes of a boot pack in $took_ms ms are more than $rate a second"
[ "$(liar_stats classes blocks)" = 0 ] || fail "it was not streamed: $(liar_stats paths)"
ok "--limit-rate holds for the streams of a mount: $took_ms ms, at least 2400"

cp "$pack" kept.pack
for behaviour in flip truncate status:404 no-range swap:/catalog.json; do
    lie '^/packs/' "$behaviour"
    cold_boot "$url/disk"
    same booted wanted
    be_honest
done
origin=$url
cp -r "$archive" copy
lie . delay:200 # so that the other one is asked first
start_liar copy
liar=$url
lie '^/packs/.* bytes=[1-9]' flip
rm -rf "$XDG_CACHE_HOME"
start_mount "$liar/disk" m --mirror "$origin"
boot m/disk >booted
same booted wanted
named() { grep -q "mirror $liar: packs/.* is damaged there" "log.$mount"; }
wait_for 30 named
! grep -q "mirror $origin: packs" "log.$mount" || fail "the other mirror is named: $(cat "log.$mount")"
circular stats --json m | python3 -c 'import json, sys
liar, origin = json.load(sys.stdin)["mirrors"]
assert liar["state"] == "in use" and origin["state"] == "in use", (liar, origin)' || fail "$(cat "log.$mount")"
asked=$(liar_stats classes packs)
url=$origin
be_honest
same m/disk disk.img
url=$liar
[ "$(liar_stats classes packs)" = "$asked" ] || fail "the liar was asked for the pack again: $(liar_stats paths)"
stop_mount m

# The same damage everywhere, as after a fault of the publisher's disk: it is the pack that is left, and no mirror.
lie '^/packs/.* bytes=[1-9]' flip
url=$origin
lie '^/packs/.* bytes=[1-9]' flip
rm -rf "$XDG_CACHE_HOME"
start_mount "$liar/disk" m --mirror "$origin"
boot m/disk >booted
same booted wanted
same m/disk disk.img
[ "$(grep -c ': packs/.* is damaged' "log.$mount")" = 1 ] || fail "the pack is not named once: $(cat "log.$mount")"
! grep -q 'wrong bytes' "log.$mount" || fail "a mirror is dropped: $(cat "log.$mount")"
circular stats --json m | python3 -c 'import json, sys
assert [mirror["state"] for mirror in json.load(sys.stdin)["mirrors"]] == ["in use"] * 2' || fail "$(circular stats m)"
stop_mount m
be_honest
ok 'a mirror that lies in the boot pack is named and not asked for it; where all do, the pack is left and no mirror'

rm "$pack"
cold_boot "$url/disk"
same booted wanted
head -c 30000 /dev/urandom >>"$archive/images/disk/1.hints.json"
cp "$archive/images/disk/1.hints.json" "$archive/images/disk/_newest.hints.json"
cold_boot "$url/disk"
same booted wanted
ok 'packs that are lost, cut or damaged cost time, and no byte'

expect 0 circular profile add "$archive" disk boot.profile boot.profile
expect 0 circular pack --all "$archive" disk
says 'packs of the rest: [1-9]'
[ "$(find "$archive/packs" -name '*.pack' | wc -l)" -ge 2 ] || fail 'there is no pack of the rest'
cp disk.img next.img
python3 -c 'import os
file = os.open("next.img", os.O_WRONLY)
for block in range(0, 512, 13):
    os.pwrite(file, os.urandom(65536), block * 65536)'
circular publish next.img --name disk --version 2 --key "$key" --to "$archive"
[ "$(hints 2 profile)" != null ] || fail 'the profile is not carried over'
[ "$(hints 2 packs)" = null ] || [ "$(hints 2 packs)" = '[]' ] || fail 'version 2 has a pack that nobody made'
expect 0 circular pack "$archive" disk
says 'disk@2: boot pack'
expect 2 circular pack --profile boot.profile "$archive" disk@2
says "of another image"
boot next.img >wanted-next
lie . delay:500
cold_boot "$url/disk"
same booted wanted-next
[ "$requests" -le 12 ] || fail "$requests requests of version 2: $(liar_stats paths)"
[ "$(liar_stats classes blocks)" = 0 ] || fail "the carried profile lacks blocks: $(liar_stats paths)"
ok 'a new version takes the profile over, and can be packed'

named() { # every pack and profile that the hints of $1 name is there
    python3 - "$archive" "$1" <<'END'
import json, os, sys
archive, version = sys.argv[1:]
hints = json.load(open(f"{archive}/images/disk/{version}.hints.json"))
files = [f"files/{hints['profile']}"] + [f"packs/{pack['pack']}.pack" for pack in hints["packs"]]
for file in files:
    assert os.path.exists(f"{archive}/{file}"), file
print(len(files))
END
}
count() { find "$archive/packs" "$archive/files" -type f | wc -l; }
circular gc "$archive"
one=$(named 1)
two=$(named 2)
[ "$(count)" = $((one + two)) ] || fail "after gc there are $(count) packs and profiles, not $one + $two"
circular unlist --key "$key" "$archive" disk@1
circular gc "$archive"
named 2 >/dev/null
[ "$(count)" = "$two" ] || fail "packs or profiles of an unlisted version are kept: $(count), not $two"
cold_boot "$url/disk"
same booted wanted-next
[ "$requests" -le 12 ] || fail "$requests requests after gc"
ok 'gc keeps the packs and profiles of listed versions, and no others'
