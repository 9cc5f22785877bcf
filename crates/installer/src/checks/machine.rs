//! Of the machine: glibc, python3, memory, swap.

use super::Subject;
use crate::answers::Question;
use crate::host;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Below this much free memory an install is refused, bytes.
const MEMORY_MIN: u64 = 1 << 30;
/// Below this much it says so, bytes.
const MEMORY_ADVISED: u64 = 4 << 30;
/// What the programs need of python3: supervisord's own use.
const PYTHON_PROBE: &str = "import sys, xmlrpc.client, http.client, socket, select\n\
                            sys.exit(0 if sys.version_info >= (3, 7) else 1)";

/// glibc and python3.
pub(super) fn versions(subject: &Subject<'_>) -> Result<()> {
    let needed = &subject.bundle.manifest.glibc_min;
    let here = glibc().context("cannot find out which glibc this machine has")?;
    if parse(&here) < parse(needed) {
        bail!(
            "this release needs glibc {needed} or newer, this machine has {here}: use a newer \
               distribution (Debian 12, Ubuntu 22.04, RHEL 9 or later)"
        );
    }
    let advice = "install it with the machine's package manager (python3, 3.7 or newer)";
    let python = host::python()
        .with_context(|| format!("python3 is needed to run supervisord: {advice}"))?;
    let works = Command::new(&python)
        .args(["-I", "-c", PYTHON_PROBE])
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        bail!(
            "{} is too old or lacks its standard library: {advice}",
            python.display()
        );
    }
    Ok(())
}

/// Version of this machine's glibc.
#[must_use]
pub fn glibc() -> Option<String> {
    let output = Command::new("ldd").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .next()?
        .split_whitespace()
        .last()
        .map(str::to_owned)
}

fn parse(version: &str) -> Vec<u32> {
    version
        .split('.')
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

/// Free memory.
pub(super) fn memory(subject: &Subject<'_>) -> Result<()> {
    let Some(free) = host::meminfo("MemAvailable") else {
        return Ok(());
    };
    let shown = model::units::format_size(free);
    if free < MEMORY_MIN {
        bail!(
            "{shown} of memory are free, at least 1GB is needed: free some, or use a larger \
               machine"
        );
    }
    if free < MEMORY_ADVISED {
        subject.console.note(format!(
            "{shown} of memory are free; 4GB or more are advised"
        ));
    }
    if let (Some(wanted), Some(total)) = (subject.config.memory_bytes, host::meminfo("MemTotal"))
        && wanted > total
    {
        bail!(
            "--memory {}: this machine has {}",
            model::units::format_size(wanted),
            model::units::format_size(total)
        );
    }
    Ok(())
}

/// Swap slows engines down without a trace.
pub(super) fn swap(subject: &Subject<'_>) -> Result<()> {
    let swap = host::swap();
    if swap.is_empty() {
        return Ok(());
    }
    let on = swap.join(", ");
    subject.console.note(format!(
        "swap is on ({on}): an engine that is swapped out stalls"
    ));
    if subject
        .answers
        .get(subject.console, Question::IgnoreSwap, "Swap is on. Go on?")?
    {
        return Ok(());
    }
    bail!(
        "swap is on ({on}): switch it off with 'swapoff -a' and in /etc/fstab, or answer \
           ignore_swap=yes"
    )
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(parse("2.4") < parse("2.36"));
        assert!(parse("2.36") >= parse("2.36"));
        assert!(parse("3.0") > parse("2.99"));
    }
}
