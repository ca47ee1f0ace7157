#!/bin/sh
# Install the packages of build.sh on a clean, minimal Debian 12 (a chroot) and use them there: exit status 0 if
# that works, 77 with a reason on the last line if it cannot be tried.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/tests/lib/apt.sh"
[ "$(id -u)" = 0 ] || {
    echo "the clean Debian 12 needs root"
    exit 77
}
command -v mmdebstrap >/dev/null || {
    echo "mmdebstrap is not installed"
    exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
host_apt_options >"$work/options"
# shellcheck disable=SC2046  # paths of our own making, without spaces
mmdebstrap --variant=apt --format=null --aptopt="$work/options" --skip=cleanup \
    --customize-hook="mkdir \"\$1/packages\" && cp $top/build/package/*.deb \"\$1/packages/\"" \
    --customize-hook="cp $top/tests/package/inside.sh \"\$1/packages/\"" \
    --customize-hook='[ -e "$1/dev/fuse" ] || mknod -m 666 "$1/dev/fuse" c 10 229' \
    --customize-hook='chroot "$1" sh -ec "apt-get -q update; apt-get -q -y --no-install-recommends install /packages/*.deb libnbd-bin"' \
    --customize-hook='chroot "$1" sh /packages/inside.sh' \
    --customize-hook='chroot "$1" apt-get -q -y purge circular libcircular0 libcircular-dev nbdkit-plugin-circular' \
    bookworm /dev/null $(host_apt_sources "$work")
echo "the packages install, run and are removed"
