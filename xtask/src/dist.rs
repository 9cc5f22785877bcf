//! `cargo xtask dist`: the signed bundle `mainstay-<version>-linux-amd64.tar`. Same inputs, same
//! bytes.
//!
//! | in the bundle | what |
//! |---|---|
//! | `install.sh` | what the operator runs |
//! | `manifest.json`, `manifest.json.minisig` | hash and mode of every other file, signed |
//! | `release/` | becomes `releases/<version>/` of an install, with the manifest beside it |
//! | `README.md` | what to do with all this |

mod build;
mod contents;
mod licences;
mod manifest;
pub(crate) mod release;
pub(crate) mod signature;
mod tarball;

use crate::engines;
use anyhow::{Context, Result};
use semver::Version;
use std::fs;
use std::path::{Path, PathBuf};

/// Options of `dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Version to stamp; default: `next` of packaging/releases.toml.
    #[arg(long, value_name = "V")]
    version: Option<Version>,
    /// Build a release of packaging/releases.toml from its commit instead of this tree.
    #[arg(long, value_name = "V", conflicts_with_all = ["version", "no_build"])]
    release: Option<Version>,
    /// Take the quick build of the dev profile instead of the slow one of profile dist.
    #[arg(long)]
    fast: bool,
    /// Folder of the result.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Secret key (minisign, without password) to sign with; default: the development key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Take the programs as they were built last.
    #[arg(long, hide = true)]
    no_build: bool,
}

/// The bundle of a version from the quick build, in the usual folder.
pub(crate) fn fast(repository: &Path, version: &Version) -> Result<()> {
    let options = Options {
        version: Some(version.clone()),
        release: None,
        fast: true,
        out: None,
        key: None,
        no_build: false,
    };
    run(repository, &options)
}

/// The bundle of a release, built from its commit by the quick build, in the usual folder.
pub(crate) fn released(repository: &Path, version: &Version) -> Result<()> {
    let options = Options {
        version: None,
        release: Some(version.clone()),
        fast: true,
        out: None,
        key: None,
        no_build: false,
    };
    run(repository, &options)
}

/// Builds the bundle and prints its path.
pub(crate) fn run(repository: &Path, options: &Options) -> Result<()> {
    if let Some(version) = &options.release {
        return release::build(repository, version, options);
    }
    let version = match &options.version {
        Some(version) => version.clone(),
        None => release::next(repository)?,
    };
    engines::run(repository)?;
    let profile = if options.fast {
        build::Profile::Fast
    } else {
        build::Profile::Dist
    };
    let programs = build::programs(repository, profile, options.no_build)?;
    let mut contents = contents::gather(repository, &version, &programs)?;
    let manifest = manifest::write(repository, &version, profile, &contents)?;
    let key = match &options.key {
        Some(file) => file.clone(),
        None => repository.join("packaging/keys/dev.key"),
    };
    let signed = signature::sign(&key, &manifest)?;
    contents.text(model::release::MANIFEST, &manifest, 0o644);
    contents.text(model::release::MANIFEST_SIGNATURE, &signed, 0o644);

    let out = options
        .out
        .clone()
        .unwrap_or_else(|| repository.join("target/dist"));
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let path = out.join(format!("mainstay-{version}-linux-amd64.tar"));
    tarball::write(&path, &contents)?;
    println!("{}", path.display());
    Ok(())
}
