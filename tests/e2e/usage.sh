#!/bin/sh
# The command line: help for everything, one clear line and exit status 2 for every wrong use, configuration files in
# their order, and completion in bash and zsh.
. "$(dirname "$0")/../lib/common.sh"
requires python3

# The last expect printed exactly one line, on standard error, that matches.
one_line() {
    [ ! -s out ] || fail "something on standard output: $(cat out)"
    [ "$(wc -l <err)" = 1 ] || fail "not one line: $(cat err)"
    says "$1"
}

circular help | sed -nE 's/^  ([a-z]+( [a-z]+)?)  +.*/\1/p' >commands
[ "$(wc -l <commands)" -ge 5 ] || fail "circular help lists too little"
while read -r name; do
    # shellcheck disable=SC2086
    expect 0 circular $name --help
    [ ! -s err ] || fail "$name --help on standard error: $(cat err)"
    head -n 1 out | grep -q "^Usage: circular $name " || fail "$name --help begins with $(head -n 1 out)"
    cp out first
    # shellcheck disable=SC2086
    expect 0 circular help $name
    same first out
    awk 'length > 79 { exit 1 }' out || fail "$name --help is wider than 79 columns"
done <commands
ok "every command has --help, on standard output, and help says the same"

while read -r name; do
    # shellcheck disable=SC2086
    expect 2 circular $name --no-such-option
    one_line "^circular $name: unknown option --no-such-option"
    # shellcheck disable=SC2086
    expect 2 circular $name --halp
    one_line "unknown option --halp; did you mean --help\\? \\(see 'circular $name --help'\\)"
    # shellcheck disable=SC2086
    expect 2 circular $name --help=yes
    one_line 'takes no value'
    # shellcheck disable=SC2086
    circular $name --help | head -n 1 | grep -qE '\.\.\.\]?$' && continue # as many as one likes
    # shellcheck disable=SC2086
    expect 2 circular $name a b c d e f g h
    one_line "'h' is one argument too many|takes no arguments"
done <commands
ok "every command refuses unknown options and superfluous arguments"

expect 2 circular
one_line "^circular: a command is missing \\(see 'circular --help'\\)"
expect 2 circular hepl
one_line "unknown command 'hepl'; did you mean help\\?"
expect 2 circular xyzzy
one_line "unknown command 'xyzzy' \\(see"
expect 2 circular --json help
one_line "options come after the command"
expect 2 circular key
one_line 'key needs one of: new, show'
expect 2 circular key mew x
one_line "key has no 'mew', only: new, show"
expect 0 circular key --help
says '^Usage: circular key new '
says '^Usage: circular key show '
expect 2 circular key new
one_line 'BASE is missing'
expect 2 circular key show --json
python3 -c 'import json; fault = json.load(open("err")); assert (fault["error"], fault["exit_status"]) == ("usage", 2)'
expect 2 circular key show --no-such --json x.pub
python3 -c 'import json; assert json.load(open("err"))["error"] == "usage"'
expect 2 circular cache prune --max-size lots
one_line "'lots' is not a size"
for zero in '--block-size 0' '--level 0' '--jobs 0' '--expires 0s'; do
    # shellcheck disable=SC2086
    expect 2 circular publish disk.img --name a --version 1 --to archive $zero
    one_line "^circular publish: ${zero% *}: '0s?' is not more than 0"
done
expect 2 circular cache prune --max-size
one_line '--max-size needs a value, SIZE'
expect 2 circular "$(printf 'clear\033[2J')"
one_line 'clear.x1b.2J'
expect 3 circular key show --json "$(printf 'a\377\303\251"\134')"
python3 -c 'import json; assert json.load(open("err"))["message"].count("a\N{REPLACEMENT CHARACTER}\u00e9\"\\") == 1'
ok "wrong uses are told in one line, with what was probably meant, and without control characters"

expect 0 circular --version
says '^circular [0-9]+\.[0-9]+\.[0-9]+$'
expect 0 circular --help
says '^Commands:$'
expect 1 sh -c '"$1" help >/dev/full' sh "$circular"
one_line 'cannot write to standard output: No space left'
expect 0 sh -c '(for i in 1 2 3 4 5 6; do "$1" help; done) | head -n 1' sh "$circular"
[ ! -s err ] || fail "a closed pipe is complained about: $(cat err)"
ok "--version, a full disk and a closed pipe"

ln -s "$circular" httpstorged
expect 0 ./httpstorged --help
says '^Usage: httpstorged .*DIR URL'
expect 2 ./httpstorged --hlep
one_line "^httpstorged: unknown option --hlep; did you mean --help\\? \\(see 'httpstorged --help'\\)"
expect 2 ./httpstorged
one_line "^httpstorged: DIR is missing"
ok "called as httpstorged it is the original's command"

# What a client was told shows in `cache info`.
cache_is() {
    expect 0 circular cache info --json
    python3 -c '
import json, sys
told = json.load(open("out"))
wanted = (sys.argv[1], int(sys.argv[2]))
assert (told["folder"], told["max_bytes"]) == wanted, (told, wanted)' "$1" "$2"
}
expect 3 circular cache info
one_line "there is no cache $XDG_CACHE_HOME/circular"
mkdir -p "$XDG_CACHE_HOME/circular" one two
cache_is "$XDG_CACHE_HOME/circular" 21474836480
configuration=$XDG_CONFIG_HOME/circular
mkdir -p "$configuration"
printf '# where\ncache = %s/one\nmax-size = 1M\n' "$work" >"$configuration/10.conf"
cache_is "$work/one" 1048576
echo "max-size=2M" >"$configuration/20.conf"
echo "max-size=3M" >"$configuration/30.conf.disabled"
cache_is "$work/one" 2097152
expect 0 circular cache info --cache two
says 'folder +two'
expect 0 env XDG_CONFIG_HOME=relative "$circular" cache info
says '^limit +20 GiB'
sed 's/^#\([a-z]\)/\1/' "$top/examples/circular.conf" >"$configuration/20.conf"
expect 0 circular cache info --cache two
rm "$configuration/20.conf"
echo "max-size=2M" >"$configuration/20.conf"
ok "the user's configuration files are read by name, and the command line comes after them"

if unshare -m true 2>/dev/null; then
    rm "$configuration/20.conf"
    cat >layers <<'END'
set -eu
mount -t tmpfs none /run
mount -t tmpfs none /etc
mkdir /run/circular /etc/circular
echo "max-size = 7M" >/etc/circular/a.conf
"$1" cache info --json
echo "max-size = 8M" >/run/circular/a.conf
"$1" cache info --json
rm "$XDG_CONFIG_HOME/circular/10.conf"
"$1" cache info --json
rm /run/circular/a.conf
"$1" cache info --json
echo "size = 8M" >/etc/circular/a.conf
"$1" cache info
END
    expect 2 unshare -m sh layers "$circular"
    [ "$(sed -nE 's/.*"max_bytes": ([0-9]+).*/\1/p' out | tr '\n' ' ')" = "1048576 1048576 8388608 7340032 " ] ||
        fail "the folders are not read in their order: $(cat out)"
    says "^circular: /etc/circular/a.conf: line 1: unknown word 'size'"
    ok "/etc, /run and the user's folder replace each other in this order"
fi

rm -f "$configuration"/*
check_bad() {
    printf '%b' "$1" >"$configuration/bad.conf"
    expect 2 circular cache info
    one_line "^circular: $configuration/bad.conf: $2"
}
check_bad 'max-size 1M\n' 'line 1: '
check_bad '\n\nmaxsize = 1M\n' "line 3: unknown word 'maxsize'; did you mean max-size"
check_bad 'max-size = 1Q\n' "line 1: max-size: '1Q' is not a size"
check_bad 'offline = perhaps\n' "line 1: offline: 'perhaps' is neither yes nor no"
check_bad 'insecure = yes\n' 'line 1: insecure is for the command line only'
check_bad '#\ncache = a\0033b\n' 'line 2: .*control character'
expect 2 circular gc .
expect 0 circular gc --help
rm "$configuration/bad.conf"
mkdir "$configuration/bad.conf"
expect 2 circular cache info
one_line "$configuration/bad.conf: "
rmdir "$configuration/bad.conf"
head -c 70000 /dev/zero | tr '\0' '#' >"$configuration/bad.conf"
expect 2 circular cache info
one_line "$configuration/bad.conf"
rm "$configuration/bad.conf"
ok "a bad configuration file is named, with its line"

# What bash offers after LINE, one a line.
bash_offers() {
    PATH=$work/bin:$PATH bash --norc -c '
        . "$1"
        COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDBREAKS=$3
        # As readline would: words break at blanks, and at ":", "=", "@" which are words too.
        read -r -a COMP_WORDS <<<"$(printf %s "$2" | sed "s/[:=@]\+/ & /g")"
        [[ $2 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        compopt() { :; }
        _circular
        printf "%s\n" "${COMPREPLY[@]}"' bash "$top/completions/circular.bash" "$1" ' =:@' | sort >offered
}
offers() {
    grep -qxF -e "$1" offered || fail "not offered: $1, but: $(tr '\n' ' ' <offered)"
}
mkdir bin
ln -s "$circular" bin/circular
if command -v bash >/dev/null; then
    bash_offers 'circular '
    while read -r name; do offers "${name%% *}"; done <commands
    bash_offers 'circular key '
    [ "$(tr '\n' ' ' <offered)" = "new show " ] || fail "after key: $(cat offered)"
    bash_offers 'circular cache pr'
    offers prune
    bash_offers 'circular cache prune --m'
    offers --max-size
    : >"a file.pub"
    bash_offers 'circular key show a'
    offers 'a file.pub'
    bash_offers 'circular cache info --cache o'
    offers one
    ok "bash completes commands, options and files"
fi
if command -v zsh >/dev/null; then
    cat >complete.zsh <<'END'
autoload -Uz compinit && compinit -u -d $PWD/dump
# In place of the menu: print what would be offered.
_describe() { print -l -- ${(P)2%%:*} }
_files() { print files }
words=(circular "${@:2}")
CURRENT=$#words
functions[offer]="$(<$1)"
offer
END
    zsh_offers() {
        PATH=$work/bin:$PATH zsh -f complete.zsh "$top/completions/_circular" "$@" | sort >offered
    }
    zsh_offers ''
    while read -r name; do offers "${name%% *}"; done <commands
    zsh_offers key ''
    offers new
    zsh_offers cache prune --m
    offers --max-size
    zsh_offers key show a
    offers files
    ok "zsh completes commands, options and files"
fi
