//! `cargo xtask sim`: more seeds of the controller's simulation than the tests run
//! (`crates/controller/tests/it/sim.rs`).

use anyhow::{Context as _, ensure};
use std::path::Path;
use std::process::Command;

/// Options of `sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many seeds, from 0.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// This seed alone, with its story.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs it.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args(["test", "--package", "controller", "--test", "it", "--"])
        .args(["--nocapture", "sim::invariants_hold"])
        .env("MAINSTAY_SIM_SEEDS", options.seeds.to_string());
    if let Some(seed) = options.seed {
        command.env("MAINSTAY_SIM_SEED", seed.to_string());
    }
    let status = command.status().context("start cargo")?;
    ensure!(status.success(), "an invariant does not hold: see above");
    Ok(())
}
