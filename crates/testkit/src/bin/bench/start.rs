//! `cargo xtask bench start [--quick] [--json FILE]`: how fast a cluster begins, and what it costs
//! while nobody uses it. Figures are medians of several rounds on this machine; see
//! `docs/benchmarks.md` for the conditions.

use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testkit::cluster::{ADMIN, Cluster, PASSWORD};
use testkit::report::{Report, median};

/// The demo of the benchmark: beside one that an operator has running.
const BASE: &str = "127.0.3.11";
/// Clock ticks of `/proc/<pid>/stat` in a second.
const TICKS: f64 = 100.0;

struct Options {
    quick: bool,
    json: Option<PathBuf>,
}

/// Measures.
pub(crate) fn main(words: &[String]) -> anyhow::Result<()> {
    run(&options(words)?)
}

fn options(words: &[String]) -> anyhow::Result<Options> {
    let mut words = words.iter();
    let mut options = Options {
        quick: false,
        json: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => options.quick = true,
            "--json" => options.json = Some(words.next().context("--json wants a file")?.into()),
            other => anyhow::bail!("unknown option {other}"),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::default();
    let rounds = if options.quick { 1 } else { 5 };
    report.condition("rounds", rounds);
    report.condition("profile", "dev (opt-level 1), as in the demo and the tests");
    report.condition("cores", std::thread::available_parallelism()?.get());
    report.condition(
        "kernel",
        std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
    );
    beginnings(&mut report, rounds)?;
    demo(&mut report, if options.quick { 5 } else { 30 })?;
    if let Some(path) = &options.json {
        report.write(path)?;
    }
    Ok(())
}

fn seconds(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

fn beginnings(report: &mut Report, rounds: u32) -> anyhow::Result<()> {
    let (mut create, mut join, mut database) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let cluster = Cluster::nodes(3)?;
        let words = [
            "cluster",
            "create",
            "name",
            "bench.local",
            "username",
            ADMIN,
            "password",
            PASSWORD,
        ];
        create.push(seconds(|| succeed(&cluster, 0, &words))?);
        for node in 1..3 {
            let words = cluster.join_words()?;
            join.push(seconds(|| succeed(&cluster, node, &words))?);
        }
        cluster.settled()?;
        let words = [
            "create",
            "db",
            "demo",
            "memory_size",
            "64MB",
            "proxy_policy",
            "all-nodes",
        ];
        database.push(seconds(|| succeed(&cluster, 0, &words))?);
    }
    report.at_most("cluster create", median(&create), "s", 2.0);
    report.at_most("cluster join", median(&join), "s", 3.0);
    report.at_most(
        "create db, served by three proxies",
        median(&database),
        "s",
        1.0,
    );
    Ok(())
}

fn succeed(cluster: &Cluster, node: usize, words: &[&str]) -> anyhow::Result<()> {
    let output = cluster.nodes[node].rladmin(words)?;
    ensure!(
        output.status.success(),
        "rladmin {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn demo_script(arguments: &[&str]) -> anyhow::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).unwrap_or(here);
    let status = Command::new(root.join("demo.sh"))
        .args(arguments)
        .args(["--base", BASE])
        .current_dir(root)
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "demo.sh {} failed", arguments.join(" "));
    Ok(())
}

fn demo(report: &mut Report, idle_seconds: u64) -> anyhow::Result<()> {
    // Once before, so that everything is built.
    demo_script(&["--exit"])?;
    let took = seconds(|| demo_script(&[]))?;
    report.at_most(
        "demo.sh, from a warm build to traffic and checks done",
        took,
        "s",
        30.0,
    );
    let result = measure(report, idle_seconds);
    demo_script(&["stop"])?;
    result
}

fn measure(report: &mut Report, idle_seconds: u64) -> anyhow::Result<()> {
    let node = PathBuf::from(format!("/var/tmp/mainstay-demo-{BASE}/node1"));
    let rladmin = find(&node, "current/bin/rladmin")?;
    let mut status = Vec::new();
    for _ in 0..10 {
        status.push(seconds(|| {
            let output = Command::new(&rladmin).arg("status").output()?;
            ensure!(output.status.success(), "rladmin status failed");
            Ok(())
        })?);
    }
    report.at_most("rladmin status", median(&status) * 1_000.0, "ms", 150.0);
    // The load has just ended: what is measured is a node that nobody uses.
    std::thread::sleep(Duration::from_secs(5));
    let processes = processes_of(&node);
    for (program, goal) in [("cnm_exec", 60.0), ("cnm_http", 40.0), ("dmcproxy", 20.0)] {
        let resident = processes
            .iter()
            .filter(|p| p.program == program)
            .map(|p| p.resident_mb)
            .fold(0.0, f64::max);
        report.at_most(
            &format!("{program}, resident and idle"),
            resident,
            "MB",
            goal,
        );
    }
    let before: f64 = processes.iter().map(|p| ticks(p.pid)).sum();
    std::thread::sleep(Duration::from_secs(idle_seconds));
    let after: f64 = processes.iter().map(|p| ticks(p.pid)).sum();
    let percent = (after - before) / TICKS / idle_seconds as f64 * 100.0;
    report.condition("processes of the idle node", processes.len());
    report.at_most("a whole idle node with one database", percent, "%", 2.0);
    Ok(())
}

fn find(below: &Path, suffix: &str) -> anyhow::Result<PathBuf> {
    let mut folders = vec![below.to_path_buf()];
    while let Some(folder) = folders.pop() {
        if folder.join(suffix).exists() {
            return Ok(folder.join(suffix));
        }
        for entry in std::fs::read_dir(&folder)?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    anyhow::bail!("no {suffix} below {}", below.display())
}

struct Process {
    pid: u32,
    program: String,
    resident_mb: f64,
}

/// Every process whose program, arguments or folder lie below a node's folder: daemons, supervisord,
/// engines.
fn processes_of(node: &Path) -> Vec<Process> {
    let node = node.display().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let text = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&text("cmdline")).into_owned();
        let link = |name: &str| {
            std::fs::read_link(entry.path().join(name))
                .unwrap_or_default()
                .display()
                .to_string()
        };
        let ours = [arguments, link("exe"), link("cwd")]
            .iter()
            .any(|t| t.contains(&node));
        if !ours || pid == std::process::id() {
            continue;
        }
        let status = String::from_utf8_lossy(&text("status")).into_owned();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        let program = link("exe")
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        found.push(Process {
            pid,
            program,
            resident_mb: resident.unwrap_or(0.0) / 1024.0,
        });
    }
    found
}

fn ticks(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let number = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    number(11) + number(12)
}
