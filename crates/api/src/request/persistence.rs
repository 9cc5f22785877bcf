//! `data_persistence`, `aof_policy` and `snapshot_policy`, which must fit together.

use crate::failure::Failure;
use crate::shape::database::{EVERY_SECOND, EVERY_WRITE};
use model::ErrorCode;
use model::documents::Persistence;
use model::rest::{BdbRequest, SnapshotPolicy};
use model::validate::shown;

/// Longest interval between snapshots, seconds: a week.
const SNAPSHOT_SECONDS_MAX: u32 = 7 * 24 * 3_600;
/// The rule of a database that asks for snapshots without one: every hour, if a key changed.
const SNAPSHOT_DEFAULT: (u32, u32) = (3_600, 1);

/// What a request asks for; `None`: nothing said. `current`: the database's now, `None` at creation.
///
/// The default `aof_policy` may stand beside any kind, since answers show it for every database.
///
/// # Errors
/// `invalid_data_persistence`, saying which field does not fit.
pub fn wanted(
    request: &BdbRequest,
    current: Option<Persistence>,
) -> Result<Option<Persistence>, Failure> {
    let every_write = every_write(request.aof_policy.as_deref())?;
    let rules = request.snapshot_policy.as_deref();
    let kind = match request.data_persistence.as_deref() {
        Some(kind) => kind,
        None if every_write.is_none() && rules.is_none() => return Ok(None),
        None => kind_of(current),
    };
    if kind != "aof" && every_write == Some(true) {
        return Err(wrong(format!(
            "aof_policy {EVERY_WRITE} needs data_persistence aof, not {}",
            shown(kind)
        )));
    }
    if kind != "snapshot" && rules.is_some_and(|rules| !rules.is_empty()) {
        return Err(wrong(format!(
            "snapshot_policy needs data_persistence snapshot, not {}",
            shown(kind)
        )));
    }
    match kind {
        "disabled" => Ok(Some(Persistence::Disabled)),
        "aof" => Ok(Some(aof(every_write, current))),
        "snapshot" => snapshot(rules, current).map(Some),
        other => Err(wrong(format!(
            "'{}' is not a data_persistence: use disabled, aof or snapshot",
            shown(other)
        ))),
    }
}

fn kind_of(current: Option<Persistence>) -> &'static str {
    match current {
        None | Some(Persistence::Disabled) => "disabled",
        Some(Persistence::AofEverySecond | Persistence::AofEveryWrite) => "aof",
        Some(Persistence::Snapshot { .. }) => "snapshot",
    }
}

fn every_write(policy: Option<&str>) -> Result<Option<bool>, Failure> {
    match policy {
        None => Ok(None),
        Some(EVERY_SECOND) => Ok(Some(false)),
        Some(EVERY_WRITE) => Ok(Some(true)),
        Some(other) => Err(wrong(format!(
            "'{}' is not an aof_policy: use {EVERY_SECOND} or {EVERY_WRITE}",
            shown(other)
        ))),
    }
}

fn aof(every_write: Option<bool>, current: Option<Persistence>) -> Persistence {
    let stays = current == Some(Persistence::AofEveryWrite);
    if every_write.unwrap_or(stays) {
        Persistence::AofEveryWrite
    } else {
        Persistence::AofEverySecond
    }
}

fn snapshot(
    rules: Option<&[SnapshotPolicy]>,
    current: Option<Persistence>,
) -> Result<Persistence, Failure> {
    let (seconds, writes) = match (rules, current) {
        (Some([rule]), _) => (rule.secs, rule.writes),
        (Some([_, _, ..]), _) => {
            return Err(wrong(
                "snapshot_policy takes one rule, like [{\"secs\":3600,\"writes\":1}]",
            ));
        }
        (None, Some(Persistence::Snapshot { seconds, writes })) => (seconds, writes),
        (None | Some([]), _) => SNAPSHOT_DEFAULT,
    };
    if !(1..=SNAPSHOT_SECONDS_MAX).contains(&seconds) || writes == 0 {
        return Err(wrong(format!(
            "a rule of snapshot_policy has secs from 1 to {SNAPSHOT_SECONDS_MAX} and writes of at \
             least 1"
        )));
    }
    Ok(Persistence::Snapshot { seconds, writes })
}

fn wrong(description: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidDataPersistence, description)
}
