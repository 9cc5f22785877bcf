//! `cargo xtask ci`: everything that must be green, in the order in which it fails fastest.

use anyhow::{Context as _, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// First address of the demo that CI runs: beside one that somebody has running.
const DEMO_BASE: &str = "127.0.4.11";
/// How many of the slowest tests are named.
const SLOWEST: usize = 20;

/// Options of `ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Also the soak, and a minute of each fuzz target.
    #[arg(long)]
    long: bool,
}

/// Runs all checks.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    step("format", || {
        cargo(root, &["fmt", "--all", "--check"])?;
        apart(root, &["fmt", "--check"])
    })?;
    step("tidy", || crate::tidy::run(root))?;
    step("lints", || {
        cargo(
            root,
            &[
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ],
        )
    })?;
    step("build", || {
        cargo(root, &["build", "--quiet", "--workspace", "--all-targets"])
    })?;
    step("generated files", || crate::fix::check(root))?;
    step("engines", || crate::engines::run(root))?;
    let last = crate::dist::release::last(root)?;
    step("the last release, from its commit", || {
        crate::dist::released(root, &last)
    })?;
    let tests = step("tests", || {
        cargo(
            root,
            &["nextest", "run", "--workspace", "--status-level", "fail"],
        )
    });
    slowest(root)?;
    tests?;
    step("clients", || script(root, "tests/clients/run.sh", &[]))?;
    // An upgrade starts the demo where there is none: both are run. Node by node it is the installer's tests'.
    step("demo and upgrade", || {
        script(
            root,
            "demo.sh",
            &[
                "upgrade",
                "--orchestrated",
                "--released",
                "--exit",
                "--base",
                DEMO_BASE,
            ],
        )
    })?;
    if options.long {
        step("lints of what is built apart", || {
            apart(root, &["clippy", "--quiet", "--locked"])
        })?;
        step("fuzz", || {
            crate::fuzz::run(root, &crate::fuzz::Options::all())
        })?;
        step("soak", || script(root, "tests/soak.sh", &[]))?;
    }
    println!("==> all checks passed in {} s", began.elapsed().as_secs());
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    println!("==> {name}");
    let began = Instant::now();
    work().with_context(|| format!("{name} failed"))?;
    println!("    {name}: {} s", began.elapsed().as_secs());
    Ok(())
}

fn cargo(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(arguments)
        .current_dir(root)
        .status()?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}

/// Runs a task of Cargo on the packages that are no members of the workspace, with build folders of their own.
fn apart(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    for (package, build) in [
        ("tests/clients/rust", "target/clients/rust"),
        ("fuzz", "target/fuzz/plain"),
    ] {
        let status = Command::new("cargo")
            .args(arguments)
            .current_dir(root.join(package))
            .env("CARGO_TARGET_DIR", root.join(build))
            .status()?;
        ensure!(
            status.success(),
            "cargo {} failed in {package}",
            arguments.join(" ")
        );
    }
    Ok(())
}

fn script(root: &Path, path: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(root.join(path))
        .args(arguments)
        .current_dir(root)
        .status()?;
    ensure!(status.success(), "{path} failed");
    Ok(())
}

/// Prints the slowest tests, from the report that nextest wrote.
fn slowest(root: &Path) -> anyhow::Result<()> {
    let report = std::fs::read_to_string(root.join("target/nextest/default/junit.xml"))
        .context("read the report of the tests")?;
    let mut tests: Vec<(f64, String)> = report
        .split("<testcase ")
        .skip(1)
        .filter_map(|case| {
            let field = |name: &str| {
                let rest = case.split_once(&format!("{name}=\""))?.1;
                Some(rest.split_once('"')?.0.to_owned())
            };
            let name = format!("{} {}", field("classname")?, field("name")?);
            Some((field("time")?.parse().ok()?, name))
        })
        .collect();
    tests.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("    the slowest of {} tests, seconds:", tests.len());
    for (seconds, name) in tests.iter().take(SLOWEST) {
        println!("    {seconds:>8.1}  {name}");
    }
    Ok(())
}
