//! Engines that a release carries: `<release>/engines/<name>-<version>/{bin,lib}`.

use model::release::EngineId;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The engines of a release, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    engines: Vec<CatalogueEngine>,
}

/// One engine of a release.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CatalogueEngine {
    /// Which.
    pub id: EngineId,
    /// Its server program, links resolved.
    pub server: PathBuf,
    /// Its shared libraries.
    pub library_dir: PathBuf,
}

impl Catalogue {
    /// Looks into a release's folder.
    ///
    /// # Errors
    /// When its `engines` folder cannot be read; that it does not exist means that there are none.
    pub fn read(release_dir: &Path) -> io::Result<Self> {
        let folder = release_dir.join("engines");
        let mut engines = Vec::new();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(
                    "{} does not exist: this node can run no engine",
                    folder.display()
                );
                return Ok(Self::default());
            }
            Err(error) => {
                let text = format!("{}: {error}", folder.display());
                return Err(io::Error::new(error.kind(), text));
            }
        };
        for entry in entries {
            let entry = entry?;
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|n| n.parse::<EngineId>().ok())
            else {
                continue;
            };
            let server = entry.path().join("bin").join(id.name.server());
            let Ok(server) = fs::canonicalize(&server) else {
                continue;
            };
            engines.push(CatalogueEngine {
                id,
                server,
                library_dir: entry.path().join("lib"),
            });
        }
        engines.sort_by_key(|engine| engine.id.age_key());
        Ok(Self { engines })
    }

    /// All of them, oldest first.
    #[must_use]
    pub fn engines(&self) -> &[CatalogueEngine] {
        &self.engines
    }

    /// One of them.
    ///
    /// # Errors
    /// A sentence with the list of those that are there.
    pub fn find(&self, id: &EngineId) -> Result<&CatalogueEngine, String> {
        self.engines
            .iter()
            .find(|engine| engine.id == *id)
            .ok_or_else(|| {
                let names: Vec<String> = self.engines.iter().map(|e| e.id.to_string()).collect();
                let names = if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                };
                format!("this node's release does not carry {id}; it carries: {names}")
            })
    }
}
