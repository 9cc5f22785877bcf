#!/usr/bin/env bash
# Checks what building and testing need, and installs what Debian packages can provide.
# Usage: packaging/prerequisites.sh [--test] [--bench]
# --test: also what only the tests need; --bench: also what only `cargo xtask bench proxy` needs
set -euo pipefail

say() { printf '==> %s\n' "$1"; }
fail() { printf 'missing: %s\n' "$1" >&2; exit 1; }

test_too=no
bench_too=no
for word in "$@"; do
  case "$word" in
    --test) test_too=yes ;;
    --bench) bench_too=yes ;;
    *) printf 'unknown option %s\n' "$word" >&2; exit 2 ;;
  esac
done

. /etc/os-release
if [ "${ID:-}" != debian ] || [ "${VERSION_ID:-}" != 12 ]; then
  fail "this is ${PRETTY_NAME:-an unknown system}; building needs Debian 12 (bookworm), from whose packages two of the engines come"
fi
[ "$(uname -m)" = x86_64 ] || fail "x86_64; this machine is $(uname -m)"
[ "$(id -u)" = 0 ] || fail "root: packages are installed, ports bound, users made"
command -v cargo >/dev/null || fail "Rust 1.95: install it with rustup, then open a new shell"

packages=()
need() { # command package
  command -v "$1" >/dev/null || packages+=("$2")
}
need cc gcc
need strip binutils
need make make
need tar tar
need ldd libc-bin
need python3 python3
need ip iproute2
need dpkg-deb dpkg
[ -x /usr/bin/python3 ] || packages+=(python3)
/usr/bin/python3 -c 'import pip' 2>/dev/null || python3 -c 'import pip' 2>/dev/null || packages+=(python3-pip)
if [ "$test_too" = yes ]; then
  need node nodejs
  need npm npm
  need systemd-analyze systemd
  need logrotate logrotate
  need sudo sudo
  need faketime faketime
  command -v cargo-nextest >/dev/null || { say "cargo-nextest"; cargo install --quiet --locked cargo-nextest; }
fi
if [ "$bench_too" = yes ]; then
  need setpriv util-linux
  [ -x /usr/sbin/nutcracker ] || packages+=(nutcracker)
  need valgrind valgrind
  command -v perf >/dev/null || packages+=(linux-perf)
fi
if [ "${#packages[@]}" -gt 0 ]; then
  say "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # At this runlevel packages do not start their services.
  RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
# The engines come from signed package lists; they must be there.
if [ -z "$(apt-get indextargets --format '$(FILENAME)' 'Created-By: Packages' 2>/dev/null | while read -r f; do [ -e "$f" ] && echo y; done | head -1)" ]; then
  say "fetching package lists"
  apt-get update -qq
fi
say "prerequisites are there"
