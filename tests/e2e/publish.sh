#!/bin/sh
# Publishing: once, again, changed, by several at once, killed, beside readers and gc, out of every kind of image.
# SEED=N repeats a run, CIRCULAR_KILLS=N says how many publishers are killed.
. "$(dirname "$0")/../lib/common.sh"
requires python3
seed
kills=${CIRCULAR_KILLS:-15}
[ -z "${CIRCULAR_LONG:-}" ] || kills=50

make_archive 8
start_server "$archive"

publish() { # IMAGE NAME VERSION [OPTION...]
    publish_image=$1 publish_name=$2 publish_version=$3
    shift 3
    expect 0 "$circular" publish "$publish_image" --name "$publish_name" --version "$publish_version" --key "$key" \
        --to "$archive" "$@"
}

field() { # NAME: of the JSON in out
    python3 -c 'import json, sys; print(json.load(open("out"))[sys.argv[1]])' "$1"
}

image_id() { # IMAGE NAME VERSION [OPTION...]: publish and print the image id
    publish "$@" --json
    field image
}

files() { # ARCHIVE: the blocks and maps in it
    (cd "$1" && find blocks maps -type f | sort)
}

change() { # IMAGE SEED: a few of its blocks
    python3 - "$1" "$2" <<'END'
import os, random, sys
generator = random.Random(int(sys.argv[2]))
size = os.path.getsize(sys.argv[1])
with open(sys.argv[1], "r+b") as image:
    for _ in range(3):
        image.seek(generator.randrange(size // 65536) * 65536)
        image.write(generator.randbytes(65536))
END
}

# The same again.
cp "$archive/catalog.json" before.json
files "$archive" >before
publish disk.img disk 1 --json
[ "$(field new_blocks) $(field was_listed)" = "0 True" ] || fail "the same image again: $(cat out)"
same "$archive/catalog.json" before.json
publish disk.img copy 1 --json
[ "$(field new_blocks) $(field new_bytes)" = "0 0" ] || fail "the same image by another name: $(cat out)"
files "$archive" >after
same before after
ok "an identical image adds nothing"

if command -v minisign >/dev/null; then
    minisign -V -q -p "$pub" -m "$archive/catalog.json" || fail "minisign refuses the catalog"
    minisign -V -q -p "$pub" -m "$archive/images/disk/1.json" || fail "minisign refuses the manifest"
    ok "minisign verifies catalog and manifest"
fi

# An update.
cp --sparse=always disk.img next.img
change next.img 7
publish next.img disk 2 --json
added=$(field new_blocks)
case $added in [123]) ;; *) fail "three changed blocks added $added" ;; esac
[ "$(files "$archive" | grep -c blocks)" = "$(($(grep -c blocks before) + added))" ] || fail "more files than new blocks"
expect 0 "$circular" pull "$url/disk" --output pulled.img
same pulled.img next.img
expect 0 "$circular" pull "$url/disk@1" --output old.img
same old.img disk.img
ok "an update adds only the blocks that are new, and the old version stays"

printf x | dd of=next.img bs=1 seek=70000 conv=notrunc status=none
expect 1 "$circular" publish next.img --name disk --version 2 --key "$key" --to "$archive"
says 'disk@2.*other content'
ok "other content under a published version is refused"

# The words of a key.
mkdir -p "$XDG_CONFIG_HOME/circular"
cp "$key" "$XDG_CONFIG_HOME/circular/mine.sec"
expect 0 "$circular" publish disk.img --name named --version 1 --key mine --to "$archive"
expect 0 "$circular" publish disk.img --name named --version 1 --key mine.sec --to "$archive"
expect 0 "$circular" publish disk.img --name named --version 1 --to "$archive"
rm "$XDG_CONFIG_HOME/circular/mine.sec"
expect 2 "$circular" publish disk.img --name named --version 1 --to "$archive"
says '--key'
make_key other
expect 6 "$circular" publish disk.img --name named --version 2 --key "$work/other.sec" --to "$archive"
ok "a key is found by path and by name; another key is refused"

# Two publishers and a reader.
stop_file=$work/stop
cat >reader.sh <<'END'
while [ ! -e stop ]; do
    "$1" ls "$2" >reader.out 2>reader.err || { cp reader.err reader.failed; exit 1; }
done
END
start sh reader.sh "$circular" "$url"
reader=$pid
publish_some() { # NAME
    cp --sparse=always disk.img "$1.img"
    for version in $(seq 20); do
        change "$1.img" "$((version + $2))"
        "$circular" publish "$1.img" --name "$1" --version "$version" --key "$key" --to "$archive" --quiet || return 1
    done
}
publish_some left 100 &
left=$!
end_at_exit "$left"
publish_some right 200 || fail "the right publisher failed"
wait "$left" || fail "the left publisher failed"
: >"$stop_file"
join "$reader"
[ ! -e reader.failed ] || fail "a reader failed meanwhile: $(cat reader.failed)"
expect 0 "$circular" ls "$url" --json
python3 - <<'END' || fail "versions were lost: $(cat out)"
import json
listed = json.load(open("out"))
text = json.dumps(listed)
for name in "left", "right":
    for version in range(1, 21):
        assert any(v["name"] == name and v["version"] == str(version) for v in listed["versions"]), (name, version)
END
expect 0 "$circular" verify "$archive"
ok "two publishers at a time lose nothing, twenty times, and readers never fail"

# gc beside a publisher.
for version in $(seq 8); do
    change left.img "$((version + 300))"
    start "$circular" publish left.img --name beside --version "$version" --key "$key" --to "$archive"
    publisher=$pid
    expect 0 "$circular" gc "$archive"
    join "$publisher"
    [ "$status" = 0 ] || fail "the publisher failed beside gc: $(cat "$work/log.$publisher")"
done
expect 0 "$circular" verify "$archive"
ok "gc beside a publisher takes nothing of it"

# An unlisted version's blocks go, and nothing else.
expect 0 "$circular" gc --dry-run "$archive"
files "$archive" >before
for version in $(seq 20); do
    expect 0 "$circular" unlist "$archive" "right@$version" --key "$key" --json
    [ "$(field name) $(field version)" = "right $version" ] || fail "$(cat out)"
done
grep -q "\"serial\": *$(field serial)," "$archive/catalog.json" || fail "another serial than the catalog's: $(cat out)"
expect 0 "$circular" gc --dry-run "$archive"
files "$archive" >after
same before after
map=$archive/maps/$(image_id disk.img disk 1).map
cp "$map" saved.map
printf x | dd of="$map" bs=1 seek=1000 conv=notrunc status=none
expect 5 "$circular" gc "$archive"
says 'nothing was removed'
cp saved.map "$map"
files "$archive" >after
same before after
mkdir -p "$archive/blocks/aa" && echo mine >"$archive/blocks/aa/README" && echo mine >"$archive/index.html"
expect 0 "$circular" gc "$archive"
[ "$(files "$archive" | wc -l)" -lt "$(wc -l <before)" ] || fail "gc removed nothing"
for file in index.html blocks/aa/README; do
    [ -e "$archive/$file" ] || fail "gc removed $file, which is not its own"
done
rm "$archive/blocks/aa/README"
[ ! -e "$archive/images/right" ] || fail "manifests of an unlisted image stay"
expect 0 "$circular" verify "$archive"
ok "gc removes what no version needs, with a damaged map nothing, and never what others put there"

# Killed publishers. After that the archive is that of one who was never killed.
rm -rf killed fresh
archive=$work/killed
make_image big.img 24 "$((seed % 1000))"
round=0
while [ "$round" -lt "$kills" ]; do
    round=$((round + 1))
    start "$circular" publish big.img --name big --version 1 --key "$key" --to "$archive"
    publisher=$pid
    random 200
    sleep "$(printf '0.%03d' "$number")"
    stop "$publisher" KILL
    [ "$status" != 0 ] || change big.img "$((seed + round))"
    [ "$status" != 0 ] || [ ! -e "$archive/catalog.json" ] ||
        expect 0 "$circular" unlist "$archive" big@1 --key "$key"
done
[ ! -e "$archive/catalog.json" ] || ! grep -q '"big"' "$archive/catalog.json" ||
    expect 0 "$circular" unlist "$archive" big@1 --key "$key"
publish big.img big 1
expect 0 "$circular" verify "$archive"
expect 0 "$circular" gc "$archive"
expect 0 "$circular" verify "$archive"
files "$archive" >after
[ -z "$(find "$archive" -name '.tmp-*')" ] || fail "temporary files stay"
expect 0 "$circular" publish big.img --name big --version 1 --key "$key" --to "$work/fresh"
files "$work/fresh" >before
same before after
ok "after $kills killed publishers and gc the archive is as if nobody had been killed"
archive=$work/archive

# An image that grows meanwhile.
make_image growing.img 64 3
size=$(stat -c %s growing.img)
sh -c 'while [ -e growing.img ]; do echo more >>growing.img; done' &
writer=$!
end_at_exit "$writer"
has_grown() { [ "$(stat -c %s growing.img)" -gt "$size" ]; }
wait_for 40 has_grown
got=0
"$circular" publish growing.img --name growing --version 1 --key "$key" --to "$archive" >out 2>err || got=$?
rm growing.img
stop "$writer"
[ "$got" = 5 ] || [ "$got" = 1 ] || fail "an image that grows: status $got"
says 'growing.img changed'
! grep -q growing "$archive/catalog.json" || fail "it was published"
ok "an image that changes while it is read is refused"

# Other kinds of images.
if command -v qemu-img >/dev/null && command -v xorriso >/dev/null; then
    raw_id=$(image_id disk.img kinds raw)
    for kind in qcow2 vmdk vdi vpc vhdx; do
        case $kind in vpc) options='-o force_size=on' ;; *) options= ;; esac
        # shellcheck disable=SC2086 # options are words
        qemu-img convert -q -f raw -O "$kind" $options disk.img "disk.$kind"
        [ "$(image_id "disk.$kind" kinds "$kind")" = "$raw_id" ] || fail "$kind: $(cat out err)"
    done
    qemu-img convert -q -f raw -O vpc -o force_size=on,subformat=fixed disk.img fixed.vhd
    [ "$(image_id fixed.vhd kinds fixed)" = "$raw_id" ] || fail "a fixed VHD: $(cat out)"
    qemu-img convert -q -f raw -c -O qcow2 disk.img compressed.qcow2
    [ "$(image_id compressed.qcow2 kinds compressed)" = "$raw_id" ] || fail "a compressed qcow2: $(cat out)"
    [ -z "$(find "$archive" -name '.tmp-*')" ] || fail "temporary files stay"
    ok "qcow2, vmdk, vdi, vhd and vhdx give the image id of the raw disk"

    cp disk.qcow2 raw.img
    publish raw.img kinds asraw --format raw --json
    [ "$(field image)" != "$raw_id" ] || fail "--format raw: $(cat out)"
    [ "$(field format)" = raw ] || fail "--format raw: $(cat out)"
    mkdir tree && echo hello >tree/file
    xorriso -as mkisofs -quiet -o tree.iso tree 2>/dev/null
    publish tree.iso kinds iso --json
    [ "$(field format) $(field disk_size)" = "iso $(stat -c %s tree.iso)" ] || fail "an ISO: $(cat out)"
    ok "--format overrides, and an ISO is taken as it is"

    qemu-img create -q -f qcow2 -b disk.img -F raw overlay.qcow2
    expect 2 "$circular" publish overlay.qcow2 --name kinds --version overlay --key "$key" --to "$archive"
    says '--format qcow2'
    [ "$(image_id overlay.qcow2 kinds overlay --format qcow2)" = "$raw_id" ] || fail "an overlay: $(cat out)"
    qemu-img create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 8M
    expect 2 "$circular" publish flat.vmdk --name kinds --version flat --key "$key" --to "$archive"
    ok "an image that refers to other files is only followed when told so"

    # Converting alone would take what is missing for zeros.
    for kind in qcow2 vmdk vdi vpc vhdx; do
        head -c "$(($(stat -c %s "disk.$kind") / 2))" "disk.$kind" >"broken.$kind"
        got=0
        "$circular" publish "broken.$kind" --name kinds --version broken --key "$key" --to "$archive" >out 2>err || got=$?
        [ "$got" = 5 ] || [ "$got" = 1 ] || fail "a truncated $kind: status $got, $(cat out err)"
        says "broken.$kind"
    done
    ok "a truncated image is refused"

    mkdir nothing
    expect 1 env PATH="$work/nothing" "$circular" publish disk.qcow2 --name kinds --version none --key "$key" \
        --to "$archive"
    says 'qemu-utils'
    ok "without qemu-img the message says what to install"
fi
