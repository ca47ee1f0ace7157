"""A thousand clients that boot at once from one nginx: see simulate(). Standard library only."""
import contextlib
import json
import os
import pathlib
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import time

import measure

EXCHANGES = 1000
PATIENCE = 600  # seconds, after which a client that is not done has starved


def end(process, number=signal.SIGTERM):
    process.send_signal(number)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Url(str):
    """Of the near end of a link; afterwards BYTES have come through it, headers included."""
    bytes = 0


@contextlib.contextmanager
def link(build, server, rtt_ms, mbit):
    """Yields the URL of SERVER at the far end of a link of bench/relay.c; for no round trip SERVER itself."""
    if not rtt_ms:
        yield Url(server)
        return
    with measure.held_port() as port:
        yield from link_on(port, build, server, nominal(build, server, rtt_ms) if rtt_ms < 1 else rtt_ms, mbit)


def link_on(port, build, server, rtt_ms, mbit):
    url = Url(f"http://127.0.0.1:{port}")
    relay = subprocess.Popen([f"{build}/bench/relay", str(port), server.rsplit(":", 1)[1], str(rtt_ms), str(mbit)],
                             stdout=subprocess.PIPE)
    try:
        relay.stdout.readline()
        yield url
    finally:
        end(relay)
        said = relay.stdout.read().split()  # "connections N bytes-down N bytes-up N"
        url.bytes = int(said[3]) if len(said) > 3 else 0


def exchange_ms(url):
    """The median time of a small request on a connection that is open."""
    host, port = url.removeprefix("http://").split(":")
    times = []
    with socket.create_connection((host, int(port))) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(EXCHANGES):
            start = time.perf_counter()
            peer.sendall(b"HEAD /disk.raw HTTP/1.1\r\nHost: bench\r\n\r\n")
            peer.recv(4096)
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


short = {}  # what nominal() has found, for each round trip: (the relay's, what it adds)


def nominal(build, server, rtt_ms):
    """The round trip for the relay with which a small request takes RTT_MS longer than without it."""
    if rtt_ms in short:
        return short[rtt_ms][0]
    found = []
    for step in range(11):
        with measure.held_port() as port:
            for url in link_on(port, build, server, rtt_ms * step / 10, 10000):
                found.append((rtt_ms * step / 10, exchange_ms(url) - exchange_ms(server)))
    short[rtt_ms] = min(found, key=lambda pair: abs(pair[1] - rtt_ms))
    print(f"a relay of {short[rtt_ms][0]:.2f} ms adds {short[rtt_ms][1]:.3f} ms to a small request", flush=True)
    return short[rtt_ms][0]


def profile_runs(archive, name):
    """(block size, [(first block, blocks)]) of the published profile of the only version of NAME; circular-profile(5)."""
    hints = json.loads(next((archive / "images" / name).glob("*.hints.json")).read_text())
    data = (archive / "files" / hints["profile"]).read_bytes()
    count, = struct.unpack_from("<I", data, 12)
    block_size, = struct.unpack_from("<I", data, 48)
    return block_size, [struct.unpack_from("<Q4xI", data, 64 + 16 * run) for run in range(count)]


def read_profile(archive, name, path):
    """Read the disk at PATH in the order of a boot."""
    block_size, runs = profile_runs(archive, name)
    with open(path, "rb", buffering=0) as disk:
        os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # the profile has the kernel's readahead in it already
        for first, count in runs:
            disk.seek(first * block_size)
            disk.read(count * block_size)


def boot_once(build, archive, name, url, work):
    """One real client: mount with an empty cache, read along the profile as a boot does, unmount."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=work))
    environment = dict(os.environ, HOME=work, XDG_CONFIG_HOME=work, XDG_CACHE_HOME=work, XDG_STATE_HOME=work,
                       XDG_RUNTIME_DIR=work)
    mount = subprocess.Popen([f"{build}/src/cmd/circular", "mount", "-f", "--insecure", "--quiet", "--prefetch", "profile",
                              f"{url}/{name}", folder], env=environment, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        limit = time.monotonic() + 60
        while not (folder / name).exists():
            if mount.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"circular mount {url}/{name}: {mount.stderr.read().decode()}")
            time.sleep(0.005)
        read_profile(archive, name, folder / name)
    finally:
        subprocess.run(["fusermount3", "-u", folder], check=False)
        end(mount)


def script_of(lines):
    """What simulate.c does for each client, from the access log of one boot."""
    whole = [line for line in lines if line["sent_http_content_length"] == line["body_bytes_sent"] or int(line["status"]) >= 400]
    for line in whole:
        line["end"] = float(line["msec"])
        line["start"] = line["end"] - float(line["request_time"])
    by_end = sorted(whole, key=lambda line: line["end"])
    for rank, line in enumerate(by_end):
        line["rank"] = rank
    connections = {}
    rows = []
    for line in sorted(whole, key=lambda line: (line["start"], line["end"])):
        number = connections.setdefault(line["connection"], len(connections))
        after = sum(other["end"] < line["start"] for other in whole)
        byte_range = line["http_range"].removeprefix("bytes=") if line["http_range"] else "-"
        rows.append(f"{number} {after} {line['rank']} {line['status']} {line['body_bytes_sent']} {byte_range} {line['request_uri']}")
    return "\n".join(rows) + "\n"


def simulate(build, archive, name, clients, one_link, spread_ms=0):
    """CLIENTS boot from ARCHIVE, served by one nginx at the far end of ONE_LINK (ms, Mbit/s). Returns what happened."""
    archive = pathlib.Path(archive).resolve()
    with tempfile.TemporaryDirectory(prefix="circular-crowd-", dir="/var/tmp") as work, \
            measure.nginx(work, archive) as (server, log), link(build, server, *one_link) as url:
        boot_once(build, archive, name, url, work)
        time.sleep(0.3)  # nginx notices that connections were closed
        script = pathlib.Path(work) / "script"
        script.write_text(script_of(log.lines()))
        requests = len(script.read_text().splitlines())
        port = url.rsplit(":", 1)[1]
        output = subprocess.run([f"{build}/bench/simulate", port, script, str(clients), str(spread_ms), str(PATIENCE)],
                                stdout=subprocess.PIPE, check=True).stdout.decode()
    rows = [(float(seconds), int(size), int(errors)) for seconds, size, errors in map(str.split, output.splitlines())]
    done = sorted(row[0] for row in rows if not row[2])
    rates = [size / seconds for seconds, size, errors in rows if not errors]
    if not done:
        raise SystemExit("no client was done")
    whole = max(spread_ms / 1000 / clients * number + row[0] for number, row in enumerate(rows))
    total = sum(row[1] for row in rows)
    return {"clients": clients, "link": list(one_link), "requests": requests, "bytes": total // clients,
            "errors": sum(row[2] for row in rows), "whole": whole, "share": total * 8e-6 / whole / one_link[1],
            "seconds_min": done[0], "seconds_median": statistics.median(done), "seconds_95": done[len(done) * 95 // 100],
            "seconds_max": done[-1], "jain": sum(rates) ** 2 / len(rates) / sum(rate * rate for rate in rates)}
