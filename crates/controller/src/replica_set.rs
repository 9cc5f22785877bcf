//! Replica sets: the shards of a database that hold the same slots, one of them the primary.

use crate::database::deletion::is_lost;
use crate::observed::{self, Observations};
use crate::state::{ClusterState, Stored};
use model::documents::{Database, Role, Sensitivity, Shard, keeper_user};
use model::limits::{HEARTBEAT_EVERY, NODE_SILENT, REPLICA_SILENT};
use model::observation::{EngineState, ShardObservation};
use model::{ApiError, Epoch, ErrorCode, ShardUid};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A primary and its replicas. Shards that are being removed are no copies any more.
#[derive(Clone, Debug)]
pub struct ReplicaSet<'a> {
    /// Its primary.
    pub primary: &'a Stored<Shard>,
    /// Its replicas, by uid.
    pub replicas: Vec<&'a Stored<Shard>>,
}

impl ReplicaSet<'_> {
    /// The last epoch in which a primary of this set served. Records of it are what counts: in a later
    /// one no client has written yet.
    #[must_use]
    pub fn last_served(&self) -> Option<Epoch> {
        self.members().filter_map(|shard| shard.serving).max()
    }

    /// The user by which proxies get the promises of its copies, all of them, whether they are synced
    /// or not.
    #[must_use]
    pub fn keeper_user(&self) -> String {
        keeper_user(self.primary.epoch, self.members().map(|shard| shard.uid))
    }

    /// The primary, then the replicas.
    pub fn members(&self) -> impl Iterator<Item = &Stored<Shard>> {
        std::iter::once(self.primary).chain(self.replicas.iter().copied())
    }
}

/// The replica sets of a database, by slots.
#[must_use]
pub fn of_database<'a>(state: &'a ClusterState, database: &Database) -> Vec<ReplicaSet<'a>> {
    let copies = |role: Role| {
        state
            .shards_of(database.uid)
            .filter(move |shard| shard.role == role && shard.removed_by.is_none())
    };
    let mut sets: Vec<ReplicaSet<'a>> = copies(Role::Primary)
        .map(|primary| ReplicaSet {
            primary,
            replicas: copies(Role::Replica)
                .filter(|replica| replica.slots == primary.slots)
                .collect(),
        })
        .collect();
    sets.sort_by_key(|set| (set.primary.slots.first, set.primary.uid));
    sets
}

/// Where a shard's engine listens.
#[must_use]
pub fn address(state: &ClusterState, shard: &Shard) -> Option<SocketAddr> {
    let ip: IpAddr = state.node(shard.node)?.address.parse().ok()?;
    Some(SocketAddr::new(ip, shard.port))
}

/// What is known of the process that holds the role of a primary.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate<'a> {
    /// Nothing that counts: its node is not heard, or does not know itself.
    Unknown(String),
    /// It never had the role, so it cannot be lost.
    NotYet,
    /// It is gone for sure: its agent says so. Another process of the same shard may run.
    Gone(String),
    /// It is there.
    Alive(&'a ShardObservation),
}

/// See [`Fate`].
#[must_use]
pub fn fate<'a>(observed: &'a Observations, shard: &Shard, instant: Instant) -> Fate<'a> {
    let Some(run_id) = &shard.run_id else {
        return Fate::NotYet;
    };
    let Some(node) = observed.fresh(shard.node, instant) else {
        return Fate::Unknown(format!("node:{} is not heard", shard.node));
    };
    let name = format!("redis:{}", shard.uid);
    match observed::shard(node, shard.uid) {
        None => Fate::Gone(format!("{name} is not on node:{}", shard.node)),
        Some(seen) if seen.is_in_doubt() => Fate::Unknown(doubt(seen, shard)),
        Some(seen) => match (seen.state, &seen.run_id) {
            (EngineState::Stopped | EngineState::Failed, _) => {
                Fate::Gone(format!("{name} has stopped"))
            }
            (_, Some(other)) if other != run_id => Fate::Gone(format!("{name} was started again")),
            _ => Fate::Alive(seen),
        },
    }
}

fn doubt(seen: &ShardObservation, shard: &Shard) -> String {
    let why = seen.error.as_deref().unwrap_or("no reason known");
    let (node, uid) = (shard.node, shard.uid);
    format!("node:{node} does not know whether redis:{uid} runs ({why})")
}

/// Why a primary may be replaced though nobody says that it is gone: its node has been silent for as long as
/// the cluster's sensitivity says, or does not know what has become of it, and each recorded replica is heard
/// and has lost it. `None`: it may not.
#[must_use]
pub fn unheard(
    observed: &Observations,
    set: &ReplicaSet<'_>,
    sensitivity: Sensitivity,
    instant: Instant,
) -> Option<String> {
    let primary = set.primary;
    let silence = observed.silence(primary.node, instant);
    let silent = silence.is_some_and(|silence| silence >= sensitivity.node_silent());
    let seen = observed.fresh(primary.node, instant);
    let seen = seen.and_then(|node| observed::shard(node, primary.uid));
    let why = match seen.filter(|seen| seen.is_in_doubt()) {
        _ if silent => format!("node:{} is not heard", primary.node),
        Some(seen) => doubt(seen, primary),
        None => return None,
    };
    let served = set.last_served();
    let recorded = |shard: &&&Stored<Shard>| {
        let record = shard.synced.as_ref();
        served.is_some() && record.is_some_and(|record| Some(record.epoch) == served)
    };
    let mut recorded = set.replicas.iter().filter(recorded).peekable();
    recorded.peek()?;
    recorded
        .all(|shard| has_lost_its_primary(observed, shard, instant))
        .then(|| {
            let uid = primary.uid;
            format!("{why}, and no replica hears redis:{uid}")
        })
}

/// Whether the engine of a replica hears the primary, whoever else does.
#[must_use]
pub fn is_heard_by_a_replica(
    observed: &Observations,
    set: &ReplicaSet<'_>,
    instant: Instant,
) -> bool {
    let mut replicas = set.replicas.iter();
    replicas.any(|shard| hears_its_primary(observed, shard, instant) == Some(true))
}

fn has_lost_its_primary(observed: &Observations, shard: &Shard, instant: Instant) -> bool {
    hears_its_primary(observed, shard, instant) == Some(false)
}

/// Whether a replica's engine hears its primary; `None`: that is not known now.
fn hears_its_primary(observed: &Observations, shard: &Shard, instant: Instant) -> Option<bool> {
    let silence = observed.silence(shard.node, instant)?;
    let node = observed.fresh(shard.node, instant)?;
    let replication = observed::shard(node, shard.uid)?.replication.as_ref()?;
    let known = !replication.is_primary && silence < NODE_SILENT;
    known.then_some(replication.link_up && replication.last_io_seconds < REPLICA_SILENT)
}

/// For how long at most a replica may have heard nothing of its primary: what it was sent before, it has. Its engine
/// tells since when its link is down, whoever was the primary node then. `None`: not known.
#[must_use]
pub fn heard_its_primary_ago(
    observed: &Observations,
    shard: &Shard,
    instant: Instant,
) -> Option<Duration> {
    let node = observed.fresh(shard.node, instant)?;
    let replication = observed::shard(node, shard.uid)?.replication.as_ref()?;
    let told = if replication.link_up {
        u64::try_from(replication.last_io_seconds).ok()
    } else {
        replication.link_down_seconds
    };
    let age = observed.age(shard.node, instant)?;
    let told = told.map(|seconds| Duration::from_secs(seconds).saturating_add(age));
    told.map(|ago| ago + HEARD_WITHIN)
}

/// How coarse that is: engines tell times in whole seconds, and agents ask them as often as they tell.
pub(crate) const HEARD_WITHIN: Duration = Duration::from_secs(1).saturating_add(HEARTBEAT_EVERY);

/// A replica that holds what was recorded of it and could be promoted now.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its document.
    pub shard: &'a Stored<Shard>,
    /// How far its data go.
    pub offset: u64,
    /// Replication id of its data.
    pub history: String,
}

/// Whether a recorded replica could be promoted now, or why not. `None`: it has no record that counts.
#[must_use]
pub fn candidate<'a>(
    observed: &Observations,
    shard: &'a Stored<Shard>,
    last_served: Option<Epoch>,
    instant: Instant,
) -> Option<Result<Candidate<'a>, Doubt>> {
    let record = shard.synced.as_ref()?;
    if Some(record.epoch) != last_served {
        return None;
    }
    let name = format!("redis:{}", shard.uid);
    let Some(node) = observed.fresh(shard.node, instant) else {
        let reason = format!("{name} has the data, but node:{} is not heard", shard.node);
        return Some(Err(Doubt::Frozen(reason)));
    };
    let gone = || Some(Err(Doubt::Gone(format!("{name} had the data and is gone"))));
    let Some(seen) = observed::shard(node, shard.uid) else {
        return gone();
    };
    match (seen.state, &seen.run_id) {
        _ if seen.is_in_doubt() => {
            let reason = format!("{name} has the data, but {}", doubt(seen, shard));
            return Some(Err(Doubt::Frozen(reason)));
        }
        (EngineState::Stopped | EngineState::Failed, _) => return gone(),
        (_, Some(run_id)) if *run_id != record.run_id => return gone(),
        (EngineState::Running, Some(_)) => {}
        _ => {
            let reason = format!("{name} has the data, but does not answer");
            return Some(Err(Doubt::Frozen(reason)));
        }
    }
    let Some(replication) = &seen.replication else {
        let reason = format!("{name} has the data, but has not told how far");
        return Some(Err(Doubt::Frozen(reason)));
    };
    let same_history = replication.replication_id == record.replication_id
        || replication.replication_id2 == record.replication_id;
    if replication.sync_in_progress || !same_history || replication.offset < record.offset_floor {
        return Some(Err(Doubt::Gone(format!(
            "{name} has other data than was recorded"
        ))));
    }
    Some(Ok(Candidate {
        shard,
        offset: replication.offset,
        history: replication.replication_id.clone(),
    }))
}

/// A replica that has the data of a primary which does not serve now: what it has may be all that is left.
#[must_use]
pub(crate) fn last_resort<'a>(
    (state, observed): (&ClusterState, &Observations),
    set: &ReplicaSet<'a>,
    instant: Instant,
) -> Option<&'a Stored<Shard>> {
    let primary = set.primary;
    let serves = primary.serving == Some(primary.epoch);
    if serves && matches!(fate(observed, primary, instant), Fate::Alive(_)) {
        return None;
    }
    let served = set.last_served()?;
    let recorded = |shard: &Shard| shard.synced.as_ref().is_some_and(|r| r.epoch == served);
    let has_data = |shard: &Shard| recorded(shard) || shard.serving == Some(served);
    let mut replicas = set.replicas.iter().copied();
    replicas.find(|shard| has_data(shard) && !is_lost(state, observed, shard, instant))
}

/// Refuses what would delete a replica that may be all that is left of a primary's data.
///
/// # Errors
/// `not_ready`: see [`last_resort`].
pub(crate) fn may_be_deleted(
    known: (&ClusterState, &Observations),
    set: &ReplicaSet<'_>,
    instant: Instant,
) -> Result<(), ApiError> {
    let Some(replica) = last_resort(known, set, instant) else {
        return Ok(());
    };
    let primary = set.primary;
    Err(ApiError::new(
        ErrorCode::NotReady,
        format!(
            "redis:{} does not serve now, and redis:{}, which would be deleted, has its data: wait until one of them \
             serves (`rladmin status shards`), or bring node:{} back",
            primary.uid, replica.uid, primary.node
        ),
    ))
}

/// Why a recorded replica cannot be promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It may still be there: its record counts, and nothing may take its place.
    Frozen(String),
    /// Its data are gone for sure.
    Gone(String),
}

/// The uid of the best of some candidates: the one with the most data, then the lowest uid.
#[must_use]
pub fn best<'a>(candidates: &[Candidate<'a>]) -> Option<Candidate<'a>> {
    candidates
        .iter()
        .max_by_key(|c| (c.offset, std::cmp::Reverse(c.shard.uid)))
        .cloned()
}

/// Names of shards, for people.
#[must_use]
pub fn names(shards: impl IntoIterator<Item = ShardUid>) -> String {
    let names: Vec<String> = shards
        .into_iter()
        .map(|uid| format!("redis:{uid}"))
        .collect();
    names.join(", ")
}

/// A record goes on into a later epoch in which the data of the one before go on: the replica has a part
/// of their history, and what it lacks of the new epoch is bounded as ever, by the time after which a
/// replica without a link is not synced any more.
pub(crate) fn carry_record(shard: &mut Shard, served: Option<Epoch>, next: Epoch) {
    match &mut shard.synced {
        Some(record) if Some(record.epoch) == served => record.epoch = next,
        _ => shard.synced = None,
    }
}
