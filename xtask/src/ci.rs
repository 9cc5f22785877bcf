//! `cargo xtask ci`: everything that must be green, in the order in which it fails fastest.

use anyhow::{Context as _, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Options of `ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Also the soak.
    #[arg(long)]
    long: bool,
}

/// Runs all checks.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    step("format", || cargo(root, &["fmt", "--all", "--check"]))?;
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
    step("tests", || {
        cargo(
            root,
            &["nextest", "run", "--workspace", "--status-level", "slow"],
        )
    })?;
    step("clients", || script(root, "tests/clients/run.sh"))?;
    step("demo", || script(root, "tests/demo.sh"))?;
    if options.long {
        step("soak", || script(root, "tests/soak.sh"))?;
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

fn script(root: &Path, path: &str) -> anyhow::Result<()> {
    if !root.join(path).exists() {
        return Ok(());
    }
    let status = Command::new("bash").arg(path).current_dir(root).status()?;
    ensure!(status.success(), "{path} failed");
    Ok(())
}
