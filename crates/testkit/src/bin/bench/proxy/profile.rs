//! Where the time of dmcproxy goes: samples by perf, instruction counts by callgrind. Text files
//! beside the JSON file.

use super::loads::{Load, Op};
use super::options::{Kind, Options};
use super::processes::{self, Guarded, program};
use super::run::Runner;
use super::target::{Place, Target};
use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(60);
/// Requests under callgrind, which is about fifty times slower, for each command of a pipeline.
const COUNTED: u64 = 20_000;
/// Most lines of a perf report.
const LINES: usize = 200;

/// Instructions of dmcproxy's own code; the kernel's are not counted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Count {
    load: &'static str,
    command: &'static str,
    instructions_a_request: f64,
}

/// Profiles every load.
pub(crate) fn all(
    runner: &Runner<'_>,
    place: &Place,
    options: &Options,
    loads: &[Load],
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Count>> {
    let perf = options.profile && perf_works(place.folder.path());
    let callgrind = options.callgrind || (options.profile && !perf);
    if options.profile && !perf {
        notes.push("profile: perf does not work here".to_owned());
    }
    let mut counts = Vec::new();
    println!();
    for load in loads.iter().filter(|load| !load.pinned) {
        if perf {
            sampled(runner, place, options, load)?;
        }
        if !callgrind {
            continue;
        }
        for op in load.ops {
            runner.interrupt.check()?;
            match counted(runner, place, options, load, *op) {
                Ok(count) => counts.push(count),
                Err(error) => {
                    runner.interrupt.check()?;
                    println!("callgrind: {error:#}");
                    notes.push(format!("callgrind on {}: {error:#}", load.name));
                    return Ok(counts);
                }
            }
        }
    }
    Ok(counts)
}

/// Whether perf can take samples of the processor's clock.
fn perf_works(folder: &Path) -> bool {
    Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-o"])
        .arg(folder.join("try.data"))
        .args(["--", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A file beside the JSON file: `proxy.json` → `proxy.p16.perf.txt`.
fn beside(options: &Options, ending: &str) -> PathBuf {
    match &options.json {
        Some(json) => json.with_extension(ending),
        None => options.folder.join(format!("proxy.{ending}")),
    }
}

fn sampled(
    runner: &Runner<'_>,
    place: &Place,
    options: &Options,
    load: &Load,
) -> anyhow::Result<()> {
    let mut target = Target::start(Kind::Ours, load.shards, place, options, None)?;
    target.fill(load.keys, load.bytes)?;
    let folder = place.folder.path();
    let data = folder.join("perf.data");
    let _ = std::fs::remove_file(&data);
    let log = folder.join("perf.log");
    let pid = target.proxy_pid().context("the proxy has no process")?;
    let mut perf = program(Path::new("perf"));
    perf.args([
        "record",
        "-e",
        "cpu-clock",
        "-F",
        "997",
        "-g",
        "-p",
        &pid.to_string(),
        "-o",
    ])
    .arg(&data);
    let mut perf = Guarded::start(&mut perf, &log)?;
    testkit::wait::until("perf begins", WAIT, || {
        if perf.ended() {
            return Err(std::fs::read_to_string(&log).unwrap_or_default());
        }
        let begun = std::fs::metadata(&data).is_ok_and(|found| found.len() > 0);
        if begun {
            Ok(())
        } else {
            Err("no file".to_owned())
        }
    })?;
    for op in load.ops {
        // Longer than a measured run, for enough samples.
        runner.requests(load, *op, &target, load.requests * 3)?;
    }
    if let Some(pid) = processes::pid(perf.pid()) {
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    }
    testkit::wait::until("perf writes its file", WAIT, || {
        if perf.ended() {
            Ok(())
        } else {
            Err("it runs".to_owned())
        }
    })?;
    write_report(options, load, &data)
}

/// By function, then with what each calls: the second is whole for the kernel's part alone, since the
/// program has no frame pointers.
fn write_report(options: &Options, load: &Load, data: &Path) -> anyhow::Result<()> {
    let flat = report(
        data,
        &["--no-children", "-g", "none", "-F", "overhead,dso,sym"],
    )?;
    let callers = report(
        data,
        &[
            "--children",
            "-g",
            "none",
            "-F",
            "overhead_children,overhead,sym",
        ],
    )?;
    let path = beside(options, &format!("{}.perf.txt", load.name));
    std::fs::write(
        &path,
        format!(
            "{}: own time\n{flat}\nwith what it calls\n{callers}",
            load.shown
        ),
    )
    .with_context(|| path.display().to_string())?;
    println!("profile of {}: {}", load.name, path.display());
    for line in flat.lines().filter(|line| line.contains('%')).take(10) {
        println!("  {}", line.trim());
    }
    Ok(())
}

fn report(data: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("perf")
        .args(["report", "--stdio", "--percent-limit", "0.2", "-i"])
        .arg(data)
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    ensure!(
        output.status.success(),
        "perf report: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    Ok(lines
        .take(LINES)
        .map(|line| format!("{}\n", line.trim_end()))
        .collect())
}

fn counted(
    runner: &Runner<'_>,
    place: &Place,
    options: &Options,
    load: &Load,
    op: Op,
) -> anyhow::Result<Count> {
    let out = place.folder.path().join("callgrind.out");
    let _ = std::fs::remove_file(&out);
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()));
    let mut target = Target::start(Kind::Ours, load.shards, place, options, Some(&valgrind))
        .context("is valgrind installed?")?;
    // Few keys: filling is counted in the file too, and the engine's memory does not matter here.
    let mut load = load.clone();
    load.keys = load.keys.min(1_000);
    target.fill(load.keys, load.bytes)?;
    let before = so_far(target.proxy_pid().context("the proxy has no process")?)?;
    let requests = (COUNTED * u64::from(load.pipeline).min(16)).min(load.requests);
    runner.requests(&load, op, &target, requests)?;
    target.stop_proxy(WAIT)?;
    let text = Command::new("callgrind_annotate").arg(&out).output()?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let instructions = (total(&text)? - before) / requests as f64;
    let ending = format!("{}.{}.callgrind.txt", load.name, op.name().to_lowercase());
    let path = beside(options, &ending);
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    println!(
        "{} {}: {instructions:.0} instructions a request, {}",
        load.name,
        op.name(),
        path.display()
    );
    Ok(Count {
        load: load.name,
        command: op.name(),
        instructions_a_request: instructions,
    })
}

/// What callgrind has counted of a process so far. Setting its counters back would be simpler, but from
/// then on it takes all functions for one.
fn so_far(pid: u32) -> anyhow::Result<f64> {
    let output = Command::new("callgrind_control")
        .args(["-e", &pid.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("starting callgrind_control")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let counts: Vec<f64> = text.lines().filter_map(of_thread).collect();
    ensure!(
        output.status.success() && !counts.is_empty(),
        "callgrind_control: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(counts.iter().sum())
}

/// `   Th 1  300,266`.
fn of_thread(line: &str) -> Option<f64> {
    let (_, count) = line.trim().strip_prefix("Th ")?.split_once(' ')?;
    count.trim().replace(',', "").parse().ok()
}

/// The total of a file of `callgrind_annotate`: `12,345,678 (100.0%)  PROGRAM TOTALS`.
fn total(text: &str) -> anyhow::Result<f64> {
    let line = text.lines().find(|line| line.contains("PROGRAM TOTALS"));
    let number: String = line
        .unwrap_or_default()
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ',')
        .filter(char::is_ascii_digit)
        .collect();
    match number.parse() {
        Ok(total) => Ok(total),
        Err(_) => bail!("callgrind_annotate gave no total: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{of_thread, total};

    #[test]
    fn a_total_is_read() {
        let text = "Ir\n----\n12,345,678 (100.0%)  PROGRAM TOTALS\n";
        assert_eq!(total(text).unwrap(), 12_345_678.0);
        assert!(total("nothing").is_err());
        assert_eq!(of_thread("   Th 1  300,266 "), Some(300_266.0));
        assert_eq!(of_thread("  Totals:     Ir "), None);
    }
}
