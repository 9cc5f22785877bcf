//! `POST /v1/nodes/{uid}/actions/{action}`.

use super::invalid;
use crate::failure::Failure;
use model::intent::{Intent, MaintenanceWish, Pace, Restore};
use model::limits::{AT_ONCE_MAX, STEP_WITHIN_SECONDS};
use model::rest::{NodeActionRequest, PaceRequest};
use model::{ErrorCode, NodeUid, validate};

/// An action on a node, from its name and its body.
///
/// # Errors
/// `not_found`: there is no such action; `invalid_param`: a field is not of this action, or outside its
/// range.
pub fn intent(node: NodeUid, action: &str, wanted: NodeActionRequest) -> Result<Intent, Failure> {
    only_fields_of(action, &wanted)?;
    let pace = pace(PaceRequest {
        max_concurrent_actions: wanted.max_concurrent_actions,
        retry_timeout_seconds: wanted.retry_timeout_seconds,
    })?;
    Ok(match action {
        "maintenance_on" => Intent::MaintenanceOn {
            node,
            wish: MaintenanceWish {
                keep_slave_shards: wanted.keep_slave_shards.unwrap_or(false)
                    || wanted.evict_ha_replica == Some(false),
                evict_dbs: wanted.evict_dbs.unwrap_or_default(),
                overwrite_snapshot: wanted.overwrite_snapshot.unwrap_or(false),
                demote_node: wanted.demote_node.unwrap_or(false),
            },
            pace,
        },
        "maintenance_off" => Intent::MaintenanceOff {
            node,
            restore: match (wanted.skip_shards_restore, wanted.snapshot_name) {
                (Some(true), Some(_)) => {
                    return Err(invalid(
                        "snapshot_name and skip_shards_restore exclude each other: give one of them",
                    ));
                }
                (Some(true), None) => Restore::Nothing,
                (_, Some(name)) => Restore::Named(name),
                (_, None) => Restore::Newest,
            },
            pace,
        },
        "remove" => Intent::RemoveNode { node, pace },
        "enslave_node" => Intent::EnslaveNode {
            node,
            demote_node: wanted.demote_node.unwrap_or(false),
            pass_over_busy: false,
            pace,
        },
        other => return Err(no_action(other)),
    })
}

fn no_action(name: &str) -> Failure {
    Failure::new(
        ErrorCode::NotFound,
        format!(
            "there is no action {}: use maintenance_on, maintenance_off, enslave_node or remove",
            validate::shown(name)
        ),
    )
}

fn only_fields_of(action: &str, wanted: &NodeActionRequest) -> Result<(), Failure> {
    let on = action == "maintenance_on";
    let off = action == "maintenance_off";
    let demotes = on || action == "enslave_node";
    let given = [
        ("keep_slave_shards", wanted.keep_slave_shards.is_some(), on),
        ("evict_ha_replica", wanted.evict_ha_replica.is_some(), on),
        ("evict_dbs", wanted.evict_dbs.is_some(), on),
        (
            "overwrite_snapshot",
            wanted.overwrite_snapshot.is_some(),
            on,
        ),
        ("demote_node", wanted.demote_node.is_some(), demotes),
        (
            "skip_shards_restore",
            wanted.skip_shards_restore.is_some(),
            off,
        ),
        ("snapshot_name", wanted.snapshot_name.is_some(), off),
    ];
    match given.iter().find(|(_, given, known)| *given && !*known) {
        Some((field, _, _)) => Err(invalid(format!(
            "{field} has no meaning in {}: leave it out",
            validate::shown(action)
        ))),
        None => Ok(()),
    }
}

/// How fast something works.
///
/// # Errors
/// `invalid_param`.
pub fn pace(wanted: PaceRequest) -> Result<Pace, Failure> {
    if let Some(at_once) = wanted.max_concurrent_actions
        && !(1..=AT_ONCE_MAX).contains(&at_once)
    {
        return Err(invalid(format!(
            "max_concurrent_actions is from 1 to {AT_ONCE_MAX}: leave it out for all at once"
        )));
    }
    if let Some(seconds) = wanted.retry_timeout_seconds
        && !STEP_WITHIN_SECONDS.contains(&seconds)
    {
        return Err(invalid(format!(
            "retry_timeout_seconds is from {} to {}",
            STEP_WITHIN_SECONDS.start(),
            STEP_WITHIN_SECONDS.end()
        )));
    }
    Ok(Pace {
        at_once: wanted.max_concurrent_actions,
        step_within_seconds: wanted.retry_timeout_seconds,
    })
}
