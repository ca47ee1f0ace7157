#!/bin/sh
# bench/relay, on which the figures of bench/README.md stand, is the link that it says: never faster, hardly slower.
. "$(dirname "$0")/../lib/common.sh"
requires python3
[ -x "$build/bench/relay" ] || skip "bench/relay was not built"

# Two seconds of slack, for a machine that does other things too; alone, 0.2 is enough.
expect 0 python3 "$top/tests/lib/relay_check.py" "$build/bench/relay" "${CIRCULAR_RELAY_SLACK:-2}"
while read -r line; do
    ok "$line"
done <out
