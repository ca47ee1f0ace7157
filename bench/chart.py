"""Tables and the chart of bench/README.md, section B, from the results of bench/latency. Standard library only."""
import html
import math
import sys

import scale

MIB = 1 << 20
PROFILE, PLAIN = "circular, profile and pack", "circular, no profile"
PACKED = "circular, no profile, packs of everything"
NBDKIT, CACHE, QEMU = "nbdkit curl", "nbdkit curl, cache filter", "QEMU's HTTP driver"
WHOLE = "curl \\| zstd -d of the image"
CASYNC = "casync, computed from its rate"
PEERS = [NBDKIT, CACHE, QEMU, CASYNC, WHOLE]
ROWS = [PROFILE, PACKED, PLAIN, *PEERS]
COLOURS = {PROFILE: "#0b6e4f", PACKED: "#3d9970", PLAIN: "#6bbf8a", NBDKIT: "#c8553d", CACHE: "#e39b7b", QEMU: "#8a6fb0", CASYNC: "#c9a227",
           WHOLE: "#8d99ae"}
LIMIT_BARS = {"100:100": 1.25, "20:1000": 2.0, "200:20": 1.15}


def limit(results, name):
    rtt_ms, mbit = map(float, name.split(":"))
    return results["trace"]["compressed"] * 8e-6 / mbit + 3 * rtt_ms / 1000


def link_text(name):
    rtt, mbit = name.split(":")
    if not float(rtt):
        return "loopback"
    return f"{rtt} ms, {float(mbit) / 1000:g} Gbit/s" if float(mbit) >= 1000 else f"{rtt} ms, {mbit} Mbit/s"


def bar(what, value, most):
    return [what, f"{value:.3g}", f"at most {most:g}", "yes" if value <= most else "no"]


def bars(results):
    """[what, value, bar, met] for each bar whose figures are there."""
    rows = []
    for name, link in results.get("links", {}).items():
        whole, curl = link.get(WHOLE), link.get(NBDKIT)
        ours = link.get(PROFILE)
        place = link_text(name)
        if ours:
            if name in LIMIT_BARS:
                rows.append(bar(f"{place}: with profile, multiple of the limit", ours["seconds"] / limit(results, name),
                                LIMIT_BARS[name]))
            elif curl:
                rows.append(bar(f"{place}: with profile, multiple of nbdkit curl", ours["seconds"] / curl["seconds"], 1))
            rows.append(bar(f"{place}: requests with profile", ours["requests"], 12))
            rows.append(bar(f"{place}: bytes with profile, multiple of the touched blocks'", ours["bytes_ratio"], 1.1))
        for what in (PACKED, PLAIN):
            plain, text = link.get(what), what.removeprefix("circular, ")
            if plain and name in LIMIT_BARS and whole:
                rows.append(bar(f"{place}: {text}, multiple of curl \\| zstd -d", plain["seconds"] / whole["seconds"], 1))
            elif plain and name not in LIMIT_BARS and curl:
                rows.append(bar(f"{place}: {text}, multiple of nbdkit curl", plain["seconds"] / curl["seconds"], 1))
    boot, pull = results.get("boot"), results.get("pull")
    if boot:
        rows.append(bar("boot in QEMU to the login prompt, multiple of a local raw file", boot["network"] / boot["local"], 1.1))
    if pull:
        rows.append(bar("full pull, multiple of curl of as many bytes", pull["seconds"] / pull["peer"], 1.05))
    return rows


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def seconds_table(results):
    links = results["links"]
    rows = [["the link's limit"] + [f"{limit(results, name):.2f} s" for name in links]]
    for what in ROWS:
        row = [what]
        for name, link in links.items():
            if what not in link:
                row.append("–")
                continue
            seconds = link[what]["seconds"]
            row.append(f"{seconds:.2f} s, {seconds / limit(results, name):.2f} x")
        rows.append(row)
    return table(["replay of the boot"] + [link_text(name) for name in links], rows)


def peers_table(results):
    rows = []
    for what in (PROFILE, PACKED, PLAIN):
        for name, link in results["links"].items():
            if what not in link:
                continue
            row = [what, link_text(name), str(link[what]["requests"]), f"{link[what]['bytes_ratio']:.2f}"]
            for peer in PEERS:
                row.append(f"{link[what]['seconds'] / link[peer]['seconds']:.3g}" if peer in link else "–")
            rows.append(row)
    return table(["", "link", "requests", "bytes / touched", "of nbdkit curl", "of its cache filter", "of QEMU's driver",
                  "of casync", "of curl \\| zstd -d"], rows)


def text(results):
    """Section B in Markdown."""
    parts = []
    if "trace" in results and "links" in results:
        trace = results["trace"]
        parts.append(f"The recorded boot: {trace['reads']} reads, {trace['bytes'] / MIB:.1f} MiB, {trace['blocks']} blocks of "
                     f"64 KiB that are not zeros, {trace['compressed'] / MIB:.1f} MiB compressed. Seconds from the start of "
                     "the first program to the last read, and as a multiple of the limit, which is the blocks' compressed "
                     "bytes at the link's rate and three round trips.")
        parts += ["![Seconds until the boot is read, over each link and by each road](latency.svg)", seconds_table(results),
                  "Requests, bytes, and the time as a multiple of the peers':", peers_table(results)]
    more = []
    rates = [f"{link[CASYNC]['chunks_per_second']:.1f} over {link_text(name)}"
             for name, link in results.get("links", {}).items() if CASYNC in link]
    if rates:
        more.append(["casync extract, chunks of 64 KiB a second, by some seconds of it; the table has the boot's blocks at "
                     "that rate", "; ".join(rates)])
    if "short" in results:
        more.append(["the relay of the row of 0.1 ms", f"adds {results['short']['added_ms']:.2f} ms to a small request; carries "
                     f"{results['short']['gbit']:.1f} Gbit/s"])
    if "boot" in results:
        boot = results["boot"]
        more.append(["QEMU (TCG) to the login prompt, 100 ms, 100 Mbit/s, cold", f"{boot['network']:.1f} s; from a local raw "
                     f"file {boot['local']:.1f} s; {boot['requests']} requests, {boot['bytes'] / MIB:.1f} MiB"])
    if "pull" in results:
        pull = results["pull"]
        more.append(["full pull, 100 ms, 100 Mbit/s", f"{pull['plain']:.2f} s from single blocks, {pull['packed']:.2f} s from "
                     f"packs; curl of as many bytes ({pull['bytes'] / MIB:.0f} MiB) {pull['peer']:.2f} s"])
    if "simulation" in results:
        more += simulation_rows(results["simulation"])
    if "ceiling" in results:
        most = results["ceiling"]
        more.append([f"{most['clients']} clients, one nginx, no link between, all on one machine",
                     f"{most['bytes'] * most['clients'] * 8e-9 / most['whole']:.1f} Gbit/s, "
                     f"{most['requests'] * most['clients'] / most['whole']:.0f} requests/s; {most['errors']} errors"])
    if more:
        parts.append(table(["work", "measured"], more))
    parts.append(table(["bar", "measured", "wanted", "met"], bars(results)))
    parts += [f"Not measured: {failed}" for failed in results.get("failed", [])]
    parts.append(f"{results['machine']}; {provenance(results)}.")
    return "\n\n".join(parts)


def provenance(results):
    """When, and with which sources, the rows were measured."""
    days, commits = (sorted(set(values)) for values in zip(*results.get("steps", {"": ["–", "–"]}).values()))
    return f"measured on {' and '.join(days)} at {' and '.join(commits)}"


def simulation_rows(simulation):
    return [[f"{simulation['clients']} clients, one nginx, 1 Gbit/s, 20 ms",
             f"{simulation['requests']} requests and {simulation['bytes'] / 1e6:.1f} MB each; "
             f"{simulation['share'] * 100:.0f} % of the link used; done in {simulation['seconds_min']:.1f} s (fastest), "
             f"{simulation['seconds_median']:.1f} s (median), {simulation['seconds_95']:.1f} s (95 %), "
             f"{simulation['seconds_max']:.1f} s (slowest); Jain's index {simulation['jain']:.3f}; "
             f"{simulation['errors']} errors"]]


# The chart: a group of bars for each link, seconds on a logarithmic axis.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1300, 490, 64, 20, 138, 56


def svg_text(x, y, words, size=13, anchor="middle", colour="#222", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
            f'font-weight="{weight}">{html.escape(words)}</text>')


def chart(results):
    links = results["links"]
    values = [row["seconds"] for link in links.values() for row in link.values()] + [limit(results, name) for name in links]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    height = HEIGHT - TOP - BOTTOM

    def y_of(seconds):
        return TOP + height * (high - math.log10(seconds)) / (high - low)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           'font-family="DejaVu Sans, Verdana, sans-serif">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           svg_text(LEFT, 26, "Seconds until a recorded Debian 12 boot has read its disk over the network", 17, "start",
                    weight="bold")]
    for decade in range(low, high + 1):
        y = y_of(10.0 ** decade)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ccc"/>')
        out.append(svg_text(LEFT - 8, y + 4, f"{10.0 ** decade:g} s", anchor="end"))
        for part in range(2, 10):
            y = y_of(part * 10.0 ** decade)
            if decade < high:
                out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#f0f0f0"/>')
    for number, what in enumerate(ROWS):
        x, y = LEFT + (number % 3) * 300, 46 + number // 3 * 22
        out.append(f'<rect x="{x}" y="{y}" width="14" height="14" fill="{COLOURS[what]}"/>')
        out.append(svg_text(x + 20, y + 12, what.replace("\\", ""), anchor="start"))
    out.append(f'<line x1="{LEFT}" x2="{LEFT + 14}" y1="120" y2="120" stroke="black" stroke-width="2" stroke-dasharray="4 2"/>')
    out.append(svg_text(LEFT + 20, 124, "the link's limit: compressed bytes of the blocks / rate + 3 round trips", anchor="start"))
    group = (WIDTH - LEFT - RIGHT) / len(links)
    for number, (name, link) in enumerate(links.items()):
        start = LEFT + group * number + 14
        width = (group - 28) / len(ROWS)
        for place, what in enumerate(ROWS):
            if what not in link:
                continue
            seconds = link[what]["seconds"]
            x, y = start + place * width, y_of(seconds)
            out.append(f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{width - 4:.1f}" height="{TOP + height - y:.1f}" '
                       f'fill="{COLOURS[what]}"/>')
            out.append(svg_text(x + width / 2, y - 4, f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}", 11))
        y = y_of(limit(results, name))
        out.append(f'<line x1="{start - 6:.1f}" x2="{start + group - 22:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="black" '
                   'stroke-width="2" stroke-dasharray="4 2"/>')
        out.append(svg_text(LEFT + group * (number + 0.5), HEIGHT - 30, link_text(name), 14, weight="bold"))
    out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{TOP + height}" y2="{TOP + height}" stroke="#222"/>')
    out.append(svg_text(WIDTH - RIGHT, HEIGHT - 8, f"{results['machine']}; {provenance(results)}", 10, "end", "#666"))
    return "\n".join(out + ["</svg>", ""])


def scale_text(results):
    """The figures of docs/scale.md."""
    boot, image = results["boot"], results["pull"]["bytes"]
    arguments = (f"--machines 10000 --seconds 60 --requests {boot['requests']} --bytes {boot['bytes']} "
                 f"--checks {boot['warm_requests']} --checks-bytes {boot['warm_bytes']} --image {image}")
    one = table(["one machine", "requests", "bytes"],
                [["boot by BIOS and GRUB to the login prompt, nothing cached, with a boot pack", str(boot["requests"]),
                  f"{boot['bytes']:,}"],
                 ["the same, all cached", str(boot["warm_requests"]), f"{boot['warm_bytes']:,}"],
                 ["the whole image, compressed", "–", f"{image:,}"]])
    many = scale.tables(scale.parser().parse_args(arguments.split()))
    return f"{one}\n\n<!-- bench/scale.py {arguments} -->\n{many}\n<!-- end -->"


def put_between(path, first, last, section):
    """Replace what is between the lines FIRST and LAST of a document."""
    old = path.read_text()
    if first + "\n" not in old or last not in old:
        sys.exit(f"{path} lacks the markers {first} and {last}")
    head, rest = old.split(first + "\n", 1)
    path.write_text(f"{head}{first}\n{section}\n{last}{rest.split(last, 1)[1]}")


def in_order(links):
    """Whatever order they were measured in."""
    known = [*LIMIT_BARS, "0.1:10000"]
    return dict(sorted(links.items(), key=lambda item: known.index(item[0]) if item[0] in known else len(known)))


def report(results, folder):
    """Print section B; with FOLDER put it into its README.md, the chart beside it, and docs/scale.md. The bars missed."""
    if "links" in results:
        results["links"] = in_order(results["links"])
    section = text(results)
    print("\n" + section)
    if folder:
        put_between(folder / "README.md", "<!-- latency -->", "<!-- end of latency -->", section)
        if "boot" in results and "pull" in results:
            put_between(folder.parent / "docs/scale.md", "<!-- scale -->", "<!-- end of scale -->", scale_text(results))
        if "links" in results and "trace" in results:
            (folder / "latency.svg").write_text(chart(results))
    missed = [row for row in bars(results) if row[-1] == "no"]
    for row in missed:
        print(f"missed: {row[0]}: {row[1]}, {row[2]}")
    return missed
