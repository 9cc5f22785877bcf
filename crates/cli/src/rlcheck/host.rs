//! Settings of the host.

use super::Subject;
use super::report::Findings;
use super::services::running_services;
use model::limits;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Connections that a listener must be able to hold until they are accepted.
const SOMAXCONN_MIN: u64 = 1_024;
/// Descriptors that a daemon should be able to have.
const DESCRIPTORS_ADVISED: u64 = 65_536;

/// `verify_port_range`: ports that the kernel gives to outgoing connections are not those of shards
/// and endpoints.
#[must_use]
pub fn port_range() -> Findings {
    let read = |name: &str| {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::read_to_string(&path).map_err(|e| format!("cannot read {path}: {e}"))
    };
    match (read("ip_local_port_range"), read("ip_local_reserved_ports")) {
        (Ok(range), reserved) => judge_port_range(&range, &reserved.unwrap_or_default()),
        (Err(why), _) => Findings::failure(why),
    }
}

fn judge_port_range(range: &str, reserved: &str) -> Findings {
    let ends: Vec<u16> = range
        .split_whitespace()
        .filter_map(|end| end.parse().ok())
        .collect();
    let [first, last] = ends[..] else {
        return Findings::failure(format!(
            "ip_local_port_range cannot be read: '{}'",
            range.trim()
        ));
    };
    let mut findings = Findings::default();
    for (whose, ports) in [
        ("shards", limits::SHARD_PORTS),
        ("endpoints", limits::ENDPOINT_PORTS),
    ] {
        let from = first.max(*ports.start());
        let to = last.min(*ports.end());
        if from <= to && !covers(reserved, from..=to) {
            findings.fail(format!(
                "ip_local_port_range {first}-{last} overlaps the ports of {whose} ({}-{}): an \
                 outgoing connection may take such a port. Run: sysctl -w \
                 net.ipv4.ip_local_port_range=\"30000 65535\"",
                ports.start(),
                ports.end()
            ));
        }
    }
    findings
}

/// Whether a list such as `8080,9000-9100` holds every port of a range.
fn covers(reserved: &str, ports: RangeInclusive<u16>) -> bool {
    let mut ranges: Vec<(u16, u16)> = reserved
        .split(',')
        .filter_map(|part| {
            let (from, to) = part
                .trim()
                .split_once('-')
                .unwrap_or((part.trim(), part.trim()));
            Some((from.parse().ok()?, to.parse().ok()?))
        })
        .collect();
    ranges.sort_unstable();
    let mut next = u32::from(*ports.start());
    for (from, to) in ranges {
        if u32::from(from) <= next && u32::from(to) >= next {
            next = u32::from(to) + 1;
        }
    }
    next > u32::from(*ports.end())
}

/// Free space below which a node runs out of room soon, and below which it has next to none, bytes.
const ROOM_ADVISED: u64 = 1 << 30;
const ROOM_MIN: u64 = 16 << 20;

/// What is read of the host.
#[derive(Clone, Debug, Default)]
struct Settings {
    somaxconn: Option<u64>,
    overcommit: Option<u64>,
    huge_pages: Option<String>,
    /// Hard limit of descriptors of each daemon, and of this process as a stand-in.
    descriptors: Vec<(String, u64)>,
    /// The folder of logs, databases and configuration, and what its file system has left, bytes.
    room: Option<(PathBuf, u64)>,
}

/// `verify_host_settings`.
pub async fn settings(subject: &Subject) -> Findings {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
    let mut settings = Settings {
        somaxconn: number("/proc/sys/net/core/somaxconn"),
        overcommit: number("/proc/sys/vm/overcommit_memory"),
        huge_pages: fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok(),
        descriptors: Vec::new(),
        room: room(&subject.config.var_dir),
    };
    for service in running_services(subject).await.unwrap_or_default() {
        if let Some(limit) = service.pid.and_then(descriptor_limit) {
            settings.descriptors.push((service.name, limit));
        }
    }
    if settings.descriptors.is_empty()
        && let Some(limit) = descriptor_limit(std::process::id())
    {
        settings.descriptors.push(("this shell".to_owned(), limit));
    }
    judge(&settings)
}

/// What the file system under a folder has left.
fn room(folder: &Path) -> Option<(PathBuf, u64)> {
    let system = rustix::fs::statvfs(folder).ok()?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    Some((folder.to_owned(), free))
}

/// Hard limit of open files of a process.
fn descriptor_limit(pid: u32) -> Option<u64> {
    hard_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn judge(settings: &Settings) -> Findings {
    let mut findings = Findings::default();
    match settings.somaxconn {
        Some(value) if value >= SOMAXCONN_MIN => {}
        Some(value) => findings.fail(format!(
            "somaxconn is {value}, at least {SOMAXCONN_MIN} are needed. Run: sysctl -w \
             net.core.somaxconn={SOMAXCONN_MIN}"
        )),
        None => findings.fail("cannot read /proc/sys/net/core/somaxconn"),
    }
    if let Some(value) = settings.overcommit.filter(|value| *value != 1) {
        findings.warnings.push(format!(
            "overcommit_memory is {value}, 1 is advised: saving a large database to disk may fail. \
             Run: sysctl -w vm.overcommit_memory=1"
        ));
    }
    if settings
        .huge_pages
        .as_ref()
        .is_some_and(|text| text.contains("[always]"))
    {
        findings.warnings.push(
            "transparent huge pages are on: they cost memory and delays while data is saved. Run: \
             echo never > /sys/kernel/mm/transparent_hugepage/enabled"
                .to_owned(),
        );
    }
    if let Some((folder, free)) = &settings.room {
        let text = format!(
            "the file system of {} has {} MiB left: make room, or engines refuse writes and the node \
             does not vote",
            folder.display(),
            free >> 20
        );
        match *free {
            ..ROOM_MIN => findings.fail(text),
            ROOM_MIN..ROOM_ADVISED => findings.warnings.push(text),
            _ => {}
        }
    }
    for (whose, limit) in &settings.descriptors {
        if *limit < DESCRIPTORS_ADVISED {
            findings.warnings.push(format!(
                "{whose} may open {limit} files, {DESCRIPTORS_ADVISED} are advised: it bounds \
                 client connections. Set LimitNOFILE={DESCRIPTORS_ADVISED} in the unit; without \
                 systemd run: ulimit -Hn {DESCRIPTORS_ADVISED}, then start the node again"
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges() {
        assert_eq!(judge_port_range("32768\t60999\n", ""), Findings::default());
        assert_eq!(judge_port_range("30000 65535", ""), Findings::default());
        let overlap = judge_port_range("1024 65535", "");
        assert_eq!(overlap.failures.len(), 2);
        assert!(overlap.failures[0].contains("sysctl -w"));
        assert_eq!(judge_port_range("15000 19999", "").failures.len(), 1);
        assert_eq!(judge_port_range("29999 60999", "").failures.len(), 1);
        assert_eq!(
            judge_port_range("1024 65535", "10000-19999,20000-29999"),
            Findings::default()
        );
        assert_eq!(
            judge_port_range("1024 65535", "10000-19998,20000-29999")
                .failures
                .len(),
            1
        );
        assert_eq!(
            judge_port_range("29998 60999", "29999, 29998"),
            Findings::default()
        );
        assert!(!judge_port_range("", "").failures.is_empty());
    }

    #[test]
    fn settings_of_a_good_host() {
        let good = Settings {
            somaxconn: Some(4096),
            overcommit: Some(1),
            huge_pages: Some("always madvise [never]\n".to_owned()),
            descriptors: vec![("dmcproxy".to_owned(), 65_536)],
            room: Some((PathBuf::from("/var/opt"), ROOM_ADVISED)),
        };
        assert_eq!(judge(&good), Findings::default());
        let poor = Settings {
            somaxconn: Some(128),
            overcommit: Some(0),
            huge_pages: Some("[always] madvise never".to_owned()),
            descriptors: vec![("dmcproxy".to_owned(), 1024)],
            room: Some((PathBuf::from("/var/opt"), ROOM_MIN)),
        };
        let findings = judge(&poor);
        assert_eq!((findings.failures.len(), findings.warnings.len()), (1, 4));
        for text in findings.failures.iter().chain(&findings.warnings) {
            assert!(
                ["sysctl", "echo never", "ulimit", "make room"]
                    .iter()
                    .any(|command| text.contains(command)),
                "{text}"
            );
        }
        assert!(!judge(&Settings::default()).failures.is_empty());
        let full = Settings {
            room: Some((PathBuf::from("/var/opt"), ROOM_MIN - 1)),
            ..good
        };
        assert_eq!(judge(&full).failures.len(), 1);
    }

    #[test]
    fn descriptor_limits() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files     \n";
        assert_eq!(hard_limit(text), Some(524_288));
        assert_eq!(
            hard_limit("Max open files 1 unlimited files"),
            Some(u64::MAX)
        );
        assert_eq!(hard_limit(""), None);
    }
}
