#!/bin/sh
# A machine with a CD-ROM by URL: the process that serves it is killed, its guest's reads fail, and `circular vm start`
# gives it the same disc again, which it reads on; another file at that address is refused. `circular boot` gives it to
# its machine by itself.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires qemu-system-x86_64 qemu-img python3 busybox debugfs cpio xorriso
[ -f "${CIRCULAR_DEBIAN_DISK:-}" ] || skip "no Debian disk to take a kernel from"
. "$top/tests/lib/machines.sh"

# Reads the whole disc, a piece a moment, each until it has it; then says what it has read.
cat >init <<'END'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t devtmpfs none /dev
for module in $($b cat /modules/order); do $b insmod "/modules/$module"; done
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/sr0 ] && break; $b sleep 1; done
count=$(($($b blockdev --getsize64 /dev/sr0) / 65536))
at=0
while [ $at -lt $count ]; do
    # A read that fails on its way has brought what came before, and dd takes that for a piece.
    until $b dd if=/dev/sr0 bs=65536 skip=$at count=1 2>/dev/null >/piece &&
        [ "$($b stat -c %s /piece)" = 65536 ]; do
        echo "no piece $at ($($b stat -c %s /piece))"
        $b sleep 1
    done
    $b cat /piece >>/read
    at=$((at + 1))
    echo "piece $at"
    [ $((at % 20)) != 0 ] || $b sleep 1
done
echo "digest $($b sha256sum </read | $b cut -d' ' -f1)"
$b sleep 1000
END
more_modules="ahci sr_mod"
small_linux
mkdir -p content www
make_image content/data 12
xorriso -as mkisofs -quiet -R -o www/disc.iso content 2>/dev/null
truncate -s %64K www/disc.iso
digest=$(sha256sum <www/disc.iso | cut -d' ' -f1)
truncate -s 16M disk.img
make_key lab
circular publish disk.img --name disk --version 1 --key lab.sec --to www/os
trust_key lab
start_server www

# The process that serves the file NAME holds the lock of its mount.
server_of() { # NAME
    folder=$(dirname "$(dirname "$(ls -d "$XDG_RUNTIME_DIR"/circular/disks/*/mnt/"$1")")")
    for process in $(server_of_disk); do
        ! find "/proc/$process/fd" -lname "$folder/users" | grep -q . || echo "$process"
    done
}

expect 0 circular vm start m "$url/os/disk" --iso "$url/disc.iso" --memory 256M --accel tcg --prefetch none -- \
    -kernel "$work/vmlinuz" -initrd "$work/initrd.gz" -append 'console=ttyS0 quiet panic=-1'
served_by=$(server_of disc.iso)
wait_for 200 said m '^piece 20'
kill -KILL "$served_by"
wait_for 60 said m '^no piece'
expect 0 circular vm start m --prefetch none
says 'has its CD-ROM again'
says_not 'disk again'
wait_for 200 said m '^piece 40'
nodes=$(ask m query-named-block-nodes | tr , '\n' | grep -c node-name)
# Both go, and one of them cannot be had: it is given the other at once.
mv www/disc.iso .
for name in disk disc.iso; do kill -KILL "$(server_of $name)"; done
ask m stop
expect 3 circular vm start m --prefetch none
says 'has its disk again'
mv disc.iso www
expect 0 circular vm start m --prefetch none
says 'has its CD-ROM again'
says_not 'disk again'
[ "$(ask m query-named-block-nodes | tr , '\n' | grep -c node-name)" = "$nodes" ] || fail 'it keeps what has gone'
is_state m paused || fail 'it goes on, and was paused by somebody'
ask m cont
wait_for 200 said m '^digest'
[ "$(tr -d '\r' <"$machines/m/serial.log" | sed -n 's/^digest //p')" = "$digest" ] || fail 'it has read something else'
expect 1 circular vm start m
says 'running already'
ok 'processes that serve the CD-ROM and the disk are killed: the machine is given them again, and reads on'

kill -KILL "$(server_of disc.iso)"
printf 'another' | dd of=www/disc.iso bs=64K seek=50 conv=notrunc status=none
touch -d '1 hour ago' www/disc.iso
expect 5 circular vm start m
says 'is not the file any more'
circular vm stop -f m
: >"$machines/m/serial.log"
expect 0 circular vm start m --prefetch none
wait_for 200 said m '^piece 20'
circular vm stop -f m
wait_for 30 no_mount
ok 'another file at that address is refused while the machine runs, and taken when it starts again'

# With a disk beside it, and as the machine's own.
hour=1
for words in "$url/os/disk --iso $url/disc.iso" "$url/disc.iso"; do
    # shellcheck disable=SC2086
    start "$circular" boot $words --memory 256M --accel tcg --prefetch none -- \
        -kernel "$work/vmlinuz" -initrd "$work/initrd.gz" -append 'console=ttyS0 quiet panic=-1'
    boot=$pid
    wait_for 200 grep -aq '^piece 20' "$work/log.$boot"
    kill -KILL "$(server_of disc.iso)"
    wait_for 60 grep -q 'the process that served the CD-ROM has ended; another one' "$work/log.$boot"
    wait_for 200 grep -aq '^digest' "$work/log.$boot"
    [ "$(tr -d '\r' <"$work/log.$boot" | sed -n 's/^digest //p')" = "$(sha256sum <www/disc.iso | cut -d' ' -f1)" ] ||
        fail 'it has read something else'
    printf 'again another' | dd of=www/disc.iso bs=64K seek=50 conv=notrunc status=none
    touch -d "$((hour += 1)) hours ago" www/disc.iso
    left=$(ls -d "$XDG_RUNTIME_DIR"/circular/disks/*/mnt/disc.iso)
    kill -KILL "$(server_of disc.iso)"
    wait_for 60 grep -q 'the machine is not given it again' "$work/log.$boot"
    [ "$(grep -c 'is not the file any more' "$work/log.$boot")" = 1 ] || fail "it is said otherwise than once why"
    ! ended "$boot" || fail 'the machine has ended'
    stop "$boot"
    fusermount3 -uzq "${left%/disc.iso}" # which the next boot would do
    wait_for 30 no_mount
done
ok 'circular boot gives its machine the CD-ROM again by itself, and gives up when there is another file'
