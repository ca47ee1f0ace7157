#!/bin/sh
# ls, info and the cache commands: what they tell people and programs, of good and of bad archives and caches.
. "$(dirname "$0")/../lib/common.sh"
requires python3 bash

# The last expect's JSON, as $told, makes the Python expression true.
told() {
    python3 -c "import json; told = json.load(open('out')); assert $1, told" || fail "JSON: not $1"
}

make_archive 4
make_image "$work/second.img" 4 2
circular publish second.img --name disk --version 2 --key "$key" --to "$archive" --architecture amd64 \
    --description 'The second one'
circular publish second.img --name another --version 2026-11-21 --key "$key" --to "$archive"
start_server "$archive"

expect 0 circular ls "$url"
says '^NAME +VERSION +SIZE +DATA +DOWNLOAD +PUBLISHED$'
says '^disk +1 +4.0 MiB .* 20[0-9]{2}-[0-9]{2}-[0-9]{2}$'
says '^disk +2 +4.0 MiB .* newest$'
says '^another +2026-11-21 .* newest$'
[ "$(wc -l <out)" = 4 ] || fail "ls prints $(cat out)"
[ ! -s err ] || fail "ls complains: $(cat err)"
expect 0 circular ls --json "$url/"
told "[(v['name'], v['version'], v['newest']) for v in told['versions']] == [('disk', '1', False),
    ('disk', '2', True), ('another', '2026-11-21', True)]"
number=$(sed -n 's/.*public key //p' "$pub")
told "told['serial'] == 3 and told['signer'] == '$number' and not told['offline'] and not told['insecure']"
told "told['versions'][0]['disk_size'] == 4 << 20"
cp out online
expect 0 circular ls --quiet "$url"
[ ! -s out ] || fail "--quiet prints $(cat out)"
ok "ls tells people and programs the same"

expect 0 circular info "$url/disk"
says '^version +2 \(the newest\)$'
says '^versions +1, 2$'
says '^description +The second one$'
says '^architecture +amd64$'
says "^signature +good, by key $number \\(.*/keys.d/lab.pub\\)\$"
says '^catalog +serial 3 of .*, expires .* \(in 90 days\)$'
expect 0 circular info --json "$url/disk@1"
told "told['version'] == '1' and not told['newest'] and told['catalog']['serial'] == 3"
told "told['image'] == '$(python3 -c 'import json; print(json.load(open("online"))["versions"][0]["image"])')'"
ok "info tells of one version, and who vouches for it"

expect 3 circular info "$url/nothing"
says "has no image nothing; it has: .*disk"
expect 3 circular info "$url/disk@7"
says "has no version 7 of disk; it has: .*1"
expect 2 circular info "$url/.."
expect 2 circular ls ''
expect 2 circular ls gopher://somewhere/os
expect 3 circular ls "$work/nowhere"
expect 3 circular ls "$url/nowhere"
says 'nowhere'
ok "what is not there is told from what is no location"

mv "$XDG_CONFIG_HOME/circular/keys.d/lab.pub" .trusted.pub
expect 6 circular ls "$url"
expect 6 circular ls --json "$url"
python3 -c 'import json; told = json.loads(open("err").read().splitlines()[-1]); assert told["exit_status"] == 6, told'
expect 0 circular ls --key "$pub" "$url"
expect 0 circular ls --key "$(sed -n 2p "$pub")" "$url"
make_key other
expect 6 circular ls --key other.pub "$url"
expect 3 circular ls --key missing.pub "$url"
expect 5 circular ls --key second.img "$url"
cp "$pub" "$XDG_CONFIG_HOME/circular/lab.pub"
expect 6 circular ls "$url"
mv .trusted.pub "$XDG_CONFIG_HOME/circular/keys.d/lab.pub"
ok "without a trusted key there is no answer; a .pub outside keys.d is not trusted"

expect 0 circular ls --insecure --key other.pub "$url"
if grep -v '^\[insecure\] ' out; then fail "a line does not say that it is insecure"; fi
if grep -v '^circular (insecure): ' err; then fail "a line does not say that it is insecure"; fi
expect 0 circular ls --insecure --json "$url"
told "told['insecure']"
ok "--insecure says so on every line"

echo "key = $work/absent.pub" >"$XDG_CONFIG_HOME/circular/a.conf"
expect 3 circular ls "$url"
says 'absent.pub'
rm "$XDG_CONFIG_HOME/circular/a.conf"
mkdir "$XDG_CONFIG_HOME/circular/keys.d/bad.pub"
expect 1 circular ls "$url"
says 'keys.d/bad.pub'
rmdir "$XDG_CONFIG_HOME/circular/keys.d/bad.pub"
ok "a trusted key that cannot be read is an error, not silence"

expect 2 circular ls --connections 0 "$url"
says 'connections must be from 1 to 1000, not 0'
expect 2 circular ls --offline --no-cache "$url"
printf 'two words\n' >token
expect 2 circular ls --token-file token "$url"
says 'token holds no bearer token'
expect 3 circular ls --token-file absent "$url"
expect 4 circular ls --no-cache --proxy "http://$nobody" "$url"
expect 4 env http_proxy="http://$nobody" "$circular" ls --no-cache "$url"
expect 0 env http_proxy="http://$nobody" no_proxy=127.0.0.1 "$circular" ls --no-cache "$url"
expect 0 env http_proxy="http://$nobody" "$circular" ls --no-cache --proxy none "$url"
echo "proxy = http://$nobody" >"$XDG_CONFIG_HOME/circular/a.conf"
expect 4 circular ls --no-cache "$url"
expect 4 env http_proxy="$url" "$circular" ls --no-cache "$url"
says 'HTTP status 400' # our server is there, but is no proxy
rm "$XDG_CONFIG_HOME/circular/a.conf"
ok "proxies come from the command line, the environment, the configuration, in this order"

start "$circular" pull --limit-rate 100K --output pulled.img "$url/disk"
wait_for 30 grep -q '^circular: Pulling: .* of .*/s' "$work/log.$pid"
stop "$pid"
[ "$status" = 130 ] || fail "an interrupted pull ends with $status: $(cat "$work/log.$pid")"
[ ! -e pulled.img ] || fail "an interrupted pull left a file that looks whole"
expect 0 circular pull --output pulled.img "$url/disk"
same second.img pulled.img
ok "a long job tells how far it is, ends when it is told, and goes on later"

# Names of a known archive complete without a word to its server.
mkdir bin
ln -s "$circular" bin/circular
completes() {
    PATH=$work/bin:$PATH bash --norc -c '. "$1"
        COMP_LINE="circular info $2" COMP_POINT=$((14 + ${#2}))
        read -r -a COMP_WORDS <<<"$(printf %s "$COMP_LINE" | sed "s/[:=@]\+/ & /g")"
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        compopt() { :; }
        _circular
        printf "%s\n" "${COMPREPLY[@]}"' bash "$top/completions/circular.bash" "$1" | sort >offered
    [ "$(tr '\n' ' ' <offered)" = "$2 " ] || fail "$1 completes to: $(tr '\n' ' ' <offered), not: $2"
}
stop "$server"
# Readline has split the URL at its colons and the "@".
port=${url##*:}
completes "$url/" "$port/another $port/disk"
completes "$url/di" "$port/disk"
completes "$url/disk@" "1 2"
completes "$url/disk@2" "2"
expect 0 circular ls --json --offline "$url"
told "told['offline'] and told['versions'] == json.load(open('online'))['versions']"
expect 4 circular ls --no-cache --patience 1s "$url"
ok "image names complete from the cache, and ls works offline"

cache=$XDG_CACHE_HOME/circular
mkdir -p "$cache/blocks"
cp -r "$archive"/blocks/* "$cache/blocks"
blocks=$(find "$cache/blocks" -type f | wc -l)
expect 0 circular cache info --json
told "told['folder'] == '$cache' and told['block_count'] == $blocks and told['max_bytes'] == 20 << 30"
expect 0 circular cache verify
says "^$blocks blocks, .* checked: 0 bad\$"
block=$(find "$cache/blocks" -type f | sort | head -n 1)
printf 'x' | dd of="$block" bs=1 seek=20 conv=notrunc status=none
expect 5 circular cache verify
says "$(basename "$block")"
says "checked: 1 bad\$"
expect 5 circular cache verify --json
told "told['bad'] == 1 and not told['repaired']"
[ -e "$block" ] || fail "verify removed a block without --repair"
expect 0 circular cache verify --repair
says "1 bad, removed"
[ ! -e "$block" ] || fail "--repair left a bad block"
expect 0 circular cache verify
ok "cache verify finds a bad block, and removes it when told"

used() {
    expect 0 circular cache info --json
    python3 -c 'import json; print(json.load(open("out"))["block_bytes"])'
}
before=$(used)
expect 0 circular cache prune
[ "$(used)" = "$before" ] || fail "prune below the limit removed something"
expect 0 circular cache prune --max-size 1M --json
told "told['removed_bytes'] > 0"
after=$(used)
if [ "$after" -gt 1048576 ] || [ "$after" = 0 ]; then fail "prune left $after of $before bytes"; fi
expect 0 circular cache prune --max-size 0
[ "$(used)" = 0 ] || fail "prune to 0 left $(used) bytes"
if [ "$(id -u)" = 0 ] && mkdir fixed && mount -t tmpfs none fixed 2>/dev/null; then
    at_exit umount fixed
    circular pull --cache fixed/cache "$archive/disk"
    printf x >>"$(find fixed/cache/blocks -type f | head -n 1)"
    mount -o remount,ro fixed
    expect 5 circular cache verify --cache fixed/cache --repair
    says 'cannot be removed: Read-only'
    says '1 bad, 0 of them removed'
    expect 1 circular cache prune --cache fixed/cache --max-size 0
    says 'cannot remove blocks .*fixed/cache: Read-only'
fi
ok "cache prune leaves no more than it is told, or says why"
