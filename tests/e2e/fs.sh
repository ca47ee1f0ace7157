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
    ! grep -lxE '/(disk|data|dirty|lvm|pieces|group:root|group:stripes|half|xfs)' /sys/block/loop*/loop/backing_file >/dev/null 2>&1 &&
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
wait_for 30 nothing_left
ok 'the largest file system, every file right, undone by umount'

circular mount --fs --partition 3 "$url/disk" m
same m/name small/name
umount m
wait_for 30 nothing_left
ok 'a chosen partition; plain umount undoes everything too'

expect 3 circular mount --fs --partition 1 "$url/disk" m
says 'no partition 1 with a file system'
expect 3 circular mount --fs --partition 7 "$url/disk" m
says 'no partition 7'
wait_for 30 nothing_left
make_image empty.img 2
publish empty.img data
expect 3 circular mount --fs "$url/data" m
says 'no file system'
wait_for 30 nothing_left
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
wait_for 30 nothing_left
ok 'in use is told; --lazy waits for the last user'

start env --ignore-signal=CHLD --block-signal=TERM "$circular" mount -f --fs "$url/disk" m
wait_for 30 mountpoint -q m
stop "$pid"
[ "$status" = 0 ] || fail "the mount ended with status $status"
mountpoint -q m && fail 'still mounted'
wait_for 30 nothing_left
ok 'SIGTERM undoes everything, also for one that was started with signals ignored and blocked'

start "$circular" mount -f --fs "$url/disk" m
wait_for 30 mountpoint -q m
stop "$pid" KILL
umount m
wait_for 30 nothing_left
circular mount --fs "$url/disk" m
whole m || fail 'files differ'
circular umount m
wait_for 30 nothing_left
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
    lvm2() { # ARGUMENTS...: on DEVICES alone, without device-mapper
        verb=$1
        shift
        lvm "$verb" --devices "$devices" --driverloaded n --config 'backup{backup=0 archive=0}' "$@"
    }
    create() { # ARGUMENTS...
        lvm2 lvcreate -an -Zn -Wn "$@"
    }
    attach() { # OFFSET-MIB SIZE-MIB: a part of lvm.img
        attach_loop --offset $(($1 * 1048576)) --sizelimit $(($2 * 1048576)) lvm.img
    }
    # What a volume holds is put where lvm says that its extents lie, by nothing that this project has written.
    place() { # FILE VOLUME: linear segments only
        lvm2 lvs --noheadings --nosuffix --units b --separator ' ' --segments --sort seg_start \
            -o seg_start,seg_size,seg_pe_ranges,vg_extent_size "$2" >segments
        while read -r start size range extent; do
            first=${range##*:}
            dd if="$1" of="${range%:*}" bs=1M iflag=skip_bytes,count_bytes,fullblock oflag=seek_bytes conv=notrunc \
                skip="$start" count="$size" seek=$((1048576 + ${first%-*} * extent)) status=none
        done <segments
    }
    truncate -s 128M lvm.img
    attach_loop lvm.img
    devices=$loop
    lvm2 pvcreate -y "$devices"
    lvm2 vgcreate group "$devices"
    create -L 16M -n other group
    create -L 60M -n root group
    detach_loop "$devices"
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
    wait_for 30 nothing_left
    expect 3 circular mount --fs --volume group/none "$url/lvm" m
    says 'no logical volume group/none'
    wait_for 30 nothing_left
    ok 'a logical volume, without device-mapper'

    # Volumes in pieces: in three segments over two partitions, the first behind the second; striped over both.
    rm lvm.img
    truncate -s 192M lvm.img
    sfdisk -q lvm.img <<'END'
label: gpt
start=2048, size=8192, type=linux
start=16384, size=163840, type=lvm
start=180224, size=204800, type=lvm
END
    attach 8 80
    first=$loop
    attach 88 100
    second=$loop
    devices=$first,$second
    lvm2 pvcreate -y "$first" "$second"
    lvm2 vgcreate group "$first" "$second"
    create -L 24M -n root group "$second"
    create -L 8M -n between group "$second"
    lvm2 lvextend -L +16M group/root "$second"
    lvm2 lvextend -L +20M group/root "$first"
    create -i 2 -I 64k -L 32M -n stripes group
    create -L 4M -n snap group "$first"
    create -L 4M -n small group "$first"
    [ "$(lvm2 lvs --noheadings --segments group/root | wc -l)" = 3 ] || fail 'the volume is not in three segments'
    truncate -s 60M root.img
    mke2fs -q -t ext4 -d tree root.img
    place root.img group/root
    truncate -s 4M small.img
    mke2fs -q -t ext4 -d small small.img
    place small.img group/small
    # Turns of 64 KiB, from where both halves of the striped volume begin.
    truncate -s 32M stripes.img
    mke2fs -q -t ext2 -d tree stripes.img
    range=$(lvm2 lvs --noheadings -o seg_pe_ranges group/stripes)
    i=0
    for part in $range; do
        from=${part##*:}
        python3 - stripes.img "${part%:*}" $i $((1048576 + ${from%-*} * 4194304)) <<'END'
import sys
source, target, turn, offset = sys.argv[1:]
data = open(source, "rb").read()
with open(target, "r+b") as device:
    device.seek(int(offset))
    device.write(b"".join(data[at:at + 65536] for at in range(int(turn) * 65536, len(data), 131072)))
END
        i=$((i + 1))
    done
    # Segments that only device-mapper knows, written into the group's metadata.
    lvm2 vgcfgbackup -f metadata group
    python3 - metadata <<'END'
import sys
def volume(name, count, segment, visible=', "VISIBLE"'):
    return f"""{name} {{
id = "{(name * 32)[:6]}-0000-0000-0000-0000-0000-000000"
status = ["READ", "WRITE"{visible}]
segment_count = 1
segment1 {{
start_extent = 0
extent_count = {count}
{segment}
}}
}}
"""
text = open(sys.argv[1]).read()
place = "logical_volumes {\n"
new = volume("frozen", 1, 'type = "snapshot"\nchunk_size = 8\norigin = "between"\ncow_store = "snap"', "")
new += volume("nothing", 5, 'type = "zero"')
open(sys.argv[1], "w").write(text.replace(place, place + new))
END
    lvm2 vgcfgrestore -f metadata group
    detach_loop "$first"
    detach_loop "$second"
    publish lvm.img pieces
    circular mount --fs "$url/pieces" m
    whole m || fail 'files differ'
    circular umount m
    wait_for 30 nothing_left
    circular mount --fs --volume group/stripes "$url/pieces" m >line
    whole m || fail 'files of the striped volume differ'
    grep -q 'group/stripes on partition 2' line || fail "it says $(cat line)"
    circular umount m
    circular mount --fs --partition 2 --volume small "$url/pieces" m
    same m/name small/name
    circular umount m
    wait_for 30 nothing_left
    ok 'volumes in several pieces, over two partitions, and striped'

    expect 1 circular mount --fs --volume snap "$url/pieces" m
    says 'group/snap is a snapshot'
    says 'without --fs'
    expect 1 circular mount --fs --volume nothing "$url/pieces" m
    says 'group/nothing is of type zero'
    expect 3 circular mount --fs --partition 3 --volume small "$url/pieces" m
    says 'no logical volume small'
    wait_for 30 nothing_left
    # The second physical volume is not on this disk.
    sfdisk -q --delete lvm.img 3
    publish lvm.img half
    expect 1 circular mount --fs --volume root "$url/half" m
    says 'group/root lies partly on a physical volume, which this disk does not hold'
    wait_for 30 nothing_left
    ok 'volumes that need more than the disk are refused by name'
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
    wait_for 30 nothing_left
    ok 'xfs'
fi

if command -v setpriv >/dev/null; then
    expect 1 setpriv --reuid 65534 --regid 65534 --clear-groups "$circular" mount --fs "$url/disk" "$work/m"
    says 'for root'
    ok 'an ordinary user is told that this is for root'
fi
