//! The `CLUSTER:` section.

use super::snapshot::Snapshot;
use crate::rladmin::copies::together;
use crate::rladmin::upgrade::{run_line, status_line};
use crate::terminal::{Tone, age};
use model::rest::{Bdb, NodeInfo};
use model::{ErrorCode, NodeUid};
use std::collections::BTreeMap;

/// Its lines and how they are meant.
#[must_use]
pub fn lines(snapshot: &Snapshot) -> Vec<(String, Tone)> {
    if snapshot.cluster.removed {
        return removed(snapshot);
    }
    let mut lines = vec![state(snapshot)];
    if !snapshot.cluster.has_quorum {
        lines.push((without_a_quorum(snapshot), Tone::Warn));
    }
    lines.extend(health(snapshot));
    if let Some(upgrade) = &snapshot.cluster.upgrade {
        if upgrade.state != "none" {
            lines.push((status_line(upgrade), Tone::Warn));
        }
        lines.extend(run_line(upgrade));
    }
    for note in notes(snapshot)
        .into_iter()
        .chain(together(&snapshot.shards))
    {
        lines.push((format!("note: {note}"), Tone::Warn));
    }
    lines
}

/// What goes on without a quorum: replicated databases live by the promises of all of their copies, so those with a
/// copy on a node that is not heard do not, as far as this node can tell.
fn without_a_quorum(snapshot: &Snapshot) -> String {
    let heard = |uid: NodeUid| {
        let mut nodes = snapshot.all_nodes.iter();
        nodes.any(|node| node.uid == uid && snapshot.is_heard(node))
    };
    let whole = |database: &&Bdb| {
        let mut copies = snapshot.shards.iter().filter(|s| s.bdb_uid == database.uid);
        copies.all(|shard| heard(shard.node_uid))
    };
    let stop: Vec<String> = snapshot
        .databases
        .iter()
        .filter(|database| !whole(database))
        .map(|database| format!("db:{}", database.uid))
        .collect();
    let serve = match stop.is_empty() {
        true => "Databases go on serving while all nodes with their copies answer".to_owned(),
        false => {
            let all = stop.len() == snapshot.databases.len();
            let others = if all { "" } else { "; the others go on" };
            format!(
                "Not served, or in part, while nodes with their copies are away: {}{others}",
                stop.join(", ")
            )
        }
    };
    format!(
        "{serve}. Nothing can be changed until a majority of the voters ({}) is back: see `supervisorctl status` there. \
         What follows is what node:{} knew last.",
        names(snapshot.cluster.voters.iter()),
        snapshot.cluster.local_node
    )
}

/// What is as an operator wanted it, and not as ever.
#[must_use]
pub fn notes(snapshot: &Snapshot) -> Vec<String> {
    let mut notes = snapshot.away();
    notes.extend(mixed_versions(snapshot));
    notes
}

/// This node was removed: there is nothing else to say, and what it knew of the cluster may be long over.
#[must_use]
pub fn removed(snapshot: &Snapshot) -> Vec<(String, Tone)> {
    let cluster = &snapshot.cluster;
    let others = snapshot.all_nodes.iter();
    let others = others.filter(|node| node.uid != cluster.local_node);
    let others: Vec<&str> = others.map(|node| node.addr.as_str()).collect();
    vec![
        (
            format!(
                "REMOVED. node:{} (this one) was removed from cluster '{}' and is no part of it any more.",
                cluster.local_node, cluster.name
            ),
            Tone::Bad,
        ),
        (
            format!(
                "The cluster goes on without it: run rladmin on another node ({}).",
                others.join(", ")
            ),
            Tone::Warn,
        ),
        (ErrorCode::NodeRemoved.remedy().to_owned(), Tone::Warn),
    ]
}

/// The first line: who is the primary node, or why there is none.
#[must_use]
pub fn state(snapshot: &Snapshot) -> (String, Tone) {
    let cluster = &snapshot.cluster;
    if !cluster.has_quorum {
        return (no_quorum(snapshot), Tone::Bad);
    }
    let Some(primary) = cluster.primary_node else {
        return (
            "NO MASTER. The cluster is choosing one.".to_owned(),
            Tone::Warn,
        );
    };
    let address = snapshot
        .all_nodes
        .iter()
        .find(|node| node.uid == primary)
        .map_or("address unknown", |node| node.addr.as_str());
    (
        format!("OK. Cluster master: {primary} ({address})"),
        Tone::Good,
    )
}

fn no_quorum(snapshot: &Snapshot) -> String {
    let unheard: Vec<String> = snapshot
        .all_nodes
        .iter()
        .filter(|node| !snapshot.is_heard(node))
        .map(|node| {
            let heard = snapshot
                .last_heard(node)
                .map_or("not heard yet".to_owned(), |s| {
                    format!("last heard {} ago", age(s))
                });
            format!("node:{} ({}, {heard})", node.uid, node.addr)
        })
        .collect();
    let since = lost_since(snapshot).map_or(String::new(), |s| format!(" since {}", age(s)));
    let whom = if unheard.is_empty() {
        "All nodes were heard a moment ago: the cluster may be choosing a master".to_owned()
    } else {
        format!("Not heard: {}", unheard.join(", "))
    };
    format!("NO QUORUM{since}. {whom}.")
}

/// Seconds since the voters that were heard became too few, if that is known.
fn lost_since(snapshot: &Snapshot) -> Option<f64> {
    let voters = &snapshot.cluster.voters;
    let mut heard: Vec<f64> = snapshot
        .all_nodes
        .iter()
        .filter(|node| voters.contains(&node.uid))
        .map(|node| silence(snapshot, node))
        .collect::<Option<_>>()?;
    heard.sort_by(f64::total_cmp);
    // With the node that completed the majority the quorum went.
    heard
        .get(voters.len() / 2)
        .copied()
        .filter(|seconds| *seconds > 0.0)
}

/// Seconds since a voter was heard; the asked node hears itself.
fn silence(snapshot: &Snapshot, node: &NodeInfo) -> Option<f64> {
    if node.uid == snapshot.cluster.local_node || snapshot.is_heard(node) {
        return Some(0.0);
    }
    snapshot.last_heard(node)
}

fn health(snapshot: &Snapshot) -> Vec<(String, Tone)> {
    let mut lines = Vec::new();
    let issues = snapshot.issues();
    let awaited = snapshot.awaited();
    let (word, tone) = if !issues.is_empty() || !snapshot.cluster.has_quorum {
        ("DEGRADED", Tone::Warn)
    } else if awaited.is_empty() {
        ("OK", Tone::Good)
    } else {
        ("UNKNOWN", Tone::Warn)
    };
    match &snapshot.failures {
        Some(Ok(rate)) => {
            lines.push((
                format!(
                    "Cluster health: {word}, [{}, {:.2}, {:.2}]",
                    rate.last_1, rate.last_15, rate.last_60
                ),
                tone,
            ));
            lines.push((
                format!(
                    "failures/minute - avg1 {:.2}, avg15 {:.2}, avg60 {:.2}.",
                    rate.last_1, rate.last_15, rate.last_60
                ),
                Tone::Plain,
            ));
        }
        Some(Err(why)) => {
            lines.push((
                format!("Cluster health: {word}, failures/minute unknown: {why}"),
                tone,
            ));
        }
        None => lines.push((format!("Cluster health: {word}"), tone)),
    }
    if !issues.is_empty() {
        lines.push((format!("issues: {}", issues.join(", ")), Tone::Warn));
    }
    if !awaited.is_empty() {
        let nodes = awaited.join(", ");
        lines.push((
            format!(
                "The primary node is new and has not heard of {nodes} yet: look again in a moment."
            ),
            Tone::Warn,
        ));
    }
    lines
}

fn names<'a>(uids: impl Iterator<Item = &'a model::NodeUid>) -> String {
    uids.map(|uid| format!("node:{uid}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Which nodes run which release, when they do not run the same.
#[must_use]
pub fn mixed_versions(snapshot: &Snapshot) -> Option<String> {
    let mut releases: BTreeMap<(&str, &str), Vec<&model::NodeUid>> = BTreeMap::new();
    for node in snapshot
        .all_nodes
        .iter()
        .filter(|node| !node.software_version.is_empty())
    {
        let release = (
            node.software_version.as_str(),
            node.software_version_sha.as_str(),
        );
        releases.entry(release).or_default().push(&node.uid);
    }
    if releases.len() < 2 {
        return None;
    }
    let parts: Vec<String> = releases
        .iter()
        .map(|((version, sha), nodes)| {
            format!("{version} ({sha}) on {}", names(nodes.iter().copied()))
        })
        .collect();
    Some(format!(
        "nodes run different releases: {}. The cluster uses feature level {} until all run the \
         newest",
        parts.join("; "),
        snapshot.cluster.feature_level
    ))
}
