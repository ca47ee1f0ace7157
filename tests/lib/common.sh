# shellcheck shell=sh
# What every end-to-end test stands on. A test is a plain sh script in tests/e2e that begins with
#
#     #!/bin/sh
#     # One or two sentences: the behaviour that this test demands.
#     . "$(dirname "$0")/../lib/common.sh"
#     requires curl
#     requires_fuse
#
# and then does things and calls ok after each behaviour that it has seen. It is run by meson (suite e2e; TAP on
# the first standard output, everything else goes to standard error) or by hand: tests/e2e/mount.sh. The script
# runs under `set -eu`: a command that fails ends the test as failed, with its line of output. A test's own
# time limit is in tests/meson.build.
#
# Here before the test begins
#   $top, $build      the source folder; the build folder (CIRCULAR_BUILD, or $top/build)
#   $circular         the program; a function `circular` calls it
#   $work             an own empty folder, removed at the end; the current folder; also HOME and all XDG folders,
#                     so that no test sees or touches the user's keys, configuration and cache ($work/cache)
#
# Words
#   ok TEXT                        one behaviour was seen
#   fail TEXT                      end the test, failed
#   skip REASON                    end the test, skipped
#   requires TOOL...               skip unless all these programs are there
#   requires_root, requires_fuse, requires_loop
#   at_exit COMMAND...             run at the end, whatever happens; last one first
#   expect STATUS COMMAND...       run it; fail unless it exits with STATUS. Its output is then in $work/out, $work/err
#   says PATTERN                   fail unless the last expect's out or err has a line that matches (grep -E)
#   says_not PATTERN
#   same FILE FILE                 fail unless they hold the same bytes
#   wait_for SECONDS COMMAND...    until COMMAND succeeds, polled; fail after SECONDS, which are for a machine that
#                                  stands still: a busy one needs many times what an idle one does
#   start COMMAND...               in the background, with its pid in $pid; ended at the end. Output: $work/log.$pid
#   stop PID [SIGNAL]              end a started process and wait for it; its exit status is in $status
#   join PID                       wait until a started process ends by itself; its exit status is in $status
#   end_at_exit PID                of a process that was not begun by start
#   free_port NAME...              TCP ports of 127.0.0.1 that nobody listens on, in these variables; nobody else is given
#                                  them until the end of the test
#   $nobody                        where nobody listens
#   make_image FILE MIB [SEED]     a disk image: text, incompressible bytes, repeated blocks and holes; same SEED
#                                  (a number, default 1), same bytes
#   make_key NAME                  $work/NAME.sec and $work/NAME.pub, without a password
#   trust_key NAME                 the isolated user trusts $work/NAME.pub
#   make_archive [MIB]             $work/disk.img published as disk@1 in $archive ($work/archive), signed by $key,
#                                  public half $pub; trusted by the isolated user, so that --key is not needed
#   make_packed_archive MIB HEAD TAIL [--all]    as make_archive, with a boot pack for a boot that reads the first HEAD
#                                  and the last TAIL bytes, and with --all packs of the rest
#   start_server FOLDER [PORT]     `circular serve`; its address in $url, its port in $port, its pid in $server. To have
#                                  the same port again, take one of free_port
#   start_liar FOLDER [OPTION...]  tests/lib/liar.py, the server that misbehaves; address in $url, pid in $server
#   lie PATTERN BEHAVIOUR [COUNT]  from now on, for paths that match; the words are in liar.py. be_honest ends it
#   at URL COMMAND...              with that $url, for several liars: at "$second" be_honest
#   liar_stats FIELD [KEY]         what the liar was asked, e.g. `liar_stats classes blocks`; forget_stats: from zero
#   start_mount URL DIR [OPTION]   `circular mount -f`, waits until it is mounted; pid in $mount
#   stop_mount DIR                 unmount, wait for the process; fails unless it ends cleanly
#   attach_loop [OPTION...] FILE   a loop device of losetup's, in $loop; detached at the end
#   detach_loop DEVICE             before the end; nothing for one that is not attached any more
#   release_folder DIR             for at_exit: undo a mount that may be gone already
#   seed                           prints and returns a random seed (or $SEED if set) in $seed; random N: a number below N

set -eu
umask 022
export LC_ALL=C.UTF-8 TZ=UTC

top=$(cd "$(dirname "$0")/../.." && pwd)
build=${CIRCULAR_BUILD:-$top/build}
circular=${CIRCULAR:-$build/src/cmd/circular}
test_name=$(basename "$0" .sh)

work=$(mktemp -d "${TMPDIR:-/tmp}/circular-$test_name.XXXXXX")
exec 3>&1 1>&2 </dev/null
tests_done=0
at_exit_count=0
outcome=died
reason=''

export HOME="$work" XDG_CONFIG_HOME="$work/config" XDG_CACHE_HOME="$work/cache" XDG_STATE_HOME="$work/state" \
    XDG_DATA_HOME="$work/data" XDG_RUNTIME_DIR="$work/run"
mkdir -m 700 "$XDG_RUNTIME_DIR"
# Without this every mount would fetch the whole disk by and by, and no test could count what a read fetches.
mkdir -p "$XDG_CONFIG_HOME/circular"
echo 'prefetch = profile' >"$XDG_CONFIG_HOME/circular/prefetch.conf"
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy no_proxy 2>/dev/null || :
PATH=$PATH:/usr/sbin:/sbin
cd "$work"

ok() {
    tests_done=$((tests_done + 1))
    echo "ok $tests_done - $*" >&3
}

fail() {
    outcome=failed
    reason=$*
    exit 1
}

skip() {
    outcome=skipped
    reason=$*
    exit 0
}

# Arguments are kept in numbered variables, so that they may hold anything.
at_exit() {
    at_exit_count=$((at_exit_count + 1))
    quoted=''
    for word; do
        quoted="$quoted '$(printf %s "$word" | sed "s/'/'\\\\''/g")'"
    done
    eval "at_exit_$at_exit_count=\$quoted"
}

finish() {
    last=$?
    trap - EXIT INT TERM HUP
    set +e
    [ "$outcome" = died ] && [ "$last" = 0 ] && outcome=passed
    while [ "$at_exit_count" -gt 0 ]; do
        eval "eval \"\$at_exit_$at_exit_count\""
        at_exit_count=$((at_exit_count - 1))
    done
    case $outcome in
    passed) echo "1..$tests_done" >&3 ;;
    skipped)
        echo "1..0 # SKIP $reason" >&3
        last=0
        ;;
    *)
        [ -n "$reason" ] || reason="a command failed with status $last (see the lines above)"
        for file in "$work"/log.*.command; do
            [ -s "${file%.command}" ] && echo "--- $(cat "$file"):" && tail -n 20 "${file%.command}"
        done
        tests_done=$((tests_done + 1))
        printf 'not ok %s - %s\n1..%s\n' "$tests_done" "$reason" "$tests_done" >&3
        [ "$last" != 0 ] || last=1
        ;;
    esac
    cd /
    if [ -n "${CIRCULAR_KEEP:-}" ]; then
        echo "kept: $work"
    else
        # A mount that machines share ends a second after the last of them.
        attempts=0
        while grep -q " $work/" /proc/self/mountinfo && [ $((attempts += 1)) -le 50 ]; do
            sleep 0.1
        done
        # A killed server's, which the next boot of a test that has not failed would have cleared.
        awk -v below="$work/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | while read -r left; do
            fusermount3 -uzq "$left" || umount -l "$left"
        done
        rm -rf --one-file-system "$work"
    fi
    exit "$last"
}
trap finish EXIT
trap 'reason="interrupted"; exit 130' INT TERM HUP

requires() {
    for tool; do
        command -v "$tool" >/dev/null || skip "$tool is not installed"
    done
}

requires_root() {
    [ "$(id -u)" = 0 ] || skip "needs root"
}

requires_fuse() {
    requires fusermount3
    if [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then skip "needs /dev/fuse"; fi
}

requires_loop() {
    requires_root
    requires losetup
    losetup -f >/dev/null 2>&1 || skip "needs loop devices"
}

circular() {
    "$circular" "$@"
}

expect() {
    expect_want=$1
    shift
    expect_got=0
    "$@" >"$work/out" 2>"$work/err" || expect_got=$?
    [ "$expect_got" = "$expect_want" ] && return 0
    cat "$work/out" "$work/err"
    fail "expected exit status $expect_want, got $expect_got: $*"
}

says() {
    grep -Eq -- "$1" "$work/out" "$work/err" && return 0
    cat "$work/out" "$work/err"
    fail "nothing printed matches: $1"
}

says_not() {
    grep -Eq -- "$1" "$work/out" "$work/err" || return 0
    cat "$work/out" "$work/err"
    fail "something printed matches: $1"
}

same() {
    cmp "$1" "$2" || fail "$1 and $2 differ"
}

# By a clock that nobody sets.
set_now() {
    read -r now _ </proc/uptime
    now=${now%.*}
}

wait_for() {
    limit=$1
    shift
    set_now
    end=$((now + limit + 1))
    until "$@" >/dev/null 2>&1; do
        set_now
        [ "$now" -lt "$end" ] || fail "not within $limit s: $*"
        sleep 0.05
    done
}

# A pid is another process's some time after its own has ended. With the time at which it began it is nobody else's.
look_at() { # PID: its state and when it began, in $process_state and $process_born; false if there is none
    read -r process_line 2>/dev/null <"/proc/$1/stat" || return 1
    # shellcheck disable=SC2086 # words
    set -- ${process_line##*) }
    process_state=$1 process_born=${20}
}

end_at_exit() {
    process_born=gone
    look_at "$1" || :
    eval "born_$1=\$process_born"
    at_exit end_process "$1"
}

start() {
    log=$(mktemp "$work/log.XXXXXX")
    echo "$*" >"$log.command"
    "$@" >"$log" 2>&1 3>&- &
    pid=$!
    ln -sf "$log" "$work/log.$pid"
    end_at_exit "$pid"
}

ended() {
    look_at "$1" || return 0
    [ "$process_state" != Z ] || return 0
    eval "[ \"\${born_$1:-\$process_born}\" != \"\$process_born\" ]"
}

# End a process that may be gone already, with force if it does not go in 10 s.
end_process() {
    ended "$1" && return 0
    kill -TERM "$1" 2>/dev/null
    for _ in $(seq 200); do
        ended "$1" && break
        sleep 0.05
    done
    ended "$1" || kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    return 0
}

await() { # PID SECONDS
    wait_for "$2" ended "$1"
    status=0
    wait "$1" 2>/dev/null || status=$?
}

stop() {
    ended "$1" || kill "-${2:-TERM}" "$1" 2>/dev/null || :
    await "$1" 30
}

join() {
    await "$1" 120
}

nobody=127.0.0.1:1

free_port() {
    pid_before=${pid:-}
    start python3 "$top/tests/lib/hold_ports.py" "$#"
    pid=$pid_before
    wait_for 30 grep -q '^[0-9]' "$log"
    for free_port in $(cat "$log"); do
        eval "$1=\$free_port"
        shift
    done
}

make_image() {
    python3 - "$1" "$2" "${3:-1}" <<'END'
import random, sys
path, mib, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
generator = random.Random(seed)
words = [generator.randbytes(generator.randrange(3, 9)).hex().encode() for _ in range(4000)]
repeated = generator.randbytes(65536)
with open(path, "wb") as image:
    image.truncate(mib * 1048576)
    for start in range(0, mib * 1048576, 131072):
        kind = generator.choice("text noise repeat hole".split())
        if kind == "hole":
            continue
        image.seek(start)
        if kind == "text":
            image.write(b" ".join(generator.choices(words, k=14000))[:131072])
        elif kind == "noise":
            image.write(generator.randbytes(131072 - generator.randrange(4096)))
        else:
            image.write(repeated * 2)
END
}

make_key() {
    circular key new --no-password "$work/$1"
}

trust_key() {
    mkdir -p "$XDG_CONFIG_HOME/circular/keys.d"
    cp "$work/$1.pub" "$XDG_CONFIG_HOME/circular/keys.d/"
}

make_archive() {
    archive=$work/archive
    key=$work/lab.sec
    pub=$work/lab.pub
    make_image "$work/disk.img" "${1:-8}"
    make_key lab
    trust_key lab
    circular publish "$work/disk.img" --name disk --version 1 --key "$key" --to "$archive"
}

make_packed_archive() {
    make_archive "$1"
    start_mount "$archive/disk" mnt --record boot.profile --prefetch none
    head -c "$2" mnt/disk >/dev/null
    tail -c "$3" mnt/disk >/dev/null
    stop_mount mnt
    circular profile add "$archive" disk boot.profile
    shift 3
    circular pack "$@" "$archive" disk
}

listening() {
    python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)' "$1"
}

serves_or_ended() {
    grep -q '^serving .* at http' "$work/log.$server" || ended "$server"
}

start_server() {
    start "$circular" serve "$1" --listen "127.0.0.1:${2:-0}"
    server=$pid
    wait_for 30 serves_or_ended
    url=$(sed -n 's|^serving .* at \(http.*\)/$|\1|p' "$work/log.$server")
    [ -n "$url" ] || fail "the server ended: $(cat "$work/log.$server")"
    port=${url##*:}
}

start_liar() {
    folder=$1
    shift
    rm -f "$work/liar.port"
    start python3 "$top/tests/lib/liar.py" --root "$folder" --port-file "$work/liar.port" "$@"
    server=$pid
    wait_for 30 test -s "$work/liar.port"
    url=http://127.0.0.1:$(cat "$work/liar.port")
}

lie() { # PATH-PATTERN BEHAVIOUR [COUNT]
    curl -fsS -d "{\"match\": \"$1\", \"behaviour\": \"$2\"${3:+, \"count\": $3}}" "$url/_control" >/dev/null
}

be_honest() {
    curl -fsS -X DELETE "$url/_control" >/dev/null
}

at() {
    url_before=$url url=$1
    shift
    "$@"
    url=$url_before
}

liar_stats() { # FIELD [KEY]
    curl -fsS "$url/_stats" | python3 -c 'import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]:
    value = value.get(key, 0)
print(value)' "$@"
}

forget_stats() {
    curl -fsS -X DELETE "$url/_stats" >/dev/null
}

mounted_or_ended() {
    mountpoint -q "$1" || ended "$2"
}

release_mount() {
    mountpoint -q "$1" 2>/dev/null || return 0
    fusermount3 -u "$1" 2>/dev/null || fusermount3 -uz "$1" 2>/dev/null || umount -l "$1"
}

start_mount() {
    mount_url=$1 mount_folder=$2
    shift 2
    mkdir -p "$mount_folder"
    start "$circular" mount -f "$mount_url" "$mount_folder" "$@"
    mount=$pid
    at_exit release_mount "$mount_folder"
    wait_for 60 mounted_or_ended "$mount_folder" "$mount"
    ended "$mount" && fail "the mount ended: $(cat "$work/log.$mount")"
    return 0
}

stop_mount() {
    fusermount3 -u "$1" || fail "$1 cannot be unmounted"
    await "$mount" 60
    [ "$status" = 0 ] || fail "the mount ended with status $status"
}

# A device that was detached may be another test's in a moment: only what this one has attached is ever detached.
loops=
attach_loop() {
    loop=$(losetup -f --show "$@") || return
    loops="$loops $loop"
    at_exit detach_loop "$loop"
}

detach_loop() {
    case "$loops " in
    *" $1 "*) ;;
    *) return 0 ;;
    esac
    loops_left=
    for attached_loop in $loops; do
        [ "$attached_loop" = "$1" ] || loops_left="$loops_left $attached_loop"
    done
    loops=$loops_left
    attached_file=$(loop_file "$1")
    losetup -d "$1"
    # While somebody else looks at the device, as udev does, it keeps its file, and that its mount.
    for _ in $(seq 200); do
        if [ -z "$attached_file" ] || [ "$(loop_file "$1")" != "$attached_file" ]; then break; fi
        sleep 0.05
    done
}

loop_file() {
    cat "/sys/block/${1#/dev/}/loop/backing_file" 2>/dev/null || :
}

release_folder() {
    mountpoint -q "$1" && umount "$1"
}

seed() {
    seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
    random_state=$((seed & 2147483647))
    echo "# seed $seed" >&3
}

# A linear congruential generator is random enough to choose moments. The number is in $number.
random() {
    random_state=$(((random_state * 1103515245 + 12345) & 2147483647))
    number=$(((random_state >> 8) % $1))
}
