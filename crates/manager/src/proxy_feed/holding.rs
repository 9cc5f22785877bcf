//! A proxy that comes while a primary hands its role over, or has lately. The order to hold went to those that
//! were there, so this one gets it now, before anything else: what it has in flight comes back first, as before
//! any move. A configuration that takes the shard away from it would have it give that up.

use crate::gates::Ordered;
use crate::member::Member;
use controller::state::ClusterState;
use jiff::Timestamp;
use model::documents::Shard;
use model::{Epoch, ShardUid};
use std::collections::BTreeSet;
use std::time::Duration;
use store::StoreError;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a proxy may take to hold. Meanwhile it is told nothing else, and gets no lease.
const HELD_WITHIN: Duration = Duration::from_secs(1);
/// How long after a change of roles a proxy may know only what was before.
const LATELY: Duration = Duration::from_secs(60);
/// A move that is done raises the epoch by one, one that is undone by two.
const EPOCHS: u64 = 2;
/// Most orders to one proxy when it comes.
const ORDERS_MAX: usize = 32;

/// Primaries whose role is being moved, with their epoch, that a proxy does not hold: it must not serve them
/// before they have another epoch.
pub(super) type Closed = BTreeSet<(ShardUid, Epoch)>;

/// What a proxy that has come has to hold first.
#[derive(Debug)]
pub(super) struct Holding {
    answers: JoinSet<Option<(ShardUid, Epoch)>>,
    until: Instant,
    /// Its time is over.
    expired: bool,
    closed: Closed,
}

impl Holding {
    /// Of a proxy that has just come; the orders are to be sent to it.
    pub(super) fn begin(state: Option<&ClusterState>, now: Timestamp) -> (Self, Vec<Ordered>) {
        let mut holding = Self {
            answers: JoinSet::new(),
            until: Instant::now() + HELD_WITHIN,
            expired: false,
            closed: Closed::new(),
        };
        let mut orders = Vec::new();
        let shards = state.iter().flat_map(|state| &state.shards);
        let moving = shards.clone().filter(|shard| shard.moving.is_some());
        holding.closed = moving.clone().map(|s| (s.uid, s.epoch)).collect();
        let moving = moving.map(|shard| (shard.database, shard.uid, shard.epoch));
        let before = shards.filter(|shard| has_changed_lately(shard, now));
        let before = before.flat_map(|shard| {
            let least = shard.epoch.0.saturating_sub(EPOCHS).max(1);
            let epochs = (least..shard.epoch.0).map(Epoch);
            epochs.map(|epoch| (shard.database, shard.uid, epoch))
        });
        for (database, shard, epoch) in moving.chain(before).take(ORDERS_MAX) {
            let (order, answer) = Ordered::hold(database, shard, epoch);
            orders.push(order);
            holding.answers.spawn(async move {
                // One that serves another epoch refuses, and has nothing to hold.
                let held = answer.await.is_ok_and(|answer| answer.refusal.is_none());
                held.then_some((shard, epoch))
            });
        }
        (holding, orders)
    }

    /// Whether it may be told everything else: it has answered, and holds what is being moved, or that is not
    /// being moved any more. One that was let go on by an order knows more than this node may know yet.
    pub(super) fn is_over(&self) -> bool {
        self.expired || (self.answers.is_empty() && self.closed.is_empty())
    }

    /// Waits for an answer, or for the end of its time; for ever if it is over.
    pub(super) async fn next(&mut self) {
        if self.is_over() {
            std::future::pending::<()>().await;
        }
        tokio::select! {
            Some(answer) = self.answers.join_next() => {
                if let Ok(Some(held)) = answer {
                    self.closed.remove(&held);
                }
            }
            () = tokio::time::sleep_until(self.until) => {
                self.expired = true;
                self.answers = JoinSet::new();
            }
        }
    }

    /// The documents have changed.
    pub(super) fn look(&mut self, member: &Member) -> Result<(), StoreError> {
        if self.is_over() {
            return Ok(());
        }
        let state = ClusterState::read(&member.store.state())?;
        let shards = || state.iter().flat_map(|state| &state.shards);
        self.closed.retain(|closed| {
            shards().any(|shard| (shard.uid, shard.epoch) == *closed && shard.moving.is_some())
        });
        Ok(())
    }

    /// What it does not hold, though it must not serve it.
    pub(super) const fn closed(&self) -> &Closed {
        &self.closed
    }
}

fn has_changed_lately(shard: &Shard, now: Timestamp) -> bool {
    shard.role_since.is_some_and(|since| {
        let age = now.duration_since(since);
        age.is_negative() || age.unsigned_abs() < LATELY
    })
}
