//! `cargo xtask commands [--check]`: asks every engine in `target/engines` for its commands, and
//! writes `crates/resp/commands.json` and the table that is compiled in.

mod engine;
mod merge;
mod rows;
#[cfg(test)]
mod tests;

use crate::engines::Recipes;
use anyhow::{Context as _, Result, bail};
use merge::Table;
use std::fmt::Write as _;
use std::path::Path;

/// What was read from the engines.
const LIST: &str = "crates/resp/commands.json";
/// The same as the proxy uses it.
const TABLE: &str = "crates/resp/src/command/table.rs";
/// How many differing lines of a file are shown.
const SHOWN: usize = 40;

/// Options of `commands`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write nothing: fail if the files are not what the engines say.
    #[arg(long)]
    check: bool,
}

/// Writes, or compares.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let written = written(root)?;
    if options.check {
        return compare(root, &written);
    }
    for (path, text) in written {
        std::fs::write(root.join(path), text).with_context(|| format!("write {path}"))?;
        println!("{path}");
    }
    Ok(())
}

/// The files as the engines want them.
fn written(root: &Path) -> Result<[(&'static str, String); 2]> {
    let mut ids: Vec<_> = Recipes::read(root)?
        .engine
        .iter()
        .map(|recipe| recipe.id())
        .collect();
    ids.sort_by_key(model::release::EngineId::age_key);
    let table = Table::read(root, &ids)?;
    Ok([(LIST, table.json()?), (TABLE, rows::source(&table)?)])
}

fn compare(root: &Path, written: &[(&'static str, String)]) -> Result<()> {
    let mut message = String::new();
    for (path, wanted) in written {
        let there = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        if there == *wanted {
            continue;
        }
        writeln!(message, "{path} is not what the engines say:")?;
        let (old, new): (Vec<_>, Vec<_>) = (there.lines().collect(), wanted.lines().collect());
        let gone = old.iter().filter(|line| !new.contains(line));
        let come = new.iter().filter(|line| !old.contains(line));
        let lines: Vec<String> = gone
            .map(|line| format!("-{line}"))
            .chain(come.map(|line| format!("+{line}")))
            .collect();
        for line in lines.iter().take(SHOWN) {
            writeln!(message, "{line}")?;
        }
        if lines.len() > SHOWN {
            writeln!(message, "and {} lines more", lines.len() - SHOWN)?;
        }
    }
    if message.is_empty() {
        return Ok(());
    }
    bail!("{message}run `cargo xtask commands` and look at what it changes")
}
