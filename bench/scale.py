#!/usr/bin/env python3
"""The arithmetic of docs/scale.md: what many machines that boot within a short time ask of servers.

    bench/scale.py --machines 10000 --seconds 60 --requests 10 --bytes 19000000 ...    prints the tables
    bench/scale.py --check docs/scale.md      the tables there are what their own command line gives

Standard library only.
"""
import argparse
import pathlib
import re
import sys


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(row) + " |" for row in rows])


def figure(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def load(options, machines, requests, size):
    """[requests a second, Gbit/s, GB in all] of MACHINES within the time."""
    return [machines * requests / options.seconds, machines * size * 8e-9 / options.seconds, machines * size / 1e9]


def boxes(options, gbit):
    """Servers whose network card is busy to four fifths."""
    return -(-gbit // (options.card * 0.8))


def tables(options):
    sites = options.machines / options.site
    cases = [
        ("every machine from the server", load(options, options.machines, options.requests, options.bytes)),
        (f"a cache in front of every {options.site:,} machines",
         load(options, sites, options.requests, options.bytes + options.site * options.checks_bytes)),
        (f"neighbours' caches serve {options.neighbours:.0%} of the bytes",
         load(options, options.machines, options.requests * (1 - options.neighbours) + options.checks,
              options.bytes * (1 - options.neighbours))),
        ("warm: every machine has booted this version before", load(options, options.machines, options.checks, options.checks_bytes)),
        ("whole images downloaded first, for comparison", load(options, options.machines, 1, options.image)),
    ]
    rows = [[what, figure(rate), figure(gbit), figure(total), figure(max(1, boxes(options, gbit)))]
            for what, (rate, gbit, total) in cases]
    return table(["", "requests/s", "Gbit/s", "GB in all", f"servers with {options.card:g} Gbit/s"], rows)


def parser():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--machines", type=int, default=10000)
    parse.add_argument("--seconds", type=float, default=60, help="within which all begin")
    parse.add_argument("--requests", type=float, help="of one boot")
    parse.add_argument("--bytes", type=float, help="of one boot")
    parse.add_argument("--checks", type=float, help="requests of a boot that has all in its cache")
    parse.add_argument("--checks-bytes", type=float, help="their bytes")
    parse.add_argument("--image", type=float, help="bytes of the whole image, compressed")
    parse.add_argument("--site", type=int, default=100, help="machines behind one cache")
    parse.add_argument("--neighbours", type=float, default=0.9, help="part that neighbours serve")
    parse.add_argument("--card", type=float, default=10, help="Gbit/s of a server's network card")
    parse.add_argument("--check", metavar="FILE")
    return parse


def check(path):
    """Each block "<!-- bench/scale.py ARGUMENTS -->" is followed by what these arguments print."""
    text = pathlib.Path(path).read_text()
    found = re.findall(r"<!-- bench/scale\.py (.*?) -->\n(.*?)\n<!-- end -->", text, re.S)
    for words, block in found:
        if block.strip() != tables(parser().parse_args(words.split())):
            sys.exit(f"{path}: the table is not what `bench/scale.py {words}` prints")
    if not found:
        sys.exit(f"{path} has no table of bench/scale.py")


def main():
    options = parser().parse_args()
    if options.check:
        check(options.check)
    else:
        print(tables(options))


if __name__ == "__main__":
    main()
