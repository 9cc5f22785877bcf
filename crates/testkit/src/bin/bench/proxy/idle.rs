//! Resident memory with many idle clients.

use super::client::Client;
use super::interrupt::Interrupt;
use super::options::Kind;
use super::processes;
use super::target::Target;
use anyhow::Context as _;
use serde::Serialize;

pub(crate) const CONNECTIONS: usize = 10_000;
/// Descriptors that this needs, of this process and of a proxy.
pub(crate) const DESCRIPTORS: u64 = 16_384;

/// Resident memory of a proxy, MB of 2^20 bytes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) target: &'static str,
    #[serde(skip)]
    pub(crate) kind: Kind,
    pub(crate) before_mb: f64,
    pub(crate) after_mb: f64,
    pub(crate) bytes_a_connection: f64,
}

/// Connects the clients one after another; each asks once and is then idle.
pub(crate) fn measure(target: &Target, interrupt: &Interrupt) -> anyhow::Result<Option<Idle>> {
    let Some(pid) = target.proxy_pid() else {
        return Ok(None);
    };
    let before_mb = processes::resident_mb(pid);
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        if number % 100 == 0 {
            interrupt.check()?;
        }
        let mut client = Client::connect(target.address)?;
        client
            .get("check:2")
            .with_context(|| format!("connection {number}"))?;
        clients.push(client);
    }
    let after_mb = processes::resident_mb(pid);
    Ok(Some(Idle {
        target: target.kind.name(),
        kind: target.kind,
        before_mb,
        after_mb,
        bytes_a_connection: (after_mb - before_mb) * 1024.0 * 1024.0 / CONNECTIONS as f64,
    }))
}
