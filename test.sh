#!/bin/sh
# All tests, the ones that CI runs. `./test.sh --long` adds the soak.
set -eu
cd "$(dirname "$0")"
exec cargo xtask ci "$@"
