#!/bin/sh
# `circular serve` is a plain static HTTP server: ranges, keep-alive, conditions, caching words, and nothing but the
# files below its folder.
. "$(dirname "$0")/../lib/common.sh"
requires curl python3

mkdir -p www/blocks/ab www/maps www/images/disk www/packs www/.hidden www/sub secret
python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096)' >www/packs/p.pack
printf 'block' >www/blocks/ab/abcd
printf '{"format":"circular-catalog-1"}\n' >www/catalog.json
printf '{}' >www/images/disk/1.json
printf '{}' >www/images/disk/1.hints.json
printf 'map' >www/maps/m.map
: >www/blocks/ab/empty
printf 'secret' >secret/file
printf 'hidden' >www/.lock
printf 'hidden' >www/blocks/ab/.tmp-0123456789abcdef
printf 'hidden' >www/.hidden/file
ln -s ../secret www/outside
ln -s "$work/secret/file" www/absolute
ln -s ../catalog.json www/sub/inside
mkfifo www/fifo

start_server www
status_of() { # CURL-ARGUMENTS...
    curl -s -o answer -D headers -w '%{http_code}' --max-time 10 "$@"
}
gives() { # STATUS CURL-ARGUMENTS...
    wanted=$1
    shift
    got=$(status_of "$@")
    [ "$got" = "$wanted" ] || fail "curl $* gives $got, not $wanted"
}
header() { # NAME: its value
    tr -d '\r' <headers | sed -n "s/^$1: //Ip"
}
has_header() { # NAME PATTERN
    header "$1" | grep -Eq "$2" || fail "the header $1 is '$(header "$1")', not like '$2'"
}

gives 200 "$url/packs/p.pack"
same answer www/packs/p.pack
has_header Content-Length '^1048576$'
has_header Accept-Ranges '^bytes$'
gives 200 "$url/blocks/ab/empty"
[ ! -s answer ] || fail 'an empty file is not empty'
gives 200 -I "$url/packs/p.pack"
has_header Content-Length '^1048576$'
gives 405 -X POST -d x "$url/catalog.json"
has_header Allow '^GET, HEAD$'
gives 405 -X DELETE "$url/catalog.json"
gives 200 -X GET -d 'a body that nobody wants' "$url/catalog.json"
ok 'GET and HEAD give files, other methods are refused'

part() { # OFFSET LENGTH
    tail -c "+$(($1 + 1))" www/packs/p.pack | head -c "$2" >part
    same answer part
}
gives 206 -H 'Range: bytes=0-0' "$url/packs/p.pack"
part 0 1
has_header Content-Range '^bytes 0-0/1048576$'
gives 206 -H 'Range: bytes=100-70099' "$url/packs/p.pack"
part 100 70000
gives 206 -H 'Range: bytes=1048000-' "$url/packs/p.pack"
part 1048000 576
gives 206 -H 'Range: bytes=-10' "$url/packs/p.pack"
part 1048566 10
has_header Content-Range '^bytes 1048566-1048575/1048576$'
gives 206 -H 'Range: bytes=1048570-99999999999' "$url/packs/p.pack"
part 1048570 6
gives 416 -H 'Range: bytes=1048576-' "$url/packs/p.pack"
has_header Content-Range '^bytes \*/1048576$'
gives 416 -H 'Range: bytes=0-' "$url/blocks/ab/empty"
gives 200 -H 'Range: bytes=9-1' "$url/packs/p.pack"
gives 200 -H 'Range: lines=1-2' "$url/packs/p.pack"
same answer www/packs/p.pack
ok 'single ranges, suffixes, and those outside of the file'

gives 206 -H 'Range: bytes=0-9,1000-1099,-5' "$url/packs/p.pack"
python3 - headers answer www/packs/p.pack <<'END' || fail 'a multipart answer is wrong'
import email, re, sys
head = open(sys.argv[1], 'rb').read().split(b'\r\n', 1)[1]
body = open(sys.argv[2], 'rb').read()
file = open(sys.argv[3], 'rb').read()
length = int(re.search(rb'(?i)content-length: (\d+)', head)[1])
assert length == len(body), (length, len(body))
message = email.message_from_bytes(head.strip() + b'\r\n\r\n' + body)
assert message.get_content_type() == 'multipart/byteranges', message.get_content_type()
wanted = [(0, 10), (1000, 100), (len(file) - 5, 5)]
parts = message.get_payload()
assert len(parts) == 3
for part, (offset, size) in zip(parts, wanted):
    assert part['Content-Range'] == f'bytes {offset}-{offset + size - 1}/{len(file)}', part['Content-Range']
boundary = message.get_boundary().encode()
for (offset, size), piece in zip(wanted, body.split(b'--' + boundary)[1:]):
    assert piece.split(b'\r\n\r\n', 1)[1][:size] == file[offset:offset + size]
END
gives 200 -H 'Range: bytes=0-9,5-15' "$url/packs/p.pack"
ok 'several ranges come as multipart/byteranges, overlapping ones as the whole'

immutable='^public, max-age=31536000, immutable$'
for path in blocks/ab/abcd maps/m.map packs/p.pack images/disk/1.json; do
    gives 200 "$url/$path"
    has_header Cache-Control "$immutable"
done
for path in catalog.json images/disk/1.hints.json; do
    gives 200 "$url/$path"
    has_header Cache-Control '^no-cache$'
done
etag=$(header ETag) date=$(header Last-Modified)
gives 304 -H "If-None-Match: \"other\", $etag" "$url/images/disk/1.hints.json"
rm answer
gives 304 -H "If-Modified-Since: $date" "$url/images/disk/1.hints.json"
[ "$(header Content-Length)" = "$(stat -c %s www/images/disk/1.hints.json)" ] ||
    fail "a file that is unchanged is said to have $(header Content-Length) bytes"
[ ! -s answer ] || fail "304 comes with a body"
gives 200 -H 'If-None-Match: "other"' -H "If-Modified-Since: $date" "$url/images/disk/1.hints.json"
gives 206 -H "If-Range: $etag" -H 'Range: bytes=0-0' "$url/images/disk/1.hints.json"
gives 200 -H 'If-Range: "other"' -H 'Range: bytes=0-0' "$url/images/disk/1.hints.json"
printf '{ }' >new && mv new www/images/disk/1.hints.json
gives 200 -H "If-None-Match: $etag" "$url/images/disk/1.hints.json"
ok 'only the catalog and the hints are asked for again; conditions are kept'

for path in .lock .hidden/file blocks/ab/.tmp-0123456789abcdef outside/file absolute fifo blocks blocks/ab/ '' \
    ../secret/file blocks/../../secret/file %2e%2e/secret/file ..%2fsecret%2ffile %2E%2E%2Fsecret/file \
    blocks/%2e%2e/%2e%2e/secret/file //catalog.json ./catalog.json blocks//ab/abcd outside%2ffile; do
    gives 404 --path-as-is "$url/$path"
    grep -q secret answer && fail "$path gives the secret"
done
for path in catalog.json%00 catalog.json%00.png %zz %; do
    gives 400 --path-as-is "$url/$path"
done
gives 200 "$url/sub/inside"
gives 200 "$url/catalog.json?any=query"
gives 200 "$url/%63atalog.json"
long=$(printf '%01200d' 0)
gives 400 "$url/$long"
chmod 0 www/blocks/ab/abcd
[ "$(id -u)" = 0 ] || gives 403 "$url/blocks/ab/abcd"
chmod 644 www/blocks/ab/abcd
ok 'nothing outside of the folder, no hidden and no temporary file'

mkdir -p cache/blocks/ab cache/archives/key cache/maps
printf 'block' >cache/blocks/ab/abcd
printf '{}' >cache/archives/key/catalog.json
truncate -s 1M cache/maps/m.map
printf 'head' | dd of=cache/maps/m.map conv=notrunc status=none
ln -s ../../blocks cache/archives/key/blocks
ln -s ../../maps cache/archives/key/maps
www_url=$url www_server=$server
start_server cache
gives 200 "$url/archives/key/catalog.json"
gives 200 "$url/archives/key/blocks/ab/abcd"
has_header Cache-Control "$immutable"
gives 206 -H 'Range: bytes=0-3' "$url/archives/key/maps/m.map"
has_header Cache-Control '^no-cache$'
gives 404 -H 'Range: bytes=500000-504095' "$url/archives/key/maps/m.map"
gives 404 "$url/archives/key/maps/m.map"
ok 'a cache can be served; pages that it does not have are not found, not zeros'

url=$www_url
connects=$(curl -s -o /dev/null -o /dev/null -o /dev/null -w '%{num_connects}\n' \
    "$url/catalog.json" "$url/packs/p.pack" "$url/missing" | tr -d '\n')
[ "$connects" = 100 ] || fail "three requests made connections $connects, not 100"
python3 - "${url#http://}" www/packs/p.pack <<'END' || fail 'parallel clients got wrong bytes'
import http.client, sys, threading
host, path = sys.argv[1:]
file = open(path, 'rb').read()
wrong = []
def client(number):
    try:
        connection = http.client.HTTPConnection(host, timeout=30)
        for i in range(20):
            offset = (number * 7919 + i * 104729) % (len(file) - 50000)
            connection.request('GET', '/packs/p.pack', headers={'Range': f'bytes={offset}-{offset + 49999}'})
            answer = connection.getresponse()
            if answer.status != 206 or answer.read() != file[offset:offset + 50000]:
                wrong.append((number, i, answer.status))
    except Exception as fault:
        wrong.append((number, repr(fault)))
threads = [threading.Thread(target=client, args=(n,)) for n in range(64)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(str(wrong[:5]) if wrong else 0)
END
ok 'connections are kept open; 64 clients at once'

python3 - "${url#http://}" <<'END' || fail 'the server did not live through malformed requests'
import socket, sys
host, port = sys.argv[1].split(':')
for text in (b'GET\r\n\r\n', b'\0\0\0\0\r\n\r\n', b'GET / HTTP/9.9\r\n\r\n', b'GET catalog.json HTTP/1.1\r\n\r\n',
             b'GET /catalog.json HTTP/1.1\r\n' + b'X: ' + b'y' * 20000 + b'\r\n\r\n',
             b'GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n', b'GET /catalog.json HTTP/1.1\r\nRange: bytes=' + b'0-0,' * 1000 + b'\r\n\r\n'):
    with socket.create_connection((host, int(port)), timeout=1) as connection:
        try:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536): pass
        except OSError: pass # among them: left open until it has been idle for long
END
gives 200 "$url/catalog.json"
ok 'malformed requests do no harm'

expect 1 circular serve www --listen "${url#http://}"
says 'another program'
expect 2 circular serve www --listen nowhere
says 'port'
expect 3 circular serve missing
says 'missing'
stop "$www_server"
[ "$status" = 0 ] || fail "the server ended with status $status"
ok 'a port in use, a bad address, a missing folder; SIGTERM ends it'

# The real thing: what one client has fetched serves another, which trusts nothing of it.
rm -rf cache
make_archive 8
start_server "$archive"
circular pull "$url/disk" --cache first
stop "$server"
key_folder=$(ls first/archives)
start_server first
circular pull "$url/archives/$key_folder/disk" --cache second --output copy.img
same copy.img disk.img
ok "a client's cache is an archive for its neighbours"
