//! Processes: started so that they end with this one, and measured through `/proc`.

use anyhow::Context as _;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Clock ticks of `/proc/stat` in a second.
const TICKS: f64 = 100.0;

/// A process that is killed with this value, and by the kernel if this program is.
pub(crate) struct Guarded(Child);

impl Guarded {
    /// Starts a program made by [`program`]; what it says goes to a log file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Self(child))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command whose process the kernel kills when the thread that started it ends. `setpriv` becomes
/// the program, so the process stays the same.
pub(crate) fn program(path: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(path);
    command
}

pub(crate) fn pid(raw: u32) -> Option<Pid> {
    i32::try_from(raw).ok().and_then(Pid::from_raw)
}

fn threads(of: u32) -> Vec<u32> {
    let Ok(folder) = std::fs::read_dir(format!("/proc/{of}/task")) else {
        return Vec::new();
    };
    folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Processor time of a process, all its living threads, ns. A process that has ended and was not
/// waited for yet still counts.
pub(crate) fn cpu_ns(of: u32) -> u64 {
    threads(of)
        .into_iter()
        .filter_map(|thread| {
            let text =
                std::fs::read_to_string(format!("/proc/{of}/task/{thread}/schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}

/// What a process has used of processors, and by which threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    threads: Vec<u32>,
    ns: u64,
    /// The same with that of threads that have ended, to a hundredth of a second; ns.
    whole: u64,
}

impl Used {
    pub(crate) fn of(process: u32) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name, in brackets, may hold anything.
        let fields = text.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        Self {
            threads: threads(process),
            ns: cpu_ns(process),
            whole: ticks * (1e9 / TICKS) as u64,
        }
    }

    /// What it has used since then, ns. A worker may have ended meanwhile, and its time is not among that of the others.
    pub(crate) fn since(&self, then: &Self) -> u64 {
        match then
            .threads
            .iter()
            .all(|thread| self.threads.contains(thread))
        {
            true => self.ns.saturating_sub(then.ns),
            false => self.whole.saturating_sub(then.whole),
        }
    }
}

/// Resident memory, MB of 2^20 bytes.
pub(crate) fn resident_mb(of: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{of}/status")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok())
        .unwrap_or(f64::NAN)
        / 1024.0
}

/// Processor time of the whole machine, seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    /// In use.
    pub(crate) busy: f64,
    /// Taken by the host.
    pub(crate) steal: f64,
}

pub(crate) fn machine() -> Machine {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let at = |index: usize| fields.get(index).copied().unwrap_or(0.0) / TICKS;
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user.
    Machine {
        busy: at(0) + at(1) + at(2) + at(5) + at(6),
        steal: at(7),
    }
}

/// The processors that this process may use.
pub(crate) fn cores() -> anyhow::Result<CpuSet> {
    Ok(rustix::thread::sched_getaffinity(None)?)
}

/// Lets every thread of a process use these processors alone; `None`: the calling thread.
pub(crate) fn pin(process: Option<u32>, to: &CpuSet) -> anyhow::Result<()> {
    let Some(process) = process else {
        return Ok(sched_setaffinity(None, to)?);
    };
    for thread in threads(process) {
        sched_setaffinity(pid(thread), to).context("setting a thread's processors")?;
    }
    Ok(())
}

pub(crate) fn one_core(number: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(number);
    set
}

/// Raises the limit of descriptors to what may be had, for this process and those that it starts.
pub(crate) fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20).min(1 << 20);
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => most,
        Err(_) => limit.current.unwrap_or(1024),
    }
}
