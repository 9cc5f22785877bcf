//! Replication switched on or off while a database serves. Pure.

use crate::observed::{self, Observations};
use crate::placement::plan as placement;
use crate::replica_set::{self, ReplicaSet};
use crate::request::{Fresh, new_shard, own_agent, shares};
use crate::state::{Change, ClusterState};
use model::documents::{Database, EvictionPolicy, Role, Shard, keys};
use model::units::format_size;
use model::{ApiError, ErrorCode, ShardUid};

/// Adds a replica for each primary. The memory limit of the database now covers both, so primaries may
/// get less than they have: never less than they use.
pub(crate) fn switch_on(
    (state, observed): (&ClusterState, &Observations),
    database: &Database,
    sets: &[ReplicaSet<'_>],
    fresh: &Fresh<'_>,
    change: &mut Change,
) -> Result<(), ApiError> {
    let shares = shares(database);
    for (set, share) in sets.iter().zip(&shares) {
        enough_for_what_is_there(observed, set.primary, *share, fresh)?;
    }
    let primaries: Vec<_> = sets
        .iter()
        .zip(&shares)
        .map(|(set, share)| (set.primary.node, set.primary.memory_bytes, *share))
        .collect();
    let nodes = placement::nodes_for_replicas(
        state,
        observed,
        &database.engine,
        (&primaries, database.shards_placement, database.rack_aware),
        fresh.instant,
    )?;
    let ports = placement::shard_ports(state, nodes.len())?;
    let uids = (state.cluster.next_shard.0..).map(ShardUid);
    let places = uids.zip(nodes).zip(ports);
    for (((uid, node), port), (set, share)) in places.zip(sets.iter().zip(shares)) {
        let primary = &set.primary.doc;
        let shard = Shard {
            node,
            port,
            role: Role::Replica,
            slots: primary.slots,
            epoch: primary.epoch,
            engine: primary.engine.clone(),
            memory_bytes: share,
            ..new_shard(uid, database, own_agent(primary.users.clone(), fresh))
        };
        change.cluster().next_shard = uid.next();
        change.create(keys::shard(uid), &shard);
    }
    Ok(())
}

/// Whether primaries that get a lower memory limit use less than that, where their engines could give up nothing, or only keys
/// that expire: else the next write would be refused.
pub(crate) fn may_shrink(
    (state, observed): (&ClusterState, &Observations),
    database: &Database,
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    let gives_up_any = matches!(
        database.eviction_policy,
        EvictionPolicy::AllkeysLru | EvictionPolicy::AllkeysLfu | EvictionPolicy::AllkeysRandom
    );
    if gives_up_any {
        return Ok(());
    }
    let sets = replica_set::of_database(state, database);
    for (set, share) in sets.iter().zip(shares(database)) {
        let primary = set.primary;
        let node = observed.fresh(primary.node, fresh.instant);
        let seen = node.and_then(|node| observed::shard(node, primary.uid));
        let used = seen.map_or(0, |seen| seen.used_memory);
        if share < primary.memory_bytes && used >= share {
            return Err(ApiError::new(
                ErrorCode::InsufficientResources,
                format!(
                    "redis:{} would get {} and uses {}: leave memory_size larger, delete keys first, or set an \
                     eviction_policy of all keys with the same command",
                    primary.uid,
                    format_size(share),
                    format_size(used)
                ),
            ));
        }
    }
    Ok(())
}

fn enough_for_what_is_there(
    observed: &Observations,
    primary: &Shard,
    share: u64,
    fresh: &Fresh<'_>,
) -> Result<(), ApiError> {
    if share >= primary.memory_bytes {
        return Ok(());
    }
    let seen = observed
        .fresh(primary.node, fresh.instant)
        .and_then(|node| observed::shard(node, primary.uid));
    match seen {
        Some(seen) if seen.used_memory < share => Ok(()),
        Some(seen) => Err(ApiError::new(
            ErrorCode::InsufficientResources,
            format!(
                "memory_size covers primaries and replicas: redis:{} would get {} and uses {}; raise \
                 memory_size with the same command",
                primary.uid,
                format_size(share),
                format_size(seen.used_memory)
            ),
        )),
        None => Err(ApiError::new(
            ErrorCode::NotReady,
            format!(
                "how much memory redis:{} uses is not known: try again when node:{} is heard",
                primary.uid, primary.node
            ),
        )),
    }
}

/// Takes the replicas away: from here on they are no copies, and their agents remove them.
pub(crate) fn switch_off(
    known: (&ClusterState, &Observations),
    sets: &[ReplicaSet<'_>],
    fresh: &Fresh<'_>,
    change: &mut Change,
) -> Result<(), ApiError> {
    for set in sets {
        replica_set::may_be_deleted(known, set, fresh.instant)?;
    }
    for replica in sets.iter().flat_map(|set| &set.replicas) {
        let mut doc = replica.doc.clone();
        doc.removed_by = Some(fresh.operation.clone());
        doc.synced = None;
        change.replace(keys::shard(doc.uid), replica.revision, &doc);
    }
    Ok(())
}
