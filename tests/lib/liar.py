#!/usr/bin/env python3
"""A web server that misbehaves on request, for tests. Standard library only.

    python3 tests/lib/liar.py --root DIR [--port 0] [--port-file F] [--certificate PEM]

Serves the files below DIR on 127.0.0.1, honestly (HTTP/1.1, keep-alive, ranges
"a-b", "a-" and "-n", 404, 416) until it is told otherwise. PORT 0 takes a free
port; its number is written to F (whole or not at all) once requests are
accepted. --certificate (certificate and key in one PEM file) makes it HTTPS.
SIGTERM ends it.

    curl -d '{"match": "^/blocks/", "behaviour": "flip", "count": 3}' http://127.0.0.1:PORT/_control
    curl -X DELETE http://127.0.0.1:PORT/_control          forget all rules: honest again
    curl http://127.0.0.1:PORT/_stats                      what was asked so far
    curl -X DELETE http://127.0.0.1:PORT/_stats            count from zero again

A control request is one rule or a list of rules. MATCH is a regular expression
searched in the path (without query), or, if it has a blank, in "PATH RANGE"
("/x bytes=0-9", "/x -" without range). COUNT is how many requests it applies to
(absent: all). The newest matching rule wins; "delay" applies in addition to
the next rule that matches. Behaviours:

    truncate        declares the whole length, sends half of it, closes
    short           half of the body, declared as such: well-formed but damaged
    flip            one bit in the middle of the body is wrong
    stall           header and half of the body, then silence with the connection open
    hang            reads the request, then silence
    close           closes without an answer
    reset           header and half of the body, then a TCP reset
    status:N        answers with status N
    retry-after:S   answers 503 with "Retry-After: S"
    no-range        ignores Range: 200 with the whole file
    wrong-range     206 with the bytes, and the Content-Range, of one byte further on
    oversize        the body is followed by 16 MiB of zeros, all declared
    endless         the body is followed by zeros without end (chunked)
    chunked         honest, but chunked, so without Content-Length
    swap:/PATH      the bytes of another file
    slow:N          honest, N bytes a second
    delay:MS        waits before it answers, or until all rules are forgotten (combines with another rule)
    garbage         bytes that are not HTTP
    redirect:URL    302 to URL ("redirect:loop": to the same path); a URL that ends in "*" gets the path there

_stats: {"total", "bytes", "ranged", "proxied" (requests in absolute form, as
to a proxy), "authorized" (with an Authorization header), "fresh" (with
Cache-Control: no-cache), "connections", "last_connection" (the client's port
of the last request), "most_parallel", "classes":
{"blocks": N, ...by the first folder, "" for the root}, "paths": {...}}.
_control and _stats are not counted.
"""

import argparse
import json
import os
import re
import signal
import socket
import ssl
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

OVERSIZE = 16 << 20


class Rules:
    """The behaviours that are switched on, newest first."""

    def __init__(self):
        self.lock = threading.Lock()
        self.rules = []
        self.times_cleared = 0
        self.cleared = threading.Condition(self.lock)

    def add(self, rules):
        for rule in rules if isinstance(rules, list) else [rules]:
            entry = [re.compile(rule.get("match", "")), rule["behaviour"], rule.get("count")]
            with self.lock:
                self.rules.insert(0, entry)

    def clear(self):
        with self.lock:
            self.rules = []
            self.times_cleared += 1
            self.cleared.notify_all()

    def pause(self, seconds):
        """For so long, or until all rules are forgotten."""
        with self.lock:
            before = self.times_cleared
            self.cleared.wait_for(lambda: self.times_cleared != before, seconds)

    def take(self, path, wanted):
        """(delay in seconds, behaviour or "", its argument) for one request."""
        delay = 0.0
        with self.lock:
            for rule in self.rules:
                if rule[2] == 0 or not rule[0].search(f"{path} {wanted}" if " " in rule[0].pattern else path):
                    continue
                if rule[2] is not None:
                    rule[2] -= 1
                name, _, argument = rule[1].partition(":")
                if name != "delay":
                    return delay, name, argument
                delay += int(argument) / 1000
        return delay, "", ""


class Stats:
    def __init__(self):
        self.lock = threading.Lock()
        self.parallel = 0
        self.clear()

    def clear(self):
        with self.lock:
            self.counts = dict.fromkeys(
                ("total", "bytes", "ranged", "proxied", "authorized", "fresh", "connections", "last_connection",
                 "most_parallel"), 0)
            self.classes = {}
            self.paths = {}

    def add(self, name, amount=1):
        with self.lock:
            self.counts[name] += amount

    def begin(self, path, headers, proxied, port):
        with self.lock:
            self.parallel += 1
            self.counts["last_connection"] = port
            self.counts["most_parallel"] = max(self.counts["most_parallel"], self.parallel)
            self.counts["total"] += 1
            self.counts["ranged"] += "Range" in headers
            self.counts["proxied"] += proxied
            self.counts["authorized"] += "Authorization" in headers
            self.counts["fresh"] += "no-cache" in headers.get("Cache-Control", "")
            folder = path.split("/")[1] if path.count("/") > 1 else ""
            self.classes[folder] = self.classes.get(folder, 0) + 1
            self.paths[path] = self.paths.get(path, 0) + 1

    def end(self):
        with self.lock:
            self.parallel -= 1

    def as_json(self):
        with self.lock:
            return json.dumps({**self.counts, "classes": self.classes, "paths": self.paths})


def parse_range(text, size):
    """(first, last) or None for no usable range; ValueError for one that cannot be satisfied."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text or "")
    if not match or not (match[1] or match[2]):
        return None
    if not match[1]:
        first, last = max(size - int(match[2]), 0), size - 1
    else:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None
    if first > last:
        raise ValueError
    return first, last


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # header and body leave together

    def setup(self):
        super().setup()
        self.server.stats.add("connections")

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, ssl.SSLError, TimeoutError):
            self.close_connection = True

    # -- control ---------------------------------------------------------

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/_control":
            return self.answer(404)
        try:
            self.server.rules.add(json.loads(body))
        except (ValueError, KeyError, TypeError, re.error) as error:
            return self.answer(400, f"{error!r}\n".encode())
        return self.answer(200, b"{}\n")

    def do_DELETE(self):
        targets = {"/_control": self.server.rules, "/_stats": self.server.stats}
        if self.path not in targets:
            return self.answer(404)
        targets[self.path].clear()
        return self.answer(200, b"{}\n")

    # -- files -----------------------------------------------------------

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urlsplit(self.path)
        path = unquote(url.path)
        if path == "/_stats":
            return self.answer(200, self.server.stats.as_json().encode())
        self.server.stats.begin(path, self.headers, bool(url.scheme), self.client_address[1])
        try:
            self.serve(path)
        finally:
            self.server.stats.end()

    def open(self, path):
        name = os.path.normpath(self.server.root + "/" + path)
        if not name.startswith(self.server.root + "/"):
            return None
        try:
            return open(name, "rb")
        except OSError:
            return None

    def serve(self, path):
        delay, behaviour, argument = self.server.rules.take(path, self.headers.get("Range", "-"))
        if delay:
            self.server.rules.pause(delay)
        instead = getattr(self, "instead_" + behaviour.replace("-", "_"), None)
        if instead:
            return instead(path, argument)
        file = self.open(argument if behaviour == "swap" else path)
        if file is None:
            return self.answer(404, b"no such file\n")
        with file:
            return self.send_file(file, behaviour, argument)

    def send_file(self, file, behaviour, argument):
        size = os.fstat(file.fileno()).st_size
        try:
            wanted = parse_range(self.headers.get("Range"), size) if behaviour != "no-range" else None
        except ValueError:
            return self.answer(416, headers=[("Content-Range", f"bytes */{size}")])
        first, last = wanted or (0, size - 1)
        if behaviour == "wrong-range" and wanted:
            first, last = first + 1, last + 1
        file.seek(first)
        body = file.read(last + 1 - first)
        body += bytes(last + 1 - first - len(body))  # a byte behind the end
        if behaviour == "short":
            body = body[:len(body) // 2]
        if behaviour == "flip" and body:
            at = len(body) // 2
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]
        content_range = f"bytes {first}-{last}/{size}" if wanted else None
        return self.send_body(body, content_range, behaviour, argument)

    def send_body(self, body, content_range, behaviour, argument):
        chunked = behaviour in ("chunked", "endless")
        status = 206 if content_range else 200
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        if content_range:
            self.send_header("Content-Range", content_range)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body) + (OVERSIZE if behaviour == "oversize" else 0)))
        self.end_headers()
        if self.command == "HEAD":
            self.wfile.flush()
            return
        deliver = getattr(self, "deliver_" + behaviour, self.write)
        deliver(body, argument) if deliver != self.write else self.write(body)
        self.wfile.flush()

    def write(self, body):
        self.wfile.write(body)
        self.server.stats.add("bytes", len(body))

    def deliver_truncate(self, body, _):
        self.write(body[:len(body) // 2])
        self.close_connection = True

    def deliver_stall(self, body, _):
        self.write(body[:len(body) // 2])
        self.wfile.flush()
        self.wait_for_client_to_go()

    def deliver_reset(self, body, _):
        self.write(body[:len(body) // 2])
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.drop_connection()

    def deliver_oversize(self, body, _):
        self.write(body)
        for _ in range(OVERSIZE >> 16):
            self.write(bytes(1 << 16))

    def deliver_endless(self, body, _):
        self.deliver_chunked(body, "", end=False)
        while True:
            self.deliver_chunked(bytes(1 << 16), "", end=False)

    def deliver_chunked(self, body, _, end=True):
        for at in range(0, len(body), 1 << 14):
            piece = body[at:at + (1 << 14)]
            self.wfile.write(b"%x\r\n" % len(piece))
            self.write(piece)
            self.wfile.write(b"\r\n")
        if end:
            self.wfile.write(b"0\r\n\r\n")

    def deliver_slow(self, body, rate):
        pieces_a_second = 20
        step = max(int(rate) // pieces_a_second, 1)
        for at in range(0, len(body), step):
            self.write(body[at:at + step])
            self.wfile.flush()
            time.sleep(min(len(body) - at, step) / int(rate))

    # -- answers that need no file ---------------------------------------

    def instead_status(self, _, status):
        return self.answer(int(status), b"as told\n")

    def instead_retry_after(self, _, seconds):
        return self.answer(503, b"later\n", [("Retry-After", seconds)])

    def instead_redirect(self, path, target):
        target = path if target == "loop" else target[:-1] + path if target.endswith("*") else target
        return self.answer(302, b"elsewhere\n", [("Location", target)])

    def instead_close(self, *_):
        self.drop_connection()

    def instead_hang(self, *_):
        self.wait_for_client_to_go()

    def instead_garbage(self, *_):
        self.wfile.write(b"\x16\x03\x01 this is no answer that any web server gives\r\n\r\n" * 20)
        self.wfile.flush()
        self.close_connection = True

    def wait_for_client_to_go(self):
        self.close_connection = True
        while self.connection.recv(4096):
            pass

    def drop_connection(self):
        self.close_connection = True
        self.rfile.close()
        self.connection.close()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, arguments):
        super().__init__(("127.0.0.1", arguments.port), Handler)
        if arguments.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(arguments.certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.root = os.path.realpath(arguments.root)
        self.rules = Rules()
        self.stats = Stats()

    def handle_error(self, request, client_address):
        """Clients that go away are what the tests are about."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--root", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file")
    parser.add_argument("--certificate")
    arguments = parser.parse_args()
    server = Server(arguments)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if arguments.port_file:
        with open(arguments.port_file + ".new", "w") as file:
            file.write(f"{server.server_address[1]}\n")
        os.rename(arguments.port_file + ".new", arguments.port_file)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
