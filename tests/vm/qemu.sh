#!/bin/sh
# The Debian disk boots from an archive to its login prompt under QEMU: by BIOS with `circular boot`, by UEFI as a
# machine that keeps its state, with a picture on its display, and powers itself off when it is told. Each has a TPM that
# was measured into.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires qemu-system-x86_64 qemu-img python3 swtpm swtpm_setup debugfs
[ -f "${CIRCULAR_DEBIAN_DISK:-}" ] || skip "no Debian disk"
. "$top/tests/lib/machines.sh"
debugfs -R 'stat /usr/bin/tpm2_pcrread' "$CIRCULAR_DEBIAN_DISK?offset=$((66 * 1048576))" 2>/dev/null | grep -q Inode ||
    skip "the Debian disk has no tpm2-tools: make it again with tests/lib/make-debian-disk.sh"

make_key lab
circular publish "$CIRCULAR_DEBIAN_DISK" --name debian12 --version 1 --key lab.sec --to archive --level 1
trust_key lab
start_server archive

# A guest that asks for a login at the terminal whose keys are in the pipe "keys", and whose output is in FILE: it has a
# TPM, and the firmware has measured something into each of PCR 0 to 7. The guest counts: here a busy QEMU writes a
# character twice now and then.
mkfifo keys
sleep 1000 >keys &
end_at_exit $!
look_at_tpm() { # FILE
    printf 'root\r' >keys
    wait_for 200 grep -aq 'root@debian12' "$1"
    for attempt in 1 2 3; do
        # What is typed is seen too: it does not hold what is waited for.
        printf '%s\r' 'test -c /dev/tpm0 && tpm2_pcrread sha1:0+sha256:0,1,2,3,4,5,6,7 | tee pcrs' \
            'echo "registers: $(grep -c 0x pcrs), empty: $(grep -cE "0x0+\$" pcrs); lo""oked '"$attempt\"" >keys
        wait_for 200 grep -aq "looked $attempt" "$1"
        ! grep -aq 'registers: 9, empty: 0; looked' "$1" || return 0
    done
    fail "tpm2_pcrread does not show nine registers that were measured into: $(tail -n 30 "$1")"
}

# Standard input is no terminal: what comes from it is typed.
start sh -c 'exec "$0" boot "$1" --memory 512M --bios --tpm --accel tcg <keys' "$circular" "$url/debian12"
boot=$pid
wait_for 600 grep -aq 'login: ' "$work/log.$boot"
ok 'by BIOS to the login prompt'
look_at_tpm "$work/log.$boot"
ok 'by BIOS it has /dev/tpm0, and tpm2_pcrread shows what was measured'
stop "$boot"
wait_for 30 no_mount

expect 0 circular vm start debian "$url/debian12" --uefi --tpm --display vnc --memory 512M --accel tcg
says 'VNC at the socket'
wait_for 900 said debian 'login: '
variables=$(stat -c %s "$machines/debian/variables.fd")
[ "$variables" = "$(stat -c %s /usr/share/OVMF/OVMF_VARS_4M.fd)" ] || fail "UEFI's variables are $variables bytes"
ok 'by UEFI to the login prompt, in the background'

start sh -c 'exec "$0" vm console debian <keys' "$circular"
look_at_tpm "$machines/debian/serial.log"
stop "$pid"
ok 'by UEFI it has /dev/tpm0, and tpm2_pcrread shows what was measured'

cat >screen.py <<'END'
import json, socket, sys
control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
lines = control.makefile("rw")
def run(**command):
    lines.write(json.dumps(command) + "\n")
    lines.flush()
    while True:
        answer = json.loads(lines.readline())
        if "return" in answer or "error" in answer:
            return answer
lines.readline()
run(execute="qmp_capabilities")
assert "return" in run(execute="screendump", arguments={"filename": sys.argv[2]})
magic, size, depth, pixels = open(sys.argv[2], "rb").read().split(b"\n", 3)
bright = sum(1 for value in pixels[::3] if value > 100)
assert magic == b"P6" and bright > 500, f"{size}: {bright} bright pixels"
vnc = socket.socket(socket.AF_UNIX)
vnc.connect(sys.argv[3])
assert vnc.recv(12).startswith(b"RFB 003."), "no VNC"
END
python3 screen.py "$machines/debian/control" "$work/screen.ppm" "$XDG_RUNTIME_DIR/circular/display-debian"
[ -z "${CIRCULAR_SCREEN:-}" ] || cp screen.ppm "$CIRCULAR_SCREEN"
ok 'there is a picture, and VNC answers'

expect 0 circular vm stop debian --timeout 120s
is_state debian stopped || fail "debian is $(state debian)"
expect 0 qemu-img check "$machines/debian/overlay.qcow2"
ok 'it powers itself off when it is told'
