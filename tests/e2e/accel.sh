#!/bin/sh
# `circular accel` tells what this host can run machines on after having tried it, remembers what takes time, and boot
# goes by it.
. "$(dirname "$0")/../lib/common.sh"
requires python3

expect 0 circular accel
for name in kvm tcg nested xen uml vbox tpm; do
    grep -Eq "^$name +(yes|no) +[^ ]" out || fail "nothing about $name: $(cat out)"
done
cp out first
expect 0 circular accel
same out first
ok 'each kind is said to work, or why it does not'

expect 0 circular accel --json
python3 -c 'import json, sys
told = json.load(open("out"))
kinds = {kind["name"]: kind for kind in told["accelerators"]}
assert list(kinds) == "kvm tcg nested xen uml vbox tpm".split(), kinds
assert all(kind["reason"] for kind in kinds.values())
assert told["auto"] == ("kvm" if kinds["kvm"]["works"] else "tcg")'
ok 'and as JSON'

mkdir path
PATH=$work/path expect 0 "$circular" accel
says '^tcg +no .*Debian package qemu-system-x86'
says '^uml +no .*Debian package user-mode-linux'
says '^tpm +no .*Debian package swtpm'
says '^vbox +no .*VBoxManage is missing'
ok 'what is missing is named with its Debian package'

memory=$XDG_RUNTIME_DIR/circular/accelerators
if [ -f "$memory" ]; then
    [ "$(stat -c %a "$memory")" = 600 ] || fail "$(ls -l "$memory")"
    sed -E 's/ = .*/ = no as remembered/' "$memory" >changed
    cp changed "$memory"
    expect 0 circular accel
    says '^tcg +no +as remembered'
    expect 0 circular accel --again
    says_not 'as remembered'
    ok 'what was tried is remembered, and tried anew when asked for'
fi
