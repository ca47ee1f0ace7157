"""The warm page cache of a mount in a guest that runs the Debian disk's own kernel: for row_guest of measure.py."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

MIB = 1 << 20
DATA = 192 * MIB
ROOT = 66 * MIB  # where the disk's ext4 begins
LIMIT = 1500     # seconds

# Runs as process 1. The turns alternate, so that what else the host does meanwhile counts on both sides.
SCRIPT = """
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp XDG_RUNTIME_DIR=/tmp
mount -t proc proc /proc
mount -t tmpfs tmpfs /tmp
modprobe fuse
cd /mnt
echo "KERNEL $(uname -r)"
mkdir /tmp/mounted
lib/ld.so --library-path /mnt/lib /mnt/circular mount --key bench.pub archive/data /tmp/mounted
cmp data /tmp/mounted/data && echo SAME
measure() {
    took=$(dd if=$2 of=/dev/null bs=1M 2>&1 | sed -n 's/.* \\([0-9.]*\\) s,.*/\\1/p')
    echo "TOOK $1 $took"
}
turn=0
while [ $turn -lt ROUNDS ]; do
    case $((turn % 2)) in
    0) measure plain data; measure ours /tmp/mounted/data ;;
    1) measure ours /tmp/mounted/data; measure plain data ;;
    esac
    turn=$((turn + 1))
done
umount /tmp/mounted
mount -o remount,ro /mnt
echo o >/proc/sysrq-trigger
sleep 100
"""


def copy_with_libraries(program, folder):
    """A program that runs in any Debian 12, whatever is installed there."""
    shutil.copy(program, folder / "circular")
    (folder / "lib").mkdir()
    for line in subprocess.run(["ldd", program], stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines():
        path = re.search(r"(/\S+) \(", line)
        if path:
            name = "ld.so" if "ld-linux" in path[1] else pathlib.Path(path[1]).name
            shutil.copy(path[1], folder / "lib" / name)


def used_data(disk, path):
    """The first DATA bytes of the disk's root that are no hole."""
    with open(disk, "rb") as source, open(path, "wb") as target:
        at = ROOT
        while target.tell() < DATA:
            at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            end = os.lseek(source.fileno(), at, os.SEEK_HOLE)
            source.seek(at)
            target.write(source.read(min(end - at, DATA - target.tell())))
            at = end


def kernel_of(disk, folder):
    """Copies of the disk's kernel and initial RAM disk."""
    def debugfs(command):
        return subprocess.run(["debugfs", "-R", command, f"{disk}?offset={ROOT}"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, check=True, text=True).stdout

    names = [line.split("/")[5] for line in debugfs("ls -p /boot").splitlines() if line.count("/") > 5]
    paths = []
    for kind in ("vmlinuz-", "initrd.img-"):
        name = max(name for name in names if name.startswith(kind))
        debugfs(f"dump /boot/{name} {folder / name}")
        paths.append(folder / name)
    return paths


def boot(disk, second, kernel, initrd, work):
    """What the guest says on its console."""
    overlay = work / "guest.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", overlay], check=True)
    init = 'init=/bin/sh -- -c "mount /dev/vdb /mnt; exec sh /mnt/run"'
    done = subprocess.run(
        ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "1536", "-nographic",
         "-no-reboot", "-nic", "none", "-kernel", kernel, "-initrd", initrd,
         "-append", f"console=ttyS0 quiet panic=-1 root=/dev/vda3 rw {init}",
         "-drive", f"file={overlay},if=virtio", "-drive", f"file={second},format=raw,if=virtio"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT, check=False)
    return done.stdout.decode(errors="replace")


def warm(bench, rounds):
    """The guest's kernel, and the seconds of each round: {"ours": [...], "plain": [...]}."""
    folder = bench.work / "guest"
    folder.mkdir()
    copy_with_libraries(bench.program, folder)
    used_data(bench.disk, folder / "data")
    bench.publish(folder / "data", "1", folder / "archive", "data")
    shutil.copy(bench.work / "bench.pub", folder)
    (folder / "run").write_text(SCRIPT.replace("ROUNDS", str(rounds)))
    second = bench.work / "guest.img"
    bench.run("mke2fs", "-q", "-t", "ext4", "-d", folder, second, "768M")
    said = boot(bench.disk, second, *kernel_of(bench.disk, bench.work), bench.work)
    shutil.rmtree(folder)
    second.unlink()
    took = {"ours": [], "plain": []}
    for name, seconds in re.findall(r"^TOOK (\w+) ([0-9.]+)\r?$", said, re.MULTILINE):
        took[name].append(float(seconds))
    kernel = re.search(r"KERNEL ([0-9.]+)", said)
    if not kernel or "SAME" not in said or any(len(seconds) != rounds for seconds in took.values()):
        sys.exit(f"the guest said:\n{said[-3000:]}")
    return kernel[1], took
