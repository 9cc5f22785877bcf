#!/bin/sh
# Three nodes on this machine, installed from a bundle made here, with a database and traffic.
#
#   ./demo.sh [--exit]            build, install, create, send traffic; --exit: and remove it again
#   ./demo.sh upgrade [--exit]    the next version on all three nodes, under load
#   ./demo.sh upgrade --orchestrated [--exit]   the same by one command for all nodes
#   ./demo.sh upgrade --released [--exit]       from the last release, built from its commit, to this tree (either way)
#   ./demo.sh shell <1|2|3>       a shell on a node
#   ./demo.sh stop                remove it without a trace
#   --base 127.0.1.11             first of three addresses, for a second demo [127.0.0.11]
#
# Needs root: it installs. Ends with 0 only if everything went well.
set -u
cd "$(dirname "$(readlink -f "$0")")" || exit 1

missing() {
  echo "demo.sh: $1" >&2
  exit 1
}

case " $* " in
  *" --help "* | *" -h "*) sed -n '2,/^set/s/^# \{0,1\}//p' demo.sh | sed '$d'; exit 0 ;;
esac
if [ "$(id -u)" != 0 ]; then
  echo "demo.sh: root is needed, because nodes are installed: run 'sudo ./demo.sh${*:+ $*}'" >&2
  exit 2
fi
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || missing "Linux on x86_64 is needed"
# sudo takes PATH away; rustup puts cargo into the home of who called it.
if ! command -v cargo >/dev/null; then
  home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
  PATH=$PATH:$home/.cargo/bin
  export CARGO_HOME="${CARGO_HOME:-$home/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
fi
command -v cargo >/dev/null || missing "cargo is needed: install Rust 1.95 with rustup (https://rustup.rs)"
case " $* " in
  *" stop "* | *" shell "*) ;;
  *) ./packaging/prerequisites.sh || exit 1 ;;
esac

exec cargo xtask demo "$@"
