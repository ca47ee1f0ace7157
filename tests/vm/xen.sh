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

# An emulated machine in an emulated machine, on a busy host, is slower than Debian thinks that anything can be: it waits 90
# seconds for its console's device, and then goes on without a login. Here it waits as long as it takes.
cp --sparse=always "$CIRCULAR_DEBIAN_DISK" disk.raw
start=$(sfdisk -q -l -o Device,Start disk.raw | awk '$1 ~ /3$/ { print $2 }')
[ -n "$start" ] || fail "the Debian disk has no third partition: $(sfdisk -l disk.raw)"
root_system="disk.raw?offset=$((start * 512))"
printf '[Manager]\nDefaultTimeoutStartSec=1h\nDefaultDeviceTimeoutSec=1h\n' >patient.conf
printf '%s\n' 'mkdir /etc/systemd/system.conf.d' "write $work/patient.conf /etc/systemd/system.conf.d/patient.conf" |
    debugfs -w -f - "$root_system"
debugfs -R 'cat /etc/systemd/system.conf.d/patient.conf' "$root_system" | cmp - patient.conf || fail 'the disk stays impatient'
circular publish disk.raw --name debian --version 1 --key lab.sec --to archive
rm disk.raw
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
# xl waits ten seconds for its QEMU, which cannot be set, and here QEMU may need longer: then it is tried again, after one
# start of it whose code the emulator has translated since. GRUB in the guest looks for its disk without a pause, and
# dom0, which serves that, comes first. Nothing is fetched that the guest does not wait for: all of this is slow.
xl sched-credit2 -d 0 -w 65535
for attempt in 1 2 3; do
    /usr/libexec/xen-qemu-system-i386 -xen-attach -M none -display none -version >/dev/null
    circular boot --vm xen --prefetch none --memory 512M --key /lab.pub $seen/debian </dev/hvc0 >/dev/hvc0 2>/said
    status=\$?
    cat /said
    grep -q 'device model: startup timed out' /said || break
    echo "xl did not wait for its QEMU at attempt \$attempt"
    grep -h '^qemu-system-i386: ' /var/log/xen/qemu-dm-*.log | grep -Ev 'terminating on signal|warning: ' |
        sed 's/^/its QEMU has failed: /'
done
echo "circular ended with \$status"
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
    sleep 0.5 # a look costs what the machine could use
    grep -Eq "$1" "$log" || ended "$machine"
}
# Limits are for a machine that stands still: a busy host makes all of this many times slower.
saw() { # SECONDS PATTERN WHAT
    wait_for "$1" came_to "$2|dom0: the test has ended"
    grep -Eq "$2" "$log" || fail "no $3: $(grep -av "(XEN)" "$log" | tail -n 30)"
    ok "$3"
}
saw 600 'Xen does not have a TPM' 'dom0 says that a PV guest has no TPM'
saw 600 'Xen does not have firmware' 'nor firmware'
for type in '' -pvh -hvm; do
    saw 600 "dry run of xen$type: 0, 1" "xl takes the configuration of --vm xen$type"
done
wait_for 2400 came_to ' login: |dom0: the test has ended'
if grep -q 'xl did not wait for its QEMU at attempt 3' "$log"; then
    ! grep -a 'its QEMU has failed' "$log" || fail 'its QEMU has failed'
    ok 'a PV guest boots from the archive # SKIP three times the host was too busy for the ten seconds that xl gives its QEMU'
    exit 0
fi
saw 1 ' login: ' "a PV guest boots from the archive to its login"
echo root >&4
saw 600 'root@[^#]*# $' "root logs in there"
echo 'echo guest type $(cat /sys/hypervisor/type) $(cat /sys/hypervisor/guest_type)' >&4
saw 300 'guest type xen PV' "its shell says that it is a PV guest of Xen"
echo 'poweroff -f' >&4
saw 300 'circular ended with 0' "when the guest is switched off, circular ends"
saw 120 'domains left: 0, files left: 0' "and nothing is left of it"
