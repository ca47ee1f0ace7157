#!/bin/sh
# `circular menu` shows what an archive holds, on the whole screen or as a numbered list, and leads from there to a
# running machine. Driven through tmux, with a guest of one sector.
. "$(dirname "$0")/../lib/common.sh"
requires_fuse
requires tmux qemu-system-x86_64 qemu-img as ld python3

. "$top/tests/lib/guest.sh"
make_guest waits.img w
make_archive 16
mkdir -p "$XDG_CONFIG_HOME/circular"
for name in alpha beta waits; do
    circular publish waits.img --name "$name" --version 1 --key "$key" --to "$archive"
done
start_server "$archive"
start_mount "$url/disk" m
cat m/disk >/dev/null
stop_mount m

socket=$work/tmux
tmux -S "$socket" -f /dev/null new-session -d -x 80 -y 24 sh
at_exit tmux -S "$socket" kill-server
keys() { tmux -S "$socket" send-keys "$@"; }
screen() { tmux -S "$socket" capture-pane -p; }
shows() { screen | grep -Eq -- "$1"; }
shows_not() { ! shows "$1"; }
chosen() { tmux -S "$socket" capture-pane -pe | grep -F "$(printf '\033[7m')" | grep -q "$1"; }
menu() { # ARGUMENTS
    rm -f ended after
    keys "clear; stty -g >before; '$circular' menu $*; echo \$? >ended; stty -g >after" Enter
}
is_over() { [ -s after ]; }

menu "$url"
wait_for 40 shows 'disk +1 +16 MiB .* 100 %'
wait_for 40 shows 'waits +1 .* 0 %'
wait_for 30 shows 'signature good, by key'
wait_for 30 shows "^  OS Circular  $url"
wait_for 30 chosen 'disk'
keys Down Down
wait_for 30 chosen 'beta'
keys Up
wait_for 30 chosen 'alpha'
keys End
wait_for 30 chosen 'waits'
keys Down Home
wait_for 30 chosen 'disk'
keys b E t
wait_for 30 shows 'Search: bEt'
wait_for 30 shows_not 'alpha'
wait_for 30 chosen 'beta'
keys x
wait_for 30 shows 'nothing matches'
keys Enter BSpace BSpace BSpace BSpace
wait_for 30 shows 'alpha'
ok 'images, sizes, what is here and the signature; keys and search'

tmux -S "$socket" resize-window -x 30 -y 7
wait_for 30 shows_not 'OS Circular'
wait_for 30 shows 'disk'
tmux -S "$socket" resize-window -x 20 -y 2
wait_for 30 shows 'beta|disk'
tmux -S "$socket" resize-window -x 80 -y 24
wait_for 30 shows 'OS Circular'
wait_for 30 shows 'waits'
keys Escape
wait_for 30 is_over
[ "$(cat ended)" = 0 ] || fail "left with $(cat ended)"
cmp before after || fail 'the terminal is not as it was'
menu "$url"
wait_for 40 shows 'waits'
keys C-c
wait_for 30 is_over
cmp before after || fail 'the terminal is not as it was'
wait_for 30 shows_not 'OS Circular'
ok 'small terminals, resized ones; Escape and Ctrl-C leave, and the terminal is as before'

menu http://127.0.0.1:1
wait_for 40 is_over
[ "$(cat ended)" = 4 ] || fail "an archive out of reach: status $(cat ended)"
wait_for 30 shows 'refused'
cmp before after || fail 'the terminal is not as it was'
expect 2 circular menu
says "archive = URL"
echo "archive = $url" >"$XDG_CONFIG_HOME/circular/archive.conf"
expect 0 circular ls "$url"
menu
wait_for 40 shows 'OS Circular'
ok 'an archive out of reach is an error; the configuration may name the archive'

keys End
wait_for 30 chosen 'waits'
keys Enter
wait_for 60 shows 'QEMU +(works everywhere|fast)'
wait_for 30 shows 'Run waits 1 on'
keys Escape
wait_for 30 chosen 'waits'
keys Enter
wait_for 60 shows 'QEMU +(works everywhere|fast)'
wait_for 30 chosen 'QEMU'
keys Enter
wait_for 60 shows 'from the published disk'
wait_for 60 shows '^ready'
keys C-a x
wait_for 40 is_over
wait_for 30 shows 'fetched .* requests'
cmp before after || fail 'the terminal is not as it was'
ok 'to a running machine'

# The original's words, without more, show it too, and know how to run what is chosen.
ln -s "$circular" httpfuse-qemu
rm -f ended after
keys "clear; stty -g >before; '$work/httpfuse-qemu' --memory 64M; echo \$? >ended; stty -g >after" Enter
wait_for 40 shows 'waits +1 '
keys End
wait_for 30 chosen 'waits'
keys Enter
wait_for 60 shows '^ready'
keys C-a x
wait_for 40 is_over
cmp before after || fail 'the terminal is not as it was'
rm -f ended after
keys "clear; stty -g >before; '$work/httpfuse-qemu'; echo \$? >ended; stty -g >after" Enter
wait_for 40 shows 'waits +1 '
keys Escape
wait_for 30 is_over
[ "$(cat ended)" = 130 ] || fail "left with $(cat ended)"
ok 'httpfuse-qemu, the menu, a running machine'

# Without a terminal, or with one that can do little.
expect 0 circular menu "$url" </dev/null
says '^  4  waits'
says '^Number to choose'
printf '9\nx\n4\n\n' | circular menu >plain
grep -q 'Run waits 1 on' plain || fail 'the number is not understood'
[ "$(grep -c 'none of the numbers' plain)" = 2 ] || fail 'wrong numbers are taken'
keys "export TERM=dumb" Enter
menu
wait_for 40 shows '^Number to choose'
keys Enter
wait_for 30 is_over
keys "export TERM=nothing-of-the-kind" Enter
menu
wait_for 40 shows '^Number to choose'
keys Enter
wait_for 30 is_over
ok 'a numbered list where no screen is'
