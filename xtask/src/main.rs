//! The project's task runner: `cargo xtask <task>`.

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod bench;
mod ci;
mod commands;
mod demo;
mod dist;
mod engines;
mod fix;
mod fuzz;
mod run_testkit;
mod sim;
mod tidy;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run everything that CI runs.
    Ci(ci::Options),
    /// Format, and write the generated files again.
    Fix,
    /// Check the rules that no compiler checks.
    Tidy,
    /// Fetch the engines named in packaging/engines.toml into target/engines.
    Engines,
    /// Read the engines' commands into crates/resp.
    Commands(commands::Options),
    /// Build the signed bundle `mainstay-<version>-linux-amd64.tar`.
    Dist(dist::Options),
    /// Nodes straight from the build folder: `up [--nodes N]`, `down`.
    Cluster {
        /// `up [--nodes N]` or `down`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Three nodes on this machine, from a bundle made here (demo.sh runs this).
    Demo(demo::Options),
    /// Look for input for which something does not hold that must (fuzz/).
    Fuzz(fuzz::Options),
    /// Simulate the controller's decisions under faults, with many seeds.
    Sim(sim::Options),
    /// Faults while clients write: `[--seconds N | --quick] [--faults KIND,…] [--seed S] [--json FILE]`.
    Chaos {
        /// `--help` shows all.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Figures: `start`, `proxy`, `moves` or `upgrade`, each with `[--quick] [--json FILE]`; `proxy --help` and `moves --help` show more.
    Bench {
        /// `start [--quick] [--json FILE]`, `proxy` or `moves` with the same and more,
        /// `planner [--quick] [--json FILE]`, `upgrade [--quick] [--rounds N] [--json FILE]`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

fn main() -> ExitCode {
    let root = repository();
    let result = match Arguments::parse().task {
        Task::Ci(options) => ci::run(&root, &options),
        Task::Fix => fix::run(&root),
        Task::Tidy => tidy::run(&root),
        Task::Engines => engines::run(&root),
        Task::Commands(options) => commands::run(&root, &options),
        Task::Dist(options) => dist::run(&root, &options),
        Task::Demo(options) => demo::run(&root, &options),
        Task::Fuzz(options) => fuzz::run(&root, &options),
        Task::Sim(options) => sim::run(&root, &options),
        Task::Cluster { arguments } => run_testkit::run(&root, "test-cluster", &arguments),
        Task::Chaos { arguments } => run_testkit::run(&root, "chaos", &arguments),
        Task::Bench { arguments } => match arguments.split_first() {
            Some((name, rest)) if name == "proxy" => bench::proxy(&root, rest),
            Some((name, rest)) if name == "upgrade" => bench::upgrade::run(&root, rest),
            Some((name, rest)) if name == "planner" => bench::planner(&root, rest),
            _ => run_testkit::run(&root, "bench", &arguments),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
