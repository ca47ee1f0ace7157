"""Measures bench/relay from outside, by a server and clients at its two ends: `relay_check.py RELAY [SLACK]`.

Prints a line for each property and fails if the link is faster than it may be, or by more than SLACK seconds slower.
"""
import contextlib
import socket
import subprocess
import sys
import threading
import time


def serve(listener):
    """Answers "N\\n" with N bytes, again and again on each connection."""
    def answer(peer):
        with peer, peer.makefile("rb") as lines:
            for line in lines:
                with contextlib.suppress(OSError):
                    peer.sendall(bytes(int(line)))

    while True:
        threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()


class Link:
    def __init__(self, relay, rtt_ms, mbit):
        self.holder = socket.socket()  # as hold_ports.py has it
        self.holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.holder.bind(("127.0.0.1", 0))
        self.port = self.holder.getsockname()[1]
        self.process = subprocess.Popen([relay, str(self.port), str(target.getsockname()[1]), str(rtt_ms), str(mbit)],
                                        stdout=subprocess.PIPE)
        self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.communicate()
        self.holder.close()

    def connect(self):
        peer = socket.create_connection(("127.0.0.1", self.port))
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer


def fetch(peer, size, start=None):
    """Seconds until the first and until the last of SIZE bytes, since START or now."""
    start = start or time.monotonic()
    peer.sendall(b"%d\n" % size)
    first = None
    while size:
        size -= len(peer.recv(min(size, 1 << 20)))
        first = first or time.monotonic() - start
    return first, time.monotonic() - start


def within(what, seconds, least, most):
    print(f"{what}: {seconds * 1000:.0f} ms; {least * 1000:.0f} to {most * 1000:.0f} expected")
    if not least <= seconds <= most:
        sys.exit(f"{what}: {seconds * 1000:.0f} ms is not within {least * 1000:.0f} and {most * 1000:.0f} ms")


def together(link, sizes):
    """Fetch all at once, each on a connection of its own; seconds of each."""
    seconds = [0.0] * len(sizes)
    peers = [link.connect() for _ in sizes]
    start = time.monotonic()  # the last thread may begin late

    def one(number):
        seconds[number] = fetch(peers[number], sizes[number], start)[1]

    threads = [threading.Thread(target=one, args=[number]) for number in range(len(sizes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds


def main(relay):
    slack = float(sys.argv[2]) if len(sys.argv) > 2 else 0.2  # other processes use the machine, too
    with Link(relay, 100, 1000) as link:
        start = time.monotonic()  # the handshake may be under way before connect returns
        peer = link.connect()
        within("handshake and request take two round trips", fetch(peer, 1000, start)[1], 0.2, 0.2 + slack)
        within("the next request on the connection takes one", fetch(peer, 1000)[1], 0.1, 0.1 + slack)
        with link.connect() as second:
            within("nobody waits for another's handshake", fetch(peer, 1000)[1], 0.1, 0.1 + slack)
            fetch(second, 1000)
        # 14,480 bytes in the first round trip, twice that in the second, ...: 1 MB needs 7.
        start = time.monotonic()
        within("slow start: 1 MB takes seven round trips more than its handshake",
               fetch(link.connect(), 1000000, start)[1], 0.8, 0.8 + slack)
        time.sleep(0.05)
        peer = link.connect()
        fetch(peer, 1000000)
        within("a window once open stays open", fetch(peer, 1000000)[1], 0.1, 0.2 + slack)
        time.sleep(1.6)
        within("and closes by half for each time-out of idling", fetch(peer, 500000)[1], 0.4, 0.6 + slack)
    with Link(relay, 20, 100) as link:
        seconds = together(link, [2500000])[0]
        within("one connection fills the link of 100 Mbit/s", seconds, 0.2, 0.35 + slack)
        seconds = together(link, [1250000] * 8)
        within("eight share it: all of 10 MB", max(seconds), 0.8, 0.9 + 2 * slack)
        if min(seconds) < 0.5 * max(seconds) - slack:
            sys.exit(f"unfair: {seconds}")
    with Link(relay, 5, 1000) as link, link.connect() as peer:
        fetch(peer, 5000000)
        within("12.5 MB at 1 Gbit/s", fetch(peer, 12500000)[1], 0.1, 0.2 + slack)


target = socket.create_server(("127.0.0.1", 0), backlog=100)
threading.Thread(target=serve, args=[target], daemon=True).start()
main(sys.argv[1])
