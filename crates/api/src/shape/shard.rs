//! `/v1/shards`.

use super::{not_heard, observation};
use model::documents::{Role, Shard};
use model::observation::{EngineState, ShardObservation, StallKind};
use model::rest::{ShardInfo, ShardLoading};
use model::view::ClusterView;
use serde_json::{Map, Value, json};

/// A shard: where it should be, and what its node last said of it.
#[must_use]
pub fn info(view: &ClusterView, shard: &Shard) -> ShardInfo {
    let node = observation(view, shard.node);
    let seen = node.and_then(|o| o.shards.iter().find(|s| s.shard == shard.uid));
    let (detailed_status, error) = detailed_status(view, shard, seen);
    let name = view
        .databases
        .iter()
        .find(|db| db.uid == shard.database)
        .map(|db| &db.name);
    ShardInfo {
        uid: shard.uid,
        bdb_uid: shard.database,
        bdb_name: name.cloned().unwrap_or_default(),
        node_uid: shard.node,
        role: shard.role.operator_word().to_owned(),
        assigned_slots: format!("{}-{}", shard.slots.first, shard.slots.last),
        status: if detailed_status == "ok" {
            "active"
        } else {
            "inactive"
        }
        .to_owned(),
        detailed_status: detailed_status.to_owned(),
        error,
        port: shard.port,
        pid: seen.and_then(|s| s.pid),
        engine: seen.map_or(&shard.engine, |s| &s.engine).to_string(),
        epoch: shard.epoch.0,
        redis_info: seen.map(figures).unwrap_or_default(),
        loading: loading(seen),
        sync: (shard.role == Role::Replica).then(|| sync(shard, seen)),
        report_timestamp: node.map(|o| o.taken.to_string()).unwrap_or_default(),
    }
}

/// One of `ok`, `loading`, `no_writes`, `down`, `timeout`, `unknown`, and why it is not `ok`.
fn detailed_status(
    view: &ClusterView,
    shard: &Shard,
    seen: Option<&ShardObservation>,
) -> (&'static str, Option<String>) {
    if let Some(trouble) = &shard.trouble {
        return ("down", Some(trouble.clone()));
    }
    if !view.is_heard(shard.node) {
        return ("unknown", Some(not_heard(view, shard.node)));
    }
    let Some(seen) = seen else {
        return ("down", Some("it has no process yet".to_owned()));
    };
    let because = |text: &str| Some(seen.error.clone().unwrap_or_else(|| text.to_owned()));
    match seen.state {
        EngineState::Starting => ("loading", because("it is starting")),
        EngineState::Loading => ("loading", because("it loads its data")),
        EngineState::Stopped => ("down", because("its process has ended")),
        EngineState::Failed => ("down", because("its process does not start")),
        EngineState::Unresponsive => ("timeout", because("it does not answer in time")),
        // A process without the role of the recorded epoch serves nobody.
        EngineState::Running if seen.role.is_none() => {
            ("loading", because("it runs and waits for its role"))
        }
        EngineState::Running if seen.epoch != Some(shard.epoch) => (
            "loading",
            because("it runs and waits for the role of a new epoch"),
        ),
        EngineState::Running if shard.role == Role::Replica && shard.synced.is_none() => {
            ("loading", because("it has not all data of its master yet"))
        }
        EngineState::Running => {
            let judged = shard.stalled.as_ref().map(|stalled| stalled.reason.clone());
            match judged.or_else(|| unanswered(seen)) {
                Some(reason) => ("timeout", Some(reason)),
                None => match &seen.refuses_writes {
                    Some(reason) => ("no_writes", Some(reason.clone())),
                    None => ("ok", None),
                },
            }
        }
    }
}

/// What its agent knows of an engine that does not answer, before anybody judges it: its process is stopped, or has left
/// several questions unanswered. One alone means nothing.
fn unanswered(seen: &ShardObservation) -> Option<String> {
    let stall = seen.stall.as_ref();
    let stall = stall.filter(|stall| stall.kind == StallKind::Silent)?;
    let stopped = matches!(stall.process_state, Some('T' | 't'));
    let (seconds, tenths) = (stall.milliseconds / 1000, stall.milliseconds / 100 % 10);
    let long = format!("it has not answered for {seconds}.{tenths} s");
    match (stopped, stall.questions) {
        (true, _) => Some(format!("{long}: its process is stopped")),
        (false, 2..) => Some(long),
        (false, _) => None,
    }
}

fn figures(seen: &ShardObservation) -> Map<String, Value> {
    let pairs = [
        ("used_memory", json!(seen.used_memory)),
        ("mem_frag_ratio", json!(seen.fragmentation)),
        ("no_of_keys", json!(seen.keys)),
        ("connected_clients", json!(seen.connections)),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn sync(shard: &Shard, seen: Option<&ShardObservation>) -> ShardLoading {
    let replication = seen.and_then(|seen| seen.replication.as_ref());
    let status = match replication {
        Some(r) if r.sync_in_progress => "in_progress",
        Some(r) if r.link_up && shard.synced.is_some() => "idle",
        Some(r) if r.link_up => "in_progress",
        _ => "link_down",
    };
    ShardLoading {
        progress: if shard.synced.is_some() { 100.0 } else { 0.0 },
        status: status.to_owned(),
    }
}

fn loading(seen: Option<&ShardObservation>) -> ShardLoading {
    match seen {
        Some(seen) if seen.state == EngineState::Loading => ShardLoading {
            progress: seen.loading_percent,
            status: "in_progress".to_owned(),
        },
        _ => ShardLoading {
            progress: 0.0,
            status: "idle".to_owned(),
        },
    }
}
