//! `cargo xtask fuzz`: libFuzzer looks for bytes for which a check does not hold (`fuzz/`).
//!
//! The flags are those of cargo-fuzz without a sanitizer, which the stable compiler knows, too: nothing else
//! has to be installed.

use anyhow::{Context as _, bail, ensure};
use std::path::Path;
use std::process::Command;

/// The targets of `fuzz/`.
const TARGETS: [&str; 5] = [
    "client_input",
    "backend_input",
    "merged_replies",
    "split_commands",
    "carried_clients",
];
/// Longest input, bytes.
const INPUT_MAX: u32 = 4096;
/// Longest time that one input may take, seconds.
const INPUT_SECONDS: u32 = 10;
/// Most memory of a target, MiB.
const MEMORY_MAX: u32 = 1024;
/// What makes a program count which branches it took.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0";
/// With a named target, build scripts are built without the flags.
const MACHINE: &str = "x86_64-unknown-linux-gnu";

/// Options of `fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which targets; all if none is named.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    targets: Vec<String>,
    /// How long each runs, seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

impl Options {
    /// All targets, a minute each.
    pub(crate) fn all() -> Self {
        Self {
            targets: Vec::new(),
            seconds: 60,
        }
    }
}

/// Builds the targets and runs them, each from the seeds and from what was found by earlier runs.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let build = root.join("target/fuzz");
    let seeds = build.join("seeds");
    let mut write = cargo(root, &build.join("plain"), "run");
    write.args(["--bin", "seeds", "--"]).arg(&seeds);
    finish(&mut write).context("write the seeds")?;
    let chosen = |target: &&&str| {
        options.targets.is_empty() || options.targets.iter().any(|t| t == **target)
    };
    let mut failed = Vec::new();
    for target in TARGETS.iter().filter(chosen) {
        let mut compile = cargo(root, &build, "build");
        compile
            .args(["--bin", target, "--target", MACHINE])
            .env("RUSTFLAGS", FLAGS);
        finish(&mut compile)?;
        println!("==> {target}: {} s", options.seconds);
        if !search(&build, target, &seeds, options.seconds)? {
            failed.push(*target);
        }
    }
    if !failed.is_empty() {
        bail!(
            "{} failed: run the program under target/fuzz/{MACHINE}/release with the file named above",
            failed.join(", ")
        );
    }
    Ok(())
}

fn cargo(root: &Path, target_folder: &Path, task: &str) -> Command {
    let mut command = Command::new("cargo");
    command
        .args([task, "--quiet", "--locked", "--release", "--manifest-path"])
        .arg(root.join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(target_folder);
    command
}

fn finish(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}

/// Runs a target; `false`: it found something, and said in which file that is.
fn search(build: &Path, target: &str, seeds: &Path, seconds: u32) -> anyhow::Result<bool> {
    let (corpus, found) = (
        build.join("corpus").join(target),
        build.join("found").join(target),
    );
    std::fs::create_dir_all(&corpus)?;
    std::fs::create_dir_all(&found)?;
    let status = Command::new(build.join(MACHINE).join("release").join(target))
        .arg(&corpus)
        .arg(seeds.join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MAX}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-verbosity=0"])
        .status()
        .with_context(|| format!("run {target}"))?;
    Ok(status.success())
}
