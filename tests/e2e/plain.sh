#!/bin/sh
# Any ISO or raw disk by its plain URL: read by ranges when it is read, kept for the next time, of one file and never of
# two, and with --sha256 checked before anybody sees a byte of it.
. "$(dirname "$0")/../lib/common.sh"
. "$top/tests/lib/servers.sh"
requires nginx curl
requires_fuse

serve_files() {
    start_nginx '$request' <<END
    server {
        listen 127.0.0.1:$port;
        root $work/www;
        location /unable/ { alias $work/www/; max_ranges 0; }
        location /unknown/ { alias $work/www/; ssi on; ssi_types *; }
        location /moved/ { rewrite ^/moved/(.*) /\$1 redirect; }
    }
END
}

requests() { # how many there were so far
    asked ''
}

digest_of() {
    sha256sum "$1" | cut -d' ' -f1
}

part_of() { # FILE OFFSET BYTES
    dd if="$1" iflag=skip_bytes,count_bytes skip="$2" count="$3" bs=64K 2>/dev/null
}

mkdir www
make_image www/a.iso 12 1
size=$(stat -c %s www/a.iso)
sum=$(digest_of www/a.iso)
free_port port
serve_files
url=http://127.0.0.1:$port

start_mount "$url/a.iso" mnt
grep -q "not verified: $url/a.iso is a plain file that nobody has signed" "log.$mount" || fail "it does not say so"
[ "$(stat -c %s mnt/a.iso)" = "$size" ] || fail "wrong size"
before=$(requests)
part_of www/a.iso 5000000 4096 >part
part_of mnt/a.iso 5000000 4096 | cmp - part
[ $(($(requests) - before)) -le 3 ] || fail "$(($(requests) - before)) requests for one page"
ok "a page of an ISO by URL is there after a request or two, and nobody is told that it is verified"

same mnt/a.iso www/a.iso
stop_mount mnt
before=$(requests)
start_mount "$url/a.iso" mnt
same mnt/a.iso www/a.iso
stop_mount mnt
[ $(($(requests) - before)) = 1 ] || fail "$(($(requests) - before)) requests of the second time, not one"
ok "the second time nothing is fetched: one request asks whether it is still the same"

start_mount "$url/a.iso" mnt --no-cache
same mnt/a.iso www/a.iso
stop_mount mnt
start_mount "$url/moved/a.iso" mnt --no-cache
same mnt/a.iso www/a.iso
stop_mount mnt
[ "$(asked 'GET /moved/')" = 1 ] || fail "redirected again and again"
ok "without a cache, and where a redirect leads, the same bytes"

stop "$server"
start_mount "$url/a.iso" mnt
same mnt/a.iso www/a.iso
stop_mount mnt
start_mount "$url/a.iso" mnt --offline
same mnt/a.iso www/a.iso
stop_mount mnt
expect 4 circular mount "$url/other.iso" mnt
says 'connection refused'
ok "what is kept can be read without the server"

serve_files
circular cache prune --max-size 0
start_mount "$url/a.iso" mnt --patience 30s -v
part_of mnt/a.iso 0 65536 >/dev/null
stop "$server"
start sha256sum mnt/a.iso
reader=$pid
wait_for 30 grep -q 'asked again later' "log.$mount"
serve_files
wait_for 30 ended "$reader"
grep -q "^$sum" "log.$reader" || fail "the reader got $(cat "log.$reader")"
stop_mount mnt
ok "a server that is restarted is waited for"

told() { # EXPRESSION of the statistics s, which must hold
    circular stats --json mnt | python3 -c "import json, sys
s = json.load(sys.stdin)
s['server'], = s['mirrors']
sys.exit(0 if $1 else str(s))"
}
as_asked() {
    told "s['server']['requests'] == $(requests) == sum(c['requests'] for c in s['classes'])"
}
circular cache prune --max-size 0
forget_asked
start_mount "$url/a.iso" mnt --patience 30s
same mnt/a.iso www/a.iso
wait_for 30 as_asked
told "0 < s['misses'] == sum(s['waits']) and s['wait_us'] > 0 and s['cache_hits'] == 0"
told "s['fetched_bytes'] == $size and s['server']['bytes'] >= $size and s['read_bytes'] >= $size and s['reads'] > 0"
told "s['server']['mirror'] == '$url/a.iso' and s['server']['state'] == 'in use' and s['server']['errors'] == 0"
stop_mount mnt
start_mount "$url/a.iso" mnt
same mnt/a.iso www/a.iso
told "s['misses'] == 0 and s['cache_hits'] > 0 and s['fetched_blocks'] == 0"
stop_mount mnt
circular cache prune --max-size 0
start_mount "$url/a.iso" mnt --patience 60s
stop "$server"
start dd if=mnt/a.iso of=/dev/null bs=4096 count=1 skip=2000 iflag=direct
reader=$pid
wait_for 40 told "s['waiting'] and s['server']['state'] == 'unreachable' and s['server']['errors'] > 0"
expect 0 circular stats mnt
says "^waiting   [0-9].* for bytes 8126464-8257535 from $url/a.iso: .*refused"
serve_files
wait_for 30 ended "$reader"
wait_for 30 told "not s['waiting'] and s['server']['state'] == 'in use'"
expect 0 circular stats --prometheus mnt
says "^circular_mirror_up.mirror=\"$url/a.iso\". 1\$"
stop_mount mnt
ok "statistics of a plain file: requests as the server has seen them, hits, waits, and who waits for what"

circular cache prune --max-size 0
start_mount "$url/a.iso" mnt
part_of mnt/a.iso 0 1048576 >old
cp www/a.iso a.old
make_image new.iso 12 2
touch -d '2001-01-01' new.iso
mv new.iso www/a.iso
! part_of mnt/a.iso 9000000 4096 >part 2>/dev/null || [ ! -s part ] || fail "bytes of another file"
grep -q 'has changed on the server since it was opened' "log.$mount" || fail "nobody is told that it changed"
part_of mnt/a.iso 0 1048576 | cmp - old
stop_mount mnt
start_mount "$url/a.iso" mnt
same mnt/a.iso www/a.iso
stop_mount mnt
mv a.old www/a.iso
ok "a file that changes under a mount is an error; never bytes of two files; a new mount has the new one"

sum=$(digest_of www/a.iso)
circular cache prune --max-size 0
for place in unable unknown; do
    start_mount "$url/$place/a.iso" mnt
    grep -q 'gives no ranges: the whole is fetched first' "log.$mount" || fail "$place: does not say that all is fetched"
    same mnt/a.iso www/a.iso
    stop_mount mnt
done
expect 1 circular mount "$url/unable/a.iso" mnt --no-cache
says 'no ranges.*no cache'
ok "of a server without ranges, or even without a length, the whole is fetched first"

expect 5 circular mount --sha256 "$(printf %064d 0)" "$url/a.iso" mnt
says "its SHA-256 is $sum"
! mountpoint -q mnt || fail "mounted what is wrong"
start_mount "$url/a.iso" mnt --sha256 "$sum"
grep -q 'has the SHA-256 that was asked for' "log.$mount"
! grep -q 'not verified' "log.$mount" || fail "it was verified"
same mnt/a.iso www/a.iso
stop_mount mnt
start_mount "$url/a.iso" mnt --sha256 "$sum" --no-cache
same mnt/a.iso www/a.iso
stop_mount mnt
expect 2 circular mount --sha256 1234 "$url/a.iso" mnt
ok "--sha256: the right digest is mounted, a wrong one never"

find cache/circular/plain -name data | while read -r data; do
    printf X | dd of="$data" bs=1 seek=300000 conv=notrunc 2>/dev/null
done
expect 5 circular cache verify
says 'a.iso at 262144: damaged'
start_mount "$url/a.iso" mnt
same mnt/a.iso www/a.iso
stop_mount mnt
start_mount "$url/a.iso" mnt --sha256 "$sum"
same mnt/a.iso www/a.iso
stop_mount mnt
expect 0 circular cache verify --repair
expect 0 circular cache info
says 'plain .*files by URL'
ok "a damaged cache is noticed and mended"

cp www/a.iso checked.iso
start_mount "$work/checked.iso" mnt --sha256 "$sum"
same mnt/checked.iso www/a.iso
printf X | dd of=checked.iso bs=1 seek=11000000 conv=notrunc 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || :
stop_mount mnt
start_mount "$work/checked.iso" mnt --sha256 "$(digest_of checked.iso)"
printf Y | dd of=checked.iso bs=1 seek=11000000 conv=notrunc 2>/dev/null
! part_of mnt/checked.iso 10990000 65536 >part 2>/dev/null || [ ! -s part ] || fail "bytes that were not checked"
stop_mount mnt
ok "a local file that was checked and changes afterwards is not given"

truncate -s 5G www/large.raw
printf 'the end' | dd of=www/large.raw bs=1 seek=5368709113 conv=notrunc 2>/dev/null
start_mount "$url/large.raw" mnt
[ "$(stat -c %s mnt/large.raw)" = 5368709120 ] || fail "a wrong size over 4 GiB"
[ "$(tail -c 7 mnt/large.raw)" = "the end" ] || fail "wrong bytes behind 4 GiB"
stop_mount mnt
printf 'QFI\373' | cat - www/a.iso >www/q.img
expect 1 circular mount "$url/q.img" mnt
says 'is a qcow2 disk'
: >www/empty.iso
expect 2 circular mount "$url/empty.iso" mnt
says 'is empty'
expect 3 circular mount "$url/nobody.iso" mnt
ok "over 4 GiB; what is no raw disk, empty or not there is refused"

start_liar www
circular cache prune --max-size 0
echo '<!DOCTYPE html><html>Welcome to our network</html>' >www/login
lie '^/a.iso' swap:/login
expect 4 circular mount "$url/a.iso" mnt
says 'a.iso: a web page'
be_honest
lie '^/a.iso bytes=[1-9]' truncate 3
lie '^/a.iso bytes=[1-9]' wrong-range 2
lie '^/a.iso bytes=[1-9]' status:503 2
start_mount "$url/a.iso" mnt
same mnt/a.iso www/a.iso
stop_mount mnt
ok "answers that are cut off, wrong or refused are asked for again"

if ! command -v xorriso >/dev/null || ! command -v qemu-system-x86_64 >/dev/null; then
    echo "# without xorriso and QEMU no ISO is booted" >&3
    exit 0
fi
# A boot sector that writes a line to the first serial port and resets.
mkdir tree
printf '\372\061\300\216\330\276\032\174\272\370\003\254\204\300\164\003\356\353\370\260\376\346\144\364\353\375' >tree/boot
printf 'booted by URL\r\n\000' >>tree/boot
truncate -s 2048 tree/boot
head -c 20M /dev/urandom >tree/ballast
xorriso -as mkisofs -quiet -o www/boot.iso -b boot -no-emul-boot -boot-load-size 4 tree 2>/dev/null
forget_stats
expect 0 timeout 120 "$circular" boot --accel tcg --memory 64M "$url/boot.iso"
says 'booted by URL'
says 'not verified'
[ "$(liar_stats bytes)" -lt 3000000 ] || fail "$(liar_stats bytes) bytes for one boot sector"
expect 0 timeout 120 "$circular" boot --accel tcg --memory 64M --sha256 "$(digest_of www/boot.iso)" "$url/boot.iso"
says 'booted by URL'
says_not 'not verified'
expect 0 timeout 120 "$circular" boot --accel tcg --memory 64M www/boot.iso
says 'booted by URL'
expect 5 timeout 120 "$circular" boot --accel tcg --memory 64M --sha256 "$sum" "$url/boot.iso"
says_not 'booted by URL'
ok "an ISO boots by URL, by path, and with the right digest only"

truncate -s 1M disk.raw
make_key lab
circular publish disk.raw --name disk --version 1 --key lab.sec --to www/os
trust_key lab
cp www/boot.iso www/cdrom
for iso in "$url/boot.iso" "$url/cdrom" "file://$work/www/boot.iso" www/boot.iso; do
    expect 0 timeout 120 "$circular" boot --accel tcg --memory 64M --iso "$iso" "$url/os/disk"
    says 'booted by URL'
done
expect 1 timeout 20 "$circular" boot --accel tcg --memory 64M --iso "$url/os/catalog.json" "$url/os/disk"
says 'is no CD-ROM image'
expect 3 timeout 20 "$circular" boot --accel tcg --memory 64M --iso "$url/none.iso" "$url/os/disk"
says 'none.iso'
expect 4 timeout 20 "$circular" boot --accel tcg --memory 64M --iso "http://$nobody/x.iso" "$url/os/disk"
expect 1 timeout 20 "$circular" vm start m --accel tcg "$url/boot.iso"
says 'is made from a published disk'
log=$XDG_STATE_HOME/circular/machines/m/serial.log
end_machine() { circular vm stop --force m >/dev/null 2>&1 || :; }
at_exit end_machine
expect 0 timeout 60 "$circular" vm start m --accel tcg --memory 64M --iso "$url/boot.iso" "$url/os/disk"
wait_for 60 grep -aq 'booted by URL' "$log"
end_machine
: >"$log"
expect 0 timeout 60 "$circular" vm start m
wait_for 60 grep -aq 'booted by URL' "$log"
end_machine
no_mount() { ! grep -q "$work" /proc/self/mountinfo; }
wait_for 30 no_mount
ok "a machine boots from an ISO by URL with a disk beside it, each time that it starts"
