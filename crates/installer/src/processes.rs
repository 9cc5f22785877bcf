//! Processes and listening sockets of this machine, from /proc.

use rustix::process::{Pid, Signal};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it started, in ticks since the machine did: tells it from a later one of the same id.
    start: u64,
}

impl Process {
    /// The process of an id.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let (state, start) = stat(pid)?;
        // A zombie has ended; only its parent has not looked yet.
        (state != 'Z').then_some(Self { pid, start })
    }

    /// Whether it has been killed, and is only not gone yet: what it holds it is about to give up.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        /// Flag `PF_EXITING` of a task, as in `/proc/PID/stat` (linux/sched.h).
        const EXITING: u64 = 0x4;
        let flags = fields(self.pid).and_then(|fields| fields.get(6)?.parse::<u64>().ok());
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        flags.is_none_or(|flags| flags & EXITING != 0) || kill_pending(&status)
    }

    /// How long ago it started; a process that becomes another program stays as old as it is.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        /// Ticks that the kernel shows a second as (`USER_HZ`).
        const TICKS: f64 = 100.0;
        Duration::try_from_secs_f64((uptime - self.start as f64 / TICKS).max(0.0)).ok()
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.start == self.start)
    }

    /// Its program; one whose file was replaced still has its path.
    #[must_use]
    pub fn program(&self) -> Option<PathBuf> {
        let path = fs::read_link(format!("/proc/{}/exe", self.pid)).ok()?;
        let text = path.to_string_lossy();
        Some(
            text.strip_suffix(" (deleted)")
                .map_or_else(|| path.clone(), PathBuf::from),
        )
    }

    /// What it was started with.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        bytes
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect()
    }

    /// Sends it a signal; one that is gone has got what it needed.
    pub fn signal(&self, signal: Signal) {
        if self.runs()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// State and start time.
fn stat(pid: u32) -> Option<(char, u64)> {
    let fields = fields(pid)?;
    Some((
        fields.first()?.chars().next()?,
        fields.get(19)?.parse().ok()?,
    ))
}

/// What `/proc/PID/stat` says after the name, which stands in brackets and may hold anything: fields
/// are counted from its end, the state first.
fn fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = text.rsplit_once(')')?.1;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Whether SIGKILL waits for a process, from its `/proc/PID/status`.
fn kill_pending(status: &str) -> bool {
    const KILL: u64 = 1 << (9 - 1);
    status.lines().any(|line| {
        let mask = line
            .strip_prefix("SigPnd:")
            .or_else(|| line.strip_prefix("ShdPnd:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & KILL != 0)
    })
}

/// Every process.
#[must_use]
pub fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Process::of)
        .collect()
}

/// Waits until all of `processes` have ended; gives those that have not.
#[must_use]
pub fn wait_for_end(processes: &[Process], limit: Duration) -> Vec<Process> {
    let deadline = Instant::now() + limit;
    loop {
        let left: Vec<Process> = processes
            .iter()
            .filter(|process| process.runs())
            .cloned()
            .collect();
        if left.is_empty() || Instant::now() >= deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kinds of socket tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// TCP: only listeners count.
    Tcp,
    /// UDP: every bound socket counts.
    Udp,
}

/// Whoever has `port` so that `address` cannot be bound to it: `nginx (pid 12)`, or that nobody
/// knows.
#[must_use]
pub fn holder(protocol: Protocol, address: IpAddr, port: u16) -> Option<String> {
    let names: &[&str] = match protocol {
        Protocol::Tcp => &["tcp", "tcp6"],
        Protocol::Udp => &["udp", "udp6"],
    };
    let inode = names
        .iter()
        .filter_map(|name| fs::read_to_string(format!("/proc/net/{name}")).ok())
        .find_map(|table| find_inode(&table, protocol, address, port))?;
    Some(owner_of(inode).unwrap_or_else(|| "a process that cannot be seen from here".to_owned()))
}

fn find_inode(table: &str, protocol: Protocol, address: IpAddr, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, local_port) = socket_address(fields.get(1)?)?;
        let counts = protocol == Protocol::Udp || *fields.get(3)? == LISTEN;
        let same = local == address || local.is_unspecified();
        (counts && same && local_port == port).then(|| fields.get(9)?.parse().ok())?
    })
}

/// `0B00007F:24E3` → 127.0.0.11, 9443. Each group of 32 bits is in the machine's order.
fn socket_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let bytes = hex::decode(address).ok()?;
    let mut octets: Vec<u8> = Vec::with_capacity(bytes.len());
    for group in bytes.chunks(4) {
        octets.extend(group.iter().rev());
    }
    let address = match octets.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        _ => {
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?);
            address
                .to_ipv4_mapped()
                .map_or(IpAddr::V6(address), IpAddr::V4)
        }
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

fn owner_of(inode: u64) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let entries = fs::read_dir("/proc").ok()?;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let holds = descriptors.filter_map(Result::ok).any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str())
        });
        if holds {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", name.trim()));
        }
    }
    None
}

/// User that owns a path.
#[must_use]
pub fn owner(path: &Path) -> Option<(u32, u32)> {
    fs::symlink_metadata(path)
        .ok()
        .map(|meta| (meta.uid(), meta.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn addresses_as_the_kernel_prints_them() {
        assert_eq!(
            socket_address("0B00007F:24E3"),
            Some((IpAddr::from([127, 0, 0, 11]), 9443))
        );
        assert_eq!(
            socket_address("00000000000000000000000001000000:0035"),
            Some((IpAddr::V6(Ipv6Addr::LOCALHOST), 53))
        );
    }

    #[test]
    fn a_listener_is_found_with_its_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let holder = holder(Protocol::Tcp, address.ip(), address.port()).unwrap();
        assert!(
            holder.contains(&format!("(pid {})", std::process::id())),
            "{holder}"
        );
        drop(listener);
        assert_eq!(
            super::holder(Protocol::Tcp, address.ip(), address.port()),
            None
        );
    }

    #[test]
    fn a_pending_kill_is_seen() {
        let status = "Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n";
        assert!(kill_pending(status));
        assert!(!kill_pending(
            "SigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n"
        ));
        assert!(!kill_pending(""));
    }

    #[test]
    fn own_process() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(!me.is_ending());
        assert!(me.runs());
        assert!(me.age().is_some_and(|age| age < Duration::from_secs(3_600)));
        assert_eq!(me.program(), std::env::current_exe().ok());
    }
}
