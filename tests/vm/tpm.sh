#!/bin/sh
# TPMs of machines: each has one of its own, whose state no other user reads and a kill leaves whole, and whose
# certificate this user's authority has signed; a guest sees what was measured when it booted, by BIOS and by UEFI.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires qemu-system-x86_64 qemu-img swtpm swtpm_setup openssl certtool as ld
. "$top/tests/lib/guest.sh"

make_guest waits.img w
make_key lab
key=$work/lab.sec
circular publish waits.img --name waits --version 1 --key "$key" --to archive
trust_key lab
start_server archive
tpm=$XDG_STATE_HOME/circular/machines/lab/tpm
ca=$XDG_STATE_HOME/circular/tpm-ca
verify() { # CERTIFICATE
    openssl x509 -inform DER -in "$1" -out ek.pem
    openssl verify -CAfile "$ca/swtpm-localca-rootca-cert.pem" -untrusted "$ca/issuercert.pem" ek.pem
}
swtpm_pid() { pgrep -f "swtpm socket .*dir=$tpm,"; }
no_swtpm() { ! swtpm_pid >/dev/null; }
end_lab() { circular vm stop --force lab >/dev/null 2>&1 || :; }
at_exit end_lab

expect 0 circular vm start lab "$url/waits" --memory 64M --tpm
expect 0 circular vtpm info lab
says '^machine +lab, in use'
says 'EK subject +CN=lab'
[ "$(stat -c %a "$tpm" "$ca" "$tpm/tpm2-00.permall" | tr '\n' ' ')" = '700 700 600 ' ] || fail "$(ls -la "$tpm" "$ca")"
if [ "$(id -u)" = 0 ]; then
    chmod 711 "$work"
    ! setpriv --reuid 65534 --regid 65534 --clear-groups cat "$tpm/tpm2-00.permall" >/dev/null 2>&1 ||
        fail 'another user reads it'
fi
ok 'a machine has a TPM of its own, which no other user can read'

verify "$tpm/ek-rsa2048.crt"
verify "$tpm/ek-secp384r1.crt"
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=other -keyout other.key -out other.pem 2>/dev/null
! openssl verify -CAfile other.pem -untrusted "$ca/issuercert.pem" ek.pem 2>/dev/null || fail 'any authority will do'
ok "its certificates are of this user's authority, says openssl"

expect 1 circular vtpm reset lab --yes
says 'running'
expect 1 circular vtpm new lab
cp "$tpm/ek-rsa2048.crt" before.crt
kill -KILL "$(swtpm_pid)"
end_lab
wait_for 40 no_swtpm
same "$tpm/ek-rsa2048.crt" before.crt
expect 0 circular vm start lab
expect 0 circular vtpm info lab --json
says '"in_use": true'
end_lab
wait_for 40 no_swtpm
ok 'a TPM that was killed is whole, and ends with its machine'

if command -v tpm2_nvread >/dev/null; then
    # Two ports in a row, as the TPM's tools expect them.
    until free_port port && ! listening "$((port + 1))" 2>/dev/null; do :; done
    start swtpm socket --tpm2 --tpmstate "dir=$tpm" --server "type=tcp,port=$port" --flags not-need-init,startup-clear \
        --ctrl "type=tcp,port=$((port + 1))"
    probe=$pid
    wait_for 30 listening "$((port + 1))"
    export TPM2TOOLS_TCTI="swtpm:host=127.0.0.1,port=$port"
    tpm2_nvread 0x1c00002 -o nv.crt
    same nv.crt "$tpm/ek-rsa2048.crt"
    tpm2_getcap pcrs >banks
    grep -q 'sha1: *\[ 0, 1' banks || fail "$(cat banks)"
    grep -q 'sha256: *\[ 0, 1' banks || fail "$(cat banks)"
    unset TPM2TOOLS_TCTI
    expect 1 circular vtpm reset lab --yes
    says 'in use'
    stop "$probe"
    ok 'the certificate is in the TPM too, and the banks are SHA-1 and SHA-256'
fi

# One that nobody ends: its starter was killed before the machine was there.
socket=$XDG_RUNTIME_DIR/circular/tpm-lab
start swtpm socket --tpm2 --tpmstate "dir=$tpm" --ctrl "type=unixio,path=$socket" --pid "file=$socket.pid" --terminate
orphan=$pid
wait_for 30 test -s "$socket.pid"
expect 0 circular vm start lab
ended "$orphan" || fail 'it is still there'
expect 0 circular vtpm info lab --json
says '"in_use": true'
end_lab
wait_for 40 no_swtpm
same "$tpm/ek-rsa2048.crt" before.crt
expect 1 circular vm start lab -- -no-such-option
wait_for 40 no_swtpm
ok 'a TPM that a killed start has left is ended, and so is that of a machine that does not start'

any_swtpm() { pgrep -f "swtpm socket .*$TMPDIR" >/dev/null; }
no_machine() { ! any_swtpm && ! pgrep -f "qemu-system-x86_64 .*$TMPDIR" >/dev/null; }
export TMPDIR="$work/scratch"
mkdir "$TMPDIR"
for moment in 0 1 2 3; do
    start "$circular" boot "$url/waits" --memory 64M --tpm
    boot=$pid
    if [ "$moment" = 0 ]; then
        wait_for 60 grep -aq ready "$work/log.$boot"
    else
        wait_for 60 any_swtpm
        sleep "0.0$((moment * 3))"
    fi
    if [ "$moment" = 1 ]; then # the machine, and circular tells
        wait_for 60 pgrep -f "qemu-system-x86_64 .*$TMPDIR"
        kill -KILL "$(pgrep -f "qemu-system-x86_64 .*$TMPDIR")"
        wait_for 40 ended "$boot"
    else
        stop "$boot" KILL
    fi
    wait_for 40 no_machine
done
find "$TMPDIR" -mindepth 2 -maxdepth 2 -type d -exec touch -d '10 minutes ago' {} +
expect 1 circular boot "$url/waits" --memory 64M --tpm -- -no-such-option
wait_for 40 no_machine
[ -z "$(find "$TMPDIR" -mindepth 2)" ] || fail "left: $(find "$TMPDIR")"
unset TMPDIR
ok 'circular boot, or its QEMU, is killed: its TPM ends too, and the next boot clears what is left'

expect 2 circular vtpm reset lab
says 'yes is needed'
same "$tpm/ek-rsa2048.crt" before.crt
expect 0 circular vtpm reset lab --yes
! cmp -s "$tpm/ek-rsa2048.crt" before.crt || fail 'the certificate is the old one'
verify "$tpm/ek-rsa2048.crt"
[ "$(find "$(dirname "$tpm")" -maxdepth 1 -name 'tpm*' | wc -l)" = 1 ] || fail "$(ls -A "$(dirname "$tpm")")"
ok 'reset gives it another TPM of the same authority, and asks before'

expect 3 circular vtpm info nobody
expect 3 circular vtpm reset nobody --yes
expect 2 circular vtpm info ../lab
mkdir path
for tool in qemu-system-x86_64 qemu-img fusermount3; do
    ln -s "$(command -v "$tool")" "path/$tool"
done
PATH=$work/path expect 1 "$circular" boot "$url/waits" --tpm
says 'Debian package swtpm'
PATH=$work/path expect 1 "$circular" vtpm reset lab --yes
says 'Debian package swtpm'
verify "$tpm/ek-rsa2048.crt"
ok 'errors: no such machine, no swtpm'

[ -n "${CIRCULAR_DEBIAN_DISK:-}" ] && [ -f "$CIRCULAR_DEBIAN_DISK" ] || exit 0
requires expect debugfs sfdisk
circular publish "$CIRCULAR_DEBIAN_DISK" --name debian12 --version 1 --key "$key" --to archive
# Its kernel and the shell of its initrd, by firmware: what a TPM shows needs no more.
offset=$(($(sfdisk -d "$CIRCULAR_DEBIAN_DISK" | sed -n 's/.*3 : start= *\([0-9]*\).*/\1/p') * 512))
from_disk() { # PATTERN FILE
    file=$(debugfs -R 'ls -p /boot' "$CIRCULAR_DEBIAN_DISK?offset=$offset" 2>/dev/null | cut -d/ -f6 | grep "^$1" | head -n 1)
    debugfs -R "dump /boot/$file $2" "$CIRCULAR_DEBIAN_DISK?offset=$offset" 2>/dev/null
    [ -s "$2" ] || fail "no $1 on the disk"
}
from_disk vmlinuz- vmlinuz
from_disk initrd.img- initrd
cat >boot.exp <<'END'
set timeout 280
eval spawn -noecho $argv -- -kernel vmlinuz -initrd initrd -append {"console=ttyS0 quiet panic=-1 rdinit=/bin/sh"}
proc wanted {text} {
    expect -re $text {} timeout { puts "\nnot seen: $text"; exit 1 } eof { puts "\nended before: $text"; exit 1 }
}
wanted "# "
send "mkdir -p /sys; mount -t sysfs s /sys; cat /sys/class/tpm/tpm0/tpm_version_major; ls /dev/tpm0\r"
wanted "\n2\r*\n/dev/tpm0"
send "cd /sys/class/tpm/tpm0/pcr-sha256; for i in 0 1 2 3 4 5 6 7; do echo P\$i=\$(cat \$i); done\r"
for {set i 0} {$i < 8} {incr i} { wanted "P$i=\[0-9A-F\]{64}" }
send "echo sha1=\$(cat ../pcr-sha1/0)\r"
wanted "sha1=\[0-9A-F\]{40}"
send "exit\r"
expect eof {} timeout { puts "\ndoes not end"; exit 1 }
END
for firmware in bios uefi; do
    if [ "$firmware" = uefi ] && [ ! -f /usr/share/OVMF/OVMF_CODE_4M.fd ]; then continue; fi
    begun=$(date +%s)
    start env expect boot.exp "$circular" boot "$url/debian12" --tpm "--$firmware" --memory 1G
    wait_for 320 ended "$pid"
    status=0
    wait "$pid" || status=$?
    [ "$status" = 0 ] || fail "by $firmware: $(tail -n 30 "$work/log.$pid")"
    tr -d '\r' <"$work/log.$pid" | grep -aoE 'P[0-7]=[0-9A-F]{64}' | sort -u >"pcrs.$firmware"
    [ "$(wc -l <"pcrs.$firmware")" = 8 ] || fail "$(cat "pcrs.$firmware")"
    ! grep -E '=0{64}$' "pcrs.$firmware" || fail "by $firmware a PCR was not measured into"
    ok "booted by $firmware, the guest has /dev/tpm0, and PCR 0 to 7 were measured into ($(($(date +%s) - begun)) s)"
done
! pgrep -f "swtpm socket .*circular-$(id -u)/boot-" >/dev/null || fail 'a swtpm is left'
if [ -s pcrs.uefi ]; then
    ! cmp -s pcrs.bios pcrs.uefi || fail 'BIOS and UEFI measure the same'
    ok 'and they are not the same by BIOS and by UEFI'
fi
