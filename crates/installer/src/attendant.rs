//! Root's part in an upgrade of all nodes: a small process of root's that stages signed bundles and runs their
//! installer when this node's `cnm_exec` says that its turn has come.
//!
//! Who asks may be anybody with the OS user's rights, and gets no more by it than: a bundle that a key of the install
//! record signed is unpacked into a folder of root's, and the installer in it is run with fixed arguments; or
//! `--rollback` of root's own program. Nothing of a folder of the OS user's is executed.
//!
//! | file | what |
//! |---|---|
//! | `service` | its socket, and that it is there once |
//! | `staging` | a bundle is unpacked and verified |
//! | `work` | one piece of work at a time, in a process of its own that outlives the attendant |
//! | `presence` | started and stopped by installs |

mod presence;
mod service;
mod staging;
mod work;

use crate::layout;
use anyhow::{Context, Result};
use model::node_config::NodeConfig;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub use presence::{ensure, process, stop};
pub use service::run;
pub(crate) use work::CLIENTS;
pub use work::perform;

/// Where bundles are staged and work is noted: root's alone.
fn folder(config: &NodeConfig) -> PathBuf {
    layout::sbin(config).join("upgrade")
}

/// Where `cnm_exec` puts a bundle that has arrived.
fn arrived(config: &NodeConfig, digest: &str) -> PathBuf {
    config.bundles_dir().join(format!("{digest}.tar"))
}

/// Starts root's own installer in the background, as `what` of this install.
fn background(config: &NodeConfig, what: &str) -> Result<Child> {
    let program = layout::sbin(config).join("mainstay-install");
    let mut command = Command::new(&program);
    // Debug builds keep the environment: tests say there where an installer is to be cut short.
    if !cfg!(debug_assertions) {
        command.env_clear().env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
    }
    command
        .args([what, "--address"])
        .arg(config.address.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| program.display().to_string())
}

/// Whether a text can be the name of a piece of work.
fn is_id(text: &str) -> bool {
    (1..=80).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
