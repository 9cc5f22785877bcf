//! Finds the node's configuration and the program's own release, and sees that only one copy runs.

use anyhow::Context as _;
use model::node_config::{CONFIG_ENV, NodeConfig};
use model::release::{MANIFEST, Manifest};
use model::upgrade::LevelRange;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a program knows of itself at start.
#[derive(Clone, Debug)]
pub struct Program {
    /// Contents of `node.toml`.
    pub config: NodeConfig,
    /// Folder of its release, resolved.
    pub release: PathBuf,
    /// Version of the release.
    pub version: String,
    /// Build id of the release.
    pub build_id: String,
    /// Feature levels that the release can run.
    pub levels: LevelRange,
}

impl Program {
    /// Looks around from the program's own path.
    ///
    /// # Errors
    /// When the configuration cannot be found or read.
    pub fn locate() -> anyhow::Result<Self> {
        let executable = std::fs::read_link("/proc/self/exe").context("find this program")?;
        let path = match std::env::var_os(CONFIG_ENV) {
            Some(path) => PathBuf::from(path),
            None => NodeConfig::path_for(&executable)
                .context("this program does not lie in an install; set MAINSTAY_CONFIG")?,
        };
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let config =
            NodeConfig::parse(&text).with_context(|| format!("read {}", path.display()))?;
        let release = NodeConfig::release_of(&executable).unwrap_or_default();
        let (version, build_id, levels) = match std::fs::read(release.join(MANIFEST)) {
            Ok(bytes) => {
                let manifest: Manifest =
                    serde_json::from_slice(&bytes).context("read the release's manifest")?;
                let levels = LevelRange {
                    min: manifest.feature_min,
                    max: manifest.feature_max,
                };
                (manifest.version.to_string(), manifest.build_id, levels)
            }
            Err(_) => ("0.0.0".to_owned(), "dev".to_owned(), LevelRange::OWN),
        };
        Ok(Self {
            config,
            release,
            version,
            build_id,
            levels,
        })
    }
}

/// Holds the lock of a daemon for as long as the process lives. A predecessor that is about to end
/// is waited for.
///
/// # Errors
/// When another copy goes on running for 15 s.
pub fn only_copy(config: &NodeConfig, name: &str) -> anyhow::Result<File> {
    let path = config.run_file(&format!("{name}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let deadline = Instant::now() + Duration::from_secs(15);
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        anyhow::ensure!(
            Instant::now() < deadline,
            "another {name} of this node is running: it holds {}",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(file)
}

/// Asks the kernel to end this process when its parent ends: a killed supervisord starts again and
/// would start second copies.
///
/// # Errors
/// When the kernel refuses, or the parent is gone already.
pub fn end_with_parent() -> anyhow::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    anyhow::ensure!(
        rustix::process::getppid() == parent,
        "the parent has ended already"
    );
    Ok(())
}
