#!/bin/sh
# QEMU, the server of its disk and whatever else there is are killed with -9 at random moments while a guest writes to
# its ext4: each time the overlay is sound, the guest's file system replays its journal and mounts, every file that was
# said to be on disk is there and whole, and so are UEFI's variables and the TPM.
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
if [ -e /dev/tpm0 ]; then echo "tpm"; fi
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
mkdir -p "$XDG_CONFIG_HOME/circular/keys.d"
cp lab.pub "$XDG_CONFIG_HOME/circular/keys.d"
start_server archive

number_of() { # MACHINE WORD: the last number behind it in the log
    tr -d '\r' <"$machines/$1/serial.log" | sed -n "s/^$2 \([0-9]*\)$/\1/p" | tail -n 1
}
swtpm_of() { # MACHINE
    pgrep -f "swtpm socket .*dir=$machines/$1/tpm," || :
}
start_by_uefi() {
    circular vm stop -f g
    expect 0 circular vm start u "$url/guest" --uefi --tpm --memory 256M -- -kernel "$work/vmlinuz" \
        -initrd "$work/initrd.gz" -append 'console=ttyS0 quiet panic=-1'
    cp "$machines/u/tpm/ek-rsa2048.crt" ek.crt
    wait_for 240 said u '^wrote '
}

expect 0 circular vm start g "$url/guest" --memory 256M -- -kernel "$work/vmlinuz" -initrd "$work/initrd.gz" \
    -append 'console=ttyS0 quiet panic=-1'
wait_for 240 said g '^wrote 3'
name=g
moments=10
[ -z "${CIRCULAR_LONG:-}" ] || moments=30
for moment in $(seq "$moments"); do
    # The last ones by UEFI, with a TPM, where there are such.
    if [ "$moment" = $((moments - 2)) ] && [ -f /usr/share/OVMF/OVMF_CODE_4M.fd ] && command -v swtpm_setup >/dev/null
    then
        start_by_uefi
        name=u
    fi
    log=$machines/$name/serial.log
    random 3000
    sleep "$((number / 1000)).$(printf '%03d' $((number % 1000)))"
    circular vm info "$name" --json >now.json
    # shellcheck disable=SC2046
    kill -KILL "$(python3 -c 'import json; print(json.load(open("now.json"))["process"])')" $(server_of_disk) \
        $(swtpm_of "$name")
    wait_for 40 is_state "$name" stopped
    # 3: clusters that are allocated and not used, which costs space and harms nothing.
    qemu-img check "$machines/$name/overlay.qcow2" >checked 2>&1 || [ $? = 3 ] || fail "moment $moment: $(cat checked)"
    wrote=$(number_of "$name" wrote)
    : >"$log"
    expect 0 circular vm start "$name"
    wait_for 240 said "$name" '^have '
    said "$name" 'mounted' || fail "moment $moment: $(cat "$log")"
    [ "$(number_of "$name" have)" -ge "$wrote" ] || fail "moment $moment: $wrote was on disk, now $(number_of "$name" have)"
    if [ "$name" = u ]; then
        [ "$(stat -c %s "$machines/u/variables.fd")" = "$(stat -c %s /usr/share/OVMF/OVMF_VARS_4M.fd)" ] ||
            fail "moment $moment: UEFI's variables are cut off"
        same "$machines/u/tpm/ek-rsa2048.crt" ek.crt
        said u '^tpm' || fail "moment $moment: no TPM: $(cat "$log")"
        expect 0 circular vtpm info u --json
        says '"in_use": true'
    fi
    wait_for 60 said "$name" '^wrote '
    echo "# moment $moment: $name, after $wrote" >&3
done
ok "$moments kills: overlays are sound, journals are replayed, everything that was on disk is there"
[ "$name" = g ] || ok "UEFI's variables and the TPM's state outlive them"
