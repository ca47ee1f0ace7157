#!/bin/sh
# What a machine is given by options that no other test uses: a serial port in a file, a bridge, displays that are
# missing or at a socket, and a way in by ssh.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires qemu-system-x86_64 qemu-img as ld python3
. "$top/tests/lib/guest.sh"
. "$top/tests/lib/machines.sh"

make_guest ends.img x
make_guest waits.img w
make_key lab
for name in ends waits; do circular publish $name.img --name $name --version 1 --key lab.sec --to archive; done
trust_key lab
start_server archive

expect 33 circular boot "$url/ends" --memory 64M --serial said -- -device isa-debug-exit,iobase=0xf4,iosize=4
says_not 'from the published disk'
grep -q 'from the published disk' said || fail "the serial port's file holds: $(cat said)"
expect 1 circular boot "$url/ends" --memory 64M --serial none/said
ok 'a serial port goes to a file'

for kind in wire bridge= bridge=a/b "bridge=$(printf 'b%.0s' $(seq 40))"; do
    expect 2 circular boot "$url/ends" --net "$kind"
    says 'net is user, none or bridge=NAME'
done
expect 2 circular boot "$url/ends" --display cinema
expect 2 circular boot "$url/ends" --net none --forward 2222:22
says 'forwarded by --net user only'
helper=/usr/lib/qemu/qemu-bridge-helper
if [ "$(id -u)" = 0 ] && [ -x $helper ] && [ -c /dev/net/tun ] && unshare -mn ip link add br0 type bridge 2>/dev/null; then
    # In namespaces of its own, with the bridge that QEMU's helper may use.
    cat >bridged <<'SCRIPT'
set -e
mount --bind etc /etc
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
"$@" --net bridge=br0 </dev/null >refused 2>&1 && exit 1
echo 'allow br0' >/etc/qemu/bridge.conf
"$@" --net bridge=br0 </dev/null >bridged.log 2>&1 &
for _ in $(seq 600); do
    ! ip -o link show master br0 | grep -q tap || break
    sleep 0.1
done
ip -o link show master br0 >ports
kill $!
wait $! || :
for _ in $(seq 600); do
    grep -q " $PWD/.* fuse.circular" /proc/self/mountinfo || exit 0
    sleep 0.1
done
echo 'its mount stays' >&2
exit 1
SCRIPT
    cp -a /etc etc
    mkdir -p etc/qemu
    rm -f etc/qemu/bridge.conf
    expect 0 unshare -mn sh bridged "$circular" boot "$work/archive/waits" --memory 64M
    grep -q 'bridge helper failed' refused || fail "a bridge that QEMU may not use: $(cat refused)"
    grep -q 'tap.* master br0' ports || fail "the machine is not at the bridge: $(cat ports bridged.log)"
    ok 'a machine is plugged into a bridge; one that QEMU may not use is refused'
fi

modules=/usr/lib/x86_64-linux-gnu/qemu
if [ "$(id -u)" = 0 ] && [ -d $modules ] && unshare --mount true 2>/dev/null; then
    for pair in gtk:qemu-system-gui spice:qemu-system-modules-spice; do
        # shellcheck disable=SC2016
        expect 1 unshare --mount sh -c 'mount -t tmpfs none "$1" && shift && exec "$@"' sh $modules \
            "$circular" boot "$url/ends" --display "${pair%:*}"
        says "Debian package ${pair#*:} "
    done
    ok 'a display that is missing is named with its package before anything starts'
fi
if [ -e $modules/ui-spice-core.so ]; then
    expect 0 circular vm start screen "$url/waits" --memory 64M --display spice
    says 'SPICE at the socket'
    [ -S "$XDG_RUNTIME_DIR/circular/display-screen" ] || fail 'there is no socket'
    expect 0 circular vm stop -f screen
    expect 0 circular vm delete screen --yes
    ok 'SPICE is at a socket'
fi

# What ssh is called with, as the guest has none; uml.sh has one that answers.
mkdir path
printf '#!/bin/sh\nprintf "%%s\\n" "$@"\n' >path/ssh
chmod +x path/ssh
expect 0 circular vm start box "$url/waits" --memory 64M
wait_for 100 said box '^ready'
listen=$(circular vm info box --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["ssh_port"])')
listening "$listen"
PATH=$work/path:$PATH expect 0 "$circular" vm ssh box -- uname -a
cat >wanted <<SCRIPT
-p
$listen
-o
HostKeyAlias=circular-box
-o
UserKnownHostsFile="$machines/box/known_hosts"
-o
StrictHostKeyChecking=accept-new
-l
root
127.0.0.1
uname
-a
SCRIPT
same out wanted
PATH=$work/path:$PATH expect 0 "$circular" vm ssh --user me box
says '^me$'
PATH=/none expect 1 "$circular" vm ssh box
says 'Debian package openssh-client'
expect 0 circular vm stop -f box
PATH=$work/path:$PATH expect 3 "$circular" vm ssh box
says 'box does not run'
expect 3 circular vm ssh nobody
expect 2 circular vm ssh ../box
expect 0 circular vm start box --net none
PATH=$work/path:$PATH expect 1 "$circular" vm ssh box
says 'no port of this host leads to port 22 of box'
ok 'vm ssh reaches the port that leads to the guest, and says why where it cannot'
