#!/bin/sh
# The recipe for GeoDNS in docs/mirrors.md: one name, and Knot DNS gives each network the mirror next to it.
. "$(dirname "$0")/../lib/common.sh"
. "$top/tests/lib/servers.sh"
requires knotd kdig nginx python3
module=$(find /usr/lib -path '*knot*' -name 'geoip.so' 2>/dev/null | head -n 1)
[ -n "$module" ] || skip "Knot DNS has no module geoip"

free_port port web
mkdir -p knot/zones knot/db
# What the recipe says, with this test's folders, port and addresses.
recipe knot.conf | sed -e "s#/etc/knot#$work/knot#; s#/var/lib/knot#$work/knot#; s#192\.0\.2\.53@53#127.0.0.1@$port#; s#/run/knot#$work/knot#" >knot/knot.conf
recipe mirrors.conf | sed -e 's/203\.0\.113\.10/127.0.0.2/; s/198\.51\.100\.10/127.0.0.3/' >knot/mirrors.conf
recipe zone | sed -e 's/203\.0\.113\.10/127.0.0.2/' >knot/zones/example.org.zone
for file in knot/knot.conf knot/mirrors.conf knot/zones/example.org.zone; do
    [ -s "$file" ] || fail "docs/mirrors.md has no part for $file"
done
grep -q "$work/knot" knot/knot.conf || fail "the recipe names other folders: $(cat knot/knot.conf)"
start knotd -c knot/knot.conf
wait_for 30 listening "$port"

ask() { # SUBNET
    kdig @127.0.0.1 -p "$port" +short +subnet="$1" os.example.org A
}

resolves() {
    [ -n "$(ask 10.1.0.0/16)" ]
}
wait_for 30 resolves
[ "$(ask 10.1.7.0/24)" = 127.0.0.2 ] || fail "the first network got $(ask 10.1.7.0/24)"
[ "$(ask 10.2.7.0/24)" = 127.0.0.3 ] || fail "the second network got $(ask 10.2.7.0/24)"
[ "$(ask 10.9.7.0/24)" = 127.0.0.2 ] || fail "a network that nobody knows got $(ask 10.9.7.0/24)"
kdig @127.0.0.1 -p "$port" +subnet=10.2.7.0/24 os.example.org A >answer
grep -qE 'CLIENT-SUBNET: 10\.2\.7\.0/24/16' answer || fail "the answer does not say for which network it is: $(cat answer)"
ttl=$(awk '$1 == "os.example.org." && $4 == "A" { print $2 }' answer)
[ "$ttl" -le 60 ] || fail "a mirror that dies stays in resolvers for $ttl s"
ok "two networks are sent to two mirrors, all others to the default"

make_archive 8
start_nginx '$server_addr $status $request_uri' <<END
    server { listen 127.0.0.2:$web; listen 127.0.0.3:$web; root $archive; }
END
reachable() {
    curl -fsS "http://127.0.0.3:$web/catalog.json" >/dev/null
}
wait_for 30 reachable
forget_asked
for network in 10.1.0.0/16 10.2.0.0/16; do
    rm -rf "$XDG_CACHE_HOME" got.img
    expect 0 circular pull "http://$(ask $network):$web/disk" --output got.img
    same got.img disk.img
done
for address in 127.0.0.2 127.0.0.3; do
    [ "$(asked "^$address 200 /blocks/")" -gt 20 ] || fail "$address served nothing"
done
ok "a client of each network reads from its own mirror"
