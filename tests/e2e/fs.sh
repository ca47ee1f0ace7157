#!/bin/sh
# `circular mount --fs` shows the files inside a disk in one step - partition table, LVM and a dirty journal or not -
# and leaves nothing behind, whichever way it ends.
. "$(dirname "$0")/../lib/common.sh"
requires mke2fs sfdisk e2fsck
requires_root
requires_fuse
requires_loop

publish() { # FILE NAME
    circular publish "$1" --name "$2" --version 1 --key "$key" --to archive
}
# Others may use loop devices and FUSE meanwhile: only what is of this test counts. The disks' own mount points are
# hidden, so that the kernel calls a disk "/NAME".
nothing_left() {
    ! grep -lxE '/(disk|data|dirty|lvm|xfs)' /sys/block/loop*/loop/backing_file >/dev/null 2>&1 &&
        ! grep -q "$url" /proc/self/mountinfo && [ -z "$(ls "$XDG_RUNTIME_DIR/circular" 2>/dev/null)" ]
}

# The source of all file systems here, and the sums of its files.
mkdir -p tree/etc tree/bin tree/dir/deep m
echo 'NAME="Test"' >tree/etc/os-release
head -c 3000000 /dev/urandom >tree/bin/program
head -c 70000 /dev/zero >tree/dir/deep/zeros
ln -s ../etc/os-release tree/dir/link
i=0
while [ $i -lt 200 ]; do
    echo "file $i" >"tree/dir/file$i"
    i=$((i + 1))
done
(cd tree && find . -type f -exec sha256sum {} + | sort -k2) >sums
whole() { # FOLDER: all files are there and right
    (cd "$1" && find . -type f ! -path './lost+found*' -exec sha256sum {} + | sort -k2) >got
    cmp sums got && [ "$(readlink "$1/dir/link")" = ../etc/os-release ]
}

# A GPT disk: a small FAT-like first partition without a file system, a root, a smaller second file system.
truncate -s 96M disk.img
sfdisk -q disk.img <<'END'
label: gpt
start=2048, size=8192, type=21686148-6449-6E6F-744E-656564454649
start=10240, size=122880, type=linux
start=133120, size=40960, type=linux
END
mke2fs -q -t ext4 -d tree -E offset=$((10240 * 512)) disk.img 60M
mkdir small
echo small >small/name
mke2fs -q -t ext2 -d small -E offset=$((133120 * 512)) disk.img 20M

make_key lab
key=$work/lab.sec
trust_key lab
publish disk.img disk
start_server archive
at_exit umount -l "$work/m"

circular mount --fs "$url/disk" m
whole m || fail 'files differ'
touch m/new 2>/dev/null && fail 'it can be written to'
circular umount m
wait_for 10 nothing_left
ok 'the largest file system, every file right, undone by umount'

circular mount --fs --partition 3 "$url/disk" m
same m/name small/name
umount m
wait_for 10 nothing_left
ok 'a chosen partition; plain umount undoes everything too'

expect 3 circular mount --fs --partition 1 "$url/disk" m
says 'no partition 1 with a file system'
expect 3 circular mount --fs --partition 7 "$url/disk" m
says 'no partition 7'
wait_for 10 nothing_left
make_image empty.img 2
publish empty.img data
expect 3 circular mount --fs "$url/data" m
says 'no file system'
wait_for 10 nothing_left
expect 2 circular mount --partition 1 "$url/disk" m
expect 2 circular mount --fs "$url" m
ok 'no such partition, no file system: told, and nothing left'

# A file system that was not unmounted: its journal must not be replayed, which nobody could write.
truncate -s 64M dirty.img
mke2fs -q -t ext4 -d tree dirty.img
debugfs -w -R 'feature needs_recovery' dirty.img 2>/dev/null
publish dirty.img dirty
circular mount --fs "$url/dirty" m
whole m || fail 'files differ'
ok 'a whole disk without a partition table, and with a dirty journal'

cat m/bin/program >/dev/null
exec 5<m/etc/os-release
expect 1 circular umount m
says 'in use'
circular umount --lazy m
exec 5<&-
wait_for 10 nothing_left
ok 'in use is told; --lazy waits for the last user'

start "$circular" mount -f --fs "$url/disk" m
wait_for 10 mountpoint -q m
stop "$pid"
[ "$status" = 0 ] || fail "the mount ended with status $status"
mountpoint -q m && fail 'still mounted'
wait_for 10 nothing_left
ok 'SIGTERM undoes everything'

start "$circular" mount -f --fs "$url/disk" m
wait_for 10 mountpoint -q m
stop "$pid" KILL
umount m
wait_for 10 nothing_left
circular mount --fs "$url/disk" m
whole m || fail 'files differ'
circular umount m
wait_for 10 nothing_left
ok 'after a kill, plain umount is enough, and the next mount works'

mkdir tmp
mount -t tmpfs none tmp
at_exit umount -l "$work/tmp"
expect 2 circular umount tmp
says 'not one of circular'
expect 3 circular umount tree
says 'nothing is mounted'
ok 'umount leaves what is not its own alone'

if command -v lvm >/dev/null; then
    volume() { # LVM-COMMAND ARGUMENTS...
        verb=$1
        shift
        lvm "$verb" --devices "$device" --driverloaded n --config 'backup{backup=0 archive=0}' "$@"
    }
    truncate -s 128M lvm.img
    device=$(losetup -f --show lvm.img)
    volume pvcreate -y "$device"
    volume vgcreate group "$device"
    volume lvcreate -an -Zn -Wn -L 16M -n other group
    volume lvcreate -an -Zn -Wn -L 60M -n root group
    volume lvcreate -an -Zn -Wn -L 8M -n first group
    volume lvcreate -an -Zn -Wn -L 8M -n between group
    volume lvextend -L +4M group/first
    losetup -d "$device"
    # The first extent lies at 1 MiB; other has four of 4 MiB.
    mke2fs -q -t ext4 -d tree -E offset=$((17 * 1048576)) lvm.img 60M
    mke2fs -q -t ext4 -d small -E offset=1048576 lvm.img 16M
    publish lvm.img lvm
    circular mount --fs "$url/lvm" m
    whole m || fail 'files differ'
    circular umount m
    circular mount --fs --volume other "$url/lvm" m
    same m/name small/name
    circular umount m
    wait_for 10 nothing_left
    expect 1 circular mount --fs --volume group/first "$url/lvm" m
    says 'one piece'
    expect 3 circular mount --fs --volume group/none "$url/lvm" m
    says 'no logical volume group/none'
    wait_for 10 nothing_left
    ok 'a logical volume, without device-mapper'
fi

if grep -qw xfs /proc/filesystems && command -v mkfs.xfs >/dev/null; then
    truncate -s 320M xfs.img
    mkfs.xfs -q xfs.img
    mount -o loop xfs.img tmp
    cp -a tree/. tmp/
    umount tmp
    publish xfs.img xfs
    circular mount --fs "$url/xfs" m
    whole m || fail 'files differ'
    circular umount m
    wait_for 10 nothing_left
    ok 'xfs'
fi

if command -v setpriv >/dev/null; then
    expect 1 setpriv --reuid 65534 --regid 65534 --clear-groups "$circular" mount --fs "$url/disk" "$work/m"
    says 'for root'
    ok 'an ordinary user is told that this is for root'
fi
