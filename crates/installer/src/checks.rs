//! What must be true before a new install changes anything. Each check says what is wrong and what
//! to do about it; the first one that fails ends the run, and nothing was changed.

mod accounts;
mod folders;
mod machine;
mod others;
mod ports;

use crate::answers::Answers;
use crate::bundle::Bundle;
use crate::console::Console;
use crate::options::Options;
use crate::registry::Install;
use anyhow::Result;
use model::node_config::NodeConfig;

pub use accounts::Accounts;
pub use machine::glibc;

/// What the checks look at.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Where lines go.
    pub console: &'a Console,
    /// What the operator asked for.
    pub options: &'a Options,
    /// What the operator answered.
    pub answers: &'a Answers,
    /// Where the install is to go.
    pub config: &'a NodeConfig,
    /// What is to be installed.
    pub bundle: &'a Bundle,
    /// The other installs of this host.
    pub installs: &'a [Install],
}

/// Every check of a new install; gives what must be made of user and group.
///
/// # Errors
/// The first thing that stands against it.
pub fn new_install(subject: &Subject<'_>) -> Result<Accounts> {
    machine::versions(subject)?;
    others::check(subject)?;
    folders::empty(subject)?;
    let accounts = accounts::check(subject)?;
    folders::reachable(subject, &accounts)?;
    folders::socket_paths(subject)?;
    ports::check(subject)?;
    machine::memory(subject)?;
    machine::swap(subject)?;
    folders::space(subject)?;
    Ok(accounts)
}

/// What must be true before a bundle is unpacked beside a running release.
///
/// # Errors
/// The first thing that stands against it.
pub fn upgrade(subject: &Subject<'_>) -> Result<()> {
    machine::versions(subject)?;
    folders::space_for_release(subject)
}
