//! Processes as the kernel shows them.

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal to a process that this test started.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

/// Stops a process that this test started, with all its threads.
pub fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    super::until("it has stopped", || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let stopped = |thread: std::io::Result<std::fs::DirEntry>| {
            let status = thread.map(|thread| thread.path().join("status"));
            let status = status.and_then(std::fs::read_to_string);
            status.is_ok_and(|status| status.contains("State:\tT"))
        };
        threads.into_iter().all(stopped)
    });
}

/// Whether it runs (a zombie does not).
pub fn runs(pid: u32) -> bool {
    status(pid, "State:").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// Resident memory, bytes; `field` is `VmRSS:` or `VmHWM:`.
pub fn memory(pid: u32, field: &str) -> u64 {
    let text = status(pid, field).unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|kb| kb.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// Children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(folder) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| status(*pid, "PPid:").is_some_and(|text| text == parent.to_string()))
        .collect()
}

/// Processor time that it has used, in ticks of the kernel.
pub fn cpu_ticks(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = text.rsplit(')').next().unwrap_or_default();
    after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum()
}

fn status(pid: u32, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().to_owned())
}

/// Raises this process's descriptor limit. The test fails if the machine does not allow so many.
pub fn need_descriptors(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(
        most >= count,
        "this test needs {count} descriptors, the limit is {most}: raise it with ulimit -n"
    );
    let current = Some(limit.current.unwrap_or(most).max(count));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current,
            maximum: limit.maximum,
        },
    )
    .unwrap();
}

/// How many descriptors the kernel has made room for.
pub fn descriptor_table(pid: u32) -> usize {
    let size = status(pid, "FDSize:").unwrap_or_default();
    size.trim().parse().unwrap_or(0)
}
