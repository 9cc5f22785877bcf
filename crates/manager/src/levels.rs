//! This release among others: whether it may run at the cluster's feature level, what it tells of itself for
//! upgrades, and that the newest release leads.

use crate::member::Member;
use crate::primary;
use anyhow::Context as _;
use controller::reconcile::store_error;
use controller::state::ClusterState;
use jiff::Timestamp;
use model::documents::{Cluster, Node, keys};
use model::intent::JoinRequest;
use model::node_config::NodeConfig;
use model::upgrade::{LevelRange, Upgrade, UpgradeObservation};
use model::{ApiError, ErrorCode, NodeUid, validate};
use rustix::fs::statvfs;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use store::State;
use x509_parser::pem::Pem;

/// How often it is looked whether a newer release should lead.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a newer node must have been there before it is asked to lead: it may be one that goes back.
const NEWER_FOR: Duration = Duration::from_secs(20);

/// The cluster's level, and the one that binds: higher while the level is rising.
///
/// # Errors
/// When a document cannot be read.
pub fn stored(state: &State) -> Result<Option<(u32, u32)>, ApiError> {
    let Some((cluster, _)) = state
        .get::<Cluster>(keys::CLUSTER)
        .map_err(|e| store_error(&e))?
    else {
        return Ok(None);
    };
    let upgrade = state
        .get::<Upgrade>(keys::UPGRADE)
        .map_err(|e| store_error(&e))?
        .unwrap_or_default()
        .0;
    let level = cluster.feature_level;
    Ok(Some((level, upgrade.binding_level(level))))
}

/// Whether a release may run with this configuration. Before the node has received it, nothing is known.
///
/// # Errors
/// Why not.
pub fn check(levels: LevelRange, state: &State) -> anyhow::Result<()> {
    let Ok(Some((_, binding))) = stored(state) else {
        return Ok(());
    };
    levels.admits(binding).map_err(anyhow::Error::msg)
}

/// Ends the program when the cluster has gone where this release cannot follow: what it would write, and what
/// it would drop, nobody could know.
pub async fn watch(member: Arc<Member>) {
    let mut revisions = member.store.watch();
    loop {
        if let Err(error) = check(member.program.levels, &member.store.state()) {
            tracing::error!("cannot go on: {error:#}");
            std::process::exit(1);
        }
        if revisions.changed().await.is_err() {
            return;
        }
    }
}

/// What this node tells of itself for upgrades.
#[must_use]
pub fn observe(member: &Member) -> UpgradeObservation {
    let level = stored(&member.store.state())
        .ok()
        .flatten()
        .map_or(0, |(level, _)| level);
    UpgradeObservation {
        level,
        install_free: free(&member.program.config),
        certificates_until: member.certificates_until,
        turn: member
            .turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
    }
}

fn free(config: &NodeConfig) -> u64 {
    statvfs(&config.install_dir).map_or(0, |system| system.f_bavail.saturating_mul(system.f_frsize))
}

/// When the first of these certificates (PEM) ends.
///
/// # Errors
/// When one cannot be read.
pub fn certificates_until(pems: &[&str]) -> anyhow::Result<Option<Timestamp>> {
    let mut until: Option<Timestamp> = None;
    for text in pems {
        for pem in Pem::iter_from_buffer(text.as_bytes()) {
            let pem = pem.context("read a certificate")?;
            let certificate = pem.parse_x509().context("read a certificate")?;
            let end = Timestamp::from_second(certificate.validity().not_after.timestamp())?;
            until = Some(until.map_or(end, |until| until.min(end)));
        }
    }
    Ok(until)
}

/// While nodes run different releases, one with the newest leads: what a newer node asks for, an older one may
/// not know. The primary node gives its part away as soon as a newer one has been there for a while.
pub async fn lead(member: Arc<Member>) {
    let mut newer_since: Option<(NodeUid, Instant)> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let newer = member
            .store
            .status()
            .is_leader
            .then(|| newest_voter(&member))
            .flatten();
        newer_since = newer.map(|node| match newer_since {
            Some((known, since)) if known == node => (node, since),
            _ => (node, Instant::now()),
        });
        let Some((node, since)) = newer_since else {
            continue;
        };
        if since.elapsed() < NEWER_FOR {
            continue;
        }
        tracing::info!(to = %node, "its release is newer: it becomes the primary node");
        if let Err(error) = primary::change_primary(&member, Some(node)).await {
            tracing::warn!(%error, "cannot hand the part of the primary node over");
        }
        newer_since = None;
    }
}

/// A voter whose release is newer than this node's, which is heard, has applied what this one has, and stays.
fn newest_voter(member: &Member) -> Option<NodeUid> {
    let own = semver::Version::parse(&member.program.version).ok()?;
    let status = member.store.status();
    let state = member.store.state();
    let heard = member.controller.observations();
    let now = Instant::now();
    let candidates = status.voters.iter().filter_map(|voter| {
        let seen = heard.fresh(voter.member.uid, now)?;
        let version = semver::Version::parse(&seen.software_version).ok()?;
        let key = keys::node(seen.node);
        let (node, _) = state.get::<Node>(&key).ok()??;
        let stays = !seen.stopping && node.maintenance.is_none() && !node.leaving;
        // A second of changes may be on its way.
        let follows = seen.applied.0 + 64 >= state.revision.0;
        (version > own && stays && follows).then_some((version, seen.node))
    });
    candidates.max().map(|(_, node)| node)
}

/// Of the nodes that could lead, those with the newest release come first.
pub fn newest_first(member: &Member, nodes: &mut [NodeUid]) {
    let heard = member.controller.observations();
    let now = Instant::now();
    let version = |uid: &NodeUid| {
        let seen = heard.fresh(*uid, now)?;
        semver::Version::parse(&seen.software_version).ok()
    };
    nodes.sort_by_cached_key(|uid| (std::cmp::Reverse(version(uid)), *uid));
}

/// A node joins with a release that another node runs, or that an upgrade goes to, if it can run the cluster's
/// feature level.
///
/// # Errors
/// `version_mismatch`.
pub fn may_join(
    member: &Member,
    state: &ClusterState,
    request: &JoinRequest,
) -> Result<(), ApiError> {
    let level = state.upgrade.binding_level(state.cluster.feature_level);
    let levels = LevelRange {
        min: request.feature_min,
        max: request.feature_max,
    };
    levels
        .admits(level)
        .map_err(|why| ApiError::new(ErrorCode::VersionMismatch, why))?;
    let wanted = &request.software_version;
    let open = state.upgrade.current.as_ref();
    let known = *wanted == member.program.version
        || open.is_some_and(|open| open.to == *wanted || open.from == *wanted);
    if known {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::VersionMismatch,
        format!(
            "the cluster runs version {}, the joining node {}. {}",
            member.program.version,
            validate::shown(wanted),
            ErrorCode::VersionMismatch.remedy()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::Authority;
    use serde_json::json;
    use store::Txn;

    fn at_level(level: u32, raising: Option<u32>) -> State {
        let raising =
            raising.map(|to| json!({"from": level, "to": to, "began": "2030-01-01T00:00:00Z"}));
        let mut put = vec![(
            keys::CLUSTER.to_owned(),
            json!({
                "schema": 1, "name": "c.local", "cluster_id": "id", "created": "2030-01-01T00:00:00Z",
                "feature_level": level, "ca_certificate": "", "ca_key": "", "next_node": 3,
                "next_database": 2, "next_shard": 2, "next_user": 2, "next_event": 1,
            }),
        )];
        if raising.is_some() {
            put.push((
                keys::UPGRADE.to_owned(),
                json!({"schema": 1, "current": {
                    "from": "1.0.0", "to": "1.1.0", "began": "2030-01-01T00:00:00Z", "raising": raising,
                }}),
            ));
        }
        let mut state = State::default();
        let txn = Txn {
            put,
            ..Txn::default()
        };
        state.apply(&txn).unwrap();
        state
    }

    #[test]
    fn a_release_outside_of_the_cluster_s_level_does_not_start() {
        let levels = LevelRange { min: 2, max: 3 };
        assert!(check(levels, &State::default()).is_ok(), "nothing is known");
        assert!(check(levels, &at_level(2, None)).is_ok());
        assert!(check(levels, &at_level(3, None)).is_ok());
        let older = check(levels, &at_level(4, None)).unwrap_err().to_string();
        assert!(
            older.contains("older than what the cluster was upgraded to"),
            "{older}"
        );
        let newer = check(levels, &at_level(1, None)).unwrap_err().to_string();
        assert!(newer.contains("too new for one step"), "{newer}");
        // From the first step of the rise on there is no way back.
        assert!(check(levels, &at_level(3, Some(4))).is_err());
    }

    #[test]
    fn the_first_certificate_that_ends_counts() {
        let authority = Authority::create("c.local").unwrap();
        let until = certificates_until(&[&authority.certificate])
            .unwrap()
            .unwrap();
        let days = (until.as_second() - Timestamp::now().as_second()) / 86_400;
        assert!((3_648..=3_650).contains(&days), "{days}");
        assert_eq!(certificates_until(&[""]).unwrap(), None);
    }
}
