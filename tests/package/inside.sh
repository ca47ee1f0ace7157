#!/bin/sh
# Runs inside the clean Debian 12 of run.sh: a publisher and a reader, with nothing but the packages.
set -eux
cd "$(mktemp -d)"
export HOME="$PWD"
port=$((20000 + $$ % 20000))
circular --version
circular help
dpkg -L libcircular-dev | grep -q 'circular.h$'
dpkg -L libcircular-dev | grep -q 'libcircular.pc$'

head -c 3000000 /dev/urandom >disk.img
truncate -s 8M disk.img
circular key new --no-password lab
circular publish disk.img --name disk --version 1 --key lab.sec --to archive
circular serve archive --listen "127.0.0.1:$port" &
server=$!
trap 'kill $server' EXIT
tries=0
until circular ls http://127.0.0.1:"$port" --key lab.pub; do
    tries=$((tries + 1))
    [ "$tries" -lt 50 ]
    sleep 0.1
done
circular pull http://127.0.0.1:"$port"/disk --key lab.pub --output pulled.img
cmp disk.img pulled.img

mkdir mnt
circular mount http://127.0.0.1:"$port"/disk mnt --key lab.pub
cmp disk.img mnt/disk
fusermount3 -u mnt

nbdkit -U - circular http://127.0.0.1:"$port"/disk key=lab.pub --run 'nbdcopy "$uri" copied.img'
cmp disk.img copied.img
echo "publish, serve, ls, pull, mount and nbdkit work"
