//! A cluster in one process. The network can be cut between any two nodes: what is sent then is
//! lost, as in a real partition.

use bytes::Bytes;
use futures::future::BoxFuture;
use model::NodeUid;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{
    Member, RpcKind, State, Store, StoreConfig, StoreError, Transport, TransportError, Txn,
    TxnResult,
};
use tempfile::TempDir;

/// No wait takes longer on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Net {
    stores: Mutex<BTreeMap<u64, Store>>,
    cut: Mutex<BTreeSet<(u64, u64)>>,
    sent: Mutex<BTreeMap<(u64, RpcKindName), usize>>,
}

type RpcKindName = &'static str;

/// One node's end of the network.
pub(crate) struct End {
    net: Arc<Net>,
    me: u64,
}

impl End {
    pub(crate) fn new(net: &Arc<Net>, me: u64) -> Arc<Self> {
        Arc::new(Self {
            net: net.clone(),
            me,
        })
    }
}

impl Net {
    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.lock().unwrap().contains(&(from, to))
    }

    /// How many requests of this kind were sent to a node.
    pub(crate) fn sent(&self, to: u64, rpc: RpcKind) -> usize {
        self.sent
            .lock()
            .unwrap()
            .get(&(to, rpc.as_str()))
            .copied()
            .unwrap_or(0)
    }
}

impl Transport for End {
    fn call(
        &self,
        target: &Member,
        rpc: RpcKind,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (net, me, to) = (self.net.clone(), self.me, target.uid.0);
        assert_eq!(target.address, address(to));
        Box::pin(async move {
            *net.sent
                .lock()
                .unwrap()
                .entry((to, rpc.as_str()))
                .or_default() += 1;
            let lost = async || {
                tokio::time::sleep(timeout).await;
                Err(TransportError::Timeout)
            };
            if net.is_cut(me, to) {
                return lost().await;
            }
            let Some(store) = net.stores.lock().unwrap().get(&to).cloned() else {
                return Err(TransportError::Unreachable("connection refused".to_owned()));
            };
            // The other node goes on, even if this one does not wait any more.
            let answer = tokio::spawn(async move { store.handle(rpc, body).await }).await;
            if net.is_cut(to, me) {
                return lost().await;
            }
            match answer {
                Ok(answer) => answer.map_err(|error| TransportError::Refused(error.to_string())),
                Err(error) => Err(TransportError::Refused(error.to_string())),
            }
        })
    }
}

pub(crate) fn address(uid: u64) -> String {
    format!("127.0.0.{uid}:3342")
}

pub(crate) fn member(uid: u64) -> Member {
    Member {
        uid: NodeUid(uid),
        address: address(uid),
    }
}

pub(crate) fn uids(uids: impl IntoIterator<Item = u64>) -> BTreeSet<NodeUid> {
    uids.into_iter().map(NodeUid).collect()
}

pub(crate) struct Cluster {
    pub(crate) net: Arc<Net>,
    folders: BTreeMap<u64, TempDir>,
    tune: fn(&mut StoreConfig),
}

impl Cluster {
    /// Nodes 1 to `voters`, all voters; node 1 leads.
    pub(crate) async fn new(voters: u64, tune: fn(&mut StoreConfig)) -> Self {
        let mut cluster = Self {
            net: Arc::default(),
            folders: BTreeMap::new(),
            tune,
        };
        cluster.start(1).await;
        cluster.store(1).initialize(member(1)).await.unwrap();
        cluster.leader_among(&[1]).await;
        for uid in 2..=voters {
            cluster.join(uid).await;
        }
        cluster.store(1).set_voters(uids(1..=voters)).await.unwrap();
        cluster
    }

    /// Starts a node and makes it a learner.
    pub(crate) async fn join(&mut self, uid: u64) {
        self.start(uid).await;
        let leader = self.leader().await;
        leader.add_learner(member(uid)).await.unwrap();
    }

    pub(crate) fn config(&mut self, uid: u64) -> StoreConfig {
        let folder = self
            .folders
            .entry(uid)
            .or_insert_with(|| tempfile::tempdir().unwrap());
        let mut config = StoreConfig::new(NodeUid(uid), folder.path());
        config.fatal = Arc::new(|reason| panic!("the disk failed: {reason}"));
        (self.tune)(&mut config);
        config
    }

    /// Starts a node on its folder, made if absent.
    pub(crate) async fn start(&mut self, uid: u64) {
        let config = self.config(uid);
        let store = Store::open(config, End::new(&self.net, uid)).await.unwrap();
        self.net.stores.lock().unwrap().insert(uid, store);
    }

    /// Ends a node without any ado.
    pub(crate) async fn stop(&self, uid: u64) {
        let store = self.net.stores.lock().unwrap().remove(&uid).unwrap();
        store.shutdown().await;
    }

    /// Has each write of a node to its disk take so many ms longer.
    pub(crate) fn slow_down(&self, uid: u64, ms: u64) {
        let file = self.folders[&uid].path().join("slow-disk");
        std::fs::write(file, ms.to_string()).unwrap();
    }

    pub(crate) async fn stop_all(&self) {
        for uid in self.running() {
            self.stop(uid).await;
        }
    }

    pub(crate) fn store(&self, uid: u64) -> Store {
        self.net.stores.lock().unwrap().get(&uid).unwrap().clone()
    }

    pub(crate) fn running(&self) -> Vec<u64> {
        self.net.stores.lock().unwrap().keys().copied().collect()
    }

    /// Cuts all connections between these nodes and all others, there and back.
    pub(crate) fn cut_off(&self, these: &[u64]) {
        let all = 1..=9;
        let mut cut = self.net.cut.lock().unwrap();
        for a in all.clone().filter(|uid| these.contains(uid)) {
            for b in all.clone().filter(|uid| !these.contains(uid)) {
                cut.insert((a, b));
                cut.insert((b, a));
            }
        }
    }

    /// Cuts the connections between two nodes, there and back.
    pub(crate) fn cut(&self, a: u64, b: u64) {
        self.net.cut.lock().unwrap().extend([(a, b), (b, a)]);
    }

    pub(crate) fn heal(&self) {
        self.net.cut.lock().unwrap().clear();
    }

    /// The node that leads, found among all that run.
    pub(crate) async fn leader(&self) -> Store {
        self.leader_among(&self.running()).await
    }

    pub(crate) async fn leader_among(&self, uids: &[u64]) -> Store {
        let mut found = None;
        eventually("somebody leads", || {
            let mut stores = uids.iter().map(|uid| self.store(*uid));
            found = stores.find(|store| store.status().is_leader);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Does a transaction at whoever leads, until it is done for certain. Not for transactions that
    /// must not be done twice.
    pub(crate) async fn write(&self, txn: Txn) -> TxnResult {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            match self.leader().await.txn(txn.clone()).await {
                Ok(result) => return result,
                Err(
                    StoreError::NotLeader { .. } | StoreError::NoQuorum(_) | StoreError::Timeout,
                ) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "no transaction was possible in time"
            );
        }
    }

    /// Waits until all nodes that run have the same state as the leader; returns it.
    pub(crate) async fn converge(&self) -> Arc<State> {
        let state = loop {
            match self.leader().await.barrier().await {
                Ok(state) => break state,
                Err(StoreError::NotLeader { .. } | StoreError::NoQuorum(_)) => {}
                Err(error) => panic!("{error}"),
            }
        };
        eventually("all nodes have the state", || {
            self.running()
                .iter()
                .all(|uid| self.store(*uid).state().revision >= state.revision)
        })
        .await;
        for uid in self.running() {
            assert_eq!(self.store(uid).state().hash(), state.hash(), "node {uid}");
        }
        state
    }
}

pub(crate) fn put(key: impl Into<String>, value: impl serde::Serialize) -> Txn {
    Txn::new().put(key, &value).unwrap()
}

/// The value at a key.
pub(crate) fn get(state: &State, key: &str) -> Option<u64> {
    state.get::<u64>(key).unwrap().map(|(value, _)| value)
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not in time: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
