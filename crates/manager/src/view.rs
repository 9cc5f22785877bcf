//! Stored and observed state together.

use crate::heartbeat;
use crate::member::{LastKnown, Member};
use controller::observed::Observations;
use controller::reconcile::store_error;
use controller::state::ClusterState;
use model::limits::HEARTBEAT_LOST;
use model::view::{ClusterView, Observed};
use model::{ApiError, ErrorCode, NodeUid};
use std::time::{Duration, Instant};
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
        let mut known = aged(member, now);
        answer(&mut known, &status.answering);
        with_own(known, member)
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
        primary_for_ms: None,
        removed: false,
    })
}

/// A view for people: of nodes that this primary node has not heard yet it says what the one before it had heard.
/// Nothing is planned from that.
///
/// # Errors
/// As [`build`].
pub fn shown(member: &Member, state: &State, confirmed: bool) -> Result<ClusterView, ApiError> {
    let mut view = build(member, state, confirmed)?;
    if member.store.status().is_leader {
        let now = Instant::now();
        let since = member.controller.observations().leases.since();
        let leads = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        view.primary_for_ms = Some(u64::try_from(leads.as_millis()).unwrap_or(u64::MAX));
        view.observed = told(member, now);
    }
    Ok(view)
}

/// What this primary node tells of every node; see [`shown`].
#[must_use]
pub fn told(member: &Member, now: Instant) -> Vec<Observed> {
    merged(&member.controller.observations(), &member.last_known(), now)
}

/// What a primary node has heard in its time, and of the others what the one before it had, if that was told shortly
/// before: how long they have been silent since is known then.
fn merged(heard: &Observations, before: &LastKnown, now: Instant) -> Vec<Observed> {
    let since = heard.leases.since();
    let mut all = observed(heard, now);
    if since.is_some() {
        // What was heard in an earlier time of this primary node has been overtaken.
        all.retain(|one| heard.is_of_this_time(one.observation.node));
    }
    let told_lately = |at: Instant| since.is_none_or(|since| at + HEARTBEAT_LOST >= since);
    if before.at.is_some_and(told_lately) {
        for one in aged_since(before, now) {
            let node = one.observation.node;
            if all.iter().all(|known| known.observation.node != node) {
                all.push(one);
            }
        }
    }
    all.sort_by_key(|one| one.observation.node);
    all
}

/// Who answers this node is heard by it, though no primary node tells so: where only the way to that is cut, it alone is not
/// heard.
fn answer(observed: &mut [Observed], answering: &[NodeUid]) {
    for one in observed {
        if answering.contains(&one.observation.node) {
            one.age_ms = 0;
        }
    }
}

/// A node knows itself, whoever hears of it.
fn with_own(mut observed: Vec<Observed>, member: &Member) -> Vec<Observed> {
    let me = member.identity.node;
    let known = observed.iter().position(|one| one.observation.node == me);
    let known = known.map(|place| observed.remove(place));
    let (services, clock_ahead_ms) = known.map_or_else(Default::default, |known| {
        (known.observation.services, known.clock_ahead_ms)
    });
    observed.push(Observed {
        observation: heartbeat::observe(member, &services),
        age_ms: 0,
        clock_ahead_ms,
    });
    observed.sort_by_key(|one| one.observation.node);
    observed
}

/// What the primary node had heard, older by the time since.
pub(crate) fn aged(member: &Member, now: Instant) -> Vec<Observed> {
    aged_since(&member.last_known(), now)
}

fn aged_since(known: &LastKnown, now: Instant) -> Vec<Observed> {
    let since = known
        .at
        .map_or(0, |at| now.saturating_duration_since(at).as_millis());
    let since = u64::try_from(since).unwrap_or(u64::MAX);
    let mut observed = known.observed.clone();
    for one in &mut observed {
        one.age_ms = one.age_ms.saturating_add(since);
    }
    observed
}

#[cfg(test)]
mod tests;
