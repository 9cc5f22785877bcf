//! The stored documents, typed, with the revision at which each was written last.

use model::documents::{Cluster, Database, Event, Node, Operation, Severity, Shard, User, keys};
use model::limits;
use model::{DatabaseUid, NodeUid, Revision};
use serde::Serialize;
use serde_json::{Map, Value};
use store::{State, StoreError, Txn};

/// A document and the revision at which it was written last.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<T> {
    /// The document.
    pub doc: T,
    /// Its revision, to compare with in a transaction.
    pub revision: u64,
}

impl<T> std::ops::Deref for Stored<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.doc
    }
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterState {
    /// Revision of the store.
    pub revision: Revision,
    /// The cluster.
    pub cluster: Stored<Cluster>,
    /// Its nodes, by uid.
    pub nodes: Vec<Stored<Node>>,
    /// Its databases, by uid.
    pub databases: Vec<Stored<Database>>,
    /// Its shards, by uid.
    pub shards: Vec<Stored<Shard>>,
    /// Users of the platform, by uid.
    pub users: Vec<Stored<User>>,
    /// Operations, oldest first.
    pub operations: Vec<Stored<Operation>>,
    /// Numbers of the events that are kept, oldest first.
    pub events: Vec<u64>,
}

impl ClusterState {
    /// Reads the store's state; `None` before the cluster exists.
    ///
    /// # Errors
    /// When a document cannot be read.
    pub fn read(state: &State) -> Result<Option<Self>, StoreError> {
        let Some((cluster, revision)) = state.get::<Cluster>(keys::CLUSTER)? else {
            return Ok(None);
        };
        fn all<T: serde::de::DeserializeOwned>(
            state: &State,
            prefix: &str,
        ) -> Result<Vec<Stored<T>>, StoreError> {
            let list = state.list::<T>(prefix)?;
            Ok(list
                .into_iter()
                .map(|(doc, revision)| Stored { doc, revision })
                .collect())
        }
        let mut nodes = all::<Node>(state, keys::NODES)?;
        nodes.sort_by_key(|n| n.uid);
        let mut databases = all::<Database>(state, keys::DATABASES)?;
        databases.sort_by_key(|d| d.uid);
        let mut shards = all::<Shard>(state, keys::SHARDS)?;
        shards.sort_by_key(|s| s.uid);
        let mut users = all::<User>(state, keys::USERS)?;
        users.sort_by_key(|u| u.uid);
        let mut operations = all::<Operation>(state, keys::OPERATIONS)?;
        operations.sort_by(|a, b| a.uid.cmp(&b.uid));
        let events = state
            .entries
            .range(keys::EVENTS.to_owned()..)
            .map_while(|(key, _)| key.strip_prefix(keys::EVENTS)?.parse().ok())
            .collect();
        Ok(Some(Self {
            revision: state.revision,
            cluster: Stored {
                doc: cluster,
                revision,
            },
            nodes,
            databases,
            shards,
            users,
            operations,
            events,
        }))
    }

    /// A node.
    #[must_use]
    pub fn node(&self, uid: NodeUid) -> Option<&Stored<Node>> {
        self.nodes.iter().find(|n| n.uid == uid)
    }

    /// A database.
    #[must_use]
    pub fn database(&self, uid: DatabaseUid) -> Option<&Stored<Database>> {
        self.databases.iter().find(|d| d.uid == uid)
    }

    /// Shards of a database.
    pub fn shards_of(&self, uid: DatabaseUid) -> impl Iterator<Item = &Stored<Shard>> {
        self.shards.iter().filter(move |s| s.database == uid)
    }

    /// Memory promised to the shards of a node, bytes.
    #[must_use]
    pub fn promised_memory(&self, node: NodeUid) -> u64 {
        self.shards
            .iter()
            .filter(|s| s.node == node)
            .map(|s| s.memory_bytes)
            .sum()
    }
}

/// A transaction being put together: every document that it was planned from is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    txn: Txn,
    cluster: Cluster,
    cluster_revision: u64,
    cluster_changed: bool,
    events: Vec<u64>,
    now: jiff::Timestamp,
}

impl Change {
    /// Starts from a state.
    #[must_use]
    pub fn of(state: &ClusterState, now: jiff::Timestamp) -> Self {
        Self {
            txn: Txn::default(),
            cluster: state.cluster.doc.clone(),
            cluster_revision: state.cluster.revision,
            cluster_changed: false,
            events: state.events.clone(),
            now,
        }
    }

    /// The cluster's document, to be changed.
    pub fn cluster(&mut self) -> &mut Cluster {
        self.cluster_changed = true;
        &mut self.cluster
    }

    /// Writes a document that does not exist yet.
    pub fn create<T: Serialize>(&mut self, key: String, doc: &T) {
        self.txn.compare.push((key.clone(), 0));
        self.txn.put.push((key, value(doc)));
    }

    /// Writes a document over the revision that was read.
    pub fn replace<T: Serialize>(&mut self, key: String, revision: u64, doc: &T) {
        self.txn.compare.push((key.clone(), revision));
        self.txn.put.push((key, value(doc)));
    }

    /// Deletes a document that is at the revision that was read.
    pub fn delete(&mut self, key: String, revision: u64) {
        self.txn.compare.push((key.clone(), revision));
        self.txn.delete.push(key);
    }

    /// Adds an event; the oldest ones beyond the limit go.
    pub fn event(&mut self, severity: Severity, kind: &str, facts: &[(&str, Value)]) {
        let number = self.cluster.next_event;
        self.cluster().next_event = number + 1;
        let facts: Map<String, Value> = facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let event = Event {
            schema: 1,
            number,
            time: self.now,
            kind: kind.to_owned(),
            severity,
            facts,
        };
        self.txn.put.push((keys::event(number), value(&event)));
        self.events.push(number);
        while self.events.len() > limits::EVENTS_MAX {
            self.txn.delete.push(keys::event(self.events.remove(0)));
        }
    }

    /// The transaction.
    #[must_use]
    pub fn into_txn(mut self) -> Txn {
        if self.cluster_changed {
            self.txn
                .compare
                .push((keys::CLUSTER.to_owned(), self.cluster_revision));
            self.txn
                .put
                .push((keys::CLUSTER.to_owned(), value(&self.cluster)));
        }
        self.txn
    }
}

#[expect(
    clippy::expect_used,
    reason = "documents are maps with string keys: they always encode"
)]
fn value<T: Serialize>(doc: &T) -> Value {
    serde_json::to_value(doc).expect("a document encodes")
}
