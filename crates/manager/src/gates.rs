//! Gates: a call of the primary node becomes an order to every proxy of this node. See [`model::gate`].

use crate::member::Member;
use crate::proxies::Proxies;
use crate::proxy_feed;
use controller::placement::plan::proxies;
use controller::state::ClusterState;
use model::documents::Shard;
use model::gate::{
    Answer, GateAnswer, GateCall, GateOrder, GateStep, Order, PATIENCE_MS, not_served,
};
use model::proxy::ProxyShard;
use model::{DatabaseUid, Epoch, ShardUid};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Most orders that wait for one proxy: a few moves at once, three steps each.
const ORDERS_MAX: usize = 64;
/// An order that is not answered for this long is forgotten; whoever waited has gone.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a proxy that may be serving may take to come, before it is asked to hold: whoever asks waits a
/// little longer. Before that, when connections to the next primary are to be opened, there is more time.
const COME_TO_HOLD: Duration = Duration::from_millis(400);
/// See [`COME_TO_HOLD`].
const COME_TO_PREPARE: Duration = Duration::from_secs(4);
/// Between two looks whether it has come.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// An order on its way to a proxy.
#[derive(Debug)]
pub struct Ordered {
    database: DatabaseUid,
    what: GateOrder,
    answer: oneshot::Sender<Answer>,
}

impl Ordered {
    /// To hold a primary's commands, and where its answer comes.
    pub fn hold(
        database: DatabaseUid,
        shard: ShardUid,
        epoch: Epoch,
    ) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, receiver) = oneshot::channel();
        let what = GateOrder::Hold {
            shard,
            epoch,
            patience_ms: PATIENCE_MS,
        };
        let ordered = Self {
            database,
            what,
            answer,
        };
        (ordered, receiver)
    }
}

/// Takes the orders of one proxy.
#[derive(Clone, Debug)]
struct Taker {
    process: u32,
    orders: mpsc::Sender<Ordered>,
}

/// The proxies of this node that take orders, by the number of their connection.
#[derive(Debug, Default)]
pub struct Gates {
    proxies: Mutex<BTreeMap<u64, Taker>>,
}

impl Gates {
    /// A proxy has come.
    pub fn open(&self, connection: u64, process: u32) -> mpsc::Receiver<Ordered> {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        self.proxies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(connection, Taker { process, orders });
        receiver
    }

    /// A proxy has gone.
    pub fn close(&self, connection: u64) {
        self.proxies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&connection);
    }

    fn takers(&self) -> Vec<Taker> {
        let proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        proxies.values().cloned().collect()
    }

    /// Those that take orders, once every process that may be serving is among them.
    ///
    /// # Errors
    /// Which one is not, in words.
    async fn all(
        &self,
        proxies: &Proxies,
        leased: &[u32],
        within: Duration,
    ) -> Result<Vec<Taker>, String> {
        let begun = Instant::now();
        loop {
            let takers = self.takers();
            let connected: Vec<u32> = takers.iter().map(|taker| taker.process).collect();
            match proxies.missing(&connected, leased) {
                None => return Ok(takers),
                Some(reason) if begun.elapsed() >= within => return Err(reason),
                Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Has proxies carry an order out.
    ///
    /// # Errors
    /// Why one of them did not. A node without a proxy has nothing to hold: no client is served there.
    async fn order(
        proxies: &[Taker],
        (database, required): (DatabaseUid, bool),
        what: GateOrder,
    ) -> Result<GateAnswer, String> {
        let (GateOrder::Prepare { shard, .. }
        | GateOrder::Hold { shard, .. }
        | GateOrder::Release { shard, .. }) = what;
        // By its policy others serve it, and no client of it is left here.
        let nothing = (!required).then(|| not_served(database, shard));
        let mut answers = Vec::new();
        for proxy in proxies {
            let (sender, receiver) = oneshot::channel();
            let ordered = Ordered {
                database,
                what: what.clone(),
                answer: sender,
            };
            proxy
                .orders
                .try_send(ordered)
                .map_err(|_| "too many orders wait for it".to_owned())?;
            answers.push(receiver);
        }
        let mut all = GateAnswer::default();
        for answer in answers {
            let answer = tokio::time::timeout(ANSWER_WITHIN, answer)
                .await
                .map_err(|_| "it does not answer".to_owned())?
                .map_err(|_| "it hangs, or has ended and is being started again".to_owned())?;
            match answer.refusal {
                Some(refusal) if Some(&refusal) != nothing.as_ref() => return Err(refusal),
                _ => {}
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
        ref leased,
    } = call;
    let known = member.store.status().heard_term;
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
    let of = (database, is_served_by_policy(member, database));
    let within = match what {
        GateStep::Prepare { .. } => COME_TO_PREPARE,
        GateStep::Hold { .. } => COME_TO_HOLD,
        // One that is not there is told with its configuration.
        GateStep::Release { .. } => {
            return Gates::order(&member.gates.takers(), of, order).await;
        }
    };
    let gates = &member.gates;
    let proxies = gates.all(&member.proxies, leased, within).await;
    let proxies = proxies
        .map_err(|reason| format!("the proxy of node:{}: {reason}", member.identity.node))?;
    let mut answer = Gates::order(&proxies, of, order).await?;
    answer.all = true;
    Ok(answer)
}

/// Whether this node's proxies serve a database by its policy, as far as this node knows.
fn is_served_by_policy(member: &Member, uid: DatabaseUid) -> bool {
    let state = ClusterState::read(&member.store.state());
    let Ok(Some(state)) = state else {
        return true;
    };
    let me = member.identity.node;
    let database = state.database(uid);
    database.is_none_or(|database| proxies(&state, database).contains(&me))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_proxy_that_may_be_serving_is_waited_for_and_then_refused() {
        let (gates, proxies) = (Arc::new(Gates::default()), Arc::new(Proxies::default()));
        let me = std::process::id();
        let soon = Duration::from_millis(20);
        let why = gates.all(&proxies, &[me], soon).await.unwrap_err();
        assert!(why.contains("may have a lease"), "{why}");
        let why = gates.all(&proxies, &[], soon).await.unwrap_err();
        assert!(why.contains("none has come yet"), "{why}");
        let (waits, known) = (Arc::clone(&gates), Arc::clone(&proxies));
        let all =
            tokio::spawn(async move { waits.all(&known, &[me], Duration::from_mins(1)).await });
        proxies.came(me);
        let _orders = gates.open(7, me);
        let takers = all.await.unwrap().unwrap();
        let processes: Vec<u32> = takers.iter().map(|taker| taker.process).collect();
        assert_eq!(processes, [me]);
        // Its connection ends.
        gates.close(7);
        proxies.left(me);
        let why = gates.all(&proxies, &[], soon).await.unwrap_err();
        assert!(why.contains("is not connected"), "{why}");
    }
}
