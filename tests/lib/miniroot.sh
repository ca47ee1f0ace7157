# shellcheck shell=sh
# A small root file system in memory for a virtual machine in a test: programs of this host with their libraries, the
# kernel of a Debian disk with some of its modules. Sourced; the caller has $root, the folder that it becomes.

# The kernel of DISK, whose third partition is its root file system, as FILE; then install_module works.
use_kernel() { # DISK FILE
    kernel_disk=$1
    kernel_start=$(sfdisk -q -l -o Device,Start "$1" | awk '$1 ~ /3$/ { print $2 }')
    kernel_version=$(inside "ls -p /lib/modules" | cut -d/ -f6 | grep '^[0-9]' | sort -V | tail -n 1)
    inside "dump /boot/vmlinuz-$kernel_version $2"
    [ -s "$2" ] || { echo "$1 has no kernel" && return 1; }
}

# A command of debugfs in the disk.
inside() {
    debugfs -R "$1" "$kernel_disk?offset=$((kernel_start * 512))" 2>/dev/null
}

begin_root() {
    rm -rf "$root"
    for made in bin sbin dev proc sys run tmp etc var/tmp var/lock mnt usr/bin usr/sbin usr/lib/x86_64-linux-gnu lib64 \
        lib/modules; do
        mkdir -p "$root/$made"
    done
    cp "$(command -v busybox)" "$root/bin/busybox"
    cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
    printf 'root:x:0:0:root:/:/bin/sh\n' >"$root/etc/passwd"
    : >"$root/lib/modules/list"
}

# FILE as NAME, with the libraries that it needs, looked for in $libraries first.
install_program() { # FILE NAME
    mkdir -p "$(dirname "$root$2")"
    cp "$1" "$root$2"
    LD_LIBRARY_PATH=${libraries:-} ldd "$1" | sed -nE 's/.* => ([^ ]+) .*/\1/p' | while read -r library; do
        cp -nL "$library" "$root/usr/lib/x86_64-linux-gnu/" 2>/dev/null || :
    done
}

# MODULE after what it depends on, which modules.dep lists last first; /lib/modules/list has their order.
install_module() { # MODULE
    [ -f "$root.dep" ] || inside "dump /lib/modules/$kernel_version/modules.dep $root.dep"
    line=$(grep -E "/$(echo "$1" | sed 's/[-_]/[-_]/g')\.ko:" "$root.dep") || return 0 # built in
    for file in $(echo "$line" | tr -d : | tr ' ' '\n' | tac); do
        module=/lib/modules/${file##*/}
        grep -qxF "$module" "$root/lib/modules/list" && continue
        inside "dump /lib/modules/$kernel_version/$file $root$module"
        echo "$module" >>"$root/lib/modules/list"
    done
}

# Standard input is what init does after this much.
write_init() {
    cat >"$root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
echo 1 >/proc/sys/kernel/printk
while read -r module; do
    insmod "$module"
done </lib/modules/list
END
    cat >>"$root/init"
    chmod 755 "$root/init"
}

pack_root() { # FILE
    (cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$1"
}
