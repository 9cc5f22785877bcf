//! What engines do, and what happens to them.

use super::World;
use controller::replica_set;
use controller::switchover::plan::Move;
use jiff::Timestamp;
use model::documents::{Role, Shard};
use model::limits::{HANG_QUESTIONS, LOAD_FAILURES};
use model::observation::{EngineStall, EngineState, NodeObservation, ShardObservation, StallKind};
use model::replication::{ReplicaSeen, ReplicationObservation, SyncedRecord};
use model::{Epoch, ShardUid};

impl World {
    /// The engines of a move have changed roles: the old primary is a replica of the new one.
    pub(crate) fn handed_over(&mut self, wanted: &Move) {
        let epoch = wanted.epoch.next();
        let old = self.seen(wanted.old.shard);
        assert_eq!(old.run_id.as_ref(), Some(&wanted.old.run_id));
        let offset = old.replication.as_ref().unwrap().offset;
        let history = format!("history-{}-{epoch}", wanted.new.shard);
        old.role = Some(Role::Replica);
        old.epoch = Some(epoch);
        old.replication = Some(ReplicationObservation {
            replication_id: history.clone(),
            offset,
            link_up: true,
            primary: Some(wanted.new.address),
            ..ReplicationObservation::default()
        });
        let new = self.seen(wanted.new.shard).replication.as_mut().unwrap();
        assert_eq!(new.offset, offset, "the replica lags");
        *new = ReplicationObservation {
            is_primary: true,
            replication_id: history,
            offset,
            replicas: vec![ReplicaSeen {
                address: wanted.old.address,
                online: true,
                offset,
                lag_seconds: 0,
            }],
            ..ReplicationObservation::default()
        };
    }

    /// The agent of a new primary takes the role over.
    pub(crate) fn take_over(&mut self, shard: ShardUid, epoch: Epoch) {
        let seen = self.seen(shard);
        if seen.run_id.is_some() {
            seen.role = Some(Role::Primary);
            seen.epoch = Some(epoch);
        }
    }

    /// `FAILOVER` waits for the replica.
    pub(crate) fn waits_for_sync(&mut self, shard: ShardUid) {
        if let Some(replication) = &mut self.seen(shard).replication {
            replication.failover_state = "waiting-for-sync".to_owned();
        }
    }

    /// `FAILOVER` is in progress: the engine calls itself a replica already.
    pub(crate) fn hands_over(&mut self, shard: ShardUid) {
        if let Some(replication) = &mut self.seen(shard).replication {
            replication.failover_state = "failover-in-progress".to_owned();
            replication.is_primary = false;
        }
    }

    /// `FAILOVER` has come to nothing: the engine is primary as before.
    pub(crate) fn aborts(&mut self, shard: ShardUid) {
        if let Some(replication) = &mut self.seen(shard).replication
            && !replication.failover_state.is_empty()
        {
            replication.failover_state.clear();
            replication.is_primary = true;
        }
    }

    /// What an agent tells of engines that hang, and what engines hear of them.
    pub(crate) fn without_the_hung(&self, node: &mut NodeObservation) {
        if self.hung.is_empty() {
            return;
        }
        let cluster = self.cluster();
        let hung = self.hung.iter().filter_map(|uid| cluster.shard(*uid));
        let unheard: Vec<_> = hung
            .filter_map(|shard| replica_set::address(&cluster, shard))
            .collect();
        for seen in &mut node.shards {
            if self.hung.contains(&seen.shard) && seen.state == EngineState::Running {
                seen.state = EngineState::Unresponsive;
                seen.replication = None;
                seen.stall = Some(EngineStall {
                    kind: StallKind::Silent,
                    milliseconds: 60_000,
                    questions: HANG_QUESTIONS,
                    process_state: Some('T'),
                    cpu_ticks: Some(0),
                });
            }
            let replicas = seen.replication.iter_mut().flat_map(|r| &mut r.replicas);
            for replica in replicas.filter(|replica| unheard.contains(&replica.address)) {
                replica.lag_seconds = 60;
            }
        }
    }

    /// An engine is ended by order only if what it has is elsewhere, and answers.
    pub(super) fn may_be_ended(&self, uid: ShardUid) {
        let cluster = self.cluster();
        let shard = cluster.shard(uid).expect("a shard that is there");
        let set = cluster
            .shards_of(shard.database)
            .filter(|other| other.slots == shard.slots && other.removed_by.is_none());
        let elsewhere = set.filter(|other| other.uid != uid).any(|other| {
            let recorded = other.synced.as_ref().map(|record| &record.run_id);
            let counts = match other.role {
                Role::Primary => other.is_usable() && other.run_id.is_some(),
                Role::Replica => recorded.is_some() && recorded == self.run_id(other.uid).as_ref(),
            };
            counts && self.run_id(other.uid).is_some() && !self.hung.contains(&other.uid)
        });
        assert!(elsewhere, "redis:{uid} is ended, and nobody has its data");
        let recorded = shard.role == Role::Replica && shard.synced.is_some();
        assert!(!recorded, "redis:{uid} is ended, and may be promoted");
    }

    /// The files of a replica go only while its primary has the data and serves.
    pub(super) fn sets_aside(&mut self, uid: ShardUid, epoch: Epoch, decided: Timestamp) {
        let cluster = self.cluster();
        let shard = cluster.shard(uid).expect("a shard that is there");
        let set = cluster.shards_of(shard.database);
        let mut set = set.filter(|other| other.slots == shard.slots && other.removed_by.is_none());
        let serves =
            set.any(|other| other.uid != uid && self.takes_writes(other) && other.epoch == epoch);
        assert!(
            serves,
            "the files of redis:{uid} go, and nobody has its data"
        );
        let may_be_promoted = shard.role == Role::Primary || shard.synced.is_some();
        assert!(!may_be_promoted, "redis:{uid} may be needed");
        self.disk.remove(&uid);
        let seen = self.seen(uid);
        assert!(seen.load_failures >= LOAD_FAILURES && seen.pid.is_none());
        seen.load_failures = 0;
        seen.state = EngineState::Stopped;
        seen.set_aside = Some(decided);
    }

    /// A shard as its agent sees it.
    pub(crate) fn seen(&mut self, uid: ShardUid) -> &mut ShardObservation {
        let shards = self.nodes.values_mut().flat_map(|n| &mut n.shards);
        shards.into_iter().find(|s| s.shard == uid).unwrap()
    }

    pub(crate) fn shard_seen(&self, uid: ShardUid) -> Option<&ShardObservation> {
        let mut all = self.nodes.values().flat_map(|n| &n.shards);
        all.find(|s| s.shard == uid)
    }

    /// The process of a shard.
    pub(crate) fn run_id(&self, uid: ShardUid) -> Option<String> {
        self.shard_seen(uid)?.run_id.clone()
    }

    /// How far the data of an engine go.
    pub(crate) fn offset(&self, uid: ShardUid) -> Option<u64> {
        Some(self.shard_seen(uid)?.replication.as_ref()?.offset)
    }

    /// The history of its data.
    pub(crate) fn history(&self, uid: ShardUid) -> Option<String> {
        let replication = self.shard_seen(uid)?.replication.as_ref()?;
        Some(replication.replication_id.clone())
    }

    /// The epoch in which an engine lets clients write.
    pub(crate) fn primary_in(&self, uid: ShardUid) -> Option<Epoch> {
        let seen = self.shard_seen(uid)?;
        let primary = seen.replication.as_ref()?.is_primary;
        (primary && seen.role == Some(Role::Primary)).then_some(seen.epoch)?
    }

    /// Whether clients of the primary that the store names can write to it: no move holds them.
    pub(crate) fn takes_writes(&self, shard: &Shard) -> bool {
        !self.hung.contains(&shard.uid)
            && shard.moving.is_none()
            && self.primary_in(shard.uid) == Some(shard.epoch)
    }

    /// Writes that reach the primary, and as many of the replicas as are linked to it.
    pub(crate) fn write(&mut self, primary: ShardUid, bytes: u64) {
        let source = self.seen(primary).replication.as_mut().unwrap();
        source.offset += bytes;
        let (history, offset) = (source.replication_id.clone(), source.offset);
        for seen in self.nodes.values_mut().flat_map(|n| &mut n.shards) {
            if let Some(replication) = &mut seen.replication
                && replication.link_up
                && !self.hung.contains(&seen.shard)
                && replication.replication_id == history
            {
                replication.offset = offset;
            }
        }
    }

    /// What is on disk when an engine ends.
    pub(crate) fn save(&mut self, uid: ShardUid) {
        let Some(database) = self.shard_seen(uid).map(|seen| seen.database) else {
            return;
        };
        match self.offset(uid) {
            Some(offset) if self.persistent.contains(&database) => {
                self.disk.insert(uid, offset);
            }
            Some(_) => {
                self.disk.remove(&uid);
            }
            None => {}
        }
    }

    /// How far the data of an engine go that it would find on disk.
    pub(crate) fn on_disk(&self, uid: ShardUid) -> Option<u64> {
        self.disk.get(&uid).copied()
    }

    /// The record of an old primary that is a completed replica.
    pub(crate) fn record(&self, uid: ShardUid, epoch: Epoch) -> Option<SyncedRecord> {
        let seen = self.shard_seen(uid)?;
        let replication = seen.replication.as_ref()?;
        (!replication.is_primary && replication.link_up).then_some(SyncedRecord {
            run_id: seen.run_id.clone()?,
            replication_id: replication.replication_id.clone(),
            offset_floor: replication.offset,
            epoch,
        })
    }

    /// Somebody has started the engine again.
    pub(crate) fn restart(&mut self, uid: ShardUid) {
        self.save(uid);
        self.hung.remove(&uid);
        if self.run_id(uid).is_some() {
            self.processes += 1;
            let run_id = format!("run-{}", self.processes);
            let seen = self.seen(uid);
            seen.run_id = Some(run_id);
            (seen.role, seen.epoch, seen.replication) = (None, None, None);
            seen.keeper = None;
        }
    }

    /// A replica's link to its primary.
    pub(crate) fn link(&mut self, uid: ShardUid, up: bool, syncing: bool) {
        let Some((history, offset)) = self.source(uid) else {
            return;
        };
        if !up {
            self.seen(uid).keeper = None;
        }
        let Some(replication) = &mut self.seen(uid).replication else {
            return;
        };
        replication.link_up = up;
        replication.sync_in_progress = syncing;
        if up {
            if replication.replication_id != history {
                replication.replication_id2 =
                    std::mem::replace(&mut replication.replication_id, history);
            }
            replication.offset = offset;
        } else if syncing {
            replication.offset = 0;
        }
    }

    /// What a replica's primary has.
    pub(crate) fn source(&self, uid: ShardUid) -> Option<(String, u64)> {
        let at = self.shard_seen(uid)?.replication.as_ref()?.primary?;
        let cluster = self.cluster();
        let mut shards = cluster.shards.iter();
        let primary = shards.find(|s| replica_set::address(&cluster, s) == Some(at))?;
        let source = self.shard_seen(primary.uid)?.replication.as_ref()?;
        let has = (source.replication_id.clone(), source.offset);
        source.is_primary.then_some(has)
    }

    /// All faults end.
    pub(crate) fn mend(&mut self) {
        self.silent.clear();
        self.hung.clear();
        self.patient = true;
        let all: Vec<ShardUid> = self.cluster().shards.iter().map(|s| s.uid).collect();
        for uid in all {
            self.link(uid, true, false);
            self.connects(uid);
        }
    }

    /// The store comes back without its last transaction.
    pub(crate) fn lose_last_transaction(&mut self) {
        if let Some(before) = self.past.pop() {
            self.state = before;
            self.writes += 1;
        }
    }
}
