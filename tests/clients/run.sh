#!/usr/bin/env bash
# Programs with the usual client libraries, against the endpoints of a cluster of its own.
#
#   tests/clients/run.sh [--only PROGRAM]... [--target TARGET]... [--scenario WORD]... [--keep]
#
# --keep leaves the cluster running and prints how to remove it. Needs root and `cargo xtask engines`.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
repository=$(cd ../.. && pwd)
cache=$repository/target/clients
mkdir -p "$cache"

# Any python3 that has pip will do; Debian's own has it in a package, another one has it built in.
python=
for candidate in python3 /usr/bin/python3; do
  if "$candidate" -c 'import pip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || { echo "run.sh: python3 (3.11 or later) with pip is needed: apt-get install python3 python3-pip" >&2; exit 1; }
for tool in node npm; do
  command -v "$tool" >/dev/null || { echo "run.sh: $tool is needed: apt-get install nodejs npm" >&2; exit 1; }
done

# Each cache carries the sum of what it was made from; another sum makes it anew.
wanted=$(cat python/requirements.txt <("$python" -VV) | sha256sum)
if [ "$(cat "$cache/venv/made-from" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$cache/venv"
  "$python" -m venv --without-pip "$cache/venv"
  "$python" -m pip --python "$cache/venv/bin/python" install --quiet --require-hashes --only-binary :all: \
    --requirement python/requirements.txt
  echo "$wanted" >"$cache/venv/made-from"
fi
wanted=$(cat node/package.json node/package-lock.json <(node --version) | sha256sum)
if [ "$(cat "$cache/node/made-from" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$cache/node"
  mkdir "$cache/node"
  cp node/package.json node/package-lock.json node/.npmrc "$cache/node/"
  (cd "$cache/node" && npm ci --silent --ignore-scripts)
  echo "$wanted" >"$cache/node/made-from"
fi

# Cargo looks itself what is new.
cargo build --quiet --locked --manifest-path rust/Cargo.toml --target-dir "$cache/rust"

[ -x "$repository/target/debug/test-cluster" ] && [ -x "$repository/target/debug/dmcproxy" ] \
  || (cd "$repository" && cargo build --quiet --workspace)
export PYTHONPYCACHEPREFIX="$cache/pycache"
exec "$cache/venv/bin/python" driver.py "$@"
