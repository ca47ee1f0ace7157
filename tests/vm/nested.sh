#!/bin/sh
# Machines inside machines: with --nested the guest, also an emulated one, has a KVM that runs a guest of its own.
. "$(dirname "$0")/../lib/common.sh"
. "$top/tests/lib/miniroot.sh"
requires qemu-system-x86_64 qemu-img debugfs sfdisk cpio busybox
[ -n "${CIRCULAR_DEBIAN_DISK:-}" ] || skip "CIRCULAR_DEBIAN_DISK names no Debian disk (tests/lib/make-debian-disk.sh makes one)"
[ -r "$CIRCULAR_DEBIAN_DISK" ] || skip "there is no $CIRCULAR_DEBIAN_DISK"

root=$work/root
begin_root
use_kernel "$CIRCULAR_DEBIAN_DISK" "$work/vmlinuz"
install_module kvm-amd
install_program "$circular" /usr/bin/circular
write_init <<'END'
grep -qw svm /proc/cpuinfo && echo "the processor has AMD-V"
ls /dev/kvm
circular accel
poweroff -f
END
pack_root "$work/initrd"
truncate -s 1M disk.raw # it takes its kernel from elsewhere

boot() { # OPTION...
    expect 0 timeout 300 "$circular" boot --accel tcg --memory 512M "$@" disk.raw -- -kernel "$work/vmlinuz" \
        -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1"
}

boot --nested
says 'the processor has AMD-V'
says '/dev/kvm'
# Whether it is fast is another question: all of this is emulated.
says '^kvm +(yes|no +KVM emulates each instruction here: a guest took)'
ok "with --nested KVM runs a guest in an emulated guest"
