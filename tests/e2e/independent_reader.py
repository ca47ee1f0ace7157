#!/usr/bin/env python3
"""Reads a disk out of an archive, from the manual pages of section 5 alone.

    independent_reader.py [--packs] ARCHIVE NAME[@VERSION] PUBLIC-KEY OUTPUT

Shares nothing with the program but the documents: Python's library, Ed25519 by its definition (RFC 8032), and
zstd(1). ARCHIVE is a folder or an http URL. With --packs, blocks are read from packs where the hints name some.
Prints how many blocks came from where; exit status 1 and the reason if anything is not as the pages say.
"""
import base64
import calendar
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

ZERO = bytes(32)


class Refused(Exception):
    pass


def demand(condition, reason):
    if not condition:
        raise Refused(reason)


def sha(content):
    return hashlib.sha256(content).digest()


# circular-archive(5): files from a folder or a server.

class Archive:
    def __init__(self, place):
        self.place = place.rstrip("/")
        self.is_http = place.startswith("http")
        self.requests = 0

    def read(self, path, offset=0, length=None):
        """The file's bytes, or LENGTH of them from OFFSET; fewer at its end. KeyError: there is none."""
        self.requests += 1
        if not self.is_http:
            try:
                with open(os.path.join(self.place, path), "rb") as file:
                    file.seek(offset)
                    return file.read() if length is None else file.read(length)
            except FileNotFoundError:
                raise KeyError(path) from None
        request = urllib.request.Request(self.place + "/" + path)
        if length is not None:
            request.add_header("Range", "bytes=%d-%d" % (offset, offset + length - 1))
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                content = answer.read()
                whole = answer.status == 200
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise KeyError(path) from None
            raise
        return content[offset:offset + length] if whole and length is not None else content


# circular-signature(5), with Ed25519 as RFC 8032, section 5.1, defines it.

P = 2 ** 255 - 19
ORDER = 2 ** 252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def add(a, b):
    """The sum of two points of the curve, as (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z."""
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    k, z = 2 * D * a[3] * b[3] % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, z - k, z + k, n + m
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(number, point):
    result = (0, 1, 1, 0)
    while number:
        if number & 1:
            result = add(result, point)
        point, number = add(point, point), number >> 1
    return result


def point_of(text):
    y = int.from_bytes(text, "little")
    sign, y = y >> 255, y & (2 ** 255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    demand(y < P and (x * x - square) % P == 0, "not a point of the curve")
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = point_of((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_signature(key, signature, message):
    scalar = int.from_bytes(signature[32:], "little")
    if scalar >= ORDER:
        return False
    challenge = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    a = times(scalar, BASE)
    b = add(point_of(signature[:32]), times(challenge, point_of(key)))
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def read_public_key(path):
    with open(path) as file:
        lines = file.read().split("\n")
    raw = base64.b64decode(lines[1] if lines[0].startswith("untrusted comment:") else lines[0], validate=True)
    demand(len(raw) == 42 and raw[:2] == b"Ed", "not a public key")
    return raw[2:10], raw[10:]


def check_signature(text, message, key):
    demand(len(text) <= 16384, "signature file too large")
    lines = text.split(b"\n")
    demand(len(lines) % 4 == 1 and lines[-1] == b"", "not a signature file")
    good = False
    for at in range(0, len(lines) - 1, 4):
        demand(lines[at].startswith(b"untrusted comment:") and lines[at + 2].startswith(b"trusted comment: "),
               "signature without comments")
        raw, over = (base64.b64decode(lines[at + n], validate=True) for n in (1, 3))
        comment = lines[at + 2][len("trusted comment: "):]
        demand(len(raw) == 74 and raw[:2] in (b"ED", b"Ed") and len(over) == 64, "malformed signature")
        signed = hashlib.blake2b(message).digest() if raw[:2] == b"ED" else message
        good = good or (raw[2:10] == key[0] and is_signature(key[1], raw[10:], signed) and
                        is_signature(key[1], over, raw[10:] + comment))
    demand(good, "no signature by the trusted key")


# circular-catalog(5), circular-manifest(5), circular-hints(5).

def unique(pairs):
    demand(len({name for name, _ in pairs}) == len(pairs), "a member occurs twice")
    return dict(pairs)


def read_json(content, kind, size_max):
    demand(len(content) <= size_max, kind + " too large")
    value = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    demand(value["format"] == "circular-%s-1" % kind, "not a " + kind)
    return value


def digest_of_text(text):
    demand(re.fullmatch("[0-9a-f]{64}", text) and set(text) != {"0"}, "not a digest")
    return bytes.fromhex(text)


def check_name(name):
    demand(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,127}", name) and not name.endswith(".hints"), "bad name")


def read_catalog(archive, key):
    text = archive.read("catalog.json")
    check_signature(archive.read("catalog.json.minisig"), text, key)
    catalog = read_json(text, "catalog", 1 << 24)
    expires = calendar.timegm(time.strptime(catalog["expires"], "%Y-%m-%dT%H:%M:%SZ"))
    demand(expires > time.time(), "the catalog has expired")
    demand(re.fullmatch("[0-9a-f]{32}", catalog["archive"]) and catalog["serial"] >= 1, "bad archive id or serial")
    return catalog


def find_version(catalog, name, wanted):
    for version in reversed(catalog["versions"]):
        check_name(version["name"])
        check_name(version["version"])
        if version["name"] == name and wanted in ("", version["version"]):
            return version
    raise Refused("there is no such version")


def read_manifest(archive, version):
    text = archive.read("images/%s/%s.json" % (version["name"], version["version"]))
    demand(sha(text) == digest_of_text(version["manifest"]), "not the catalog's manifest")
    manifest = read_json(text, "manifest", 1 << 22)
    disk = manifest["disks"][0]
    demand((manifest["name"], manifest["version"]) == (version["name"], version["version"]), "another's manifest")
    for member in ("image", "disk_size", "block_size"):
        demand(disk[member] == version[member], "the manifest contradicts the catalog")
    return manifest


# circular-map(5).

class Map:
    def __init__(self, archive, image_id):
        self.archive = archive
        self.path = "maps/%s.map" % image_id.hex()
        header = archive.read(self.path, 0, 64)
        demand(sha(header) == image_id, "not the header of this image's map")
        magic, version, self.block_size, self.disk_size, reserved, self.root = struct.unpack("<8sIIQQ32s", header)
        demand(magic == b"OSCMAP1\n" and version == 1 and reserved == 0, "not a map")
        demand(self.block_size in [1 << n for n in range(12, 21)] and 1 <= self.disk_size <= 1 << 56, "bad sizes")
        self.block_count = -(-self.disk_size // self.block_size)
        counts = [-(-self.block_count // 128)]
        while counts[0] > 1:
            counts.insert(0, -(-counts[0] // 128))
        self.first = [sum(counts[:level]) for level in range(len(counts))]
        page_count = sum(counts)
        self.presence_size = -(-page_count // 64) * 8
        bits = int.from_bytes(archive.read(self.path, 64, self.presence_size), "little") & ((1 << page_count) - 1)
        self.rank = {}
        while bits:
            self.rank[(bits & -bits).bit_length() - 1] = len(self.rank)
            bits &= bits - 1

    def read_page(self, page, digest):
        demand(page in self.rank, "a page is missing")
        content = self.archive.read(self.path, 64 + self.presence_size + 4096 * self.rank[page], 4096)
        demand(len(content) == 4096 and sha(content) == digest, "a page does not match its digest")
        return [content[at:at + 32] for at in range(0, 4096, 32)]

    def digests(self, level=0, index=0, digest=None):
        """(block, digest) of all blocks that are not zero, in their order."""
        digest = self.root if digest is None else digest
        if digest == ZERO:
            return
        for entry, below in enumerate(self.read_page(self.first[level] + index, digest)):
            if below == ZERO:
                continue
            if level + 1 < len(self.first):
                yield from self.digests(level + 1, index * 128 + entry, below)
            else:
                demand(index * 128 + entry < self.block_count, "a digest behind the last block")
                yield index * 128 + entry, below

    def block_length(self, block):
        return min(self.block_size, self.disk_size - block * self.block_size)


# circular-block(5): what a frame says of itself (RFC 8878, section 3.1.1), and zstd for the rest.

def check_frame(frame, length):
    demand(frame[:4] == b"\x28\xb5\x2f\xfd", "not a zstd frame")
    demand(len(frame) <= length + length // 256 + 64, "a frame longer than any")
    descriptor = frame[4]
    single_segment, size_flag = descriptor >> 5 & 1, descriptor >> 6
    demand(descriptor & 3 == 0, "a frame with a dictionary")
    size_bytes = (1 if single_segment else 0) if size_flag == 0 else 1 << size_flag
    demand(size_bytes, "a frame without content size")
    at = 5 + (0 if single_segment else 1)
    declared = int.from_bytes(frame[at:at + size_bytes], "little") + (256 if size_bytes == 2 else 0)
    demand(declared == length, "a frame of %d bytes for a block of %d" % (declared, length))
    at += size_bytes
    while True:
        header = int.from_bytes(frame[at:at + 3], "little")
        demand(at + 3 <= len(frame) and header >> 1 & 3 != 3, "a damaged frame")
        at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)
        if header & 1:
            break
    demand(at + (4 if descriptor & 4 else 0) == len(frame), "a frame is cut, or followed by something")


def decompress(frames):
    """FRAMES: (frame, digest, length). The blocks, checked."""
    for frame, _, length in frames:
        check_frame(frame, length)
    done = subprocess.run(["zstd", "-dcq"], input=b"".join(frame for frame, _, _ in frames), stdout=subprocess.PIPE,
                          check=False)
    demand(done.returncode == 0, "a damaged frame")
    at = 0
    for _, digest, length in frames:
        block = done.stdout[at:at + length]
        at += length
        demand(sha(block) == digest, "a block does not match its digest")
        yield block
    demand(at == len(done.stdout), "frames hold more than they say")


# circular-pack(5).

class Packs:
    """Where frames lie in the packs that the hints of a version name; nothing here is trusted."""

    def __init__(self, archive, version):
        self.archive = archive
        self.where = {}
        try:
            text = archive.read("images/%s/%s.hints.json" % (version["name"], version["version"]))
        except KeyError:
            return
        for pack in read_json(text, "hints", 1 << 20).get("packs", []):
            self.read_table(digest_of_text(pack["pack"]), pack["table_size"], pack["size"])

    def read_table(self, name, table_size, size):
        path = "packs/%s.pack" % name.hex()
        table = self.archive.read(path, 0, table_size)
        demand(sha(table) == name, "a pack's table does not match its name")
        magic, version, count, file_size, reserved = struct.unpack_from("<8sIIQQ", table)
        demand(magic == b"OSCPACK1" and version == 1 and reserved == 0 and file_size == size, "not a pack")
        demand(len(table) == 32 + 48 * count, "a pack's table has another size than its header says")
        end = len(table)
        for digest, offset, frame_size, _ in struct.iter_unpack("<32sQII", table[32:]):
            demand(offset >= end and offset + frame_size <= size, "a pack's frames overlap or leave the file")
            end = offset + frame_size
            self.where[digest] = path, offset, frame_size


def read_disk(archive, version, output, use_packs):
    manifest = read_manifest(archive, version)
    tree = Map(archive, digest_of_text(manifest["disks"][0]["image"]))
    demand(tree.disk_size == version["disk_size"] and tree.block_size == version["block_size"], "another disk's map")
    packs = Packs(archive, version) if use_packs else None
    counts = {"zero": tree.block_count, "block files": 0, "packs": 0}
    waiting = []

    def write():
        for (block, _), content in zip(waiting, decompress([item for _, item in waiting])):
            output.seek(block * tree.block_size)
            output.write(content)
        waiting.clear()

    output.truncate(tree.disk_size)
    for block, digest in tree.digests():
        if packs and digest in packs.where:
            frame = archive.read(*packs.where[digest])
            counts["packs"] += 1
        else:
            frame = archive.read("blocks/%s/%s" % (digest.hex()[:2], digest.hex()))
            counts["block files"] += 1
        counts["zero"] -= 1
        waiting.append((block, (frame, digest, tree.block_length(block))))
        if len(waiting) == 128:
            write()
    if waiting:
        write()
    return counts


def main(arguments):
    use_packs = "--packs" in arguments
    place, image, key, output = [argument for argument in arguments if argument != "--packs"]
    name, _, wanted = image.partition("@")
    archive = Archive(place)
    try:
        version = find_version(read_catalog(archive, read_public_key(key)), name, wanted)
        with open(output, "wb") as file:
            counts = read_disk(archive, version, file, use_packs)
    except (Refused, KeyError, ValueError, struct.error) as reason:
        sys.exit("refused: %s" % (reason if isinstance(reason, Refused) else repr(reason)))
    print("%s@%s:" % (name, version["version"]), ", ".join("%s %d" % item for item in counts.items()),
          "in %d reads" % archive.requests)


main(sys.argv[1:])
