#!/bin/sh
# The Debian disk boots from an archive to its login prompt under QEMU: by BIOS with `circular boot`, by UEFI as a
# machine that keeps its state, with a TPM that has measured the boot and a picture on its display, and powers itself off
# when it is told.
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

# The disk with one package more, as its user would install it: the archive takes only what is new.
tpm=''
if [ "$(id -u)" = 0 ] && command -v expect >/dev/null && command -v swtpm_setup >/dev/null; then
    tpm=--tpm
    "$top/tests/lib/make-debian-disk.sh" "$build/demo/debian12-tpm.raw" --from "$CIRCULAR_DEBIAN_DISK" --packages tpm2-tools
    circular publish "$build/demo/debian12-tpm.raw" --name debian12 --version 2 --key lab.sec --to archive --level 1
fi
# shellcheck disable=SC2086
expect 0 circular vm start debian "$url/debian12" --uefi $tpm --display vnc --memory 512M --accel tcg
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

cat >pcrs.exp <<'END'
set timeout 100
spawn -noecho {*}$argv vm console debian
proc wanted {text} {
    expect -re $text {} timeout { puts "\nnot seen: $text"; exit 1 } eof { puts "\nended before: $text"; exit 1 }
}
send "\r"
wanted "login: "
send "root\r"
wanted "# "
send "ls -l /dev/tpm0 && tpm2_pcrread sha1:0+sha256:0,1,2,3,4,5,6,7 && echo re\$((1))ad\r"
wanted "crw.* /dev/tpm0"
wanted "re1ad"
END
if [ -n "$tpm" ]; then
    env expect pcrs.exp "$circular" >pcrs.log 2>&1 || fail "$(tail -n 30 pcrs.log)"
    tr -d '\r' <pcrs.log | grep -E '^ +[0-7] *: 0x[0-9A-F]{64}$' >pcrs || :
    [ "$(wc -l <pcrs)" = 8 ] || fail "$(cat pcrs.log)"
    ! grep -E '0x0{64}$' pcrs || fail 'a PCR was not measured into'
    tr -d '\r' <pcrs.log | grep -Eq '^ +0 *: 0x[0-9A-F]{40}$' || fail 'no SHA-1'
    ok 'the guest has /dev/tpm0, and tpm2_pcrread shows what was measured'
fi

expect 0 circular vm stop debian --timeout 120s
is_state debian stopped || fail "debian is $(state debian)"
expect 0 qemu-img check "$machines/debian/overlay.qcow2"
ok 'it powers itself off when it is told'
