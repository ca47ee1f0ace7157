#!/bin/sh
# The house's walls: which folder of src/ may include which, which one file knows each foreign library, and that
# nothing below src/cmd prints, exits or reads the environment. ARCHITECTURE.md shows the same table to people.
set -u
cd "$(dirname "$0")/../src" || exit 1
faults=0

fault() {
    echo "$*"
    faults=$((faults + 1))
}

# folder: folders that it may include, besides itself; the public header counts as "circular.h"
table='
base:
format: base
net: base
store: base format net
image: base format store
trust: base format net
plain: base format net image
lib: base format net store image plain trust circular.h
serve: base format image circular.h
vm: base format trust
boot: base format image trust
cmd: base format net store image plain trust lib serve vm boot circular.h
'

for folder in */; do
    folder=${folder%/}
    row=$(echo "$table" | grep "^$folder:") || {
        fault "src/$folder is not in the table of tests/check-includes.sh"
        continue
    }
    allowed=" $folder ${row#*:} "
    for line in $(find "$folder" -name '*.[ch]' | while read -r file; do
        sed -n -E "s|^ *# *include \"([^\"]+)\".*|$file:\1|p" "$file"
    done); do
        file=${line%%:*} included=${line#*:}
        case $allowed in
        *" ${included%%/*} "*) ;;
        *) fault "src/$file includes \"$included\"; src/$folder may include:$allowed" ;;
        esac
        case $included in
        circular.h | */*) ;;
        *) fault "src/$file includes \"$included\": write the path from src/" ;;
        esac
    done
done

# Foreign headers: each library is known to one file (pair).
only_in() { # HEADER-PATTERN FILE-PATTERN
    grep -lE "^ *# *include <($1)>" -r . --include='*.[ch]' | sed 's|^\./||' | while read -r file; do
        echo "$file" | grep -Eq "^($2)$" || echo "src/$file includes <$1>: only $2 may"
    done
}
foreign=$(
    only_in 'openssl/(evp|sha)\.h' 'base/hash\.c'
    only_in 'openssl/ssl\.h' 'net/engine_certificate\.c'
    only_in 'openssl/.*' '(base/hash|net/engine_certificate)\.c'
    only_in 'curl/.*' 'net/engine(_certificate|_facts|_outcome)?\.[ch]'
    only_in 'zstd(_errors)?\.h' 'format/frame\.c'
    only_in 'jansson\.h' 'format/json\.[ch]'
    only_in 'sodium\.h' 'format/signature[a-z_]*\.c'
    only_in 'fuse.*|fuse3/.*' 'serve/fuse[a-z_]*\.[ch]'
    only_in 'microhttpd\.h' 'serve/http_files\.c'
    only_in 'n?curses.*' 'cmd/menu_screen\.c'
    only_in 'blkid/.*' 'serve/[a-z_]*\.c'
    only_in 'slirp/.*' 'vm/user_net\.c'
    only_in 'nbdkit-.*' 'serve/nbdkit\.c'
)
[ -z "$foreign" ] || fault "$foreign"

# Invariant 6. Comments do not count; neither do the formatting functions that write to memory. uml_preload.c is not part
# of this program but of User-mode Linux, to which only the environment speaks.
silent=$(find . -name '*.[ch]' ! -path './cmd/*' ! -path './vm/uml_preload.c' | while read -r file; do
    sed -E 's|//.*||; s|/\*.*\*/||; /^ *\*/d; s|"([^"\\]\|\\.)*"||g' "$file" |
        grep -nE '(^|[^a-zA-Z_.>])(v?printf|v?fprintf|puts|fputs|putchar|perror|exit|_exit|abort|getenv|secure_getenv) *\(' |
        grep -vE '__attribute__|format\(printf' | sed "s|^|src/${file#./}:|"
done)
[ -z "$silent" ] || fault "below src/cmd nothing prints, exits or reads the environment:
$silent"

[ "$faults" = 0 ] || exit 1
echo "every include is allowed"
