//! The install that a tool belongs to: found from the tool's own path, so that several installs on
//! one host do not meet.

use model::node_config::{CONFIG_ENV, NodeConfig};
use model::release::{MANIFEST, Manifest};
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Largest `node.toml` or `manifest.json` that is read, bytes.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// The install that the running program belongs to.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Its `node.toml`.
    pub config: NodeConfig,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NotInstalled {
    /// The program does not lie in a release folder.
    #[error(
        "{} does not lie in an install (<folder>/releases/<version>/bin): name its node.toml in {CONFIG_ENV}",
        .0.display()
    )]
    NoRelease(PathBuf),
    /// `node.toml` cannot be read.
    #[error("cannot read {}: {error}{}", path.display(), hint(error))]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// `node.toml` is wrong.
    #[error("{} is not a node.toml: {error}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: Box<toml::de::Error>,
    },
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => ": is this node installed? Run install.sh first",
        std::io::ErrorKind::PermissionDenied => {
            ": use sudo, or join the node's group and log in again"
        }
        _ => "",
    }
}

/// The command that starts a node that is stopped as a whole, supervisord included; `None` if it runs.
pub fn start_of_stopped(config: &NodeConfig) -> Option<String> {
    let refused = UnixStream::connect(config.supervisor_socket()).err()?;
    let stopped = matches!(
        refused.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    );
    let program = config.install_dir.join("sbin/mainstay-install");
    (stopped && program.exists()).then(|| format!("{} start", program.display()))
}

impl Installation {
    /// Finds it: `MAINSTAY_CONFIG` if set, else beside the program's own release.
    ///
    /// # Errors
    /// [`NotInstalled`] says what is missing and what to do.
    pub fn find() -> Result<Self, NotInstalled> {
        let path = match std::env::var_os(CONFIG_ENV) {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => {
                let program = own_path();
                NodeConfig::path_for(&program)
                    .filter(|path| path.exists())
                    .ok_or(NotInstalled::NoRelease(program))?
            }
        };
        let text = read_bounded(&path).map_err(|error| NotInstalled::Unreadable {
            path: path.clone(),
            error,
        })?;
        let config = NodeConfig::parse(&text).map_err(|error| NotInstalled::Malformed {
            path,
            error: Box::new(error),
        })?;
        Ok(Self { config })
    }

    /// How an operator calls one of the node's programs: by its bare name in the default install,
    /// whose programs are linked into the path, else by its full path.
    #[must_use]
    pub fn program(&self, name: &str) -> String {
        if self.config.install_dir == Path::new("/opt/mainstay") {
            return name.to_owned();
        }
        self.config
            .current()
            .join("bin")
            .join(name)
            .display()
            .to_string()
    }
}

/// One line: version and build id of the release that the running program belongs to.
#[must_use]
pub fn version_line(tool: &str) -> String {
    let manifest = NodeConfig::release_of(&own_path())
        .and_then(|release| read_manifest(&release).ok())
        .map(|manifest| format!("{} ({})", manifest.version, manifest.build_id));
    match manifest {
        Some(version) => format!("{tool} {version}"),
        None => format!("{tool} outside of a release: no {MANIFEST} beside it"),
    }
}

/// The manifest of a release folder.
///
/// # Errors
/// What cannot be read, with its path.
pub fn read_manifest(release: &Path) -> Result<Manifest, String> {
    let path = release.join(MANIFEST);
    let text = read_bounded(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{} is damaged: {e}", path.display()))
}

/// Text of a small file.
///
/// # Errors
/// As reading does; `FileTooLarge` above 4 MiB.
pub fn read_bounded(path: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > FILE_MAX {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("{size} bytes; at most {FILE_MAX} are read"),
        ));
    }
    std::fs::read_to_string(path)
}

/// The running program, links resolved.
fn own_path() -> PathBuf {
    std::fs::read_link("/proc/self/exe").unwrap_or_default()
}
