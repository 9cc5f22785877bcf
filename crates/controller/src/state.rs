//! The stored documents, typed, with the revision at which each was written last.

use model::documents::{
    Cluster, Database, Event, Node, Operation, Outages, Severity, Shard, User, keys,
};
use model::limits;
use model::upgrade::Upgrade;
use model::{DatabaseUid, NodeUid, OperationUid, Revision, ShardUid};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;
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
    /// Upgrades; revision 0: nothing is stored of them yet.
    pub upgrade: Stored<Upgrade>,
    /// What is down, as events have told; revision 0: nothing is stored of that yet.
    pub outages: Stored<Outages>,
    /// Numbers of the events that are kept, oldest first.
    pub events: Vec<u64>,
    index: Index,
}

impl ClusterState {
    /// Reads the store's state; `None` before the cluster exists.
    ///
    /// # Errors
    /// When a document cannot be read.
    pub fn read(state: &State) -> Result<Option<Self>, StoreError> {
        Self::read_after(None, state)
    }

    /// Reads the store's state. What has not been written since an earlier state of the same store is taken
    /// from that: a large cluster's documents are not all read again for each one that changes.
    ///
    /// # Errors
    /// When a document cannot be read.
    pub fn read_after(earlier: Option<&Self>, state: &State) -> Result<Option<Self>, StoreError> {
        let Some((cluster, revision)) = state.get::<Cluster>(keys::CLUSTER)? else {
            return Ok(None);
        };
        let old = earlier.map_or(&[][..], |earlier| &earlier.nodes);
        let find = |uid: &str| numbered(old, uid, |n: &Stored<Node>| n.uid.0);
        let mut nodes = all(state, keys::NODES, old, find)?;
        nodes.sort_by_key(|n| n.uid);
        let old = earlier.map_or(&[][..], |earlier| &earlier.databases);
        let find = |uid: &str| numbered(old, uid, |d: &Stored<Database>| d.uid.0);
        let mut databases = all(state, keys::DATABASES, old, find)?;
        databases.sort_by_key(|d| d.uid);
        let old = earlier.map_or(&[][..], |earlier| &earlier.shards);
        let find = |uid: &str| numbered(old, uid, |s: &Stored<Shard>| s.uid.0);
        let mut shards = all(state, keys::SHARDS, old, find)?;
        shards.sort_by_key(|s| s.uid);
        let old = earlier.map_or(&[][..], |earlier| &earlier.users);
        let find = |uid: &str| numbered(old, uid, |u: &Stored<User>| u.uid.0);
        let mut users = all(state, keys::USERS, old, find)?;
        users.sort_by_key(|u| u.uid);
        let old = earlier.map_or(&[][..], |earlier| &earlier.operations);
        let find = |uid: &str| {
            let found = old.binary_search_by(|o: &Stored<Operation>| o.uid.0.as_str().cmp(uid));
            found.ok()
        };
        let mut operations = all(state, keys::OPERATIONS, old, find)?;
        operations.sort_by(|a, b| a.uid.cmp(&b.uid));
        let (upgrade, upgraded) = state.get::<Upgrade>(keys::UPGRADE)?.unwrap_or_default();
        let (outages, told) = state.get::<Outages>(keys::OUTAGES)?.unwrap_or_default();
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
            index: Index::of(&shards),
            nodes,
            databases,
            shards,
            users,
            operations,
            upgrade: Stored {
                doc: upgrade,
                revision: upgraded,
            },
            outages: Stored {
                doc: outages,
                revision: told,
            },
            events,
        }))
    }

    /// A node.
    #[must_use]
    pub fn node(&self, uid: NodeUid) -> Option<&Stored<Node>> {
        let found = self.nodes.binary_search_by_key(&uid, |node| node.uid);
        self.nodes.get(found.ok()?)
    }

    /// A database.
    #[must_use]
    pub fn database(&self, uid: DatabaseUid) -> Option<&Stored<Database>> {
        let found = self.databases.binary_search_by_key(&uid, |d| d.uid);
        self.databases.get(found.ok()?)
    }

    /// A shard.
    #[must_use]
    pub fn shard(&self, uid: ShardUid) -> Option<&Stored<Shard>> {
        let found = self.shards.binary_search_by_key(&uid, |shard| shard.uid);
        self.shards.get(found.ok()?)
    }

    /// An operation.
    #[must_use]
    pub fn operation(&self, uid: &OperationUid) -> Option<&Stored<Operation>> {
        let found = self.operations.binary_search_by(|o| o.uid.cmp(uid));
        self.operations.get(found.ok()?)
    }

    /// Shards of a database, by uid.
    pub fn shards_of(&self, uid: DatabaseUid) -> impl Iterator<Item = &Stored<Shard>> {
        let of_it = self.index.of_database.get(&uid);
        let places = of_it.map_or(&[][..], Vec::as_slice);
        places.iter().filter_map(|place| self.shards.get(*place))
    }

    /// After how long without a heartbeat the platform acts upon the loss of a node.
    #[must_use]
    pub const fn node_silent(&self) -> Duration {
        self.cluster
            .doc
            .settings
            .failure_detection_sensitivity
            .node_silent()
    }

    /// Memory promised to the shards of a node, bytes.
    #[must_use]
    pub fn promised_memory(&self, node: NodeUid) -> u64 {
        self.index.on_node.get(&node).map_or(0, |on| on.memory)
    }

    /// How many shards a node has.
    #[must_use]
    pub fn shards_on(&self, node: NodeUid) -> usize {
        self.index.on_node.get(&node).map_or(0, |on| on.shards)
    }
}

/// Where the shards stand: to look through all of them for each database would be most of the work of a
/// large cluster's planner.
#[derive(Clone, Debug, Default, PartialEq)]
struct Index {
    of_database: BTreeMap<DatabaseUid, Vec<usize>>,
    on_node: BTreeMap<NodeUid, OnNode>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct OnNode {
    memory: u64,
    shards: usize,
}

impl Index {
    fn of(shards: &[Stored<Shard>]) -> Self {
        let mut index = Self::default();
        for (place, shard) in shards.iter().enumerate() {
            let of_it = index.of_database.entry(shard.database).or_default();
            of_it.push(place);
            let on = index.on_node.entry(shard.node).or_default();
            on.memory = on.memory.saturating_add(shard.memory_bytes);
            on.shards += 1;
        }
        index
    }
}

/// The documents under a prefix; `find` gives the place of one among the earlier ones by the rest of its key.
fn all<T: Clone + serde::de::DeserializeOwned>(
    state: &State,
    prefix: &str,
    earlier: &[Stored<T>],
    find: impl Fn(&str) -> Option<usize>,
) -> Result<Vec<Stored<T>>, StoreError> {
    let mut read = Vec::with_capacity(earlier.len());
    for (key, entry) in state.range(prefix) {
        let known = find(&key[prefix.len()..]).and_then(|place| earlier.get(place));
        if let Some(known) = known.filter(|known| known.revision == entry.revision) {
            read.push(known.clone());
        } else if let Some((doc, revision)) = state.get::<T>(key)? {
            read.push(Stored { doc, revision });
        }
    }
    Ok(read)
}

fn numbered<T>(earlier: &[Stored<T>], uid: &str, of: impl Fn(&Stored<T>) -> u64) -> Option<usize> {
    let uid: u64 = uid.parse().ok()?;
    earlier.binary_search_by_key(&uid, of).ok()
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
