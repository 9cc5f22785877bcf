//! Upgrades: what a cluster may use while its nodes run different releases, what stands against an
//! upgrade, and what is planned.
//!
//! A node's *software version* is what it runs. The cluster's *feature level* is what all of it may use; it
//! rises only when every node can, and never falls. Until then new releases speak the old level.

pub mod run;

use crate::error_code::{ApiError, ErrorCode};
use crate::ids::NodeUid;
use crate::release::{EngineId, Manifest, SupportedPaths};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How long every node must have run the new release before the level rises by itself, seconds.
pub const SOAK_SECONDS: u32 = 600;
/// Longest such time that an operator may name, seconds: a month.
pub const SOAK_SECONDS_MAX: u32 = 31 * 86_400;
/// Most findings in a plan; what is found beyond is of the same kind.
pub const FINDINGS_MAX: usize = 200;
/// Most steps and nodes in a plan.
pub const PLAN_NODES_MAX: usize = crate::limits::NODES_MAX;

/// Something that a cluster may use from a feature level on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Feature {
    /// As the operator writes it: a command, an option, a field.
    pub name: &'static str,
    /// The level.
    pub level: u32,
}

impl Feature {
    /// Whether a cluster at `level` may use it. Called before anything of it is stored or sent: what an older
    /// release does not know, it would drop without a word.
    ///
    /// # Errors
    /// `available_after_upgrade`, saying what it waits for.
    pub fn require(self, level: u32) -> Result<(), ApiError> {
        if self.level <= level {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::AvailableAfterUpgrade,
            format!(
                "{} is available after all nodes are upgraded: it needs feature level {}, the cluster \
                 uses {level}. {}",
                self.name,
                self.level,
                ErrorCode::AvailableAfterUpgrade.remedy()
            ),
        ))
    }
}

/// Feature levels that a release can run, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LevelRange {
    /// Lowest.
    pub min: u32,
    /// Highest.
    pub max: u32,
}

impl LevelRange {
    /// What this code can.
    pub const OWN: Self = Self {
        min: crate::release::FEATURE_LEVEL_MIN,
        max: crate::release::FEATURE_LEVEL,
    };

    /// Whether a release of this range can run in a cluster at `level`.
    ///
    /// # Errors
    /// Why not, and what to do, in words.
    pub fn admits(self, level: u32) -> Result<(), String> {
        let Self { min, max } = self;
        if level > max {
            return Err(format!(
                "the cluster uses feature level {level}, this release knows {min} to {max}: it is older than \
                 what the cluster was upgraded to. Install the release that the other nodes run"
            ));
        }
        if level < min {
            return Err(format!(
                "the cluster uses feature level {level}, this release needs at least {min}: it is too new for \
                 one step. Upgrade the cluster to a release in between first (`rladmin cluster upgrade paths`)"
            ));
        }
        Ok(())
    }
}

/// What a node runs, as far as an upgrade is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseFacts {
    /// Version.
    pub version: String,
    /// Build id.
    pub build_id: String,
    /// Feature levels that it can run.
    pub levels: LevelRange,
}

impl From<&Manifest> for ReleaseFacts {
    fn from(manifest: &Manifest) -> Self {
        Self {
            version: manifest.version.to_string(),
            build_id: manifest.build_id.clone(),
            levels: LevelRange {
                min: manifest.feature_min,
                max: manifest.feature_max,
            },
        }
    }
}

/// What install.sh tells the cluster of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodePhase {
    /// It is about to run another release. One node at a time.
    Begin,
    /// It runs that release, and has been found well.
    Done,
    /// It runs what it ran before.
    Back,
}

/// What the store holds of upgrades; key [`crate::documents::keys::UPGRADE`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upgrade {
    /// Schema of this document: 1.
    pub schema: u32,
    /// What each node runs for good; a node that has never been upgraded is not named.
    pub nodes: Vec<NodeRelease>,
    /// The upgrade that has begun and is not finalised.
    pub current: Option<OpenUpgrade>,
    /// The last one that was.
    pub last: Option<ClosedUpgrade>,
    /// Whether the level waits for an operator after the soak.
    pub hold_finalize: bool,
    /// How long the soak takes, seconds; `None`: [`SOAK_SECONDS`].
    pub soak_seconds: Option<u32>,
    /// The upgrade of all nodes by one command, under way or the last one.
    pub run: Option<run::UpgradeRun>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Upgrade {
    /// The node on which an installer is at work.
    #[must_use]
    pub fn under_way(&self) -> Option<(&NodeRelease, &NodeUpgrade)> {
        self.nodes
            .iter()
            .find_map(|node| Some((node, node.under_way.as_ref()?)))
    }

    /// How long the soak takes, seconds.
    #[must_use]
    pub fn soak(&self) -> u32 {
        self.soak_seconds.unwrap_or(SOAK_SECONDS)
    }

    /// The lowest level that a node must be able to run, now or in a moment.
    #[must_use]
    pub fn binding_level(&self, level: u32) -> u32 {
        let raising = self.current.as_ref().and_then(|open| open.raising.as_ref());
        raising.map_or(level, |raising| raising.to.max(level))
    }
}

/// What a node runs for good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRelease {
    /// The node.
    pub node: NodeUid,
    /// What it runs, and comes back with; `None`: what it is heard with.
    #[serde(default)]
    pub release: Option<ReleaseFacts>,
    /// What an installer is making it run.
    #[serde(default)]
    pub under_way: Option<NodeUpgrade>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// An installer is at work on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeUpgrade {
    /// To this release.
    pub to: ReleaseFacts,
    /// Since when.
    pub began: Timestamp,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// An upgrade that is not finalised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenUpgrade {
    /// The version before.
    pub from: String,
    /// The version to which nodes go.
    pub to: String,
    /// When it began.
    pub began: Timestamp,
    /// Since when every node runs `to`; `None`: not yet.
    #[serde(default)]
    pub all_new_since: Option<Timestamp>,
    /// Whether an operator wants it finalised without waiting for the end of the soak.
    #[serde(default)]
    pub asked: bool,
    /// The level is being raised: there is no way back.
    #[serde(default)]
    pub raising: Option<Raising>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// How far the rise of the level is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Raising {
    /// From this level.
    pub from: u32,
    /// To this one.
    pub to: u32,
    /// When it began.
    pub began: Timestamp,
    /// Migrations of documents that are done, by name.
    #[serde(default)]
    pub migrated: Vec<String>,
    /// Where the one that is under way goes on; `None`: at its beginning.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// An upgrade that was finalised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClosedUpgrade {
    /// The version before.
    pub from: String,
    /// The version after.
    pub to: String,
    /// The level before.
    pub level_from: u32,
    /// The level after, that every node confirmed.
    pub level_to: u32,
    /// When it began.
    pub began: Timestamp,
    /// When it was finalised.
    pub ended: Timestamp,
}

/// What a node tells in its heartbeats for upgrades. What an older release does not tell is unknown, and
/// stands as 0 or `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpgradeObservation {
    /// The cluster's level as this node reads it.
    pub level: u32,
    /// Free on the file system of its programs, bytes.
    pub install_free: u64,
    /// When its certificate or the cluster's CA ends, whichever is first.
    pub certificates_until: Option<Timestamp>,
    /// Its part in an upgrade of all nodes.
    pub turn: run::TurnObservation,
}

/// Where an upgrade is to go: what matters of a release's manifest, and for which node is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpgradeTarget {
    /// Version.
    pub version: String,
    /// Build id.
    pub build_id: String,
    /// Lowest feature level that it can run.
    pub feature_min: u32,
    /// Highest.
    pub feature_max: u32,
    /// Engines that it carries.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub engines: Vec<EngineId>,
    /// From which versions it may be installed over directly.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub supported_paths: SupportedPaths,
    /// Version of its supervisord.
    #[serde(default)]
    pub supervisor_version: String,
    /// What it takes on disk, bytes.
    #[serde(default)]
    pub unpacked_bytes: u64,
    /// The node whose turn it would be now; absent: all of them, one after the other.
    #[serde(default)]
    pub node: Option<NodeUid>,
}

impl From<&Manifest> for UpgradeTarget {
    fn from(manifest: &Manifest) -> Self {
        Self {
            version: manifest.version.to_string(),
            build_id: manifest.build_id.clone(),
            feature_min: manifest.feature_min,
            feature_max: manifest.feature_max,
            engines: manifest
                .engines
                .iter()
                .map(|source| source.engine.clone())
                .collect(),
            supported_paths: manifest.supported_paths.clone(),
            supervisor_version: manifest.supervisor_version.clone(),
            unpacked_bytes: manifest.files.values().map(|file| file.size).sum(),
            node: None,
        }
    }
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Gravity {
    /// The upgrade is refused.
    #[default]
    Blocker,
    /// To know.
    Warning,
}

/// Something that stands against an upgrade, or is to be known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// How grave it is.
    pub severity: Gravity,
    /// Its code; `rladmin explain` has more of it.
    pub code: ErrorCode,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub remedy: String,
}

/// A part of a node in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedComponent {
    /// `cnm_exec`, `dmcproxy`, …
    pub name: String,
    /// What it runs; absent: not known.
    pub from: Option<String>,
    /// What it will run.
    pub to: String,
}

/// A node in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedNode {
    /// Its id.
    pub uid: NodeUid,
    /// Its address.
    pub address: String,
    /// Whether it is the primary node.
    pub primary: bool,
    /// `to do`, `under way` or `done`.
    pub state: String,
    /// Its parts.
    pub components: Vec<PlannedComponent>,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedStep {
    /// Its number, from 1.
    pub number: u32,
    /// The node; absent: the cluster.
    pub node: Option<NodeUid>,
    /// What is done.
    pub what: String,
    /// What clients notice of it.
    pub clients: String,
}

/// An upgrade as it would go. Nothing is changed by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpgradePlan {
    /// The version to which it goes.
    pub version: String,
    /// Its build id.
    pub build_id: String,
    /// The cluster's feature level now.
    pub level_from: u32,
    /// The level after it is finalised.
    pub level_to: u32,
    /// Nodes, in the order in which they are upgraded.
    pub nodes: Vec<PlannedNode>,
    /// Steps, in order.
    pub steps: Vec<PlannedStep>,
    /// What stands against it, and what is to be known.
    pub findings: Vec<Finding>,
    /// From when on there is no way back.
    pub point_of_no_return: String,
}

impl UpgradePlan {
    /// What stands against it.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Gravity::Blocker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gated_command_says_what_it_waits_for() {
        let feature = Feature {
            name: "a command that only this test has",
            level: 2,
        };
        assert_eq!(feature.require(2), Ok(()));
        let error = feature.require(1).unwrap_err();
        assert_eq!(error.error_code, ErrorCode::AvailableAfterUpgrade);
        assert!(
            error
                .description
                .contains("is available after all nodes are upgraded"),
            "{error}"
        );
    }

    #[test]
    fn a_release_runs_within_its_range_alone() {
        let range = LevelRange { min: 2, max: 3 };
        assert!(range.admits(2).is_ok() && range.admits(3).is_ok());
        assert!(range.admits(1).unwrap_err().contains("too new"));
        assert!(range.admits(4).unwrap_err().contains("older"));
    }

    /// What a newer release wrote must come back as it was.
    #[test]
    fn fields_of_a_newer_release_are_kept() {
        let text = r#"{"schema":1,"nodes":[{"node":1,"release":null,"under_way":null,"later":[1]}],
            "current":{"from":"1.0.0","to":"1.1.0","began":"2030-01-01T00:00:00Z","phase":"canary"},
            "last":null,"hold_finalize":false,"soak_seconds":null,"policy":{"canary":2}}"#;
        let document: Upgrade = serde_json::from_str(text).unwrap();
        let back = serde_json::to_value(&document).unwrap();
        assert_eq!(back["policy"]["canary"], 2);
        assert_eq!(back["nodes"][0]["later"][0], 1);
        assert_eq!(back["current"]["phase"], "canary");
    }
}
