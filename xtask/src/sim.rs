//! `cargo xtask sim`: more seeds of the controller's simulation than the tests run
//! (`crates/controller/tests/it/sim.rs`).

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Seeds of a run, and of a quick one.
const SEEDS: (u64, u64) = (2_000, 200);

/// Options of `sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many seeds, from 0 [default: 2000].
    #[arg(long)]
    seeds: Option<u64>,
    /// As few seeds as the tests run.
    #[arg(long, conflicts_with = "seeds")]
    quick: bool,
    /// This seed alone, with its story.
    #[arg(long, conflicts_with_all = ["seeds", "quick"])]
    seed: Option<u64>,
    /// Write what was found here; then a broken invariant is no failure of the run.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let usual = if options.quick { SEEDS.1 } else { SEEDS.0 };
    let seeds = options.seeds.unwrap_or(usual);
    // Built first: what fails then is no invariant.
    let tests = ["test", "--package", "controller", "--test", "it"];
    let built = Command::new("cargo")
        .current_dir(root)
        .args(tests)
        .arg("--no-run")
        .status();
    ensure!(built.context("start cargo")?.success(), "the build failed");
    let told = tempfile::NamedTempFile::new()?;
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args(tests)
        .args(["--", "--nocapture", "sim::invariants_hold"])
        .env("MAINSTAY_SIM_SEEDS", seeds.to_string())
        .env("MAINSTAY_SIM_TOLD", told.path());
    if let Some(seed) = options.seed {
        command.env("MAINSTAY_SIM_SEED", seed.to_string());
    }
    let began = Instant::now();
    let status = command.status().context("start cargo")?;
    let Some(path) = &options.json else {
        ensure!(status.success(), "an invariant does not hold: see above");
        return Ok(());
    };
    let text = std::fs::read(told.path())?;
    let told = serde_json::from_slice(&text).context("the simulation did not come to its end")?;
    let report = report(options.seed, &told, began.elapsed().as_secs_f64());
    std::fs::write(path, serde_json::to_vec_pretty(&report)?)
        .with_context(|| path.display().to_string())
}

/// What the simulation told, in the form of the benchmarks: `{"conditions", "rows"}`.
fn report(seed: Option<u64>, told: &Value, seconds: f64) -> Value {
    let seeds = told["seeds"].as_f64().unwrap_or_default();
    let broken = told["broken"].as_array().map_or(0, Vec::len) as f64;
    json!({
        "conditions": { "seeds": told["seeds"], "seed": seed, "seconds": seconds },
        "rows": [
            { "name": "seeds with a broken invariant, or that did not heal", "value": broken,
              "unit": "", "goal": 0.0, "met": broken == 0.0 },
            { "name": "seeds simulated", "value": seeds, "unit": "", "goal": 1.0, "met": seeds >= 1.0 },
        ],
        "details": { "broken": told["broken"], "happened": told["happened"] },
    })
}

#[cfg(test)]
mod tests {
    use super::report;
    use serde_json::json;

    #[test]
    fn a_broken_seed_is_a_goal_that_is_missed() {
        let row = |broken: serde_json::Value| {
            let told = json!({ "seeds": 200, "broken": broken, "happened": { "made anew elsewhere": 30 } });
            let report = report(None, &told, 1.0);
            let row = &report["rows"][0];
            (row["value"].clone(), row["met"].clone())
        };
        assert_eq!(row(json!([])), (json!(0.0), json!(true)));
        let one = json!([{ "seed": 7, "why": "two primaries" }]);
        assert_eq!(row(one), (json!(1.0), json!(false)));
    }
}
