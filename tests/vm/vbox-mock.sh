#!/bin/sh
# `circular boot --vm vbox` against a MOCK of VBoxManage, as VirtualBox is not in Debian 12: the calls are compared with
# what VirtualBox 7's manual says, and the disk that they name is checked by qemu-img. No VirtualBox has run this.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires qemu-img
. "$top/tests/lib/machines.sh"

make_archive 8
start_server "$archive"
mkdir path
for tool in qemu-img fusermount3 cat cp touch grep sed tail mkdir sleep; do
    ln -s "$(command -v "$tool")" "path/$tool"
done
# Writes down each call; makes what VirtualBox would make; fails where $work/fail says so.
cat >VBoxManage-mock <<END
#!/bin/sh
echo "\$*" >>"$work/calls"
if [ -s "$work/fail" ] && [ "\$1" = "\$(cat "$work/fail")" ]; then echo "VBoxManage: error: as told" >&2; exit 1; fi
case \$1 in
createvm) mkdir "\$7/\$3"; touch "\$7/\$3/\$3.vbox" ;;
createmedium) touch "\$4"; cp "\$6" "$work/descriptor" ;;
--version) echo 7.0.20r163906 ;;
esac
END
# What runs the machine: reads the published disk through the descriptor, as VirtualBox would; or runs as long as
# $work/runs is there.
cat >VBoxHeadless-mock <<END
#!/bin/sh
echo "VBoxHeadless \$*" >>"$work/calls"
while [ -e "$work/runs" ]; do sleep 0.1; done
qemu-img info -f vmdk "$work/descriptor" >"$work/info" 2>&1
qemu-img compare -f vmdk -F raw "$work/descriptor" "$work/disk.img" >"$work/compared" 2>&1
exit 7
END
chmod +x VBoxManage-mock VBoxHeadless-mock
cp VBoxManage-mock path/VBoxManage
ln -s "$work/VBoxHeadless-mock" path/VBoxHeadless
boot() {
    rm -f calls
    PATH=$work/path expect "$@"
}
export TMPDIR="$work/scratch"
mkdir "$TMPDIR"

# The calls, with the machine's own names made plain.
calls() {
    sed -E "s|$TMPDIR/circular-[0-9]+/boot-[A-Za-z0-9]{6}|FOLDER|g; s|boot-[A-Za-z0-9]{6}|NAME|g" calls
}

boot 7 "$circular" boot "$url/disk" --vm vbox --memory 1G --cpus 2 --uefi --tpm --nested --forward 2222:22
calls >got
cat >wanted <<'END'
createvm --name NAME --ostype Linux_64 --basefolder FOLDER --register
modifyvm NAME --memory 1024 --cpus 2 --firmware efi --ioapic on --rtcuseutc on --audio none --boot1 disk --nic1 nat
modifyvm NAME --tpm-type 2.0
modifyvm NAME --nested-hw-virt on
modifyvm NAME --uart1 0x3F8 4 --uartmode1 file /dev/stdout
modifyvm NAME --natpf1 port0,tcp,127.0.0.1,2222,,22
storagectl NAME --name SATA --add sata --portcount 2
createmedium disk --filename FOLDER/overlay.vdi --diffparent FOLDER/disk.vmdk
storageattach NAME --storagectl SATA --port 0 --device 0 --type hdd --medium FOLDER/overlay.vdi
VBoxHeadless --startvm NAME
controlvm NAME poweroff
unregistervm NAME
closemedium disk FOLDER/overlay.vdi
closemedium disk FOLDER/disk.vmdk
END
same got wanted
ok 'the machine is described, started, and forgotten again; its exit status is passed on'

grep -q 'file format: vmdk' info || fail "$(cat info)"
grep -q 'virtual size: 8 MiB' info || fail "$(cat info)"
grep -q 'Images are identical' compared || fail "$(cat compared)"
grep -Eq '^ddb.uuid.image="[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"$' descriptor
ok 'qemu-img reads the published disk through the descriptor'

nothing_left() { [ -z "$(find "$TMPDIR" "$XDG_RUNTIME_DIR" -mindepth 2 ! -name accelerators ! -name disks)" ]; }
wait_for 30 nothing_left
ok 'nothing is left'

touch runs
rm calls
start env "PATH=$work/path" "$circular" boot "$url/disk" --vm vbox
boot=$pid
wait_for 60 grep -q VBoxHeadless calls
kill -KILL "$(server_of_disk)"
wait_for 40 grep -q 'served the disk has ended, and VirtualBox cannot be given it again.*; end it and boot' "$work/log.$boot"
! ended "$boot" || fail 'it has ended'
rm runs
wait_for 40 ended "$boot"
[ "$(grep -c 'cannot be given it again' "$work/log.$boot")" = 1 ] || fail 'it says so more than once'
ok 'where the process that serves the disk is killed, it is said that the machine cannot have it again'

touch cd.iso
boot 7 "$circular" boot "$url/disk" --vm vbox --bios --net none --serial none --iso cd.iso
calls | grep -q 'firmware bios .* --boot1 dvd --nic1 none$' || fail "$(cat calls)"
calls | grep -q 'storageattach NAME .* --port 1 --device 0 --type dvddrive --medium .*/cd.iso$' || fail "$(cat calls)"
! grep -q uart calls || fail "$(cat calls)"
ok 'BIOS, no network, no serial port, a CD-ROM'

for step in createvm modifyvm storagectl createmedium storageattach; do
    echo "$step" >fail
    boot 1 "$circular" boot "$url/disk" --vm vbox
    says "VBoxManage $step ended with status 1: VBoxManage: error: as told"
    grep -q '^unregistervm' calls || fail "$step: the machine is still registered"
    [ -z "$(find "$TMPDIR" -mindepth 2)" ] || fail "$step: something was left"
done
rm fail
ok 'a call that fails is told, and what was made is taken back'

boot 1 "$circular" boot "$url/disk" --vm vbox --display vnc
says 'under VirtualBox a machine has no VNC'
boot 1 "$circular" boot "$url/disk" --vm vbox --display gtk
says 'VirtualBoxVM is missing'
rm path/VBoxManage
boot 1 "$circular" boot "$url/disk" --vm vbox
says 'VBoxManage is missing: install VirtualBox'
ok 'what it cannot do, or lacks, is said before anything starts'
