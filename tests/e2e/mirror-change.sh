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
    lie '^/blocks/' delay:150
}
make_quick() { # URL
    url=$1
    be_honest
}
sent_by() { # URL; a probe is a byte, a block thousands
    url=$1
    liar_stats bytes
}
# Read blocks that nobody has read, here and there; does URL send nearly all of them?
block=0
serves_most() { # URL
    mine=$(sent_by "$1") all=$(($(sent_by "$first") + $(sent_by "$second")))
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
        block=$(((block + 389) % 1024))
        dd if=mnt/disk of=/dev/null bs=65536 skip="$block" count=1 iflag=direct 2>/dev/null
    done
    mine=$(($(sent_by "$1") - mine)) all=$(($(sent_by "$first") + $(sent_by "$second") - all))
    [ "$all" -gt 300000 ] && [ $((mine * 4)) -ge $((all * 3)) ]
}

make_slow "$second"
wait_for 30 serves_most "$first"
ok "the quick one of two mirrors serves the readers"
make_quick "$second"
make_slow "$first"
wait_for 60 serves_most "$second"
ok "when it becomes slow, they go to the other"
make_quick "$first"
make_slow "$second"
wait_for 60 serves_most "$first"
ok "when it is quick again, they come back"
expect 0 circular stats --json mnt
python3 - <<'END_OF_CHECK' || fail "$(cat out)"
import json
mirrors = json.load(open("out"))["mirrors"]
assert all(mirror["state"] == "in use" and mirror["errors"] == 0 for mirror in mirrors), mirrors
END_OF_CHECK
stop_mount mnt
ok "neither was held for broken"
