#!/bin/sh
# The recipe for a cache on a LAN in docs/mirrors.md, with a real squid before a real nginx: blocks cross the uplink once,
# a catalog is asked for anew.
. "$(dirname "$0")/../lib/common.sh"
. "$top/tests/lib/servers.sh"
requires nginx curl python3
squid=$(command -v squid || echo /usr/sbin/squid)
[ -x "$squid" ] || skip "squid is not installed"

make_archive 16
free_port origin proxy
mkdir squid squid/cache
[ "$(id -u)" != 0 ] || { chmod 755 "$work" && chown -R proxy: squid; }
recipe nginx >nginx.recipe
start_nginx '$status $request_uri' <<END
    server { listen 127.0.0.1:$origin; root $archive; include $work/nginx.recipe; }
END
# What the recipe says, with this test's folders, port and network.
recipe squid | sed -e "s#3128#127.0.0.1:$proxy#; s#10\.0\.0\.0/8#127.0.0.0/8#; s#aufs /var/spool/squid 20000#ufs $work/squid/cache 200#; s#256 MB#32 MB#" >squid/conf
squid_for_test >>squid/conf
"$squid" -N -z -f "$work/squid/conf" >made 2>&1 || fail "squid -z: $(cat made)"
start "$squid" -N -f "$work/squid/conf"
wait_for 40 listening "$proxy"

pull() { # [URL]
    rm -rf "$XDG_CACHE_HOME" got.img
    expect 0 circular pull "${1:-http://127.0.0.1:$origin}/disk" --proxy "http://127.0.0.1:$proxy" --output got.img
    same got.img disk.img
}

pull
first=$(asked ' /blocks/')
[ "$first" -gt 50 ] || fail "the first client asked for $first blocks only"
catalogs=$(asked ' /catalog.json$')
pull
[ "$(asked ' /blocks/')" = "$first" ] || fail "blocks were fetched again: $first, then $(asked ' /blocks/')"
served() { # squid writes its line after the answer, too
    [ "$(grep -cE 'HIT.* GET .*/blocks/' squid/access)" -ge "$1" ]
}
wait_for 30 served "$first"
ok "the second client's $first blocks come from the cache, not one from the origin"

[ "$(asked ' /catalog.json$')" -gt "$catalogs" ] || fail "the catalog was not revalidated"
circular publish disk.img --name other --version 1 --key "$key" --to "$archive"
rm -rf "$XDG_CACHE_HOME"
expect 0 circular ls "http://127.0.0.1:$origin" --proxy "http://127.0.0.1:$proxy"
says 'other'
ok "the catalog is asked for each time, and a new one is seen at once"

# What a map's reader asks for is a part; the cache has it whole after that.
[ "$(asked '206 /maps/')" -le 1 ] || fail "the map was fetched in parts: $(grep /maps/ asked)"
ok "a map is fetched whole, once"

# squid takes what an answer "not modified" says of a file for what it has.
start_server "$archive"
for _ in 1 2 3; do
    pull "$url"
done
is_unchanged() { grep -q "REFRESH_UNMODIFIED.* GET $url/catalog.json " squid/access; }
wait_for 30 is_unchanged
for path in catalog.json catalog.json.minisig; do
    curl -fsS -x "http://127.0.0.1:$proxy" -o got "$url/$path"
    same got "$archive/$path"
done
ok "circular serve behind it: what has not changed is not emptied"
