#!/bin/sh
# Every mount keeps which blocks its readers touch; the next mount of the image, or of a newer version, is fetched ahead
# along that. A profile can be taken from a mount that is in use.
. "$(dirname "$0")/../lib/common.sh"
requires python3
requires_fuse

kept() { find "$XDG_CACHE_HOME/circular/archives" -name "$1.profile" 2>/dev/null; }
is_kept() { [ -n "$(kept "$1")" ]; }
forget_blocks() { rm -rf "$XDG_CACHE_HOME/circular/blocks"/*; }
block_count() { # FILE: blocks of a profile
    python3 -c 'import struct, sys; d = open(sys.argv[1], "rb").read()
print(sum(struct.unpack("<QII", d[i:i + 16])[2] for i in range(64, len(d), 16)))' "$1"
}
fetched() { circular stats --json m | python3 -c 'import json, sys; print(json.load(sys.stdin)["fetched_blocks"])'; }
has_fetched() { [ "$(fetched)" -ge "$1" ]; }
read_block() { dd if=m/disk of=/dev/null bs=65536 skip="$1" count=1 iflag=direct 2>/dev/null; }
blocks='17 3 200 190 150'

make_archive 16
start_server "$archive"
start_mount "$url/disk" m --prefetch none
expect 3 circular profile record --from m -o none.profile
says 'nothing was read'
for block in $blocks; do
    read_block "$block"
done
count=$(fetched) # some blocks are holes, or repeat each other
[ "$count" -ge 2 ] || fail 'nothing to fetch'
expect 0 circular profile record --from m -o taken.profile
says 'taken.profile is the profile of 5 blocks'
[ "$(block_count taken.profile)" = 5 ] || fail 'not five blocks'
expect 0 circular profile record --from m/disk -o again.profile
same taken.profile again.profile
expect 2 circular profile record -o x.profile "$url/disk"
says 'one of --boot and --from'
expect 2 circular profile record --from m -o x.profile "$url/disk"
expect 3 circular profile record --from "$work" -o x.profile
stop_mount m
circular profile add "$archive" disk taken.profile
ok 'a profile is taken from a mount that is in use, and can be published'
rm "$archive"/images/disk/*.hints.json

is_kept 1 || fail 'nothing is kept'
same "$(kept 1)" taken.profile
circular cache info >told
grep -q '^profiles   1, ' told || fail 'cache info does not tell of it'
ok 'every mount keeps what was read'

forget_blocks
start_mount "$url/disk" m --prefetch profile
wait_for 30 has_fetched "$count"
for block in $blocks; do
    read_block "$block"
done
[ "$(fetched)" = "$count" ] || fail 'not along the profile'
read_block 100
stop_mount m
[ "$(block_count "$(kept 1)")" = 6 ] || fail 'two runs are not merged'
start_mount "$url/disk" m --no-cache
read_block 101
stop_mount m
[ "$(block_count "$(kept 1)")" = 6 ] || fail '--no-cache keeps something'
ok 'the next mount is fetched ahead along it, and adds to it; not with --no-cache'

# Every block of the new version differs.
make_image new.img 16 7
circular publish new.img --name disk --version 2 --key "$key" --to "$archive"
rm -f "$archive"/images/disk/*.hints.json
start_mount "$url/disk" m --prefetch profile
wait_for 30 has_fetched 1
expect 0 circular stats m
says 'profile +[1-9]'
[ "$(fetched)" -le 6 ] || fail 'more than the profile is fetched'
stop_mount m
is_kept 2 && fail 'a profile is kept though nobody read'
ok 'a newer version is fetched ahead along what the older one left'

# A damaged one does no harm, is replaced, and an old one is removed.
echo nonsense >"$(kept 1)"
start_mount "$url/disk@1" m
same m/disk disk.img
stop_mount m
[ "$(block_count "$(kept 1)")" -gt 5 ] || fail 'it is not replaced'
touch -d '1 year ago' "$(kept 1)"
circular cache prune
is_kept 1 && fail 'an old profile is left'
start_mount "$url/disk@1" m
for block in $blocks; do
    read_block "$block"
done
stop "$mount" KILL
fusermount3 -u m
ok 'a damaged one is replaced, one of long ago removed'

# The published profile is a hint, but a file that its digest names: a mirror that gives another one is found out.
rm -rf "$XDG_CACHE_HOME"
circular profile add "$archive" disk@1 taken.profile
cp -r "$archive" copy
start_liar "$archive"
honest=$url
# The other one is asked for the profile first: this one is slow, and that one has nothing else to send by then.
lie . delay:300
start_liar copy
lie '^/files/' flip
lie 'hints' delay:1000
start_mount "$url/disk@1" m --mirror "$honest" --prefetch profile
wait_for 40 has_fetched "$count"
[ "$(liar_stats classes files)" -gt 0 ] || fail 'the liar was not asked for the profile'
grep -q "mirror $url gave wrong bytes and is set aside for ten minutes: files/.*digest differs" "log.$mount" ||
    fail "the liar is not named: $(cat "log.$mount")"
! grep -q "mirror $honest gave wrong" "log.$mount" || fail 'the other one is named, too'
for block in $blocks; do
    read_block "$block"
done
[ "$(fetched)" = "$count" ] || fail 'not along the profile of the other mirror'
same m/disk disk.img
stop_mount m
rm -rf "$XDG_CACHE_HOME"
start_mount "$url/disk@1" m --prefetch profile
same m/disk disk.img
stop_mount m
ok 'a published profile that is not what its digest says is not followed; the next mirror has it, or readers do without'

# Profiles in unsigned hints that are wrong, huge, or of something else: what is said, bounded traffic, right bytes.
make_image hostile.img 16
circular publish hostile.img --name hostile --version 1 --key "$key" --to "$archive"
start_liar "$archive"
read_hostile() { # its traffic is in $bytes
    rm -rf "$XDG_CACHE_HOME"
    forget_stats
    start_mount "$url/hostile" m -v
    same m/hostile hostile.img
    stop_mount m
    bytes=$(liar_stats bytes)
}
hostile() { # KIND: name a profile of it in the hints
    python3 - "$archive" "$1" <<'END'
import hashlib, json, os, struct, sys
archive, kind = sys.argv[1:]
catalog = json.load(open(archive + "/catalog.json"))
image = next(v["image"] for v in catalog["versions"] if v["name"] == "hostile")
whole = [(block, 0, 1) for block in range(256)]
runs = {"repeating": whole * 50, "endless": [(3, 0, 1), (250, 0, 0xffffffff)], "far": [(1 << 40, 0, 1), (250, 0, 4096)],
        "huge": [(block * 1000, 0, 1000) for block in range(500000)], "backwards": [(255 - b, 0, 1) for b in range(256)],
        "other": whole}[kind]
if kind == "other":
    image = os.urandom(32).hex()
header = b"OSCPROF1" + struct.pack("<II", 1, len(runs)) + bytes.fromhex(image) + struct.pack("<IIQ", 65536, 1, 0)
data = header + b"".join(struct.pack("<QII", *run) for run in runs)
name = hashlib.sha256(data).hexdigest()
os.makedirs(archive + "/files", exist_ok=True)
open(archive + "/files/" + name, "wb").write(data)
for file in "1.hints.json", "_newest.hints.json":
    json.dump({"format": "circular-hints-1", "version": "1", "profile": name}, open(f"{archive}/images/hostile/{file}", "w"))
print(len(data))
END
}
read_hostile
honest=$bytes
for kind in repeating endless far huge backwards other; do
    case $kind in
    repeating) reason='profile: block 0 occurs twice' ;;
    endless) reason='profile: run 1 has an impossible length' ;;
    huge) reason='profile: more than [0-9]+ blocks' ;;
    other) reason='it is of another image' ;;
    far | backwards) reason='' ;; # strange, but what can be read of it is
    esac
    profile_bytes=$(hostile "$kind")
    read_hostile
    if [ -n "$reason" ]; then
        grep -Eq "^circular: the profile is not used: $reason\$" "log.$mount" ||
            fail "of a $kind profile is not said that $reason: $(cat "log.$mount")"
    else
        ! grep -q 'not used' "log.$mount" || fail "a $kind profile is not used: $(cat "log.$mount")"
    fi
    [ "$bytes" -le $((honest * 11 / 10 + profile_bytes)) ] || fail "a $kind profile cost $bytes bytes, without it $honest"
done
ok 'profiles that are wrong, huge, or of another image are told with -v and cost bounded traffic, and no byte'
