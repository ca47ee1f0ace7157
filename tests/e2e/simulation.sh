#!/bin/sh
# Fifty clients boot at once from one nginx behind one link: each gets all it asks for, none starves, the link is used.
# With CIRCULAR_LONG a thousand do.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires_root # nginx as its own user could not read the test's folder
requires python3 nginx
[ -x "$build/bench/simulate" ] || skip "bench/simulate was not built"

make_packed_archive 24 4000000 3000000

# A link that also a busy machine fills.
clients=50 link=20:200
[ -z "${CIRCULAR_LONG:-}" ] || clients=1000 link=20:1000
expect 0 "$top/bench/simulate" --build "$build" --archive "$archive" --image disk --clients "$clients" --link "$link" --json
python3 - "$clients" <<'END' || fail "$(cat out)"
import json, sys
result = json.load(open("out"))
wanted = {"every client is done": result["errors"] == 0 and result["clients"] == int(sys.argv[1]),
          "none starves": result["seconds_max"] < 3 * result["seconds_median"],
          "they share fairly": result["jain"] > 0.8,
          "the link is used": result["share"] > 0.3}
for what, held in wanted.items():
    if not held:
        sys.exit(f"not so: {what}")
END
ok "$clients clients at once: every one is done, none starves, they share the link"
cat out
