//! Gates: a call of the primary node becomes an order to every proxy of this node. See [`model::gate`].

use crate::member::Member;
use crate::proxy_feed;
use controller::state::ClusterState;
use model::documents::Shard;
use model::gate::{Answer, GateAnswer, GateCall, GateOrder, GateStep, Order};
use model::proxy::ProxyShard;
use model::{DatabaseUid, ShardUid};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Most orders that wait for one proxy: a few moves at once, three steps each.
const ORDERS_MAX: usize = 64;
/// An order that is not answered for this long is forgotten; whoever waited has gone.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// An order on its way to a proxy.
#[derive(Debug)]
pub struct Ordered {
    database: DatabaseUid,
    what: GateOrder,
    answer: oneshot::Sender<Answer>,
}

/// The proxies of this node that take orders, by the number of their connection.
#[derive(Debug, Default)]
pub struct Gates {
    proxies: Mutex<BTreeMap<u64, mpsc::Sender<Ordered>>>,
}

impl Gates {
    /// A proxy has come.
    pub fn open(&self, connection: u64) -> mpsc::Receiver<Ordered> {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        self.proxies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(connection, sender);
        receiver
    }

    /// A proxy has gone.
    pub fn close(&self, connection: u64) {
        self.proxies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&connection);
    }

    /// Has every proxy carry an order out.
    ///
    /// # Errors
    /// Why one of them did not. A node without a proxy has nothing to hold: no client is served there.
    async fn order(&self, database: DatabaseUid, what: GateOrder) -> Result<GateAnswer, String> {
        let proxies: Vec<_> = self
            .proxies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        let mut answers = Vec::new();
        for proxy in &proxies {
            let (sender, receiver) = oneshot::channel();
            let ordered = Ordered {
                database,
                what: what.clone(),
                answer: sender,
            };
            proxy
                .try_send(ordered)
                .map_err(|_| "too many orders wait for the proxy".to_owned())?;
            answers.push(receiver);
        }
        let mut all = GateAnswer::default();
        for answer in answers {
            let answer = tokio::time::timeout(ANSWER_WITHIN, answer)
                .await
                .map_err(|_| "the proxy does not answer".to_owned())?
                .map_err(|_| "the proxy has gone".to_owned())?;
            if let Some(refusal) = answer.refusal {
                return Err(refusal);
            }
            all.proxies += 1;
            all.held_us = all.held_us.max(answer.held_us);
            all.waited += answer.waited;
        }
        Ok(all)
    }
}

/// Orders of one proxy that are not answered yet.
#[derive(Debug, Default)]
pub struct Pending {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Answer>>,
}

impl Pending {
    /// Gives an order its number.
    pub fn number(&mut self, ordered: Ordered) -> Order {
        // Whoever waited for these has gone.
        self.waiting.retain(|_, sender| !sender.is_closed());
        self.last += 1;
        self.waiting.insert(self.last, ordered.answer);
        Order {
            id: self.last,
            database: ordered.database,
            what: ordered.what,
        }
    }

    /// Passes an answer on.
    pub fn answered(&mut self, answer: Answer) {
        if let Some(sender) = self.waiting.remove(&answer.id) {
            // Whoever waited may have gone.
            let _ = sender.send(answer);
        }
    }
}

/// Carries a call of the primary node out.
///
/// # Errors
/// Why not, in words.
pub async fn call(member: &Member, call: GateCall) -> Result<GateAnswer, String> {
    let GateCall {
        database,
        shard,
        epoch,
        what,
        term,
    } = call;
    let known = member.store.status().term;
    if term != 0 && term < known {
        return Err(format!(
            "this is an order of an earlier primary node: of term {term}, {known} is known"
        ));
    }
    let next = |uid: ShardUid| in_next_epoch(member, uid, &call);
    let order = match what {
        GateStep::Prepare { next: uid } => GateOrder::Prepare {
            shard,
            epoch,
            next: next(uid)?,
        },
        GateStep::Hold { patience_ms } => GateOrder::Hold {
            shard,
            epoch,
            patience_ms,
        },
        GateStep::Release { next: uid } => GateOrder::Release {
            shard,
            next: next(uid)?,
        },
    };
    member.gates.order(database, order).await
}

/// A shard as this node's proxies will reach it when it is the primary of the next epoch.
fn in_next_epoch(member: &Member, uid: ShardUid, call: &GateCall) -> Result<ProxyShard, String> {
    let unknown = || format!("this node does not know redis:{uid} yet");
    let state = ClusterState::read(&member.store.state())
        .map_err(|e| e.to_string())?
        .ok_or_else(unknown)?;
    let stored = state.shards.iter().find(|s| s.uid == uid);
    let stored = stored.ok_or_else(unknown)?;
    let shard = Shard {
        role: model::documents::Role::Primary,
        epoch: call.epoch.next(),
        serving: Some(call.epoch.next()),
        ..stored.doc.clone()
    };
    let me = member.identity.node;
    proxy_feed::proxy_shard(&state, me, &member.program.config, &shard).ok_or_else(unknown)
}
