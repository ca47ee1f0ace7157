#!/bin/sh
# Our shell scripts give shellcheck nothing to say.
set -eu
cd "$(dirname "$0")/.."
command -v shellcheck >/dev/null || {
    echo "shellcheck is not installed"
    exit 77
}
# shellcheck disable=SC2046  # our own file names, without spaces
shellcheck -x check demo .ci/run scripts/packages bench/run $(find tests bench scripts -name '*.sh')
