//! Facts of the host, read from `/proc`, `/etc/os-release` and the file systems. Cheap and
//! blocking for microseconds; what cannot be read stays empty or zero.

use model::node_config::NodeConfig;
use model::observation::HostFacts;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Looks at the host under a node.
#[must_use]
pub fn facts(node: &NodeConfig) -> HostFacts {
    let uname = rustix::system::uname();
    let release = os_release();
    let (total, free) = memory();
    let total_memory = node.memory_bytes.map_or(total, |limit| limit.min(total));
    let (persistent_size, persistent_free) = file_system(&node.persist_dir());
    let (ephemeral_size, ephemeral_free) = file_system(&node.tmp_dir());
    HostFacts {
        hostname: uname.nodename().to_string_lossy().into_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        os_family: release.get("ID").cloned().unwrap_or_default(),
        os_version: release.get("PRETTY_NAME").cloned().unwrap_or_default(),
        cores: std::thread::available_parallelism()
            .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        total_memory,
        free_memory: free.min(total_memory),
        persistent_size,
        persistent_free,
        ephemeral_size,
        ephemeral_free,
        uptime: uptime(),
        boot_id: boot_id(),
    }
}

/// Id of the host's current start.
#[must_use]
pub fn boot_id() -> String {
    crate::engine_process::boot_id().unwrap_or_default()
}

/// Memory of the host and what is free of it, bytes; the control group's limit if that is lower.
fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (total, free) = parse_meminfo(&text);
    match group_memory() {
        Some((limit, used)) if limit < total => (limit, free.min(limit.saturating_sub(used))),
        _ => (total, free),
    }
}

fn parse_meminfo(text: &str) -> (u64, u64) {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
            .map_or(0, |kib| kib.saturating_mul(1024))
    };
    (field("MemTotal"), field("MemAvailable"))
}

/// Limit and use of this process's control group (version 2), as containers set it.
fn group_memory() -> Option<(u64, u64)> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let number = |folder: &Path, file: &str| -> Option<u64> {
        fs::read_to_string(folder.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    // A limit of any group above counts too; the lowest one is the one that is felt.
    root.join(own)
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(|folder| {
            Some((
                number(folder, "memory.max")?,
                number(folder, "memory.current")?,
            ))
        })
        .min_by_key(|(limit, _)| *limit)
}

/// Size and free bytes of the file system under a folder, or under the nearest one that exists.
#[must_use]
pub fn file_system(folder: &Path) -> (u64, u64) {
    let found = folder
        .ancestors()
        .find_map(|folder| rustix::fs::statvfs(folder).ok());
    found.map_or((0, 0), |stat| {
        (
            stat.f_blocks.saturating_mul(stat.f_frsize),
            stat.f_bavail.saturating_mul(stat.f_frsize),
        )
    })
}

fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(['.', ' '])
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0)
}

fn os_release() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    parse_os_release(&text)
}

fn parse_os_release(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim().split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_system() {
        let text = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(parse_meminfo(text), (16_777_216, 8_388_608));
        assert_eq!(parse_meminfo(""), (0, 0));
        let release = parse_os_release("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n# x\n");
        assert_eq!(release["ID"], "debian");
        assert_eq!(release["PRETTY_NAME"], "Debian GNU/Linux 12");
    }

    #[test]
    fn folders_that_are_not_there_yet() {
        let (size, free) = file_system(Path::new("/no/such/folder"));
        assert!(size > 0 && free <= size);
    }
}
