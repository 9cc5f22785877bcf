//! Start, recognise, signal and reap an engine process.
//!
//! A pid alone proves nothing: it may have been given to another process. What counts is a pidfd
//! opened while start time, host start and program agreed with the ledger, and the lock that the
//! engine holds through its stdin.

use crate::ledger::ProcessRecord;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What `/proc/<pid>/stat` says of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ProcessStat {
    /// `R`, `S`, `D`, `T`, `Z` …
    pub(crate) state: char,
    /// Its process group.
    pub(crate) group: u32,
    /// Clock ticks from the host's start to its own.
    pub(crate) start_time: u64,
    /// Clock ticks that it computed, in user and kernel mode.
    pub(crate) cpu_ticks: u64,
}

impl ProcessStat {
    /// Reads it; `None` when there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(line: &str) -> Option<Self> {
        // The name, field 2, may hold blanks and parentheses: what counts comes after the last one.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            group: u32::try_from(number(5)?).ok()?,
            start_time: number(22)?,
            cpu_ticks: number(14)?.saturating_add(number(15)?),
        })
    }

    /// Whether it has ended, though nobody took note yet.
    pub(crate) fn is_dead(self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The program of a process, as it was when it started.
pub(crate) fn executable_of(pid: u32) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let text = path.to_str()?;
    // Its release may have been pruned or repaired meanwhile.
    Some(PathBuf::from(
        text.strip_suffix(" (deleted)").unwrap_or(text),
    ))
}

/// Id of the host's current start.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// What an engine is started with.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The program, links resolved.
    pub(crate) executable: PathBuf,
    /// Its libraries.
    pub(crate) library_dir: PathBuf,
    /// Its configuration.
    pub(crate) config: PathBuf,
    /// The shard's folder.
    pub(crate) folder: PathBuf,
    /// File for its output.
    pub(crate) log: PathBuf,
    /// The shard's lock, taken.
    pub(crate) lock: File,
}

impl Launch {
    /// Starts the process. It has the lock as its stdin, a log file as its output, its own process
    /// group and nothing of our environment, so that it lives on when we do not.
    pub(crate) fn start(self) -> io::Result<u32> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&self.log)?;
        let mut command = Command::new(&self.executable);
        command
            .arg(&self.config)
            .current_dir(&self.folder)
            .env_clear()
            .stdin(Stdio::from(self.lock))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .process_group(0);
        if self.library_dir.is_dir() {
            command.env("LD_LIBRARY_PATH", &self.library_dir);
        }
        // Tests set the clocks of a node with faketime, its engines' too.
        if cfg!(debug_assertions) && std::env::var_os("FAKETIME_TIMESTAMP_FILE").is_some() {
            let of_clock = |name: &str| name == "LD_PRELOAD" || name.starts_with("FAKETIME_");
            let all = std::env::vars_os();
            command.envs(all.filter(|(name, _)| name.to_str().is_some_and(of_clock)));
        }
        Ok(command.spawn()?.id())
    }
}

/// Why a recorded process is not adopted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum NotAdopted {
    /// It is gone, or what is there is not it.
    Other(String),
    /// It could not be looked at: it may be there.
    Unseen(String),
}

/// A living engine process. Dropping it leaves the process alone.
#[derive(Debug)]
pub(crate) struct EngineProcess {
    pid: u32,
    group: u32,
    pidfd: AsyncFd<OwnedFd>,
}

impl EngineProcess {
    /// Holds on to a process that was just started, or found by its lock.
    pub(crate) fn open(pid: u32, group: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let pidfd = pidfd_open(raw, PidfdFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of types that may exchange or close \
                      their descriptor while registered; an OwnedFd behind AsyncFd cannot"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        Ok(Self { pid, group, pidfd })
    }

    /// Recognises a process that was started by an agent before this one.
    ///
    /// # Errors
    /// Why that is not the recorded process, or that it cannot be looked at.
    pub(crate) fn adopt(record: &ProcessRecord, boot_id: &str) -> Result<Self, NotAdopted> {
        let pid = record.pid;
        let other = |why: String| Err(NotAdopted::Other(why));
        if record.boot_id != boot_id {
            return other(format!("process {pid} was started before the host was"));
        }
        let process = match Self::open(pid, record.process_group) {
            Ok(process) => process,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                return other(format!("process {pid} is gone"));
            }
            Err(error) => return Err(NotAdopted::Unseen(format!("process {pid}: {error}"))),
        };
        // Only now, with the pidfd in hand: the pid cannot change its owner between.
        let Some(stat) = ProcessStat::of(pid) else {
            let why = format!("process {pid} cannot be looked at");
            return Err(NotAdopted::Unseen(why));
        };
        if stat.is_dead() {
            process.reap();
            return other(format!("process {pid} is dead, its parent has not noticed"));
        }
        if stat.start_time != record.start_time {
            return other(format!(
                "pid {pid} belongs to a process that was started later"
            ));
        }
        match executable_of(pid) {
            Some(path) if path == record.executable => Ok(process),
            Some(path) => other(format!(
                "process {pid} runs {} instead of {}",
                path.display(),
                record.executable.display()
            )),
            None => {
                let why = format!("the program of process {pid} cannot be read");
                Err(NotAdopted::Unseen(why))
            }
        }
    }

    /// Its id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it has ended, a zombie included.
    pub(crate) async fn ended(&self) {
        if let Err(error) = self.pidfd.readable().await {
            // Only when the runtime shuts down.
            tracing::debug!("pidfd of process {}: {error}", self.pid);
            std::future::pending::<()>().await;
        }
    }

    /// Waits until it has ended; `false` after the time-out.
    pub(crate) async fn ends_within(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.ended()).await.is_ok()
    }

    /// Takes note of its end, if it is our child, and says how it ended.
    pub(crate) fn reap(&self) -> Option<String> {
        let fd = self.pidfd.get_ref().as_fd();
        let status = waitid(
            WaitId::PidFd(fd),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        let status = status.ok().flatten()?;
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Some(format!("exit status {code}")),
            (None, Some(signal)) => Some(format!("signal {signal}")),
            (None, None) => None,
        }
    }

    /// Sends a signal to this very process.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = pidfd_send_signal(self.pidfd.get_ref(), signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!("signal {signal:?} to process {}: {error}", self.pid);
        }
    }

    /// Kills it and its fork children.
    pub(crate) fn kill_group(&self) {
        // While the leader is not reaped, nobody else can get its group's number.
        if ProcessStat::of(self.pid).is_some_and(|stat| stat.group == self.group) {
            kill_group(self.group);
        }
        self.signal(Signal::KILL);
    }
}

fn kill_group(group: u32) {
    let own = rustix::process::getpgrp();
    let raw = i32::try_from(group).ok().and_then(Pid::from_raw);
    if let Some(raw) = raw.filter(|raw| *raw != Pid::INIT && *raw != own) {
        // ESRCH: the last of them has just ended.
        let _ = kill_process_group(raw, Signal::KILL);
    }
}

/// Processes that have a shard's lock as their stdin: its engine and fork children of it.
pub(crate) fn lock_holders(lock: &Path) -> io::Result<Vec<u32>> {
    let wanted = match fs::metadata(lock) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut holders = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stdin) = fs::metadata(format!("/proc/{pid}/fd/0")) else {
            continue;
        };
        if stdin.dev() == wanted.dev() && stdin.ino() == wanted.ino() {
            holders.push(pid);
        }
    }
    Ok(holders)
}

/// Whether those that hold a shard's lock are all fork children of the recorded process: members of the
/// group that it led, which none of them does. They serve nobody.
pub(crate) fn only_children_hold(lock: &Path, record: &ProcessRecord) -> io::Result<bool> {
    let holders = lock_holders(lock)?;
    let is_child = |pid: &u32| {
        let stat = ProcessStat::of(*pid);
        *pid != record.process_group && stat.is_none_or(|s| s.group == record.process_group)
    };
    Ok(!holders.is_empty() && holders.iter().all(is_child))
}

/// Kills what holds a shard's lock: an engine that could not be recognised, or fork children of a
/// dead one. `group` is the recorded process group; it is killed as a whole if one of the holders
/// belongs to it, which proves that its number was not given to others.
pub(crate) fn kill_lock_holders(lock: &Path, group: Option<u32>) -> io::Result<Vec<u32>> {
    let holders = lock_holders(lock)?;
    for &pid in &holders {
        let Ok(holder) = EngineProcess::open(pid, 0) else {
            continue;
        };
        // Again with the pidfd in hand, so that the signal cannot hit a later owner of the pid.
        if !lock_holders_contains(lock, pid) {
            continue;
        }
        let own_group = ProcessStat::of(pid).map(|stat| stat.group);
        if own_group.is_some() && own_group == group {
            kill_group(group.unwrap_or_default());
        }
        holder.signal(Signal::KILL);
    }
    Ok(holders)
}

fn lock_holders_contains(lock: &Path, pid: u32) -> bool {
    let same = |a: fs::Metadata, b: fs::Metadata| a.dev() == b.dev() && a.ino() == b.ino();
    match (
        fs::metadata(lock),
        fs::metadata(format!("/proc/{pid}/fd/0")),
    ) {
        (Ok(lock), Ok(stdin)) => same(lock, stdin),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_process_with_a_hostile_name() {
        let line = "77 (a) R 1 (b) S 1 70 70 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 5 0 123456 9 9";
        let stat = ProcessStat::parse(line).unwrap();
        assert_eq!(
            stat,
            ProcessStat {
                state: 'S',
                group: 70,
                start_time: 123_456,
                cpu_ticks: 110
            }
        );
        assert!(ProcessStat::parse("77 (a").is_none());
        assert!(ProcessStat::parse("77 (a) S 1").is_none());
    }

    #[test]
    fn own_stat() {
        let stat = ProcessStat::of(std::process::id()).unwrap();
        assert!(!stat.is_dead() && stat.start_time > 0);
    }
}
