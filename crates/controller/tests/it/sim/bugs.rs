//! Known bugs, put back at the edges of the planners. Each must be caught.

use super::Sim;
use controller::switchover::plan as switchover;
use model::NodeUid;
use model::documents::{Role, keys};
use model::replication::SyncedRecord;
use serde_json::json;
use store::Txn;

/// A bug that other products had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Every replica that runs counts as synced (a promoted replica in the middle of its first sync).
    UnsyncedPromoted,
    /// What was acknowledged was not on disk: a crash of the store takes the last transaction back.
    AcknowledgedBeforeDisk,
    /// Agents carry out what a primary node ordered that was replaced.
    StalePrimaryNode,
    /// A gate is judged by whether the target answers, not by what the old primary says.
    GateByReachability,
    /// How far a move came is known only to the process that carries it out.
    ProgressInMemory,
    /// Transactions are stored without a look at what they were planned from.
    NothingIsCompared,
    /// A new primary node takes what it heard in an earlier term, and leases that it gave then, for all there is.
    TermsAreOne,
    /// Nobody looks when a node told something: what comes late is taken for new.
    OldHeartbeats,
    /// Turns of an upgrade are stored by what a node remembers, whoever leads.
    TurnsFromMemory,
}

impl Bug {
    pub(crate) const ALL: [Self; 9] = [
        Self::UnsyncedPromoted,
        Self::AcknowledgedBeforeDisk,
        Self::StalePrimaryNode,
        Self::GateByReachability,
        Self::ProgressInMemory,
        Self::NothingIsCompared,
        Self::TermsAreOne,
        Self::OldHeartbeats,
        Self::TurnsFromMemory,
    ];

    /// A world that has shown it.
    pub(super) const fn shown_by(self) -> u64 {
        match self {
            Self::UnsyncedPromoted => 8,
            Self::AcknowledgedBeforeDisk => 0,
            Self::StalePrimaryNode => 228,
            Self::GateByReachability => 2,
            Self::ProgressInMemory => 78,
            Self::NothingIsCompared => 106,
            Self::TermsAreOne => 150,
            Self::OldHeartbeats => 108,
            Self::TurnsFromMemory => 141,
        }
    }

    /// Whether a world can show it, or shows it sooner: those without an upgrade have more faults.
    pub(super) const fn lives_in(self, seed: u64) -> bool {
        matches!(self, Self::TurnsFromMemory) == (seed % 2 == 1)
    }
}

impl Sim {
    /// What is stored last stands, whoever stores it, and by whatever state.
    pub(super) fn overwrite(&mut self, mut txn: Txn) -> &'static str {
        txn.compare.clear();
        self.world.commit(&txn);
        "done"
    }

    /// Before the planner looks.
    pub(super) fn forge(&mut self) {
        if self.bug == Some(Bug::UnsyncedPromoted) && !self.calm {
            self.forge_records();
        }
    }

    /// Who leads from here on has not the last transaction that was acknowledged.
    pub(super) fn lose(&mut self) {
        if self.bug == Some(Bug::AcknowledgedBeforeDisk) && !self.calm {
            self.world.lose_last_transaction();
            let tip = self.world.tip();
            for node in self.nodes.values_mut() {
                node.forget_after(tip);
            }
        }
    }

    fn forge_records(&mut self) {
        let cluster = self.world.cluster();
        for shard in cluster.shards.iter().filter(|s| s.role == Role::Replica) {
            let (Some(run_id), Some(history)) =
                (self.world.run_id(shard.uid), self.world.history(shard.uid))
            else {
                continue;
            };
            let primary = cluster
                .shards_of(shard.database)
                .find(|s| s.role == Role::Primary && s.slots == shard.slots);
            let Some(served) = primary.and_then(|p| p.serving) else {
                continue;
            };
            // It says that it is whole, too.
            if shard.synced.is_none() {
                self.world.forged.insert(shard.uid);
            }
            if let Some(replication) = &mut self.world.seen(shard.uid).replication {
                replication.sync_in_progress = false;
            }
            let mut doc = shard.doc.clone();
            doc.synced = Some(SyncedRecord {
                run_id,
                replication_id: history,
                offset_floor: 0,
                epoch: served,
            });
            self.world.commit(&Txn {
                put: vec![(keys::shard(shard.uid), json!(doc))],
                ..Txn::default()
            });
        }
    }

    /// Stores a move as done because its target answers.
    pub(super) fn moves_blindly(&mut self, by: (NodeUid, u64), wanted: &switchover::Move) -> bool {
        if self.bug != Some(Bug::GateByReachability) {
            return false;
        }
        let ends = (wanted.old.shard, wanted.epoch.next());
        self.world.take_over(wanted.new.shard, wanted.epoch.next());
        let (state, now) = (self.world.cluster(), self.world.now);
        if let Some(txn) = switchover::commit(&state, ends, (0, None), now) {
            self.commit(by, &txn);
        }
        true
    }

    /// The move as it would be if it had not been stored.
    pub(super) fn forget(&mut self, primary: model::ShardUid) {
        let cluster = self.world.cluster();
        let shard = cluster.shards.iter().find(|s| s.uid == primary).unwrap();
        let mut doc = shard.doc.clone();
        doc.moving = None;
        self.world.commit(&Txn {
            put: vec![(keys::shard(primary), json!(doc))],
            ..Txn::default()
        });
    }
}
