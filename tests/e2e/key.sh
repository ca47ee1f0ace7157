#!/bin/sh
# Keys: minisign signs with ours and verifies with ours, secret ones are private, passwords are asked for on a
# terminal and nowhere else.
. "$(dirname "$0")/../lib/common.sh"
requires minisign python3

# Run a program on a terminal of its own. Each WORD is typed when the text before it has appeared:
# on_terminal EXPECTED TYPED ... -- COMMAND; prints what appeared, exits as the command did.
cat >"$work/on_terminal" <<'END'
import os, pty, select, signal, sys, time
split = sys.argv.index("--")
talk, command = sys.argv[1:split], sys.argv[split + 1:]
child, terminal = pty.fork()
if child == 0:
    os.execvp(command[0], command)
signal.alarm(60)
seen, done = b"", 0
def hear():
    global seen
    try:
        heard = os.read(terminal, 4096)
    except OSError:
        return False
    seen += heard
    return bool(heard)
for wanted, typed in zip(talk[::2], talk[1::2]):
    while wanted.encode() not in seen[done:] and hear():
        pass
    done = len(seen)
    # The program says the prompt, then turns echo off: wait for the latter.
    import termios
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        time.sleep(0.01)
    os.write(terminal, typed.encode().decode("unicode_escape").encode())
while hear():
    pass
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.stdout.buffer.write(seen.replace(b"\r\n", b"\n"))
sys.exit(status if status >= 0 else 128 - status)
END
on_terminal() {
    python3 "$work/on_terminal" "$@"
}

# The last command printed the key of this .pub file.
shows_key() {
    grep -qF "$(sed -n 2p "$1")" "$work/out" || fail "$1 is not what was shown: $(cat "$work/out")"
}

umask 000
expect 0 circular key new --no-password "$work/new/folder/lab"
says 'public key +RW'
[ "$(stat -c %a new/folder/lab.sec)" = 600 ] || fail "the secret key has mode $(stat -c %a new/folder/lab.sec)"
umask 022
ok "the secret key is 0600 whatever the umask, and its folder is made"

cp new/folder/lab.* .
echo "some text" >text
minisign -S -s lab.sec -m text -t "by minisign"
minisign -V -p lab.pub -m text | grep -q "by minisign"
ok "minisign signs with our secret key and verifies with our public one"

expect 0 circular key show lab.pub
shown=$(sed -n 's/^public key *//p' out)
[ "$shown" = "$(sed -n 2p lab.pub)" ] || fail "key show says $shown"
number=$(sed -n 's/^number *//p' out)
grep -q "$number" lab.pub || fail "the public key's comment does not name $number"
expect 0 circular key show --json lab.sec
python3 -c 'import json, sys; key = json.load(open("out")); assert (key["number"], key["kind"]) == (sys.argv[1], "secret")' \
    "$number"
ok "key show tells the same of both halves, also as JSON"

expect 1 circular key new --no-password lab
says 'lab.sec exists already'
rm lab.sec
expect 1 circular key new --no-password lab
says 'lab.pub exists already'
[ ! -e lab.sec ] || fail "half a pair was made"
ok "no key is overwritten, and no half pair is made"

expect 0 setsid -w "$circular" key new quiet
says 'no terminal to ask for a password: quiet.sec is not encrypted'
minisign -S -s quiet.sec -m text </dev/null
ok "without a terminal there is no password, and the program says so"

expect 0 on_terminal 'Password for' 'first\n' 'Password for' 'first\n' -- "$circular" key new asked
says_not first
[ "$(stat -c %a asked.sec)" = 600 ]
expect 0 on_terminal 'Password for' 'first\n' -- "$circular" key show asked.sec
shows_key asked.pub
ok "a password is asked for twice, not echoed, and opens the key again"

expect 0 on_terminal 'Password: ' 'first\n' -- minisign -S -s asked.sec -m text -x encrypted.minisig
minisign -V -p asked.pub -m text -x encrypted.minisig
ok "minisign opens our encrypted key with the same password"

expect 6 on_terminal 'Password for' 'wrong\n' -- "$circular" key show asked.sec
says 'asked.sec: .*password'
expect 2 setsid -w "$circular" key show asked.sec
says 'no terminal to ask for its password'
ok "a wrong password is a signature error, no terminal a usage error"

expect 2 on_terminal 'Password for' 'first\n' 'Password for' 'second\n' -- "$circular" key new differ
says 'the two passwords differ'
expect 130 on_terminal 'Password for' '\x03' -- "$circular" key new differ
[ ! -e differ.sec ] && [ ! -e differ.pub ]
ok "two different passwords, or Ctrl-C, make no key"

expect 0 on_terminal 'Password: ' 'theirs\n' 'Password (one more time): ' 'theirs\n' -- \
    minisign -G -p theirs.pub -s theirs.sec
expect 0 on_terminal 'Password for' 'theirs\n' -- "$circular" key show theirs.sec
shows_key theirs.pub
minisign -G -W -p plain.pub -s plain.sec
expect 0 circular key show plain.sec
shows_key plain.pub
ok "minisign's own keys are read, with and without a password"

chmod 644 plain.sec
expect 0 circular key show plain.sec
says 'can be read by others'
ok "a secret key that others can read is warned about"

printf 'untrusted comment: x\nRWQnonsense\n' >bad.pub
head -c 5000 /dev/urandom >large.pub
: >empty.pub
expect 5 circular key show bad.pub
says 'bad.pub: '
expect 5 circular key show large.pub
expect 5 circular key show empty.pub
expect 3 circular key show missing.pub
says 'missing.pub.*No such file'
expect 3 circular key show ''
expect 2 circular key new --no-password ''
expect 2 circular key new --no-password folder/
: >file
expect 1 circular key new --no-password file/lab
ok "what is no key is told from what is not there"
