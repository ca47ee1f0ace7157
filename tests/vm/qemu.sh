#!/bin/sh
# The Debian disk boots from an archive to its login prompt under QEMU: by BIOS with `circular boot`, by UEFI as a
# machine that keeps its state, with a picture on its display, and powers itself off when it is told.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires qemu-system-x86_64 qemu-img python3
[ -f "${CIRCULAR_DEBIAN_DISK:-}" ] || skip "no Debian disk"
. "$top/tests/lib/machines.sh"

make_key lab
circular publish "$CIRCULAR_DEBIAN_DISK" --name debian12 --version 1 --key lab.sec --to archive --level 1
trust_key lab
start_server archive

# Standard input is no terminal: what comes from it is typed.
mkfifo keys
sleep 1000 >keys &
at_exit end_process $!
start sh -c 'exec "$0" boot "$1" --memory 512M --bios --accel tcg <keys' "$circular" "$url/debian12"
boot=$pid
wait_for 600 grep -aq 'login: ' "$work/log.$boot"
ok 'by BIOS to the login prompt'
stop "$boot"
wait_for 10 no_mount

expect 0 circular vm start debian "$url/debian12" --uefi --display vnc --memory 512M --accel tcg
says 'VNC at the socket'
wait_for 600 said debian 'login: '
variables=$(stat -c %s "$machines/debian/variables.fd")
[ "$variables" = "$(stat -c %s /usr/share/OVMF/OVMF_VARS_4M.fd)" ] || fail "UEFI's variables are $variables bytes"
ok 'by UEFI to the login prompt, in the background'

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
