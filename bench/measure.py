#!/usr/bin/env python3
"""The rows of bench/README.md: our figure, the peer's, their ratio, the bar. Run by bench/run. Standard library only."""
import argparse
import collections
import contextlib
import os
import pathlib
import platform
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import guest

MIB = 1 << 20
LOG_FIELDS = ["status", "bytes_sent", "connection", "msec", "request_time", "body_bytes_sent", "sent_http_content_length",
              "http_range", "request_uri"]
LOG_FORMAT = " ".join("$" + field for field in LOG_FIELDS)


class AccessLog:
    """What a server of Bench.server was asked. nginx writes a line when a request has ended."""

    def __init__(self, path):
        self.path = path
        self.seen = 0

    def forget(self):
        self.seen = len(self.path.read_text().splitlines())

    def lines(self):
        """A dictionary for each request since forget(); its keys are nginx's variables."""
        return [dict(zip(LOG_FIELDS, line.split(" "))) for line in self.path.read_text().splitlines()[self.seen:]]

    def requests(self):
        return len(self.lines())

    def kinds(self):
        """How many requests were for which folder of an archive that is a folder of www: {"blocks": 12, ...}."""
        return collections.Counter(line["request_uri"].split("/")[2] for line in self.lines())

    def bytes(self):
        return sum(int(line["bytes_sent"]) for line in self.lines())


@contextlib.contextmanager
def held_port():
    """A free port for a server to come. As long as it is bound here, nobody who asks for any port is given it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def nginx(work, www):
    """nginx on a free port, its files in WORK, over the folder WWW; yields its URL and its AccessLog."""
    with held_port() as port:
        yield from nginx_on(port, work, www)


def nginx_on(port, work, www):
    folder = pathlib.Path(tempfile.mkdtemp(dir=work))
    log = folder / "access"
    temporary = "".join(f"{kind}_temp_path {folder}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    # A thousand clients share a link: what a connection has in its buffers may take longer than nginx's 60 s to go.
    (folder / "conf").write_text(f"""
        user root; worker_processes 2; daemon off; pid {folder}/pid; error_log {folder}/error;
        worker_rlimit_nofile 20000; events {{ worker_connections 9000; }}
        http {{ log_format short '{LOG_FORMAT}'; access_log {log} short; sendfile on; {temporary}
            send_timeout 600s; keepalive_requests 1000000; server {{ listen 127.0.0.1:{port} backlog=4096; root {www}; }} }}""")
    server = subprocess.Popen(["nginx", "-c", folder / "conf", "-e", folder / "error"])
    try:
        for _ in range(3000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}", AccessLog(log)
    finally:
        server.send_signal(signal.SIGQUIT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


class Bench:
    """Folders, the server and the words that the rows use."""

    def __init__(self, options, work):
        self.program = os.path.abspath(options.program)
        self.disk = os.path.abspath(options.disk)
        self.update = os.path.abspath(options.update)
        self.rounds = options.rounds
        self.work = pathlib.Path(work)
        self.www = self.work / "www"
        self.archive = self.www / "os"
        self.rows = []
        self.environment = dict(os.environ, HOME=work, XDG_CONFIG_HOME=work + "/config", XDG_CACHE_HOME=work + "/cache",
                                XDG_STATE_HOME=work + "/state", XDG_RUNTIME_DIR=work + "/run", LC_ALL="C.UTF-8")
        self.www.mkdir()
        self.run(self.program, "key", "new", "--no-password", "bench")
        self.trusted = ["--key", work + "/bench.pub"]

    def run(self, *command, output=subprocess.DEVNULL):
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output,
                              stderr=subprocess.PIPE, env=self.environment, cwd=self.work, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stderr.decode()}")
        return done

    def timed(self, prepare, *command):
        """Median seconds of the command over the rounds, with PREPARE called before each; nobody writes what others left."""
        seconds = []
        for _ in range(self.rounds):
            prepare()
            os.sync()
            start = time.monotonic()
            self.run(*command)
            seconds.append(time.monotonic() - start)
        return statistics.median(seconds)

    def publish(self, image, version, archive, name="debian12"):
        """With the options that people use: none."""
        self.run(*self.publish_command(image, version, archive, name)[:-2])

    def publish_command(self, image, version, archive, name="debian12"):
        return [self.program, "publish", image, "--name", name, "--version", version, "--key", self.work / "bench.sec",
                "--to", archive, "--level", "3"]

    def ensure_archive(self):
        if not (self.archive / "catalog.json").exists():
            self.publish(self.disk, "1", self.archive)

    def row(self, what, ours, peer, bar, unit, at_most=True, peer_name=""):
        """BAR is on the ratio to the peer, or on our figure where there is no peer."""
        ratio = ours / peer if peer else None
        value = ratio if peer else ours
        met = value <= bar if at_most else value >= bar
        self.rows.append((what, f"{ours:.4g} {unit}", f"{peer_name} {peer:.4g} {unit}" if peer else "-",
                          f"{ratio:.2f}" if peer else "-",
                          f"{'at most' if at_most else 'at least'} {bar:g}{'' if peer else ' ' + unit}",
                          "yes" if met else "NO"))
        print(" | ".join(self.rows[-1]), flush=True)

    def server(self):
        """nginx over www; yields its URL and its AccessLog."""
        return nginx(self.work, self.www)

    @contextlib.contextmanager
    def mount(self, url, *options):
        """Mounted in the foreground; yields the folder, the process and the seconds until it was there."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.work))
        start = time.monotonic()
        process = subprocess.Popen([self.program, "mount", "-f", url, folder, *self.trusted, *map(str, options)],
                                   env=self.environment, cwd=self.work, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)
        try:
            while not os.path.ismount(folder):
                if process.poll() is not None or time.monotonic() - start > 60:
                    sys.exit(f"circular mount {url} failed")
                time.sleep(0.001)
            yield folder, process, time.monotonic() - start
        finally:
            subprocess.run(["fusermount3", "-u", folder], check=False)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            folder.rmdir()


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")


def read_all(path):
    """Seconds to read the file from begin to end."""
    buffer = memoryview(bytearray(MIB))
    start = time.monotonic()
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.monotonic() - start


def warm(path):
    read_all(path)


def tree_size(folder):
    return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    else:
        pathlib.Path(path).unlink(missing_ok=True)


def set_aside(path):
    """As remove, but later: for half a minute after thousands of files are removed ext4 is slow to make new ones."""
    path = pathlib.Path(path)
    if path.exists():
        path.rename(tempfile.mkdtemp(prefix="old-", dir=path.parent) + "/" + path.name)


def resident_peak(process):
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def data_offsets(path, count, seed=1):
    """COUNT random multiples of 4 KiB where the sparse file has data."""
    extents = []
    with open(path, "rb") as file:
        end = 0
        size = os.fstat(file.fileno()).st_size
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            extents.append((start // 4096, (end - start) // 4096))
    generator = random.Random(seed)
    chosen = generator.choices(extents, weights=[length for _, length in extents], k=count)
    return [(start + generator.randrange(max(1, length))) * 4096 for start, length in chosen]


def row_publish(bench):
    warm(bench.disk)
    target = bench.work / "publish"
    ours = bench.timed(lambda: set_aside(target), *bench.publish_command(bench.disk, "1", target))
    qcow2 = bench.work / "peer.qcow2"
    peer = bench.timed(lambda: remove(qcow2), "qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd",
                       bench.disk, qcow2)
    bench.row("publish, level 3", ours, peer, 1.0, "s", peer_name="qemu-img zstd")
    store = bench.work / "peer.castr"

    def fresh():
        set_aside(store)
        set_aside(bench.work / "peer.caibx")

    casync = bench.timed(fresh, "casync", "make", f"--store={store}", bench.work / "peer.caibx", bench.disk)
    bench.row("publish, level 3", ours, casync, 0.125, "s", peer_name="casync")
    fixed = bench.timed(fresh, "casync", "make", "--chunk-size=65536:65536:65536", f"--store={store}",
                        bench.work / "peer.caibx", bench.disk)
    bench.row("publish, level 3", ours, fixed, 1.0, "s", peer_name="casync 64 KiB")
    fresh()
    set_aside(target)
    remove(qcow2)
    for old in bench.work.glob("old-*"):
        remove(old)


def row_size(bench):
    bench.ensure_archive()
    qcow2 = bench.work / "peer.qcow2"
    bench.run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", bench.disk, qcow2)
    bench.row("archive size", tree_size(bench.archive) / MIB, qcow2.stat().st_size / MIB, 1.01, "MiB",
              peer_name="qemu-img zstd")
    remove(qcow2)


def row_update(bench):
    archive = bench.work / "update"
    store = bench.work / "peer.castr"
    bench.publish(bench.disk, "1", archive)
    before = tree_size(archive)
    bench.publish(bench.update, "2", archive)
    ours = tree_size(archive) - before
    remove(archive)
    bench.run("casync", "make", f"--store={store}", bench.work / "1.caibx", bench.disk)
    before = tree_size(store)
    bench.run("casync", "make", f"--store={store}", bench.work / "2.caibx", bench.update)
    peer = tree_size(store) - before + (bench.work / "2.caibx").stat().st_size
    remove(store)
    bench.row("update, four packages more", ours / MIB, peer / MIB, 0.9, "MiB", peer_name="casync")


def row_pull(bench):
    bench.ensure_archive()
    compressed = bench.www / "disk.raw.zst"
    bench.run("zstd", "-q", "-3", "-T2", bench.disk, "-o", compressed)
    target = bench.work / "pulled"
    packed = bench.www / "packed"
    bench.run("cp", "-al", bench.archive, packed)
    bench.run(bench.program, "pack", "--all", packed, "debian12")

    def fresh():
        remove(target)
        remove(bench.work / "cache")

    with bench.server() as (url, _):
        ours = {}
        for archive in (packed, bench.archive):
            ours[archive] = bench.timed(fresh, bench.program, "pull", f"{url}/{archive.name}/debian12", "--output", target,
                                        "--no-cache", "--quiet", *bench.trusted)
            bench.run("cmp", target, bench.disk)
            fresh()
        peer = bench.timed(fresh, "sh", "-c", f"curl -sSf {url}/disk.raw.zst | zstd -q -d --sparse -o {target}")
    fresh()
    remove(compressed)
    remove(packed)
    bench.row("full pull over loopback, packed", ours[packed], peer, 1.3, "s", peer_name="curl into zstd -d")
    bench.row("the same, without packs", ours[bench.archive], peer, 1.3, "s", peer_name="curl into zstd -d")


@contextlib.contextmanager
def cached_disk(bench):
    """The Debian disk, mounted from a full cache."""
    bench.ensure_archive()
    with bench.server() as (url, _):
        bench.run(bench.program, "pull", f"{url}/os/debian12", "--quiet", *bench.trusted)

        @contextlib.contextmanager
        def mounted():
            with bench.mount(f"{url}/os/debian12") as (folder, process, _):
                yield folder / "debian12", process

        yield mounted
    remove(bench.work / "cache")


def row_sequential(bench):
    size = os.path.getsize(bench.disk)
    cold, peer_cold, hot, peer_hot = [], [], [], []
    with cached_disk(bench) as mounted:
        for _ in range(bench.rounds):
            drop_caches()
            peer_cold.append(read_all(bench.disk))
            peer_hot.append(min(read_all(bench.disk) for _ in range(3)))
            with mounted() as (disk, _):
                drop_caches()
                cold.append(read_all(disk))
                hot.append(min(read_all(disk) for _ in range(3)))
    rate = [size / statistics.median(seconds) / 1e9 for seconds in (cold, peer_cold, hot, peer_hot)]
    bench.row("sequential read, cached, page cache cold", rate[0], rate[1], 0.5, "GB/s", False, "plain file")
    bench.row("the same, page cache warm", rate[2], rate[3], 0.95, "GB/s", False, "plain file")


def row_guest(bench):
    """Debian's kernel reads both into single pages, as that of this machine may not. Emulated: only the ratio counts."""
    kernel, took = guest.warm(bench, 5 * bench.rounds)
    ours, plain = (guest.DATA / statistics.median(took[name]) / 1e6 for name in ("ours", "plain"))
    bench.row(f"the same on Debian 12's kernel (Linux {kernel}, emulated)", ours, plain, 0.95, "MB/s", False, "plain file")


def random_latency(path, offsets):
    """Median and 99th percentile in microseconds."""
    times = []
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    for offset in offsets:
        start = time.perf_counter_ns()
        os.pread(file, 4096, offset)
        times.append((time.perf_counter_ns() - start) / 1000)
    os.close(file)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


def row_random(bench):
    pages = os.path.getsize(bench.disk) // 4096
    generator = random.Random(3)
    places = {"where there is data": data_offsets(bench.disk, 3000),
              "anywhere": [generator.randrange(pages) * 4096 for _ in range(3000)]}
    with cached_disk(bench) as mounted:
        for where, offsets in places.items():
            with mounted() as (disk, _):
                drop_caches()
                median, tail = random_latency(disk, offsets)
            drop_caches()
            plain, _ = random_latency(bench.disk, offsets)
            bench.row(f"random 4 KiB reads {where}, cached, page cache cold, median (99 %: {tail:.0f} us; plain file "
                      f"{plain:.0f} us)", median, None, 250, "us")


def sparse_image(path, size, data_bytes, source):
    """DATA_BYTES in pieces of 1 MiB, spread over SIZE."""
    generator = random.Random(2)
    with open(path, "wb") as image, open(source, "rb") as text:
        image.truncate(size)
        text.seek(66 * MIB)
        for place in sorted(generator.sample(range(size // MIB), data_bytes // MIB)):
            piece = bytearray(text.read(MIB).ljust(MIB, b"."))
            piece[::4096] = generator.randbytes(len(piece) // 4096)
            image.seek(place * MIB)
            image.write(piece)


def row_huge(bench):
    image = bench.work / "huge.raw"
    figures = {}
    for name, size in (("large", 1 << 40), ("small", 1 << 31)):
        sparse_image(image, size, 1 << 30, bench.disk)
        bench.publish(image, "1", bench.www / "huge", name)
        remove(image)
    with bench.server() as (url, log):
        for name in figures or ("large", "small"):
            seconds = []
            for _ in range(max(5, bench.rounds)):
                remove(bench.work / "cache")
                log.forget()
                # Without the background fill, which begins as soon as the disk is there.
                with bench.mount(f"{url}/huge/{name}", "--prefetch", "profile") as (folder, process, took):
                    os.stat(folder / name)
                    seconds.append(took)
                    figures[name] = (log.requests(), resident_peak(process))
            figures[name] += (statistics.median(seconds),)
    remove(bench.work / "cache")
    remove(bench.www / "huge")
    bench.row("mount a 1 TiB sparse image with 1 GiB of data: requests", figures["large"][0], None, 5, "requests")
    bench.row("the same: resident memory", figures["large"][1] / MIB, None, 32, "MiB")
    bench.row("the same: time, against a 2 GiB image", figures["large"][2] * 1000, figures["small"][2] * 1000, 1.25, "ms",
              peer_name="2 GiB")


def row_memory(bench):
    bench.ensure_archive()
    with bench.server() as (url, _):
        with bench.mount(f"{url}/os/debian12") as (folder, process, _):
            read_all(folder / "debian12")
            peak = resident_peak(process)
    remove(bench.work / "cache")
    bench.row("resident memory of a mount that reads the whole disk, cold", peak / MIB, None, 64, "MiB")


ROWS = {name[4:]: function for name, function in list(globals().items()) if name.startswith("row_")}


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return f"{model}, {os.cpu_count()} processors, {memory:.0f} GiB, Linux {kernel}, {time.strftime('%Y-%m-%d')}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--disk", required=True)
    parser.add_argument("--update", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    options = parser.parse_args()
    for name in options.rows:
        if name not in ROWS:
            parser.error(f"there is no row {name}; rows: {' '.join(ROWS)}")
    with tempfile.TemporaryDirectory(prefix="circular-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as work:
        bench = Bench(options, work)
        for name in options.rows or ROWS:
            ROWS[name](bench)
    print(f"\n{machine()}; median of {options.rounds}\n")
    print("| work | ours | peer | ratio | bar | met |\n|---|---|---|---|---|---|")
    for row in bench.rows:
        print("| " + " | ".join(row) + " |")
    sys.exit(any(row[-1] == "NO" for row in bench.rows))


if __name__ == "__main__":
    main()
