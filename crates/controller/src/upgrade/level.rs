//! The rise of the cluster's feature level. Pure. It is looked whether every node is ready when an upgrade
//! is closed, and again for the very transaction that raises the level, which compares the documents that
//! both were decided from: an installer that begins its work in between changes one of them.

use super::data::DataMigration;
use super::order;
use crate::observed::Observations;
use crate::state::{Change, ClusterState};
use jiff::Timestamp;
use model::documents::{Severity, keys};
use model::observation::NodeObservation;
use model::upgrade::run::UpgradeRun;
use model::upgrade::{ClosedUpgrade, OpenUpgrade, Raising, Upgrade};
use serde_json::json;
use std::time::Instant;
use store::Txn;

/// What is known, and when.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What is stored.
    pub state: &'a ClusterState,
    /// What was heard.
    pub observed: &'a Observations,
    /// Monotonic time.
    pub instant: Instant,
    /// Wall-clock time.
    pub now: Timestamp,
}

impl Known<'_> {
    /// Every node of the cluster with what was heard of it lately.
    fn nodes(&self) -> impl Iterator<Item = (model::NodeUid, Option<&NodeObservation>)> {
        self.state
            .nodes
            .iter()
            .map(|node| (node.uid, self.observed.fresh(node.uid, self.instant)))
    }

    /// What every node was heard with; `None`: one is not heard.
    fn all(&self) -> Option<Vec<&NodeObservation>> {
        self.nodes().map(|(_, seen)| seen).collect()
    }
}

/// The next transaction, if there is one, and why.
#[must_use]
pub fn step(known: &Known<'_>, migrations: &[DataMigration]) -> Option<(Txn, String)> {
    let upgrade = &known.state.upgrade.doc;
    match &upgrade.current {
        None => begin(known, upgrade),
        Some(open) => match &open.raising {
            None => follow(known, upgrade, open),
            Some(raising) => raise(known, upgrade, open, raising, migrations),
        },
    }
}

/// The level to which the cluster can go now.
///
/// # Errors
/// What it waits for, a reason each.
pub fn ready(known: &Known<'_>, to: &str) -> Result<u32, Vec<String>> {
    let mut waits = Vec::new();
    let level = known.state.cluster.feature_level;
    let mut highest = u32::MAX;
    // It may still be taken back, and does so if an operator has said it.
    let run = known.state.upgrade.run.as_ref();
    if run.is_some_and(UpgradeRun::is_open) {
        waits.push("the upgrade of all nodes has not ended".to_owned());
    }
    let mut build: Option<&str> = None;
    for (uid, seen) in known.nodes() {
        let Some(seen) = seen else {
            waits.push(format!("node:{uid} is not heard"));
            continue;
        };
        if seen.software_version != to {
            waits.push(format!(
                "node:{uid} runs {}, not {to}",
                seen.software_version
            ));
            continue;
        }
        if *build.get_or_insert(&seen.build_id) != seen.build_id {
            waits.push(format!("node:{uid} runs another build of {to}"));
        }
        if seen.feature_min > level && level > 0 {
            waits.push(format!("node:{uid} cannot run feature level {level}"));
        }
        highest = highest.min(seen.feature_max);
    }
    for recorded in &known.state.upgrade.nodes {
        let there = known.state.node(recorded.node).is_some();
        if let (true, Some(under_way)) = (there, &recorded.under_way) {
            waits.push(format!(
                "install.sh has not ended on node:{} (to {}, since {})",
                recorded.node, under_way.to.version, under_way.began
            ));
        } else if let (true, Some(release)) = (there, &recorded.release)
            && release.version != to
        {
            waits.push(format!(
                "node:{} was not reported as upgraded: run install.sh there again",
                recorded.node
            ));
        }
    }
    if waits.is_empty() {
        Ok(highest.max(level))
    } else {
        Err(waits)
    }
}

/// Nodes run different releases, or all know more than the cluster uses: an upgrade is under way that no
/// installer told of.
fn begin(known: &Known<'_>, upgrade: &Upgrade) -> Option<(Txn, String)> {
    let heard: Vec<&NodeObservation> = known.nodes().filter_map(|(_, seen)| seen).collect();
    let versions = || heard.iter().map(|seen| seen.software_version.as_str());
    let oldest = versions().min_by(|a, b| order::compare(a, b))?;
    let newest = versions().max_by(|a, b| order::compare(a, b))?;
    let level = known.state.cluster.feature_level;
    let all_know_more =
        heard.len() == known.state.nodes.len() && heard.iter().all(|seen| seen.feature_max > level);
    if oldest == newest && !all_know_more {
        return None;
    }
    let mut doc = upgrade.clone();
    doc.current = Some(opened(oldest, newest, known.now));
    let mut change = Change::of(known.state, known.now);
    note_begin(&mut change, oldest, newest);
    write(&mut change, known.state, doc);
    Some((change.into_txn(), format!("upgrade to {newest} begins")))
}

/// An upgrade that has just begun.
pub(super) fn opened(from: &str, to: &str, now: Timestamp) -> OpenUpgrade {
    OpenUpgrade {
        from: from.to_owned(),
        to: to.to_owned(),
        began: now,
        all_new_since: None,
        asked: false,
        raising: None,
        extra: serde_json::Map::new(),
    }
}

/// The alert that nodes run, or are about to run, different releases.
pub(super) fn note_begin(change: &mut Change, from: &str, to: &str) {
    change.event(
        Severity::Warning,
        "cluster_inconsistent_rl_sw",
        &[("from", json!(from)), ("to", json!(to))],
    );
}

/// Writes the document of upgrades.
pub(super) fn write(change: &mut Change, state: &ClusterState, mut doc: Upgrade) {
    doc.schema = 1;
    change.replace(keys::UPGRADE.to_owned(), state.upgrade.revision, &doc);
}

fn follow(known: &Known<'_>, upgrade: &Upgrade, open: &OpenUpgrade) -> Option<(Txn, String)> {
    let mut doc = upgrade.clone();
    let mut change = Change::of(known.state, known.now);
    if let Some(reason) = turned(known, upgrade, open, &mut doc, &mut change) {
        write(&mut change, known.state, doc);
        return Some((change.into_txn(), reason));
    }
    let ready = ready(known, &open.to);
    let contradicted = contradicted(known, upgrade, &open.to);
    let current = doc.current.as_mut()?;
    let reason = match (&ready, open.all_new_since) {
        (Err(_), None) if !(open.asked && contradicted) => return None,
        (Err(waits), _) => {
            current.all_new_since = None;
            current.asked &= !contradicted;
            format!("the soak begins anew: {}", waits.join("; "))
        }
        (Ok(_), None) => {
            current.all_new_since = Some(known.now);
            change.event(
                Severity::Info,
                "cluster_upgrade_all_nodes",
                &[
                    ("to", json!(open.to)),
                    ("soak_seconds", json!(upgrade.soak())),
                ],
            );
            "every node runs the new release: the soak begins".to_owned()
        }
        (Ok(to), Some(since)) => {
            let over = known.now.as_second() - since.as_second() >= i64::from(upgrade.soak());
            if !(open.asked || over && !upgrade.hold_finalize) {
                return None;
            }
            current.raising = Some(Raising {
                from: known.state.cluster.feature_level,
                to: *to,
                began: known.now,
                migrated: Vec::new(),
                cursor: None,
            });
            "the upgrade is finalised: there is no way back from here".to_owned()
        }
    };
    write(&mut change, known.state, doc);
    Some((change.into_txn(), reason))
}

/// Whether a node is known not to run the new release for good. One that is not heard only has everybody wait: a primary
/// node that has just taken over has heard nobody, and what an operator asked for is not forgotten by that.
fn contradicted(known: &Known<'_>, upgrade: &Upgrade, to: &str) -> bool {
    let heard = known.nodes().filter_map(|(_, seen)| seen);
    let mut versions = heard.map(|seen| seen.software_version.as_str());
    upgrade.under_way().is_some() || versions.any(|version| version != to)
}

/// Every node is back on the release before, or one goes to a release beyond.
fn turned(
    known: &Known<'_>,
    upgrade: &Upgrade,
    open: &OpenUpgrade,
    doc: &mut Upgrade,
    change: &mut Change,
) -> Option<String> {
    let heard: Vec<&str> = known
        .nodes()
        .filter_map(|(_, seen)| Some(seen?.software_version.as_str()))
        .collect();
    if let Some(beyond) = heard
        .iter()
        .copied()
        .filter(|version| order::compare(version, &open.to).is_gt())
        .max_by(|a, b| order::compare(a, b))
    {
        beyond.clone_into(&mut doc.current.as_mut()?.to);
        return Some(format!("a node runs {beyond}"));
    }
    let all = known.all()?;
    let level = known.state.cluster.feature_level;
    let back = open.from != open.to
        && upgrade.under_way().is_none()
        && all.iter().all(|seen| seen.software_version == open.from);
    // All at one old version, though the record says otherwise: nobody is left who would go on.
    if !back || all.iter().any(|seen| seen.feature_max < level) {
        return None;
    }
    doc.current = None;
    change.event(
        Severity::Info,
        "cluster_upgrade_rolled_back",
        &[("from", json!(open.to)), ("to", json!(open.from))],
    );
    Some(format!("every node runs {} again", open.from))
}

fn raise(
    known: &Known<'_>,
    upgrade: &Upgrade,
    open: &OpenUpgrade,
    raising: &Raising,
    migrations: &[DataMigration],
) -> Option<(Txn, String)> {
    let state = known.state;
    if state.cluster.feature_level >= raising.to
        && raising.migrated.len() >= due(raising, migrations).count()
    {
        return close(known, upgrade, open, raising);
    }
    let mut doc = upgrade.clone();
    let mut change = Change::of(state, known.now);
    let next =
        due(raising, migrations).find(|m| !raising.migrated.iter().any(|done| done == m.name));
    let reason = if let Some(migration) = next {
        let batch = (migration.next)(state, raising.cursor.as_deref());
        for (key, revision, value) in batch.documents {
            change.replace(key, revision, &value);
        }
        let raising = doc.current.as_mut()?.raising.as_mut()?;
        if batch.cursor.is_none() {
            raising.migrated.push(migration.name.to_owned());
        }
        raising.cursor = batch.cursor;
        format!("migration {}", migration.name)
    } else if let Some(undone) = due(raising, migrations).find(|m| !(m.holds)(state)) {
        // Read back: somebody wrote an old form meanwhile, or the migration is wrong.
        let raising = doc.current.as_mut()?.raising.as_mut()?;
        raising.migrated.retain(|name| name != undone.name);
        format!("migration {} does not hold: again", undone.name)
    } else {
        // The second look.
        let highest = ready(known, &open.to).ok()?;
        if highest < raising.to {
            return None;
        }
        change.cluster().feature_level = raising.to;
        change.event(
            Severity::Info,
            "cluster_feature_level_raised",
            &[
                ("old_val", json!(raising.from)),
                ("new_val", json!(raising.to)),
            ],
        );
        format!("feature level {} to {}", raising.from, raising.to)
    };
    write(&mut change, state, doc);
    Some((change.into_txn(), reason))
}

fn due<'a>(
    raising: &'a Raising,
    migrations: &'a [DataMigration],
) -> impl Iterator<Item = &'a DataMigration> {
    migrations
        .iter()
        .filter(|migration| (raising.from + 1..=raising.to).contains(&migration.level))
}

/// The upgrade ends when every node says that it has read the level.
fn close(
    known: &Known<'_>,
    upgrade: &Upgrade,
    open: &OpenUpgrade,
    raising: &Raising,
) -> Option<(Txn, String)> {
    let all = known.all()?;
    if all.iter().any(|seen| seen.upgrade.level < raising.to) {
        return None;
    }
    let mut doc = upgrade.clone();
    doc.current = None;
    doc.last = Some(ClosedUpgrade {
        from: open.from.clone(),
        to: open.to.clone(),
        level_from: raising.from,
        level_to: raising.to,
        began: open.began,
        ended: known.now,
    });
    let mut change = Change::of(known.state, known.now);
    change.event(
        Severity::Info,
        "cluster_upgraded",
        &[
            ("from", json!(open.from)),
            ("to", json!(open.to)),
            ("feature_level", json!(raising.to)),
        ],
    );
    write(&mut change, known.state, doc);
    Some((change.into_txn(), format!("upgraded to {}", open.to)))
}
