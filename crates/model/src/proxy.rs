//! What `cnm_exec` and `dmcproxy` tell each other over the unix socket
//! [`crate::node_config::NodeConfig::proxy_socket`].
//!
//! `dmcproxy` connects. Both sides send JSON, one message a line, at most [`LINE_MAX`] bytes:
//! `cnm_exec` sends a whole [`ProxyConfig`] at once and again after each change, and the proxy sends
//! a [`crate::observation::ProxyObservation`] whenever it has applied a configuration, and every
//! second. The proxy keeps the last configuration on disk and serves from it when `cnm_exec` is away.

use crate::documents::SlotRange;
use crate::ids::{DatabaseUid, Epoch, NodeUid, Revision, ShardUid};
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest line, bytes.
pub const LINE_MAX: usize = 16 * 1024 * 1024;

/// Everything that one node's proxy must know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyConfig {
    /// Revision of the store that it was made from; a lower one is never applied after a higher one
    /// of the same cluster.
    pub revision: Revision,
    /// The cluster's id.
    pub cluster_id: String,
    /// The node.
    pub node: NodeUid,
    /// Databases that this proxy serves.
    pub databases: Vec<ProxyDatabase>,
    /// Settings of the proxy.
    #[serde(default)]
    pub settings: ProxySettings,
}

/// Settings of a proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxySettings {
    /// Worker threads; 0: chosen from the number of cores.
    pub threads: u32,
}

/// One database as a proxy serves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyDatabase {
    /// Which.
    pub uid: DatabaseUid,
    /// Its name.
    pub name: String,
    /// Addresses to listen on: the node's address and the database's port.
    pub listen: Vec<std::net::SocketAddr>,
    /// Password of the default user; `None`: no password asked.
    pub password: Option<Secret>,
    /// Most client connections, 0: no limit but the proxy's own.
    pub max_connections: u32,
    /// The primaries, by slots, all of them: together they have every slot, whether they serve or
    /// not. Empty: none is known; clients wait, then get an error, until there is one.
    pub shards: Vec<ProxyShard>,
}

/// A primary shard as a proxy reaches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyShard {
    /// Which.
    pub uid: ShardUid,
    /// Its slots.
    pub slots: SlotRange,
    /// Epoch of its replica set. A connection belongs to one epoch.
    pub epoch: Epoch,
    /// Where it is.
    pub address: ShardAddress,
    /// User inside the engine.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Whether it may be used: its agent has confirmed the role of this epoch. Until then its
    /// slots have no primary.
    #[serde(default = "yes")]
    pub serving: bool,
}

/// Older releases name only shards that serve.
const fn yes() -> bool {
    true
}

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardAddress {
    /// On the same node.
    Unix(PathBuf),
    /// On another node.
    Tcp(std::net::SocketAddr),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line of a release without `serving`, and of one with more fields than this.
    #[test]
    fn lines_of_other_releases_are_read() {
        let shard = |more: &str| {
            format!(
                r#"{{"uid":1,"slots":{{"first":0,"last":16383}},"epoch":3,
                "address":{{"tcp":"10.0.0.1:20000"}},"user":"proxy@e3","password":"p"{more}}}"#
            )
        };
        let read = |text: String| serde_json::from_str::<ProxyShard>(&text).unwrap();
        assert!(read(shard("")).serving);
        assert!(!read(shard(r#","serving":false,"of_a_newer_release":1"#)).serving);
    }
}
