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

start sleep 1000
eval "born=\$born_$pid"
eval "born_$pid=1" # as if its pid had been another's before
ended "$pid" || fail "another process with the pid of one that has ended is taken for that"
end_process "$pid"
kill -0 "$pid" || fail "another's process was ended"
eval "born_$pid=\$born"
! ended "$pid" || fail "it runs, and is said to have ended"
stop "$pid"
ok "a pid is that of the process that was started, not of whoever has it later"

requires python3
free_port first second
[ "$first" != "$second" ] || fail "the same port twice"
python3 - "$first" "$second" <<'END' || fail "a port that is held can be had, or cannot be listened on"
import errno, socket, sys
for port in map(int, sys.argv[1:]):
    with socket.socket() as other, socket.socket() as server:
        try:
            sys.exit(other.bind(("127.0.0.1", port)) or "bound")
        except OSError as fault:
            assert fault.errno == errno.EADDRINUSE
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        socket.create_connection(("127.0.0.1", port)).close()
END
ok "a free port stays this test's, and a server's that is told to take it"

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

if [ "$(id -u)" = 0 ] && attach_loop a.img 2>/dev/null; then
    detach_loop "$loop"
    freed=$loop
    attach_loop c.img
    mine=$loop
    loops= # as if another test had it
    detach_loop "$freed"
    losetup "$mine" >/dev/null || fail "$mine, another's, was detached"
    losetup -d "$mine"
    ok "a loop device is detached once: its number may be another's by then"
fi
