//! The last configuration, kept on disk so that a proxy serves without `cnm_exec`.

use crate::environment::Environment;
use anyhow::Context;
use model::proxy::ProxyConfig;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where it is.
#[must_use]
pub(crate) fn path(environment: &Environment) -> PathBuf {
    environment.config.persist_dir().join("proxy-config.json")
}

/// Reads it. `None`: there is none, or it cannot be read; that is logged.
#[must_use]
pub(crate) fn load(path: &Path) -> Option<ProxyConfig> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the last configuration cannot be read");
            return None;
        }
    };
    serde_json::from_slice(&bytes)
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "the last configuration cannot be read");
        })
        .ok()
}

/// Replaces it, as a whole. It holds passwords: only the owner may read it.
///
/// # Errors
/// The disk.
pub(crate) fn store(path: &Path, config: &ProxyConfig) -> anyhow::Result<()> {
    let folder = path.parent().context("the path has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let draft = path.with_extension("json.new");
    let write = || -> std::io::Result<()> {
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&draft)?;
        rustix::fs::fchmod(&file, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        file.write_all(&serde_json::to_vec(config)?)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{NodeUid, Revision};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn comes_back_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("persist/proxy-config.json");
        assert!(load(&path).is_none());
        let config = ProxyConfig {
            revision: Revision(7),
            cluster_id: "c".to_owned(),
            node: NodeUid(1),
            databases: Vec::new(),
            settings: model::proxy::ProxySettings::default(),
            takes_wishes: false,
            takes_questions: false,
        };
        store(&path, &config).unwrap();
        assert_eq!(load(&path), Some(config));
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        std::fs::write(&path, "{").unwrap();
        assert!(load(&path).is_none());
    }
}
