//! One run of the load generator against one target.

use super::engine::tool;
use super::interrupt::Interrupt;
use super::loads::{Load, MGET_KEYS, Op, SCRIPT};
use super::options::Kind;
use super::processes::{self, Guarded};
use super::target::Target;
use anyhow::{Context as _, ensure};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::thread::CpuSet;
use serde::Serialize;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Longest run.
const LONGEST: Duration = Duration::from_secs(120);
/// What is read of the generator's output.
const OUTPUT_MAX: u64 = 64 * 1024;
/// Processors' worth of other processes or of the host above which a run counts as disturbed.
const DISTURBED: f64 = 0.35;

/// What a run showed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// CPU seconds per million requests: proxy, engines, load generator.
    pub(crate) cpu_proxy: f64,
    pub(crate) cpu_engine: f64,
    pub(crate) cpu_load: f64,
    /// Processors' worth of everything else, and of what the host took.
    pub(crate) foreign: f64,
    pub(crate) steal: f64,
}

impl Sample {
    pub(crate) fn disturbed(&self) -> bool {
        self.foreign + self.steal > DISTURBED
    }
}

/// The command line of the load generator.
fn generator(load: &Load, op: Op, target: &Target, requests: u64) -> Command {
    let mut command = tool("valkey-benchmark");
    command
        .args(["-h", &target.address.ip().to_string()])
        .args(["-p", &target.address.port().to_string()])
        .args(["-c", &load.clients.to_string()])
        .args(["-P", &load.pipeline.to_string()])
        .args(["-d", &load.bytes.to_string()])
        .args(["-r", &load.keys.to_string()])
        .args(["-n", &requests.to_string()])
        .arg("--csv");
    if target.kind == Kind::Cluster {
        command.args(["--cluster", "--threads", "1"]);
    }
    match op {
        Op::Set => command.args(["-t", "set"]),
        Op::Get => command.args(["-t", "get"]),
        Op::Mget => command
            .arg("MGET")
            .args(std::iter::repeat_n("key:__rand_int__", MGET_KEYS)),
        Op::Eval => command.args(["EVAL", SCRIPT, "1", "key:__rand_int__"]),
    };
    command
}

/// Where runs write, and what ends them.
pub(crate) struct Runner<'a> {
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) folder: &'a Path,
    /// Processors of this process.
    pub(crate) cores: &'a CpuSet,
}

impl Runner<'_> {
    /// Runs it once.
    pub(crate) fn run(&self, load: &Load, op: Op, target: &Target) -> anyhow::Result<Sample> {
        self.requests(load, op, target, load.requests)
            .with_context(|| format!("{} {} on {}", load.name, op.name(), target.kind.name()))
    }

    pub(crate) fn requests(
        &self,
        load: &Load,
        op: Op,
        target: &Target,
        requests: u64,
    ) -> anyhow::Result<Sample> {
        self.interrupt.check()?;
        let output = self.folder.join("generator.out");
        let _ = std::fs::remove_file(&output);
        let own_before = processes::cpu_ns(std::process::id());
        let proxy_before = target.proxy_used();
        let engines_before = target.engines_cpu_ns();
        let machine_before = processes::machine();
        let began = Instant::now();
        let mut process = self.start(load, &mut generator(load, op, target, requests), &output)?;
        let raw = process.pid();
        self.interrupt.begin(raw, LONGEST);
        let pid = processes::pid(raw).context("a process without a number")?;
        // It stays there as a zombie, so that its processor time can still be read.
        let waited = rustix::process::waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        );
        let seconds = began.elapsed().as_secs_f64();
        let load_ns = processes::Used::of(raw).since(&processes::Used::default());
        let late = self.interrupt.end();
        waited.context("waiting for the load generator")?;
        let machine = processes::machine();
        let proxy_ns = target.proxy_used().since(&proxy_before);
        let engines_ns = target.engines_cpu_ns() - engines_before;
        let own_ns = processes::cpu_ns(std::process::id()) - own_before;
        let status = process.child().wait()?;
        self.interrupt.check()?;
        ensure!(
            !late,
            "the load generator took more than {} s",
            LONGEST.as_secs()
        );
        let said = read(&output)?;
        ensure!(
            status.success(),
            "the load generator failed ({status}): {said}"
        );
        let (rate, p50, p99) = parse(&said)?;
        // ns per request / 1000 = µs per request = seconds per million requests.
        let per_request = |ns: u64| ns as f64 / 1_000.0 / requests as f64;
        let ours = (proxy_ns + engines_ns + load_ns + own_ns) as f64 / 1e9;
        let foreign = (machine.busy - machine_before.busy - ours) / seconds;
        Ok(Sample {
            rate,
            p50,
            p99,
            cpu_proxy: per_request(proxy_ns),
            cpu_engine: per_request(engines_ns),
            cpu_load: per_request(load_ns),
            foreign: foreign.max(0.0),
            steal: (machine.steal - machine_before.steal) / seconds,
        })
    }

    /// The generator inherits the processors of the thread that starts it.
    fn start(&self, load: &Load, command: &mut Command, output: &Path) -> anyhow::Result<Guarded> {
        if !load.pinned {
            return Guarded::start(command, output);
        }
        processes::pin(None, &processes::one_core(0))?;
        let started = Guarded::start(command, output);
        processes::pin(None, self.cores)?;
        started
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(OUTPUT_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Rate, p50 and p99 of the last line:
/// `"GET","166666.67","0.157","0.040","0.151","0.223","0.423","1.039"`: name, rate, then mean, least,
/// p50, p95, p99 and most in milliseconds.
fn parse(text: &str) -> anyhow::Result<(f64, f64, f64)> {
    let line = text.lines().rev().find(|line| line.starts_with('"'));
    let numbers: Vec<f64> = line
        .unwrap_or_default()
        .rsplit(',')
        .take(7)
        .filter_map(|field| field.trim_matches('"').parse().ok())
        .collect();
    match numbers[..] {
        [_, p99, _, p50, _, _, rate] if rate > 0.0 => Ok((rate, p50, p99)),
        _ => anyhow::bail!("the load generator's output is not understood: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_last_line_is_read_and_rubbish_is_an_error() {
        let text = "WARNING: no CONFIG\n\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
                    \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"GET\",\"166666.67\",\"0.157\",\"0.040\",\"0.151\",\"0.223\",\"0.423\",\"1.039\"\n";
        assert_eq!(parse(text).unwrap(), (166_666.67, 0.151, 0.423));
        assert!(parse("\"GET\",\"1\",\"2\"").is_err());
        assert!(parse("").is_err());
    }
}
