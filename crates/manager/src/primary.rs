//! Asking the primary node, wherever it is. A question is asked again while no primary node is
//! known, as long as that is likely to pass; a change only when it has surely not been made.

use crate::levels;
use crate::member::Member;
use crate::transport::internode_address;
use crate::{removed, view};
use client::internode::CallError;
use controller::reconcile::store_error;
use model::documents::{Event, Node, keys};
use model::intent::{Intent, IntentOutcome};
use model::view::{ClusterView, Consistency};
use model::{ApiError, ErrorCode, NodeUid};
use std::time::{Duration, Instant};
use store::StoreError;

/// How long an election may take before the question is given up.
const ELECTION_WAIT: Duration = Duration::from_secs(5);
/// Silence of the primary node after which nobody waits for an election any more.
const SILENCE: Duration = Duration::from_secs(4);
/// Pause between two looks for the primary node.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where the primary node is.
#[derive(Clone, Debug)]
pub enum Primary {
    /// Here.
    Me,
    /// There.
    Other(NodeUid, String),
}

/// The primary node as the store knows it now, heard or not.
#[must_use]
pub fn known(member: &Member) -> Option<Primary> {
    let status = member.store.status();
    if status.is_leader {
        return Some(Primary::Me);
    }
    let leader = status.leader?;
    Some(Primary::Other(
        leader,
        internode_address(&member.store, leader)?,
    ))
}

/// Finds the primary node, waiting for a running election.
///
/// # Errors
/// `no_quorum` when none is known, or none was heard for so long that waiting is no use.
pub async fn find(member: &Member) -> Result<Primary, ApiError> {
    let deadline = Instant::now() + ELECTION_WAIT;
    loop {
        if member.is_removed() {
            return Err(removed(member));
        }
        let silent = member
            .last_known()
            .at
            .is_some_and(|at| at.elapsed() > SILENCE);
        match known(member) {
            Some(Primary::Me) => return Ok(Primary::Me),
            Some(other) if !silent => return Ok(other),
            _ if silent || Instant::now() > deadline => return Err(no_quorum(member)),
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// That this node was removed from its cluster, and what to do.
#[must_use]
pub fn removed(member: &Member) -> ApiError {
    ApiError::new(
        ErrorCode::NodeRemoved,
        format!(
            "node:{} was removed from cluster '{}': nothing can be asked of that here. {}",
            member.identity.node,
            member.identity.cluster_name,
            ErrorCode::NodeRemoved.remedy()
        ),
    )
}

fn no_quorum(member: &Member) -> ApiError {
    let status = member.store.status();
    let voters = status.voters.len();
    if !status.no_quorum && !status.answering.is_empty() {
        let me = member.identity.node;
        let names = status.answering.iter().map(|uid| format!("node:{uid}"));
        let names: Vec<String> = names.collect();
        return ApiError::new(
            ErrorCode::NoQuorum,
            format!(
                "no primary node is reached from node:{me}, but these voters of the configuration are: {}. Run it \
                 on one of them, and see the network between node:{me} and the others",
                names.join(", "),
            ),
        );
    }
    ApiError::new(
        ErrorCode::NoQuorum,
        format!(
            "no primary node: fewer than {} of {voters} voters of the configuration can be \
             reached. {}",
            voters / 2 + 1,
            ErrorCode::NoQuorum.remedy()
        ),
    )
}

/// The cluster's view.
///
/// # Errors
/// `not_ready` before the configuration has arrived.
pub async fn view(member: &Member, consistency: Consistency) -> Result<ClusterView, ApiError> {
    if consistency == Consistency::Linearizable {
        match confirmed_view(member).await {
            Ok(view) if !removed::by_view(member.identity.node, &view) => return Ok(view),
            Ok(_) => member.note_removed(),
            Err(error) => tracing::debug!(%error, "answering with what this node knows"),
        }
    }
    let mut view = view::shown(member, &member.store.state(), false)?;
    if consistency == Consistency::Local {
        // Not confirmed for this answer, but nothing speaks against it.
        let known = member
            .last_known()
            .at
            .is_some_and(|at| at.elapsed() < SILENCE);
        let status = member.store.status();
        let acked = status
            .quorum_age_ms
            .is_some_and(|ms| u128::from(ms) < SILENCE.as_millis());
        view.has_quorum = if status.is_leader { acked } else { known };
    }
    if member.is_removed() {
        let me = member.identity.node;
        (view.removed, view.has_quorum) = (true, false);
        view.nodes.retain(|node| node.uid != me);
    }
    Ok(view)
}

/// The view as the primary node has it. While the part of it passes to another node, it is asked again.
async fn confirmed_view(member: &Member) -> Result<ClusterView, ApiError> {
    tokio::time::timeout(ELECTION_WAIT, confirm(member))
        .await
        .unwrap_or_else(|_| Err(no_quorum(member)))
}

async fn confirm(member: &Member) -> Result<ClusterView, ApiError> {
    loop {
        let result = match find(member).await? {
            Primary::Me => here(member).await,
            Primary::Other(_, address) => match member.internode.view(&address).await {
                Err(CallError::Unreachable { .. }) => Err(no_quorum(member)),
                other => other.map_err(ApiError::from),
            },
        };
        match result {
            Err(error) if is_passing(&error) => tokio::time::sleep(LOOK_AGAIN).await,
            other => {
                let me = member.identity.node;
                return other.map(|view| ClusterView {
                    local_node: me,
                    ..view
                });
            }
        }
    }
}

/// Whether an election may be all that is in the way. Nothing was changed then: who was asked was not
/// reached, or is not the primary node.
fn is_passing(error: &ApiError) -> bool {
    matches!(error.error_code, ErrorCode::NoPrimary | ErrorCode::NoQuorum)
}

/// The view of this node, if it is the primary node.
///
/// # Errors
/// `no_quorum`, `no_primary`.
pub async fn here(member: &Member) -> Result<ClusterView, ApiError> {
    let state = member.store.barrier().await.map_err(|e| store_error(&e))?;
    view::shown(member, &state, true)
}

/// Carries an intent out at the primary node.
///
/// # Errors
/// As [`ErrorCode`] says.
pub async fn intent(member: &Member, intent: &Intent) -> Result<IntentOutcome, ApiError> {
    let deadline = Instant::now() + ELECTION_WAIT;
    loop {
        let result = match find(member).await? {
            Primary::Me => intent_here(member, intent).await,
            Primary::Other(_, address) => match member.internode.intent(&address, intent).await {
                Err(CallError::Unreachable { sent: false, .. }) => Err(no_quorum(member)),
                other => other.map_err(ApiError::from),
            },
        };
        match result {
            Err(error) if is_passing(&error) && Instant::now() < deadline => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            other => return other,
        }
    }
}

/// Carries an intent out here, if this is the primary node.
///
/// # Errors
/// As [`ErrorCode`] says.
pub async fn intent_here(member: &Member, intent: &Intent) -> Result<IntentOutcome, ApiError> {
    match intent {
        Intent::ChangePrimaryNode { node } => change_primary(member, *node).await,
        other if other.demotes() == Some(member.identity.node) => {
            // Roles are not moved while the leadership is: the next primary node does it. What would be
            // refused, or has nobody to do it, changes nothing.
            member.controller.check(other).await?;
            change_primary(member, None).await?;
            Err(ErrorCode::NoPrimary.into())
        }
        other => member.controller.request(other).await,
    }
}

/// Hands the part of the primary node to another node.
///
/// # Errors
/// As [`ErrorCode`] says.
pub(crate) async fn change_primary(
    member: &Member,
    wanted: Option<NodeUid>,
) -> Result<IntentOutcome, ApiError> {
    let status = member.store.status();
    if !status.is_leader {
        return Err(ErrorCode::NoPrimary.into());
    }
    if wanted == Some(status.node) {
        return Ok(IntentOutcome::default());
    }
    let target = successor(member, wanted)?;
    member
        .store
        .hand_over(target)
        .await
        .map_err(|e| store_error(&e))?;
    Ok(IntentOutcome::default())
}

/// The voter that becomes the primary node: the one that is wanted, or one that is not about to go away.
fn successor(member: &Member, wanted: Option<NodeUid>) -> Result<NodeUid, ApiError> {
    let status = member.store.status();
    let heard = member.controller.observations();
    let now = Instant::now();
    let stays = |uid: NodeUid| {
        let stopping = heard.fresh(uid, now).is_some_and(|seen| seen.stopping);
        let node = member.store.state().get::<Node>(&keys::node(uid));
        let away = match node {
            Ok(Some((node, _))) => node.maintenance.is_some() || node.leaving,
            _ => true,
        };
        !stopping && !away
    };
    let mut candidates: Vec<NodeUid> = status
        .voters
        .iter()
        .map(|m| m.member.uid)
        .filter(|uid| *uid != status.node && heard.fresh(*uid, now).is_some())
        .collect();
    levels::newest_first(member, &mut candidates);
    let mut candidates = candidates.into_iter();
    let target = match wanted {
        None => candidates.find(|uid| stays(*uid)),
        Some(uid) => candidates.find(|candidate| *candidate == uid),
    };
    target.ok_or_else(|| match wanted {
        Some(uid) if !status.voters.iter().any(|m| m.member.uid == uid) => ApiError::new(
            ErrorCode::NodeNotFound,
            format!("node:{uid} is no voter of the configuration, or does not exist"),
        ),
        Some(uid) => ApiError::new(
            ErrorCode::NodeDown,
            format!("node:{uid}, which should become the primary node, is not heard: bring it back, or name another one"),
        ),
        None => ApiError::new(
            ErrorCode::NoMajorityLeft,
            "no other node can become the primary node: none votes on the configuration, is heard and not \
             in maintenance mode. Add a node, or bring one back, first"
                .to_owned(),
        ),
    })
}

/// The newest events.
///
/// # Errors
/// `internal_error` when the store cannot be read.
pub async fn events(member: &Member) -> Result<Vec<Event>, ApiError> {
    let state = match find(member).await {
        Ok(Primary::Me) => member
            .store
            .barrier()
            .await
            .unwrap_or_else(|_| member.store.state()),
        Ok(Primary::Other(_, address)) => match member.internode.events(&address).await {
            Ok(events) => return Ok(events),
            Err(_) => member.store.state(),
        },
        Err(_) => member.store.state(),
    };
    events_of(&state).map_err(|e| store_error(&e))
}

/// Events of a state, oldest first.
///
/// # Errors
/// When one cannot be read.
pub fn events_of(state: &store::State) -> Result<Vec<Event>, StoreError> {
    Ok(state
        .list::<Event>(keys::EVENTS)?
        .into_iter()
        .map(|(event, _)| event)
        .collect())
}
