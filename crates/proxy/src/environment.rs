//! Where this program's configuration and release are.

use anyhow::Context;
use model::node_config::{CONFIG_ENV, NodeConfig};
use model::release::{MANIFEST, Manifest};
use std::path::PathBuf;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

/// Lines of the log that wait to be written.
const LOG_LINES: usize = 4_096;

/// The node and the release that this process belongs to.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The node's configuration.
    pub config: NodeConfig,
    /// This program, links resolved.
    pub executable: PathBuf,
    /// Version of the release; `0.0.0` outside of one.
    pub version: String,
    /// Build id of the release; `dev` outside of one.
    pub build_id: String,
}

impl Environment {
    /// Finds them from the program's own path, or from `MAINSTAY_CONFIG`.
    ///
    /// # Errors
    /// The configuration cannot be read.
    pub fn find() -> anyhow::Result<Self> {
        let executable =
            std::fs::read_link("/proc/self/exe").context("reading the program's own path")?;
        let path = match std::env::var_os(CONFIG_ENV) {
            Some(path) => PathBuf::from(path),
            None => NodeConfig::path_for(&executable)
                .with_context(|| format!("{} is not inside an install", executable.display()))?,
        };
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "reading {}; {CONFIG_ENV} may name another node.toml",
                path.display()
            )
        })?;
        let config =
            NodeConfig::parse(&text).with_context(|| format!("reading {}", path.display()))?;
        let manifest: Option<Manifest> = NodeConfig::release_of(&executable)
            .and_then(|release| std::fs::read(release.join(MANIFEST)).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let (version, build_id) = manifest.map_or_else(
            || ("0.0.0".to_owned(), "dev".to_owned()),
            |manifest| (manifest.version.to_string(), manifest.build_id),
        );
        Ok(Self {
            config,
            executable,
            version,
            build_id,
        })
    }

    /// Logs go to standard error, which the supervisor sends to a file. `RUST_LOG` sets what.
    ///
    /// They are written by a thread of their own, and lines are dropped rather than waited for: a
    /// full or slow disk must not hold up or end the data path. What is returned writes the last
    /// lines when it is dropped.
    pub fn log_to_stderr(&self) -> WorkerGuard {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(LOG_LINES)
            .lossy(true)
            .thread_name("log")
            .finish(std::io::stderr());
        // A second call would only mean that logging has begun already.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(writer)
            .with_ansi(false)
            .log_internal_errors(false)
            .try_init();
        guard
    }
}
