//! Facts of this machine, from /proc and /sys.

use anyhow::{Context, Result};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

/// Pythons that every user of the machine can run, best first. One on root's PATH may lie in root's
/// home.
const PYTHONS: &[&str] = &["/usr/bin/python3", "/usr/local/bin/python3", "/bin/python3"];

/// Whether systemd runs this machine.
#[must_use]
pub fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The machine's python3.
#[must_use]
pub fn python() -> Option<PathBuf> {
    PYTHONS.iter().map(PathBuf::from).find(|path| path.exists())
}

/// A value of /proc/meminfo, in bytes.
#[must_use]
pub fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Devices and files that swap goes to.
#[must_use]
pub fn swap() -> Vec<String> {
    let text = fs::read_to_string("/proc/swaps").unwrap_or_default();
    text.lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Ports that the kernel gives to outgoing connections.
#[must_use]
pub fn local_port_range() -> Option<(u16, u16)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// The lowest port that every user may listen on.
#[must_use]
pub fn first_unprivileged_port() -> Option<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok()?;
    text.trim().parse().ok()
}

/// Bytes that are free for root on the file system that `path`, or the nearest folder above it that
/// exists, lies on.
///
/// # Errors
/// When the file system does not answer.
pub fn free_space(path: &Path) -> Result<u64> {
    let existing = path
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .with_context(|| format!("no folder above {} exists", path.display()))?;
    let facts = rustix::fs::statvfs(existing)
        .with_context(|| format!("file system of {}", existing.display()))?;
    Ok(facts.f_bavail * facts.f_frsize)
}

/// The address that this machine would use towards the world; no packet is sent.
#[must_use]
pub fn default_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address of the range reserved for documentation: never the target of anything.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|ip| !ip.is_unspecified())
}

/// Whether a socket can be bound to an address: it is one of this machine's.
#[must_use]
pub fn has_address(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}
