#!/bin/sh
# The recipe for a cache on a LAN in docs/mirrors.md, with a real squid before a real nginx: blocks cross the uplink once,
# a catalog is asked for anew.
. "$(dirname "$0")/../lib/common.sh"
requires nginx curl python3
squid=$(command -v squid || echo /usr/sbin/squid)
[ -x "$squid" ] || skip "squid is not installed"

recipe() { # NAME
    awk -v mark="<!-- $1 -->" '$0 == mark { found = 1; next } found && /^```/ { if (inside) exit; inside = 1; next } inside' \
        "$top/docs/mirrors.md"
}

make_archive 16
origin=$(free_port) proxy=$(free_port)
mkdir nginx squid squid/cache
[ "$(id -u)" != 0 ] || { chmod 755 "$work" && chown -R proxy: squid; }
recipe nginx >nginx/recipe
cat >nginx/conf <<END
worker_processes 1; daemon off; pid $work/nginx/pid; error_log $work/nginx/error;
$([ "$(id -u)" != 0 ] || echo "user root;")
events { worker_connections 256; }
http {
    client_body_temp_path $work/nginx; proxy_temp_path $work/nginx; fastcgi_temp_path $work/nginx;
    uwsgi_temp_path $work/nginx; scgi_temp_path $work/nginx;
    log_format asked '\$status \$request_uri';
    access_log $work/asked asked;
    server { listen 127.0.0.1:$origin; root $archive; include $work/nginx/recipe; }
}
END
start nginx -e "$work/nginx/error" -c "$work/nginx/conf"
# What the recipe says, with this test's folders, port and network.
recipe squid | sed -e "s#3128#127.0.0.1:$proxy#; s#10\.0\.0\.0/8#127.0.0.0/8#; s#aufs /var/spool/squid 20000#ufs $work/squid/cache 200#; s#256 MB#32 MB#" >squid/conf
cat >>squid/conf <<END
pid_filename $work/squid/pid
access_log stdio:$work/squid/access
cache_log $work/squid/log
coredump_dir $work/squid
shutdown_lifetime 0 seconds
netdb_filename none
pinger_enable off
END
"$squid" -N -z -f "$work/squid/conf" >made 2>&1 || fail "squid -z: $(cat made)"
start "$squid" -N -f "$work/squid/conf"
wait_for 20 listening "$proxy"
wait_for 10 listening "$origin"

asked() { # PATTERN
    grep -cE -- "$1" asked || :
}

pull() {
    rm -rf "$XDG_CACHE_HOME" got.img
    expect 0 circular pull "http://127.0.0.1:$origin/disk" --proxy "http://127.0.0.1:$proxy" --output got.img
    same got.img disk.img
}

pull
first=$(asked ' /blocks/')
[ "$first" -gt 50 ] || fail "the first client asked for $first blocks only"
catalogs=$(asked ' /catalog.json$')
pull
[ "$(asked ' /blocks/')" = "$first" ] || fail "blocks were fetched again: $first, then $(asked ' /blocks/')"
[ "$(grep -cE 'HIT.* GET .*/blocks/' squid/access)" -ge "$first" ] || fail "the cache did not serve them"
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
