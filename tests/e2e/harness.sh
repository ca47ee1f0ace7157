#!/bin/sh
# The words of tests/lib/common.sh themselves: processes end, waits are bounded, expectations bite.
. "$(dirname "$0")/../lib/common.sh"

expect 3 sh -c 'echo seen; exit 3'
says '^seen$'
says_not unseen
ok "expect and says"

(expect 0 false) 2>/dev/null && fail "a wrong status passed"
ok "expect refuses another status"

start sleep 1000
stop "$pid"
[ "$status" = 143 ] || fail "status of an ended process is $status"
ok "start and stop"

make_image a.img 2 7
make_image b.img 2 7
same a.img b.img
make_image c.img 2 8
! cmp -s a.img c.img || fail "another seed, the same image"
ok "images are made from their seed"

requires curl
mkdir www
echo hello >www/file
start_liar www
[ "$(curl -fsS "$url/file")" = hello ] || fail "the honest liar does not serve"
lie ^/file status:503 1
expect 22 curl -fsS "$url/file"
expect 0 curl -fsS "$url/file"
[ "$(liar_stats total)" = 3 ] || fail "the liar counted $(liar_stats total)"
ok "the liar lies as often as told, and counts"
