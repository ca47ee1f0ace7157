#!/bin/sh
# The documents tell the truth: every file and function that ARCHITECTURE.md names exists, files that the other
# documents name exist, every command and option in the README is one of the program. Then a report, which fails
# nothing: functions over 100 lines, files over 600.
set -u
cd "$(dirname "$0")/.." || exit 1
circular=${CIRCULAR_BUILD:-build}/src/cmd/circular
faults=0

fault() {
    echo "$*"
    faults=$((faults + 1))
}

documents=$(ls ./*.md docs/*.md bench/*.md 2>/dev/null | sed 's|^\./||')

# Paths: in backticks and with a slash, beginning with one of our folders; or the target of a link.
for document in $documents; do
    for path in $(grep -oE '`(\./)?(src|include|tests|fuzz|bench|docs|scripts|debian|man|examples|completion|\.ci)/[^` ]*`' \
        "$document" | tr -d '`' | grep -vE '[<*{]|NAME' | sort -u); do
        [ -e "$path" ] || fault "$document names $path, which does not exist"
    done
    for path in $(grep -oE '\]\([^)#]+' "$document" | cut -c3- | grep -v ':' | sort -u); do
        [ -e "$(dirname "$document")/$path" ] || fault "$document links to $path, which does not exist"
    done
done

# Functions: words with an underscore in ARCHITECTURE.md that are no file names.
for word in $(grep -oE '[A-Za-z0-9_./<>]+' ARCHITECTURE.md | grep -E '^[a-z0-9]+(_[a-z0-9]+)+$' | sort -u); do
    grep -rqE "\\b$word\\(" src include || fault "ARCHITECTURE.md names $word(), which does not exist"
done

# Every folder of src is in ARCHITECTURE.md's table.
for folder in src/*/; do
    grep -q "^| \`${folder%/}\` |" ARCHITECTURE.md || fault "ARCHITECTURE.md's table lacks ${folder%/}"
done

# Commands: lines that begin with the program's name, in the README and in the documents' examples.
if [ -x "$circular" ] && [ -f README.md ]; then
    help=$(mktemp)
    trap 'rm -f "$help"' EXIT
    sed -nE 's/^ *(\$ |# |sudo )*circular +([a-z].*)/\2/p' README.md docs/*.md | sort -u | while read -r verb second rest; do
        if "$circular" "$verb" "$second" --help >"$help" 2>&1; then
            :
        elif ! "$circular" "$verb" --help >"$help" 2>&1; then
            echo "there is no command: circular $verb"
            continue
        fi
        for option in $(echo "$second $rest" | sed 's/#.*//' | grep -oE '(^|[ [])--[a-z][a-z-]+' | tr -d ' ['); do
            grep -q -e "$option" "$help" || echo "circular $verb has no $option"
        done
    done >"$help.faults"
    while read -r line; do
        fault "$line"
    done <"$help.faults"
    rm -f "$help.faults"
fi
# The arithmetic of docs/scale.md.
if command -v python3 >/dev/null; then
    arithmetic=$(python3 -B bench/scale.py --check docs/scale.md 2>&1) || fault "$arithmetic"
fi
for path in ./demo ./check; do
    [ -x "$path" ] || fault "$path is missing"
done

echo "Report: functions over 100 lines, files over 600"
find src bench tests fuzz examples -name '*.[ch]' 2>/dev/null | while read -r file; do
    awk -v file="$file" '
        /^[a-zA-Z].*\(/ { name = $0 }
        /^\{/ { start = NR }
        /^\}/ { if (start && NR - start > 100) print "  " file ": " NR - start " lines: " name; start = 0 }
        END { if (NR > 600) print "  " file ": " NR " lines" }' "$file"
done

[ "$faults" = 0 ] || exit 1
echo "the documents agree with the sources"
