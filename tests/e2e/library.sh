#!/bin/sh
# A program that knows only the installed header and pkg-config file of libcircular reads a published disk; the
# library shows the linker nothing but its own words.
. "$(dirname "$0")/../lib/common.sh"
requires cc meson nm pkg-config readelf

DESTDIR=$work/install meson install -C "$build" --no-rebuild --quiet
PKG_CONFIG_LIBDIR=$(dirname "$(find "$work/install" -name libcircular.pc)")
LD_LIBRARY_PATH=$(dirname "$PKG_CONFIG_LIBDIR")
export PKG_CONFIG_LIBDIR LD_LIBRARY_PATH PKG_CONFIG_SYSROOT_DIR="$work/install"
[ "$(pkg-config --modversion libcircular)" ] || fail "the pkg-config file has no version"
# shellcheck disable=SC2046 # words, not one
cc -std=gnu99 -Wall -Wextra -Wpedantic -Werror -o circular-cat "$top/examples/cat.c" \
    $(pkg-config --cflags --libs libcircular)
ok "the example compiles against the installed header through pkg-config"

readelf -d circular-cat | grep -q 'NEEDED.*libcircular\.so\.0\]' || fail "not linked with libcircular.so.0"
nm -D --defined-only "$LD_LIBRARY_PATH/libcircular.so.0" >symbols
grep -q circular_pread symbols || fail "circular_pread is not exported"
! grep -v ' circular_' symbols || fail "these words are not the library's"
ok "the library exports its own words only"

if command -v c++ >/dev/null; then
    # shellcheck disable=SC2046
    c++ -Wall -Wextra -Werror -fsyntax-only -x c++ $(pkg-config --cflags libcircular) \
        "$work/install/usr/include/circular.h"
    ok "the header is C++ too"
fi

make_archive 8
start_server "$archive"
./circular-cat "$url/disk" "$pub" >whole
same whole disk.img
./circular-cat "$url/disk@1" "$pub" 1000001 70000 >part
tail -c +1000002 disk.img | head -c 70000 | cmp - part || fail "a part of the disk differs"
ok "the example reads a disk over HTTP, whole and in part"

make_key other
expect 1 ./circular-cat "$url/disk" other.pub
says 'which is not trusted'
expect 1 ./circular-cat "$url/nothing" "$pub"
says 'it has: disk'
ok "what cannot be read or trusted is told"
