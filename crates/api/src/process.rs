//! What makes this process a good citizen of its node: one copy only, gone with its parent, and
//! aware of which release it is.

use anyhow::{Context, bail};
use model::node_config::{CONFIG_ENV, NodeConfig};
use model::release::{MANIFEST, Manifest};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an earlier copy may take to end.
const EARLIER_COPY_ENDS_WITHIN: Duration = Duration::from_secs(10);
/// How often its end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Reads `node.toml`: the one that `MAINSTAY_CONFIG` names, else the one of this program's install.
///
/// # Errors
/// Which file cannot be read, or what is wrong in it.
pub fn read_config() -> anyhow::Result<NodeConfig> {
    let path = match std::env::var_os(CONFIG_ENV) {
        Some(path) => PathBuf::from(path),
        None => NodeConfig::path_for(&executable()?).context(
            "this program is not inside an install: set MAINSTAY_CONFIG to the path of node.toml",
        )?,
    };
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    NodeConfig::parse(&text).with_context(|| format!("read {}", path.display()))
}

fn executable() -> anyhow::Result<PathBuf> {
    std::fs::read_link("/proc/self/exe").context("find this program's own path")
}

/// The manifest of this program's own release, if it lies in one.
#[must_use]
pub fn own_manifest() -> Option<Manifest> {
    let folder = NodeConfig::release_of(&executable().ok()?)?;
    serde_json::from_slice(&std::fs::read(folder.join(MANIFEST)).ok()?).ok()
}

/// Which release runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Release {
    /// Its version.
    pub version: String,
    /// Its build id.
    pub build_id: String,
}

impl Default for Release {
    fn default() -> Self {
        Self {
            version: "0.0.0".to_owned(),
            build_id: "dev".to_owned(),
        }
    }
}

impl Release {
    /// From the manifest of this program's own release; `0.0.0` / `dev` without one.
    #[must_use]
    pub fn own() -> Self {
        let folder = executable()
            .ok()
            .and_then(|path| NodeConfig::release_of(&path));
        folder.map_or_else(Self::default, |folder| Self::of(&folder))
    }

    /// From the manifest in a release's folder; `0.0.0` / `dev` without one.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let path = folder.join(MANIFEST);
        let Ok(text) = std::fs::read_to_string(&path) else {
            return Self::default();
        };
        match serde_json::from_str::<Manifest>(&text) {
            Ok(manifest) => Self {
                version: manifest.version.to_string(),
                build_id: manifest.build_id,
            },
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the manifest cannot be read");
                Self::default()
            }
        }
    }
}

/// Asks the kernel to end this process when its parent ends: a killed supervisord must not leave a
/// second copy behind.
///
/// # Errors
/// When the kernel refuses, or the parent is gone already.
pub fn end_with_parent() -> anyhow::Result<()> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::TERM)).context("ask for the parent's death")?;
    if getppid() != parent {
        bail!("the parent process ended while cnm_http was starting");
    }
    Ok(())
}

/// The lock file, held: no other copy of this program serves this node. Given back on drop, and by
/// the kernel when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock; waits a little for an earlier copy that is ending.
    ///
    /// # Errors
    /// Which process holds it, or why the file cannot be opened.
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        Self::take_within(path, EARLIER_COPY_ENDS_WITHIN)
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_within(path: &Path, patience: Duration) -> anyhow::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("open the lock file {}", path.display()))?;
        let deadline = Instant::now() + patience;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(Errno::WOULDBLOCK) => {
                    let mut holder = String::new();
                    // Only for the message: an unreadable file says nothing.
                    let _ = (&mut file).take(20).read_to_string(&mut holder);
                    bail!(
                        "another cnm_http (pid {}) serves this node: {} is locked",
                        holder.trim(),
                        path.display()
                    );
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("lock {}", path.display()));
                }
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}
