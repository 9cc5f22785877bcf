//! What installers and operators say of upgrades becomes one transaction. Pure.

use super::level::{self, Known, note_begin, opened, write};
use super::order;
use crate::observed::Observations;
use crate::request::Fresh;
use crate::state::{Change, ClusterState};
use model::documents::Severity;
use model::intent::IntentOutcome;
use model::upgrade::{
    LevelRange, NodePhase, NodeRelease, NodeUpgrade, ReleaseFacts, SOAK_SECONDS_MAX, Upgrade,
};
use model::{ApiError, ErrorCode, NodeUid};
use serde_json::json;
use store::Txn;

type Planned = Result<(Txn, IntentOutcome), ApiError>;

fn refused(code: ErrorCode, text: impl std::fmt::Display) -> ApiError {
    ApiError::new(code, format!("{text}. {}", code.remedy()))
}

fn planned(change: Change) -> (Txn, IntentOutcome) {
    (change.into_txn(), IntentOutcome::default())
}

/// An installer says what a node runs, or is about to run.
///
/// # Errors
/// `upgrade_installer_running`, `upgrade_not_finalized`, `upgrade_level_unsupported`, `node_not_found`.
pub(crate) fn node_release(
    (state, observed): (&ClusterState, &Observations),
    node: NodeUid,
    (phase, release): (NodePhase, &ReleaseFacts),
    fresh: &Fresh<'_>,
) -> Planned {
    if state.node(node).is_none() {
        return Err(refused(
            ErrorCode::NodeNotFound,
            format!("there is no node:{node}"),
        ));
    }
    let mut doc = state.upgrade.doc.clone();
    // What was said of nodes that have left the cluster says nothing any more.
    doc.nodes.retain(|named| state.node(named.node).is_some());
    let mut change = Change::of(state, fresh.now);
    let heard = observed.fresh(node, fresh.instant);
    let runs = heard.map(|seen| ReleaseFacts {
        version: seen.software_version.clone(),
        build_id: seen.build_id.clone(),
        levels: LevelRange {
            min: seen.feature_min,
            max: seen.feature_max,
        },
    });
    if phase == NodePhase::Begin {
        may_begin(state, &doc, node, release)?;
        let from = runs.as_ref().map(|runs| runs.version.as_str());
        if let (None, Some(from)) = (&doc.current, from)
            && order::compare(&release.version, from).is_gt()
        {
            doc.current = Some(opened(from, &release.version, fresh.now));
            note_begin(&mut change, from, &release.version);
        }
    }
    let entry = entry(&mut doc, node);
    match phase {
        NodePhase::Begin => {
            entry.release = entry.release.take().or(runs);
            if entry.under_way.as_ref().map(|under_way| &under_way.to) != Some(release) {
                entry.under_way = Some(NodeUpgrade {
                    to: release.clone(),
                    began: fresh.now,
                    extra: serde_json::Map::new(),
                });
            }
        }
        NodePhase::Done => {
            entry.release = Some(release.clone());
            entry.under_way = None;
            change.event(
                Severity::Info,
                "node_release_changed",
                &[
                    ("node_uid", json!(node)),
                    ("new_val", json!(release.version)),
                ],
            );
        }
        NodePhase::Back => entry.under_way = None,
    }
    if doc == state.upgrade.doc {
        return Ok((Txn::default(), IntentOutcome::default()));
    }
    write(&mut change, state, doc);
    Ok(planned(change))
}

fn entry(doc: &mut Upgrade, node: NodeUid) -> &mut NodeRelease {
    let at = match doc.nodes.iter().position(|named| named.node == node) {
        Some(at) => at,
        None => {
            doc.nodes.push(NodeRelease {
                node,
                release: None,
                under_way: None,
                extra: serde_json::Map::new(),
            });
            doc.nodes.len() - 1
        }
    };
    &mut doc.nodes[at]
}

fn may_begin(
    state: &ClusterState,
    doc: &Upgrade,
    node: NodeUid,
    release: &ReleaseFacts,
) -> Result<(), ApiError> {
    let level = doc.binding_level(state.cluster.feature_level);
    release
        .levels
        .admits(level)
        .map_err(|why| refused(ErrorCode::UpgradeLevelUnsupported, why))?;
    if let Some((other, under_way)) = doc.under_way()
        && other.node != node
    {
        return Err(refused(
            ErrorCode::UpgradeInstallerRunning,
            format!(
                "install.sh is at work on node:{} (to {}, since {})",
                other.node, under_way.to.version, under_way.began
            ),
        ));
    }
    let Some(open) = &doc.current else {
        return Ok(());
    };
    if release.version != open.to && (release.version != open.from || open.raising.is_some()) {
        return Err(refused(
            ErrorCode::UpgradeNotFinalized,
            format!("the upgrade from {} to {} is under way", open.from, open.to),
        ));
    }
    Ok(())
}

/// Changes how upgrades end.
///
/// # Errors
/// `invalid_param`.
pub(crate) fn update(
    state: &ClusterState,
    (hold, soak): (Option<bool>, Option<u32>),
    fresh: &Fresh<'_>,
) -> Planned {
    if soak.is_some_and(|soak| soak > SOAK_SECONDS_MAX) {
        return Err(ApiError::new(
            ErrorCode::InvalidParam,
            format!("soak_seconds is at most {SOAK_SECONDS_MAX}"),
        ));
    }
    let mut doc = state.upgrade.doc.clone();
    doc.hold_finalize = hold.unwrap_or(doc.hold_finalize);
    doc.soak_seconds = soak.or(doc.soak_seconds);
    if doc == state.upgrade.doc {
        return Ok((Txn::default(), IntentOutcome::default()));
    }
    let mut change = Change::of(state, fresh.now);
    write(&mut change, state, doc);
    Ok(planned(change))
}

/// Finalises without waiting for the end of the soak.
///
/// # Errors
/// `nothing_to_finalize`; `upgrade_not_complete`, naming what it waits for.
pub(crate) fn finalize(
    (state, observed): (&ClusterState, &Observations),
    fresh: &Fresh<'_>,
) -> Planned {
    let mut doc = state.upgrade.doc.clone();
    let Some(open) = &mut doc.current else {
        return Err(refused(
            ErrorCode::NothingToFinalize,
            format!(
                "no upgrade is under way; the cluster uses feature level {}",
                state.cluster.feature_level
            ),
        ));
    };
    let known = Known {
        state,
        observed,
        instant: fresh.instant,
        now: fresh.now,
    };
    level::ready(&known, &open.to)
        .map_err(|waits| refused(ErrorCode::UpgradeNotComplete, waits.join("; ")))?;
    if open.asked || open.raising.is_some() {
        return Ok((Txn::default(), IntentOutcome::default()));
    }
    open.asked = true;
    let mut change = Change::of(state, fresh.now);
    write(&mut change, state, doc);
    Ok(planned(change))
}
