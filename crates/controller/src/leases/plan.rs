//! What must be so before a copy may ever be promoted while somebody still answers clients. Pure.

use crate::observed::Observations;
use crate::replica_set::ReplicaSet;
use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::Revision;
use model::command::AgentCommand;
use model::documents::{Database, Node, Shard, keys};
use model::observation::ShardObservation;
use std::time::Instant;
use store::Txn;

/// The order by which a copy's engine gives promises to those who know all copies, and why; `None`: it
/// does, or need not. A replica gives them while it hears its primary.
#[must_use]
pub fn keeper(
    database: &Database,
    set: &ReplicaSet<'_>,
    shard: &Shard,
    seen: &ShardObservation,
) -> Option<(AgentCommand, String)> {
    let epoch = set.primary.epoch;
    let needed = (database.leased || !set.replicas.is_empty()) && set.primary.is_usable();
    let has_role = seen.role == Some(shard.role) && seen.epoch == Some(epoch);
    let replication = seen.replication.as_ref();
    let linked = replication.is_some_and(|r| r.is_primary || r.link_up);
    let user = set.keeper_user();
    let gives = seen
        .keeper
        .as_ref()
        .is_some_and(|keeper| keeper.user == user);
    if !(needed && has_role && linked) || gives {
        return None;
    }
    let command = AgentCommand::Keep {
        shard: shard.uid,
        generation: shard.generation,
        run_id: seen.run_id.clone()?,
        epoch,
        user,
        password: set.primary.users.proxy.clone(),
    };
    let reason = format!("redis:{} gives no promises to proxies yet", shard.uid);
    Some((command, reason))
}

/// Before the first copy is recorded every proxy must answer clients only with a lease: the transaction
/// that says so, and why, or what is waited for. `None`: it has long been so, or there is no copy.
#[must_use]
pub fn turned_on(
    state: &ClusterState,
    observed: &Observations,
    database: &Stored<Database>,
    sets: &[ReplicaSet<'_>],
    (instant, now): (Instant, Timestamp),
) -> Option<Result<(Txn, String), String>> {
    if database.leased {
        return None;
    }
    let replicas = sets.iter().flat_map(|set| set.replicas.iter());
    let newest = Revision(replicas.map(|shard| shard.revision).max()?);
    let lacks = |node: &&Stored<Node>| {
        let seen = observed.fresh(node.uid, instant);
        let proxy = seen.and_then(|seen| seen.proxy.as_ref());
        proxy.is_none_or(|proxy| !proxy.leases || proxy.applied < newest)
    };
    if let Some(node) = state.nodes.iter().find(lacks) {
        let reason = format!(
            "the proxy of node:{} may serve it without a lease",
            node.uid
        );
        return Some(Err(reason));
    }
    let mut doc = database.doc.clone();
    doc.leased = true;
    let mut change = Change::of(state, now);
    change.replace(keys::database(doc.uid), database.revision, &doc);
    let reason = format!("db:{} is served only with a lease", doc.uid);
    Some(Ok((change.into_txn(), reason)))
}
