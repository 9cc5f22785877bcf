//! The manifest of a bundle.

use super::build::Profile;
use super::contents::Contents;
use crate::engines::{self, Recipes};
use anyhow::{Context, Result};
use model::release::{FEATURE_LEVEL, FEATURE_LEVEL_MIN, FileEntry, Manifest, SupportedPaths};
use semver::Version;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Digits of a build id.
const BUILD_ID_DIGITS: usize = 16;

/// Text of the manifest of `contents`.
pub(crate) fn write(
    repository: &Path,
    version: &Version,
    profile: Profile,
    contents: &Contents,
) -> Result<String> {
    let mut files = BTreeMap::new();
    let mut glibc = (0, 0);
    for (name, item) in &contents.items {
        let bytes = item.source.read()?;
        if bytes.starts_with(b"\x7fELF") {
            glibc = glibc.max(glibc_of(&bytes));
        }
        files.insert(
            name.clone(),
            FileEntry {
                sha256: hex::encode(Sha256::digest(&bytes)),
                mode: format!("{:04o}", item.mode),
                size: bytes.len() as u64,
            },
        );
    }
    let paths = repository.join("packaging/supported-paths.toml");
    let text = fs::read_to_string(&paths).with_context(|| paths.display().to_string())?;
    let supported_paths: SupportedPaths =
        toml::from_str(&text).with_context(|| paths.display().to_string())?;
    let manifest = Manifest {
        schema: 1,
        product: "mainstay".to_owned(),
        version: version.clone(),
        build_id: build_id(version, &files),
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
        feature_min: FEATURE_LEVEL_MIN,
        feature_max: FEATURE_LEVEL,
        engines: engines::sources(repository)?,
        supervisor_version: Recipes::read(repository)?.supervisor.version,
        supported_paths,
        glibc_min: format!("{}.{}", glibc.0, glibc.1),
        profile: profile.as_str().to_owned(),
        files,
    };
    Ok(serde_json::to_string_pretty(&manifest)? + "\n")
}

/// What really runs: the version and the hashes of the files.
fn build_id(version: &Version, files: &BTreeMap<String, FileEntry>) -> String {
    let mut hash = Sha256::new();
    hash.update(version.to_string());
    for (name, entry) in files {
        hash.update(format!("\n{name} {} {}", entry.mode, entry.sha256));
    }
    let mut id = hex::encode(hash.finalize());
    id.truncate(BUILD_ID_DIGITS);
    id
}

/// The newest glibc that a program or library asks for: version names stand in its string table.
fn glibc_of(elf: &[u8]) -> (u32, u32) {
    const MARK: &[u8] = b"GLIBC_";
    let mut newest = (0, 0);
    let mut at = 0;
    while let Some(found) = elf[at..]
        .windows(MARK.len())
        .position(|window| window == MARK)
    {
        at += found + MARK.len();
        let digits: Vec<u8> = elf[at..]
            .iter()
            .copied()
            .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
            .take(16)
            .collect();
        let text = String::from_utf8_lossy(&digits);
        let mut numbers = text.split('.').map(str::parse);
        if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) {
            newest = newest.max((major, minor));
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::glibc_of;

    #[test]
    fn newest_glibc_by_number_not_by_text() {
        let elf = b"\x7fELF\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0GLIBC_2.2.5\0";
        assert_eq!(glibc_of(elf), (2, 34));
        assert_eq!(glibc_of(b"\x7fELF"), (0, 0));
    }
}
