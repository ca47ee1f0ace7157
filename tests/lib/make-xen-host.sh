#!/bin/sh
# A Xen host for tests, to be started by QEMU: Debian's hypervisor, the kernel of a Debian disk as dom0's, and a
# file system in memory with xl, QEMU for Xen, GRUB for Xen guests, and circular.
#
#   tests/lib/make-xen-host.sh DEBIAN-DISK CIRCULAR FOLDER
#
# Makes FOLDER/xen, FOLDER/vmlinuz and FOLDER/initrd. What runs in dom0 is /test, which another cpio archive behind the
# initrd brings. Debian's packages are unpacked, not installed: a hypervisor that is installed changes how the computer
# starts. They are kept in FOLDER for the next time.
set -eu
[ $# = 3 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 2; }
. "$(dirname "$0")/miniroot.sh"
disk=$1 circular=$2
mkdir -p "$3/deb"
folder=$(cd "$3" && pwd)
packages="xen-hypervisor-4.17-amd64 xen-utils-4.17 libxenmisc4.17 libxencall1 libxendevicemodel1 libxenevtchn1
    libxenforeignmemory1 libxengnttab1 libxenhypfs1 libxenstore4 libxentoolcore1 libxentoollog1 libyajl2
    qemu-system-xen grub-xen-host grub-xen-bin"

if [ ! -f "$folder/unpacked/done" ]; then
    rm -rf "$folder/unpacked"
    mkdir "$folder/unpacked"
    # shellcheck disable=SC2086
    (cd "$folder/deb" && rm -f ./*.deb && apt-get -q download $packages)
    for package in "$folder"/deb/*.deb; do
        dpkg-deb -x "$package" "$folder/unpacked"
    done
    touch "$folder/unpacked/done"
fi
from=$folder/unpacked
gunzip -c "$from"/boot/xen-4.17-amd64.gz >"$folder/xen"

# shellcheck disable=SC2034  # miniroot.sh's
root=$folder/root libraries=$from/usr/lib/x86_64-linux-gnu
begin_root
use_kernel "$disk" "$folder/vmlinuz"
for module in xen-privcmd xen-evtchn xen-gntdev xen-gntalloc xenfs e1000 fuse loop; do
    install_module "$module"
done
for name in xl xenstored xenconsoled xenconsole xen-init-dom0 libxl-save-helper; do
    install_program "$from/usr/lib/xen-4.17/bin/$name" "/usr/lib/xen-4.17/bin/$name"
done
ln -s ../lib/xen-4.17/bin/xl "$root/usr/sbin/xl"
install_program "$from/usr/libexec/xen-qemu-system-i386" /usr/libexec/xen-qemu-system-i386
install_program "$circular" /usr/bin/circular
install_program "$(command -v qemu-img)" /usr/bin/qemu-img
cp -r "$from/usr/lib/grub-xen" "$root/usr/lib/"
mkdir -p "$root/usr/share/qemu" "$root/etc/xen" "$root/var/lib/xen" "$root/var/lib/xenstored" "$root/var/log/xen"
cp -r /usr/share/qemu/keymaps "$root/usr/share/qemu/" # QEMU for Xen reads one even without a display
: >"$root/etc/xen/xl.conf"
ln -s ../run "$root/var/run"

write_init <<'END'
mount -t xenfs xenfs /proc/xen
mkdir -p /run/xen /run/xenstored /run/lock
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
/usr/lib/xen-4.17/bin/xenstored --pid-file /run/xenstored.pid
/usr/lib/xen-4.17/bin/xen-init-dom0
/usr/lib/xen-4.17/bin/xenconsoled --pid-file=/run/xenconsoled.pid
sh /test
echo "dom0: the test has ended"
poweroff -f
END
pack_root "$folder/initrd"
