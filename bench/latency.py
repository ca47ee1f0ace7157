#!/usr/bin/env python3
"""Boots over long links, against their peers: run by bench/latency, which says how. Standard library only."""
import argparse
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import chart
import measure
import simulation
from measure import MIB, remove
from simulation import end

LINKS = [(100, 100), (20, 1000), (200, 20), (0.1, 10000), (0, 10000)]  # ms of round trip, Mbit/s; 0: no link between
NEAR = 10000  # from here on
NEAR_ROUNDS = 11  # at least: short, and much depends on what else the machine does
PACK_ROUNDS = 7  # at least: how the link is shared by the streams of a pack is other in each run
BLOCK = 65536
ROOT_OFFSET = 66 * MIB  # of the file system in the disk of make-debian-disk.sh
BOOT_LIMIT = 300  # seconds to a login prompt
CASYNC_SECONDS = 12
CASYNC_MIB = 256  # of the disk: enough chunks for that time
ROW_LIMIT = 900  # seconds for one program, when something hangs
HERE = pathlib.Path(__file__).resolve().parent


WRITTEN = ["bench/README.md", "bench/latency.svg", "docs/scale.md"]  # by this bench


def commit():
    """What is measured: the short name of the commit, with "-dirty" if there are changes beyond what a bench has written."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              check=False).stdout.decode().strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{path}" for path in WRITTEN))
    return (git("describe", "--always") or "unknown") + ("-dirty" if changed else "")


def wait_until(condition, seconds, what):
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            sys.exit(f"{what}: not within {seconds} s")
        time.sleep(0.002)


# Recording, once for each disk.

def direct_boot_arguments(disk, folder):
    """The disk's own kernel, initial RAM disk and command line, for a boot without a boot loader."""
    source = f"{disk}?offset={ROOT_OFFSET}"

    def debugfs(command):
        return subprocess.run(["debugfs", "-R", command, source], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              check=True).stdout.decode(errors="replace")

    names = re.findall(r"((?:vmlinuz|initrd\.img)-[^ \n]+)", debugfs("ls -l /boot"))
    for name in names:
        debugfs(f"dump /boot/{name} {folder}/{name.split('-')[0]}")
    words = re.search(r"^ *linux +\S+ +(.*)$", debugfs("cat /boot/grub/grub.cfg"), re.M).group(1)
    return ["-kernel", f"{folder}/vmlinuz", "-initrd", f"{folder}/initrd.img", "-append", words + " panic=-1"]


def boot(folder, drive, *arguments):
    """Seconds until QEMU shows a login prompt."""
    console = pathlib.Path(folder) / "console"
    start = time.monotonic()
    with open(console, "wb") as output:
        qemu = subprocess.Popen(["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-smp", "2", "-m", "1024",
                                 "-nographic", "-no-reboot", "-nic", "none", "-drive", drive, *arguments],
                                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        while b"login: " not in console.read_bytes():
            if qemu.poll() is not None or time.monotonic() - start > BOOT_LIMIT:
                sys.exit(f"no login prompt:\n{console.read_bytes()[-2000:].decode(errors='replace')}")
            time.sleep(0.05)
        return time.monotonic() - start
    finally:
        end(qemu)


def record_trace(bench, trace):
    """The reads of one boot, as an NBD server sees them: "OFFSET COUNT" in bytes, a line each."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=bench.work))
    arguments = direct_boot_arguments(bench.disk, folder)
    with nbdkit(bench, ["--filter=log", "file", bench.disk, f"logfile={folder}/log"]) as socket:
        boot(folder, f"file=nbd+unix:///?socket={socket},format=raw,if=virtio,snapshot=on", *arguments)
    reads = re.findall(r"Read id=\d+ offset=0x([0-9a-f]+) count=0x([0-9a-f]+) ", (folder / "log").read_text())
    trace.write_text("".join(f"{int(offset, 16)} {int(count, 16)}\n" for offset, count in reads))
    shutil.rmtree(folder)


def record_boot_profile(bench, profile):
    """What a boot from the disk itself, boot loader and all, touches first."""
    with bench.mount(bench.www / "plain/debian12", "--record", profile) as (folder, _, _):
        boot_overlay(bench, folder / "debian12")
    bench.forget()


def boot_overlay(bench, disk):
    """Boot from a throw-away overlay on DISK; seconds."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=bench.work))
    bench.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", folder / "overlay.qcow2")
    seconds = boot(folder, f"file={folder}/overlay.qcow2,format=qcow2,if=virtio")
    shutil.rmtree(folder)
    return seconds


class Bench(measure.Bench):
    """measure.Bench with the archives of this bench: "plain" as published, "packed" with packs of everything, "replay" and "boot"
    with a boot pack."""

    def __init__(self, options, work):
        options.program, options.update = f"{options.build}/src/cmd/circular", options.disk
        super().__init__(options, work)
        self.build = pathlib.Path(options.build).resolve()
        self.kept = pathlib.Path(self.disk).parent
        if not os.access(self.kept, os.W_OK):
            self.kept = self.build
        self.path = self.build / "latency.json"
        self.commit = commit()
        self.results = {}

    def load(self, keep):
        """With KEEP, go on with the rows that were measured before, on this machine and with this disk."""
        status = os.stat(self.disk)
        about = {"machine": measure.machine().rsplit(", ", 1)[0], "disk": [status.st_size, int(status.st_mtime)]}
        if keep and self.path.exists():
            self.results = json.loads(self.path.read_text())
            if any(self.results.get(key) != value for key, value in about.items()):
                print(f"{self.path} is of another machine or disk: begun anew", flush=True)
                self.results = {}
        self.results.update(about)
        self.results.pop("failed", None)

    def save(self):
        """After each row, so that whatever ends a run, what it has measured is there."""
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.results, indent=1))
        part.replace(self.path)

    def done(self, step):
        self.results.setdefault("steps", {})[step] = [time.strftime("%Y-%m-%d"), self.commit]
        self.save()

    def forget(self):
        for name in ("cache", "state"):
            measure.set_aside(self.work / name)

    def recorded(self, kind, record):
        """The file KIND beside the disk, recorded if there is none for this disk yet."""
        path = self.kept / f"{os.path.basename(self.disk)}.{kind}"
        if not path.exists() or path.stat().st_mtime < os.stat(self.disk).st_mtime:
            print(f"recording {path}", flush=True)
            part = path.with_suffix(".part")
            record(self, part)
            part.rename(path)
        return path

    def prepare(self, parts):
        self.publish(self.disk, "1", self.www / "plain")
        os.symlink(self.disk, self.www / "disk.raw")
        if parts & {"peers", "ours", "simulation"}:
            self.trace = self.recorded("boot-trace", record_trace)
            self.prepare_replay()
        if "ours" in parts:
            self.run("cp", "-al", self.www / "plain", self.www / "packed")
            self.run(self.program, "pack", "--all", self.www / "packed", "debian12")
            self.run("zstd", "-q", "-3", "-T2", self.disk, "-o", self.www / "disk.raw.zst")
        if parts & {"boot", "pull"} and not (self.www / "boot").exists():
            self.with_pack("boot", self.recorded("boot-profile", record_boot_profile))

    def with_pack(self, name, profile):
        self.run("cp", "-al", self.www / "plain", self.www / name)
        self.run(self.program, "profile", "add", self.www / name, "debian12", profile)
        self.run(self.program, "pack", self.www / name, "debian12")

    def prepare_replay(self):
        profile = self.work / "replay-profile"
        with self.mount(self.www / "plain/debian12", "--prefetch", "none", "--record", profile) as (folder, _, _):
            self.checksum = self.replay(folder / "debian12")
        self.forget()
        self.with_pack("replay", profile)
        reads = [tuple(map(int, line.split())) for line in self.trace.read_text().splitlines()]
        blocks = {block for offset, count in reads for block in range(offset // BLOCK, (offset + count - 1) // BLOCK + 1)}
        names = set()
        with open(self.disk, "rb") as disk:
            for block in sorted(blocks):
                disk.seek(block * BLOCK)
                data = disk.read(BLOCK)
                if any(data):
                    names.add(hashlib.sha256(data).hexdigest())
        self.touched_bytes = sum((self.www / "plain/blocks" / name[:2] / name).stat().st_size for name in names)
        trace = {"reads": len(reads), "bytes": sum(count for _, count in reads), "blocks": len(names),
                 "compressed": self.touched_bytes}
        if self.results.get("trace", trace) != trace:
            print("another boot was recorded: the rows measured with the old one are dropped", flush=True)
            for name in ("links", "steps"):
                self.results.pop(name, None)
        self.results["trace"] = trace
        print(f"the boot: {len(reads)} reads, {sum(count for _, count in reads) / MIB:.1f} MiB, {len(names)} blocks, "
              f"{self.touched_bytes / MIB:.1f} MiB compressed", flush=True)

    def replay(self, disk):
        """Read what the boot read; returns the checksum, which every road must have."""
        done = subprocess.run([self.build / "bench/replay", self.trace, str(disk)], stdout=subprocess.PIPE, check=True,
                              timeout=ROW_LIMIT)
        return done.stdout.split()[-1]

    def check(self, checksum, what):
        if checksum != self.checksum:
            sys.exit(f"{what}: the bytes are others than the disk's")

    def limit(self, rtt_ms, mbit):
        return self.touched_bytes * 8e-6 / mbit + 3 * rtt_ms / 1000


# What is measured: seconds from the start of the first program to the last read of the boot.

def ours(bench, url, log, archive, *options):
    """(seconds, requests, bytes, kinds of requests) with an empty cache."""
    bench.forget()
    log.forget()
    start = time.monotonic()
    with bench.mount(f"{url}/{archive}/debian12", *options) as (folder, _, _):
        bench.check(bench.replay(folder / "debian12"), "circular")
        seconds = time.monotonic() - start
    time.sleep(0.3)  # nginx notices that connections were closed
    return seconds, log.requests(), log.bytes(), dict(log.kinds())


@contextlib.contextmanager
def nbd_server(bench, command, socket):
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or os.path.exists(socket), 30, command[0])
        yield socket
    finally:
        end(process)


def nbdkit(bench, arguments):
    socket = tempfile.mkdtemp(dir=bench.work) + "/socket"
    return nbd_server(bench, ["nbdkit", "-f", "-r", "-U", socket, *arguments], socket)


def peer_nbdkit(bench, url, *filters):
    start = time.monotonic()
    with nbdkit(bench, [*filters, "curl", f"{url}/disk.raw", *(["cache-on-read=true"] if filters else [])]) as socket:
        bench.check(bench.replay(f"nbd+unix:///?socket={socket}"), "nbdkit curl")
        return time.monotonic() - start


def peer_nbdkit_cache(bench, url):
    return peer_nbdkit(bench, url, "--filter=cache")


def peer_qemu(bench, url):
    socket = tempfile.mkdtemp(dir=bench.work) + "/socket"
    start = time.monotonic()
    with nbd_server(bench, ["qemu-nbd", "-r", "-f", "raw", "-k", socket, f"{url}/disk.raw"], socket):
        bench.check(bench.replay(f"nbd+unix:///?socket={socket}"), "QEMU's HTTP driver")
        return time.monotonic() - start


def peer_whole(bench, url):
    """Download everything first."""
    target = bench.work / "whole.raw"
    start = time.monotonic()
    bench.run("sh", "-c", f"curl -sSf {url}/disk.raw.zst | zstd -q -d --sparse -o {target}")
    bench.check(bench.replay(target), "curl | zstd -d")
    seconds = time.monotonic() - start
    remove(target)
    return seconds


def key_of(one_link):
    return f"{one_link[0]:g}:{one_link[1]:g}"


SLOW_PEERS = {chart.NBDKIT: peer_nbdkit, chart.CACHE: peer_nbdkit_cache, chart.QEMU: peer_qemu}


def measure_slow_peers(bench, server, links):
    """They wait for round trips and hardly use the machine or the link, so all run at once, each on a link of its own."""
    def one(one_link, name):
        with simulation.link(bench.build, server, *one_link) as url:
            return SLOW_PEERS[name](bench, url)

    failed = []
    with concurrent.futures.ThreadPoolExecutor(len(links) * len(SLOW_PEERS)) as pool:
        jobs = {pool.submit(one, one_link, name): (one_link, name) for one_link in links for name in SLOW_PEERS}
        for job in concurrent.futures.as_completed(jobs):
            one_link, name = jobs[job]
            try:
                record(bench, one_link, name, job.result())
            except (Exception, SystemExit) as reason:  # pylint: disable=broad-exception-caught
                failed.append(f"{name} over {one_link}: {reason}")
    if failed:
        sys.exit("; ".join(failed))


def relay_gbit(bench, server, one_link):
    """What one stream gets through the relay."""
    size = min(os.path.getsize(bench.disk), 1 << 30)
    with simulation.link(bench.build, server, *one_link) as url:
        start = time.monotonic()
        bench.run("curl", "-sSf", "-o", "/dev/null", "-r", f"0-{size - 1}", f"{url}/disk.raw")
        return size * 8e-9 / (time.monotonic() - start)


def measure_near(bench, server, log, one_link):
    """All of them are bound by the machine, of which others may take more or less by the minute: in turns."""
    runs, seconds = {}, {}
    for _ in range(max(bench.rounds, NEAR_ROUNDS)):
        for what, archive, options in OURS:
            runs.setdefault(what, []).append(ours_over(bench, server, log, one_link, archive, options))
        for name, peer in SLOW_PEERS.items():
            with simulation.link(bench.build, server, *one_link) as url:
                seconds.setdefault(name, []).append(peer(bench, url))
    for what, measured in runs.items():
        record_ours(bench, one_link, what, measured)
    for name, measured in seconds.items():
        record(bench, one_link, name, statistics.median(measured))
    if one_link[0] in simulation.short:
        bench.results["short"] = {"added_ms": simulation.short[one_link[0]][1], "gbit": relay_gbit(bench, server, one_link)}
        bench.save()


def record(bench, one_link, name, seconds, **more):
    row = dict(seconds=seconds, **more)
    bench.results.setdefault("links", {}).setdefault(key_of(one_link), {})[name] = row
    bench.save()
    details = "".join(f", {key} {value:g}" for key, value in more.items())
    print(f"{one_link[0]:g} ms, {one_link[1]:g} Mbit/s: {name}: {seconds:.2f} s = "
          f"{seconds / bench.limit(*one_link):.2f} x limit{details}", flush=True)


def ours_over(bench, server, log, one_link, archive, options):
    """ours() on a link of its own; bytes by the link's count: nginx counts what it could put into buffers, also of streams
    that are broken off."""
    with simulation.link(bench.build, server, *one_link) as url:
        seconds, requests, size, kinds = ours(bench, url, log, archive, *options)
    return seconds, requests, url.bytes or size, kinds


OURS = ((chart.PROFILE, "replay", ["--prefetch", "profile"]), (chart.PACKED, "packed", []), (chart.PLAIN, "plain", []))


def record_ours(bench, one_link, what, runs):
    """The median of RUNS of ours_over."""
    runs = sorted(runs, key=lambda run: run[0])
    seconds, requests, size, kinds = runs[len(runs) // 2]
    record(bench, one_link, what, seconds, requests=requests, bytes_ratio=round(size / bench.touched_bytes, 3))
    print(f"    seconds {', '.join(f'{run[0]:.2f}' for run in runs)}; requests for {kinds}", flush=True)


def measure_ours(bench, server, log, one_link):
    for what, archive, options in OURS:
        rounds = max(bench.rounds, PACK_ROUNDS) if what == chart.PROFILE else bench.rounds if one_link[1] >= 1000 else 1
        record_ours(bench, one_link, what,
                    [ours_over(bench, server, log, one_link, archive, options) for _ in range(rounds)])


def measure_whole(bench, server, one_link):
    with simulation.link(bench.build, server, *one_link) as url:
        record(bench, one_link, chart.WHOLE, peer_whole(bench, url))


def casync_rate(bench, log, url, store, index):
    """Chunks a second, of some seconds of an extraction."""
    target = tempfile.mkdtemp(dir=bench.work)
    with open(f"{target}/errors", "wb") as errors:
        process = subprocess.Popen(["casync", "extract", f"--store={url}/{store}", f"{url}/{index}", f"{target}/raw"],
                                   stdin=subprocess.DEVNULL, stderr=errors, cwd=target)
        limit = time.monotonic() + CASYNC_SECONDS
        while time.monotonic() < limit and process.poll() is None:
            time.sleep(0.05)
        end(process)
    times = sorted(float(line["msec"]) for line in log.lines() if f"/{store}/" in line["request_uri"])
    if len(times) < 20 or times[-1] == times[0]:
        sys.exit(f"casync fetched {len(times)} chunks: {pathlib.Path(target, 'errors').read_text()[-300:]}")
    shutil.rmtree(target)
    return (len(times) - 1) / (times[-1] - times[0])


def measure_casync(bench, server, log, one_link):
    """casync has no order of a boot: some seconds of an extraction, and from their rate the time for the boot's blocks."""
    part = bench.work / "casync-part"
    if not (bench.www / "part.caibx").exists():
        with open(bench.disk, "rb") as disk:
            disk.seek(ROOT_OFFSET)
            part.write_bytes(disk.read(CASYNC_MIB * MIB))
        bench.run("casync", "make", "--chunk-size=65536:65536:65536", f"--store={bench.www}/part.castr",
                  bench.www / "part.caibx", part)
        remove(part)
    with simulation.link(bench.build, server, *one_link) as url:
        log.forget()
        rate = casync_rate(bench, log, url, "part.castr", "part.caibx")
    record(bench, one_link, chart.CASYNC, bench.results["trace"]["blocks"] / rate, chunks_per_second=round(rate, 2))


def measure_boot(bench, server, log):
    """To the login prompt: from the network, nothing cached, and from the raw disk in the page cache."""
    measure.warm(bench.disk)
    local, network = [], []
    for _ in range(bench.boot_rounds):
        local.append(boot_overlay(bench, bench.disk))
        bench.forget()
        log.forget()
        with simulation.link(bench.build, server, 100, 100) as url:
            start = time.monotonic()
            with bench.mount(f"{url}/boot/debian12", "--prefetch", "profile") as (folder, _, _):
                boot_overlay(bench, folder / "debian12")
                network.append(time.monotonic() - start)
        time.sleep(0.3)
    # By the link's count: nginx counts what it could put into buffers, also of streams that are broken off.
    result = {"network": min(network), "local": min(local), "requests": log.requests(), "bytes": url.bytes}
    log.forget()
    with simulation.link(bench.build, server, 100, 100) as url:
        with bench.mount(f"{url}/boot/debian12", "--prefetch", "profile") as (folder, _, _):
            simulation.read_profile(bench.www / "boot", "debian12", folder / "debian12")
    time.sleep(0.3)
    result.update(warm_requests=log.requests(), warm_bytes=url.bytes)
    bench.results["boot"] = result
    print(f"QEMU to the login prompt: network {network} s, local {local} s: {result['network'] / result['local']:.3f} x; "
          f"{result['requests']} requests, {result['bytes'] / MIB:.1f} MiB", flush=True)


def measure_pull(bench, server):
    """The whole disk into a file over 100 ms and 100 Mbit/s, and curl with as many bytes."""
    size = sum(path.stat().st_size for path in (bench.www / "plain/blocks").rglob("*") if path.is_file())
    with open(bench.www / "as-many", "wb") as file:
        for path in sorted((bench.www / "plain/blocks").rglob("*")):
            if path.is_file():
                file.write(path.read_bytes())
    target = bench.work / "pulled.raw"
    seconds = {}
    for archive in ("plain", "packed-whole"):
        if archive == "packed-whole":
            bench.run("cp", "-al", bench.www / "boot", bench.www / archive)
            bench.run(bench.program, "pack", "--all", bench.www / archive, "debian12")
        bench.forget()
        with simulation.link(bench.build, server, 100, 100) as url:
            start = time.monotonic()
            bench.run(bench.program, "pull", f"{url}/{archive}/debian12", "--output", target, "--no-cache", "--quiet",
                      *bench.trusted)
            seconds[archive] = time.monotonic() - start
        bench.run("cmp", target, bench.disk)
        remove(target)
    with simulation.link(bench.build, server, 100, 100) as url:
        start = time.monotonic()
        bench.run("curl", "-sSf", "-o", "/dev/null", f"{url}/as-many")
        peer = time.monotonic() - start
    remove(bench.www / "as-many")
    bench.results["pull"] = {"seconds": min(seconds.values()), "plain": seconds["plain"],
                             "packed": seconds["packed-whole"], "peer": peer, "bytes": size}
    print(f"full pull, 100 ms, 100 Mbit/s: {seconds} s; curl of {size / MIB:.1f} MiB: {peer:.2f} s", flush=True)


def measure_simulation(bench, what, clients, one_link):
    bench.results[what] = simulation.simulate(bench.build, bench.www / "replay", "debian12", clients, one_link)
    print(f"{what}: {bench.results[what]}", flush=True)


PARTS = ["ours", "peers", "boot", "pull", "simulation"]


def plan(bench, server, log, options):
    """(part, name, function, its arguments) of everything that can be measured, what matters most first."""
    far = [one_link for one_link in options.links if one_link[1] < NEAR]
    for one_link in options.links:
        name = key_of(one_link)
        yield "ours", f"ours {name}", measure_ours if one_link in far else measure_near, (bench, server, log, one_link)
        yield "ours", f"whole {name}", measure_whole, (bench, server, one_link)
    yield "boot", "boot", measure_boot, (bench, server, log)
    yield "pull", "pull", measure_pull, (bench, server)
    if far:
        yield "peers", "peers " + " ".join(map(key_of, far)), measure_slow_peers, (bench, server, far)
    for one_link in options.links:
        yield "peers", f"casync {key_of(one_link)}", measure_casync, (bench, server, log, one_link)
    yield "simulation", "ceiling", measure_simulation, (bench, "ceiling", min(100, options.clients), (0, NEAR))
    yield "simulation", "simulation", measure_simulation, (bench, "simulation", options.clients, (20, 1000))


def attempt(bench, name, measured, arguments):
    """One row that cannot be measured does not take the others with it."""
    start = time.monotonic()
    try:
        measured(*arguments)
        bench.done(name)
    except (Exception, SystemExit) as reason:  # pylint: disable=broad-exception-caught
        print(f"{name}: NOT MEASURED: {reason}", flush=True)
        bench.results.setdefault("failed", []).append(f"{name}: {str(reason)[:200]}")
        bench.save()
    print(f"    ({name}: {time.monotonic() - start:.0f} s)", flush=True)


def measure_all(bench, options):
    """The parts asked for; with --resume without the steps that are done."""
    old = bench.results.get("steps", {}) if options.resume else {}
    asked = [step for step in plan(bench, None, None, options) if step[0] in options.only and step[1] not in old]
    if not asked:
        return
    bench.prepare({step[0] for step in asked})
    names = {step[1] for step in asked} - set(bench.results.get("steps", {}) if options.resume else {})
    with bench.server() as (server, log):
        for _, name, measured, arguments in plan(bench, server, log, options):
            if name in names:
                attempt(bench, name, measured, arguments)


def parse(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--disk", required=True)
    parser.add_argument("--link", action="append", metavar="MS:MBIT")
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--boot-rounds", type=int, default=2)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(words)
    whole = not options.link and not options.only
    options.write = options.write or whole
    options.keep = options.resume or not whole
    options.only = set(options.only or (["ours", "peers"] if options.link else PARTS))
    options.links = [tuple(float(part) for part in text.split(":")) for text in options.link or []] or LINKS
    return options


def main():
    begin = time.monotonic()
    options = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="circular-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as work:
        bench = Bench(options, work)
        bench.boot_rounds = options.boot_rounds
        bench.load(options.keep)
        try:
            measure_all(bench, options)
        finally:
            missed = chart.report(bench.results, HERE if options.write else None)
            print(f"{time.monotonic() - begin:.0f} s in all")
    sys.exit(1 if missed or "failed" in bench.results else 0)


if __name__ == "__main__":
    main()
