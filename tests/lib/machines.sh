# shellcheck shell=sh
# Words for tests of machines that keep their state; sourced behind common.sh, after $url is known or before.
#   $machines                       the folder of all machines
#   said MACHINE TEXT, state MACHINE, is_state MACHINE STATE, no_mount
#   ask MACHINE COMMAND             says a QMP command without arguments to its QEMU; prints what it returns
#   hold MACHINE FILE               is connected to its QEMU as long as FILE is there: nobody else is answered
#   server_of_disk                  the pids of processes that serve this test's shared disks
#   small_linux                     vmlinuz and initrd.gz from the Debian disk: busybox, virtio, ext4, $more_modules
#                                   and ./init

machines=$XDG_STATE_HOME/circular/machines

said() {
    grep -aq "$2" "$machines/$1/serial.log"
}
state() {
    circular vm list --json | python3 -c 'import json, sys
print(*[m["state"] for m in json.load(sys.stdin)["machines"] if m["name"] == sys.argv[1]])' "$1"
}
is_state() {
    [ "$(state "$1")" = "$2" ]
}
no_mount() {
    ! grep -q "$work" /proc/self/mountinfo
}
ask() {
    (cd "$machines/$1" && python3 -c 'import json, socket, sys
control = socket.socket(socket.AF_UNIX)
control.settimeout(20)
control.connect("control")
lines = control.makefile("rw")
for number, command in enumerate(["qmp_capabilities", sys.argv[1]]):
    lines.write(json.dumps({"execute": command, "id": number}) + "\n")
    lines.flush()
    while (answer := json.loads(lines.readline())).get("id") != number:
        pass
print(json.dumps(answer["return"]))' "$2")
}
hold() {
    touch "$2"
    start sh -c 'cd "$1" && exec python3 -c "$2" "$3"' hold "$machines/$1" 'import os, socket, sys, time
control = socket.socket(socket.AF_UNIX)
control.connect("control")
control.recv(1)
print("held", flush=True)
while os.path.exists(sys.argv[1]):
    time.sleep(0.05)' "$work/$2"
    wait_for 30 grep -q held "$work/log.$pid"
}
server_of_disk() {
    for server in $(pgrep -f 'vm start| boot ' || :); do
        if [ "$(readlink "/proc/$server/exe")" = "$circular" ] && grep -zq "XDG_STATE_HOME=$work" "/proc/$server/environ" &&
            find "/proc/$server/fd" -lname /dev/fuse 2>/dev/null | grep -q .; then
            echo "$server"
        fi
    done
}

# Whatever happens, no machine and no server of a disk outlives the test.
end_machines() {
    for folder in "$machines"/*; do
        [ ! -d "$folder" ] || "$circular" vm stop --force "$(basename "$folder")" 2>/dev/null
    done
    for _ in $(seq 20); do
        no_mount && return 0
        sleep 0.5
    done
    server_of_disk | xargs -r kill -KILL
    awk -v work="$work" 'index($5, work) == 1 { print $5 }' /proc/self/mountinfo | xargs -r -n 1 umount -l
}
at_exit end_machines

small_linux() {
    file_system="$CIRCULAR_DEBIAN_DISK?offset=$((66 * 1048576))"
    kernel=$(debugfs -R 'ls -p /boot' "$file_system" 2>/dev/null | sed -n 's|.*/\(vmlinuz-[^/]*\)/.*|\1|p' | tail -n 1)
    release=${kernel#vmlinuz-}
    [ -n "$release" ] || fail "the Debian disk has no kernel"
    debugfs -R "dump /boot/$kernel vmlinuz" "$file_system" 2>/dev/null
    mkdir -p root/bin root/proc root/sys root/dev root/disk root/modules
    cp "$(command -v busybox)" root/bin/busybox
    cp init root/init
    chmod +x root/init
    debugfs -R "dump /lib/modules/$release/modules.dep modules.dep" "$file_system" 2>/dev/null
    for module in virtio_pci virtio_blk ext4 crc32c_generic ${more_modules:-}; do
        # What it needs first, which modules.dep has in reverse order.
        for path in $(sed -n "s|^\(kernel/[^:]*/$module\.ko\): *|\1 |p" modules.dep | tr ' ' '\n' | tac); do
            name=$(basename "$path")
            [ ! -e "root/modules/$name" ] || continue
            debugfs -R "dump /lib/modules/$release/$path root/modules/$name" "$file_system" 2>/dev/null
            echo "$name" >>root/modules/order
        done
    done
    (cd root && find . | cpio -o -H newc --quiet | gzip -1) >initrd.gz
}
