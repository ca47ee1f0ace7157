#!/bin/sh
# Any web server will do: nginx and caddy, and another client's cache as a mirror, serve an archive as they serve
# every other folder.
. "$(dirname "$0")/../lib/common.sh"
. "$top/tests/lib/servers.sh"
requires python3
requires_fuse

make_archive 16

try() { # WHAT
    rm -rf "$XDG_CACHE_HOME"
    expect 0 "$circular" ls "$url"
    says 'disk'
    expect 0 "$circular" pull "$url/disk" --output pulled.img
    same pulled.img disk.img
    rm -rf pulled.img "$XDG_CACHE_HOME"
    start_mount "$url/disk" mnt
    same mnt/disk disk.img
    stop_mount mnt
    ok "$1: ls, pull and mount"
}

# With the site of examples/nginx.conf.
nginx_on() { # PORT FOLDER
    sed -e "s|listen 80;|listen 127.0.0.1:$1;|; s|root /srv/www;|root $2;|" "$top/examples/nginx.conf" >site
    start_nginx '$request' <<END
    include $work/site;
END
}

served=0
if command -v nginx >/dev/null && command -v curl >/dev/null; then
    free_port port
    nginx_on "$port" "$archive"
    url=http://127.0.0.1:$port
    try nginx
    cached_as() { # PATH PATTERN
        curl -fsSI "$url/$1" | tr -d '\r' | grep -ixq "Cache-Control: $2" ||
            fail "$1 is not cached as $2: $(curl -sSI "$url/$1")"
    }
    cp "$archive/images/disk/1.json" "$archive/images/disk/1.hints.json" # only its name matters here
    cached_as catalog.json no-cache
    cached_as catalog.json.minisig no-cache
    cached_as images/disk/1.hints.json no-cache
    rm "$archive/images/disk/1.hints.json"
    cached_as images/disk/1.json '.*immutable'
    cached_as images/disk/1.json.minisig '.*immutable'
    for folder in blocks maps; do
        cached_as "$(cd "$archive" && find "$folder" -type f | head -n 1)" '.*immutable'
    done
    [ "$(curl -s -o /dev/null -w '%{http_code}' "$url/.lock")" = 404 ] || fail "the lock file is served"
    ok "examples/nginx.conf: what changes is asked for again, what never changes is kept, locks are not shown"
    stop "$server"
    served=1
fi

if command -v caddy >/dev/null; then
    free_port port
    start caddy file-server --root "$archive" --listen "127.0.0.1:$port"
    server=$pid
    url=http://127.0.0.1:$port
    wait_for 40 listening "$port"
    try caddy
    stop "$server"
    served=1
fi

start_server "$archive"
try "circular serve"
expect 0 "$circular" pull "$url/disk"
stop "$server"

# What this client has cached is an archive: serve it, and let another read from there.
folder=$(ls -d "$XDG_CACHE_HOME"/circular/archives/*/) || fail "the cache has no archive"
start_server "$XDG_CACHE_HOME/circular"
url=$url/archives/$(basename "$folder")
XDG_CACHE_HOME=$work/other
export XDG_CACHE_HOME
try "another client's cache"
[ "$served" = 1 ] || fail "neither nginx nor caddy is installed"
