#!/bin/sh
# A reader that was written from the manual pages of section 5, and shares no code with the program, gets the same
# disk out of what the program publishes, and refuses what was tampered with.
. "$(dirname "$0")/../lib/common.sh"
requires python3 zstd

read_disk() {
    python3 "$top/tests/e2e/independent_reader.py" "$@"
}

make_archive 24
read_disk "$archive" disk "$pub" copy
same disk.img copy
ok "the disk is read from the folder"

start_server "$archive"
read_disk "$url" disk@1 "$pub" copy
same disk.img copy
ok "the disk is read over HTTP"

# Odd sizes, other blocks, levels and holes; an update with a block changed.
cp disk.img odd.img
truncate -s 12345678 odd.img
circular publish odd.img --name odd --version 1 --block-size 4K --level 19 --key "$key" --to "$archive"
printf changed | dd of=odd.img bs=1 seek=5000000 conv=notrunc
circular publish odd.img --name odd --version 2 --block-size 4K --level 1 --key "$key" --to "$archive"
read_disk "$archive" odd "$pub" copy
same odd.img copy
truncate -s 3G large.img
printf data | dd of=large.img bs=1 seek=3000000000 conv=notrunc
circular publish large.img --name large --version 1 --block-size 1M --key "$key" --to "$archive"
read_disk "$url" large "$pub" copy
cmp large.img copy
ok "odd sizes, all block sizes and levels, updates and holes"

read_disk "$archive" disk "$pub" copy
same disk.img copy
ok "the first image is still there"

make_key other
expect 1 read_disk "$archive" disk other.pub copy
says "refused: no signature by the trusted key"
sed 's/"serial": /"serial": 1/' "$archive/catalog.json" >catalog
cp -r "$archive" bad
cp catalog bad/catalog.json
expect 1 read_disk bad disk "$pub" copy
says "refused: no signature"
cp "$archive/catalog.json" bad/
block=$(find bad/blocks -type f -size +64k | head -n 1) # noise, so only disk@1 has blocks of this size
printf damage | dd of="$block" bs=1 seek=900 conv=notrunc
expect 1 read_disk bad disk "$pub" copy
says "refused: a (block does not match|damaged frame)"
ok "it refuses another key, a changed catalog and a damaged block"
