#!/usr/bin/env python3
"""Writes the golden files of this folder: good-* must be taken, bad-* refused for the reason in the name.

A second implementation of the formats, from the manual pages alone, with Python's library and the zstd program.
The files are kept in the repository and tests/unit/test_format_golden.c checks them; run this again only to add
some (frames may come out otherwise with another zstd): python3 tests/golden/format/generate.py
"""
import base64
import hashlib
import json
import os
import struct
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
ZERO = bytes(32)


def write(folder, name, content):
    os.makedirs(os.path.join(HERE, folder), exist_ok=True)
    with open(os.path.join(HERE, folder, name), "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def sha(content):
    return hashlib.sha256(content).digest()


def block(n, size):
    """Block number n of the golden disks: compressible, and of that number only."""
    return (b"block %d of a golden disk\n" % n * (size // 20))[:size]


def altered(content, offset, replacement):
    return content[:offset] + replacement + content[offset + len(replacement):]


# Frames: of 4096 bytes, as the test takes them.

def frame_of(content, *options):
    # From a file, so that the content size is declared.
    path = os.path.join(HERE, ".content")
    with open(path, "wb") as file:
        file.write(content)
    out = subprocess.run(["zstd", "-q", "-3", "--no-check", "-c", *options, path], stdout=subprocess.PIPE, check=True)
    os.unlink(path)
    return out.stdout


def frames():
    content = block(0, 4096)
    good = frame_of(content)
    skippable = bytes.fromhex("502a4d1804000000") + b"skip"
    # A frame by hand: magic, descriptor (single segment, 2-byte size less 256), one raw block.
    raw = struct.pack("<IBH", 0xFD2FB528, 0x60, 4096 - 256) + (4096 << 3 | 1).to_bytes(3, "little") + content
    unsized = subprocess.run(["zstd", "-q", "-3", "--no-check", "-c"], input=content, stdout=subprocess.PIPE, check=True)
    write("frame", "good-level-3.zst", good)
    write("frame", "good-with-checksum.zst", frame_of(content, "--check"))
    write("frame", "good-one-raw-block.zst", raw)
    write("frame", "bad-empty.zst", b"")
    write("frame", "bad-declares-8192.zst", frame_of(block(0, 8192)))
    write("frame", "bad-declares-a-gigabyte.zst", bytes.fromhex("28b52ffda000000040") + b"\x01\x00\x00")
    write("frame", "bad-declares-nothing.zst", unsized.stdout)
    write("frame", "bad-dictionary.zst", altered(raw, 4, b"\x61")[:5] + b"\x07" + raw[5:])
    write("frame", "bad-truncated.zst", good[:-1])
    write("frame", "bad-block-flipped.zst", altered(good, len(good) - 4, bytes([good[-4] ^ 0xFF])))
    write("frame", "bad-trailing-byte.zst", good + b"\n")
    write("frame", "bad-two-frames.zst", good + good)
    write("frame", "bad-skippable-first.zst", skippable + good)
    write("frame", "bad-skippable-last.zst", good + skippable)
    write("frame", "bad-not-a-frame.zst", content)


# Maps.

def map_levels(block_count):
    counts = [-(-block_count // 128)]
    while counts[0] > 1:
        counts.insert(0, -(-counts[0] // 128))
    return counts


def make_map(block_size, disk_size, digests):
    """digests: block number -> digest. Returns the file and the image id."""
    counts = map_levels(-(-disk_size // block_size))
    entries, levels = digests, []
    for count in reversed(counts):
        pages = {}
        for number, digest in entries.items():
            page = pages.setdefault(number // 128, [ZERO] * 128)
            page[number % 128] = digest
        pages = {number: b"".join(page) for number, page in pages.items() if any(d != ZERO for d in page)}
        levels.insert(0, pages)
        entries = {number: sha(page) for number, page in pages.items()}
    header = b"OSCMAP1\n" + struct.pack("<IIQQ", 1, block_size, disk_size, 0) + entries.get(0, ZERO)
    bits, stored, first = 0, b"", 0
    for count, pages in zip(counts, levels):
        for number in sorted(pages):
            bits |= 1 << (first + number)
            stored += pages[number]
        first += count
    return header + bits.to_bytes(-(-first // 64) * 8, "little") + stored, sha(header)


def maps():
    one = make_map(65536, 65536, {0: sha(block(0, 65536))})
    odd = make_map(4096, 300 * 4096 - 1000,
                   {n: sha(block(n, 4096 if n < 299 else 3096)) for n in range(300) if n % 7 < 3})
    # 1 TiB of which three blocks far apart are data.
    far = make_map(65536, 1 << 40, {n: sha(block(n, 65536)) for n in (0, 5000000, (1 << 24) - 1)})
    zeros = make_map(1048576, 1 << 30, {})
    for name, (content, image_id) in {"one-block": one, "odd-size": odd, "sparse-terabyte": far, "zeros": zeros}.items():
        write("map", "good-%s.map" % name, content)
        print("map", name, image_id.hex())
    good = one[0]
    write("map", "good-padding-bits-set.map", altered(good, 64, b"\xff" * 8))
    for name, offset, replacement in [
            ("magic", 0, b"OSCMAP2\n"), ("version-2", 8, b"\2"),
            ("block-size-no-power-of-two", 12, struct.pack("<I", 65537)),
            ("block-size-2048", 12, struct.pack("<I", 2048)),
            ("block-size-2-mib", 12, struct.pack("<I", 1 << 21)),
            ("disk-size-zero", 16, struct.pack("<Q", 0)),
            ("disk-size-over-2-to-the-56", 16, struct.pack("<Q", (1 << 56) + 1)),
            ("reserved-not-zero", 31, b"\1")]:
        write("map", "bad-%s.map" % name, altered(good, offset, replacement))
    write("map", "bad-header-truncated.map", good[:63])
    write("map", "bad-empty.map", b"")


# Packs.

def make_pack(contents):
    frames_ = [frame_of(content) for content in contents]
    at = 32 + 48 * len(contents)
    table = b""
    for content, frame in zip(contents, frames_):
        table += sha(content) + struct.pack("<QII", at, len(frame), len(content))
        at += len(frame)
    table = b"OSCPACK1" + struct.pack("<IIQQ", 1, len(contents), at, 0) + table
    return table, b"".join(frames_)


def packs():
    table, stored = make_pack([block(5, 65536), block(2, 65536), block(299, 3096)])
    print("pack", sha(table).hex())
    size = len(table) + len(stored)
    first, = struct.unpack_from("<Q", table, 64)
    second, = struct.unpack_from("<Q", table, 112)
    write("pack", "good-three-frames.pack", table + stored)
    for name, offset, replacement in [
            ("magic", 0, b"OSCPACK2"), ("version-2", 8, b"\2"), ("no-entries", 12, struct.pack("<I", 0)),
            ("too-many-entries", 12, struct.pack("<I", 16777217)),
            ("more-entries-than-table", 12, struct.pack("<I", 4)),
            ("reserved-not-zero", 24, b"\1"),
            ("file-ends-in-last-frame", 16, struct.pack("<Q", size - 1)),
            ("file-ends-in-table", 16, struct.pack("<Q", 100)),
            ("digest-zero", 32, ZERO),
            ("frame-in-table", 64, struct.pack("<Q", first - 1)),
            ("frames-overlap", 112, struct.pack("<Q", second - 1)),
            ("frames-fall", 112, struct.pack("<Q", first)),
            ("offset-wraps", 160, struct.pack("<Q", (1 << 64) - 10)),
            ("frame-empty", 72, struct.pack("<I", 0)),
            ("frame-longer-than-any", 72, struct.pack("<I", 1 << 24)),
            ("block-empty", 76, struct.pack("<I", 0)),
            ("block-longer-than-1-mib", 76, struct.pack("<I", 1048577))]:
        write("pack", "bad-%s.pack" % name, altered(table, offset, replacement))
    write("pack", "bad-table-truncated.pack", table[:-1])
    write("pack", "bad-header-truncated.pack", table[:31])


# JSON.

def dump(value):
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


SIZES = {"disk_size": 3221225472, "block_size": 65536, "data_size": 798752768, "stored_size": 245366784}


def version(name, text, **changes):
    made = {"name": name, "version": text, "manifest": sha(text.encode()).hex(), "image": sha(name.encode()).hex(),
            **SIZES, "published": "2026-11-21T08:30:00Z"}
    made.update(changes)
    return made


def catalog(**changes):
    made = {"format": "circular-catalog-1", "archive": "0123456789abcdef0123456789abcdef", "serial": 7,
            "published": "2026-11-21T08:30:00Z", "expires": "2027-02-19T08:30:00Z",
            "versions": [version("debian12", "20261121"), version("alpine", "3.20"), version("debian12", "20261128")]}
    made.update(changes)
    return made


def without(value, member):
    return {key: value[key] for key in value if key != member}


def catalogs():
    good = catalog()
    text = dump(good)
    write("catalog", "good-three-versions.json", text)
    write("catalog", "good-empty.json", dump(catalog(versions=[])))
    write("catalog", "good-unknown-members.json",
          dump(catalog(versions=[version("a", "1", later={"deep": [[[{}]]]})], later=[None, 2.5, "\u00e4"])))
    write("catalog", "good-without-spaces.json", json.dumps(good, separators=(",", ":")))
    for name, value in [
            ("other-format", catalog(format="circular-catalog-2")), ("format-missing", without(good, "format")),
            ("archive-id-short", catalog(archive="0123")), ("archive-id-upper-case", catalog(archive="A" * 32)),
            ("serial-zero", catalog(serial=0)), ("serial-negative", catalog(serial=-7)),
            ("serial-fraction", catalog(serial=7.5)), ("serial-text", catalog(serial="7")),
            ("serial-over-63-bits", catalog(serial=1 << 63)), ("serial-missing", without(good, "serial")),
            ("expires-30-february", catalog(expires="2027-02-30T08:30:00Z")),
            ("expires-in-zone", catalog(expires="2027-02-19T08:30:00+01:00")),
            ("expires-before-published", catalog(expires="2026-11-21T08:29:59Z")),
            ("versions-missing", without(good, "versions")), ("versions-object", catalog(versions={})),
            ("version-number", catalog(versions=[5])),
            ("version-twice", catalog(versions=[version("a", "1"), version("b", "1"), version("a", "1")])),
            ("name-dots", catalog(versions=[version("..", "1")])),
            ("name-slash", catalog(versions=[version("a/b", "1")])),
            ("name-300-characters", catalog(versions=[version("a" * 300, "1")])),
            ("name-control-character", catalog(versions=[version("a\nb", "1")])),
            ("version-hints", catalog(versions=[version("a", "1.hints")])),
            ("manifest-not-hex", catalog(versions=[version("a", "1", manifest="x" * 64)])),
            ("manifest-zero", catalog(versions=[version("a", "1", manifest="0" * 64)])),
            ("image-short", catalog(versions=[version("a", "1", image="ab")])),
            ("disk-size-zero", catalog(versions=[version("a", "1", disk_size=0)])),
            ("block-size-no-power-of-two", catalog(versions=[version("a", "1", block_size=65537)])),
            ("data-size-over-disk-size", catalog(versions=[version("a", "1", data_size=1 << 40)]))]:
        write("catalog", "bad-%s.json" % name, dump(value))
    write("catalog", "bad-empty.json", b"")
    write("catalog", "bad-array.json", "[]")
    write("catalog", "bad-truncated.json", text[:-3])
    write("catalog", "bad-trailing-text.json", text + "{}")
    write("catalog", "bad-member-twice.json", text.replace('"serial": 7', '"serial": 7, "serial": 7'))
    write("catalog", "bad-nested-too-deep.json", text.replace('"serial": 7', '"serial": 7, "x": ' + "[" * 40 + "]" * 40))
    write("catalog", "bad-name-nul.json", text.replace("alpine", "alpine\\u0000"))
    write("catalog", "bad-not-utf-8.json", text.encode().replace(b"alpine", b"alpin\xe9"))


def manifest(**changes):
    made = {"format": "circular-manifest-1", "name": "debian12", "version": "20261121",
            "published": "2026-11-21T08:30:00Z", "architecture": "amd64", "description": "Debian 12, für alle",
            "disks": [{"image": sha(b"image").hex(), **SIZES}]}
    made.update(changes)
    return made


def manifests():
    good = manifest()
    disk = good["disks"][0]
    write("manifest", "good-one-disk.json", dump(good))
    write("manifest", "good-two-disks.json", dump(manifest(disks=[disk, disk])))
    write("manifest", "good-least.json", dump(without(without(good, "architecture"), "description")))
    for name, value in [
            ("other-format", manifest(format="circular-catalog-1")), ("name-missing", without(good, "name")),
            ("name-dots", manifest(name="..")), ("published-number", manifest(published=1795297243)),
            ("architecture-long", manifest(architecture="a" * 33)),
            ("description-long", manifest(description="d" * 1025)),
            ("description-escape", manifest(description="\x1b[2J")),
            ("no-disks", manifest(disks=[])), ("disks-missing", without(good, "disks")),
            ("disks-17", manifest(disks=[disk] * 17)),
            ("image-missing", manifest(disks=[without(disk, "image")])),
            ("block-size-missing", manifest(disks=[disk, without(disk, "block_size")]))]:
        write("manifest", "bad-%s.json" % name, dump(value))


def hints(**changes):
    made = {"format": "circular-hints-1", "mirrors": ["http://mirror.example/os"],
            "packs": [{"pack": sha(b"pack").hex(), "kind": "boot", "size": 19293184, "table_size": 44672}],
            "profile": sha(b"profile").hex()}
    made.update(changes)
    return made


def all_hints():
    good = hints()
    pack = good["packs"][0]
    write("hints", "good-all.json", dump(good))
    write("hints", "good-segments.json", dump(hints(version="1", image=sha(b"image").hex(),
                                                    packs=[{**pack, "segments": [44672, 50000]}])))
    write("hints", "good-none.json", dump({"format": "circular-hints-1"}))
    for name, value in [
            ("other-format", hints(format="hints")), ("mirror-file-url", hints(mirrors=["file:///etc"])),
            ("mirror-path", hints(mirrors=["/etc"])), ("mirror-no-host", hints(mirrors=["http:///os"])),
            ("mirror-number", hints(mirrors=[1])), ("mirrors-65", hints(mirrors=["http://a"] * 65)),
            ("pack-digest", hints(packs=[{**pack, "pack": "../x"}])),
            ("pack-kind", hints(packs=[{**pack, "kind": "home"}])),
            ("pack-table-size", hints(packs=[{**pack, "table_size": 44673}])),
            ("segments-fall", hints(packs=[{**pack, "segments": [50000, 50000]}])),
            ("segment-in-table", hints(packs=[{**pack, "segments": [44671]}])),
            ("segment-past-end", hints(packs=[{**pack, "segments": [19293184]}])),
            ("segment-text", hints(packs=[{**pack, "segments": ["50000"]}])),
            ("segments-257", hints(packs=[{**pack, "segments": list(range(50000, 50257))}])),
            ("version-dots", hints(version="..")), ("image-zero", hints(image="0" * 64)),
            ("pack-smaller-than-table", hints(packs=[{**pack, "size": 44672}])),
            ("packs-text", hints(packs="none")), ("profile-zero", hints(profile="0" * 64))]:
        write("hints", "bad-%s.json" % name, dump(value))


# Keys and signatures: made once with minisign 0.11, over the message "hi\n".

PUBLIC = "RWQjuSEAtH91F5942jSh3yNd7Arb8vbgnU/svhNQ1VERNk00kwmWcwhH"
SECRET = ("RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI7khALR/dRf78AF1a/TSKIK2JeolT84u"
          "175UA4Se8OXJJUTQ5FOOz5942jSh3yNd7Arb8vbgnU/svhNQ1VERNk00kwmWcwhHAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
HASHED = ("untrusted comment: signature from minisign secret key\n"
          "RUQjuSEAtH91F2vA1cjgmmuzeaygVTNv1EVFkGTno/2IHAD2x/GrPax1OR8fswKc9rrSyoIqBIoyRkoCekMwzlsqA1NFPS7TPAM=\n"
          "trusted comment: timestamp:1795297243\tfile:m\thashed\n"
          "CGi0HJMHRe6CQ2j0UpDr1DsWW7kM1sFdNOg/R3MrCPu64NzCMELUE/RtD0KJg2YVayYPJBqlr01Pkm8xtfnXDQ==\n")
LEGACY = ("untrusted comment: signature from minisign secret key\n"
          "RWQjuSEAtH91F6Phzl9SWdXIaJ6Hh3m56ePPlcT0SJwcSO7kLRggGikyn+rF6fOYExBh/BibFVE3qVdowrX6HdgkN6fmr68S+Ak=\n"
          "trusted comment: timestamp:1795297243\tfile:m\n"
          "4rkJya07RQfGcMDYyGazSsuXVsOnV4+z7YDaRHxxChWk9HVwfLcnCFIjj/4m2cNWPPPhEGppGGAYaxYSg/txDA==\n")


def key_text(raw, comment="untrusted comment: a golden key\n"):
    return comment + base64.b64encode(raw).decode() + "\n"


def keys():
    raw = base64.b64decode(PUBLIC)
    write("public-key", "good-minisign.pub", key_text(raw))
    write("public-key", "good-bare.pub", PUBLIC)
    write("public-key", "good-line-ends-of-windows.pub", key_text(raw).replace("\n", "\r\n"))
    write("public-key", "bad-empty.pub", "")
    write("public-key", "bad-comment-only.pub", "untrusted comment: a golden key\n")
    write("public-key", "bad-algorithm.pub", key_text(b"XX" + raw[2:]))
    write("public-key", "bad-truncated.pub", key_text(raw[:-1]))
    write("public-key", "bad-not-base64.pub", "untrusted comment: a golden key\nthis is no key\n")
    write("public-key", "bad-two-keys.pub", key_text(raw) + PUBLIC + "\n")
    write("public-key", "bad-secret-key.pub", key_text(base64.b64decode(SECRET)))
    secret = base64.b64decode(SECRET)
    digest = hashlib.blake2b(secret[:2] + secret[54:126], digest_size=32).digest()
    salt = sha(b"salt")
    stream = hashlib.scrypt(b"p", salt=salt, n=1024, r=8, p=1, dklen=104)
    plain = secret[54:126] + digest
    encrypted = b"EdScB2" + salt + struct.pack("<QQ", 1 << 15, 1 << 20) + bytes(a ^ b for a, b in zip(plain, stream))
    write("secret-key", "good-minisign.sec", key_text(secret))
    write("secret-key", "good-with-checksum.sec", key_text(secret[:126] + digest))
    write("secret-key", "good-encrypted.sec", key_text(encrypted))
    write("secret-key", "bad-wrong-password.sec", key_text(altered(encrypted, 6, b"SALT")))
    write("secret-key", "bad-encrypted-flipped.sec", key_text(altered(encrypted, 157, bytes([encrypted[157] ^ 1]))))
    write("secret-key", "bad-scrypt-memory.sec", key_text(altered(encrypted, 46, struct.pack("<Q", 1 << 40))))
    write("secret-key", "bad-scrypt-work.sec", key_text(altered(encrypted, 38, struct.pack("<Q", 1 << 40))))
    write("secret-key", "bad-halves.sec", key_text(altered(secret, 94, b"other")))
    write("secret-key", "bad-checksum.sec", key_text(altered(secret, 126, b"x")))
    write("secret-key", "bad-algorithm.sec", key_text(b"XX" + secret[2:]))
    write("secret-key", "bad-kdf.sec", key_text(altered(secret, 2, b"Ar")))
    write("secret-key", "bad-truncated.sec", key_text(secret[:-1]))
    write("secret-key", "bad-public-key.sec", key_text(raw))


def signatures():
    lines = HASHED.splitlines(keepends=True)
    older = LEGACY.splitlines(keepends=True)
    write("signature", "good-hashed.minisig", HASHED)
    write("signature", "good-legacy.minisig", LEGACY)
    write("signature", "good-two.minisig", LEGACY + HASHED)
    other = base64.b64decode(lines[1])
    wrong = base64.b64encode(altered(other, 20, b"wrong")).decode() + "\n"
    unknown = base64.b64encode(altered(other, 2, b"unknown!")).decode() + "\n"
    write("signature", "good-second-of-two.minisig", lines[0] + wrong + lines[2] + lines[3] + LEGACY)
    write("signature", "bad-signature-wrong.minisig", lines[0] + wrong + lines[2] + lines[3])
    write("signature", "bad-key-unknown.minisig", lines[0] + unknown + lines[2] + lines[3])
    write("signature", "bad-comment-changed.minisig", HASHED.replace("1795297243", "1795297244"))
    write("signature", "bad-comment-of-another.minisig", "".join(lines[:2] + older[2:]))
    write("signature", "bad-empty.minisig", "")
    write("signature", "bad-three-lines.minisig", "".join(lines[:3]))
    write("signature", "bad-second-truncated.minisig", HASHED + "".join(older[:2]))
    write("signature", "bad-no-untrusted-comment.minisig", "".join(lines[1:]))
    write("signature", "bad-no-trusted-comment.minisig", lines[0] + lines[1] + lines[3])
    write("signature", "bad-comment-too-long.minisig", HASHED.replace("hashed", "h" * 1024))
    write("signature", "bad-comment-escape.minisig", HASHED.replace("hashed", "\x1b[2J"))
    write("signature", "bad-algorithm.minisig", HASHED.replace("RUQj", "RkQj"))
    write("signature", "bad-not-base64.minisig", HASHED.replace("RUQj", "R*Qj"))


def texts():
    write("conf", "good-all.conf", "# a comment\n\n  key = /etc/lab.pub \nkey=RWQ=\r\nmirror = http://a/#x\n\tmax-size\t=\t10G")
    write("conf", "good-empty.conf", "")
    write("conf", "bad-no-equals.conf", "key /etc/lab.pub\n")
    write("conf", "bad-no-word.conf", "\n\n = 7\n")
    write("conf", "bad-no-value.conf", "key =\n")
    write("conf", "bad-nul.conf", b"key = a\0b\n")
    write("conf", "bad-control-character.conf", b"key = \x1b[2J\n")
    for name, text in [("url", "http://host:8080/os/debian12@20261121"), ("url-user", "https://me:pass@host/os/d"),
                       ("url-ipv6", "http://[::1]/os/d"), ("file-url", "file:///srv/os/debian12"),
                       ("path", "/srv/www/os/debian12@1"), ("relative-path", "./debian12")]:
        write("location", "good-%s.txt" % name, text)
    for name, text in [("empty", ""), ("bare-name", "debian12"), ("scheme", "ftp://host/os/d"), ("no-host", "http:///os/d"),
                       ("port", "http://host:port/d"), ("query", "http://host/os?x/d"), ("dots", "http://host/os/.."),
                       ("version-empty", "/srv/os/d@"), ("control-character", "http://host/os/d\r\n"),
                       ("file-url-host", "file://host/srv/os/d"), ("password-with-slash", "http://me:pa/ss@host/d")]:
        write("location", "bad-%s.txt" % name, text)


frames()
maps()
packs()
catalogs()
manifests()
all_hints()
keys()
signatures()
texts()
