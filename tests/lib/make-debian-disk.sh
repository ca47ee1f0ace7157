#!/bin/sh
# Make a real Debian 12 disk image: 3 GiB raw, GPT, boots by BIOS and by UEFI with GRUB to a login prompt on the
# serial console (root, no password). Or make its next version: a copy in which more packages were installed.
#
#   make-debian-disk.sh OUT                               from Debian's packages, 2 minutes
#   make-debian-disk.sh OUT --from BASE --packages LIST   BASE after `apt-get install LIST`, as its user would do it
#   --packages LIST   without --from: further packages for a new disk
#   --force           make it again although OUT is there and was made in the same way
#
# Needs root, for the ownership of the files (and a loop mount with --from). Packages come from where the host's
# own apt takes them. The same packages give nearly the same bytes: all UUIDs, seeds and times are fixed.
set -eu

disk_mib=3072
esp_start_mib=2 esp_mib=64
root_start_mib=66
root_mib=$((disk_mib - root_start_mib - 1))
disk_uuid=6f53c1a0-0000-4000-8000-000000000001
bios_uuid=6f53c1a0-0000-4000-8000-000000000002
esp_uuid=6f53c1a0-0000-4000-8000-000000000003
part_uuid=6f53c1a0-0000-4000-8000-000000000004
root_uuid=6f53c1a0-0000-4000-8000-000000000005
hash_seed=6f53c1a0-0000-4000-8000-000000000006
esp_serial=05c1c0de
base_packages=systemd-sysv,linux-image-amd64,udev,dbus,iproute2,ifupdown,isc-dhcp-client,openssh-server,ca-certificates
base_packages=$base_packages,tpm2-tools
: "${SOURCE_DATE_EPOCH:=1732147200}"
export SOURCE_DATE_EPOCH
export E2FSPROGS_FAKE_TIME="$SOURCE_DATE_EPOCH"
export LC_ALL=C.UTF-8
. "$(dirname "$0")/apt.sh"

die() {
    echo "make-debian-disk: $*" >&2
    exit 1
}

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit "$1"
}

out='' from='' packages='' force=false
while [ $# -gt 0 ]; do
    case $1 in
    --from) from=${2:?} && shift ;;
    --packages) packages=$(echo "${2?}" | tr ' ' ',') && shift ;;
    --force) force=true ;;
    -h | --help) usage 0 ;;
    -*) usage 2 >&2 ;;
    *) [ -z "$out" ] || usage 2 >&2; out=$1 ;;
    esac
    shift
done
[ -n "$out" ] || usage 2 >&2

recipe="$(sha256sum <"$0") $packages $(if [ -n "$from" ]; then cat "$from.recipe" 2>/dev/null || echo "$from"; fi)"
recipe=$(echo "$recipe" | sha256sum | cut -c1-64)
if ! $force && [ -f "$out" ] && [ "$(cat "$out.recipe" 2>/dev/null)" = "$recipe" ]; then
    exit 0
fi

[ "$(id -u)" = 0 ] || die "must be root, to give the files in the disk their owners"
for tool in mmdebstrap sfdisk mke2fs mkfs.vfat mcopy grub-mkimage; do
    command -v "$tool" >/dev/null || die "needs $tool: run ./demo or ./check, which install what is missing"
done

mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$out")/.make-disk.XXXXXX")
mounted=''
clean_up() {
    for point in $mounted; do
        umount "$point" 2>/dev/null || umount -l "$point"
    done
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

make_tree() {
    host_apt_options >"$work/apt-options"
    set -- --variant=minbase --include="$base_packages${packages:+,$packages}" --aptopt="$work/apt-options" \
        --customize-hook='rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap" "$1"/etc/ssh/ssh_host_*' \
        --customize-hook='chroot "$1" passwd -q -d root' bookworm "$work/tree"
    # shellcheck disable=SC2046  # paths of our own making, without spaces
    mmdebstrap --quiet "$@" $(host_apt_sources "$work") >"$work/log" 2>&1 || {
        tail -n 30 "$work/log" >&2
        die "mmdebstrap failed"
    }
    configure_tree
}

configure_tree() {
    echo debian12 >"$work/tree/etc/hostname"
    : >"$work/tree/etc/machine-id"
    rm -f "$work/tree/var/lib/dbus/machine-id" "$work/tree/etc/resolv.conf"
    printf '127.0.0.1 localhost debian12\n::1 localhost\n' >"$work/tree/etc/hosts"
    cat >"$work/tree/etc/fstab" <<END
UUID=$root_uuid / ext4 errors=remount-ro 0 1
END
    cat >"$work/tree/etc/network/interfaces" <<'END'
auto lo
iface lo inet loopback
allow-hotplug eth0
iface eth0 inet dhcp
END
    mkdir -p "$work/tree/etc/systemd/system/ssh.service.d" "$work/tree/boot/grub"
    cat >"$work/tree/etc/systemd/system/ssh.service.d/own-keys.conf" <<'END'
# Every machine that runs this disk makes keys of its own.
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
END
    cat >"$work/tree/boot/grub/grub.cfg" <<END
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=1
menuentry "Debian 12" {
    linux /vmlinuz root=UUID=$root_uuid ro net.ifnames=0 console=tty0 console=ttyS0,115200
    initrd /initrd.img
}
END
}

# The partition table, and GRUB for BIOS: boot.img in the first sector loads core.img from the BIOS boot partition.
partition() {
    truncate -s "${disk_mib}M" "$1"
    sfdisk --quiet "$1" <<END
label: gpt
label-id: $disk_uuid
start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649, uuid=$bios_uuid, name=bios
start=${esp_start_mib}MiB, size=${esp_mib}MiB, type=uefi, uuid=$esp_uuid, name=esp
start=${root_start_mib}MiB, size=${root_mib}MiB, type=linux, uuid=$part_uuid, name=root
END
}

grub_image() { # FORMAT PREFIX MODULES...
    format=$1 prefix=$2
    shift 2
    printf 'search --no-floppy --fs-uuid --set=root %s\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' \
        "$root_uuid" >"$work/early.cfg"
    grub-mkimage -O "$format" -p "$prefix" -c "$work/early.cfg" -o "$work/$format.img" \
        part_gpt ext2 search search_fs_uuid configfile normal linux boot echo serial terminal gzio minicmd reboot "$@"
}

little_endian() { # VALUE: eight bytes
    value=$1 text=''
    for _ in 1 2 3 4 5 6 7 8; do
        text="$text\\$(printf %03o $((value & 255)))"
        value=$((value >> 8))
    done
    # shellcheck disable=SC2059
    printf "$text"
}

boot_by_bios() {
    grub_image i386-pc /boot/grub biosdisk
    core_sector=2048
    [ "$(stat -c %s "$work/i386-pc.img")" -lt 1048576 ] || die "GRUB's core image does not fit"
    dd if=/usr/lib/grub/i386-pc/boot.img of="$1" bs=1 count=440 conv=notrunc status=none
    little_endian "$core_sector" | dd of="$1" bs=1 seek=92 conv=notrunc status=none
    dd if="$work/i386-pc.img" of="$1" bs=512 seek="$core_sector" conv=notrunc status=none
    little_endian $((core_sector + 1)) | dd of="$1" bs=1 seek=$((core_sector * 512 + 500)) conv=notrunc status=none
}

boot_by_uefi() {
    grub_image x86_64-efi /boot/grub fat efi_gop
    truncate -s "${esp_mib}M" "$work/esp"
    mkfs.vfat --invariant -F 32 -n ESP -i "$esp_serial" "$work/esp" >/dev/null
    touch -d "@$SOURCE_DATE_EPOCH" "$work/x86_64-efi.img"
    mmd -i "$work/esp" ::/EFI ::/EFI/BOOT
    mcopy -m -i "$work/esp" "$work/x86_64-efi.img" ::/EFI/BOOT/BOOTX64.EFI
    dd if="$work/esp" of="$1" bs=1M seek="$esp_start_mib" conv=notrunc,sparse status=none
}

make_disk() {
    make_tree
    partition "$work/disk"
    mke2fs -q -F -t ext4 -L root -U "$root_uuid" -O ^metadata_csum_seed,^orphan_file -m 1 \
        -E "offset=$((root_start_mib * 1048576)),hash_seed=$hash_seed,lazy_itable_init=0,lazy_journal_init=0" \
        -d "$work/tree" "$work/disk" "${root_mib}M"
    boot_by_bios "$work/disk"
    boot_by_uefi "$work/disk"
}

# Mount something that clean_up takes away again, last first.
mount_until_exit() { # POINT ARGUMENTS...
    point=$1
    shift
    mount "$@" "$point"
    mounted="$point $mounted"
}

make_update() {
    cp --sparse=always "$from" "$work/disk"
    mkdir "$work/root"
    mount_until_exit "$work/root" -o "loop,discard,offset=$((root_start_mib * 1048576))" "$work/disk"
    for folder in var/lib/apt/lists var/cache/apt tmp; do
        mount_until_exit "$work/root/$folder" -t tmpfs none
    done
    mkdir -p "$work/root/var/cache/apt/archives/partial" "$work/root/var/lib/apt/lists/partial"
    mount_until_exit "$work/root/proc" -t proc none
    mount_until_exit "$work/root/dev" --bind /dev
    host_apt_options >"$work/root/tmp/apt.conf"
    cat >"$work/root/tmp/policy-rc.d" <<'END'
#!/bin/sh
exit 101
END
    chmod +x "$work/root/tmp/policy-rc.d"
    : >"$work/root/usr/sbin/policy-rc.d"
    mount_until_exit "$work/root/usr/sbin/policy-rc.d" --bind "$work/root/tmp/policy-rc.d"
    cp /etc/resolv.conf "$work/root/etc/resolv.conf"
    chroot "$work/root" /bin/sh -euc "
        export APT_CONFIG=/tmp/apt.conf DEBIAN_FRONTEND=noninteractive
        apt-get -q update
        apt-get -q install -y --no-install-recommends $(echo "$packages" | tr ',' ' ')" </dev/null >"$work/log" 2>&1 || {
        tail -n 30 "$work/log" >&2
        die "apt-get in the disk failed"
    }
    rm -f "$work/root/etc/resolv.conf"
    umount "$work/root/usr/sbin/policy-rc.d"
    mounted=${mounted#* }
    rm -f "$work/root/usr/sbin/policy-rc.d"
    for point in $mounted; do
        umount "$point"
        mounted=${mounted#* }
    done
    e2fsck -fn "$work/disk?offset=$((root_start_mib * 1048576))" >/dev/null 2>&1 || die "the new file system is damaged"
}

if [ -n "$from" ]; then
    [ -n "$packages" ] || die "--from needs --packages"
    make_update
else
    make_disk
fi
fallocate --dig-holes "$work/disk"
mv "$work/disk" "$out"
echo "$recipe" >"$out.recipe"
