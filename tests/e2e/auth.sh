#!/bin/sh
# Who may read, and who is believed: passwords, tokens, client certificates, authorities and proxies, with a real nginx
# and a real squid; HTTP/2; and no credentials for anybody but the host they are for.
. "$(dirname "$0")/../lib/common.sh"
. "$top/tests/lib/servers.sh"
requires nginx openssl curl python3
requires_fuse

# ---- An authority, a server's certificate for 127.0.0.1, a client's ----

quietly() {
    "$@" >made 2>&1 || fail "$*: $(cat made)"
}

authority() { # NAME
    quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=$1" \
        -keyout "$1.key" -out "$1.crt"
}

signed_by() { # AUTHORITY NAME EXTENSION
    quietly openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$2" -keyout "$2.key" \
        -out "$2.csr"
    echo "$3" >"$2.ext"
    quietly openssl x509 -req -in "$2.csr" -CA "$1.crt" -CAkey "$1.key" -CAcreateserial -days 30 -extfile "$2.ext" \
        -out "$2.crt"
    cat "$2.crt" "$2.key" >"$2.pem"
}

authority lab-ca
authority other-ca
signed_by lab-ca server 'subjectAltName=IP:127.0.0.1'
signed_by lab-ca wrong-name 'subjectAltName=DNS:elsewhere.example'
signed_by lab-ca client 'extendedKeyUsage=clientAuth'
signed_by other-ca stranger 'extendedKeyUsage=clientAuth'

make_archive 16

# ---- One nginx, a server for each way in ----

free_port open basic bearer certificate misnamed away leading taken
echo "reader:$(openssl passwd -apr1 'open sesame')" >passwords
start_nginx '$server_port $server_protocol $connection $status "$http_authorization" $request_uri $ssl_client_verify' <<END
    ssl_certificate $work/server.crt; ssl_certificate_key $work/server.key;
    root $archive;
    server { listen 127.0.0.1:$open ssl http2; }
    server { listen 127.0.0.1:$basic; auth_basic lab; auth_basic_user_file $work/passwords; }
    server {
        listen 127.0.0.1:$bearer;
        if (\$http_authorization != "Bearer abc.DEF-123") { return 401; }
        location /blocks/ { return 302 http://127.0.0.1:$away\$request_uri; }
    }
    server { listen 127.0.0.1:$away; }
    server { listen 127.0.0.1:$certificate ssl; ssl_client_certificate $work/lab-ca.crt; ssl_verify_client on; }
    server {
        listen 127.0.0.1:$leading ssl; ssl_client_certificate $work/lab-ca.crt; ssl_verify_client on;
        location /blocks/ { return 302 https://127.0.0.1:$taken\$request_uri; }
    }
    server { listen 127.0.0.1:$taken ssl; ssl_client_certificate $work/lab-ca.crt; ssl_verify_client optional; }
    server {
        listen 127.0.0.1:$misnamed ssl;
        ssl_certificate $work/wrong-name.crt; ssl_certificate_key $work/wrong-name.key;
    }
END

# The whole disk, through a client with an empty cache.
pull() { # URL OPTION...
    location=$1
    shift
    rm -rf "$XDG_CACHE_HOME" got.img
    expect 0 circular pull "$location" --output got.img "$@"
    same got.img disk.img
}

# A refusal, told at once and without the secret.
refused() { # STATUS PATTERN URL OPTION...
    want=$1 pattern=$2
    shift 2
    rm -rf "$XDG_CACHE_HOME"
    start_s=$(date +%s)
    expect "$want" circular ls --patience 60s "$@"
    says "$pattern"
    says_not 'sesame|abc\.DEF|wrong-secret'
    [ $(($(date +%s) - start_s)) -le 20 ] || fail "it took long to say so"
}

# ---- Authorities, and HTTP/2 ----

pull "https://127.0.0.1:$open/disk" --ca-file lab-ca.crt
[ "$(asked "^$open HTTP/2.0 ")" -gt 50 ] || fail "not HTTP/2: $(head -n 3 asked)"
[ "$(asked "^$open HTTP/1")" = 0 ] || fail "HTTP/1 all the same"
connections=$(awk -v port="$open" '$1 == port { print $3 }' asked | sort -u | wc -l)
[ "$connections" -le 3 ] || fail "$connections connections, though HTTP/2 needs one"
ok "HTTP/2 where the server has it: $(asked "^$open ") requests over $connections connections"

refused 4 'certificate' "https://127.0.0.1:$open"
refused 4 'certificate' "https://127.0.0.1:$open" --ca-file other-ca.crt
refused 4 'certificate|name' "https://127.0.0.1:$misnamed" --ca-file lab-ca.crt
ok "a server whose certificate is nobody's, another authority's or another host's is not believed"

# ---- Passwords ----

refused 4 'HTTP status 401' "http://127.0.0.1:$basic"
refused 4 'HTTP status 401' "http://reader:wrong-secret@127.0.0.1:$basic"
pull "http://reader:open%20sesame@127.0.0.1:$basic/disk"
says_not sesame
ok "user and password of the URL open the door, and are not printed"

# ---- Tokens, and where they go ----

echo 'abc.DEF-123' >token
echo 'wrong-secret' >bad-token
refused 4 'HTTP status 401' "http://127.0.0.1:$bearer"
refused 4 'HTTP status 401' "http://127.0.0.1:$bearer" --token-file bad-token
forget_asked
pull "http://127.0.0.1:$bearer/disk" --token-file token
[ "$(asked "^$bearer .* 302 \"Bearer ")" -gt 50 ] || fail "the blocks were not redirected"
[ "$(asked "^$away .* 20[06] ")" -gt 50 ] || fail "nobody followed the redirects"
[ "$(asked "^$away .*Bearer")" = 0 ] || fail "the token went to another host"
ok "a token is for the archive's server; a redirect to another host goes without it"

forget_asked
pull "http://127.0.0.1:$bearer/disk" --token-file token --mirror "http://127.0.0.1:$away"
[ "$(asked "^$away ")" -gt 0 ] || fail "the mirror was not asked"
[ "$(asked "^$away .*Bearer")" = 0 ] || fail "the token went to a mirror"
pull "http://reader:open%20sesame@127.0.0.1:$basic/disk" --mirror "http://127.0.0.1:$away"
[ "$(asked "^$away .*Basic")" = 0 ] || fail "the password went to a mirror"
ok "nor do mirrors see token or password"

# ---- Client certificates ----

refused 4 'HTTP status 400' "https://127.0.0.1:$certificate" --ca-file lab-ca.crt
refused 4 'HTTP status 400|certificate' "https://127.0.0.1:$certificate" --ca-file lab-ca.crt \
    --client-certificate stranger.pem
pull "https://127.0.0.1:$certificate/disk" --ca-file lab-ca.crt --client-certificate client.pem
for option in ca-file client-certificate token-file; do
    refused 3 "cannot open $work/nowhere.pem: No such file" "https://127.0.0.1:$certificate" "--$option" "$work/nowhere.pem"
    grep -q 'mirror' err && fail "the mirror is blamed for --$option: $(cat err)"
done
ok "a client certificate opens the door; a file that is not there is named"

pull "https://127.0.0.1:$leading/disk" --ca-file lab-ca.crt --client-certificate client.pem
[ "$(asked "^$leading .* 302 .* SUCCESS")" -gt 50 ] || fail "the blocks were not redirected"
[ "$(asked "^$taken .* 20[06] .* NONE")" -gt 50 ] || fail "nobody followed the redirects"
[ "$(asked "^$taken .* SUCCESS")" = 0 ] || fail "the certificate was shown to another server"
forget_asked
pull "https://127.0.0.1:$leading/disk" --ca-file lab-ca.crt --client-certificate client.pem \
    --mirror "https://127.0.0.1:$taken"
[ "$(asked "^$taken .* SUCCESS")" -gt 0 ] || fail "a mirror did not see the certificate"
ok "it is shown to the archive's servers and mirrors, not to where they redirect"

# ---- Proxies ----

squid=$(command -v squid || echo /usr/sbin/squid)
if [ -x "$squid" ]; then
    free_port proxy
    mkdir squid
    [ "$(id -u)" != 0 ] || chmod 777 "$work" squid
    cat >squid/conf <<END
http_port 127.0.0.1:$proxy
http_access allow localhost
http_access deny all
cache deny all
END
    squid_for_test >>squid/conf
    start "$squid" -N -f "$work/squid/conf"
    wait_for 40 listening "$proxy"
    pull "http://127.0.0.1:$away/disk" --proxy "http://127.0.0.1:$proxy"
    [ "$(grep -c "GET http://127.0.0.1:$away/blocks/" squid/access)" -gt 50 ] || fail "not through the proxy"
    pull "https://127.0.0.1:$open/disk" --ca-file lab-ca.crt --proxy "http://127.0.0.1:$proxy"
    grep -q "CONNECT 127.0.0.1:$open" squid/access || fail "no tunnel through the proxy"
    rm -rf "$XDG_CACHE_HOME"
    lines=$(wc -l <squid/access)
    http_proxy="http://127.0.0.1:$proxy" no_proxy=127.0.0.1 expect 0 circular ls "http://127.0.0.1:$away"
    [ "$(wc -l <squid/access)" = "$lines" ] || fail "no_proxy is not respected"
    http_proxy="http://127.0.0.1:$proxy" expect 0 circular ls "http://127.0.0.1:$away"
    [ "$(wc -l <squid/access)" -gt "$lines" ] || fail "http_proxy is not respected"
    # The proxy must not learn what is for the server behind it.
    pull "http://127.0.0.1:$bearer/disk" --token-file token --proxy "http://127.0.0.1:$proxy"
    ok "http and https through a proxy, of the command line and of the environment"
fi

refused 4 "the proxy $nobody: connection refused" "http://127.0.0.1:$away" --proxy "http://$nobody" --patience 1s
ok "a proxy that is not there is told"
