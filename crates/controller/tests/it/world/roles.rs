//! What engines do when their agents carry an order out.

use super::{World, started};
use controller::replica_set;
use model::command::EngineSpec;
use model::documents::Role;
use model::observation::{EngineState, KeeperObservation};
use model::replication::{
    HandOverTarget, PrimaryAddress, ReplicaSeen, ReplicationObservation, SyncedRecord,
};
use model::{Epoch, NodeUid, ShardUid};
use std::net::SocketAddr;

impl World {
    /// The node of an engine's folder.
    pub(crate) fn node_of(&self, uid: ShardUid) -> Option<NodeUid> {
        let mut nodes = self.nodes.iter();
        let found = nodes.find(|(_, node)| node.shards.iter().any(|s| s.shard == uid));
        found.map(|(node, _)| *node)
    }

    /// Whether engines of two nodes reach each other.
    pub(crate) fn are_linked(&self, one: NodeUid, other: NodeUid) -> bool {
        !self.apart.contains(&(one, other)) && !self.apart.contains(&(other, one))
    }

    fn address_of(&self, uid: ShardUid) -> Option<SocketAddr> {
        let cluster = self.cluster();
        let shard = cluster.shards.iter().find(|shard| shard.uid == uid)?;
        replica_set::address(&cluster, shard)
    }

    /// An engine is started, or the one that runs is taken as it is.
    pub(crate) fn starts(&mut self, node: NodeUid, spec: EngineSpec) {
        self.processes += 1;
        let run_id = format!("run-{}", self.processes);
        let shards = &mut self.nodes.get_mut(&node).unwrap().shards;
        let running = shards
            .iter_mut()
            .find(|s| s.shard == spec.shard && s.state == EngineState::Running);
        if let Some(seen) = running {
            seen.generation = spec.generation;
            return;
        }
        shards.retain(|s| s.shard != spec.shard);
        shards.push(started(spec, run_id));
    }

    /// `REPLICAOF NO ONE`, and the users of an epoch. An engine that is a primary already keeps its history.
    pub(crate) fn becomes_primary(&mut self, uid: ShardUid, epoch: Epoch) {
        let found = self.on_disk(uid).unwrap_or(0);
        let seen = self.seen(uid);
        if (seen.role, seen.epoch) != (Some(Role::Primary), Some(epoch)) {
            seen.keeper = None;
        }
        (seen.role, seen.epoch) = (Some(Role::Primary), Some(epoch));
        if let Some(replication) = seen.replication.as_mut().filter(|r| r.is_primary) {
            replication.failover_state.clear();
            return;
        }
        let before = seen.replication.take();
        // The same process has its data still; and it has pinged.
        let offset = before.as_ref().map_or(found, |r| r.offset).max(14);
        let before = before.unwrap_or_default();
        seen.replication = Some(ReplicationObservation {
            is_primary: true,
            replication_id: format!("history-{uid}-{epoch}"),
            replication_id2: before.replication_id,
            offset,
            ..ReplicationObservation::default()
        });
    }

    /// `REPLICAOF`.
    pub(crate) fn follows(&mut self, uid: ShardUid, epoch: Epoch, primary: &PrimaryAddress) {
        let seen = self.seen(uid);
        if (seen.role, seen.epoch) != (Some(Role::Replica), Some(epoch)) {
            seen.keeper = None;
        }
        (seen.role, seen.epoch) = (Some(Role::Replica), Some(epoch));
        let mut replication = seen.replication.take().unwrap_or_default();
        let same = !replication.is_primary && replication.primary == Some(primary.address);
        if !same {
            replication.link_up = false;
        }
        replication.is_primary = false;
        replication.replicas.clear();
        replication.failover_state.clear();
        replication.primary = Some(primary.address);
        seen.replication = Some(replication);
        self.connects(uid);
    }

    /// A replica gets its link to its primary, and with it the primary's data, if it reaches a primary there.
    pub(crate) fn connects(&mut self, uid: ShardUid) {
        let source = self.source_of(uid);
        let reached = source.filter(|source| {
            let nodes = self.node_of(uid).zip(self.node_of(*source));
            nodes.is_some_and(|(one, other)| self.are_linked(one, other))
        });
        let Some(source) = reached else {
            return;
        };
        self.link(uid, true, false);
        let linked = self.shard_seen(uid).and_then(|s| s.replication.as_ref());
        let Some(offset) = linked.filter(|r| r.link_up).map(|r| r.offset) else {
            return;
        };
        let Some(mine) = self.address_of(uid) else {
            return;
        };
        if let Some(replication) = &mut self.seen(source).replication {
            replication.replicas.retain(|r| r.address != mine);
            replication.replicas.push(ReplicaSeen {
                address: mine,
                online: true,
                offset,
                lag_seconds: 0,
            });
        }
    }

    /// A replica's link is lost, on both ends.
    pub(crate) fn disconnects(&mut self, uid: ShardUid, syncing: bool) {
        let source = self.source_of(uid);
        self.link(uid, false, syncing);
        let mine = self.address_of(uid);
        if let Some(source) = source
            && let Some(replication) = &mut self.seen(source).replication
        {
            replication.replicas.retain(|r| Some(r.address) != mine);
        }
    }

    /// The engine that a replica has for its primary, if it calls itself one.
    fn source_of(&self, uid: ShardUid) -> Option<ShardUid> {
        let at = self.shard_seen(uid)?.replication.as_ref()?.primary?;
        let cluster = self.cluster();
        let mut shards = cluster.shards.iter();
        let primary = shards.find(|s| replica_set::address(&cluster, s) == Some(at))?;
        let source = self.shard_seen(primary.uid)?.replication.as_ref()?;
        source.is_primary.then_some(primary.uid)
    }

    /// Replicas that have no link though they are to have one.
    pub(crate) fn unlinked(&self) -> Vec<ShardUid> {
        let all = self.nodes.values().flat_map(|node| &node.shards);
        let unlinked = all.filter(|seen| {
            let replication = seen.replication.as_ref();
            replication.is_some_and(|r| !r.is_primary && !r.link_up && r.primary.is_some())
        });
        unlinked.map(|seen| seen.shard).collect()
    }

    /// Engines that hand their role over.
    pub(crate) fn handing_over(&self) -> Vec<ShardUid> {
        let all = self.nodes.values().flat_map(|node| &node.shards);
        let at_it = all.filter(|seen| {
            let replication = seen.replication.as_ref();
            replication.is_some_and(|r| !r.failover_state.is_empty())
        });
        at_it.map(|seen| seen.shard).collect()
    }

    /// Links between nodes that do not reach each other any more, and to primaries that are none, are lost.
    pub(crate) fn lose_links(&mut self) {
        let all = self.nodes.values().flat_map(|node| &node.shards);
        let linked = all.filter(|s| s.replication.as_ref().is_some_and(|r| r.link_up));
        let linked: Vec<ShardUid> = linked.map(|seen| seen.shard).collect();
        for uid in linked {
            let source = self.source_of(uid);
            let nodes = source.and_then(|source| self.node_of(uid).zip(self.node_of(source)));
            if nodes.is_none_or(|(one, other)| !self.are_linked(one, other)) {
                self.disconnects(uid, false);
            }
        }
    }

    /// `Keep`; or why not.
    pub(crate) fn keeps(&mut self, uid: ShardUid, epoch: Epoch, user: String) -> Option<String> {
        let seen = self.seen(uid);
        if seen.epoch != Some(epoch) {
            return Some(format!("it has no role in epoch {epoch}"));
        }
        let replication = seen.replication.as_ref();
        if replication.is_none_or(|r| !r.is_primary && !r.link_up) {
            return Some("it does not hear its primary".to_owned());
        }
        seen.keeper = Some(KeeperObservation { user, alone: false });
        None
    }

    /// What an agent looks at before a promotion.
    pub(crate) fn holds_what_was_recorded(&self, uid: ShardUid, record: &SyncedRecord) -> bool {
        let Some(seen) = self.shard_seen(uid) else {
            return false;
        };
        seen.replication.as_ref().is_some_and(|replication| {
            let same = record.replication_id == replication.replication_id
                || record.replication_id == replication.replication_id2;
            seen.run_id.as_ref() == Some(&record.run_id)
                && !replication.sync_in_progress
                && replication.failover_state.is_empty()
                && same
                && replication.offset >= record.offset_floor
        })
    }

    /// Whether no `FAILOVER` is under way.
    pub(crate) fn is_at_rest(&self, uid: ShardUid) -> bool {
        let replication = self.shard_seen(uid).and_then(|s| s.replication.as_ref());
        replication.is_none_or(|replication| replication.failover_state.is_empty())
    }

    /// Whether an engine says that it is a primary, whatever role it was given.
    pub(crate) fn calls_itself_primary(&self, uid: ShardUid) -> bool {
        let replication = self.shard_seen(uid).and_then(|s| s.replication.as_ref());
        replication.is_some_and(|r| r.is_primary && r.failover_state.is_empty())
    }

    /// `FAILOVER TO`: whether it has succeeded. If not, the engine is primary as before.
    pub(crate) fn hands_over_to(
        &mut self,
        old: ShardUid,
        target: &HandOverTarget,
        epoch: Epoch,
    ) -> bool {
        let offset = self.offset(old);
        let follows = self.run_id(target.shard).as_ref() == Some(&target.run_id)
            && self.source_of(target.shard) == Some(old)
            && self.offset(target.shard) == offset
            && self
                .shard_seen(target.shard)
                .and_then(|seen| seen.replication.as_ref())
                .is_some_and(|r| r.link_up && !r.sync_in_progress);
        let (true, Some(offset), Some(address)) = (follows, offset, self.address_of(old)) else {
            return false;
        };
        let history = format!("history-{}-{epoch}", target.shard);
        let before = self.history(old).unwrap_or_default();
        let seen = self.seen(old);
        (seen.role, seen.epoch) = (Some(Role::Replica), Some(epoch));
        seen.replication = Some(ReplicationObservation {
            replication_id: history.clone(),
            replication_id2: before.clone(),
            offset,
            link_up: true,
            primary: Some(target.address),
            ..ReplicationObservation::default()
        });
        self.seen(target.shard).replication = Some(ReplicationObservation {
            is_primary: true,
            replication_id: history,
            replication_id2: before,
            offset,
            replicas: vec![ReplicaSeen {
                address,
                online: true,
                offset,
                lag_seconds: 0,
            }],
            ..ReplicationObservation::default()
        });
        true
    }
}
