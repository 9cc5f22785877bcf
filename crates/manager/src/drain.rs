//! This node is being stopped: its primaries go to other nodes first, as far as somebody can take them.
//! Clients of other nodes' proxies notice nothing of the stop then.

use crate::heartbeat;
use crate::member::Member;
use crate::primary;
use controller::state::ClusterState;
use model::documents::{Operation, OperationKind, OperationStatus, Role, Shard};
use model::intent::{Drained, Intent, Pace, Stayed};
use model::limits::DRAIN_WITHIN;
use model::{ErrorCode, OperationUid, ShardUid};
use std::time::{Duration, Instant};

/// How often is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pause before the primary node is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long giving up what is not done may take.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(2);
/// How long handing the part of the primary node over may take.
const DEMOTE_WITHIN: Duration = Duration::from_secs(3);
/// How long telling the primary node that this one stops may take.
const TELL_WITHIN: Duration = Duration::from_secs(2);
/// How long others hear that this node is no place for a primary. Whoever asked ends it before.
pub(crate) const STOPPING_FOR: Duration = Duration::from_mins(3);

/// Gives this node's primaries away. Returns when none is left that can go, at the latest after
/// [`DRAIN_WITHIN`].
pub async fn drain(member: &Member) -> Drained {
    let drained = give_away(member).await;
    // A node that has nothing to give away ends before its next heartbeat: others would take its stop for a failure.
    let _ = tokio::time::timeout(TELL_WITHIN, heartbeat::tell(member)).await;
    drained
}

async fn give_away(member: &Member) -> Drained {
    let deadline = Instant::now() + DRAIN_WITHIN;
    member.stops();
    let before = primaries(member);
    if before.is_empty() {
        give_primary_node_away(member).await;
        return Drained::default();
    }
    let mut trouble = None;
    if before.iter().any(|shard| has_replica(member, shard)) {
        let asked = tokio::time::timeout_at(deadline.into(), ask(member)).await;
        match asked {
            Ok(Ok(operations)) => follow(member, &operations, deadline).await,
            Ok(Err(error)) => trouble = Some(error.description),
            Err(_) => trouble = Some("no answer in time".to_owned()),
        }
    }
    let left = primaries(member);
    let stayed: Vec<Stayed> = left
        .iter()
        .map(|shard| Stayed {
            shard: shard.uid,
            database: shard.database,
            reason: why(member, shard, trouble.as_deref()),
        })
        .collect();
    let stays = |uid: &ShardUid| left.iter().any(|shard| shard.uid == *uid);
    let moved = before.iter().map(|shard| shard.uid);
    give_primary_node_away(member).await;
    Drained {
        moved: moved.filter(|uid| !stays(uid)).collect(),
        stayed,
    }
}

fn state(member: &Member) -> Option<ClusterState> {
    ClusterState::read(&member.store.state()).ok().flatten()
}

/// The primaries on this node, as this node knows.
fn primaries(member: &Member) -> Vec<Shard> {
    let me = member.identity.node;
    let shards = state(member).map(|state| state.shards).unwrap_or_default();
    shards
        .into_iter()
        .map(|stored| stored.doc)
        .filter(|shard| shard.node == me && shard.role == Role::Primary)
        .filter(|shard| shard.removed_by.is_none())
        .collect()
}

fn has_replica(member: &Member, primary: &Shard) -> bool {
    state(member).is_some_and(|state| {
        state.shards_of(primary.database).any(|shard| {
            shard.slots == primary.slots && shard.node != primary.node && shard.synced.is_some()
        })
    })
}

async fn ask(member: &Member) -> Result<Vec<OperationUid>, model::ApiError> {
    let seconds = DRAIN_WITHIN.as_secs();
    let intent = Intent::EnslaveNode {
        node: member.identity.node,
        demote_node: false,
        pass_over_busy: true,
        pace: Pace {
            at_once: None,
            step_within_seconds: u32::try_from(seconds).ok(),
        },
    };
    loop {
        match primary::intent(member, &intent).await {
            Ok(outcome) => return Ok(outcome.operations),
            // It may have been begun: what runs for this node is followed in any case.
            Err(error) if passes(&error) => tokio::time::sleep(ASK_AGAIN).await,
            Err(error) => return Err(error),
        }
    }
}

/// Whether asking again is likely to be answered. Without a quorum it is not: the node just stops.
const fn passes(error: &model::ApiError) -> bool {
    matches!(
        error.error_code,
        ErrorCode::Timeout | ErrorCode::NoPrimary | ErrorCode::WrongClusterStateId
    )
}

/// Waits until operations have ended or pause; what is not done by the deadline is given up, so that
/// nothing goes on while this node goes down.
async fn follow(member: &Member, operations: &[OperationUid], deadline: Instant) {
    while Instant::now() < deadline {
        let running = known(member, operations)
            .iter()
            .any(|o| matches!(o.status, OperationStatus::Active | OperationStatus::Pending));
        // What this node has not heard of yet has just begun.
        let heard_of = known(member, operations);
        let all = operations
            .iter()
            .all(|uid| heard_of.iter().any(|o| o.uid == *uid));
        if !running && all {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let left = known(member, operations);
    let Some(left) = left.iter().find(|operation| operation.ended.is_none()) else {
        return;
    };
    let intent = Intent::AbortOperation {
        operation: left.uid.clone(),
    };
    let given_up = tokio::time::timeout(GIVE_UP_WITHIN, primary::intent(member, &intent)).await;
    tracing::warn!(?given_up, "not every primary could be given away in time");
}

/// These operations, and others that give this node's primaries away.
fn known(member: &Member, operations: &[OperationUid]) -> Vec<Operation> {
    let me = Some(member.identity.node);
    let all = state(member)
        .map(|state| state.operations)
        .unwrap_or_default();
    all.into_iter()
        .map(|stored| stored.doc)
        .filter(|o| {
            let running = o.kind == OperationKind::EnslaveNode && o.node == me && o.ended.is_none();
            running || operations.contains(&o.uid)
        })
        .collect()
}

/// Why a primary is still here.
fn why(member: &Member, shard: &Shard, trouble: Option<&str>) -> String {
    let Some(state) = state(member) else {
        return "the configuration is not known".to_owned();
    };
    if !has_replica(member, shard) {
        return "it has no synced replica on another node".to_owned();
    }
    if let Some(trouble) = trouble {
        return trouble.to_owned();
    }
    let newest = state
        .operations
        .iter()
        .rfind(|operation| operation.database == shard.database && operation.node.is_some());
    let database = state.database(shard.database);
    if let Some(running) = database.and_then(|database| database.operation.as_ref()) {
        return format!("its database is busy with {running}");
    }
    newest
        .and_then(|operation| operation.waiting_on.clone().or(operation.error.clone()))
        .unwrap_or_else(|| "the node of its replica goes down, too".to_owned())
}

/// Another node leads the configuration store from here on, if one can: nobody has to find out by silence
/// that this one has gone.
async fn give_primary_node_away(member: &Member) {
    if !member.store.status().is_leader {
        return;
    }
    let intent = Intent::ChangePrimaryNode { node: None };
    let demoted = primary::intent_here(member, &intent);
    if let Ok(Err(error)) = tokio::time::timeout(DEMOTE_WITHIN, demoted).await {
        tracing::info!(%error, "this node stays the primary node");
    }
}
