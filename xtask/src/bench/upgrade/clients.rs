//! The clients: 300 connections of this program, whose answers are timed one by one, 100 of redis-py, 200 of
//! node-redis, and 400 of valkey-benchmark. All but the last check what they wrote.

use crate::demo::load::{Load, Tally};
use crate::demo::node::Node;
use crate::engines::output_of;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections of this program to each endpoint, and how long each rests between a write with a read and the
/// next: 10,000 commands a second.
const OWN: (usize, Duration) = (100, Duration::from_millis(60));
/// Connections and commands a second of redis-py, and of node-redis.
const REDIS_PY: (&str, &str) = ("100", "2000");
const NODE_REDIS: (&str, &str) = ("200", "3000");
/// Connections of valkey-benchmark to each endpoint.
const BENCHMARK: [&str; 3] = ["134", "133", "133"];
/// valkey-benchmark cannot be told a rate: it is stopped and let go again.
const BENCHMARK_RUNS: Duration = Duration::from_millis(3);
const BENCHMARK_RESTS: Duration = Duration::from_millis(97);
/// How long a client may take to check what it wrote.
const CHECKED_WITHIN: Duration = Duration::from_secs(120);
/// Lines of a library's program that wait to be read.
const LINES_MAX: usize = 16;
/// How long the libraries' programs may take to connect.
const CONNECTED: Duration = Duration::from_secs(60);

/// What became of the clients of one kind.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Seen {
    /// Commands that were answered; 0: not counted.
    pub(super) commands: u64,
    /// Answers that are errors.
    pub(super) errors: u64,
    /// Connections that ended, or that are another than before.
    pub(super) dropped: u64,
    /// Acknowledged writes that are not there.
    pub(super) lost: u64,
    /// Writes that are there twice.
    pub(super) doubled: u64,
    /// Messages that subscribers got.
    pub(super) messages: u64,
    pub(super) messages_lost: u64,
    pub(super) messages_doubled: u64,
    pub(super) first_error: Option<String>,
}

impl From<&Tally> for Seen {
    fn from(tally: &Tally) -> Self {
        Self {
            commands: tally.requests,
            errors: tally.errors,
            dropped: tally.dropped,
            lost: tally.lost,
            first_error: tally.first_error.clone(),
            ..Self::default()
        }
    }
}

/// Traffic that runs.
pub(super) struct Clients {
    own: Load,
    libraries: Vec<Library>,
    benchmark: Benchmark,
}

impl Clients {
    pub(super) fn start(repository: &Path, endpoints: Vec<SocketAddr>) -> Result<Self> {
        let words: Vec<String> = endpoints.iter().map(SocketAddr::to_string).collect();
        let programs = repository.join("benches/upgrade");
        let cache = repository.join("target/clients");
        let python = cache.join("venv/bin/python");
        ensure!(
            python.exists() && cache.join("node/node_modules").exists(),
            "the client libraries are not in {}: run tests/clients/run.sh once",
            cache.display()
        );
        let mut redis_py = Command::new(python);
        redis_py
            .arg(programs.join("load.py"))
            .args([REDIS_PY.0, REDIS_PY.1]);
        let mut node_redis = Command::new("node");
        node_redis
            .env("MODULES", cache.join("node"))
            .arg("--no-warnings")
            .arg(programs.join("load.mjs"))
            .args([NODE_REDIS.0, NODE_REDIS.1]);
        let mut libraries = Vec::new();
        for (name, mut command) in [("redis-py", redis_py), ("node-redis", node_redis)] {
            libraries.push(Library::start(name, command.args(&words))?);
        }
        let benchmark = Benchmark::start(repository, &endpoints)?;
        let own = Load::start(endpoints, OWN.0, OWN.1)?;
        let deadline = Instant::now() + CONNECTED;
        for library in &mut libraries {
            library.wait_connected(deadline)?;
        }
        Ok(Self {
            own,
            libraries,
            benchmark,
        })
    }

    /// Longest answer of each of this program's connections since this was asked last, µs.
    pub(super) fn take_longest(&self) -> Vec<u64> {
        self.own.take_longest()
    }

    /// Ends the traffic, and has every client check what it wrote.
    pub(super) fn end(self) -> Result<Vec<(&'static str, Seen)>> {
        let mut seen = vec![("valkey-benchmark", self.benchmark.end())];
        seen.push(("own", Seen::from(&self.own.end()?)));
        for library in self.libraries {
            seen.push((library.name, library.end()?));
        }
        Ok(seen)
    }
}

/// The program of a client library. It says when it has connected, and at its end what it saw.
struct Library {
    name: &'static str,
    child: Child,
    /// Its lines.
    said: Receiver<String>,
}

impl Library {
    fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let output = child.stdout.take().context("it has no output")?;
        let (sender, said) = sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody hears of it who has given up.
                let _ = sender.send(line);
            }
        });
        Ok(Self { name, child, said })
    }

    fn wait_connected(&mut self, deadline: Instant) -> Result<()> {
        let name = self.name;
        let left = deadline.saturating_duration_since(Instant::now());
        match self.said.recv_timeout(left).as_deref() {
            Ok("connected") => Ok(()),
            Ok(line) => bail!("{name} said '{line}' instead of that it has connected"),
            Err(RecvTimeoutError::Timeout) => {
                let _ = self.child.kill();
                bail!("{name} has not connected within {CONNECTED:?}")
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                bail!("{name} ended before it had begun: {status}")
            }
        }
    }

    fn end(mut self) -> Result<Seen> {
        let name = self.name;
        // The end of its input is its end.
        drop(self.child.stdin.take());
        let line = match self.said.recv_timeout(CHECKED_WITHIN) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => String::new(),
            Err(RecvTimeoutError::Timeout) => {
                let _ = self.child.kill();
                bail!("{name} does not end");
            }
        };
        self.child.wait()?;
        serde_json::from_str(&line).with_context(|| format!("{name} said '{line}'"))
    }
}

/// valkey-benchmark, once for each endpoint.
struct Benchmark {
    end: Arc<AtomicBool>,
    rate: JoinHandle<Seen>,
}

impl Benchmark {
    fn start(repository: &Path, endpoints: &[SocketAddr]) -> Result<Self> {
        let folder = folder(repository)?;
        let program = folder.join(PROGRAM);
        let mut children = Vec::new();
        for (endpoint, connections) in endpoints.iter().zip(BENCHMARK) {
            let child = Command::new(&program)
                .args([
                    "-h",
                    &endpoint.ip().to_string(),
                    "-p",
                    &endpoint.port().to_string(),
                ])
                .args([
                    "-c",
                    connections,
                    "-n",
                    "2000000000",
                    "-r",
                    "20000",
                    "-d",
                    "64",
                ])
                .args(["-t", "set", "-q"])
                .env("LD_LIBRARY_PATH", folder.join("lib"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start valkey-benchmark")?;
            children.push(child);
        }
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        let rate = std::thread::spawn(move || hold_back(children, &ends));
        Ok(Self { end, rate })
    }

    /// It ends by itself only when a connection is lost, or an answer is an error.
    fn end(self) -> Seen {
        self.end.store(true, Ordering::Relaxed);
        self.rate.join().unwrap_or_else(|_| Seen {
            errors: 1,
            first_error: Some("the thread that holds it back broke down".to_owned()),
            ..Seen::default()
        })
    }
}

const PROGRAM: &str = "bin/valkey-benchmark";

/// The newest engine that has valkey-benchmark.
fn folder(repository: &Path) -> Result<PathBuf> {
    let folder = repository.join("target/engines");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|engine| engine.join(PROGRAM).exists())
        .collect();
    found.sort();
    found
        .pop()
        .context("no engine in target/engines has valkey-benchmark: run cargo xtask engines")
}

fn hold_back(mut children: Vec<Child>, end: &AtomicBool) -> Seen {
    use rustix::process::Signal;
    let mut seen = Seen::default();
    let signal = |children: &[Child], what| {
        for child in children {
            let pid = i32::try_from(child.id())
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, what);
            }
        }
    };
    while !end.load(Ordering::Relaxed) {
        signal(&children, Signal::CONT);
        std::thread::sleep(BENCHMARK_RUNS);
        signal(&children, Signal::STOP);
        std::thread::sleep(BENCHMARK_RESTS);
        children.retain_mut(|child| match child.try_wait() {
            Ok(Some(status)) => {
                seen.errors += 1;
                seen.first_error = Some(format!("valkey-benchmark ended with {status}"));
                false
            }
            _ => true,
        });
    }
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
    seen
}

/// How many commands the database's engine has carried out so far.
pub(super) fn commands_of_engine(node: &Node) -> Result<u64> {
    let said = output_of(Command::new(node.program("redis-cli")).args([
        "-h",
        &node.address.to_string(),
        "-p",
        &crate::demo::PORT.to_string(),
        "INFO",
        "stats",
    ]))?;
    said.lines()
        .find_map(|line| line.trim().strip_prefix("total_commands_processed:"))
        .and_then(|count| count.parse().ok())
        .context("the database does not say how many commands it carried out")
}
