//! `cargo xtask cluster`, `chaos` and `bench`: carried out by programs of `testkit`, which knows real nodes.

use anyhow::ensure;
use std::path::Path;
use std::process::Command;

/// Builds everything and runs a program of `testkit`.
pub(crate) fn run(root: &Path, program: &str, arguments: &[String]) -> anyhow::Result<()> {
    let build = Command::new("cargo")
        .args(["build", "--quiet", "--workspace"])
        .current_dir(root)
        .status()?;
    ensure!(build.success(), "the build failed");
    crate::engines::run(root)?;
    let status = Command::new(root.join("target/debug").join(program))
        .args(arguments)
        .current_dir(root)
        .status()?;
    ensure!(status.success(), "{program} {} failed", arguments.join(" "));
    Ok(())
}
