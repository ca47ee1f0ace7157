#!/bin/sh
# A mirror that becomes slow loses the readers to one that is quick, and has them again when it is the quick one.
. "$(dirname "$0")/../lib/common.sh"
requires python3 curl
requires_fuse

make_archive 64
start_liar "$archive"
first=$url
start_liar "$archive"
second=$url
start_mount "$first/disk" mnt --mirror "$second" --prefetch none

make_slow() { # URL
    url=$1
    lie '^/blocks/' delay:250
}
make_quick() { # URL
    url=$1
    be_honest
}
# Read blocks that nobody has read, here and there, until URL sends nearly all of the last ones. How many that takes is
# up to the program, how long also to the machine.
cat >read.py <<'END'
import json, os, sys, urllib.request
want, other, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
disk = os.open("mnt/disk", os.O_RDONLY)
os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_RANDOM)

def sent_by(url):
    # A probe is a byte, a block thousands.
    return json.load(urllib.request.urlopen(url + "/_stats"))["bytes"]

read = first
while read < last:
    before = [sent_by(url) for url in (want, other)]
    for _ in range(16):
        os.pread(disk, 65536, read * 389 % 1024 * 65536)
        read += 1
    mine, others = (sent_by(url) - sent for url, sent in zip((want, other), before))
    if mine + others > 200000 and mine >= 3 * others:
        print(f"{read - first} blocks")
        sys.exit(0)
sys.exit(f"after {read - first} blocks {want} does not serve most of them")
END
until_served_by() { # URL OTHER-URL FIRST-BLOCK LAST-BLOCK
    took=$(python3 read.py "$@") || fail "$1 is the quicker one and does not serve"
}

make_slow "$second"
until_served_by "$first" "$second" 0 200
ok "the quick one of two mirrors serves the readers: $took"
make_quick "$second"
make_slow "$first"
until_served_by "$second" "$first" 200 600
ok "when it becomes slow, they go to the other: $took"
make_quick "$first"
make_slow "$second"
until_served_by "$first" "$second" 600 1000
ok "when it is quick again, they come back: $took"
expect 0 circular stats --json mnt
python3 - <<'END_OF_CHECK' || fail "$(cat out)"
import json
mirrors = json.load(open("out"))["mirrors"]
assert all(mirror["state"] == "in use" and mirror["errors"] == 0 for mirror in mirrors), mirrors
END_OF_CHECK
stop_mount mnt
ok "neither was held for broken"
