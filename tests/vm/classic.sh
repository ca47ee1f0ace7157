#!/bin/sh
# The words of VMKnoppix: each says which command it stands for, and runs that one.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires qemu-system-x86_64 qemu-img as ld

# shellcheck source=tests/lib/guest.sh
. "$top/tests/lib/guest.sh"
make_guest ends.img x
make_key lab
circular publish ends.img --name ends --version 1 --key lab.sec --to archive
trust_key lab
start_server archive
for name in httpfuse-kvm httpfuse-qemu httpfuse-kqemu httpfuse-hvm qemu-knoppix.sh knoppixU knoppixHVM xen_vtpm umlknx.sh tpmd
do
    ln -s "$circular" "$name"
    expect 0 "./$name" --help
    says "^Usage: $name "
done
ok 'each explains itself'

for name in httpfuse-kvm httpfuse-qemu httpfuse-kqemu; do
    expect 33 "./$name" "$url/ends" --memory 64M -- -device isa-debug-exit,iobase=0xf4,iosize=4
    says "^$name is now: circular boot --accel (auto|tcg|kqemu) $url/ends "
    says 'from the published disk'
    [ "$name" != httpfuse-kqemu ] || says 'KQEMU is history'
done
ok 'httpfuse-kvm, httpfuse-qemu and httpfuse-kqemu boot a published disk'

# Without an image: the menu of the archive that is named, or of the configured one.
choose() { # COMMAND...
    printf '9\n1\n' | "$@" >out 2>err || chosen_status=$?
    [ "${chosen_status:-0}" = 33 ] || fail "ended with ${chosen_status:-0}: $(cat out err)"
    says 'Number to run'
    says 'none of the numbers'
    says 'from the published disk'
}
echo "archive = $url" >"$XDG_CONFIG_HOME/circular/archive.conf"
choose ./httpfuse-qemu --memory 64M -- -device isa-debug-exit,iobase=0xf4,iosize=4
rm "$XDG_CONFIG_HOME/circular/archive.conf"
choose ./httpfuse-kvm "$url" --memory 64M -- -device isa-debug-exit,iobase=0xf4,iosize=4
mkdir sub
cp -r archive sub/os
start_server sub
choose ./httpfuse-kqemu "$url/os" --memory 64M -- -device isa-debug-exit,iobase=0xf4,iosize=4
expect 3 ./httpfuse-qemu "$url/none"
expect 3 ./httpfuse-qemu "$url/os/none"
expect 2 ./httpfuse-qemu
says 'archive = URL'
url=$url/os
ok 'without an image they show the menu, and boot what is chosen'

# What these stand for, told before the command finds that there is no such file, no Xen, or no root file system.
told() { # PATTERN COMMAND...
    pattern=$1
    shift
    "$@" >out 2>err </dev/null && fail "it should not work: $*"
    says "$pattern"
}
told '^qemu-knoppix.sh is now: circular boot --accel auto file:///none/x.iso$' ./qemu-knoppix.sh file://none/x.iso
told '^qemu-knoppix.sh is now: circular boot --accel tcg --tpm file:///none/x.iso$' \
    ./qemu-knoppix.sh -no-kvm -tpm -no-kqemu file:///none/x.iso
told 'circular boot --accel tcg http://127.0.0.1:1/x.iso --memory 64M$' \
    ./qemu-knoppix.sh -no-module http://127.0.0.1:1/x.iso --memory 64M
[ -e /dev/cdrom ] || told 'circular boot --accel auto file:///dev/cdrom$' ./qemu-knoppix.sh
told '^umlknx.sh is now: circular boot --vm uml .*/ends$' ./umlknx.sh "$url/ends"
told '^knoppixU is now: circular boot --vm xen .*/ends$' ./knoppixU "$url/ends"
told '^httpfuse-hvm is now: circular boot --vm xen-hvm .*/ends$' ./httpfuse-hvm "$url/ends"
told '^knoppixHVM is now: circular boot --vm xen-hvm file:///none/x.iso$' ./knoppixHVM file://none/x.iso
ok 'the others say what they stand for'

expect 0 ./xen_vtpm start
says 'each machine has a TPM of its own'
told 'circular boot --vm xen-hvm --tpm file:///none/x.iso$' ./knoppixHVM file://none/x.iso
expect 0 ./xen_vtpm stop
told 'circular boot --vm xen-hvm file:///none/x.iso$' ./knoppixHVM file://none/x.iso
expect 2 ./xen_vtpm
expect 2 ./xen_vtpm restart
expect 0 ./tpmd clear
says 'nothing is to be cleared'
expect 3 ./tpmd clear nobody
says '^tpmd is now: circular vtpm reset --yes nobody'
expect 2 ./tpmd
ok 'xen_vtpm and tpmd do with TPMs what there is still to do'
