#!/usr/bin/env python3
"""A strict reader of Prometheus' text exposition format, version 0.0.4: prints NAME{LABELS} VALUE sorted, or fails.

Demanded: HELP and TYPE once before each family's samples, families not interleaved, legal names and escapes, no
sample twice; counters end in _total and are not negative; histograms have rising le= with +Inf last, never falling
counts, and a count that is that of +Inf.
"""
import math
import re
import sys

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')


def fail(line, why):
    sys.exit(f"line {line}: {why}")


def parse_sample(number, line):
    match = NAME.match(line) or fail(number, "no name")
    name, at, labels = match.group(), match.end(), {}
    if line[at : at + 1] == "{":
        at += 1
        while line[at : at + 1] != "}":
            label = LABEL.match(line, at) or fail(number, f"not a label at column {at}")
            if label.group(1) in labels:
                fail(number, "a label twice")
            labels[label.group(1)] = label.group(2)
            at = label.end()
            if line[at : at + 1] == ",":
                at += 1
            elif line[at : at + 1] != "}":
                fail(number, "neither comma nor brace after a label")
        at += 1
    if not re.fullmatch(r" [0-9]+(\.[0-9]+)?", line[at:]):
        fail(number, f"not a value: {line[at:]!r}")
    return name, labels, float(line[at:])


def family_of(name, families):
    for suffix in ("", "_bucket", "_sum", "_count"):
        base = name[: -len(suffix)] if suffix and name.endswith(suffix) else name if not suffix else None
        if base in families and (not suffix or families[base] == "histogram"):
            return base
    return None


def check_histogram(name, samples):
    limits = [float(labels["le"].replace("+Inf", "inf")) for sample, labels, _ in samples if sample == name + "_bucket"]
    counts = [value for sample, _, value in samples if sample == name + "_bucket"]
    totals = [value for sample, _, value in samples if sample == name + "_count"]
    sums = [value for sample, _, value in samples if sample == name + "_sum"]
    if limits != sorted(set(limits)) or not limits or limits[-1] != math.inf:
        sys.exit(f"{name}: le= does not rise to +Inf")
    if counts != sorted(counts) or totals != [counts[-1]] or len(sums) != 1:
        sys.exit(f"{name}: counts that fall, or _count and _sum that do not fit")


def main():
    text = sys.stdin.read()
    if not text.endswith("\n"):
        sys.exit("no newline at the end")
    helps, families, samples, current, seen = set(), {}, {}, None, set()
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            if name in helps or len(line.split(" ", 3)) != 4:
                fail(number, "HELP twice or without words")
            helps.add(name)
            current = None
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            if name in families or name not in helps or kind not in ("counter", "gauge", "histogram"):
                fail(number, "TYPE twice, without HELP, or unknown")
            if (kind == "counter") != name.endswith("_total"):
                fail(number, "counters, and only they, end in _total")
            if not NAME.fullmatch(name) or not name.startswith("circular_"):
                fail(number, "not a name of ours")
            families[name], samples[name], current = kind, [], name
        else:
            name, labels, value = parse_sample(number, line)
            if current is None or family_of(name, families) != current:
                fail(number, "not a sample of the family above")
            key = (name, tuple(sorted(labels.items())))
            if key in seen:
                fail(number, "a sample twice")
            seen.add(key)
            samples[current].append((name, labels, value))
    for name, kind in families.items():
        if not samples[name]:
            sys.exit(f"{name}: no sample")
        if kind == "histogram":
            check_histogram(name, samples[name])
    for name in sorted(seen):
        value = next(v for group in samples.values() for n, l, v in group if (n, tuple(sorted(l.items()))) == name)
        print(name[0] + ("{" + ",".join(f'{k}="{v}"' for k, v in name[1]) + "}" if name[1] else ""), f"{value:g}"
              if value % 1 else int(value))


main()
