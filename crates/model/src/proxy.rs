//! What `cnm_exec` and `dmcproxy` tell each other over the unix socket
//! [`crate::node_config::NodeConfig::proxy_socket`].
//!
//! `dmcproxy` connects. Both sides send JSON, one message a line, at most [`LINE_MAX`] bytes:
//! `cnm_exec` sends a whole [`ProxyConfig`] at once and again after each change, and the proxy sends
//! a [`crate::observation::ProxyObservation`] whenever it has applied a configuration, and every
//! second. The proxy keeps the last configuration on disk and serves from it when `cnm_exec` is away.
//!
//! What a client wishes of the whole database goes up too, as a [`FromProxy::Wish`], and comes back as a
//! [`ToProxy::Granted`] when it is in force, or why not. A proxy sends it only to a `cnm_exec` that says
//! that it takes one.
//!
//! A question about the clients of all proxies of a database goes both ways, see [`crate::clients`]: a
//! [`FromProxy::Question`] up to a `cnm_exec` that takes it and its answer down, and a [`ToProxy::Question`] down
//! to a proxy that takes it and its answer up.
//!
//! While a proxy serves a database of [`ProxyDatabase::lease`] it sends a [`FromProxy::Renewal`] as often as
//! [`crate::lease::LeaseLength::RENEWALS`] says, and gets a [`ToProxy::Lease`] for each.

use crate::clients::{Answered, Question};
use crate::documents::SlotRange;
use crate::gate::{Answer, Order};
use crate::ids::{DatabaseUid, Epoch, NodeUid, Revision, ShardUid};
use crate::observation::ProxyObservation;
use crate::secret::Secret;
use crate::tuning::DatabaseTuning;
pub use crate::tuning::ProxySettings;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

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
    /// Whether this `cnm_exec` takes a [`Wish`].
    #[serde(default)]
    pub takes_wishes: bool,
    /// Whether this `cnm_exec` takes a [`Question`].
    #[serde(default)]
    pub takes_questions: bool,
}

/// What a proxy says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FromProxy {
    /// What a client wishes.
    Wish {
        /// The wish.
        wish: Wish,
    },
    /// What became of an order; see [`crate::gate`].
    Answer {
        /// That.
        answer: Answer,
    },
    /// A client asks about the clients of other proxies.
    Question {
        /// What.
        question: Question,
    },
    /// What became of a question that it was asked.
    Answered {
        /// That.
        answered: Answered,
    },
    /// It takes questions. Said once, to a `cnm_exec` that asks some.
    Asks {
        /// Whether it does.
        takes_questions: bool,
    },
    /// It wants its lease.
    Renewal {
        /// What it says.
        renewal: Renewal,
    },
    /// How it is.
    Observation(Box<ProxyObservation>),
}

/// What `cnm_exec` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ToProxy {
    /// What became of a wish.
    Granted {
        /// That.
        granted: Granted,
    },
    /// A client of another proxy asks about the clients of this one.
    Question {
        /// What.
        question: Question,
    },
    /// What became of a question that it asked.
    Answered {
        /// That.
        answered: Answered,
    },
    /// An order; see [`crate::gate`].
    Order {
        /// The order.
        order: Order,
    },
    /// What became of a renewal.
    Lease {
        /// That.
        lease: Lease,
    },
    /// What to serve.
    Config(Box<ProxyConfig>),
}

/// Most wishes of a proxy that are under way: one a database.
pub const WISHES_MAX: usize = 64;
/// How long a wish may take before its client is told that it is not known whether it will be granted.
pub const WISH_WAIT: Duration = Duration::from_secs(15);

/// `CONFIG SET notify-keyspace-events` of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Counts the wishes of a connection.
    pub number: u64,
    /// The client's database.
    pub database: DatabaseUid,
    /// The flags, as the client wrote them.
    pub notify_keyspace_events: String,
    /// The client's address.
    pub client: String,
}

/// What became of a [`Wish`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Its number.
    pub number: u64,
    /// Why it is not in force; `None`: it is.
    pub refusal: Option<String>,
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
    /// Its other limits; rates are this proxy's part of them.
    #[serde(default)]
    pub tuning: DatabaseTuning,
    /// The primaries, by slots, all of them: together they have every slot, whether they serve or
    /// not. Empty: none is known; clients wait, then get an error, until there is one.
    pub shards: Vec<ProxyShard>,
    /// `None`: it is served without a lease. Otherwise clients are answered only with one, or with the
    /// promises of all copies of a shard, which are named here. See [`crate::lease`].
    #[serde(default)]
    pub lease: Option<Vec<Copies>>,
    /// Its clients are closed, each as soon as it has nothing under way: this node leaves the cluster.
    #[serde(default)]
    pub drains: bool,
    /// Other nodes that serve it by its policy: who is missing in an answer about all clients if `cnm_exec` does
    /// not say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<NodeUid>,
}

/// The copies of a replica set, whose promises together stand in for a lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copies {
    /// The primary, as in [`ProxyDatabase::shards`].
    pub shard: ShardUid,
    /// Its epoch. Promises of another one are worth nothing.
    pub epoch: Epoch,
    /// The user by which each engine is asked; [`crate::documents::keeper_user`].
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Where the engines listen, the primary's too.
    pub addresses: Vec<ShardAddress>,
}

/// A proxy asks for its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Counts the renewals of a connection.
    pub number: u64,
    /// Revision of the configuration that all workers have applied.
    pub applied: Revision,
}

/// A [`Renewal`] as a node passes it on to the primary node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseCall {
    /// The proxy's node.
    pub node: NodeUid,
    /// Its process.
    pub process: u32,
    /// Revision of which it has applied everything that concerns it.
    pub applied: Revision,
}

/// What became of a [`Renewal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its number.
    pub number: u64,
    /// What the primary node said.
    pub outcome: LeaseOutcome,
    /// It is known that no majority of the configuration's voters answers, so there will be no primary node before that
    /// changes. A release that does not say it does not know it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_quorum: bool,
}

/// See [`Lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseOutcome {
    /// It is the proxy's for [`crate::lease::LeaseLength`], counted from the sending of the renewal.
    Granted,
    /// No.
    Refused(crate::lease::Refusal),
    /// The primary node was not reached, or was not sure that it is one.
    Unknown,
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
    /// Why it is not there, and no other one in its place yet, if that is known: clients hear it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
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
    use crate::observation::ProxyDatabaseObservation;

    /// Lines of the two kinds are told apart, and those of a release that knew only one are read.
    #[test]
    fn lines_are_told_apart() {
        let wish =
            r#"{"wish":{"number":1,"database":2,"notify_keyspace_events":"KEA","client":"c"}}"#;
        let read: FromProxy = serde_json::from_str(wish).unwrap();
        assert!(matches!(&read, FromProxy::Wish { wish } if wish.database == DatabaseUid(2)));
        assert_eq!(serde_json::to_string(&read).unwrap(), wish);
        let seen = serde_json::to_string(&ProxyObservation::default()).unwrap();
        let read: FromProxy = serde_json::from_str(&seen).unwrap();
        assert!(matches!(read, FromProxy::Observation(_)));
        let config = r#"{"revision":1,"cluster_id":"c","node":1,"databases":[{"uid":1,"name":"d",
            "listen":[],"password":null,"max_connections":3,"shards":[]}],"settings":{"threads":2}}"#;
        let ToProxy::Config(config) = serde_json::from_str(config).unwrap() else {
            panic!("a configuration");
        };
        assert!(!config.takes_wishes && !config.takes_questions);
        assert!(config.databases[0].elsewhere.is_empty());
        assert_eq!(config.databases[0].tuning, DatabaseTuning::default());
        assert!(!config.databases[0].drains);
        let mut seen = serde_json::to_value(ProxyDatabaseObservation::default()).unwrap();
        seen.as_object_mut().unwrap().remove("drains");
        let seen: ProxyDatabaseObservation = serde_json::from_value(seen).unwrap();
        assert_eq!(
            seen.drains, None,
            "one of 1.1.0 closes nobody, and is not waited for"
        );
        let question =
            r#"{"question":{"number":1,"database":2,"me":0,"engine":8,"words":["6c697374"]}}"#;
        let read: FromProxy = serde_json::from_str(question).unwrap();
        assert!(matches!(&read, FromProxy::Question { question } if question.homes.is_none()));
        assert_eq!(serde_json::to_string(&read).unwrap(), question);
        let read: ToProxy = serde_json::from_str(question).unwrap();
        assert!(matches!(read, ToProxy::Question { .. }));
        let read: FromProxy = serde_json::from_str(r#"{"takes_questions":true}"#).unwrap();
        assert!(matches!(
            read,
            FromProxy::Asks {
                takes_questions: true
            }
        ));
        let answered = r#"{"answered":{"number":1,"clients":[[3,"id=3\n"]],"more":true}}"#;
        let read: FromProxy = serde_json::from_str(answered).unwrap();
        assert!(matches!(&read, FromProxy::Answered { answered } if answered.more));
        let read: ToProxy = serde_json::from_str(answered).unwrap();
        assert!(matches!(read, ToProxy::Answered { .. }));
        let granted = r#"{"granted":{"number":1,"refusal":null}}"#;
        assert!(matches!(
            serde_json::from_str(granted).unwrap(),
            ToProxy::Granted { .. }
        ));
    }

    /// A `cnm_exec` of 1.1.0 does not say whether there is a quorum, and its proxy passes over that it is said.
    #[test]
    fn leases_of_the_last_release_are_read() {
        let old = r#"{"lease":{"number":7,"outcome":"unknown"}}"#;
        let ToProxy::Lease { lease } = serde_json::from_str(old).unwrap() else {
            panic!("a lease");
        };
        assert!(!lease.no_quorum);
        let line = serde_json::to_string(&ToProxy::Lease { lease }).unwrap();
        assert_eq!(line, old);
        let said = Lease {
            no_quorum: true,
            ..lease
        };
        let line = serde_json::to_value(ToProxy::Lease { lease: said }).unwrap();
        assert_eq!(line["lease"]["no_quorum"], true);
    }

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
        assert!(read(shard("")).serving && read(shard("")).trouble.is_none());
        assert!(!read(shard(r#","serving":false,"of_a_newer_release":1"#)).serving);
    }
}
