#!/bin/sh
# Pulling out of packs: a few streams instead of a request a block, only what is lacking, and right bytes whatever happens
# to packs, hints and mirrors.
. "$(dirname "$0")/../lib/common.sh"
requires python3 curl

field() { # NAME: of the JSON in out
    python3 -c 'import json, sys; print(json.load(open("out"))[sys.argv[1]])' "$1"
}
asked() { liar_stats classes "$1"; }

make_archive 64
expect 3 circular pack "$archive" disk
says 'has no profile'
expect 3 circular pack --all "$archive" disk@9
says 'disk@9 is not in the catalog'
expect 0 circular pack --all "$archive" disk
says 'no boot pack, for want of a profile'
says 'packs of the rest: [1-9]'
expect 0 circular verify "$archive"
cp -r "$archive" copy
start_liar "$archive"
origin=$url
ok 'packs of everything need no profile'

expect 0 circular pull "$url/disk" --no-cache --output whole.img --json
same whole.img disk.img
[ "$(asked blocks)" = 0 ] || fail "$(asked blocks) blocks were fetched apart: $(liar_stats paths)"
[ "$(asked packs)" -le 20 ] || fail "$(asked packs) requests for packs"
all=$(liar_stats bytes)
ok "a pull to a file takes $(liar_stats total) requests"

forget_stats
expect 0 circular pull "$url/disk"
[ "$(asked blocks)" = 0 ] || fail "blocks were fetched apart: $(liar_stats paths)"
forget_stats
expect 0 circular pull "$url/disk"
[ "$(asked blocks) $(asked packs)" = '0 0' ] || fail "asked again: $(liar_stats paths)"
expect 0 circular pull "$url/disk" --offline --output offline.img
same offline.img disk.img
expect 0 circular cache verify
ok 'so does one into the cache, and a second one takes nothing of packs and blocks'

# Some of it is there.
forget_stats
dd if=/dev/urandom of=whole.img bs=1M seek=20 count=9 conv=notrunc status=none
printf x | dd of=whole.img bs=1 seek=700000 conv=notrunc status=none
expect 0 circular pull "$url/disk" --no-cache --output whole.img --force
same whole.img disk.img
[ "$(liar_stats bytes)" -lt $((all / 2)) ] || fail "$(liar_stats bytes) of $all bytes for 9 MiB of 64"
[ "$(asked blocks)" -le 4 ] || fail "$(asked blocks) blocks were fetched apart: $(liar_stats paths)"
forget_stats
find "$XDG_CACHE_HOME/circular/blocks" -name '[0-7]*' -type f -delete
expect 0 circular pull "$url/disk"
[ "$(liar_stats bytes)" -lt $((all * 3 / 4)) ] || fail "$(liar_stats bytes) of $all bytes for half of the blocks"
expect 0 circular cache verify
ok 'what is there is not fetched again'

streams='^/packs/.* bytes=[1-9]'
for behaviour in flip truncate status:404 status:500 no-range wrong-range reset close swap:/catalog.json short; do
    for match in "$streams" '^/packs/'; do
        be_honest
        lie "$match" "$behaviour"
        rm -f harmed.img
        expect 0 circular pull "$url/disk" --no-cache --output harmed.img --patience 20s
        same harmed.img disk.img
    done
done
be_honest
lie "$streams" truncate 2
rm -f harmed.img
forget_stats
expect 0 circular pull "$url/disk" --no-cache --output harmed.img
same harmed.img disk.img
[ "$(asked blocks)" -le 2 ] || fail "a broken stream does not go on: $(asked blocks) blocks were fetched apart"
be_honest
lie "$streams" no-range
rm -f harmed.img
forget_stats
expect 0 circular pull "$url/disk" --no-cache --output harmed.img
same harmed.img disk.img
[ "$(liar_stats bytes)" -lt $((all * 3)) ] || fail "$(liar_stats bytes) bytes from a server that ignores ranges, not $all"
be_honest
ok 'packs that are damaged, lost or cut cost time, and no byte'

# A mirror that lies in packs only.
start_liar "$work/copy"
second=$url
lie "$streams" flip
# Whichever of them is found to be the quicker one, there is a stream that the liar is asked for.
at "$origin" lie "$streams" status:503 1
rm -f harmed.img
expect 0 "$circular" pull "$second/disk" --mirror "$origin" --no-cache --output harmed.img
same harmed.img disk.img
says "mirror $second: packs/.* is damaged there"
says_not "mirror $origin.* is damaged"
says_not 'gave wrong bytes'
be_honest
at "$origin" be_honest
ok 'a mirror that sends wrong bytes in a pack is named, and left for that pack'

# All have the same damage, as after a fault of the publisher's disk.
streamed=$url
lie "$streams" flip
url=$origin
lie "$streams" flip
rm -f harmed.img
expect 0 "$circular" pull "$second/disk" --mirror "$origin" --no-cache --output harmed.img
same harmed.img disk.img
says 'packs/.* is damaged there'
[ -z "$(grep -o 'packs/[0-9a-f]*' err | sort | uniq -d)" ] || fail "a pack is named more than once: $(cat err)"
says_not 'gave wrong bytes'
be_honest
url=$streamed
be_honest
ok 'a pack that is damaged everywhere is named once and left, and the mirrors are used for blocks'

# Hints that lie: an entry for each block there is, in packs that are not there, and sizes that are absurd.
url=$origin
cp "$archive/images/disk/1.hints.json" good.json
python3 - "$archive" <<'END'
import json, os, sys
path = sys.argv[1] + "/images/disk/1.hints.json"
hints = json.load(open(path))
pack = hints["packs"][0]
hints["packs"] = [dict(pack, pack=os.urandom(32).hex()) for _ in range(300)]
hints["packs"] += [dict(pack, size=1 << 60), dict(pack, table_size=1 << 59), dict(pack, table_size=90)]
json.dump(hints, open(path, "w"))
END
rm -f harmed.img
forget_stats
expect 0 circular pull "$url/disk" --no-cache --output harmed.img
same harmed.img disk.img
[ "$(liar_stats bytes)" -lt $((all * 2)) ] || fail "$(liar_stats bytes) bytes along hostile hints, not $all"
python3 - "$archive/images/disk/1.hints.json" good.json <<'END'
import json, sys
hints = json.load(open(sys.argv[2]))
hints["packs"] = hints["packs"] * 1000
json.dump(hints, open(sys.argv[1], "w"))
END
rm -f harmed.img
forget_stats
expect 0 circular pull "$url/disk" --no-cache --output harmed.img
same harmed.img disk.img
[ "$(liar_stats bytes)" -lt $((all + 4000000)) ] || fail "$(liar_stats bytes) bytes of a pack that is named often, not $all"
cp good.json "$archive/images/disk/1.hints.json"
ok 'hostile hints cost bounded traffic'

# 40 MiB at 8 MiB a second.
rm -f harmed.img
forget_stats
from=$(date +%s%N)
expect 0 circular pull "$url/disk" --no-cache --output harmed.img --limit-rate 8M
took_ms=$((($(date +%s%N) - from) / 1000000))
least_ms=$(($(liar_stats bytes) * 4 / (5 * 8389)))
[ "$took_ms" -ge "$least_ms" ] || fail "$(liar_stats bytes) bytes in $took_ms ms are more than 8 MiB a second"
[ "$(asked blocks)" = 0 ] || fail 'it was not streamed'
ok "--limit-rate holds for streams: $took_ms ms, at least $least_ms"

start env --default-signal=INT "$circular" pull "$url/disk" --no-cache --output broken.img --limit-rate 1M
puller=$pid
half_way() { [ "$(stat -c %b broken.img.part)" -gt 8000 ]; }
wait_for 40 half_way
stop "$puller" INT
[ "$status" = 130 ] || fail "status $status, $(cat "$work/log.$puller")"
expect 0 circular pull "$url/disk" --no-cache --output broken.img --json
same broken.img disk.img
[ "$(field present_blocks)" -gt 0 ] || fail "nothing was kept: $(cat out)"
ok 'a stream that is broken off by Ctrl-C goes on where it was'
