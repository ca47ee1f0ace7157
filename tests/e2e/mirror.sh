#!/bin/sh
# Mirrors: what `circular mirror test` finds out about each, and that a reader comes to no harm whatever they do.
. "$(dirname "$0")/../lib/common.sh"
requires python3 curl
requires_fuse

field() { # INDEX KEY...: of the last expect's JSON
    python3 -c 'import json, sys
value = json.load(open("out"))["mirrors"][int(sys.argv[1])]
for key in sys.argv[2:]:
    value = value[key]
print(value)' "$@"
}

make_archive 16
cp -r "$archive" copy
start_liar "$archive"
origin=$url origin_pid=$server
start_liar "$work/copy"
second=$url

expect 0 circular mirror test "$origin" --mirror "$second" --mirror "$work/copy"
[ "$(wc -l <out)" = 3 ] || fail "not a line a mirror: $(cat out)"
says "^$origin: fine, first byte [0-9.]+ ms, .*/s, catalog 1 signed, 64 of 64 blocks right$"
says "^$second: fine"
says "^$work/copy: fine"
expect 0 circular mirror test --json "$origin" --mirror "$second" --blocks 5
[ "$(field 1 verdict) $(field 1 catalog signed) $(field 1 blocks right)" = 'fine True 5' ] || fail "JSON: $(cat out)"
ok "mirrors that are well: a line each, in numbers also as JSON"

expect 0 circular mirror test "http://someone:secret@${origin#http://}"
says_not secret
ok "passwords are not printed"

python3 - "$archive/images/disk/1.hints.json" "$second" <<'END'
import json, sys
json.dump({"format": "circular-hints-1", "mirrors": [sys.argv[2]]}, open(sys.argv[1], "w"))
END
cp "$archive/images/disk/1.hints.json" "$archive/images/disk/_newest.hints.json"
expect 0 circular mirror test "$origin"
[ "$(wc -l <out)" = 2 ] || fail "the mirror of the hints is not there: $(cat out)"
says "^$second: fine"
rm -rf "$XDG_CACHE_HOME"
url=$second
forget_stats
start_mount "$origin/disk" mnt
same mnt/disk disk.img
wait_for 30 sh -c "curl -fsS $second/_stats | grep -q '\"total\": [1-9]'"
stop_mount mnt
ok "mirrors that hints name are tested, too, and a mount uses them"

lie '^/blocks/' flip
expect 5 circular mirror test "$origin" --mirror "$second"
says "^$second: wrong, .*: .*differs|^$second: wrong"
says "^$origin: fine"
be_honest
lie '^/maps/' flip
expect 5 circular mirror test "$origin" --mirror "$second"
says "^$second: wrong"
be_honest
lie '^/blocks/' 'status:404'
expect 3 circular mirror test "$origin" --mirror "$second"
says "^$second: incomplete, .* 0 of 64 blocks right"
be_honest
lie minisig 'status:404'
expect 6 circular mirror test "$origin" --mirror "$second"
says "^$second: unsigned, .*catalog 1, "
be_honest
ok "wrong bytes, missing blocks and missing signatures are found, each with its exit status"

circular publish disk.img --name other --version 1 --key "$key" --to "$archive"
expect 7 circular mirror test "$origin" --mirror "$second" --image disk@1
says "^$second: behind, .*: its catalog has serial 1, another mirror's 2"
says "^$origin: fine"
expect 3 circular mirror test "$origin" --image nothing
expect 2 circular mirror test "$origin" --offline
expect 2 circular mirror test ftp://host/os
rm -rf copy
cp -r "$archive" copy
expect 4 circular mirror test "$origin" --mirror "http://$nobody" --patience 1s
says ': unreachable: .*refused'
ok "an old catalog and a dead server, too"

# One that takes connections and never answers, one that answers no more after its catalog, one where nobody listens.
url=$second
begin=$(date +%s)
lie . hang
expect 4 circular mirror test "$second" --mirror "$origin" --mirror "http://$nobody" --mirror "$work/copy" --patience 3s
says "^$second: unreachable"
says "^$origin: fine"
says "^$work/copy: fine"
be_honest
lie '^/blocks/' hang
expect 4 circular mirror test "$origin" --mirror "$second" --patience 3s
says "^$second: unreachable"
says "^$origin: fine"
be_honest
[ $(($(date +%s) - begin)) -le 60 ] || fail "mirrors that do not answer took $(($(date +%s) - begin)) s"
ok "mirrors that do not answer cost little more than the patience each"

# A reader: the origin dies, and becomes slow; a folder is a mirror.
read_all() { # MIRROR
    rm -rf "$XDG_CACHE_HOME"
    start_mount "$origin/disk" mnt --mirror "$1"
    same mnt/disk disk.img
    stop_mount mnt
}
url=$second
lie '^/blocks/' 'status:404'
read_all "$second"
be_honest
url=$origin
lie '^/blocks/' 'delay:300'
read_all "$second"
read_all "$work/copy"
lie '^/blocks/' flip
# Whichever of them is found to be the quicker one, there is a block that the liar is asked for.
at "$second" lie '^/blocks/.* -$' status:503 1
read_all "$second"
at "$second" be_honest
grep -q "mirror $origin gave wrong bytes and is not used any more: blocks/" log.*[0-9] ||
    fail "the liar is not named: $(cat "log.$mount")"
ok "a reader gets what it reads from mirrors that lack blocks, are slow or lie; a folder is one, too"
be_honest

rm -rf "$XDG_CACHE_HOME"
start_mount "$origin/disk" mnt --mirror "$second"
stop "$origin_pid"
same mnt/disk disk.img
stop_mount mnt
ok "the origin may die under a mount"

rm -rf "$XDG_CACHE_HOME"
for _ in 1 2 3; do # who waits twice, which is ten seconds, does so each time; a busy machine is now and then late
    begin=$(date +%s)
    expect 4 circular mount "http://$nobody/disk" mnt
    took=$(($(date +%s) - begin))
    [ "$took" -gt 8 ] || break
done
[ "$took" -le 8 ] || fail "it took $took s to say that nobody is there"
ok "a mount of a server that is not there is refused after one wait"
