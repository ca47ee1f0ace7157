# shellcheck shell=sh
# Other people's servers, as every test runs them; sourced behind common.sh.
#   start_nginx FORMAT <SERVERS     with SERVERS in its block `http`, and wait until it listens; its pid in $server. Its log
#                                   of requests is $work/asked, a line of FORMAT each, written after the answer
#   settle                          wait until every request has been answered and is in that log
#   asked PATTERN                   how many lines of the settled log match
#   forget_asked                    begin that log anew
#   squid_for_test                  prints what squid must be told to keep to $work/squid
#   recipe NAME                     prints the part of docs/mirrors.md behind <!-- NAME -->

start_nginx() {
    requires curl
    mkdir -p nginx
    rm -f nginx/pid nginx/status
    {
        cat <<END
worker_processes 1; daemon off; pid $work/nginx/pid; error_log $work/nginx/error;
$([ "$(id -u)" != 0 ] || echo "user root;")
events { worker_connections 256; }
http {
    client_body_temp_path $work/nginx; proxy_temp_path $work/nginx; fastcgi_temp_path $work/nginx;
    uwsgi_temp_path $work/nginx; scgi_temp_path $work/nginx;
    log_format asked '$1'; access_log $work/asked asked;
    server { listen unix:$work/nginx/status; access_log off; location / { stub_status; } }
END
        cat
        echo '}'
    } >nginx/conf
    start nginx -e "$work/nginx/error" -c "$work/nginx/conf"
    server=$pid
    wait_for 60 nginx_or_ended
    test -s nginx/pid || fail "nginx ended: $(cat nginx/error)" # which is written once all ports are open
}

nginx_or_ended() {
    test -s nginx/pid || ended "$server"
}

# One worker does all: the line of a request is written before it says that nobody but who asks is served.
is_settled() {
    curl -fsS --unix-socket nginx/status http://nginx/ | grep -q 'Reading: 0 Writing: 1 '
}

settle() {
    wait_for 60 is_settled
}

asked() {
    settle
    grep -cE -- "$1" asked || :
}

forget_asked() {
    settle
    : >asked # nginx appends
}

squid_for_test() {
    cat <<END
pid_filename $work/squid/pid
access_log stdio:$work/squid/access
cache_log $work/squid/log
coredump_dir $work/squid
shutdown_lifetime 0 seconds
netdb_filename none
pinger_enable off
END
}

recipe() {
    awk -v mark="<!-- $1 -->" '$0 == mark { found = 1; next } found && /^```/ { if (inside) exit; inside = 1; next } inside' \
        "$top/docs/mirrors.md"
}
