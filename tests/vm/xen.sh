#!/bin/sh
# A published disk boots as a Xen guest: in a Xen host that QEMU emulates, dom0's circular reads the archive over the
# network, and a PV guest comes to its login and to a shell.
. "$(dirname "$0")/../lib/common.sh"
requires_root
requires qemu-system-x86_64 qemu-img debugfs sfdisk cpio busybox apt-get dpkg-deb
[ -n "${CIRCULAR_DEBIAN_DISK:-}" ] || skip "CIRCULAR_DEBIAN_DISK names no Debian disk (tests/lib/make-debian-disk.sh makes one)"
[ -r "$CIRCULAR_DEBIAN_DISK" ] || skip "there is no $CIRCULAR_DEBIAN_DISK"

expect 1 circular boot --vm xen --offline http://127.0.0.1:1/os/debian
says 'no Xen host.*apt install xen-system-amd64'
ok "where there is no Xen, the package is named before anything starts"

host=$build/xen-host
"$top/tests/lib/make-xen-host.sh" "$CIRCULAR_DEBIAN_DISK" "$circular" "$host" || skip "no Xen host can be made here"
make_key lab
circular publish "$CIRCULAR_DEBIAN_DISK" --name debian --version 1 --key lab.sec --to archive
start_server archive
seen=http://10.0.2.2:$port # as QEMU shows it to its guest

# In dom0, on its console, which is what is typed into QEMU here.
mkdir brought
cp lab.pub brought/
cat >brought/test <<END
circular boot --vm xen --tpm --key /lab.pub $seen/debian
circular boot --vm xen --uefi --key /lab.pub $seen/debian
# What xl makes of the configurations, without a guest.
mkdir /dry
printf '#!/bin/sh\nexec /usr/sbin/xl -N "\$@"\n' >/dry/xl
chmod +x /dry/xl
for type in '' -pvh -hvm; do
    PATH=/dry:\$PATH circular boot --vm xen\$type --prefetch none --memory 256M --cpus 2 --serial none \
        --key /lab.pub $seen/debian >/dry/out 2>&1
    echo "dry run of xen\$type: \$?, \$(tr -d ' \n' </dry/out | grep -c '"c_info":.*"max_vcpus":2.*"disks":')" \
        "\$(tr -d ' ' </dry/out | grep '^"type":' | head -n 1)"
    cat /dry/out
done
# While the guest boots nothing is fetched that it does not wait for: all of this is emulated, and slow.
circular boot --vm xen --prefetch none --memory 512M --key /lab.pub $seen/debian </dev/hvc0 >/dev/hvc0 2>&1
echo "circular ended with \$?"
echo "domains left: \$(xl list | tail -n +3 | wc -l), files left: \$(ls /var/tmp/circular-0 | wc -l)"
cat /var/log/xen/*
END
(cd brought && find . | cpio -o -H newc -R 0:0 --quiet) >brought.cpio
cat "$host/initrd" brought.cpio >initrd

# Of what TCG emulates Xen stumbles over some; with XSAVE, processes lose their vector registers now and then.
mkfifo keyboard
exec 4<>keyboard
start sh -c 'exec "$@" <keyboard' qemu qemu-system-x86_64 -accel tcg -M q35 -m 1800 -smp 1 \
    -cpu EPYC,-smap,-monitor,-rdtscp,-xsave -nographic -no-reboot \
    -kernel "$host/xen" -append "console=com1 com1=115200,8n1 dom0_mem=900M xsave=0" \
    -initrd "$host/vmlinuz console=hvc0 quiet,$work/initrd" -netdev user,id=n -device e1000,netdev=n,romfile=
machine=$pid
log=$work/log.$machine
came_to() { # PATTERN: or the machine has ended
    grep -Eq "$1" "$log" || ended "$machine"
}
saw() { # SECONDS PATTERN WHAT
    wait_for "$1" came_to "$2"
    grep -Eq "$2" "$log" || fail "no $3: $(grep -av "(XEN)" "$log" | tail -n 30)"
    ok "$3"
}
saw 200 'Xen does not have firmware' "dom0 says what Xen cannot do"
for type in '' -pvh -hvm; do
    saw 200 "dry run of xen$type: 0, 1" "xl takes the configuration of --vm xen$type"
done
# The rest is minutes of an emulated machine in an emulated machine, and on a busy host longer than xl is ready to wait.
[ -n "${CIRCULAR_LONG:-}" ] || exit 0
saw 500 ' login: ' "a PV guest boots from the archive to its login"
echo root >&4
saw 200 'root@[^#]*# $' "root logs in there"
echo 'echo guest type $(cat /sys/hypervisor/type) $(cat /sys/hypervisor/guest_type)' >&4
saw 100 'guest type xen PV' "its shell says that it is a PV guest of Xen"
echo 'poweroff -f' >&4
saw 100 'circular ended with 0' "when the guest is switched off, circular ends"
saw 60 'domains left: 0, files left: 0' "and nothing is left of it"
