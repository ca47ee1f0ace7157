#!/bin/sh
# The recipes of docs/mirrors.md for a cache that is a mirror itself: nginx with slices, and Varnish. Blocks and ranges of
# packs cross the uplink once, no range is refused, a new catalog is seen at once.
. "$(dirname "$0")/../lib/common.sh"
. "$top/tests/lib/servers.sh"
requires nginx curl python3
requires_fuse

make_packed_archive 16 3000000 2000000 --all

free_port origin near
recipe nginx >nginx.recipe
recipe nginx-cache >cache.recipe
grep -q 'slice 1m' cache.recipe || fail "docs/mirrors.md has no recipe for nginx"
{
    echo "server { listen 127.0.0.1:$origin; root $archive; include $work/nginx.recipe; }"
    sed -e "s#/var/cache/nginx/os#$work/nginx/cache#; s#listen 80#listen 127.0.0.1:$near#; s#origin\.example\.org#127.0.0.1:$origin#" cache.recipe
} >servers
start_nginx '$server_port $status $uri $http_range' <servers

# A boot and then the rest, by a client that has nothing; what the origin was asked for packs, blocks and the map. Which
# blocks come apart from a boot pack that is late is up to the machine: it has come before anybody reads.
boot_blocks=$(circular pack --all --json "$archive" disk | python3 -c 'import json, sys; print(json.load(sys.stdin)["boot_blocks"])')
has_booted() {
    [ "$(circular stats --json mnt | python3 -c 'import json, sys; print(json.load(sys.stdin)["fetched_blocks"])')" -ge "$boot_blocks" ]
}
client() { # URL
    rm -rf "$XDG_CACHE_HOME" got.img
    start_mount "$1/disk" mnt --prefetch profile
    wait_for 60 has_booted
    head -c 3000000 mnt/disk >/dev/null
    stop_mount mnt
    expect 0 circular pull "$1/disk" --output got.img
    same got.img disk.img
}
immutable() {
    asked "^$origin 20[06] /(packs|blocks|maps|files)/"
}

through() { # NAME URL
    client "$2"
    first=$(immutable)
    catalogs=$(asked "^$origin [0-9]+ /catalog.json ")
    [ "$first" -gt 2 ] || fail "the first client asked the origin for $first things only"
    client "$2"
    [ "$(immutable)" = "$first" ] || fail "$1: asked again: $first, then $(immutable)"
    [ "$(asked "^$origin [0-9]+ /catalog.json ")" -gt "$catalogs" ] || fail "$1: the catalog was not revalidated"
    [ "$(asked '^[0-9]+ 416 ')" = 0 ] || fail "$1: a range was refused: $(grep ' 416 ' asked)"
    circular publish disk.img --name "other-$1" --version 1 --key "$key" --to "$archive"
    rm -rf "$XDG_CACHE_HOME"
    expect 0 circular ls "$2"
    says "other-$1"
    ok "$1: a second client's packs and blocks come from the cache, no range is refused, a new catalog is seen at once"
}

through nginx "http://127.0.0.1:$near"
[ "$(asked "^$origin 206 /packs/.*bytes=")" -gt 0 ] || fail "the packs were not fetched in slices"

if varnish=$(command -v varnishd); then
    free_port port
    mkdir varnish
    recipe varnish | sed -e "s#origin\.example\.org#127.0.0.1#; s#\"80\"#\"$origin\"#" >default.vcl
    grep -q "$origin" default.vcl || fail "docs/mirrors.md has no recipe for Varnish"
    start "$varnish" -F -j none -n "$work/varnish" -a "127.0.0.1:$port" -f "$work/default.vcl" -s malloc,64m
    wait_for 30 listening "$port"
    forget_asked
    through varnish "http://127.0.0.1:$port"
fi

# A cache that answers 416 for ranges that exist, as some do that have kept a file of another length.
start_liar "$archive"
for what in packs maps; do
    rm -rf "$XDG_CACHE_HOME"
    lie "^/$what/" status:416 1
    forget_stats
    start_mount "$url/disk" mnt --prefetch profile
    same mnt/disk disk.img
    stop_mount mnt
    [ "$(liar_stats classes "$what")" -ge 2 ] || fail "$what: not asked for again: $(liar_stats paths)"
    be_honest
done
rm -rf "$XDG_CACHE_HOME"
lie '^/packs/' status:416
start_mount "$url/disk" mnt --prefetch profile
same mnt/disk disk.img
stop_mount mnt
ok "ranges that a cache refuses wrongly are asked for again, and packs done without"
