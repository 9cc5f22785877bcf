//! What databases did a while ago, as the primary node has heard it. It is lost with the program, and with
//! the leadership: the next primary node begins anew.

use crate::member::Member;
use crate::primary::{self, Primary};
use controller::state::ClusterState;
use model::ApiError;
use model::history::{HistoryAnswer, HistoryQuery, Sample};
use model::limits::HEARTBEAT_LOST;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Nodes tell of themselves as often.
const EVERY: Duration = Duration::from_secs(1);

/// Keeps what was heard, until the task is dropped.
pub async fn run(member: Arc<Member>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        record(&member);
    }
}

fn record(member: &Member) {
    let mut history = member
        .history
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if !member.store.status().is_leader {
        history.clear();
        return;
    }
    let Ok(Some(state)) = ClusterState::read(&member.store.state()) else {
        return;
    };
    let (observations, now) = (member.controller.observations(), Instant::now());
    let heard = observations
        .iter()
        .filter(|heard| now.saturating_duration_since(heard.at) <= HEARTBEAT_LOST);
    let nodes: Vec<_> = heard.map(|heard| &*heard.observation).collect();
    let seconds = state.databases.iter().map(|database| {
        let sample = Sample::newest(nodes.iter().copied(), database.uid);
        (database.uid, sample)
    });
    history.record(seconds);
}

/// What this node has kept.
#[must_use]
pub fn here(member: &Member, query: HistoryQuery) -> HistoryAnswer {
    let history = member
        .history
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let wanted = |uid: &model::DatabaseUid| query.database.is_none_or(|wanted| wanted == *uid);
    history
        .databases()
        .filter(wanted)
        .map(|uid| (uid, history.of(uid, query.interval)))
        .collect()
}

/// What the primary node has kept.
///
/// # Errors
/// `no_quorum` when none is known; `connect_error`.
pub async fn ask(member: &Member, query: HistoryQuery) -> Result<HistoryAnswer, ApiError> {
    match primary::find(member).await? {
        Primary::Me => Ok(here(member, query)),
        Primary::Other(_, address) => Ok(member.internode.history(&address, &query).await?),
    }
}
