//! Stored and observed state together.

use crate::member::Member;
use controller::observed::Observations;
use controller::reconcile::store_error;
use controller::state::ClusterState;
use model::view::{ClusterView, Observed};
use model::{ApiError, ErrorCode};
use std::time::Instant;
use store::State;

/// What was heard, with its age.
#[must_use]
pub fn observed(observations: &Observations, now: Instant) -> Vec<Observed> {
    let age = |at: Instant| now.saturating_duration_since(at).as_millis();
    observations
        .iter()
        .map(|heard| Observed {
            observation: (*heard.observation).clone(),
            age_ms: u64::try_from(age(heard.at)).unwrap_or(u64::MAX),
            clock_ahead_ms: observations.clock_ahead_ms(heard.observation.node),
        })
        .collect()
}

/// The view of a state. `confirmed`: a quorum has confirmed it, and this node is the primary node.
///
/// # Errors
/// `not_ready` while the node has not received the cluster's configuration yet.
pub fn build(member: &Member, state: &State, confirmed: bool) -> Result<ClusterView, ApiError> {
    let state = ClusterState::read(state)
        .map_err(|e| store_error(&e))?
        .ok_or_else(|| {
            ApiError::new(
                ErrorCode::NotReady,
                "this node has not received the cluster's configuration yet: try again in a moment"
                    .to_owned(),
            )
        })?;
    let status = member.store.status();
    let now = Instant::now();
    let observed = if status.is_leader {
        observed(&member.controller.observations(), now)
    } else {
        aged(member, now)
    };
    Ok(ClusterView {
        revision: state.revision,
        local_node: member.identity.node,
        primary_node: if confirmed {
            Some(status.node)
        } else {
            status.leader
        },
        has_quorum: confirmed,
        voters: status.voters.iter().map(|m| m.member.uid).collect(),
        cluster: state.cluster.doc,
        nodes: state.nodes.into_iter().map(|n| n.doc).collect(),
        databases: state.databases.into_iter().map(|d| d.doc).collect(),
        // What is left of a lost replica on a node that is away is no copy of anything any more.
        shards: state
            .shards
            .into_iter()
            .map(|s| s.doc)
            .filter(|shard| shard.lost.is_none() || shard.removed_by.is_none())
            .collect(),
        users: state.users.into_iter().map(|u| u.doc).collect(),
        operations: state.operations.into_iter().map(|o| o.doc).collect(),
        upgrade: state.upgrade.doc,
        observed,
    })
}

/// What the primary node had heard, older by the time since.
pub(crate) fn aged(member: &Member, now: Instant) -> Vec<Observed> {
    let known = member.last_known();
    let since = known
        .at
        .map_or(0, |at| now.saturating_duration_since(at).as_millis());
    let since = u64::try_from(since).unwrap_or(u64::MAX);
    let mut observed = known.observed;
    for one in &mut observed {
        one.age_ms = one.age_ms.saturating_add(since);
    }
    observed
}
