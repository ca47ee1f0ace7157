#!/bin/sh
# Every command has a manual page; the page's name line, forms and options are those of --help, and the other way
# round; circular(1) and circular.conf(5) hold all client and common options and exit statuses. mandoc finds no fault.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
circular=${CIRCULAR_BUILD:-$top/build}/src/cmd/circular
command -v mandoc >/dev/null || { echo "mandoc is not installed" && exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/circular-man.XXXXXX")
trap 'rm -rf "$work"' EXIT
faults=0
export LC_ALL=C.UTF-8

fault() {
    echo "$*"
    faults=$((faults + 1))
}

# The options of a section of --help, one a line: "-f, --foreground" or "--patience TIME".
help_options() {
    awk -v wanted="$1:" '/^[A-Z].*:$/ { inside = $0 == wanted; next } inside && /^  +-/' |
        sed -E 's/^ +//; s/^((-[^ ], )?--[a-z0-9-]+( [A-Z][^ ]*)?)(  .*)?$/\1/'
}

# The same of a manual page: ".It Fl f , Fl -patience Ar TIME". $2: its section.
page_options() {
    awk -v wanted=".Sh $2" '/^\.Sh / { inside = $0 == wanted } inside && /^\.It Fl /' "$1" |
        sed -E 's/^\.It //; s/Fl -?/&-/g; s/Fl -(.) , /-\1, /; s/Fl --/--/; s/ Ar / /; s/^Fl //; s/, Fl /, /'
}

compare() {
    sort -u "$2" -o "$2"
    sort -u "$3" -o "$3"
    cmp -s "$2" "$3" || fault "$1: --help (<) and the page (>) differ: $(diff "$2" "$3" | grep '^[<>]' | tr '\n' ';')"
}

check_command() {
    name=$1 page=$2
    [ -f "$page" ] || { fault "circular $name has no manual page $page" && return; }
    # shellcheck disable=SC2086  # two words
    $circular $name --help >"$work/help" || { fault "circular $name --help fails" && return; }
    for repeated in $(sed -nE 's/^ +(-.), .*/\1/p' "$work/help" | sort | uniq -d); do
        fault "circular $name has two options $repeated"
    done
    # Several commands may share a page, whose options are then those of all.
    help_options Options <"$work/help" >>"$work/options.$(basename "$page")"
    sed -nE 's/^(Usage:)? +(circular|httpstorged) /\2 /p; /^$/q' "$work/help" | sort >"$work/forms"
    mandoc -T utf8 -O width=400 "$page" | sed 's/.\x08//g' |
        awk '/^[A-Z]/ { inside = /^SYNOPSIS/ } inside' | sed 's/ \.\.\.\]/]/g; s/^ *//' >"$work/synopsis"
    while read -r form; do
        plain=$(echo "$form" | sed 's/\[OPTION\]\.\.\./[OPTION]/')
        grep -qxF "$plain" "$work/synopsis" || fault "$page: the synopsis lacks: $form"
    done <"$work/forms"
}

# The name line is the first sentence of --help, without its capital and full stop.
check_name_line() {
    summary=$($circular "$1" --help | sed -nE '/^Usage:/d; /^[A-Z].*\.$/ { s/\.$//; p; q }' | sed 's/^./\L&/')
    grep -qxF ".Nd $summary" "$2" || fault "$2: the name line is not '$summary'"
}

$circular help | sed -nE 's/^  ([a-z]+( [a-z]+)?)  +.*/\1/p' >"$work/commands"
[ "$(wc -l <"$work/commands")" -ge 3 ] || fault "circular help lists no commands"
while read -r name; do
    [ "$name" = help ] && continue
    page=$top/man/circular-${name%% *}.1
    check_command "$name" "$page"
    if [ "$name" = "${name%% *}" ] && [ -f "$page" ]; then check_name_line "$name" "$page"; fi
done <"$work/commands"
check_command httpstorged "$top/man/httpstorged.1"
check_name_line httpstorged "$top/man/httpstorged.1"
for options in "$work"/options.*; do
    page=$(basename "$options" | sed 's/^options\.//')
    page_options "$top/man/$page" OPTIONS >"$work/page"
    compare "$page" "$options" "$work/page"
done
for page in "$top"/man/circular-*.1; do
    verb=$(basename "$page" .1 | sed 's/circular-//')
    grep -Eq "^$verb( |\$)" "$work/commands" || fault "$page describes a command that is not there"
done

# circular(1) and circular.conf(5).
$circular ls --help >"$work/help"
for section in Client Common; do
    help_options "$section options" <"$work/help" >"$work/options"
    page_options "$top/man/circular.1" "$(echo "$section" | tr '[:lower:]' '[:upper:]') OPTIONS" >"$work/page"
    compare "circular.1, $section options" "$work/options" "$work/page"
done
help_options "Client options" <"$work/help" | sed -E 's/^(-., )?--//; s/ .*//; /^insecure$/d' >"$work/options"
echo archive >>"$work/options" # for circular menu, in configuration files only
sed -nE 's/^\.It Cm ([a-z-]+).*/\1/p' "$top/man/circular.conf.5" >"$work/page"
compare circular.conf.5 "$work/options" "$work/page"
for status in $(sed -nE 's/^ +EXIT_[A-Z_]+ = ([0-9]+),.*/\1/p' "$top/src/cmd/cmd.h"); do
    grep -qx ".It $status" "$top/man/circular.1" || fault "circular.1 lacks exit status $status"
done
while read -r name; do
    [ "$name" = help ] || grep -q "^\.It Xr circular-${name%% *} 1" "$top/man/circular.1" ||
        fault "circular.1 does not mention circular $name"
done <"$work/commands"

for page in "$top"/man/*.[0-9]; do
    mandoc -T lint -W style "$page" 2>/dev/null | grep -v 'referenced manual not found' >"$work/lint" || :
    [ ! -s "$work/lint" ] || fault "$(cat "$work/lint")"
    # Pages refer to each other by their right names.
    sed -nE 's/^\.(It )?Xr (circular[a-z.-]*|httpstorged) ([0-9]).*/\2.\3/p' "$page" | sort -u |
        while read -r other; do [ -f "$top/man/$other" ] || echo "$page refers to $other, which is not there"; done \
            >"$work/lost"
    [ ! -s "$work/lost" ] || fault "$(cat "$work/lost")"
done

[ "$faults" = 0 ]
