//! `cargo xtask fix`: formats, and writes the generated files again. `ci` only compares them.

use anyhow::{Context as _, ensure};
use model::ErrorCode;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// Writes.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(["fmt", "--all"])
        .current_dir(root)
        .status()?;
    ensure!(status.success(), "cargo fmt failed");
    let build = Command::new("cargo")
        .args(["build", "--workspace"])
        .current_dir(root)
        .status()?;
    ensure!(build.success(), "the build failed");
    for (path, text) in generated(root)? {
        std::fs::write(root.join(path), text).with_context(|| format!("write {path}"))?;
    }
    Ok(())
}

/// Compares.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    for (path, text) in generated(root)? {
        let there = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        ensure!(
            there == text,
            "{path} is out of date: run `cargo xtask fix`"
        );
    }
    Ok(())
}

fn generated(root: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    // The program as the workspace builds it: building it alone would compile its dependencies again,
    // with fewer features.
    let output = Command::new(root.join("target/debug/cnm_http"))
        .arg("openapi")
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(vec![
        ("docs/errors.md", errors_page()),
        ("openapi/v1.json", String::from_utf8(output.stdout)?),
    ])
}

fn errors_page() -> String {
    let mut page = String::from(
        "# Errors\n\nGenerated from `crates/model/src/error_code.rs` by `cargo xtask fix`. A failed call \
         answers `{\"error_code\", \"description\"}`.\n\n| code | HTTP | cause | remedy |\n|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            code.as_str(),
            code.status(),
            code.cause(),
            code.remedy()
        );
    }
    page
}
