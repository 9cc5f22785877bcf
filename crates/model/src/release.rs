//! Versions, bundles and installs: manifest of a bundle, record of an install, supported paths.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

mod hops;

/// The feature level that this code speaks at most.
pub const FEATURE_LEVEL: u32 = 1;
/// The feature level that this code speaks at least.
pub const FEATURE_LEVEL_MIN: u32 = 1;
/// Name of the manifest in a bundle and in a release folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of its minisign signature.
pub const MANIFEST_SIGNATURE: &str = "manifest.json.minisig";
/// Name of the install record in the configuration folder.
pub const INSTALL_RECORD: &str = "install.json";

/// Which engines exist. The order is the order of age among equal versions.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

impl EngineName {
    /// `redis` or `valkey`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
        }
    }

    /// Name of its server program.
    #[must_use]
    pub const fn server(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
        }
    }
}

/// An engine and its version; written `valkey-9.1.2`, which is also the name of its folder under
/// `engines/`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct EngineId {
    /// The engine.
    pub name: EngineName,
    /// Its version.
    pub version: semver::Version,
}

impl EngineId {
    /// Orders by version, then by name: the newest is the default of new databases.
    #[must_use]
    pub fn age_key(&self) -> (semver::Version, EngineName) {
        (self.version.clone(), self.name)
    }

    /// Whether `wanted`, as an operator writes it (`9`, `9.1`, `9.1.2`, `valkey-9.1`), means this.
    #[must_use]
    pub fn matches(&self, wanted: &str) -> bool {
        let (name, version) = match wanted.split_once('-') {
            Some((name, version)) => (Some(name), version),
            None => (None, wanted),
        };
        if name.is_some_and(|n| !n.eq_ignore_ascii_case(self.name.as_str())) {
            return false;
        }
        let mine = [self.version.major, self.version.minor, self.version.patch];
        let parts: Vec<&str> = version.split('.').collect();
        (1..=3).contains(&parts.len())
            && parts
                .iter()
                .zip(mine)
                .all(|(part, number)| part.parse() == Ok(number))
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name.as_str(), self.version)
    }
}

impl FromStr for EngineId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not an engine: write redis-X.Y.Z or valkey-X.Y.Z");
        let (name, version) = text.split_once('-').ok_or_else(wrong)?;
        let name = match name {
            "redis" => EngineName::Redis,
            "valkey" => EngineName::Valkey,
            _ => return Err(wrong()),
        };
        Ok(Self {
            name,
            version: version.parse().map_err(|_| wrong())?,
        })
    }
}

impl Serialize for EngineId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EngineId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What a bundle holds; signed. Also lies in the release folder, where the programs read their own
/// version and build id from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Schema of this file: 1.
    pub schema: u32,
    /// `mainstay`.
    pub product: String,
    /// The release's version.
    pub version: semver::Version,
    /// SHA-256 over the files' hashes and the version, hex, 16 digits: what really runs.
    pub build_id: String,
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub arch: String,
    /// Lowest feature level that it can run.
    pub feature_min: u32,
    /// Highest feature level that it can run.
    pub feature_max: u32,
    /// Engines that it carries, and where they came from.
    pub engines: Vec<EngineSource>,
    /// Version of supervisord.
    pub supervisor_version: String,
    /// From which versions this one may be installed over.
    pub supported_paths: SupportedPaths,
    /// glibc that its programs need at least.
    pub glibc_min: String,
    /// The profile that it was built with: `dist` or `fast`.
    pub profile: String,
    /// Files: path in the bundle → hash, mode, size.
    pub files: BTreeMap<String, FileEntry>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// SHA-256, hex.
    pub sha256: String,
    /// Permission bits, octal text: `0755`.
    pub mode: String,
    /// Bytes.
    pub size: u64,
}

/// An engine of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSource {
    /// The engine.
    pub engine: EngineId,
    /// Package that it came from, with its version.
    pub package: String,
    /// SHA-256 of that package, hex.
    pub sha256: String,
    /// Its licence (SPDX).
    pub licence: String,
}

/// From which versions a release may be installed over: `packaging/supported-paths.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SupportedPaths {
    /// One row a range of versions.
    #[serde(default)]
    pub path: Vec<SupportedPath>,
}

/// One row: from these versions to those, directly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SupportedPath {
    /// From, as a semver requirement: `>=1.0.0, <2.0.0`.
    pub from: semver::VersionReq,
    /// To, as a semver requirement.
    pub to: semver::VersionReq,
}

impl SupportedPaths {
    /// Versions to install between two, in order; `None`: there is no way.
    #[must_use]
    pub fn hops(
        &self,
        from: &semver::Version,
        to: &semver::Version,
    ) -> Option<Vec<semver::Version>> {
        hops::between(from, to, self)
    }

    /// Whether `to` may be installed directly over `from`.
    #[must_use]
    pub fn allows(&self, from: &semver::Version, to: &semver::Version) -> bool {
        from <= to
            && self
                .path
                .iter()
                .any(|row| row.from.matches(from) && row.to.matches(to))
    }
}

/// What an install did, `install.json` in the configuration folder, root's. It decides whether a run
/// of `install.sh` is a new install, an upgrade, a repair or a refused downgrade.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstallRecord {
    /// Schema of this file: 1.
    pub schema: u32,
    /// Id of this install.
    pub install_id: String,
    /// The version in force.
    pub version: semver::Version,
    /// Its build id.
    pub build_id: String,
    /// The version before, to which `--rollback` returns.
    pub previous: Option<semver::Version>,
    /// What is under way; `None`: nothing.
    pub pending: Option<PendingInstall>,
    /// Public keys (minisign, base64) that bundles may be signed with.
    pub trusted_keys: Vec<String>,
    /// Whether this install made the user.
    pub created_user: bool,
    /// Whether this install made the group.
    pub created_group: bool,
    /// Folders and files that it made, for the uninstall.
    pub made: Vec<std::path::PathBuf>,
    /// Whether a systemd unit runs it; otherwise it was started detached.
    pub systemd: bool,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// An install or upgrade that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendingInstall {
    /// To this version.
    pub to: semver::Version,
    /// The step that is under way: a word of the installer.
    pub step: String,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_by_what_operators_write() {
        let engine: EngineId = "valkey-9.1.2".parse().unwrap();
        for yes in ["9", "9.1", "9.1.2", "valkey-9.1", "Valkey-9"] {
            assert!(engine.matches(yes), "{yes}");
        }
        for no in ["", "9.", "8", "9.2", "9.1.3", "redis-9.1", "9.1.2.0", "x"] {
            assert!(!engine.matches(no), "{no}");
        }
    }

    #[test]
    fn paths_never_lead_back() {
        let paths = SupportedPaths {
            path: vec![SupportedPath {
                from: ">=1.0.0, <2.0.0".parse().unwrap(),
                to: ">=1.0.0, <2.0.0".parse().unwrap(),
            }],
        };
        let v = |text: &str| text.parse::<semver::Version>().unwrap();
        assert!(paths.allows(&v("1.0.0"), &v("1.1.0")));
        assert!(paths.allows(&v("1.1.0"), &v("1.1.0")));
        assert!(!paths.allows(&v("1.1.0"), &v("1.0.0")));
        assert!(!paths.allows(&v("1.1.0"), &v("2.0.0")));
    }
}
