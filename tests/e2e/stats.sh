#!/bin/sh
# `circular stats` tells the truth about a running mount - as nginx has seen it, too -, answers while every reader
# waits and says for what, in words, JSON and for Prometheus, and shows it live.
. "$(dirname "$0")/../lib/common.sh"
. "$top/tests/lib/servers.sh"
requires nginx python3 tmux
requires_fuse

free_port port
nginx_on() { # FOLDER
    start_nginx '$status $body_bytes_sent' <<END
    server { listen 127.0.0.1:$port; root $1; }
END
}

number() { # FIELD: of the mount m
    circular stats --json m | python3 -c "import json, sys; print(json.load(sys.stdin)$1)"
}
read_block() { # NUMBER, past the page cache
    dd if=m/disk of=/dev/null bs=65536 skip="$1" count=1 iflag=direct 2>/dev/null
}
two_wait() { [ "$(number "['waiting'][0]['readers']")" = 2 ]; }
has_waiting() { [ "$(number "['waiting'][0]['age_ms']")" -gt "$1" ]; }

make_archive 16
nginx_on "$archive"
url=http://127.0.0.1:$port
forget_asked

start_mount "$url/disk" m --prefetch none
cmp m/disk disk.img
stop_first=$(number "['process']")
[ "$stop_first" = "$mount" ] || fail "process $stop_first, not $mount"
# nginx writes its line after the client has the answer.
agree() {
    python3 - asked <<'END'
import json, subprocess, sys, os
told = json.loads(subprocess.check_output([os.environ["CIRCULAR"], "stats", "--json", "m"]))
lines = [line.split() for line in open(sys.argv[1])]
requests = sum(c["requests"] for c in told["classes"])
received = sum(c["bytes"] for c in told["classes"])
mirror = told["mirrors"][0]
assert len(told["mirrors"]) == 1 and mirror["state"] == "in use", told["mirrors"]
print(len(lines), requests, mirror["requests"], sum(int(b) for _, b in lines), received, mirror["bytes"])
assert requests == len(lines) == mirror["requests"]
assert received == sum(int(size) for _, size in lines)
END
}
CIRCULAR=$circular
export CIRCULAR
wait_for 30 agree
ok "requests and bytes, by class and by mirror, are those of nginx's log"

cold=$(number "['misses']")
[ "$cold" -gt 0 ] || fail 'nobody waited'
[ "$(number "['waits']" | tr -d '[]' | tr ',' '\n' | awk '{ sum += $1 } END { print sum }')" = "$cold" ] ||
    fail 'the histogram is not of all waits'
[ "$(number "['read_bytes']")" -ge "$(stat -c %s disk.img)" ] || fail 'fewer bytes read than there are'
stop_mount m
start_mount "$url/disk" m --prefetch none
cmp m/disk disk.img
[ "$(number "['misses']")" = 0 ] || fail 'a warm cache is not used'
[ "$(number "['cache_hits']")" -gt 0 ] || fail 'what comes out of the cache is not counted'
[ "$(number "['fetched_blocks']")" = 0 ] || fail 'blocks are fetched again'
stop_mount m
block=$(find "$XDG_CACHE_HOME/circular/blocks" -type f | head -n 1)
echo damage >"$block"
start_mount "$url/disk" m --prefetch none
cmp m/disk disk.img
[ "$(number "['cache_corrupt']")" = 1 ] || fail 'damage is not counted'
[ "$(number "['fetched_blocks']")" = 1 ] || fail 'not one block is fetched again'
ok 'hits, misses, waits, and a damaged block in the cache'

expect 0 circular stats --prometheus m
[ ! -s err ] || fail 'something on standard error'
python3 "$top/tests/lib/prometheus.py" <out >samples || fail 'not in the text exposition format'
grep -qx 'circular_cache_corrupt_blocks_total 1' samples
grep -qx "circular_mirror_up{mirror=\"$url\"} 1" samples
grep -qx 'circular_waiting_readers 0' samples
python3 "$top/tests/lib/prometheus.py" <samples 2>err && fail 'the reader of the test takes everything'
ok 'Prometheus can read it'
stop_mount m

# Nobody answers: who waits, for what, from where?
rm -rf "$XDG_CACHE_HOME"
start_mount "$url/disk" m --prefetch none --patience 60s
worker=$(pgrep -P "$server")
kill -STOP "$worker"
at_exit sh -c "kill -CONT $worker 2>/dev/null"
start dd if=m/disk of=/dev/null bs=4096 count=1 skip=100 iflag=direct
first=$pid
start dd if=m/disk of=/dev/null bs=4096 count=1 skip=101 iflag=direct
second=$pid
wait_for 40 two_wait
wait_for 40 has_waiting 1000
expect 0 timeout 20 "$circular" stats m
says "^waiting   [1-9].* for block [0-9a-f]{12}\.\.\. \(2 readers\) from $url"
kill -CONT "$worker"
wait "$first" "$second"
expect 0 circular stats m
says '^waiting   nobody'
stop "$server"
start dd if=m/disk of=/dev/null bs=4096 count=1 skip=2500 iflag=direct
reader=$pid
wait_for 30 has_waiting 300
wait_for 30 sh -c "'$circular' stats m | grep -E '^waiting   .* from $url: .*refused'"
expect 0 circular stats m
says "^mirror    $url, unreachable: .*refused"
nginx_on "$archive"
wait "$reader"
ok 'who waits for what, from where and why it does not come, while all readers wait'
stop_mount m

# A whole catalog, a file of it, another user's mount, none at all.
start_mount "$url" m
expect 0 circular stats m
says "^$url\$"
expect 0 circular stats m/disk/1
stop_mount m
expect 3 circular stats m
says 'm is not at, or below, a mount of circular'
expect 3 circular stats nowhere
expect 3 circular stats /proc
expect 2 circular stats --prometheus --watch m
expect 2 circular stats --interval 5s m
start_mount "$url/disk" m
kill -KILL "$mount"
wait "$mount" || :
expect 4 circular stats m
says 'has died'
circular umount m
ok 'catalogs, and what is no mount'

start_mount "$url/disk" m
at_exit sh -c "kill -CONT $mount 2>/dev/null" # or it could not be ended
kill -STOP "$mount"
expect 4 timeout 60 "$circular" stats m
says 'm gives no answer: the process that serves it is stopped or hangs'
expect 4 timeout 60 "$circular" stats m/disk
expect 4 timeout 60 "$circular" mount "$url/disk" m
says 'm gives no answer'
kill -CONT "$mount"
expect 0 circular stats m
stop_mount m
ok 'nobody waits for a mount whose process is stopped'

# Live: on a terminal in place, elsewhere line by line.
start_mount "$url/disk" m
start "$circular" stats --watch --interval 100ms m
watcher=$pid
wait_for 30 sh -c "[ \$(grep -c ' read .*fetched .*waited' '$work'/log.*) -ge 2 ] || grep -lq 'read 0 B/s' '$work'/log.??????"
grep -q 'a line each time' "$work"/log.?????? || fail 'it does not say that it prints lines'
stop "$watcher" INT
[ "$status" = 0 ] || fail "ended with $status"
socket=$work/tmux
tmux -S "$socket" -f /dev/null new-session -d -x 80 -y 24 sh
at_exit tmux -S "$socket" kill-server
screen_shows() { tmux -S "$socket" capture-pane -p | grep -q -- "$1"; }
screen_shows_not() { ! screen_shows "$1"; }
tmux -S "$socket" send-keys "PS1='ready> '; stty -g >before; '$circular' stats --watch -n 100ms m; stty -g >after" Enter
wait_for 30 screen_shows 'q quits'
wait_for 30 screen_shows "^$url/disk@1"
tmux -S "$socket" resize-window -x 40 -y 10
wait_for 30 screen_shows '^waiting   nobody'
[ "$(tmux -S "$socket" capture-pane -p | awk '{ if (length > 40) n++ } END { print n + 0 }')" = 0 ] || fail 'too wide'
tmux -S "$socket" resize-window -x 80 -y 24
tmux -S "$socket" send-keys q
wait_for 30 test -s after
cmp before after || fail 'the terminal is not as it was'
wait_for 30 screen_shows_not 'q quits'
tmux -S "$socket" send-keys "'$circular' stats --watch m; stty -g >again" Enter
wait_for 30 screen_shows 'q quits'
circular umount m
wait_for 30 screen_shows 'is not at, or below, a mount'
wait_for 30 cmp before again
ok 'live on a terminal, resized, ended by q and by the end of the mount; line by line elsewhere'

if [ "$(id -u)" = 0 ] && losetup -f >/dev/null 2>&1 && command -v mke2fs >/dev/null; then
    mkdir tree
    echo inside >tree/file
    truncate -s 16M fs.img
    mke2fs -q -t ext4 -d tree fs.img
    circular publish fs.img --name fs --version 1 --key "$key" --to "$archive"
    start_mount "$url/fs" m --fs
    expect 0 circular stats m
    says "^$url/fs@1"
    says "^process   $mount,"
    [ "$(number "['read_bytes']")" -gt 0 ] || fail 'nothing was read'
    expect 0 circular stats m/file
    stop_mount m
    [ ! -e m/file ] || fail 'it is still there'
    ok 'the file system inside a disk, whose own mount nobody sees'
fi
