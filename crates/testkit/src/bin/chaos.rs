//! `cargo xtask chaos --seconds N`: faults by a seeded schedule while clients write. Exit code 0 if no
//! rule was broken; with `--json FILE` if it ran: the file says what was broken.

use anyhow::Context as _;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use testkit::chaos::{Kind, Options, Story, run};
use testkit::report::Report;

const USAGE: &str = "usage: cargo xtask chaos [--seconds N | --quick] [--seed S] [--faults KIND,…|all] [--shards N]
    [--persistence WORD] [--json FILE]
without --seconds: a minute; --quick: a quarter of one
kinds: move, engine, engine-stop, proxy, proxy-stop, exec, exec-stop (these seven by default),
    node, node-stop, partition (each node in a network namespace, needs root), disk (a small tmpfs each, needs root),
    slow-disk, clock (Debian: faketime)
persistence: as in `rladmin create db`, for example aof-every-write; disabled by default";
/// Seconds of a run, and of a quick one.
const SECONDS: (u64, u64) = (60, 15);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match whole(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn whole(words: &[String]) -> anyhow::Result<bool> {
    let (options, json) = options(words)?;
    println!("seed {}: the same seed gives the same steps", options.seed);
    let story = run(&options)?;
    for finding in &story.verdict.findings {
        println!("BROKEN {:?}: {}", finding.rule, finding.text);
    }
    let report = report(&options, &story);
    let told = json.is_some();
    if let Some(path) = json {
        report.write(&path)?;
    }
    Ok(told || story.verdict.holds())
}

fn options(words: &[String]) -> anyhow::Result<(Options, Option<PathBuf>)> {
    let mut options = Options {
        length: Duration::from_secs(SECONDS.0),
        steps: None,
        seed: rand::random_range(0..1_000_000),
        kinds: Kind::LOCAL.to_vec(),
        database: Vec::new(),
        loud: true,
    };
    let (mut json, mut seconds, mut quick) = (None, None, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} wants a value"))
        };
        let mut create = |name: &str, value: &String| {
            options.database.extend([name.to_owned(), value.clone()]);
        };
        match word.as_str() {
            "--seconds" => seconds = Some(value()?.parse().context("--seconds wants a number")?),
            "--quick" => quick = true,
            "--seed" => options.seed = value()?.parse().context("--seed wants a number")?,
            "--faults" => options.kinds = kinds(value()?)?,
            "--shards" => create("shards_count", value()?),
            "--persistence" => create("persistence", value()?),
            "--json" => json = Some(value()?.into()),
            other => anyhow::bail!("unknown option {other}\n{USAGE}"),
        }
    }
    let seconds = seconds.unwrap_or(if quick { SECONDS.1 } else { SECONDS.0 });
    anyhow::ensure!(
        (1..=86_400).contains(&seconds),
        "--seconds takes 1 to 86400"
    );
    options.length = Duration::from_secs(seconds);
    Ok((options, json))
}

fn kinds(words: &str) -> anyhow::Result<Vec<Kind>> {
    match words {
        "all" => Ok(Kind::ALL.to_vec()),
        words => words.split(',').map(str::parse).collect(),
    }
}

fn report(options: &Options, story: &Story) -> Report {
    let mut report = Report::default();
    let kinds: Vec<String> = options.kinds.iter().map(Kind::to_string).collect();
    report.condition("seed", options.seed);
    report.condition("seconds", options.length.as_secs());
    report.condition("faults", kinds);
    report.condition("database", options.database.join(" "));
    report.condition("faults made", story.faults.len());
    report.condition("moves", story.moves);
    let verdict = &story.verdict;
    let broken: usize = verdict.counts.values().sum();
    let (acknowledged, faults) = (verdict.acknowledged as f64, story.faults.len() as f64);
    report.at_most("rules broken", broken as f64, "", 0.0);
    report.at_least("acknowledged appends", acknowledged, "", 1.0);
    report.at_least("faults made", faults, "", 1.0);
    // Asynchronous replication allows these; they are told, not judged.
    let lost = verdict.lost_to_failovers as f64;
    report.at_most(
        "acknowledged, and lost to failovers",
        lost,
        "",
        acknowledged,
    );
    let longest = story.longest.as_secs_f64();
    report.at_most(
        "longest from a fault until all was whole",
        longest,
        "s",
        60.0,
    );
    let answer = story.longest_answer.as_secs_f64();
    report.at_most("longest answer", answer, "s", 60.0);
    report.details(json!({
        "steps": story.steps,
        "findings": verdict.findings.iter()
            .map(|finding| format!("{:?}: {}", finding.rule, finding.text)).collect::<Vec<_>>(),
        "unknown": verdict.unknown, "not run": verdict.not_run, "closed": verdict.closed,
    }));
    report
}
