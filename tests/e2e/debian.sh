#!/bin/sh
# A real disk through the whole path: the ext4 inside the FUSE disk, loop-mounted, passes e2fsck and every file in it
# has the source's sha256. The Debian disk where it has been made (./demo, ./check as root), else an ext4 with
# /usr/share/doc in it.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires_loop
requires e2fsck mke2fs

image=${CIRCULAR_DEBIAN_DISK:-$build/demo/debian12.raw}
offset=$((66 * 1048576))
if [ ! -f "$image" ]; then
    image=$work/small.raw
    offset=1048576
    truncate -s 200M "$image"
    mke2fs -q -F -t ext4 -E "offset=$offset" -d /usr/share/doc "$image" 190M
fi

make_key lab
circular publish "$image" --name debian12 --version 1 --key lab.sec --to archive
start_server archive
start_mount "$url/debian12" mnt --key lab.pub

digests() { # FOLDER
    (cd "$1" && find . -xdev -type f -print0 | sort -z | xargs -0 sha256sum)
}
tree() { # FOLDER
    (cd "$1" && find . -xdev -printf '%p %y %m %U %G %s %T@ %l\n' | sort)
}

attach_loop -r -o "$offset" mnt/debian12
disk_loop=$loop
expect 0 e2fsck -fn "$disk_loop"
ok "e2fsck -fn finds nothing wrong in the disk's ext4"

attach_loop -r -o "$offset" "$image"
mkdir source disk
mount -o ro,noload "$loop" source
at_exit release_folder "$work/source"
mount -o ro,noload "$disk_loop" disk
at_exit release_folder "$work/disk"
tree source >source.tree
tree disk >disk.tree
same source.tree disk.tree
ok "names, kinds, modes, owners, sizes and times of $(wc -l <disk.tree) entries are the source's"
digests source >source.digests
digests disk >disk.digests
same source.digests disk.digests
[ "$(wc -l <disk.digests)" -gt 100 ] || fail "only $(wc -l <disk.digests) files"
ok "every one of $(wc -l <disk.digests) files has the source's sha256"
umount disk
detach_loop "$disk_loop"
stop_mount mnt
