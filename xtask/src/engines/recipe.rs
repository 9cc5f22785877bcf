//! Contents of `packaging/engines.toml`.

use anyhow::{Context, Result, bail};
use model::release::{EngineId, EngineName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipes {
    /// The engines.
    pub(crate) engine: Vec<EngineRecipe>,
    /// supervisord.
    pub(crate) supervisor: Wheel,
}

impl Recipes {
    /// Reads the file of this repository.
    pub(crate) fn read(repository: &Path) -> Result<Self> {
        let path = repository.join("packaging").join("engines.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}

/// An engine and where it comes from: exactly one of `debian` and `wheel`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EngineRecipe {
    name: EngineName,
    version: semver::Version,
    /// SPDX.
    pub(crate) licence: String,
    debian: Option<DebianPackage>,
    wheel: Option<Wheel>,
}

/// Where an engine comes from.
pub(crate) enum Origin<'a> {
    Debian(&'a DebianPackage),
    Wheel(&'a Wheel),
}

impl EngineRecipe {
    pub(crate) fn id(&self) -> EngineId {
        EngineId {
            name: self.name,
            version: self.version.clone(),
        }
    }

    pub(crate) fn origin(&self) -> Result<Origin<'_>> {
        match (&self.debian, &self.wheel) {
            (Some(debian), None) => Ok(Origin::Debian(debian)),
            (None, Some(wheel)) => Ok(Origin::Wheel(wheel)),
            _ => bail!(
                "{}: write exactly one of [engine.debian] and [engine.wheel]",
                self.id()
            ),
        }
    }
}

/// A package of Debian.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DebianPackage {
    /// Its name.
    pub(crate) package: String,
    /// `bookworm` or `bookworm-backports`.
    pub(crate) suite: String,
    /// File in the package → name in `bin`.
    pub(crate) programs: BTreeMap<String, String>,
    /// Packages of every shared library that the programs need, glibc's excepted.
    pub(crate) libraries: Vec<String>,
}

/// A wheel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wheel {
    /// Its name in the package index.
    pub(crate) package: String,
    /// Its version.
    pub(crate) version: String,
    /// Name of the file.
    pub(crate) file: String,
    /// SHA-256 of the file, hex.
    pub(crate) sha256: String,
    /// Platform tag; none for a pure wheel.
    pub(crate) platform: Option<String>,
    /// Python version that the wheel is for; it need not be the host's, only files are taken.
    pub(crate) python: Option<String>,
    /// File in the wheel → name in `bin`.
    #[serde(default)]
    pub(crate) programs: BTreeMap<String, String>,
    /// Licence texts in the wheel.
    #[serde(default)]
    pub(crate) licences: Vec<String>,
}
