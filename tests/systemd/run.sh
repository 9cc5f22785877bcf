#!/usr/bin/env bash
# Three machines of their own, each with a real systemd, installed and run as README.md, docs/install.md and
# docs/upgrade.md say. Takes some minutes; leaves nothing behind but logs.
#
#   tests/systemd/run.sh [--no-build] [--keep] [--only STEP]...
#
# --no-build takes the bundles of the last run. --keep leaves the machines running until Enter is pressed.
# --only runs these steps after the install (names as printed, with _). Needs root, systemd-nspawn, debootstrap (the first time, with a
# network), and 4 GB of disk in /var/tmp.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
repository=$(cd ../.. && pwd)
cache=$repository/target/systemd

cannot() {
  echo "run.sh: $1" >&2
  exit 2
}

case " $* " in
  *" --help "* | *" -h "*) sed -n '2,/^set/s/^# \{0,1\}//p' run.sh | sed '$d'; exit 0 ;;
esac
[ "$(id -u)" = 0 ] || cannot "root is needed: machines are made"
for tool in systemd-nspawn:systemd-container ip:iproute2 nsenter:util-linux; do
  command -v "${tool%:*}" >/dev/null || cannot "${tool%:*} is needed: apt-get install ${tool#*:}"
done
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || cannot "this kernel has no overlay file system"
grep -q ' cgroup2 ' /proc/mounts || cannot "no cgroup2 tree is mounted, which systemd needs: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
unshare --mount --pid --uts --ipc --net --cgroup --fork true 2>/dev/null || cannot "namespaces cannot be made here: is this a container without rights?"

# The root folder that the machines share: Debian 12, small. Made anew when what is wanted changes.
packages=systemd,systemd-sysv,dbus,iproute2,procps,python3,logrotate,ca-certificates
mkdir -p "$cache"
if [ "$(cat "$cache/made-from" 2>/dev/null)" != "bookworm $packages" ]; then
  command -v debootstrap >/dev/null || cannot "debootstrap is needed: apt-get install debootstrap"
  rm -rf "$cache/debian" "$cache/made-from"
  echo "==> Debian 12 into $cache/debian"
  mirror=$(sed -n 's/^URIs: *\([^ ]*\/debian\/\{0,1\}\) *$/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\/debian\/\{0,1\}\) .*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1) || true
  debootstrap --variant=minbase --include="$packages" bookworm "$cache/debian" ${mirror:+"$mirror"} \
    >"$cache/debootstrap.log" 2>&1 || cannot "debootstrap failed: see $cache/debootstrap.log"
  echo "bookworm $packages" >"$cache/made-from"
fi

next=$(sed -n 's/^next = "\(.*\)"$/\1/p' "$repository/packaging/releases.toml")
later=$(echo "$next" | awk -F. '{ print $1 "." $2 + 1 "." 0 }')
case " $* " in
  *" --no-build "*) ;;
  *)
    echo "==> bundles $next and $later"
    for version in "$next" "$later"; do
      (cd "$repository" && cargo xtask dist --fast --version "$version" --out "$cache") >"$cache/dist.log" 2>&1 \
        || { tail -n 20 "$cache/dist.log" >&2; exit 1; }
    done
    ;;
esac
export PYTHONDONTWRITEBYTECODE=1
exec python3 scenario.py --cache "$cache" --versions "$next" "$later" "$@"
