# shellcheck shell=sh
# Other people's servers, as every test runs them; sourced behind common.sh.
#   start_nginx FORMAT <SERVERS     with SERVERS in its block `http`; its pid in $server. Its log of requests is $work/asked,
#                                   a line of FORMAT each
#   asked PATTERN                   how many lines of that log match
#   forget_asked                    begin that log anew
#   squid_for_test                  prints what squid must be told to keep to $work/squid
#   recipe NAME                     prints the part of docs/mirrors.md behind <!-- NAME -->

start_nginx() {
    mkdir -p nginx
    {
        cat <<END
worker_processes 1; daemon off; pid $work/nginx/pid; error_log $work/nginx/error;
$([ "$(id -u)" != 0 ] || echo "user root;")
events { worker_connections 256; }
http {
    client_body_temp_path $work/nginx; proxy_temp_path $work/nginx; fastcgi_temp_path $work/nginx;
    uwsgi_temp_path $work/nginx; scgi_temp_path $work/nginx;
    log_format asked '$1'; access_log $work/asked asked;
END
        cat
        echo '}'
    } >nginx/conf
    start nginx -e "$work/nginx/error" -c "$work/nginx/conf"
    server=$pid
}

asked() {
    grep -cE -- "$1" asked || :
}

forget_asked() {
    rm -f asked
    kill -USR1 "$(cat nginx/pid)"
    wait_for 5 test -e asked
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
