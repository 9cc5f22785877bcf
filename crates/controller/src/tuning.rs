//! Limits and settings of the data path: what a change of them makes of the documents. Pure.

use crate::state::{Change, ClusterState, Stored};
use jiff::Timestamp;
use model::documents::{Database, Node, Severity, keys};
use model::intent::{DatabaseSpec, IntentOutcome};
use model::release::EngineId;
use model::tuning::{DatabaseTuning, ProxyChange, TuningChange, keyspace_events};
use model::{ApiError, ErrorCode, NodeUid};
use serde_json::json;
use store::Txn;

/// Limits and keyspace events of a new database.
///
/// # Errors
/// As [`apply`].
pub(crate) fn of_new(
    spec: &DatabaseSpec,
    engine: &EngineId,
) -> Result<(DatabaseTuning, String), ApiError> {
    let tuning = DatabaseTuning::default().changed(&spec.tuning)?;
    let events = spec.notify_keyspace_events.as_deref().unwrap_or_default();
    Ok((tuning, known_events(events, engine)?))
}

/// Sets what a request says of a database.
///
/// # Errors
/// `invalid_param`: a value is out of its range, or the database's engine does not know it.
pub(crate) fn apply(
    database: &mut Database,
    tuning: &TuningChange,
    events: Option<&str>,
) -> Result<(), ApiError> {
    database.tuning = database.tuning.changed(tuning)?;
    if let Some(flags) = events {
        database.notify_keyspace_events = known_events(flags, &database.engine)?;
    }
    Ok(())
}

fn known_events(flags: &str, engine: &EngineId) -> Result<String, ApiError> {
    let wrong = |reason| ApiError::new(ErrorCode::InvalidParam, reason);
    let flags = keyspace_events(flags).map_err(wrong)?;
    if flags.contains('n') && engine.version.major < 7 {
        return Err(wrong(format!(
            "notify_keyspace_events: {engine} does not know the flag 'n': leave it out"
        )));
    }
    Ok(flags)
}

/// Records who changed which keyspace events are published: clients may, without the operator.
pub(crate) fn audit(
    change: &mut Change,
    before: &Database,
    after: &Database,
    client: Option<&(String, NodeUid)>,
) {
    if before.notify_keyspace_events == after.notify_keyspace_events {
        return;
    }
    let by = match client {
        Some((address, node)) => format!("client {address} at the proxy of node:{node}"),
        None => "operator".to_owned(),
    };
    change.event(
        Severity::Info,
        "bdb_keyspace_events_changed",
        &[
            ("bdb_uid", json!(after.uid)),
            ("bdb_name", json!(after.name)),
            ("old_val", json!(before.notify_keyspace_events)),
            ("new_val", json!(after.notify_keyspace_events)),
            ("changed_by", json!(by)),
        ],
    );
}

/// Changes the settings of one node's proxy, or of every node's.
///
/// # Errors
/// `node_not_found`; `invalid_param`: a value is out of its range.
pub(crate) fn update_proxies(
    state: &ClusterState,
    node: Option<NodeUid>,
    wanted: &ProxyChange,
    now: Timestamp,
) -> Result<(Txn, IntentOutcome), ApiError> {
    let meant: Vec<&Stored<Node>> = match node {
        None => state.nodes.iter().collect(),
        Some(uid) => vec![state.node(uid).ok_or_else(|| {
            ApiError::new(ErrorCode::NodeNotFound, format!("there is no node:{uid}"))
        })?],
    };
    let mut change = Change::of(state, now);
    let mut any = false;
    for stored in meant {
        let settings = stored.proxy.changed(wanted).map_err(|error| {
            let text = format!("proxy:{}: {}", stored.uid, error.description);
            ApiError::new(error.error_code, text)
        })?;
        if settings == stored.proxy {
            continue;
        }
        any = true;
        change.event(
            Severity::Info,
            "proxy_updated",
            &[
                ("node_uid", json!(stored.uid)),
                ("old_val", json!(stored.proxy)),
                ("new_val", json!(settings)),
            ],
        );
        let mut doc = stored.doc.clone();
        doc.proxy = settings;
        change.replace(keys::node(stored.uid), stored.revision, &doc);
    }
    let txn = if any {
        change.into_txn()
    } else {
        Txn::default()
    };
    Ok((txn, IntentOutcome::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database as the last release stored it, which knew nothing of this.
    fn database(engine: &str) -> Database {
        serde_json::from_value(json!({
            "schema": 1, "uid": 1, "name": "demo", "port": 12000, "memory_size": 1,
            "status": "active", "engine": engine, "shards_count": 1, "replication": false,
            "persistence": { "kind": "disabled" }, "eviction_policy": "noeviction",
            "proxy_policy": "single", "shards_placement": "dense",
            "created": "2026-01-01T00:00:00Z", "changed": "2026-01-01T00:00:00Z"
        }))
        .unwrap()
    }

    #[test]
    fn an_engine_gets_no_flag_that_it_does_not_know() {
        let mut old = database("redis-6.2.14");
        assert_eq!(old.notify_keyspace_events, "");
        let nothing = TuningChange::default();
        let error = apply(&mut old, &nothing, Some("KEn")).unwrap_err();
        assert_eq!(error.error_code, ErrorCode::InvalidParam);
        assert!(error.description.contains("redis-6.2"), "{error}");
        assert_eq!(old.notify_keyspace_events, "");
        apply(&mut old, &nothing, Some("KEA")).unwrap();
        assert_eq!(old.notify_keyspace_events, "AKE");
        let mut new = database("redis-7.0.15");
        apply(&mut new, &nothing, Some("KEn")).unwrap();
        apply(&mut new, &nothing, None).unwrap();
        assert_eq!(new.notify_keyspace_events, "KEn");
    }
}
