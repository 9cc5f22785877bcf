//! Builds and strips the programs of a release.

use crate::engines::output_of;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs of a release.
const PROGRAMS: &[&str] = &[
    "cnm_exec",
    "cnm_http",
    "dmcproxy",
    "mainstay-install",
    "mainstay-node",
    "rladmin",
    "rlcheck",
];

/// How the programs are built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Profile {
    /// As plain `cargo build` does: what the tests and the demo use.
    Fast,
    /// As they are shipped.
    Dist,
}

impl Profile {
    /// The word that the manifest shows.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Dist => "dist",
        }
    }

    const fn folder(self) -> &'static str {
        match self {
            Self::Fast => "debug",
            Self::Dist => "dist",
        }
    }
}

/// Name → path of each program, built and stripped.
pub(crate) fn programs(
    repository: &Path,
    profile: Profile,
    no_build: bool,
) -> Result<BTreeMap<String, PathBuf>> {
    if !no_build {
        // The whole workspace, as everybody builds it: a choice of packages would choose other
        // features of their dependencies, and compile those again.
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.arg("build").current_dir(repository);
        if profile == Profile::Dist {
            cargo.args(["--profile", "dist"]);
        }
        let status = cargo.status().context("cannot run cargo")?;
        if !status.success() {
            bail!("cargo build failed");
        }
    }
    let built = repository.join("target").join(profile.folder());
    let stripped = repository
        .join("target/dist/stripped")
        .join(profile.folder());
    fs::create_dir_all(&stripped)?;
    let mut programs = BTreeMap::new();
    for name in PROGRAMS {
        let target = stripped.join(name);
        // A link must not lead the output elsewhere, and a running copy must not be written to.
        let partial = tempfile::NamedTempFile::new_in(&stripped)?;
        output_of(
            Command::new("strip")
                .arg("-o")
                .arg(partial.path())
                .arg(built.join(name)),
        )
        .context("strip comes with binutils")?;
        partial.persist(&target)?;
        programs.insert((*name).to_owned(), target);
    }
    Ok(programs)
}
