#!/bin/sh
# Installs Mainstay on this machine, upgrades it, repairs it or takes it back one version.
# Run it as root from the unpacked bundle: sudo ./install.sh [options]; --help lists them.

fail() {
  printf '%s.000 [x] Error: %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "$1" >&2
  exit "${2:-1}"
}

here=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd) || exit 1
program=$here/release/bin/mainstay-install

case " $* " in
  *" --help "* | *" -h "*) ;;
  *)
    [ "$(id -u)" = 0 ] || fail "root is needed: run 'sudo $0${*:+ $*}'" 2
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
      fail "this bundle is for Linux on x86_64; this machine is $(uname -s) on $(uname -m)"
    ;;
esac
[ -x "$program" ] || fail "$program is missing: unpack the whole bundle again with 'tar xf'"

# The programs are linked against glibc: what follows would otherwise only say "not found".
"$program" self-test >/dev/null 2>&1 ||
  fail "the programs of this bundle do not run here: $("$program" self-test 2>&1 | head -n 1)"

exec "$program" install --bundle "$here" "$@"
