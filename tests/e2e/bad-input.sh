#!/bin/sh
# Everything that can be wrong with what comes from the network, the disk and the command line: each has its own exit
# status and a message that says what and where, and no reader ever gets a wrong byte (invariants 1 and 3).
. "$(dirname "$0")/../lib/common.sh"
requires python3 curl minisign zstd
requires_fuse

usage=2 not_found=3 network=4 integrity=5 signature=6 rollback=7 expired=8

make_archive 4
start_liar "$archive"
cp -a "$archive" pristine
origin=$url
start_liar pristine
other=$url
url=$origin

# Begin anew: the archive as published, an honest server, an empty cache, nothing remembered.
renew() {
    be_honest
    rm -rf "$archive" "$XDG_CACHE_HOME" "$XDG_STATE_HOME" pulled.img
    cp -a pristine "$archive"
}

refused() { # STATUS PATTERN WHAT
    expect "$1" "$circular" pull "$url/disk" --patience 3s --output pulled.img
    says "$2"
    [ ! -e pulled.img ] || fail "$3: a refused image was written out"
    ok "$3"
    renew
}

damage() { # FILE: flip one bit in its middle
    python3 - "$1" <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    data = bytearray(file.read())
    data[len(data) // 2] ^= 1
    file.seek(0)
    file.write(data)
END
}

sign() { # FILE KEY-NAME: as the publisher would, by minisign
    minisign -S -W -s "$work/$2.sec" -m "$1" -x "$1.minisig" >/dev/null || fail "minisign refuses our secret key"
}

edit_catalog() { # PYTHON-STATEMENTS on `catalog`, then signed again
    python3 -c "import json
path = '$archive/catalog.json'
catalog = json.load(open(path))
$1
json.dump(catalog, open(path, 'w'))"
    sign "$archive/catalog.json" lab
}

renew

# The catalog.
rm "$archive/catalog.json.minisig"
refused "$signature" 'catalog.*sign|sign.*catalog' "an unsigned catalog"

damage "$archive/catalog.json"
refused "$signature" 'catalog.*sign|sign.*catalog' "a catalog that was changed after it was signed"

make_key other
sign "$archive/catalog.json" other
refused "$signature" 'catalog.*(sign|key)|(sign|key).*catalog' "a catalog signed again by another key"

echo "no signature at all" >"$archive/catalog.json.minisig"
refused "$signature" 'sign' "a signature file that is none"

edit_catalog 'catalog["published"] = "2019-01-01T00:00:00Z"; catalog["expires"] = "2020-01-01T00:00:00Z"'
refused "$expired" 'expired.*2020-01-01|2020-01-01.*expire' "an expired catalog"

expect 0 "$circular" publish disk.img --name disk --version 2 --key "$key" --to "$archive"
expect 0 "$circular" ls "$url"
cp pristine/catalog.json pristine/catalog.json.minisig "$archive/"
expect "$rollback" "$circular" ls "$url"
says 'serial|older|roll'
rm -rf "$XDG_CACHE_HOME"
expect "$rollback" "$circular" ls "$url"
ok "a catalog older than one seen before, also when the cache was deleted"
renew

printf '{"format": "circular-catalog-1' >"$archive/catalog.json"
sign "$archive/catalog.json" lab
refused "$integrity" 'catalog' "a signed catalog that is cut off"

python3 -c "open('$archive/catalog.json', 'w').write('[' * 100000)"
sign "$archive/catalog.json" lab
refused "$integrity" 'catalog' "a signed catalog of a hundred thousand brackets"

edit_catalog 'catalog["versions"][0]["name"] = "../../etc/passwd"'
refused "$integrity" 'catalog|name' "a signed catalog with a name that leaves its folder"

edit_catalog 'catalog["versions"][0]["name"] = "nul\u0000byte"'
refused "$integrity" 'catalog|name' "a signed catalog with NUL in a name"

rm -rf "$archive"
mkdir "$archive"
refused "$not_found" 'catalog' "a folder that is no archive"

# Manifest and map.
damage "$archive/images/disk/1.json"
refused "$integrity" 'images/disk/1\.json|manifest' "a manifest that does not match the catalog"

rm "$archive/images/disk/1.json"
refused "$not_found" 'images/disk/1\.json|manifest' "a manifest that is missing"

map=$(find "$archive/maps" -type f)
python3 - "$map" <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(20)
    byte = file.read(1)
    file.seek(20)
    file.write(bytes([byte[0] ^ 1]))
END
refused "$integrity" 'maps/|map' "a map header that is not the image id's"

python3 - "$map" <<'END'
import os, sys
with open(sys.argv[1], "r+b") as file:
    file.seek(-3000, os.SEEK_END)
    file.write(b"wrong")
END
refused "$integrity" 'maps/|map' "a map page that does not match its parent"

truncate -s 100 "$map"
refused "$integrity" 'maps/|map' "a map that is cut off"

# Blocks. Which one is bad is in the message.
block=$(find "$archive/blocks" -type f | sort | head -n 1)
name=$(basename "$block")

truncate -s 50 "$block"
refused "$integrity" "$name" "a block that is truncated"

damage "$block"
refused "$integrity" "$name" "a block with a flipped bit"

: >"$block"
refused "$integrity" "$name" "a block of no bytes"

head -c 67108864 /dev/zero | zstd -q -f -o "$block"
refused "$integrity" "$name" "a block of 64 MiB when decompressed"

head -c 67108864 /dev/zero | zstd -q -f --no-content-size -o "$block"
refused "$integrity" "$name" "a block that does not say its size"

cp "$(find "$archive/blocks" -type f | sort | tail -n 1)" "$block"
refused "$integrity" "$name" "a block with another block's content"

rm "$block"
refused "$not_found" "$name" "a block that is missing"

# The same through a mount: that read fails, the others do not, and the mount lives on.
damage "$block"
start_mount "$url/disk" mnt --patience 3s
cat mnt/disk >read.img 2>read.err && fail "a damaged block was read"
grep -q 'Input/output error' read.err || fail "the reader got: $(cat read.err)"
cmp -n "$(stat -c %s read.img)" read.img disk.img || fail "wrong bytes before the error"
dd if=mnt/disk of=last.img bs=65536 skip=63 status=none || fail "the other blocks cannot be read"
grep -q "$name" "$work/log.$mount" || fail "the log does not name the block: $(cat "$work/log.$mount")"
cp "pristine/blocks/${name%"${name#??}"}/$name" "$block"
same mnt/disk disk.img
stop_mount mnt
ok "a damaged block is an I/O error for its readers only, until it is whole again"
renew

# A damaged cache heals.
expect 0 "$circular" pull "$url/disk"
for file in $(find "$XDG_CACHE_HOME" -path '*/blocks/*' -type f | sort | head -n 9); do
    damage "$file"
done
truncate -s 10 "$file"
start_mount "$url/disk" mnt
same mnt/disk disk.img
stop_mount mnt
expect 0 "$circular" cache verify
ok "damaged files in the cache are fetched again"
renew

# The server.
lie '^/blocks/' status:500
refused "$network" '500' "a server that answers 500"

lie '^/blocks/' status:503
refused "$network" '503' "a server that answers 503"

lie '^/catalog' status:403
refused "$network" '403' "a server that answers 403"

lie '^/blocks/' hang
start=$(date +%s)
refused "$network" 'blocks/|no progress|time|answer' "a server that says nothing more"
[ $(($(date +%s) - start)) -lt 30 ] || fail "3 s of patience took $(($(date +%s) - start)) s"

lie '^/blocks/' stall
refused "$network" 'blocks/|no progress|time|answer' "a server that stalls in the middle of a block"

lie '^/blocks/' endless
refused "$integrity" "blocks/|large|long" "a server that never stops sending"

lie '^/catalog.json' endless
refused "$integrity" "catalog" "a catalog without end"

lie '^/' garbage
refused "$network" 'HTTP|127\.0\.0\.1' "a server that does not speak HTTP"

lie '^/' redirect:loop
refused "$network" 'redirect' "redirects without end"

for behaviour in truncate close reset; do
    lie '^/blocks/' "$behaviour" 3
    expect 0 "$circular" pull "$url/disk" --output pulled.img
    same pulled.img disk.img
    renew
done
ok "answers that are cut off cost only time"

for behaviour in short flip swap:/catalog.json; do
    lie '^/(blocks|maps)/' "$behaviour"
    # Whichever of them is found to be the quicker one, there is a block that the liar is asked for.
    at "$other" be_honest
    at "$other" lie '^/blocks/.* -$' status:503 1
    expect 0 "$circular" pull "$url/disk" --mirror "$other" --output pulled.img
    same pulled.img disk.img
    says "mirror $url .*(aside|not used any more|asked last)"
    renew
done
ok "a mirror that lies is named and set aside, the next one serves"

# A network that wants a login answers everything with a page of its own.
login='<!DOCTYPE html><html><title>Welcome to our network</title></html>'
echo "$login" >"$archive/login"
lie '^/' swap:/login
refused "$network" 'catalog.json.*web page' "a web page in place of everything"
gzip -c pristine/catalog.json >"$archive/gz"
lie '^/catalog.json$' swap:/gz
refused "$network" 'catalog.json.*gzip' "a catalog that its server compresses unasked"
expect 0 "$circular" pull "$url/disk"
echo "$login" >"$archive/login"
lie '^/' swap:/login
expect 0 "$circular" pull "$url/disk" --patience 3s --output pulled.img
same pulled.img disk.img
says 'using the catalog.*from the cache.*web page'
renew
echo "$login" >"$archive/login"
lie '^/' swap:/login
expect 0 "$circular" pull "$url/disk" --mirror "$other" --output pulled.img
same pulled.img disk.img
says_not 'gave wrong bytes'
renew
echo "$login" >"$archive/login"
start_mount "$url/disk" mnt --patience 120s
lie '^/' swap:/login
forget_stats
start cat mnt/disk
reader=$pid
turned_away() { [ "$(liar_stats classes blocks)" -gt 2 ]; }
wait_for 40 turned_away
be_honest
join "$reader"
[ "$status" = 0 ] || fail "the reader got an error: $(tail -c 300 "$work/log.$reader")"
same "$work/log.$reader" disk.img
stop_mount mnt
grep -q 'gave wrong bytes' "$work/log.$mount" && fail "a page was taken for a lie: $(cat "$work/log.$mount")"
ok "a network that wants a login: what is cached is read, others are asked, readers wait"
renew

lie '^/' no-range
expect 0 "$circular" pull "$url/disk" --output pulled.img
same pulled.img disk.img
renew
for behaviour in wrong-range oversize chunked; do
    lie '^/maps/' "$behaviour"
    expect 0 "$circular" pull "$url/disk" --mirror "$work/pristine" --output pulled.img
    same pulled.img disk.img
    renew
done
ok "servers that ignore ranges or answer with others"

# One block is cached, then the server falls silent: who reads that block is served, who reads another one waits.
start_mount "$url/disk" mnt --patience 120s
dd if=mnt/disk of=/dev/null bs=4096 count=1 status=none
forget_stats
lie '^/' hang
last=$(python3 -c 'data = open("disk.img", "rb").read()
blocks = [data[place:place + 65536] for place in range(0, len(data), 65536)]
print(16 * max(number for number, block in enumerate(blocks) if any(block) and blocks.count(block) == 1))')
start dd if=mnt/disk of=waited.img bs=4096 skip="$last" count=1 status=none
reader=$pid
is_asked() { [ "$(liar_stats total)" -gt 0 ]; }
wait_for 40 is_asked
for _ in 1 2 3 4 5; do
    timeout 20 dd if=mnt/disk of=cached.img bs=4096 count=1 iflag=direct status=none || fail "a cached block had to wait"
    cmp -n 4096 cached.img disk.img || fail "wrong bytes"
done
ended "$reader" && fail "the other reader did not wait"
be_honest
wait_for 30 ended "$reader"
cmp -n 4096 waited.img disk.img 0 $((last * 4096)) || fail "wrong bytes after the wait"
stop_mount mnt
ok "a silent server does not hold up what is cached"
renew

expect "$network" "$circular" ls "http://$nobody" --patience 2s
says "$nobody"
ok "nobody listens"
expect "$network" "$circular" ls "http://no-such-host.invalid/" --patience 2s
says "no-such-host.invalid"
ok "a host that does not exist"

# The command line.
long=$(printf 'a%.0s' $(seq 300))
for name in .. . ../x a/b /abs .hidden "$long" 'with space' "$(printf 'tab\tname')" ''; do
    expect "$usage" "$circular" publish disk.img --name "$name" --version 9 --key "$key" --to "$archive"
    says 'name'
    expect "$usage" "$circular" publish disk.img --name disk --version "$name" --key "$key" --to "$archive"
    says 'version'
done
diff -r pristine "$archive" >/dev/null || fail "a refused publication changed the archive"
ok "names and versions with .., /, spaces, control characters or 300 characters"

expect "$not_found" "$circular" info "$url/nothing"
says 'nothing'
expect "$not_found" "$circular" info "$url/disk@77"
says '77'
ok "an image and a version that do not exist"
for place in "$url/.." "$url/../etc" "$url/disk@.." "$url/$long"; do
    got=0
    "$circular" info "$place" >out 2>err || got=$?
    case $got in
    "$usage" | "$not_found") ;;
    *) fail "$place: exit status $got" ;;
    esac
done
ok "locations that are no image's"

expect "$usage" "$circular" publish disk.img --name disk --version 1 --key "$key" --to "$archive" --block-size 12345
cp disk.img changed.img
printf x | dd of=changed.img conv=notrunc status=none
got=0
"$circular" publish changed.img --name disk --version 1 --key "$key" --to "$archive" >out 2>err || got=$?
[ "$got" != 0 ] || fail "a version was replaced"
says 'disk.*1|1.*exist'
ok "a version that exists already is not replaced"
renew

# An image that changes while it is published, from before the publisher opens it until it has ended.
make_image big.img 96 4
python3 - big.img <<'END' &
import os, sys, time
file = os.open(sys.argv[1], os.O_WRONLY)
count = 0
while os.path.exists(sys.argv[1]):
    os.pwrite(file, os.urandom(100), (count * 7919 * 4096) % (96 << 20))
    count += 1
    open("writing", "w").close()
    time.sleep(0.001)
END
writer=$!
end_at_exit "$writer"
wait_for 60 [ -e writing ]
got=0
"$circular" publish big.img --name big --version 1 --key "$key" --to "$archive" >out 2>err || got=$?
rm big.img
stop "$writer"
[ "$got" = "$integrity" ] || fail "publishing a changing image ended with status $got"
says 'changed'
expect 0 "$circular" ls "$url"
says_not '^big'
ok "an image that changes while it is published"
renew

expect "$not_found" "$circular" publish no-such.img --name a --version 1 --key "$key" --to "$archive"
says 'no-such.img'
expect "$not_found" "$circular" publish disk.img --name a --version 1 --key no-such.sec --to "$archive"
says 'no-such.sec'
ok "an image and a key that do not exist"

mkfifo pipe
expect "$usage" timeout 20 "$circular" publish pipe --name a --version 1 --key "$key" --to "$archive"
says 'pipe is neither a regular file nor a block device'
ok "a pipe in place of an image is not waited for"

# What readers would refuse is not signed.
for text in "$(printf 'tab\there')" "$(printf 'not UTF-8: \377')"; do
    expect "$usage" "$circular" publish disk.img --name a --version 1 --key "$key" --to "$archive" --description "$text"
    says 'the description: .*(control character|UTF-8)'
    expect "$usage" "$circular" publish disk.img --name a --version 1 --key "$key" --to "$archive" --architecture "$text"
    says 'the architecture: .*(control character|UTF-8)'
done
expect 0 "$circular" verify "$archive"
expect 0 "$circular" publish disk.img --name a --version 1 --key "$key" --to "$archive" --expires 1ms
python3 - "$archive/catalog.json" <<'END'
import datetime, json, sys
catalog = json.load(open(sys.argv[1]))
times = [datetime.datetime.fromisoformat(catalog[name][:-1]) for name in ("published", "expires")]
assert (times[1] - times[0]).total_seconds() == 1, times
END
ok "texts that no reader takes are refused when they are published; a short expiry is not a long one"
renew

# Mount points.
mkdir full
echo here >full/file
got=0
timeout 20 "$circular" mount -f "$url/disk" full >out 2>err || got=$?
[ "$got" = "$usage" ] || [ "$got" = 1 ] || fail "mounting on a full folder ended with status $got"
says 'full.*(empty|busy)'
ok "a mount point that is not empty"
got=0
timeout 20 "$circular" mount -f "$url/disk" full/file >out 2>err || got=$?
[ "$got" != 0 ] || fail "mounted on a file"
says 'full/file'
got=0
timeout 20 "$circular" mount -f "$url/disk" missing >out 2>err || got=$?
[ "$got" != 0 ] || fail "mounted on nothing"
says 'missing'
ok "a mount point that is a file, or missing"
start_mount "$url/disk" mnt
got=0
timeout 20 "$circular" mount -f "$url/disk" mnt >out 2>err || got=$?
case $got in 0 | 124) fail "mounted twice: $got" ;; esac
says 'mnt'
stop_mount mnt
ok "a mount point that is busy"

# A home that cannot be written to: /proc is, whoever one is.
elsewhere() {
    XDG_CACHE_HOME=/proc/none XDG_STATE_HOME=/proc/none "$@"
}
expect 0 elsewhere "$circular" pull "$url/disk" --output pulled.img
says 'warning: .*cannot be remembered'
says 'warning: cache: reading goes on without it'
same pulled.img disk.img
expect 1 elsewhere "$circular" pull "$url/disk"
says 'no cache to pull into'
expect "$not_found" elsewhere "$circular" ls "$url" --offline
expect "$not_found" "$circular" ls "$url" --cache /proc/none
ok "a home that cannot be written to costs the cache, not the disk; a cache that was asked for is needed"
renew

# Full disks need a disk of their own.
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=1m none small 2>/dev/null; then
    at_exit umount -l "$work/small"
    expect 1 "$circular" publish disk.img --name disk --version 1 --key "$key" --to small/archive
    says 'space'
    rm -rf small/*
    mkdir small/archive
    head -c 100000 disk.img >tiny.img
    expect 0 "$circular" publish tiny.img --name tiny --version 1 --key "$key" --to small/archive
    expect 1 "$circular" publish disk.img --name disk --version 1 --key "$key" --to small/archive
    says 'space'
    expect 0 "$circular" verify small/archive
    ok "an archive on a full disk: nothing half-published"
    rm -rf small/*
    start_mount "$url/disk" mnt --cache "$work/small/cache"
    same mnt/disk disk.img
    stop_mount mnt # what is written behind the readers is tried until then
    [ "$(grep -c 'cannot write' "$work/log.$mount")" = 1 ] || fail "warnings: $(cat "$work/log.$mount")"
    ok "a cache on a full disk: reading goes on, with one warning"
fi
