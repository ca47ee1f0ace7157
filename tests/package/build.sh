#!/bin/sh
# Build the Debian packages from a copy of the source into build/package, and let lintian read them.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
out=$top/build/package
rm -rf "$out"
mkdir -p "$out/circular"
(cd "$top" && tar -c --exclude=./build --exclude='./build-*' --exclude=./.git --exclude='*.raw' .) | tar -x -C "$out/circular"
cd "$out/circular"
dpkg-buildpackage -b -us -uc
rm -rf "$out/circular"
cd "$out"
lintian --allow-root --fail-on error,warning --suppress-tags-from-file "$top/tests/package/lintian-suppressed" ./*.changes
ls -l ./*.deb
