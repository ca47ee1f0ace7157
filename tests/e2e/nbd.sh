#!/bin/sh
# `nbdkit circular URL/NAME` serves a published disk: the same bytes, read-only, in parallel, holes as holes; what is
# wrong is told to whoever starts it, before it goes to the background.
. "$(dirname "$0")/../lib/common.sh"
requires nbdkit nbdinfo nbdcopy qemu-img python3 meson
[ -f "$build/src/lib/nbdkit-circular-plugin.so" ] || skip "the plugin was not built: nbdkit-plugin-dev is missing"

DESTDIR=$work/stage meson install -C "$build" --no-rebuild --quiet
plugin=$(find "$work/stage" -name nbdkit-circular-plugin.so)
[ "${plugin#"$work/stage"}" = "$(pkg-config --variable=plugindir nbdkit)/nbdkit-circular-plugin.so" ] ||
    fail "installed as $plugin, where nbdkit does not look"
[ "$(find "$work/stage" -name 'nbdkit-circular-plugin.1*' | wc -l)" = 1 ] || fail "the manual page is not installed"
ok "the plugin is installed where nbdkit finds it by name, with its manual page"

nbdkit "$plugin" --dump-plugin >dump
[ "$(grep -cxE 'name=circular|magic_config_key=url|thread_model=parallel' dump)" = 3 ] ||
    fail "$(cat dump)"
ok "its name is circular, the URL needs no key, its threads are parallel"

nbdkit "$plugin" --help | sed -nE '/^.url=/,$ s/^\[?([a-z-]+=).*/\1/p' | sort >help
sed -nE 's/^\.It Cm ([a-z-]+=).*/\1/p' "$top/man/nbdkit-circular-plugin.1" | sort >page
cmp help page || fail "--help (<) and the page (>) differ: $(diff help page)"
ok "the manual page has the parameters of --help"

make_archive 24
start_server "$archive"

# Run COMMAND, which finds the export in $uri.
serve() { # COMMAND PARAMETER...
    command=$1
    shift
    nbdkit -U - "$plugin" "$@" --run "$command"
}

serve 'nbdinfo --json "$uri" >info; nbdinfo --map "$uri" >map' "$url/disk" "key=$pub"
python3 - "$(stat -c %s disk.img)" <<'END' || fail "$(cat info)"
import json, sys
export = json.load(open("info"))["exports"][0]
wanted = {"export-size": int(sys.argv[1]), "is_read_only": True, "can_multi_conn": True}
for key, value in wanted.items():
    if export[key] != value:
        sys.exit(f"{key} is {export[key]}, not {value}")
END
ok "the export has the disk's size, is read-only and for several connections"
if ! grep -q 'hole,zero' map || ! grep -q ' data$' map; then fail "$(cat map)"; fi
ok "holes are holes"

serve 'nbdcopy "$uri" copied.img' "$url/disk@1" "key=$pub"
same copied.img disk.img
ok "nbdcopy brings the same bytes"
[ "$(stat -c %b copied.img)" -le "$(($(stat -c %b disk.img) + 4096))" ] || fail "the copy has lost the holes"
expect 0 serve 'qemu-img compare -f raw -F raw "$uri" disk.img' "$url/disk" "key=$pub"
says 'Images are identical'
ok "qemu-img compare agrees"
expect 0 serve 'qemu-io -f raw -r -c "read -v 0 512" "$uri"' "$url/disk" "key=$pub"
expect 1 serve 'qemu-io -f raw -c "write 0 512" "$uri"' "$url/disk" "key=$pub"
ok "nobody writes"

# Parameters.
mkdir cache
serve 'nbdcopy "$uri" null:' "$url/disk" "key=$pub" cache=cache state=state prefetch=all
[ "$(find cache -path '*/blocks/*' -type f | wc -l)" = "$(find "$archive/blocks" -type f | wc -l)" ] ||
    fail "the cache lacks blocks"
serve 'nbdcopy "$uri" offline.img' "$url/disk" "key=$pub" cache=cache state=state offline=true
same offline.img disk.img
ok "cache=, state= and offline=: a full cache needs no server"

cp -r "$archive" other
rm -r "$archive/blocks"
expect 1 serve 'nbdcopy "$uri" null:' "$url/disk" "key=$pub" patience=300ms
says 'block [0-9]+ at offset .*blocks/.*127\.0\.0\.1'
ok "a block that nobody has: an error after patience=, which names the block and the place"
serve 'nbdcopy "$uri" mirrored.img' "$url/disk" "key=$pub" mirror=other prefetch=none
same mirrored.img disk.img
ok "mirror=, a folder with a relative name"
mv other/blocks "$archive/"

# Faults, told by nbdkit itself, though it would go to the background.
refused() { # PATTERN PARAMETER...
    pattern=$1
    shift
    expect 1 nbdkit --pidfile pid -U sock "$plugin" "$@"
    says "$pattern"
    [ ! -s pid ] || fail "nbdkit runs: $(cat pid)"
}
make_key stranger
refused 'which is not trusted' "$url/disk" key=stranger.pub
refused 'nowhere\.pub' "$url/disk" key=nowhere.pub
refused 'it has: disk' "$url/nothing" "key=$pub"
refused 'which disk' "key=$pub"
refused 'unknown parameter .taste' "$url/disk" taste=sweet
refused 'patience=soon is not a time' "$url/disk" patience=soon
refused 'prefetch=some is none of' "$url/disk" prefetch=some
refused "$nobody" "http://$nobody/disk" "key=$pub" patience=500ms
says '[Cc]onnect'
ok "faults are told before nbdkit goes to the background: what, where, why"

# In the background, where libcircular's threads must have been started after the fork.
nbdkit --pidfile "$work/pid" -U "$work/sock" "$plugin" "$url/disk" "key=$pub"
wait_for 30 test -s pid
end_at_exit "$(cat pid)"
for copy in 1 2 3; do
    start nbdcopy "nbd+unix:///?socket=$work/sock" "$work/parallel$copy.img"
    eval "copy$copy=\$pid"
done
for copy in 1 2 3; do
    eval "wait \"\$copy$copy\"" || fail "copy $copy failed"
    same "parallel$copy.img" disk.img
done
ok "in the background, three clients at once"
kill "$(cat pid)"
wait_for 30 ended "$(cat pid)"
ok "it ends when told"
