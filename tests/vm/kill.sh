#!/bin/sh
# QEMU, the server of its disk and whatever else there is are killed with -9 at random moments while a guest writes to
# its ext4: each time the overlay is sound, the guest's file system replays its journal and mounts, and every file that
# was said to be on disk is there and whole.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires qemu-system-x86_64 qemu-img python3 busybox debugfs cpio mke2fs
[ -f "${CIRCULAR_DEBIAN_DISK:-}" ] || skip "no Debian disk to take a kernel from"
. "$top/tests/lib/machines.sh"
seed

cat >init <<'END'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t devtmpfs none /dev
for module in $($b cat /modules/order); do $b insmod "/modules/$module"; done
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && break; $b sleep 1; done
if $b mount -t ext4 /dev/vda /disk; then echo "mounted"; else echo "NOT MOUNTED"; fi
cd /disk
last=0
while [ -e "n$((last + 1))" ]; do
    next=$((last + 1))
    [ "$($b md5sum <"n$next")" = "$($b cat "sum-n$next" 2>/dev/null)" ] || break
    last=$next
done
echo "have $last"
while true; do
    last=$((last + 1))
    $b dd if=/dev/urandom of="n$last" bs=4096 count=16 2>/dev/null
    $b md5sum <"n$last" >"sum-n$last"
    $b sync
    echo "wrote $last"
done
END
small_linux
truncate -s 512M guest.img
mke2fs -q -F -t ext4 guest.img
make_key lab
circular publish guest.img --name guest --version 1 --key lab.sec --to archive
trust_key lab
start_server archive

log=$machines/g/serial.log
number_of() { # WORD: the last number behind it in the log
    tr -d '\r' <"$log" | sed -n "s/^$1 \([0-9]*\)$/\1/p" | tail -n 1
}
expect 0 circular vm start g "$url/guest" --memory 256M -- -kernel "$work/vmlinuz" -initrd "$work/initrd.gz" \
    -append 'console=ttyS0 quiet panic=-1'
wait_for 240 said g '^wrote 3'
moments=10
[ -z "${CIRCULAR_LONG:-}" ] || moments=30
for moment in $(seq "$moments"); do
    random 3000
    sleep "$((number / 1000)).$(printf '%03d' $((number % 1000)))"
    circular vm info g --json >now.json
    # shellcheck disable=SC2046
    kill -KILL "$(python3 -c 'import json; print(json.load(open("now.json"))["process"])')" $(server_of_disk)
    wait_for 20 is_state g stopped
    # 3: clusters that are allocated and not used, which costs space and harms nothing.
    qemu-img check "$machines/g/overlay.qcow2" >checked 2>&1 || [ $? = 3 ] || fail "moment $moment: $(cat checked)"
    wrote=$(number_of wrote)
    : >"$log"
    expect 0 circular vm start g
    wait_for 240 said g '^have '
    said g '^mounted' || fail "moment $moment: $(cat "$log")"
    [ "$(number_of have)" -ge "$wrote" ] || fail "moment $moment: $wrote was on disk, now $(number_of have)"
    wait_for 60 said g '^wrote '
    echo "# moment $moment: after $wrote" >&3
done
ok "$moments kills: the overlay is sound, the journal is replayed, everything that was on disk is there"
