//! The closure of shared libraries of an engine, glibc's excepted: they travel beside it.

use super::output_of;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use walkdir::WalkDir;

/// What glibc itself gives: tied to the host's kernel interface and loader, never carried along.
const GLIBC: &[&str] = &[
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "linux-vdso.so.1",
];

/// Copies into `target` every library that `programs` need, from the unpacked packages `packages`;
/// gives the names taken from each package.
pub(crate) fn collect(
    programs: &[PathBuf],
    packages: &[PathBuf],
    target: &Path,
) -> Result<Vec<Vec<String>>> {
    let mut search = Vec::new();
    for package in packages {
        for sub in ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"] {
            search.push(package.join(sub));
        }
    }
    let library_path = std::env::join_paths(&search)?;
    let mut needed = BTreeSet::new();
    for program in programs {
        let text = output_of(
            Command::new("ldd")
                .arg(program)
                .env("LD_LIBRARY_PATH", &library_path),
        )?;
        for line in text.lines() {
            let name = line.split_whitespace().next().unwrap_or_default();
            let name = Path::new(name)
                .file_name()
                .map(|n| n.to_string_lossy().into_owned());
            needed.extend(name.filter(|name| !GLIBC.contains(&name.as_str())));
        }
    }
    let mut taken = vec![Vec::new(); packages.len()];
    for name in needed {
        let (from, path) = find(packages, &name).with_context(|| {
            format!(
                "library {name}: no package in the engine's `libraries` in packaging/engines.toml \
                 holds it"
            )
        })?;
        fs::copy(&path, target.join(&name))?;
        taken[from].push(name);
    }
    for program in programs {
        check(program, target)?;
    }
    Ok(taken)
}

fn find(packages: &[PathBuf], name: &str) -> Option<(usize, PathBuf)> {
    packages.iter().enumerate().find_map(|(at, package)| {
        WalkDir::new(package)
            .into_iter()
            .filter_map(Result::ok)
            .find(|entry| entry.file_name().to_string_lossy() == name)
            .and_then(|entry| entry.path().canonicalize().ok())
            .map(|path| (at, path))
    })
}

/// Everything but glibc must come out of the engine's own folder.
fn check(program: &Path, folder: &Path) -> Result<()> {
    let text = output_of(
        Command::new("ldd")
            .arg(program)
            .env("LD_LIBRARY_PATH", folder),
    )?;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let base = Path::new(name)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        if GLIBC.contains(&base.as_ref()) {
            continue;
        }
        let found = words.nth(1).unwrap_or_default();
        if !Path::new(found).starts_with(folder) {
            bail!(
                "{}: {name} is not found in {}",
                program.display(),
                folder.display()
            );
        }
    }
    Ok(())
}
